"""A stack in linear memory for each context."""
