"""What experiments share: the same problems for every arm, costs beside accuracies, paired differences.

An arm is a strategy under a budget. All arms of an experiment use one bank, so they share the samples they have in
common, and a killed run goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.facts import facts
from thinktime import pocket
from thinktime.bank.store import Bank
from thinktime.bench.runner import Bench, Entry, Outcome
from thinktime.bench.statistics import mean_interval, paired_difference
from thinktime.bench.tasks import Task
from thinktime.core.protocols import Scorer
from thinktime.core.types import Prompt, Sampling
from thinktime.core.usage import Budget, total
from thinktime.generators.local import LocalGenerator
from thinktime.scorers.prm import ProcessReward
from thinktime.strategies import Strategy, parse
from thinktime.strategies.generative_reward import GenerativeReward
from thinktime.strategies.solve_or_verify import GenerativeVerification, SolveOrVerify

SAMPLING = Sampling(temperature=pocket.TEMPERATURE, max_length=pocket.MAX_TOKENS)


@dataclass(frozen=True)
class Arm:
    """A strategy under a budget; ``scorer`` takes the place of the usual one."""

    label: str
    strategy: Strategy
    budget: Budget = field(default_factory=Budget)
    scorer: Scorer | None = None


def forgiving(label: str) -> Strategy:
    """The strategy; where no judgement or check can be read it answers by plurality, so no problem is left out."""
    strategy = parse(label)[1]
    if isinstance(strategy, GenerativeReward | GenerativeVerification | SolveOrVerify):
        return replace(strategy, unreadable="plurality")
    return strategy


def models() -> tuple[LocalGenerator, ProcessReward]:
    """The shipped solver and reward model, in float64: a sample never depends on what shares its batch."""
    solver = LocalGenerator(pocket.directory("solver"), dtype="float64")
    return solver, ProcessReward(pocket.directory("reward"), dtype="float64")


def skilled() -> LocalGenerator:
    """The shipped skilled model; float32, for a bank is the truth about samples, and checks are many."""
    return LocalGenerator(pocket.directory("skilled"), dtype="float32")


def run_arms(
    arms: Sequence[Arm],
    task: Task,
    generator: LocalGenerator,
    scorer: Scorer,
    bank: Path,
    seed: int = 0,
    prompts: Mapping[str, Prompt] | None = None,
    sampling: Sampling = SAMPLING,
) -> dict[str, list[Outcome]]:
    """Every arm on every problem; outcomes in the order of the problems."""
    found: dict[str, list[Outcome]] = {}
    with Bank(bank) as opened:
        for arm in arms:
            started = time.perf_counter()
            entry = Entry(arm.label, 1, arm.strategy)
            judge = arm.scorer or scorer
            bench = Bench(task, generator, judge, [entry], sampling, opened, arm.budget, seed, prompts=prompts or {})
            asyncio.run(bench.run())
            found[arm.label] = [bench.outcomes[entry.label][problem.id] for problem in task.problems]
            right = fmean(outcome.correct for outcome in found[arm.label])
            tokens = fmean(outcome.answer.usage.generated_tokens for outcome in found[arm.label])
            print(f"{arm.label}: {right:.3f}, {tokens:,.0f} tokens, {time.perf_counter() - started:.0f} s", flush=True)
    return found


def summary(outcomes: Sequence[Outcome], seed: int = 0) -> dict[str, Any]:
    """Accuracy with its interval, and the mean of every cost of a problem."""
    usage = total(outcome.answer.usage for outcome in outcomes).as_dict()
    return {
        "accuracy": mean_interval([float(outcome.correct) for outcome in outcomes], seed).as_dict(),
        "usage": {name: None if value is None else value / len(outcomes) for name, value in usage.items()},
        "passes": fmean(outcome.answer.passes for outcome in outcomes),
        "without_answer": fmean(outcome.answer.value is None for outcome in outcomes),
        "out_of_budget": fmean(outcome.answer.finish == "budget" for outcome in outcomes),
    }


def minus(a: Sequence[Outcome], b: Sequence[Outcome], of: Callable[[Outcome], float] | None = None) -> dict[str, float]:
    """Paired difference of accuracies, or of what ``of`` says, with its interval."""
    value = of or (lambda outcome: float(outcome.correct))
    return paired_difference([value(outcome) for outcome in a], [value(outcome) for outcome in b]).as_dict()


def tokens(outcome: Outcome) -> float:
    """Tokens generated."""
    return float(outcome.answer.usage.generated_tokens)


def flops(outcome: Outcome) -> float:
    """Operations of the generator and the scorer."""
    usage = outcome.answer.usage
    return (usage.flops or 0.0) + (usage.scorer_flops or 0.0)


def vote_of_equal_cost(found: Sequence[Outcome], vote: Sequence[Outcome], n: int) -> str:
    """The weighted vote that takes as many operations as these, by what one of ``n`` samples takes."""
    return f"weighted_majority:n={max(1, round(n * fmean(map(flops, found)) / fmean(map(flops, vote))))}"


def ratio(a: Sequence[float], b: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Sum of ``a`` over sum of ``b``, with the interval from resampling problems."""
    x, y = np.array(a), np.array(b)
    picks = np.random.default_rng(seed).integers(0, len(x), (10_000, len(x)))
    low, high = np.percentile(x[picks].sum(1) / y[picks].sum(1), [2.5, 97.5])
    return {"value": float(x.sum() / y.sum()), "low": float(low), "high": float(high)}


def points(estimate: Mapping[str, float]) -> str:
    """A difference of shares in points, with its interval."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * estimate[name] for name in ("value", "low", "high")))


def times(estimate: Mapping[str, float]) -> str:
    """A ratio with its interval."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(estimate[name] for name in ("value", "low", "high")))


def held(outcome: Outcome, prompt: int) -> list[int]:
    """By depth the tokens that a search holds: prompt, the nodes sampled at that depth, all their ancestors.

    As in the published measurements of tree search, before that depth is pruned. For searches that go step by step.
    """
    nodes = {node["key"]: node for node in outcome.trace}
    by_depth: dict[int, set[str]] = {}
    for node in outcome.trace:
        if node["depth"]:
            by_depth.setdefault(node["depth"], set()).add(node["key"])
    sizes = []
    for keys in by_depth.values():
        on_path: set[str] = set()
        for key in keys:
            while key and key not in on_path:
                on_path.add(key)
                key = nodes[key]["parent"]
        sizes.append(prompt + sum(nodes[key]["tokens"] for key in on_path))
    return sizes


def write(folder: Path, seed: int, task: Task, result: Mapping[str, Any]) -> dict[str, Any]:
    """``result.json`` with what it takes to repeat it; the whole of it is returned."""
    whole = {
        **facts(folder, seed),
        "n_problems": len(task.problems),
        "sampling": {"temperature": SAMPLING.temperature, "max_tokens": SAMPLING.max_length},
        **result,
    }
    (folder / "result.json").write_text(json.dumps(whole, indent=1) + "\n")
    return whole
