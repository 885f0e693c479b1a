"""What must be true of a live lab, the reading of one, and how the two compare; walks; faults on purpose.

`model.py` has the data. `expect/` says what must be true, `read/` reads a lab, `report.py` compares the two. `walk/`
follows a packet, `faults/` breaks things on purpose. Only `component.py`, the last step of `up`, needs pulumi.
"""
