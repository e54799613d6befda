"""Benchmark of the bookkeeping of a search, without a model."""
