"""Search for the models and numbers of samples of a pipeline within a budget (Wang et al. 2025, arXiv 2508.00890).

A pipeline (`thinktime.strategies.composition.pipeline`) has subtasks. For each of them an allocation names a model and
a number of samples. A searcher proposes allocations and sees the scores of the earlier ones: at random, by evolution,
or by a tree-structured Parzen estimator (TPE); `thinktime.planning.pipeline_advisors` has rules and a language model.
Scores come from a function, so the search runs live, on a table of recorded results, and on constructed surfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from random import Random
from typing import Protocol

from thinktime.core.errors import InputError, ModelError, ThinktimeError
from thinktime.planning.parzen import parzen_study
from thinktime.planning.pipeline_space import Allocation, PipelineSpace, StageChoice
from thinktime.strategies.options import at_least

TRIES = 2000
"""Draws for one allocation within the budget."""
IDLE = 50
"""Rounds without a new allocation after which a search ends."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluated allocation: its cost and its metrics. A failed one has a reason and no score."""

    allocation: Allocation
    cost: float
    score: float | None
    metrics: Mapping[str, float]
    reason: str = ""


Measure = Callable[[Allocation], Mapping[str, float]]
"""The metrics of an allocation. A `ThinktimeError` is a failed evaluation, which is kept with its reason."""


class ResultTable:
    """Recorded results: the metrics of allocations.

    Args:
        rows: by allocation.
    """

    def __init__(self, rows: Mapping[Allocation, Mapping[str, float]]) -> None:
        self.rows = rows
        self._of_models: dict[tuple[str, ...], list[Allocation]] = {}
        for row in rows:
            self._of_models.setdefault(tuple(choice.model for choice in row), []).append(row)

    def __call__(self, allocation: Allocation) -> Mapping[str, float]:
        """The metrics of exactly this allocation."""
        return self.rows[allocation]

    def nearest(self, allocation: Allocation, space: PipelineSpace) -> Allocation | None:
        """The recorded allocation within the budget with the same models and the most similar numbers of samples.

        None if there is none; of equally near ones the first.
        """
        if allocation in self.rows and space.allows(allocation):
            return allocation

        def distance(row: Allocation) -> float:
            pairs = zip(allocation, row, strict=True)
            return sum(abs(mine.samples - theirs.samples) / theirs.samples for mine, theirs in pairs)

        some = sorted(self._of_models.get(tuple(choice.model for choice in allocation), ()), key=distance)
        return next((row for row in some if space.allows(row)), None)


class Archive:
    """All evaluations of a search. An allocation that was evaluated before is no new evaluation.

    Args:
        space: the allocations.
        measure: their metrics; if it has a method ``nearest``, proposals become the recorded allocation next to them.
        evaluations: most of them.
        main: the metric that is maximised.
    """

    def __init__(self, space: PipelineSpace, measure: Measure, evaluations: int, main: str = "accuracy") -> None:
        at_least("evaluations", evaluations, 1)
        self.space, self.main, self.evaluations = space, main, evaluations
        self.trials: list[Evaluated] = []
        self.rejected: list[tuple[Allocation, str]] = []
        """Proposals that were not evaluated, with the reason."""
        self._measure = measure
        self._known: dict[Allocation, Evaluated] = {}

    @property
    def full(self) -> bool:
        """Whether there is no evaluation left."""
        return len(self.trials) >= self.evaluations

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the highest score; of equal ones the cheapest."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: (trial.score or 0.0, -trial.cost), default=None)

    @property
    def improvements(self) -> list[tuple[int, Evaluated]]:
        """The evaluations that were better than all before, with their numbers from 1."""
        found: list[tuple[int, Evaluated]] = []
        for number, trial in enumerate(self.trials, 1):
            if trial.score is not None and (not found or trial.score > (found[-1][1].score or 0.0)):
                found.append((number, trial))
        return found

    def snapped(self, allocation: Allocation) -> Allocation:
        """The allocation that stands for this one in a table of results.

        Raises:
            InputError: the allocation is none, is over the budget, or the table has none near it.
        """
        nearest = getattr(self._measure, "nearest", None)
        self.space.check(allocation)
        found = allocation if nearest is None else nearest(allocation, self.space)
        if found is None:
            raise InputError("allocation", str(allocation), "the table has no result of these models in the budget")
        return found

    def known(self, allocation: Allocation) -> bool:
        """Whether it was evaluated, or cannot be."""
        try:
            return self.snapped(allocation) in self._known
        except InputError:
            return True

    def score(self, allocation: Allocation) -> float | None:
        """The score of an evaluated allocation; None if it was not evaluated, or failed."""
        try:
            trial = self._known.get(self.snapped(allocation))
        except InputError:
            return None
        return trial.score if trial is not None else None

    def evaluate(self, allocation: Allocation) -> Evaluated | None:
        """The evaluation of a proposal; None if it is refused (see ``rejected``).

        Raises:
            InputError: the main metric is not among the results.
        """
        try:
            mine = self.snapped(allocation)
        except InputError as error:
            self.rejected.append((allocation, str(error)))
            return None
        if mine not in self._known and not self.full:
            self._known[mine] = self._evaluated(mine)
            self.trials.append(self._known[mine])
        return self._known.get(mine)

    def _evaluated(self, allocation: Allocation) -> Evaluated:
        cost = self.space.cost(allocation)
        try:
            metrics = self._measure(allocation)
        except ThinktimeError as error:
            return Evaluated(allocation, cost, None, {}, str(error))
        if self.main not in metrics:
            raise InputError("main", self.main, f"the results have {', '.join(sorted(metrics)) or 'no metric'}")
        return Evaluated(allocation, cost, float(metrics[self.main]), metrics)


