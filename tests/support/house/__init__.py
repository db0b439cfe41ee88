"""Rules for the package as a whole: the order of imports, and the coverage by tests."""
