"""One observed run of a strategy, with its own count of calls, costs and pruned nodes beside the search's account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from thinktime.core.journal import Journal
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import (
    MAIN,
    Capability,
    Child,
    Embedding,
    Extension,
    Node,
    Problem,
    Prompt,
    Sampling,
    Score,
    model_of,
)
from thinktime.core.usage import Budget, Usage, total
from thinktime.scorers.embedding import HashedNgrams
from thinktime.strategies import Strategy
from thinktime.strategies.options import DRAFT
from thinktime.testing.doubles import (
    ANSWERS,
    DOLLARS,
    PROBLEM,
    WORD_PROMPTS,
    WordGenerator,
    WordJudge,
    rambling,
)
from thinktime.testing.parts import JUDGING


class Killed(BaseException):
    """Simulates a killed process; as a `BaseException` it passes through the strategy's error handling."""


class Trial:
    """One run of a strategy on words. It counts the spent usage itself, independent of the ledger.

    Args:
        strategy: the strategy to check.
        seed: seed of the search.
        budget: budget of the search.
        journal: journal of the search.
        killed_at: number of the first call of a model that raises `Killed`; later calls raise it too.
        disorder: random generator for the duration of calls and the order in which children of a batch are sampled.
        offered: the capabilities of the search; by default all that the doubles have.
    """

    def __init__(
        self,
        strategy: Strategy,
        seed: int,
        budget: Budget | None = None,
        *,
        journal: Journal | None = None,
        killed_at: int | None = None,
        disorder: Random | None = None,
        offered: frozenset[str] | None = None,
    ) -> None:
        self.strategy, self.seed, self.budget = strategy, seed, budget or Budget()
        self.calls = 0
        self.sampled: list[tuple[str, Child]] = []
        """Every child the generator returned, with its key."""
        self.scores: list[Score] = []
        self.embeddings: list[Embedding] = []
        self._moments: list[tuple[int, int, int, tuple[Usage, ...]]] = []
        """At each call, how many children, scores and embeddings have come, and the worst case of each running call."""
        self.grown_from_pruned: list[Node] = []
        self.scored_unfinished: list[Node] = []
        self.answer: Any = None
        models = {MAIN: _WatchedGenerator(self, "words"), DRAFT: _WatchedGenerator(self, "other words")}
        scorers = {MAIN: _WatchedScorer(self)}
        own: Mapping[str, Prompt] = {prompt.name: prompt for prompt in getattr(strategy, "prompts", ())}
        prompts = {**own, **WORD_PROMPTS}
        if offered is not None:
            judging = offered & JUDGING
            models[MAIN].capabilities, scorers[MAIN].capabilities = offered - judging, judging
            models = {role: model for role, model in models.items() if role == MAIN or model_of(role) in offered}
            scorers = scorers if judging else {}
            prompts = {name: prompt for name, prompt in prompts.items() if prompt.capability in offered}
        self.search = Search(
            PROBLEM,
            models,
            scorers=scorers,
            answers=ANSWERS if offered is None or Capability.ANSWERS in offered else None,
            embedder=_WatchedEmbedder(self),
            prompts=prompts,
            sampling=Sampling(max_length=20),
            budget=budget,
            seed=seed,
            journal=journal,
        )
        self.disorder = disorder
        self._killed_at = killed_at
        self._under_way: dict[int, Usage] = {}

    @property
    def spent(self) -> Usage:
        """The cost of all returned children, scores and embeddings."""
        return total([*(child.usage for _, child in self.sampled), self.judged])

    @property
    def moments(self) -> list[Usage]:
        """At each call, the spent usage plus the worst case of all running calls."""
        found = []
        for children, scores, embeddings, running in self._moments:
            spent = [child.usage for _, child in self.sampled[:children]]
            spent += [score.usage for score in self.scores[:scores]]
            spent += [each.usage for each in self.embeddings[:embeddings]]
            found.append(total([*spent, *running]))
        return found

    @property
    def judged(self) -> Usage:
        """The cost of all returned scores and embeddings."""
        return total([score.usage for score in self.scores] + [each.usage for each in self.embeddings])

    async def run(self) -> Trial:
        """Run the strategy to its end.

        Raises:
            AssertionError: the strategy raised, or returned no `Answer`.
        """
        try:
            self.answer = await self.strategy(self.search)
        except Exception as error:
            message = " ".join(str(error).split())
            raise AssertionError(self.described(f"it raised {type(error).__name__}: {message}")) from error
        self.require(isinstance(self.answer, Answer), f"it returned {self.answer!r} instead of an Answer")
        return self

    async def call(self, worst_case: Usage) -> int:
        """Record the start of a call; return its number for `settle`."""
        if self._killed_at is not None and self.calls >= self._killed_at:
            raise Killed
        number = self.calls
        self.calls += 1
        self._under_way[number] = worst_case
        come = len(self.sampled), len(self.scores), len(self.embeddings)
        self._moments.append((*come, tuple(self._under_way.values())))
        for _ in range(self.disorder.randint(0, 3) if self.disorder else 0):
            await asyncio.sleep(0)
        return number

    def settle(self, number: int) -> None:
        """Record the end of a call."""
        del self._under_way[number]

    def described(self, what: str) -> str:
        """One line with the strategy, the seed, the budget and ``what``."""
        limits = ", ".join(f"{value:g} {name}" for name, value in vars(self.budget).items() if value is not None)
        return f"{self.strategy!r}, seed {self.seed}, budget {limits or 'none'}: {what}"

    def require(self, holds: bool, what: str) -> None:
        """Raise an `AssertionError` of one line unless ``holds``."""
        if not holds:
            raise AssertionError(self.described(what))

    def outcome(self) -> dict[str, Any]:
        """The answer and the trace of the run, without seconds."""
        answer: Answer = self.answer
        accounts = {account: counts(usage) for account, usage in answer.accounts.items()}
        usage = {"usage": counts(answer.usage), "accounts": accounts}
        trace = [
            (record.node.key, record.node.path, record.node.finish, record.node.state, record.score, record.pruned)
            for record in self.search.records()
        ]
        return vars(answer) | usage | {"node": answer.node and answer.node.key, "trace": trace}


