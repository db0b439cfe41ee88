"""What holds the package as a whole: which module may import which, and how much of it the tests run."""
