"""The lab as Pulumi components, one room per concern; `lab.py` alone knows the order."""
