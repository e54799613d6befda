"""Many judgements of the same answers: in random orders, in one order and its reverse, with and without checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from thinktime.bench.tasks import Task
from thinktime.core.search import Search
from thinktime.core.selection import majority
from thinktime.core.trace import Answer, Record
from thinktime.core.types import Capability, Node
from thinktime.models.engine.tokenizer import ChatTokenizer
from thinktime.pocket import directory, prompts
from thinktime.prompts.common import JUDGE
from thinktime.strategies.verification.generative_reward import most_frequent

SAMPLES, JUDGEMENTS, ONE_ORDER = 4, 32, 16
AT_ONCE = "Scores:"
"""The beginning of a reply that makes no checks."""

Matrix = npt.NDArray[np.float64]
"""``[judgements, answers]``; a judgement that gives no scores is a row of NaN."""


@dataclass(frozen=True)
class Judgements:
    """The judgements of a problem. ``right`` has each answer that is shown, the most frequent first."""

    right: list[bool]
    shuffled: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    rewards: Matrix = field(default_factory=lambda: np.zeros(0))
    """Of the shuffled judgements, by the meta reward; NaN where there are no scores."""
    forward: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    backward: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    greedy: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    """At temperature 0, in the one order and in its reverse."""
    at_once: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    first: list[bool] = field(default_factory=list)
    """Whether the answer shown first scored highest, of the judgements in one order and its reverse."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of the shuffled judgements."""
    lengths_at_once: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    """Tokens newly read for each of the shuffled judgements."""
    unreadable: list[str] = field(default_factory=list)

    @property
    def contested(self) -> bool:
        """Whether there is something to judge: two answers or more, one of them right."""
        return len(self.right) > 1 and any(self.right)


@dataclass
class Judging:
    """A strategy that judges its samples in every way, and answers with their majority."""

    task: Task
    found: dict[str, Judgements] = field(default_factory=dict)
    """By problem."""
    needs: ClassVar[frozenset[str]] = frozenset({JUDGE.capability, Capability.ANSWERS, Capability.META_REWARD})

    def __post_init__(self) -> None:
        tokenizer = ChatTokenizer(directory("skilled"))
        self._at_once = tuple(tokenizer.encode(AT_ONCE))

    async def __call__(self, search: Search) -> Answer:
        """Judge and note; the answer is that of a vote."""
        candidates = search.candidates(await search.extend([search.root], SAMPLES))
        shown = most_frequent(candidates)
        right = [self.task.check(candidate.answer, search.problem.reference) for candidate in shown]
        judged = Judgements(right)
        if len(shown) > 1:
            judged = await self._judge(search, [candidate.node for candidate in shown], right)
        self.found[search.problem.id] = judged
        return search.finish(majority(candidates))

    async def _judge(self, search: Search, shown: Sequence[Node], right: list[bool]) -> Judgements:
        rng, n = search.random("order"), len(shown)  # as in the strategy: its judgements are among these
        orders = Counter(tuple(rng.sample(range(n), n)) for _ in range(JUDGEMENTS))
        roots = {order: search.ask(JUDGE, [shown[i] for i in order]) for order in orders}
        asked = {root: order for order, root in roots.items() if root is not None}
        replies = await search.extend(list(asked), [orders[order] for order in asked.values()])
        scores = [_scores(reply, asked[_root(reply)]) for reply in replies]
        rewards = iter(await search.score([r for r, row in zip(replies, scores, strict=True) if row is not None]))
        quick = {self._cut_short(search, root): order for root, order in asked.items()}
        quick_replies = await search.extend(list(quick), [orders[order] for order in quick.values()])
        forward = tuple(search.random("one order").sample(range(n), n))
        sampled: list[list[list[float] | None]] = []
        greedy: list[list[list[float] | None]] = []
        for order in (forward, forward[::-1]):
            root = search.ask(JUDGE, [shown[i] for i in order])
            one = [root] if root else []
            for count, temperature, rows in ((1, 0.0, greedy), (ONE_ORDER, None, sampled)):
                more = await search.extend(one, count, temperature=temperature)
                rows.append([_scores(reply, order) for reply in more])
        return Judgements(
            right,
            shuffled=_matrix(scores, n),
            rewards=np.array([np.nan if row is None else next(rewards) for row in scores], dtype=np.float64),
            forward=_matrix(sampled[0], n),
            backward=_matrix(sampled[1], n),
            greedy=_matrix(greedy[0] + greedy[1], n),
            at_once=_matrix([_scores(reply, quick[_root(reply)], AT_ONCE) for reply in quick_replies], n),
            first=[
                row[order[0]] > max(row[i] for i in order[1:])
                for order, rows in zip((forward, forward[::-1]), sampled, strict=True)
                for row in rows
                if row is not None
            ],
            lengths=[reply.usage.generated_tokens for reply in replies],
            lengths_at_once=[reply.usage.generated_tokens + len(self._at_once) for reply in quick_replies],
            prompts=[reply.usage.prompt_tokens or 0 for reply in replies],
            unreadable=[r.state.text for r, row in zip(replies, scores, strict=True) if row is None],
        )

    def _cut_short(self, search: Search, root: Node) -> Node:
        """A root whose replies are scores alone, for the beginning of the judgement is given."""
        key = f"{root.key}/at once"
        state = replace(root.state, prompt=root.state.prompt + self._at_once)
        search.trace[key] = Record(Node(key, (), state), prompt=JUDGE.name, is_answer=False)
        return search.trace[key].node


