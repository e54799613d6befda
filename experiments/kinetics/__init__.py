"""Row 43: what inference costs with memory traffic, and sparse attention."""
