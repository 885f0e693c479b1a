"""What starts, changes and stops a lab: the pulumi CLI, its state, its progress, and the EC2 machines' power."""
