"""Strategies on a real model, problem by problem: what is drawn before an interruption can be analysed.

`fill` draws the samples of some problems after the other into a bank; `recorded` runs the strategies again on the
samples of the bank alone, and keeps the problems for which none is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from thinktime.bank.store import Bank
from thinktime.bench.tasks import Task
from thinktime.core.errors import ModelError
from thinktime.core.search import Search
from thinktime.core.types import MAIN, Problem
from thinktime.generators.recorded import BankedGenerator
from thinktime.session import Session
from thinktime.strategies import Strategy, parse

CHUNK = 64
"""Problems that are drawn at once; their samples share the batches of the model."""


@dataclass(frozen=True)
class Run:
    """A strategy on one problem: whether its answer is right, what it cost, and which samples were lost."""

    right: bool
    generated: int
    prompts: int
    """Prompt tokens that were computed."""
    flops: float
    calls: int
    cut: int
    unreadable: int


def fill(strategies: Mapping[str, str], task: Task, session: Session, bank: Bank) -> None:
    """Draw all samples of some problems after the other; what the bank has costs nothing."""
    methods = [parse(text)[1] for text in strategies.values()]

    async def everything() -> None:
        for start in range(0, len(task.problems), CHUNK):
            some = task.problems[start : start + CHUNK]
            for method in methods:
                await asyncio.gather(*(method(session.with_bank(bank).search(problem)) for problem in some))
            print(f"{start + len(some)} problems", flush=True)

    asyncio.run(everything())


def recorded(strategies: Mapping[str, str], task: Task, session: Session, bank: Bank) -> dict[str, dict[str, Run]]:
    """By strategy and problem, for the problems whose samples are all in the bank.

    Args:
        strategies: their texts by label.
        task: the problems.
        session: the settings and scorers; its models are not used.
        bank: has the samples of one model.
    """
    replay = replace(session, models={MAIN: BankedGenerator(bank.models()[0])}, journal=bank)
    methods = {label: parse(text)[1] for label, text in strategies.items()}

    async def everything() -> dict[str, dict[str, Run]]:
        found: dict[str, dict[str, Run]] = {label: {} for label in methods}
        for problem in task.problems:
            try:
                runs = {label: await _run(method, problem, task, replay) for label, method in methods.items()}
            except ModelError:
                continue
            for label, one in runs.items():
                found[label][problem.id] = one
        return found

    return asyncio.run(everything())


async def _run(method: Strategy, problem: Problem, task: Task, session: Session) -> Run:
    search: Search = session.search(problem)
    answer = await method(search)
    ended = [record.node for record in search.records() if record.node.parent is not None]
    read = search.candidates([node for node in ended if search.is_answer(node)])
    return Run(
        await task.right(answer.value, problem),
        answer.usage.generated_tokens,
        answer.usage.prompt_tokens or 0,
        answer.usage.flops or 0.0,
        answer.usage.model_calls,
        sum(node.finish == "length" for node in ended),
        sum(each.answer is None for each in read),
    )
