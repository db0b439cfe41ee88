"""What a program has open."""
