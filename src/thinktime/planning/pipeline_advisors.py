"""Searchers that reason about the subtasks of a pipeline: fixed rules, and a language model (arXiv 2508.00890)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import product
from math import floor, inf
from typing import Any

from thinktime.core.errors import InputError, ModelError, UnknownNameError
from thinktime.planning.graph_advisors import Reply
from thinktime.planning.pipeline_search import Archive, Evaluated, Evolution
from thinktime.planning.pipeline_space import Allocation, PipelineSpace, StageChoice
from thinktime.strategies.options import above, at_least

TRIAL_SAMPLES = 60
"""Most samples of a subtask in the first trials."""


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
