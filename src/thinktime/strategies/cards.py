"""What a strategy's docstrings and options say of it, in parts: for lists of strategies and for whoever picks one."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from inspect import cleandoc
from typing import Any

from thinktime.strategies import options

_SOURCE = re.compile(r"\(([^()]*\b(?:arXiv|(?:19|20)\d\d)\b[^()]*)\)")
_ARGUMENT = re.compile(r"^(\w+): ", re.MULTILINE)


@dataclass(frozen=True)
class Option:
    """A setting: its default, and what it does (None: nothing is written down)."""

    default: Any
    about: str | None


@dataclass(frozen=True)
class Card:
    """A strategy's description.

    ``paper`` is what the first line of its module gives in brackets, None where that names no source; ``method`` is
    the whole docstring of the module, ``about`` that of the class without its options.
    """

    name: str
    paper: str | None
    method: str
    about: str
    options: dict[str, Option]
    needs: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The card as JSON values."""
        return asdict(self)


def card(name: str, kind: type[Any]) -> Card:
    """Read the card of a strategy off its class and its module."""
    method = cleandoc(sys.modules[kind.__module__].__doc__ or "")
    papers = _SOURCE.findall(method.partition("\n")[0])
    written = kind.__doc__ or ""
    generated = written.startswith(f"{kind.__name__}(")  # a dataclass without a docstring is given its signature
    about, _, arguments = ("" if generated else cleandoc(written)).partition("\n\nArgs:\n")
    parts = _ARGUMENT.split(cleandoc(arguments))[1:]
    explained = {option: " ".join(text.split()) for option, text in zip(parts[::2], parts[1::2], strict=True)}
    settings = {option: Option(default, explained.get(option)) for option, default in options(kind).items()}
    return Card(name, "; ".join(papers) or None, method, about, settings, sorted(kind.needs))
