"""One request answered by a search: the same core that the command line runs, on a generator that sends its fields."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from thinktime.core.errors import InputError, ThinktimeError
from thinktime.core.journal import Journal
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Scorer
from thinktime.core.search import Answer, Search
from thinktime.core.selection import Candidate
from thinktime.core.types import Capability, Problem, Score
from thinktime.core.usage import Budget
from thinktime.gateway.asks import Ask
from thinktime.gateway.door import over_budget
from thinktime.gateway.errors import HttpError, http_error
from thinktime.gateway.methods import Method
from thinktime.gateway.replies import Outcome, account
from thinktime.gateway.voting import SampleAnswers, cut_short, stand_in
from thinktime.generators.openai import RemoteGenerator
from thinktime.generators.text import RemoteText, unpack_remote
from thinktime.skills import ChatSkills
from thinktime.strategies import check

Tell = Callable[[str], None]
_SCORED = {Capability.SCORES, Capability.PROCESS_REWARD}


async def search_for(
    ask: Ask,
    method: Method,
    generator: RemoteGenerator,
    *,
    budget: Budget,
    within: Ledger,
    upstream: str,
    scorer: Scorer | None = None,
    journal: Journal | None = None,
    begun: Callable[[Search], None] | None = None,
) -> Outcome:
    """Run a method on a request.

    Whatever becomes of it, the shared ledger is settled: a search that is cancelled is charged the most that the
    samples under way can have cost.

    Args:
        ask: what is wanted.
        method: how it is found.
        generator: of this request, see `RemoteGenerator.sending`.
        budget: of this request.
        within: what its samples are charged to as well.
        upstream: the address that errors do not tell.
        scorer: for a method that scores.
        journal: where samples go.
        begun: is handed the search, for whoever looks on.

    Raises:
        HttpError: there is no answer; it says why, and what was spent.
    """
    try:
        search = Search(
            ask.problem,
            generator,
            scorers=scorer if method.strategy.needs & _SCORED else None,
            answers=SampleAnswers(as_json=ask.json, tools=ask.tools),
            prompts=None if isinstance(ask.problem.prompt, str) else ChatSkills(),
            sampling=ask.sampling,
            budget=budget,
            seed=ask.seed,
            journal=journal,
            within=within,
        )
        check(method.name, method.strategy, search)
    except ThinktimeError as error:
        raise http_error(error, upstream) from None
    if begun is not None:
        begun(search)
    try:
        return Outcome(await _answer(method, search), search, method, ask)
    except (HttpError, ThinktimeError) as error:
        found = http_error(error, upstream)
        found.account = account(search, method, ask.seed)
        raise found from None
    finally:
        search.ledger.forfeit()


async def _answer(method: Method, search: Search) -> Answer:
    """The method's answer, or the nearest thing to one that was paid for."""
    try:
        answer = await method.strategy(search)
    except ThinktimeError:
        if cut_short(search) is None:
            raise
        answer = None
    if answer is not None and answer.node is not None:
        return answer
    if (chosen := stand_in(search)) is not None:
        return search.finish(chosen)
    if (node := cut_short(search)) is not None:
        found = search.finish(Candidate(node, None))
        return found if found.finish == "budget" else replace(found, finish="incomplete")
    raise _nothing(search)


def _nothing(search: Search) -> HttpError | InputError:
    """Why there is nothing to show."""
    worst = search.generator.worst_case(search.root, search.sampling.max_length)
    ledger = search.ledger
    late = ledger.deadline is not None and time.monotonic() >= ledger.deadline
    if ledger.spent.model_calls or late:
        return HttpError(504, "budget.seconds: no sample ended in time; give more", param="budget", code="budget")
    if not ledger.check(worst):
        cost = f"{worst.generated_tokens} tokens" + (
            "" if worst.dollars is None else f" and {worst.dollars:.6f} dollars"
        )
        return InputError("budget", "too small", f"one sample may take {cost}; raise it, or lower max_tokens")
    return over_budget()


class Progress:
    """A journal that tells of each sample, on its way into the bank if there is one."""

    def __init__(self, tell: Tell, answers: SampleAnswers, bank: Journal | None) -> None:
        self._tell, self._answers, self._bank = tell, answers, bank
        self._count = 0

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        """What the bank has."""
        return self._bank.find_sample(key) if self._bank else None

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Tell how many there are, and what the newest answer."""
        if self._bank is not None:
            self._bank.add_samples(problem, model, samples)
        for _, sample in samples:
            self._count += 1
            answer = self._answers.read(unpack_remote(RemoteText(""), sample["state"]))
            self._tell(f"sample {self._count}: {answer or 'no answer'}\n")

    def find_score(self, key: str, scorer: str) -> Score | None:
        """What the bank has."""
        return self._bank.find_score(key, scorer) if self._bank else None

    def add_scores(self, scorer: str, readings: Sequence[tuple[str, Score]]) -> None:
        """Into the bank."""
        if self._bank is not None:
            self._bank.add_scores(scorer, readings)
