"""A new stack file."""