def _root(reply: Node) -> Node:
    assert reply.parent is not None
    return reply.parent


def _scores(reply: Node, order: Sequence[int], begun: str = "") -> list[float] | None:
    """The scores of a reply, in the answers' own order and not in the order in which they are shown."""
    found = prompts.scores(begun + reply.state.text, len(order)) if reply.done else None
    return None if found is None else [float(score) for _, score in sorted(zip(order, found, strict=True))]


def _matrix(rows: Sequence[list[float] | None], n: int) -> Matrix:
    return np.array([[np.nan] * n if row is None else row for row in rows], dtype=np.float64).reshape(-1, n)


def winners(scores: Matrix) -> npt.NDArray[np.bool_]:
    """Which answers have the highest sum of scores; without any scores the most frequent answer."""
    voting = valid(scores)
    sums = voting.sum(0) if len(voting) else -np.arange(scores.shape[1])
    highest: npt.NDArray[np.bool_] = np.isclose(sums, sums.max())
    return highest


def accuracy(scores: Matrix, right: Sequence[bool]) -> float:
    """The chance that the vote is right, a tie being broken at random."""
    return float(np.array(right, dtype=np.float64)[winners(scores)].mean())


def disagreement(a: Matrix, b: Matrix) -> float:
    """The chance that two votes come to different answers."""
    one, other = winners(a), winners(b)
    return 1 - int((one & other).sum()) / (int(one.sum()) * int(other.sum()))


def valid(scores: Matrix) -> Matrix:
    """The judgements that give scores."""
    return scores[~np.isnan(scores).any(1)]


def spread(judged: Judgements) -> float:
    """Standard deviation over judgements of the score of an answer, the mean over answers."""
    voting = valid(judged.shuffled)
    return float(voting.std(0).mean()) if len(voting) else 0.0


def costs(found: Sequence[Judgements]) -> dict[str, Any]:
    """The costs of judgements, and the share of them without scores."""
    several = [judged for judged in found if len(judged.right) > 1]
    spreads = [spread(judged) for judged in several]
    return {
        "with_two_answers": len(several),
        "with_two_answers_one_right": sum(judged.contested for judged in found),
        "do_not_fit_the_context": sum(not len(judged.shuffled) for judged in several),
        "answers_shown": fmean(len(judged.right) for judged in several),
        "tokens_per_judgement": fmean(length for judged in several for length in judged.lengths),
        "tokens_per_judgement_at_once": fmean(length for judged in several for length in judged.lengths_at_once),
        "prompt_tokens_newly_read_per_judgement": fmean(read for judged in several for read in judged.prompts),
        "invalid": fmean(np.isnan(row).any() for judged in several for row in judged.shuffled),
        "invalid_at_once": fmean(np.isnan(row).any() for judged in several for row in judged.at_once),
        "unreadable_examples": [text for judged in several for text in judged.unreadable][:2],
        "spread": {"mean": fmean(spreads), "problems_without": fmean(value == 0 for value in spreads)},
    }
