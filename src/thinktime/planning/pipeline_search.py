"""Search for the models and numbers of samples of a pipeline within a budget (Wang et al. 2025, arXiv 2508.00890).

A pipeline (`thinktime.strategies.composition.pipeline`) has subtasks. For each of them an allocation names a model and
a number of samples. A searcher proposes allocations and sees the scores of the earlier ones: at random, by evolution,
by a tree-structured Parzen estimator (TPE), by the built-in rules, or by a language model. Scores come from a function,
so the search runs live, on a table of recorded results, and on constructed surfaces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import floor, inf
from random import Random
from typing import Any, Protocol

from thinktime.core.errors import InputError, ModelError, ThinktimeError, UnknownNameError
from thinktime.planning.graph_search import Reply, parzen_study
from thinktime.strategies.options import above, at_least, one_of

TRIAL_SAMPLES = 60
"""Most samples of a subtask in the first trials."""
TRIES = 2000
"""Draws for one allocation within the budget."""
IDLE = 50
"""Rounds without a new allocation after which a search ends."""


@dataclass(frozen=True)
class Reference:
    """The call that costs are counted in: a model's parameters, prompt tokens and generated tokens."""

    parameters: float = 3e9
    prompt_tokens: float = 128
    answer_tokens: float = 64

    def __post_init__(self) -> None:
        for name in ("parameters", "prompt_tokens", "answer_tokens"):
            above(name, getattr(self, name), 0)


@dataclass(frozen=True)
class Subtask:
    """A stage of a pipeline.

    Args:
        name: of the subtask.
        models: parameters by the role of the model.
        prompt_tokens: mean tokens of its prompt, measured.
        answer_tokens: mean tokens of one sample, measured.
    """

    name: str
    models: Mapping[str, float]
    prompt_tokens: float
    answer_tokens: float

    def __post_init__(self) -> None:
        if not self.models:
            raise InputError(f"{self.name}.models", {}, "name at least one model")
        for model, parameters in self.models.items():
            above(f"{self.name}.models.{model}", parameters, 0)
        for field in ("prompt_tokens", "answer_tokens"):
            above(f"{self.name}.{field}", getattr(self, field), 0)


@dataclass(frozen=True)
class StageChoice:
    """What one subtask gets."""

    model: str
    samples: int


Allocation = tuple[StageChoice, ...]
"""A choice for each subtask, in order."""


