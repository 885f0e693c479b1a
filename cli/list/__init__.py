"""`./lab list`: the stacks, and which of them are up."""
