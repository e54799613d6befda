"""Drafts that are checked and written again."""
