"""`./lab test`: the tests, and beside them lint, types and spelling."""
