"""Benchmarks of the gateway and its HTTP client beside their peers."""
