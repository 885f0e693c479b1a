"""A packet's way between two pods, hop by hop."""
