"""Surface features as a score: length, words that hedge, reconsider or connect (Wang et al. 2025, arXiv 2504.14047).

They predict correctness for some models only, so weights apply only to the model they were fitted on
(`experiments/verifier_free` fits them). `weighted_majority` with these scores is the marker-weighted vote.
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
        InputError: a list is empty or contains a blank entry.
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
        """Markers of each kind per 100 words, ignoring case. The longest matching phrase counts, without overlaps."""
        found = dict.fromkeys(FEATURES[1:], 0)
        for match in self._pattern.finditer(_plain(text)):
            for name in self._kinds[match[0]]:
                found[name] += 1
        words = max(1, len(text.split()))
        return {name: 100 * count / words for name, count in found.items()}

    def features(self, text: str) -> tuple[float, ...]:
        """Logarithm of the number of words, and the rates of hedging, thinking and discourse markers."""
        return (log(max(1, len(text.split()))), *self.rates(text).values())


@dataclass(frozen=True)
class Weights:
    """A logistic regression on standardised features: ``coefficients`` are per standard deviation.

    ``generator`` names the model whose samples the weights were fitted on; they apply to no other model.
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
        """The estimated probability that a sample with this text is right."""
        features = zip(self.markers.features(text), self.means, self.spreads, self.coefficients, strict=True)
        z = self.intercept + sum(beta * (value - mean) / spread for value, mean, spread, beta in features)
        return 1 / (1 + exp(-z)) if z > -700 else 0.0

    def save(self, path: Path) -> None:
        """Write the weights as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Weights:
        """Read weights that `save` wrote.

        Raises:
            InputError: the file cannot be read or does not hold marker weights.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
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
    """Scores complete texts by their surface features; an incomplete generation has no score.

    Args:
        weights: fitted on samples of the same generator.
        generator: the name of the generator whose samples are scored.

    Raises:
        InputError: the weights were fitted on another model.
    """

    capabilities = frozenset({Capability.SCORES})

    def __init__(self, weights: Weights, generator: str) -> None:
        if weights.generator != generator:
            fix = f"these weights do not apply to {generator!r}; fit weights on samples of that model"
            raise InputError("weights", weights.generator, fix)
        self._weights = weights
        digest = hashlib.blake2b(json.dumps(asdict(weights)).encode(), digest_size=6).hexdigest()
        self.name = f"markers@{digest}"

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One call; no model runs."""
        return _COST

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node, from ``state.text``."""
        return [Score(self._weights.weight(node.state.text) if node.done else None, _COST) for node in nodes]


_COST = Usage(scorer_calls=1)


def _plain(text: str) -> str:
    text = text.replace("\u2019", "'").lower()
    return " ".join(text.split())
