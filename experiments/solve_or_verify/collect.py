"""Solutions by one model and checks of them by several, as arrays."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from experiments.harness import new_search
from thinktime.bank.store import Bank
from thinktime.bench.tasks import Task
from thinktime.core.search import Search
from thinktime.core.types import Node, Problem
from thinktime.core.usage import total
from thinktime.generators.local import LocalGenerator
from thinktime.planning.verification import Checked, Verdicts
from thinktime.prompts.common import CHECK

IN_FLIGHT = 32
TAILS = 3


@dataclass(frozen=True)
class Collected:
    """A bank of verdicts, and lambda in operations: those of a check over those of a solution, reading included."""

    verdicts: Verdicts
    flops_ratio: float


@dataclass(frozen=True)
class _Part:
    problem: Checked
    tails: tuple[str, ...]
    solution_flops: float
    check_flops: float
    """Means of one, 0 where none was asked."""


def collect(
    task: Task,
    solver: LocalGenerator,
    verifiers: Mapping[str, LocalGenerator],
    bank: Bank,
    solutions: int,
    checks: int,
    seed: int,
) -> dict[str, Collected]:
    """By verifier: the same solutions of every problem, with its checks; one that is the solver reads on from them."""
    free = asyncio.Semaphore(IN_FLIGHT)

    async def one(problem: Problem) -> dict[str, _Part]:
        async with free:
            search = new_search(problem, task, solver, seed=seed, journal=bank)
            leaves = await search.extend([search.root], solutions)
            parts = {}
            for name, model in verifiers.items():
                own = model is solver
                asked = search if own else new_search(problem, task, model, seed=seed, journal=bank)
                shown = leaves if own else [as_text(asked, leaf) for leaf in leaves]
                roots = [asked.ask(CHECK, [leaf]) if leaf.done else None for leaf in shown]
                replies = await asked.extend([root for root in roots if root is not None], checks)
                parts[name] = _arrays(task, asked, leaves, roots, replies, checks)
            return parts

    async def everything() -> list[dict[str, _Part]]:
        return list(await asyncio.gather(*map(one, task.problems)))

    found = asyncio.run(everything())
    return {name: _together([parts[name] for parts in found]) for name in verifiers}


def as_text(search: Search, leaf: Node) -> Node:
    """Another model's solution as a text of which this model has read nothing."""
    return replace(leaf, state=replace(search.root.state, text=leaf.state.text))


def _arrays(
    task: Task, search: Search, leaves: Sequence[Node], roots: Sequence[Node | None], replies: list[Node], checks: int
) -> _Part:
    problem = search.problem
    size = len(leaves), checks
    verdicts, check_tokens, check_read = np.full(size, np.nan), np.zeros(size), np.zeros(len(leaves))
    tails = []
    for place, root in enumerate(roots):
        for turn, reply in enumerate(reply for reply in replies if root is not None and reply.parent is root):
            verdict = search.read(CHECK, reply)
            check_tokens[place, turn] = reply.usage.generated_tokens
            check_read[place] += reply.usage.prompt_tokens or 0
            if verdict is None:
                tails.append(reply.state.text[-60:])
            else:
                verdicts[place, turn] = verdict
    texts = [task.answers.read(leaf.state) if leaf.done else None for leaf in leaves]
    solved, checked = total(leaf.usage for leaf in leaves), total(reply.usage for reply in replies)
    arrays = Checked(
        problem.id,
        tuple(None if text is None else task.answers.key(text) for text in texts),
        np.array([task.check(text, problem.reference) for text in texts]),
        verdicts,
        np.array([float(leaf.usage.generated_tokens) for leaf in leaves]),
        check_tokens,
        check_read,
        float(solved.prompt_tokens or 0),
        problem.metadata.get("level"),
    )
    means = [(part.flops or 0.0) / max(1, part.model_calls) for part in (solved, checked)]
    return _Part(arrays, tuple(tails[:TAILS]), *means)


def _together(parts: Sequence[_Part]) -> Collected:
    tails = tuple(tail for part in parts for tail in part.tails)[:TAILS]
    asked = [part for part in parts if part.check_flops]
    ratio = fmean(part.check_flops for part in asked) / fmean(part.solution_flops for part in parts) if asked else 0.0
    return Collected(Verdicts(tuple(part.problem for part in parts), tails), ratio)
