"""Answers one request by a search. It runs the same core as the command line, on a generator for this request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thinktime.core.errors import InputError, ThinktimeError
from thinktime.core.journal import Journal
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Generator, Scorer
from thinktime.core.search import Search
from thinktime.core.selection import Candidate
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, Capability, Problem, Prompt, Score
from thinktime.core.usage import Budget, Usage
from thinktime.gateway.answers import SampleAnswers, fallback_sample, truncated_sample
from thinktime.gateway.auth import over_budget
from thinktime.gateway.errors import HttpError, http_error
from thinktime.gateway.methods import Method, samples_of
from thinktime.gateway.replies import SearchOutcome, account
from thinktime.gateway.request import CompletionRequest
from thinktime.generators.text import RemoteText, unpack_remote
from thinktime.planning.auto import SAMPLES, Auto
from thinktime.session import Session
from thinktime.strategies import Strategy, check, parse

OnProgress = Callable[[str], None]
_SCORED = {Capability.SCORES, Capability.PROCESS_REWARD}


async def search_for(
    request: CompletionRequest,
    method: Method,
    models: Mapping[str, Generator],
    *,
    budget: Budget,
    within: Ledger,
    addresses: tuple[str, ...],
    scorers: Mapping[str, Scorer],
    prompts: Mapping[str, Prompt],
    calibration: Path | None = None,
    journal: Journal | None = None,
    on_start: Callable[[Search], None] | None = None,
) -> SearchOutcome:
    """Run a method on a request.

    The shared ledger is settled in any case: a cancelled search is charged the most that its running samples can cost.

    Args:
        request: the parsed request.
        method: the strategy and its options.
        models: generators for this request by role, see `RemoteGenerator.sending`.
        budget: the budget of this request.
        within: the outer ledger, to which samples are charged as well.
        addresses: of upstreams; they are removed from errors.
        scorers: by role; ``main`` is used if the method scores.
        prompts: in place of the strategies' own, by name.
        calibration: a file, or a folder of them, that ``auto`` follows, if the request names no calibration.
        journal: stores and finds samples.
        on_start: called with the search before it runs.

    Raises:
        HttpError: there is no answer; it has the reason and the account.
    """
    scored = bool(method.strategy.needs & _SCORED) or isinstance(method.strategy, Auto)  # which may choose to score
    try:
        session = Session(
            models,
            {role: scorer for role, scorer in scorers.items() if role != MAIN or scored},
            prompts=prompts,
            answers=SampleAnswers(as_json=request.json, tools=request.tools),
            sampling=request.sampling,
            budget=budget,
            seed=request.seed,
            journal=journal,
        )
        search = session.search(request.problem, within)
        strategy = method.strategy if calibration is None else following(method.strategy, calibration, search)
        check(method.name, strategy, search)
        await _refuse_unpriced(search)
    except ThinktimeError as error:
        raise http_error(error, addresses) from None
    if on_start is not None:
        on_start(search)
    try:
        return SearchOutcome(await _answer(strategy, search), search, method, request)
    except (HttpError, ThinktimeError) as error:
        found = http_error(error, addresses)
        found.account = account(search, method, request.seed)
        raise found from None
    finally:
        search.ledger.forfeit()


def upstreams_of(search: Search) -> Iterator[str]:
    """The upstreams that made the samples, where the gateway has several."""
    states = (record.node.state for record in search.records())
    return (state.upstream for state in states if isinstance(state, RemoteText) and state.upstream)


def following(strategy: Strategy, calibration: Path, search: Search) -> Strategy:
    """``auto`` with the server's calibration, if it fits the request; any other strategy as it is."""
    if not isinstance(strategy, Auto) or strategy != Auto():
        return strategy
    from thinktime.planning.calibration_files import advise, policy

    for path in _files(calibration):
        try:
            policy(str(path)).refuse_other(search)
            advise(str(path), search.ledger.budget, search.capabilities)
        except InputError:
            continue
        return Auto(policy=str(path))
    search.log(reason="the server's calibration is of another model, scorer or temperature")
    return strategy


def _files(calibration: Path) -> list[Path]:
    """The file, or all files of a folder."""
    return sorted(calibration.glob("*.json")) if calibration.is_dir() else [calibration]


