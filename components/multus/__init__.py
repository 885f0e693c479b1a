"""Multus, the networks it attaches pods to, and the files on each node that make it CRI-O's default network."""
