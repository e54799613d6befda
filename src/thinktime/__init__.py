"""Inference-time compute: spend a budget on sampling, search and verification, and say exactly what it cost."""

__version__ = "0.1.0"