def refuse_large(calibration: Path) -> None:
    """Raise an `InputError` if a file is no calibration, or has a strategy of more samples than ``auto`` may draw."""
    from thinktime.planning.calibration_files import policy

    for path in _files(calibration):
        for arm in policy(str(path)).arms:
            if samples_of(parse(arm.strategy)[1]) > SAMPLES:
                fix = f"auto draws {SAMPLES} samples at most, not {arm.strategy}"
                raise InputError("calibration", str(path), fix)


async def _refuse_unpriced(search: Search) -> None:
    """Raise an `InputError` if a budget limits a count that is unknown for a role other than ``main``."""
    worst = {f"model {role}": model.worst_case(search.root, 1) for role, model in search.models.items() if role != MAIN}
    for role, scorer in search.scorers.items():
        if role != MAIN:
            worst[f"scorer {role}"] = scorer.worst_case(search.problem, search.root, None)
    for role, usage in worst.items():
        try:
            if (reservation := await search.ledger.reserve(usage)) is not None:
                search.ledger.settle([reservation], Usage())
        except InputError as error:
            raise InputError(error.field, error.value, f"for {role}, {error.fix}") from None


async def _answer(strategy: Strategy, search: Search) -> Answer:
    """The method's answer, or else the best sample that was paid for."""
    try:
        answer = await strategy(search)
    except ThinktimeError:
        if truncated_sample(search) is None:
            raise
        answer = None
    if answer is not None and answer.node is not None:
        return answer
    if (chosen := fallback_sample(search)) is not None:
        return search.finish(chosen)
    if (node := truncated_sample(search)) is not None:
        found = search.finish(Candidate(node, None))
        return found if found.finish == "budget" else replace(found, finish="incomplete")
    raise _nothing(search)


def _nothing(search: Search) -> HttpError | InputError:
    """The error of a search without any sample."""
    worst = search.generator.worst_case(search.root, search.sampling.max_length)
    ledger = search.ledger
    if ledger.spent.model_calls or ledger.late:
        return HttpError(504, "budget.seconds: no sample ended in time; give more", param="budget", code="budget")
    if not ledger.check(worst):
        cost = f"{worst.generated_tokens} tokens" + (
            "" if worst.dollars is None else f" and {worst.dollars:.6f} dollars"
        )
        return InputError("budget", "too small", f"one sample may cost {cost}; raise it, or lower max_tokens")
    return over_budget()


class Progress:
    """A journal that reports each new sample, and passes everything on to the bank if there is one.

    A task reads the answers, because `SampleAnswers.prepare` reads long texts in a thread. `finish` waits for it.
    """

    def __init__(self, on_progress: OnProgress, answers: SampleAnswers, bank: Journal | None) -> None:
        self._on_progress, self._answers, self._bank = on_progress, answers, bank
        self._count = 0
        self._reported: asyncio.Task[None] | None = None

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        """As `Journal.find_sample`."""
        return self._bank.find_sample(key) if self._bank else None

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Store the samples, and report the number and the answer of each."""
        if self._bank is not None:
            self._bank.add_samples(problem, model, samples)
        states = [unpack_remote(RemoteText(""), sample["state"]) for _, sample in samples]
        self._reported = asyncio.create_task(self._report(states, self._reported))

    async def finish(self) -> None:
        """Wait until all samples are reported."""
        if self._reported is not None:
            await self._reported

    async def _report(self, states: Sequence[RemoteText], before: asyncio.Task[None] | None) -> None:
        """Report these samples after those before them."""
        await self._answers.prepare(states)
        if before is not None:
            await before
        for state in states:
            self._count += 1
            self._on_progress(f"sample {self._count}: {self._answers.read(state) or 'no answer'}\n")

    def find_score(self, key: str, scorer: str) -> Score | None:
        """As `Journal.find_score`."""
        return self._bank.find_score(key, scorer) if self._bank else None

    def add_scores(self, scorer: str, scores: Sequence[tuple[str, Score]]) -> None:
        """As `Journal.add_scores`."""
        if self._bank is not None:
            self._bank.add_scores(scorer, scores)
