"""Speculative reasoning: a small model drafts steps, a large one rates them."""
