"""Benchmarks of speed: thinktime and its peers in one run."""
