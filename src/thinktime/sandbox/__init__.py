"""Runs programs that nobody has read, and tests them, in a sandbox."""
