"""Contexts and the switch between them. Knows no instruments and no event loop by name."""