class _WatchedGenerator(WordGenerator):
    def __init__(self, trial: Trial, name: str) -> None:
        super().__init__(rambling, name=name)
        self._trial = trial

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        trial = self._trial
        parents = [extension.node for extension in extensions]
        trial.grown_from_pruned += [node for node in parents if _pruned(trial.search, node)]
        worst = total(
            self.worst_case(trial.search.root, 1) if each.transition else self.worst_case(each.node, each.max_length)
            for each in extensions
        )
        number = await trial.call(worst)
        order = list(range(len(extensions)))
        if trial.disorder:
            trial.disorder.shuffle(order)
        made = dict(zip(order, await super().extend([extensions[index] for index in order]), strict=True))
        children = [made[index] for index in range(len(extensions))]
        trial.sampled += [(extension.key, child) for extension, child in zip(extensions, children, strict=True)]
        trial.settle(number)
        return children


class _WatchedScorer(WordJudge):
    capabilities = JUDGING - {Capability.PARTS}

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self._trial = trial

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        self._trial.scored_unfinished += [node for node in nodes if node.finish == "step"]
        pairs = zip(nodes, known, strict=True)
        number = await self._trial.call(total(self.worst_case(problem, node, before) for node, before in pairs))
        scores = await super().score(problem, nodes, known)
        self._trial.scores += scores
        self._trial.settle(number)
        return scores

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        number = await self._trial.call(self.worst_case_of_comparison(problem, nodes))
        score = await super().compare(problem, nodes)
        self._trial.scores.append(score)
        self._trial.settle(number)
        return score


class _WatchedEmbedder(HashedNgrams):
    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self._trial = trial

    async def embed(self, nodes: Sequence[Node]) -> list[Embedding]:
        number = await self._trial.call(total(map(self.worst_case, nodes)))
        embeddings = await super().embed(nodes)
        self._trial.embeddings += embeddings
        self._trial.settle(number)
        return embeddings


def _pruned(search: Search, node: Node) -> bool:
    record = search.trace.get(node.key)
    return record is not None and record.pruned


def counts(usage: Usage) -> dict[str, float | None]:
    """The counts that are equal in equal runs: all but the seconds."""
    return {name: count for name, count in usage.as_dict().items() if name != "seconds"}


def watched(strategy: Strategy, seed: int, budget: Budget | None = None, **options: Any) -> Trial:
    """Run a strategy to its end."""
    return asyncio.run(Trial(strategy, seed, budget, **options).run())


def random_budget(seed: int) -> Budget:
    """One to three limits of a budget, without seconds, from almost nothing to more than most searches need."""
    rng = Random(f"budget/{seed}")
    limits = {
        "tokens": int(2 ** rng.uniform(0, 8)),
        "calls": int(2 ** rng.uniform(0, 6)),
        "flops": float(int(2 ** rng.uniform(1, 10))),
        "dollars": DOLLARS * int(2 ** rng.uniform(0, 8)),
    }
    chosen = rng.sample(sorted(limits), rng.randint(1, 3))
    return Budget(**{name: limits[name] for name in chosen})  # type: ignore[arg-type]  # ints where ints are declared
