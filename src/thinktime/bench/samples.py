"""Pools of independent samples of many problems, for coverage laws, votes and diagnoses.

A pool comes from a file of recorded samples or from a bank. It never mixes models or settings.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from thinktime.answers import canonical
from thinktime.bank.store import Bank
from thinktime.bench.replay import Fields, read_recorded
from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError, ModelError
from thinktime.core.scores import score_key
from thinktime.core.types import MAIN, Node, Problem, Sampling
from thinktime.generators.recorded import BankedGenerator
from thinktime.session import Session

Unit = Literal["tokens", "words"]


@dataclass(frozen=True)
class Sample:
    """A whole sample: its length, its answer's key (None: unreadable), and whether it is right and ended by itself.

    ``correct`` is False if ``judged`` is. ``reward`` is None without a reward. ``logprob`` is that of the
    whole sample, and None if it is unknown.
    """

    length: int
    key: Hashable
    correct: bool
    ended: bool = True
    text: str = ""
    judged: bool = True
    reward: float | None = None
    logprob: float | None = None

    @property
    def answered(self) -> bool:
        """Whether it ended by itself with an answer, so that it can win a race or a vote."""
        return self.ended and self.key is not None


@dataclass(frozen=True)
class Sampled:
    """A problem with its samples. ``reference`` is the key of the right answer, or None if it is unknown."""

    id: str
    samples: tuple[Sample, ...]
    reference: Hashable = None

    @property
    def counts(self) -> tuple[int, int]:
        """Number of samples, and of right ones."""
        return len(self.samples), sum(sample.correct for sample in self.samples)

    @property
    def pass_rate(self) -> float:
        """Share of right samples."""
        n, right = self.counts
        return right / n

    @cached_property
    def right(self) -> frozenset[Hashable]:
        """The right answers: those whose judged samples are mostly right."""
        lead: dict[Hashable, int] = {}
        for sample in self.samples:
            if sample.judged and sample.key is not None:
                lead[sample.key] = lead.get(sample.key, 0) + (1 if sample.correct else -1)
        return frozenset(key for key, votes in lead.items() if votes > 0)


@dataclass(frozen=True)
class Pool:
    """Problems sampled under one setting; ``generator`` names the model, ``setting`` describes the sampling.

    Raises:
        InputError: there is no problem, or a problem has no samples or none that is judged.
    """

    generator: str
    setting: str
    unit: Unit
    problems: tuple[Sampled, ...]

    def __post_init__(self) -> None:
        if not self.problems:
            raise InputError("problems", 0, "a pool needs at least one problem")
        for problem in self.problems:
            if not problem.samples:
                raise InputError("problem", problem.id, "it has no samples; sample it or leave it out")
            if not any(sample.judged for sample in problem.samples):
                raise InputError("problem", problem.id, "none of its samples was judged; judge them or leave it out")

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Number of samples and of right ones, for every problem."""
        return [problem.counts for problem in self.problems]

    @property
    def fewest(self) -> int:
        """The least number of samples of a problem, which is the largest k that all problems allow."""
        return min(len(problem.samples) for problem in self.problems)


def merge(pools: Sequence[Pool]) -> Pool:
    """All problems in one pool.

    Raises:
        InputError: the pools differ in model, setting or unit, or share a problem.
    """
    kinds = sorted({f"{pool.generator}, {pool.setting}, {pool.unit}" for pool in pools})
    if len(kinds) > 1:
        raise InputError(
            "setting", " | ".join(kinds), "samples of different settings cannot be pooled; measure each alone"
        )
    problems = tuple(problem for pool in pools for problem in pool.problems)
    ids = [problem.id for problem in problems]
    if twice := next((id for id in ids if ids.count(id) > 1), None):
        raise InputError("problem", twice, "it is in two pools, so its samples would count twice")
    if not pools:
        raise InputError("pools", 0, "give at least one")
    return Pool(pools[0].generator, pools[0].setting, pools[0].unit, problems)


