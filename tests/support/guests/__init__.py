"""Guests: compiled from C, or in a store of the test's own."""
