"""`./lab status`: what is known of one stack: its lab, the last verify and its sandbox."""
