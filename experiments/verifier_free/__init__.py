"""Row 09: length and marker words against correctness, and votes they have a say in."""
