"""Runs untrusted programs, and tests them, in a sandbox."""
