"""The computers of a lab. Each kind of machine (`machines.provider` in the stack file) has a folder of its own."""
