"""Languages of other programs that a stack file carries as text. Each module parses one, and knows no lab."""
