"""Calico: its operator or manifest, a resource for every pool and setting, and the blocks that nodes have claimed."""
