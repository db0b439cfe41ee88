"""Programs: from a file to an exit status."""
