"""Real programs, killed with SIGKILL at random moments and started again, beside undisturbed ones."""
