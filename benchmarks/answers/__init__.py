"""Benchmark of reading and comparing answers."""
