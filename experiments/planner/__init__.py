"""The choices of calibrations on held-out problems."""
