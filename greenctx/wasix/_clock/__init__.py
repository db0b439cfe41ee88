"""Epochs, deadlines and waiting."""
