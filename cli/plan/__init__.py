"""Before `up`: `./lab plan` and `./lab cost`. They run the program in this process and need no account."""
