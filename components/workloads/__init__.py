"""Demonstration pods on the lab's networks."""
