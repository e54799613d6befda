"""DeepConf: a vote filtered and weighted by the model's own confidence (Fu et al. 2025, arXiv 2508.15260).

The confidence of a token is minus the mean log-probability of the 20 most likely tokens at its place. A group is a
window of consecutive tokens, and its confidence is the mean of theirs. One bad stretch spoils a solution, so the group
with the lowest confidence says more about a sample than the mean of all tokens.

Rules that the paper's text leaves open follow the authors' published code: a sample shorter than a window is one
group; the filter is a linear percentile, and a sample on it is kept; a running sample is stopped by full windows only.
Ours: a running sample is checked every few tokens, not after each one; the consensus counts all warm-up samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import fmean
from typing import ClassVar

from thinktime.core.errors import InputError, ModelError
from thinktime.core.search import Search, refuse_copies
from thinktime.core.selection import Candidate, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Node
from thinktime.strategies.options import above, at_least, one_of

BOTTOM = 0.1
"""The share of groups in the measure ``bottom``."""


def groups(confidences: Sequence[float], window: int) -> list[float]:
    """The mean of every ``window`` consecutive confidences; of all of them if there are fewer."""
    width = min(window, len(confidences))
    sums = [0.0, *accumulate(confidences)]
    return [(end - start) / width for start, end in zip(sums, sums[width:], strict=False)]


def _lowest_tenth(confidences: Sequence[float], window: int) -> float:
    found = sorted(groups(confidences, window))
    return fmean(found[: max(1, int(BOTTOM * len(found)))])


MEASURES: dict[str, Callable[[Sequence[float], int], float]] = {
    "lowest": lambda confidences, window: min(groups(confidences, window)),
    "bottom": _lowest_tenth,
    "tail": lambda confidences, window: fmean(confidences[-window:]),
    "mean": lambda confidences, window: fmean(confidences),
}
"""The confidence of a sample: its lowest group, the mean of its lowest tenth of groups, its end, or all tokens."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies, linear between two values."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[math.ceil(place)] - ordered[low])


@dataclass(frozen=True)
class DeepConf:
    """Sample ``n``, keep the most confident share of the complete samples, and vote with confidences as weights.

    Args:
        n: samples.
        keep: the share that has a vote; the paper has 0.1 (for hundreds of samples) and 0.9.
        by: the confidence of a sample: of its ``lowest`` group, of the ``bottom`` tenth of its groups, of its ``tail``
            of one window, or the ``mean`` of all tokens.
        window: tokens of a group; a good one is shorter than most samples.
    """

    n: int = 16
    keep: float = 0.9
    by: str = "tail"
    window: int = 2048
    needs: ClassVar[frozenset[str]] = frozenset({Capability.CONFIDENCES, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        _share("keep", self.keep)
        one_of("by", self.by, MEASURES)
        at_least("window", self.window, 1)

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], self.n, confidences=True)
        voters = [each for each in measured(search, leaves, self.by, self.window) if each.answer is not None]
        bar = percentile([each.score or 0.0 for each in voters], 1 - self.keep) if voters else 0.0
        kept = [each for each in voters if (each.score or 0.0) >= bar]
        search.log(confidences=[each.score for each in voters], kept=len(kept))
        return search.finish(weighted_majority(kept))


@dataclass(frozen=True)
class DeepConfOnline:
    """Sample ``warmup`` whole; later samples, up to ``n``, end when a group is less confident than these allow.

    The bar is the percentile of the warm-up samples' lowest groups that ``keep`` of them reach. All samples whose
    groups reach it vote, with their lowest group as weight. Sampling ends when one answer has a share of ``consensus``
    of the weights, those of all warm-up samples included: of the few that reach the bar, all may agree by chance.

    Args:
        n: the most samples.
        warmup: samples that set the bar.
        keep: the share of the warm-up samples that reaches the bar; the paper has 0.1 and 0.9.
        window: tokens of a group; a sample is not stopped before it has one.
        every: tokens between two checks of a running sample.
        batch: samples drawn between two counts of the votes; the paper's is 1.
        consensus: the share of the votes that ends the sampling.
    """

    n: int = 32
    warmup: int = 16
    keep: float = 0.9
    window: int = 2048
    every: int = 64
    batch: int = 4
    consensus: float = 0.95
    needs: ClassVar[frozenset[str]] = frozenset({Capability.CONFIDENCES, Capability.PREFIX, Capability.ANSWERS})

    def __post_init__(self) -> None:
        at_least("n", self.n, 1)
        at_least("warmup", self.warmup, 1)
        if self.warmup > self.n:
            raise InputError("warmup", self.warmup, f"give 1 to n={self.n}")
        _share("keep", self.keep)
        at_least("window", self.window, 1)
        at_least("every", self.every, 1)
        at_least("batch", self.batch, 1)
        _share("consensus", self.consensus)

    async def __call__(self, search: Search) -> Answer:
        if search.sampling.temperature == 0:
            refuse_copies(self.n)
        leaves = await search.extend([search.root], self.warmup, confidences=True)
        known = [lowest for leaf in leaves if (lowest := self._lowest(leaf)) is not None]
        bar = percentile(known, 1 - self.keep) if known else 0.0
        whole = measured(search, leaves, "lowest", self.window)
        voters: list[Candidate] = []
        drawn, stopped = len(leaves), 0
        while drawn < self.n and not self._agreed([*whole, *voters]):
            size = min(self.batch, self.n - drawn)
            running = await search.extend([search.root], size, at_most=self.window, confidences=True)
            if not running:
                break
            drawn += len(running)
            while running:
                fallen = [node for node in running if (self._lowest(node) or 0.0) < bar]
                voters += measured(search, [node for node in running if node not in fallen], "lowest", self.window)
                begun = [node for node in running if node.finish == "cut"]
                search.prune([node for node in begun if node in fallen])
                stopped += sum(node in fallen for node in begun)
                going = [node for node in begun if node not in fallen]
                running = await search.extend(going, at_most=self.every, confidences=True) if going else []
        voters = [*(each for each in whole if (each.score or 0.0) >= bar), *voters]
        search.log(bar=bar, samples=drawn, stopped=stopped, voters=len(voters))
        return search.finish(weighted_majority(voters))

    def _lowest(self, node: Node) -> float | None:
        """The confidence of the lowest group; None without confidences."""
        return MEASURES["lowest"](node.state.confidences, self.window) if node.state.confidences else None

    def _agreed(self, voters: Sequence[Candidate]) -> bool:
        """Whether one answer has enough of the votes."""
        chosen = weighted_majority(voters)
        return chosen is not None and (chosen.share or 0.0) >= self.consensus


def measured(search: Search, nodes: Sequence[Node], by: str, window: int) -> list[Candidate]:
    """The complete nodes with their confidence as score; those without confidences are left out.

    Raises:
        ModelError: tokens were drawn, but no node has confidences.
    """
    drawn = [node for node in nodes if node.length]
    found = [node for node in drawn if node.state.confidences]
    if drawn and not found:
        raise ModelError(
            f"none of {len(drawn)} samples has token confidences: the endpoint does not list the most likely tokens "
            f"(top_logprobs); take majority"
        )
    candidates = search.candidates(found)
    return [replace(each, score=MEASURES[by](each.node.state.confidences, window)) for each in candidates]


def _share(field: str, value: float) -> None:
    above(field, value, 0)
    if value > 1:
        raise InputError(field, value, "give a share, at most 1")
