"""Tasks, runs, statistics and reports."""
