"""Scorers that replay: rewards recorded with samples, and scores of our own bank."""

from __future__ import annotations

from collections.abc import Sequence

from thinktime.core.errors import ModelError
from thinktime.core.types import Capability, Node, Problem, Score
from thinktime.core.usage import Usage

_REWARDS = frozenset({Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD})


class RecordedReward:
    """The reward that came with a recorded sample; missing stays missing."""

    name = "recorded"
    capabilities = frozenset({Capability.SCORES})

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """Nothing is computed."""
        return Usage()

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """The recorded rewards."""
        return [Score(node.state.reward, Usage()) for node in nodes]


class BankedScorer:
    """Stands in for the scorer whose scores a bank holds.

    Args:
        name: the scorer's.
        capabilities: what it could do; a bank does not say.
    """

    def __init__(self, name: str, capabilities: frozenset[str] = _REWARDS) -> None:
        self.name, self.capabilities = name, capabilities

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One call; FLOPs and dollars are unknown without the model."""
        return Usage(scorer_calls=1, scorer_flops=None, dollars=None)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """Refuse.

        Raises:
            ModelError: always; only what the bank lacks gets here.
        """
        raise ModelError(f"replay: the bank lacks {len(nodes)} scores of {self.name}; run without --replay")
