"""What runs on a machine: the shell scripts, and the one class that runs them over SSH."""
