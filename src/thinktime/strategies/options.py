"""Checks that several strategies make of their options."""

from __future__ import annotations

from thinktime.core.errors import InputError


def at_least(field: str, value: int, least: int) -> None:
    """Raise an `InputError` unless ``value >= least``."""
    if value < least:
        raise InputError(field, value, f"give {least} or more")
