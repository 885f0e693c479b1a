"""Exercises: a fault that is not named, how a user would report it, and hints that lead to it layer by layer."""
