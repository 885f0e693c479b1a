"""`./lab completion`: the script of each shell (lab.*), and what it may offer for an argument (candidates.py)."""
