"""`./lab plan --against REV`: what a change does to the labs. It needs no cloud account."""