@dataclass(frozen=True)
class PipelineSpace:
    """The allocations within a budget.

    Args:
        subtasks: in order.
        budget: in calls of the reference.
        samples: fewest and most samples of a subtask.
        reference: see `Reference`.
        shares_prompt: whether the samples of a subtask share their prompt's keys and values, so that it is paid once.

    Raises:
        InputError: a value is out of range, or no allocation is within the budget.
    """

    subtasks: tuple[Subtask, ...]
    budget: float
    samples: tuple[int, int] = (1, 100)
    reference: Reference = Reference()
    shares_prompt: bool = True

    def __post_init__(self) -> None:
        if not self.subtasks:
            raise InputError("subtasks", (), "name at least one")
        above("budget", self.budget, 0)
        low, high = self.samples
        at_least("samples", low, 1)
        at_least("samples", high, low)
        cheapest = self.cheapest()
        if self.cost(cheapest) > self.budget:
            words = ", ".join(f"{t.name}: {c.model}*{c.samples}" for t, c in zip(self.subtasks, cheapest, strict=True))
            raise InputError("budget", self.budget, f"the cheapest is {words}, which costs {self.cost(cheapest):.4g}")

    def units(self, subtask: Subtask, choice: StageChoice) -> float:
        """The cost of a choice in calls of the reference: the prompt once, then each sample; never below 0.

        Attention and the merging of samples are left out.
        """
        scale, base = self._scale(subtask, choice.model)
        prompts = 1 if self.shares_prompt else choice.samples
        tokens = prompts * subtask.prompt_tokens + choice.samples * subtask.answer_tokens
        return max(0.0, scale * tokens - base)

    def most_samples(self, subtask: Subtask, model: str, units: float) -> float:
        """How many samples, also in parts, cost so much: the inverse of `units`."""
        scale, base = self._scale(subtask, model)
        tokens = (units + base) / scale
        if self.shares_prompt:
            return (tokens - subtask.prompt_tokens) / subtask.answer_tokens
        return tokens / (subtask.prompt_tokens + subtask.answer_tokens)

    def cost(self, allocation: Allocation) -> float:
        """The sum over all subtasks."""
        return sum(self.units(subtask, choice) for subtask, choice in zip(self.subtasks, allocation, strict=True))

    def flops(self, allocation: Allocation) -> float:
        """Operations of an allocation, two for each parameter and token; not clamped."""
        found = 0.0
        for subtask, choice in zip(self.subtasks, allocation, strict=True):
            prompts = 1 if self.shares_prompt else choice.samples
            tokens = prompts * subtask.prompt_tokens + choice.samples * subtask.answer_tokens
            found += 2 * subtask.models[choice.model] * tokens
        return found

    def cheapest(self) -> Allocation:
        """The smallest model with the fewest samples, for each subtask."""
        return tuple(StageChoice(self.sizes(subtask)[0], self.samples[0]) for subtask in self.subtasks)

    def sizes(self, subtask: Subtask) -> list[str]:
        """The models of a subtask, the smallest first."""
        return sorted(subtask.models, key=lambda name: subtask.models[name])

    def check(self, allocation: Allocation) -> None:
        """Refuse an allocation that is none, or that is over the budget.

        Raises:
            InputError: says why.
        """
        if len(allocation) != len(self.subtasks):
            raise InputError("allocation", len(allocation), f"give a choice for each of {len(self.subtasks)} subtasks")
        low, high = self.samples
        for subtask, choice in zip(self.subtasks, allocation, strict=True):
            one_of(f"{subtask.name}.model", choice.model, subtask.models)
            if not isinstance(choice.samples, int) or not low <= choice.samples <= high:
                raise InputError(f"{subtask.name}.samples", choice.samples, f"give {low} to {high}")
        if self.cost(allocation) > self.budget:
            raise InputError("cost", round(self.cost(allocation), 4), f"the budget is {self.budget:g}")

    def allows(self, allocation: Allocation) -> bool:
        """Whether the models of an allocation are known, and its samples and its cost within the limits."""
        low, high = self.samples
        pairs = list(zip(self.subtasks, allocation, strict=True))
        known = all(choice.model in subtask.models and low <= choice.samples <= high for subtask, choice in pairs)
        return known and self.cost(allocation) <= self.budget

    def _scale(self, subtask: Subtask, model: str) -> tuple[float, float]:
        """The cost of one token, and what is taken off because the reference has a prompt."""
        one_of(f"{subtask.name}.model", model, subtask.models)
        unit = self.reference
        scale = subtask.models[model] / unit.parameters / unit.answer_tokens
        return scale, unit.prompt_tokens / unit.answer_tokens


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


def first_trials(space: PipelineSpace) -> Iterator[tuple[int, Allocation]]:
    """Trials that compare the models of each subtask at equal cost, with the place of the subtask.

    The cost is that of one sample of the largest model, or less if the budget leaves less. The other subtasks get one
    sample of their largest models if the budget allows it, else of their smallest.
    """
    low, high = space.samples
    smallest = [StageChoice(space.sizes(subtask)[0], low) for subtask in space.subtasks]
    largest = [StageChoice(space.sizes(subtask)[-1], low) for subtask in space.subtasks]
    for place, subtask in enumerate(space.subtasks):
        others = [each for each in range(len(space.subtasks)) if each != place]
        rest = sum(space.units(space.subtasks[each], smallest[each]) for each in others)
        most = min(space.units(subtask, largest[place]), space.budget - rest)
        big = sum(space.units(space.subtasks[each], largest[each]) for each in others)
        beside = largest if space.budget - most >= big else smallest
        for model in space.sizes(subtask):
            samples = min(floor(space.most_samples(subtask, model, most) + 1e-9), TRIAL_SAMPLES, high)
            if samples >= low:
                yield place, (*beside[:place], StageChoice(model, samples), *beside[place + 1 :])


