"""Local inference. Generators and scorers use it; nothing else does."""
