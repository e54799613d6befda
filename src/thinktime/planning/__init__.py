"""Chooses a method for a problem and a budget: difficulty, cost laws, diagnoses, and the strategy ``auto``."""
