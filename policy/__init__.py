"""Rules that every stack keeps to, in `./lab plan` and in the pulumi engine."""
