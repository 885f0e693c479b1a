"""`./lab airgap`: everything that a lab fetches."""