class BuiltInRules(Evolution):
    """The insights of the paper as fixed rules, without a language model.

    - First the trials of `first_trials`. Each subtask gets its larger models only if they are better there by more than
      the tolerance.
    - Samples of one subtask are doubled until a doubling gains less than the tolerance: the knee. If a doubling is over
      the budget, another subtask gives half of its samples, or a smaller model.
    - When nothing near the best allocation is left, children of the best ones are tried (see `Evolution`).

    Args:
        space: the allocations.
        seed: of the draws.
        tolerance: a smaller gain counts as none.
    """

    def __init__(self, space: PipelineSpace, seed: int = 0, tolerance: float = 0.005) -> None:
        super().__init__(space, seed)
        above("tolerance", tolerance, 0)
        self.tolerance = tolerance
        self._trials = list(first_trials(space))
        self._started = False

    def propose(self, archive: Archive) -> Sequence[Allocation]:
        """The first trials together, then one allocation at a time."""
        if not archive.trials and not self._started:
            return [trial for _, trial in self._trials]
        if not self._started:
            self._started = True
            start = self._start(archive)
            if not archive.known(start):
                return [start]
        best = archive.best
        for near in self._near(archive, best.allocation) if best is not None else ():
            if not archive.known(near):
                return [near]
        return super().propose(archive)

    def _start(self, archive: Archive) -> Allocation:
        """The fewest samples of the preferred model of each subtask; smaller models if that is over the budget."""
        chosen = self.space.cheapest()
        for place in range(len(chosen)):
            best = -inf
            for trial in (trial for at, trial in self._trials if at == place):  # the smallest model first
                score = archive.score(trial)
                if score is None or score <= best + self.tolerance:
                    continue
                best = score
                larger = (*chosen[:place], StageChoice(trial[place].model, self.space.samples[0]), *chosen[place + 1 :])
                chosen = larger if self.space.allows(larger) else chosen
        return chosen

    def _near(self, archive: Archive, best: Allocation) -> Iterator[Allocation]:
        """Allocations near the best one: doublings before the knee, trades between subtasks, other models, halvings."""
        places = range(len(best))
        growing = [place for place in places if not self._flat(archive, best, place)]
        for place in growing:
            yield self._with(best, place, 2.0)
        for place, other in product(growing, places):
            if place != other:
                yield self._with(self._with(best, place, 2.0), other, 0.5)
                yield self._smaller(self._with(best, place, 2.0), other)
        for place, subtask in enumerate(self.space.subtasks):
            units = self.space.units(subtask, best[place])
            for model in subtask.models:
                samples = floor(self.space.most_samples(subtask, model, units) + 1e-9)
                for one in {self._within(samples), self.space.samples[0]}:
                    yield (*best[:place], StageChoice(model, one), *best[place + 1 :])
        for place in places:
            yield self._with(best, place, 0.5)

    def _flat(self, archive: Archive, best: Allocation, place: int) -> bool:
        """Whether the last doubling of a subtask has gained nothing."""
        half, double = self._with(best, place, 0.5), self._with(best, place, 2.0)
        below, here, beyond = map(archive.score, (half, best, double))
        gained = [b - a for a, b in ((below, here), (here, beyond)) if a is not None and b is not None]
        return half != best and any(gain < self.tolerance for gain in gained)

    def _with(self, allocation: Allocation, place: int, factor: float) -> Allocation:
        """The allocation with more or fewer samples of one subtask."""
        one = allocation[place]
        return (
            *allocation[:place],
            StageChoice(one.model, self._within(floor(one.samples * factor))),
            *allocation[place + 1 :],
        )

    def _smaller(self, allocation: Allocation, place: int) -> Allocation:
        """The allocation with the next smaller model of one subtask."""
        sizes, one = self.space.sizes(self.space.subtasks[place]), allocation[place]
        model = sizes[max(0, sizes.index(one.model) - 1)]
        return (*allocation[:place], StageChoice(model, one.samples), *allocation[place + 1 :])

    def _within(self, samples: int) -> int:
        low, high = self.space.samples
        return min(max(samples, low), high)


SEARCH_WORDS = """You choose models and numbers of samples for the subtasks of a pipeline. The score is to be high, \
and the cost within the budget of {budget:g}.

Subtasks:
{subtasks}

Cost of S samples of a model with M parameters, P prompt tokens and A answer tokens: \
M / {parameters:.3g} * (P + S * A) / {answer:g} - {base:g}. Samples: {low} to {high}.

Results so far:
{history}

What was learned:
{guidelines}
"""
GUIDELINE_WORDS = """
Write at most three sentences: which model each subtask should have (a larger one only if it is clearly better), \
beyond which number of samples the score no longer rises, and which subtask should get more of the budget. If the \
scores hardly differ, say what to explore."""
PROPOSE_WORDS = """
Write the next {batch} allocations, new ones within the budget, as a JSON list and nothing else. One allocation is
{example}"""