class AllocationSearcher(Protocol):
    """Proposes allocations."""

    def propose(self, archive: Archive) -> Sequence[Allocation]:
        """The next proposals."""
        ...

    def learn(self, allocation: Allocation, trial: Evaluated | None) -> None:
        """The evaluation of a proposal; None if it was refused."""
        ...


def search_allocations(searcher: AllocationSearcher, archive: Archive) -> Evaluated:
    """Evaluate what the searcher proposes until no evaluation is left; return the best.

    Raises:
        ModelError: every evaluation failed; the message has the first reason.
    """
    idle = 0
    while not archive.full and idle < IDLE:
        before = len(archive.trials)
        for allocation in searcher.propose(archive):
            searcher.learn(allocation, archive.evaluate(allocation))
        idle = 0 if len(archive.trials) > before else idle + 1
    if archive.best is None:
        reasons = [trial.reason for trial in archive.trials] + [reason for _, reason in archive.rejected]
        raise ModelError(f"no allocation has a score: {reasons[0] if reasons else 'nothing was proposed'}")
    return archive.best


def refuse_shared(search: Sequence[str], report: Sequence[str]) -> None:
    """Refuse a report on problems that the search has seen: its best allocation is the luckiest one on them.

    Raises:
        InputError: names a shared problem.
    """
    if shared := sorted(set(search) & set(report)):
        raise InputError("problems", shared[0], f"{len(shared)} problems of the report are also those of the search")


class RandomAllocations:
    """Allocations within the budget: any model, and any order of magnitude of samples, equally likely."""

    def __init__(self, space: PipelineSpace, seed: int = 0) -> None:
        self.space, self.rng = space, Random(f"random/{seed}")

    def propose(self, archive: Archive) -> Sequence[Allocation]:
        """One allocation."""
        return [self.draw()]

    def learn(self, allocation: Allocation, trial: Evaluated | None) -> None:
        """Learn nothing."""

    def draw(self) -> Allocation:
        """One allocation within the budget; the cheapest one if none was drawn."""
        low, high = self.space.samples
        for _ in range(TRIES):
            drawn = tuple(
                StageChoice(
                    self.rng.choice(self.space.sizes(subtask)), floor(low * ((high + 1) / low) ** self.rng.random())
                )
                for subtask in self.space.subtasks
            )
            if self.space.allows(drawn):
                return drawn
        return self.space.cheapest()


class Evolution(RandomAllocations):
    """Parents by rank, crossover at one point, and mutation (after ``first`` random allocations).

    Args:
        space: the allocations.
        seed: of the draws.
        first: random allocations.
        crossover: chance that a child has two parents.
        mutation: chance that the model of a subtask changes, and that its samples change.
        step: most that samples change by.
    """

    def __init__(
        self,
        space: PipelineSpace,
        seed: int = 0,
        first: int = 8,
        crossover: float = 0.8,
        mutation: float = 0.5,
        step: int = 10,
    ) -> None:
        super().__init__(space, seed)
        at_least("first", first, 2)
        at_least("step", step, 1)
        for name, value in (("crossover", crossover), ("mutation", mutation)):
            if not 0 <= value <= 1:
                raise InputError(name, value, "give a number from 0 to 1")
        self.first, self.crossover, self.mutation, self.step = first, crossover, mutation, step

    def propose(self, archive: Archive) -> Sequence[Allocation]:
        """A random allocation, or a child of earlier ones."""
        parents = sorted((t for t in archive.trials if t.score is not None), key=lambda trial: trial.score or 0.0)
        if len(archive.trials) < self.first or not parents:
            return [self.draw()]
        for _ in range(TRIES):
            child = self.child([trial.allocation for trial in parents])
            if not archive.known(child):
                return [child]
        return [self.draw()]

    def child(self, parents: Sequence[Allocation]) -> Allocation:
        """A child of parents in the order of their scores, the best last: its chance to be a parent is the highest."""
        ranks = range(1, len(parents) + 1)
        mother, father = self.rng.choices(parents, ranks, k=2)
        cut = self.rng.randint(1, max(1, len(mother) - 1)) if self.rng.random() < self.crossover else len(mother)
        genes = [*mother[:cut], *father[cut:]]
        low, high = self.space.samples
        for place, subtask in enumerate(self.space.subtasks):
            model, samples = genes[place].model, genes[place].samples
            if self.rng.random() < self.mutation:
                model = self.rng.choice(self.space.sizes(subtask))
            if self.rng.random() < self.mutation:
                samples = min(max(samples + self.rng.randint(-self.step, self.step), low), high)
            genes[place] = StageChoice(model, samples)
        return tuple(genes)


class ParzenAllocations:
    """TPE (Bergstra et al. 2011) over models and numbers of samples. It needs optuna, see `parzen_study`.

    Optuna records a proposal over the budget as failed.
    """

    def __init__(self, space: PipelineSpace, seed: int = 0) -> None:
        self.space = space
        self._study = parzen_study(seed)

    def propose(self, archive: Archive) -> Sequence[Allocation]:
        """One allocation."""
        low, high = self.space.samples
        self._trial = self._study.ask()
        return [
            tuple(
                StageChoice(
                    self._trial.suggest_categorical(f"{subtask.name} model", self.space.sizes(subtask)),
                    self._trial.suggest_int(f"{subtask.name} samples", low, high, log=True),
                )
                for subtask in self.space.subtasks
            )
        ]

    def learn(self, allocation: Allocation, trial: Evaluated | None) -> None:
        """Add the score to the study."""
        from optuna.trial import TrialState

        if trial is None or trial.score is None:
            self._study.tell(self._trial, state=TrialState.FAIL)
        else:
            self._study.tell(self._trial, trial.score)
