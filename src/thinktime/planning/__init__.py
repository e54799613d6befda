"""Which method to use for a problem and a budget: difficulty, cost laws, diagnoses, and the strategy ``auto``."""
