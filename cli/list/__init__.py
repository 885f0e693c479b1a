"""Which stacks there are, and which of them stand."""
