"""Linkers: which import a guest gets from where."""
