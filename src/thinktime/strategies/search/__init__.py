"""Searches over scored partial solutions: they branch, prune and backtrack."""
