"""Linkers: where each import of a guest comes from."""
