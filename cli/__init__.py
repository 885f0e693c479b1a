"""`./lab`: one module for each command, in a room for each thing a person does."""
