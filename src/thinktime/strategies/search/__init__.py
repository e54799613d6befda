"""Scored partial solutions: branch, prune, go back."""
