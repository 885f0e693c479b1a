"""`./lab reap`: destroy ephemeral stacks whose time is over, then delete what is left of them in AWS."""
