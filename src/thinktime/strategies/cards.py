"""The description of a strategy, parsed from its docstrings and options, for lists of strategies."""

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
    """A setting: its default and its description; None if it has no description."""

    default: Any
    about: str | None


@dataclass(frozen=True)
class Card:
    """A strategy's description.

    ``paper`` is the source in brackets on the first line of its module, or None. ``method`` is the whole docstring of
    the module; ``about`` is the docstring of the class without its options.
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
    """Build the card of a strategy from its class and its module."""
    method = cleandoc(sys.modules[kind.__module__].__doc__ or "")
    papers = _SOURCE.findall(method.partition("\n")[0])
    written = kind.__doc__ or ""
    generated = written.startswith(f"{kind.__name__}(")  # Python gives a dataclass without a docstring its signature
    about, _, arguments = ("" if generated else cleandoc(written)).partition("\n\nArgs:\n")
    parts = _ARGUMENT.split(cleandoc(arguments))[1:]
    explained = {option: " ".join(text.split()) for option, text in zip(parts[::2], parts[1::2], strict=True)}
    settings = {option: Option(default, explained.get(option)) for option, default in options(kind).items()}
    return Card(name, "; ".join(papers) or None, method, about, settings, sorted(kind.needs))
