"""`./lab page`: the page of a lab."""
