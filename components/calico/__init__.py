"""Calico: its operator or manifest, every pool and setting as a row of its own, and the blocks nodes have claimed."""
