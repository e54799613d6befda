"""Counts of what was spent, and limits on them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

from thinktime.core.errors import InputError, check_number


@dataclass(frozen=True)
class Usage:
    """What some work cost. Counts that papers often add up are kept apart here; reports may add them up.

    ``None`` means unknown, and a sum with an unknown part is unknown.
    """

    prompt_tokens: int | None = 0
    """Prompt and prefix tokens computed; all of them if an endpoint does not report which ones it reused."""
    cached_tokens: int | None = 0
    """Prompt and prefix tokens whose keys and values were reused."""
    generated_tokens: int = 0
    """Tokens sampled, once per tree node, pruned branches included."""
    scorer_tokens: int = 0
    """Tokens that scorers read, each once in a search, and tokens that judges write."""
    model_calls: int = 0
    """Continuations requested from the generator."""
    scorer_calls: int = 0
    """Scores requested from scorers, and comparisons requested from judges."""
    flops: float | None = 0.0
    """Floating-point operations of the generator: linear layers and attention."""
    scorer_flops: float | None = 0.0
    """Floating-point operations of scorers."""
    kv_bytes: float | None = 0.0
    """Bytes of keys and values read while decoding."""
    seconds: float = 0.0
    """Machine time: a batch's wall time is shared among its rows by their tokens."""
    dollars: float | None = 0.0
    """Money, by the price of the model."""
    denoiser_calls: int = 0
    """Evaluations of a denoiser (number of function evaluations, NFE); guidance takes two per step."""
    decodes: int = 0
    """Latents decoded to pictures."""
    uncounted_calls: int = 0
    """Calls of unknown cost. They are charged their worst case; if cancelled, what arrived and a little more."""
    embeddings: int = 0
    """Nodes mapped to vectors."""
    actions: int = 0
    """Actions carried out in environments."""
    judge_tokens: int = 0
    """The part of ``scorer_tokens`` that judges write."""

    @property
    def written_tokens(self) -> int:
        """Tokens that models and judges write, which a budget of tokens limits."""
        return self.generated_tokens + self.judge_tokens

    def __add__(self, other: Usage) -> Usage:
        pairs = zip(_counts(self), _counts(other), strict=True)
        return Usage(*[None if a is None or b is None else a + b for a, b in pairs])  # type: ignore[arg-type]

    def __sub__(self, other: Usage) -> Usage:
        pairs = zip(_counts(self), _counts(other), strict=True)
        return Usage(*[None if a is None or b is None else a - b for a, b in pairs])  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, float | None]:
        """The counts by name."""
        return dict(zip(_FIELDS, _counts(self), strict=True))

    @classmethod
    def from_dict(cls, counts: Mapping[str, Any]) -> Usage:
        """The usage that `as_dict` gave.

        Raises:
            TypeError: it is no mapping, a name is unknown, or a value is no count.
        """
        if not isinstance(counts, Mapping):
            raise TypeError(f"usage={str(counts)[:40]}")
        for name, value in counts.items():
            if type(value) not in _TYPES.get(name, ()) or (value is not None and not 0 <= value < math.inf):
                raise TypeError(f"usage: {name}={str(value)[:40]}")
        return cls(**counts)


_FIELDS = tuple(field.name for field in fields(Usage))
_counts = attrgetter(*_FIELDS)
_TYPES = {
    field.name: (
        int,
        *([float] if "float" in str(field.type) else []),
        *([type(None)] if "None" in str(field.type) else []),
    )
    for field in fields(Usage)
}
"""The types that each count may have; None is an unknown count."""


def total(parts: Iterable[Usage]) -> Usage:
    """Sum of usages; zero if there are none."""
    some = list(parts)
    if len(some) == 1:
        return some[0]
    columns = zip(*map(_counts, some), strict=True)
    return Usage(*[None if None in column else sum(column) for column in columns])  # type: ignore[arg-type]


def uncounted(worst: Usage) -> Usage:
    """The usage to charge for calls whose real cost stays unknown: their worst case, counted in ``uncounted_calls``."""
    return replace(worst, uncounted_calls=worst.model_calls)


@dataclass(frozen=True)
class Budget:
    """Hard limits. ``None`` is unlimited.

    ``tokens`` bounds the tokens that models and judges generate, ``nfe`` evaluations of a denoiser, ``actions`` actions
    in environments; ``flops`` bounds models and scorers together; ``seconds`` is wall time since the search began.
    """

    tokens: int | None = None
    calls: int | None = None
    flops: float | None = None
    seconds: float | None = None
    dollars: float | None = None
    nfe: int | None = None
    actions: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            check_number(f"budget.{field.name}", value)
            if not value > 0:
                raise InputError(f"budget.{field.name}", value, "give a limit above 0, or leave it out for no limit")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``4000tok``, ``400nfe``, ``16calls``, ``20actions``, ``2e12flops``, ``30s``, ``0.05usd``.

        Several are joined by commas.

        Raises:
            InputError: a part has no known unit or no positive number.
        """
        limits: dict[str, float] = {}
        for part in text.split(","):
            match = re.fullmatch(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([a-z$]+)\s*", part)
            name = _UNITS.get(match[2]) if match else None
            if match is None or name is None:
                raise InputError(
                    "budget", part, "write a number and a unit: 4000tok, 400nfe, 16calls, 2e12flops, 30s, 0.05usd"
                )
            number = float(match[1])
            if number == float("inf"):
                raise InputError("budget", part, "give a finite number, or leave it out for no limit")
            if number < (1 if name in _WHOLE else 0):
                raise InputError("budget", part, "give a limit above 0, or leave it out for no limit")
            limits[name] = int(number) if name in _WHOLE else number
        return cls(**limits)  # type: ignore[arg-type]  # ints where ints are declared


_WHOLE = ("tokens", "calls", "nfe", "actions")
_UNITS = {
    "nfe": "nfe",
    **dict.fromkeys(("tok", "toks", "token", "tokens"), "tokens"),
    **dict.fromkeys(("call", "calls"), "calls"),
    **dict.fromkeys(("action", "actions"), "actions"),
    **dict.fromkeys(("flop", "flops"), "flops"),
    **dict.fromkeys(("s", "sec", "seconds"), "seconds"),
    **dict.fromkeys(("usd", "$", "dollars"), "dollars"),
}