def recorded_pool(path: Path) -> Pool:
    """Samples of a JSONL file. Lengths are in words, because files contain no tokens.

    Files do not say why a sample stopped, so one without a readable answer counts as cut.

    Raises:
        InputError: as `thinktime.bench.replay.read_recorded`.
    """
    problems = []
    for recorded in read_recorded(path, Fields()):
        reference = recorded.problem.reference
        samples = tuple(
            Sample(
                length=len(sample.text.split()),
                key=None if sample.answer is None else canonical(sample.answer),
                correct=sample.correct is True,
                ended=sample.answer is not None,
                text=sample.text,
                judged=sample.correct is not None,
                reward=sample.reward,
            )
            for sample in recorded.samples
        )
        problems.append(Sampled(recorded.problem.id, samples, None if reference is None else canonical(reference)))
    return Pool(path.stem, path.stem, "words", tuple(problems))


def only_model(bank: Bank, model: str | None = None) -> str:
    """The given model, or the only one that the bank has samples of.

    Raises:
        InputError: the bank has several models and none is given, or it lacks the given one.
    """
    models = bank.models()
    if model is None and len(models) != 1:
        raise InputError("model", " | ".join(models), "samples of different models cannot be pooled; name one")
    if model is not None and model not in models:
        raise InputError("model", model, f"the bank has samples of: {', '.join(models) or 'none'}")
    return model or models[0]


async def judged(task: Task, problem: Problem, leaves: Sequence[Node], lengths: Sequence[int]) -> list[Sample]:
    """Whole samples of a problem with their answers, which are read and judged as the task says.

    Args:
        task: of the problem.
        problem: of the samples.
        leaves: their states are texts.
        lengths: of the samples, in tokens.
    """
    await task.answers.prepare([leaf.state for leaf in leaves if leaf.done])
    samples = []
    for leaf, length in zip(leaves, lengths, strict=True):
        answer = task.answers.read(leaf.state) if leaf.done else None
        samples.append(
            Sample(
                length=length,
                key=None if answer is None else task.answers.key(answer),
                correct=await task.right(answer, problem),
                ended=leaf.done,
                text=leaf.state.text,
                logprob=None if math.isnan(leaf.state.logprob) else leaf.state.logprob,
            )
        )
    return samples


def banked_pool(bank: Bank, task: Task, sampling: Sampling, n: int, seed: int = 0, model: str | None = None) -> Pool:
    """The first ``n`` whole samples of every problem of the task in a bank.

    A sample's key depends on model, problem, sampling and seed, so samples of other settings are never included.

    Raises:
        InputError: the bank has several models and none is named, or it lacks the model or some of the samples.
    """
    generator = BankedGenerator(only_model(bank, model))
    session = Session({MAIN: generator}, sampling=sampling, seed=seed, journal=bank)
    scorers = bank.scorers()
    scorer = scorers[0] if len(scorers) == 1 else None

    async def sampled(problem: Problem) -> Sampled:
        search = session.search(problem)
        try:
            leaves = await search.extend([search.root], n)
        except ModelError:
            kept = (
                f"temperature {sampling.temperature}, top_p {sampling.top_p}, {sampling.max_length} tokens, seed {seed}"
            )
            raise InputError("n", n, f"the bank lacks some of these samples of {problem.id} at {kept}") from None
        lengths = [generator.length(leaf.state) for leaf in leaves]
        read = await judged(task, problem, leaves, lengths)
        if scorer is not None:
            rewards = [reward(leaf, scorer) if leaf.done else None for leaf in leaves]
            read = [replace(sample, reward=each) for sample, each in zip(read, rewards, strict=True)]
        return Sampled(problem.id, tuple(read), canonical(problem.reference or ""))

    def reward(leaf: Node, scorer: str) -> float | None:
        """The reward of any reading of the leaf; readings of one node differ only in cost."""
        keys = [score_key(leaf, known) for known in (None, *leaf.lineage())]
        readings = (bank.find_score(key, scorer) for key in keys)
        return next((reading.value for reading in readings if reading), None)

    async def everything() -> list[Sampled]:
        return [await sampled(problem) for problem in task.problems]

    setting = f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, at most {sampling.max_length} tokens"
    return Pool(generator.name, setting, "tokens", tuple(asyncio.run(everything())))
