"""Judges that get better with compute, and the split between solving and checking."""
