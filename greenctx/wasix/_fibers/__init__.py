"""Calls into guests, each on a fiber of its own, whose host functions may switch contexts."""
