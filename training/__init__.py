"""Scripts that make the shipped models, reproducible from a seed."""
