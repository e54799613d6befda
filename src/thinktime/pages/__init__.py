"""What browsers are shown: plain HTML, CSS and JavaScript files. No build step, nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def page(name: str) -> str:
    """The text of one of these files."""
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
