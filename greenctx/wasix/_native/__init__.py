"""What happens on a fiber, in Cython."""
