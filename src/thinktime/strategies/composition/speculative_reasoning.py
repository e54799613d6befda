"""SpecReason (Pan et al. 2025, arXiv 2504.07891): a small model drafts the steps, and a large one rates them.

The model of the role ``draft`` writes a step. A scorer rates it, usually the main model itself by one token: ``digit``,
``expected-digit`` or ``p-yes``. A step below the threshold is dropped, and the main model writes this step. The models
pass on text, so their tokenizers may differ. A step ends where their step boundaries are: at the end of a line.

The limit of one generation bounds the kept tokens. The budget bounds all tokens, also those of dropped steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.selection import best
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, Capability, Node, missing, model_of
from thinktime.core.usage import Usage
from thinktime.strategies.options import DRAFT, at_least, between

STEPPING: frozenset[str] = frozenset({Capability.STEPS, Capability.PREFIX})
HIGHEST = 9
"""The best rating: that of a score of 1."""
REPEATS = 3
"""From so many steps on, two equal ones in a row end the chain."""
END_OF_THOUGHT = "</think>"
ACCEPTED = "accepted"


@dataclass(frozen=True)
class Attempt:
    """A drafted step, its rating from 0 to 9, what became of it, and what the rating cost."""

    verdict: str
    draft: Node | None = None
    rating: float | None = None
    cost: Usage = field(default_factory=Usage)

    @property
    def accepted(self) -> bool:
        """Whether the step is kept."""
        return self.verdict == ACCEPTED


@dataclass(frozen=True)
class SpeculativeReasoning:
    """Keep every drafted step that is rated at least ``threshold``, and let the main model write the others.

    A draft that is empty, cut, or without a rating is dropped as well. If the chain ends without an answer, a dropped
    draft with a readable answer is returned, if there is one.

    The events have a record of every step, and at the end why the chain stopped, the kept and the generated tokens, the
    share of accepted drafts, and the forward passes of each model.

    Args:
        threshold: the least rating of a step that is kept, from 0 to 9. Scores from 0 to 1 are multiplied by 9.
        first_n_base: so many first steps are written by the main model.
        max_step_tokens: the tokens at which a step is cut.
    """

    threshold: float = 7.0
    first_n_base: int = 0
    max_step_tokens: int = 512
    needs: ClassVar[frozenset[str]] = STEPPING | {Capability.PROCESS_REWARD, model_of(DRAFT)}

    def __post_init__(self) -> None:
        between("threshold", self.threshold, 0, HIGHEST)
        at_least("first_n_base", self.first_n_base, 0)
        at_least("max_step_tokens", self.max_step_tokens, 1)

    def validate(self, search: Search) -> None:
        draft = search.models[DRAFT]
        if lacking := missing(STEPPING, draft.capabilities):
            raise CapabilityError(f"model {DRAFT}={draft.name!r}: it lacks {', '.join(sorted(lacking))}")

    async def __call__(self, search: Search) -> Answer:
        self._warn(search)
        chain, attempts, stop = [search.root], list[Attempt](), ""
        while not stop:
            attempt = await self._attempt(search, chain)
            step = attempt.draft if attempt.accepted else await self._step(search, chain[-1], MAIN)
            self._log(search, len(attempts), attempt, step)
            if not attempts and attempt.verdict == "cut" and step and step.finish == "cut":
                raise self._no_boundary(step)
            attempts.append(attempt)
            chain += [step] if step else []
            stop = _stop(search, chain) if step else "budget"
        search.log(stop=stop, **_account(chain, attempts))
        return search.finish(best(search.candidates(chain[-1:])))

    async def _step(self, search: Search, node: Node, role: str) -> Node | None:
        """The next step by a model; None if the budget does not cover it."""
        found = await search.extend([node], until="step", at_most=self.max_step_tokens, model=role)
        return found[0] if found else None

    async def _attempt(self, search: Search, chain: Sequence[Node]) -> Attempt:
        """Draft the next step, rate it if it is whole, and drop it if it is not good enough."""
        if len(chain) <= self.first_n_base:
            return Attempt("not drafted")
        draft = await self._step(search, chain[-1], DRAFT)
        if draft is None:
            return Attempt("no budget")
        attempt = await self._rated(search, draft)
        search.prune([] if attempt.accepted else [draft])
        return attempt

    async def _rated(self, search: Search, draft: Node) -> Attempt:
        if draft.finish not in ("step", "eos"):
            return Attempt(draft.finish, draft)
        if not draft.done and not _added(draft).strip():
            return Attempt("empty", draft)
        before = search.ledger.spent
        (score,) = await search.score([draft])
        cost = search.ledger.spent - before
        if score is None:
            return Attempt("not rated", draft, None, cost)
        if not 0 <= score <= 1:
            fix = f"threshold={self.threshold:g} from 0 to {HIGHEST} needs prefix scores in [0, 1]"
            named = f" in place of {search.scorer.name!r}" if search.scorer else ""
            raise InputError("score", score, f"{fix}; take a scorer of probabilities{named}")
        rating = round(HIGHEST * score, 6)
        return Attempt(ACCEPTED if rating >= self.threshold else "rejected", draft, rating, cost)

    def _warn(self, search: Search) -> None:
        if search.models[DRAFT].name == search.generator.name:
            search.log(warning=f"speculative_reasoning: {DRAFT} and {MAIN} are the same model, so nothing is gained")
        if self.max_step_tokens > (limit := search.sampling.max_length):
            search.log(warning=f"max_step_tokens={self.max_step_tokens}: a whole solution has {limit} at most")

    def _log(self, search: Search, number: int, attempt: Attempt, step: Node | None) -> None:
        written = step if step is not attempt.draft else None
        parts = {"draft": attempt.draft, "main": written}
        search.log(
            step=number,
            verdict=attempt.verdict,
            rating=attempt.rating,
            threshold=self.threshold,
            nodes={role: node.key for role, node in parts.items() if node},
            tokens={role: node.usage.generated_tokens for role, node in parts.items() if node},
            judge_tokens=attempt.cost.scorer_tokens,
            seconds={"judge": attempt.cost.seconds} | {role: n.usage.seconds for role, n in parts.items() if n},
            flags=_flags(step),
        )

    def _no_boundary(self, step: Node) -> InputError:
        fix = f"neither model ends its first step by then, which begins {_added(step)[:60]!r}; give more"
        return InputError("max_step_tokens", self.max_step_tokens, f"{fix}, or take models that write lines")


def _added(node: Node) -> str:
    """The text that a node adds to its parent's."""
    return str(node.state.text)[len(node.parent.state.text) if node.parent else 0 :]


