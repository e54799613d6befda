"""What the shipped models can do, and where they err."""
