"""Faults on purpose: break one thing of a live lab, say what verify and walk must then report, and undo it."""