class LanguageModelSearcher:
    """A language model proposes allocations, by results and by guidelines that it writes itself.

    Args:
        space: the allocations.
        reply: what the language model replies to a prompt.
        batch: allocations of one proposal.
        guidelines: how many of the newest guidelines it sees, beside the first one.
    """

    def __init__(self, space: PipelineSpace, reply: Reply, batch: int = 10, guidelines: int = 2) -> None:
        at_least("batch", batch, 1)
        at_least("guidelines", guidelines, 1)
        self.space, self.batch = space, batch
        self._reply, self._newest = reply, guidelines
        self.guidelines: list[str] = []
        self.replies: list[str] = []
        """All replies so far."""
        self.refused: list[str] = []
        """Why proposals could not be used."""

    def propose(self, archive: Archive) -> Sequence[Allocation]:
        """The first trials, then what the language model writes.

        Raises:
            ModelError: two proposals in turn had nothing usable; the message has both.
        """
        if not archive.trials:
            return [trial for _, trial in first_trials(self.space)]
        self.guidelines.append(self._ask(archive, GUIDELINE_WORDS))
        names = [subtask.name for subtask in self.space.subtasks]
        example = json.dumps(
            {
                name: {"model": self.space.sizes(subtask)[0], "samples": 4}
                for name, subtask in zip(names, self.space.subtasks, strict=True)
            }
        )
        for _ in range(2):
            text = self._ask(archive, PROPOSE_WORDS.format(batch=self.batch, example=example))
            found = [each for each in self._read(text) if not archive.known(each)]
            if found:
                return found[: self.batch]
        raise ModelError(f"searcher: two proposals in turn had nothing new and valid: {' / '.join(self.replies[-2:])}")

    def learn(self, allocation: Allocation, trial: Evaluated | None) -> None:
        """The archive has all results."""

    def _ask(self, archive: Archive, words: str) -> str:
        subtasks = "\n".join(
            f"- {t.name}: {t.prompt_tokens:g} prompt tokens, {t.answer_tokens:g} answer tokens; models "
            + ", ".join(f"{name} ({t.models[name]:.3g} parameters)" for name in self.space.sizes(t))
            for t in self.space.subtasks
        )
        history = "\n".join(
            json.dumps(self._as_dict(trial.allocation))
            + f" cost {trial.cost:.4g} "
            + (f"{archive.main} {trial.score:.4f}" if trial.score is not None else f"failed: {trial.reason}")
            for trial in archive.trials
        )
        remembered = [*self.guidelines[:1], *self.guidelines[1:][-self._newest :]]
        unit = self.space.reference
        prompt = SEARCH_WORDS.format(
            budget=self.space.budget,
            subtasks=subtasks,
            parameters=unit.parameters,
            answer=unit.answer_tokens,
            base=unit.prompt_tokens / unit.answer_tokens,
            low=self.space.samples[0],
            high=self.space.samples[1],
            history=history,
            guidelines="\n".join(remembered) or "nothing yet",
        )
        self.replies.append(self._reply(prompt + words))
        return self.replies[-1]

    def _as_dict(self, allocation: Allocation) -> dict[str, Any]:
        pairs = zip(self.space.subtasks, allocation, strict=True)
        return {subtask.name: {"model": choice.model, "samples": choice.samples} for subtask, choice in pairs}

    def _read(self, text: str) -> list[Allocation]:
        """The valid allocations of a reply; what is wrong with the others is noted."""
        start, end = text.find("["), text.rfind("]")
        try:
            rows = json.loads(text[start : end + 1]) if 0 <= start < end else None
        except ValueError:
            rows = None
        if not isinstance(rows, list):
            self.refused.append("the reply has no JSON list")
            return []
        found = []
        for row in rows:
            try:
                found.append(self._allocation(row))
            except InputError as error:
                self.refused.append(str(error))
        return found

    def _allocation(self, row: Any) -> Allocation:
        names = [subtask.name for subtask in self.space.subtasks]
        if not isinstance(row, dict) or not all(isinstance(value, dict) for value in row.values()):
            raise InputError("allocation", row, "give an object of subtasks")
        for name in row:
            if name not in names:
                raise UnknownNameError("subtask", name, names)
        if missing := [name for name in names if name not in row]:
            raise InputError("allocation", row, f"it lacks the subtask {missing[0]}")
        chosen = tuple(StageChoice(str(row[name].get("model")), row[name].get("samples", 0)) for name in names)
        self.space.check(chosen)
        return chosen
