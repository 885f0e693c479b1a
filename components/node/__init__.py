"""What runs on a machine: the shell scripts, and the component that runs them over SSH."""
