"""What an environment tells about itself: to instruments, in stack dumps, in the log."""
