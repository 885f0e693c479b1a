"""What a page shows, as plain values that JSON can hold. Each module is one part of the page."""
