"""Reports of an environment about itself: to instruments, in stack dumps, in the log."""
