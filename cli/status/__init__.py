"""One stack: what stands of it."""
