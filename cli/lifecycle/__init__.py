"""What starts, changes and stops a lab: the pulumi CLI, its state and locks, its progress, and the machines' power."""
