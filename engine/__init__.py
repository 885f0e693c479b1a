"""Runs a Pulumi program in this process, without the pulumi CLI, and draws the graph of what it registers.

Imports neither `cli` nor `components`: a review runs the program of another revision on it.
"""
