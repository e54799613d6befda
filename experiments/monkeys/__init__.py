"""Row 37: coverage of repeated sampling, its law, and what votes make of it."""
