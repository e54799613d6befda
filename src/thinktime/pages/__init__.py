"""Web pages as plain HTML, CSS and JavaScript files. They need no build step and load nothing from other hosts."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def page(name: str) -> str:
    """The text of a file in this folder."""
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
