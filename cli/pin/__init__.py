"""`./lab pin`: the checksums of a release, fetched once and written for review."""
