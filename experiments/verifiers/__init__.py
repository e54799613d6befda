"""Verifiers on samples of a real model."""
