"""Deployments that try the lab's networks."""
