"""Contexts and the switch between them. Imports neither instruments nor an event loop."""
