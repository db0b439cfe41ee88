"""The code that runs on fibers, in Cython."""
