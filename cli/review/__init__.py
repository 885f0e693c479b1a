"""`./lab plan --against REV`: what a change does to the labs, told without a cloud account."""
