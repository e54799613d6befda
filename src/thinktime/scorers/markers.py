"""Surface features as a score: length, words that hedge, reconsider or connect (Wang et al. 2025, arXiv 2504.14047).

They say something of correctness for some models only, so weights belong to the model they were fitted on, by
`thinktime.bench.features`. `weighted_majority` over these scores is the marker-weighted vote.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import exp, log
from pathlib import Path
from typing import Any

from thinktime.core.errors import InputError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage

HEDGING = ("maybe", "perhaps", "possibly", "might", "could be", "seems", "probably", "i think", "i guess", "not sure")
THINKING = ("wait", "hmm", "let me", "actually", "alternatively", "on second thought", "let's check", "hold on")
DISCOURSE = ("first", "second", "next", "then", "so", "therefore", "thus", "because", "since", "hence", "finally")

FEATURES = ("log_length", "hedging", "thinking", "discourse")


@dataclass(frozen=True)
class Markers:
    """Words and phrases of three kinds, in any language.

    Raises:
        InputError: a list is empty or holds a blank.
    """

    hedging: tuple[str, ...] = HEDGING
    thinking: tuple[str, ...] = THINKING
    discourse: tuple[str, ...] = DISCOURSE

    def __post_init__(self) -> None:
        for name, phrases in asdict(self).items():
            if not phrases or any(not phrase.strip() for phrase in phrases):
                raise InputError(f"markers.{name}", phrases, "give at least one word or phrase, and no blank ones")

    @cached_property
    def _kinds(self) -> dict[str, list[str]]:
        kinds: dict[str, list[str]] = {}
        for name, phrases in asdict(self).items():
            for phrase in phrases:
                kinds.setdefault(_plain(phrase), []).append(name)
        return kinds

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._kinds, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def rates(self, text: str) -> dict[str, float]:
        """Markers of each kind per 100 words: whole words in any case, the longest phrase first, each place once."""
        found = dict.fromkeys(FEATURES[1:], 0)
        for match in self._pattern.finditer(_plain(text)):
            for name in self._kinds[match[0]]:
                found[name] += 1
        words = max(1, len(text.split()))
        return {name: 100 * count / words for name, count in found.items()}

    def features(self, text: str) -> tuple[float, ...]:
        """Logarithm of the words, and the rates of hedging, thinking and discourse markers."""
        return (log(max(1, len(text.split()))), *self.rates(text).values())


@dataclass(frozen=True)
class Weights:
    """A logistic regression on standardised features: ``coefficients`` are per standard deviation.

    ``generator`` names the model on whose samples it was fitted, and the only one it is good for.
    """

    generator: str
    coefficients: tuple[float, ...]
    intercept: float
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    markers: Markers
    problems: int
    samples: int

    def weight(self, text: str) -> float:
        """How likely a sample that reads like this is right, between 0 and 1."""
        features = zip(self.markers.features(text), self.means, self.spreads, self.coefficients, strict=True)
        z = self.intercept + sum(beta * (value - mean) / spread for value, mean, spread, beta in features)
        return 1 / (1 + exp(-z)) if z > -700 else 0.0

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Read what `save` wrote.

        Raises:
            InputError: the file cannot be read or is no such file.
        """
        try:
            fields = json.loads(path.read_text())
            markers = Markers(**{name: tuple(phrases) for name, phrases in fields.pop("markers").items()})
            lists: dict[str, Any] = {name: tuple(fields.pop(name)) for name in ("coefficients", "means", "spreads")}
            if any(len(values) != len(FEATURES) for values in lists.values()):
                raise ValueError(f"it needs one number for each of {', '.join(FEATURES)}")
            return cls(**lists, markers=markers, **fields)
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError("weights", str(path), f"no marker weights ({error}); fit them again") from None


class MarkerScorer:
    """Scores complete texts by their surface; a generation that has not ended has no score.

    Args:
        weights: fitted on samples of this very generator.
        generator: the name of the generator whose samples are to be scored.

    Raises:
        InputError: the weights were fitted on another model.
    """

    capabilities = frozenset({Capability.SCORES})

    def __init__(self, weights: Weights, generator: str) -> None:
        if weights.generator != generator:
            fix = f"these weights were fitted on it and say nothing of {generator!r}; fit them on that model's samples"
            raise InputError("weights", weights.generator, fix)
        self._weights = weights
        digest = hashlib.blake2b(json.dumps(asdict(weights)).encode(), digest_size=6).hexdigest()
        self.name = f"markers@{digest}"

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """A reading runs no model."""
        return _READING

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One reading per node, from ``state.text``."""
        return [Score(self._weights.weight(node.state.text) if node.done else None, _READING) for node in nodes]


_READING = Usage(scorer_calls=1)


def _plain(text: str) -> str:
    text = text.replace("\u2019", "'").lower()
    return " ".join(text.split())
