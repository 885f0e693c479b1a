"""`./lab doctor`: everything that would stop or spoil an `up`, all at once, before anything is made."""
