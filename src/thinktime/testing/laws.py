"""The laws that every strategy keeps, each a check of a strategy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from thinktime.core.errors import ThinktimeError
from thinktime.core.ledger import Ledger
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.core.usage import total
from thinktime.strategies import Strategy, fault
from thinktime.testing.doubles import ANSWERS, MemoryJournal
from thinktime.testing.trial import Killed, Trial, counts, random_budget, watched

SEEDS = range(6)


def keeps_within_budget(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """At every call, the spent usage and the worst case of all running calls are within every limit."""
    for seed in seeds:
        trial = watched(strategy, seed, random_budget(seed))
        ledger = Ledger(trial.budget)
        for usage in [*trial.moments, trial.spent]:
            flops = (usage.flops or 0.0) + (usage.scorer_flops or 0.0)
            committed = f"{usage.generated_tokens} tokens, {usage.model_calls} calls and {flops:g} FLOPs"
            trial.require(ledger.check(usage), f"the budget was exceeded: {committed} were spent or running")


def answers_anytime(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """With any budget, it returns an answer from its samples, if one is readable, and the right finish."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            trial = watched(strategy, seed, budget)
            answer: Answer = trial.answer
            complete = [record.node for record in trial.search.trace.values() if record.node.done]
            complete = [node for node in complete if trial.search.is_answer(node)]
            readable = {node.key: value for node in complete if (value := ANSWERS.read(node.state)) is not None}
            trial.require(
                answer.value is not None or not readable, f"no answer, though {len(readable)} of its samples have one"
            )
            if answer.value is not None:
                at = answer.node.key if answer.node else ""
                trial.require(readable.get(at) == answer.value, f"the answer {answer.value!r} is not that of its node")
            cut_short = "budget" if trial.search.exhausted else "done"
            expected = "incomplete" if answer.value is None else cut_short
            trial.require(answer.finish == expected, f"finish is {answer.finish!r}, expected {expected!r}")


def is_deterministic(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """The same seed gives the same answer, account and trace, also beside other runs with calls in any order."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            trial = watched(strategy, seed, budget)
            _same(trial, watched(strategy, seed, budget), "a second run with the same seed")
            rng = Random(seed)
            crowd = [Trial(strategy, s, budget, disorder=rng) for s in (seed + 1, seed, seed + 2)]
            _, crowded, _ = asyncio.run(_together(crowd))
            _same(trial, crowded, "a run beside others, its calls and batches in another order,")


def keeps_every_sample(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """The trace has every child that the generator returned, and trace, ledger and answer add up to the cost."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            trial = watched(strategy, seed, budget)
            trace = {key: record.node for key, record in trial.search.trace.items()}
            for key, child in trial.sampled:
                kept = key in trace and trace[key].state == child.state
                trial.require(kept, f"a paid sample is missing in the trace: {child.state.text!r}")
            accounts = {
                "the trace, with scores and embeddings,": total(node.usage for node in trace.values()) + trial.judged,
                "the ledger": trial.search.ledger.spent,
                "the answer": trial.answer.usage,
            }
            for name, usage in accounts.items():
                wrong = _difference(counts(trial.spent), counts(usage))
                trial.require(not wrong, f"{name} does not add up to the cost: {wrong}")


def leaves_pruned_alone(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """A node is never extended after it was pruned."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            trial = watched(strategy, seed, budget)
            texts = [node.state.text for node in trial.grown_from_pruned]
            trial.require(not texts, f"a node was extended after it had been pruned: {', '.join(map(repr, texts[:1]))}")


def resumes(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """Killed at any call and resumed from its journal, it gives the same result and samples no child twice."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            whole = watched(strategy, seed, budget, journal=MemoryJournal())
            for call in range(whole.calls):
                journal = MemoryJournal()
                killed = Trial(strategy, seed, budget, journal=journal, killed_at=call)
                with suppress(Killed):
                    asyncio.run(killed.run())
                resumed = watched(strategy, seed, budget, journal=journal)
                _same(whole, resumed, f"a run killed at call {call} and resumed")
                keys = [key for key, child in (*killed.sampled, *resumed.sampled) if child.finish != "budget"]
                twice = len(keys) - len(set(keys))
                whole.require(not twice, f"killed at call {call} and resumed, it sampled {twice} children twice")


def is_well_formed(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """It is a frozen dataclass with a class variable ``needs`` and an ``async`` call."""
    wrong = fault(type(strategy))
    if wrong:
        raise AssertionError(f"{strategy!r}: {wrong}")
    own = strategy.needs
    if not isinstance(own, frozenset) or not all(isinstance(need, str) for need in own):
        raise AssertionError(f"{strategy!r}: its needs are no frozenset of capabilities")


def names_its_needs(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """On a search that offers what it needs and nothing else, it runs, unless its ``validate`` refuses the search.

    It scores unfinished steps only if it needs process rewards.
    """
    offered = frozenset(strategy.needs)
    for seed in seeds:
        trial = Trial(strategy, seed, offered=offered)
        if (validate := getattr(strategy, "validate", None)) is not None:
            try:
                validate(trial.search)
            except ThinktimeError:  # it is refused before anything is spent, as the user wants it
                return
        asyncio.run(trial.run())
        early = trial.scored_unfinished and Capability.PROCESS_REWARD not in offered
        trial.require(not early, f"it scores unfinished steps, but does not need {Capability.PROCESS_REWARD}")


LAWS: tuple[Callable[[Strategy, Iterable[int]], None], ...] = (
    is_well_formed,
    names_its_needs,
    keeps_within_budget,
    answers_anytime,
    is_deterministic,
    keeps_every_sample,
    leaves_pruned_alone,
    resumes,
)


def check_strategy(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """Check a strategy against every law.

    Args:
        strategy: the strategy with its options; it runs on generations of at most 20 tokens.
        seeds: seeds of the searches and of their budgets.

    Raises:
        AssertionError: a law is broken; one line names the strategy, the seed, the budget and the fault.
    """
    seeds = list(seeds)
    for law in LAWS:
        law(strategy, seeds)


async def _together(trials: Sequence[Trial]) -> list[Trial]:
    return await asyncio.gather(*(trial.run() for trial in trials))


def _same(trial: Trial, other: Trial, which: str) -> None:
    wrong = _difference(trial.outcome(), other.outcome())
    trial.require(not wrong, f"{which} differs: {wrong}")


def _difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A description of the first entry that differs; empty if all are equal."""
    for name, value in expected.items():
        if found[name] != value:
            values = "" if name == "trace" else f" is {found[name]!r} where it is {value!r}"
            return f"{name}{values}"
    return ""
