"""`./lab doctor`: everything that would stop or spoil an `up`, all at once, before anything is made.

A check is data (model.py). Each other file has the checks of one subject, listed in its function `checks`: this
computer's tools, local machines, existing hosts, an AWS account.
"""
