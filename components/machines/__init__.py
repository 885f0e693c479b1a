"""The computers of a lab: made on EC2, made on this computer, or there already."""
