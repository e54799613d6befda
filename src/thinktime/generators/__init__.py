"""Adapters that extend partial generations; each declares its capabilities."""
