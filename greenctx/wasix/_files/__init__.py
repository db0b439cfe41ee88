"""The open files of a program."""
