"""Local inference, for generators and scorers only."""
