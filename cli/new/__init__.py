"""`./lab new`: writes the file of a new stack."""
