"""Adapters that judge nodes."""
