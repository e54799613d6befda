"""Benchmark of the sandbox of programs."""
