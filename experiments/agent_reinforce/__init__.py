"""Row 34: a graph of answers, searched for within a budget."""
