"""A lab that nobody has built, as a reading of it would look: what each node would have, by the sandbox's plan."""
