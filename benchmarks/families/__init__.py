"""Comparison of model families and chat templates with ``transformers``."""
