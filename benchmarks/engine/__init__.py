"""Benchmarks of the engine: its speed and cost beside its peers, in one run."""