def _stop(search: Search, chain: Sequence[Node]) -> str:
    """Why the chain ends here; empty if it goes on."""
    last = chain[-1]
    if last.finish in ("eos", "error"):
        return "finished" if last.done else "error"
    if last.finish not in ("step", "cut") or search.models[last.model].length(last.state) >= search.sampling.max_length:
        return "budget"
    steps = [text for node in chain[1:] if (text := _added(node).strip())]
    return "repeat" if len(steps) >= REPEATS and steps[-1] == steps[-2] else ""


def _flags(step: Node | None) -> list[str]:
    """What is odd about a step that was kept."""
    if step is None:
        return []
    ends_thought = END_OF_THOUGHT in _added(step) and not step.done
    return [*(["cut"] if step.finish == "cut" else []), *(["ends the thought"] if ends_thought else [])]


def _account(chain: Sequence[Node], attempts: Sequence[Attempt]) -> dict[str, Any]:
    """The sums over all steps. A forward pass of a model reads its weights once."""
    kept, drafts = chain[1:], [each.draft for each in attempts if each.draft]
    made = [*kept, *(each.draft for each in attempts if each.draft and not each.accepted)]
    passes: Counter[str] = Counter({DRAFT: 0, MAIN: 0, "judge": sum(each.cost.scorer_calls for each in attempts)})
    for node in made:
        passes[node.model] += node.passes - (node.parent.passes if node.parent else 0)
    return {
        "accepted": sum(each.accepted for each in attempts),
        "drafted": len(drafts),
        "kept_tokens": sum(node.usage.generated_tokens for node in kept),
        "generated_tokens": sum(node.usage.generated_tokens for node in made),
        "passes": dict(passes),
    }
