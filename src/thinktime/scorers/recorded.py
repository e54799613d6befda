"""Scorers that replay: rewards recorded with samples, and scores from our own bank."""

from __future__ import annotations

from collections.abc import Sequence

from thinktime.core.errors import ModelError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage

_REWARDS = frozenset({Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD, Capability.COMPARE})


class RecordedReward:
    """The reward of a recorded sample; a missing reward stays missing."""

    name = "recorded"
    capabilities = frozenset({Capability.SCORES})

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """No cost: nothing is computed."""
        return Usage()

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """The recorded rewards."""
        return [Score(node.state.reward, Usage()) for node in nodes]


class BankedScorer:
    """Replaces a scorer in a replay; the bank holds its scores.

    Args:
        name: the name of the scorer.
        capabilities: the capabilities of the scorer, which a bank does not store.
    """

    def __init__(self, name: str, capabilities: frozenset[str] = _REWARDS) -> None:
        self.name, self.capabilities = name, capabilities

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One call; FLOPs and dollars are unknown without the model."""
        return Usage(scorer_calls=1, scorer_flops=None, dollars=None)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """Refuse.

        Raises:
            ModelError: always; this is called only for scores that the bank lacks.
        """
        raise ModelError(f"replay: the bank lacks {len(nodes)} scores of {self.name}; run without --replay")

    def worst_case_of_comparison(self, problem: Problem, nodes: Sequence[Node]) -> Usage:
        """One call, as for a score."""
        return Usage(scorer_calls=1, scorer_flops=None, dollars=None)

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        """Refuse.

        Raises:
            ModelError: always; this is called only for comparisons that the bank lacks.
        """
        raise ModelError(f"replay: the bank lacks a comparison of {self.name}; run without --replay")
