"""Runs strategies over a task with many problems in flight, and summarises the outcomes.

The result is a function of the samples. Two runs of the same command write the same file, even if one was killed and
resumed. Seconds differ from run to run, so they are in a second file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from thinktime.answers import Undecided
from thinktime.bank.store import Bank
from thinktime.bench.bank_export import check_continued
from thinktime.bench.execution import ProgramValues
from thinktime.bench.shards import Shard
from thinktime.bench.signals import signals
from thinktime.bench.statistics import DIFFERENCES, SHARES, mean_interval, paired_difference, pass_at_k
from thinktime.bench.tally import Kind, Tally, ends, tally
from thinktime.bench.tasks import Task
from thinktime.bench.trace import records
from thinktime.core.errors import CapabilityError, InputError, ModelError, ThinktimeError
from thinktime.core.meter import Account
from thinktime.core.trace import Answer, Record
from thinktime.core.types import MAIN, Problem
from thinktime.core.usage import Usage, total
from thinktime.generators.text import thinking_counts, thinking_report
from thinktime.prompts.turns import question_text
from thinktime.session import Session
from thinktime.strategies import Strategy, check
from thinktime.strategies.composition.delegate import Delegate

SCHEMA = 1
IN_FLIGHT = 256
STAMP = "The selector is the evaluator: this is an upper bound, not the result of a method."
DIAL_STAMP = "The scorer is the evaluator with errors: this is a control, not the result of a method."


@dataclass(frozen=True)
class Entry:
    """A configured strategy of a bench. ``n`` is its sample budget, the size in plots."""

    name: str
    n: int
    strategy: Strategy

    @property
    def label(self) -> str:
        """The strategy and its budget, as in ``majority@16``."""
        return f"{self.name}@{self.n}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a strategy on one problem."""

    problem: Problem
    answer: Answer
    correct: bool
    samples: tuple[bool, ...]
    """Whether each complete independent sample of the tree is right."""
    trace: tuple[dict[str, Any], ...]
    thoughts: tuple[int | None, ...] = ()
    """Thought tokens of each sample, if thoughts are capped."""
    events: tuple[dict[str, Any], ...] = ()
    """The strategy's log."""
    ends: tuple[dict[str, Any], ...] = ()
    """Its samples and what became of them, for `Bench.samples`."""
    signals: Mapping[str, float] = field(default_factory=dict)
    """Of difficulty, see `thinktime.bench.signals`; none if it draws no whole samples."""


@dataclass(frozen=True)
class Results:
    """What a run leaves, as plain values that another process can write to files."""

    result: Mapping[str, Any]
    timing: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]]
    failures: Sequence[str]
    failed: Mapping[str, str]


@dataclass
class Bench:
    """A run in progress; `result` works at any time, even after an interruption."""

    task: Task
    session: Session
    """The models, scorers and settings of all searches. Answers are read as the task says."""
    entries: Sequence[Entry]
    bank: Bank
    """Keeps the samples."""
    thinking_tokens: int | None = None
    """The cap of the generator; the result reports whether it held."""
    plot_missing: bool = False
    """Whether the report draws runs whose samples are missing."""
    shard: Shard = field(default_factory=Shard)
    """The part of the task's problems that is run. The result of a part is not complete."""
    on_outcome: Callable[[Entry, Outcome], None] = lambda entry, outcome: None
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Why problems have no outcome, one line each; a later run tries these problems again."""
    unanswered: dict[str, Tally] = field(default_factory=dict)
    """The samples of problems without an outcome, by label of the entry."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why entries were refused or stopped, one line each, by label."""

    def __post_init__(self) -> None:
        self.session = replace(self.session, answers=self.task.answers).with_bank(self.bank)
        self._provenance = self.bank.provenance()  # a result can be made after the bank is closed

    @property
    def problems(self) -> Sequence[Problem]:
        """Those that are run."""
        return self.shard.of(self.task.problems)

    def part(self, shard: Shard) -> Bench:
        """This bench of a part of the problems, with nothing run yet."""
        return Bench(self.task, self.session, self.entries, self.bank, self.thinking_tokens, self.plot_missing, shard)

    def budget_text(self) -> str:
        """The limits of the budget as text."""
        return ", ".join(
            f"{value:g} {name}" for name, value in asdict(self.session.budget).items() if value is not None
        )

    async def run(self) -> None:
        """Run all entries, one after another; each finds the earlier entries' samples in the bank.

        All entries are checked before anything is spent. One that is refused, or that raises while it runs, is noted in
        `failed`, keeps its finished outcomes, and does not stop the others. A problem whose samples all fail is left
        out and noted in `failures`.

        Raises:
            CapabilityError: all entries are refused, the first because its needs are not met.
            InputError: all entries are refused; or a problem is invalid, the budget does not cover one sample, or the
                bank has imported samples that this run does not continue.
        """
        roots = []
        for problem in self.task.problems:
            try:
                search = self.session.search(problem)
            except InputError as error:
                raise InputError(error.field, error.value, f"problem {problem.id}: {error.fix}") from None
            worst = search.generator.worst_case(search.root, search.sampling.max_length)
            if await search.ledger.reserve(worst) is None:
                raise InputError("budget", self.budget_text(), f"not enough for one sample of problem {problem.id}")
            roots.append(search.root.key)
        check_continued(self.bank, roots, self.session, self.task)
        for entry in self._accepted():
            await self._run_entry(entry)

    def _accepted(self) -> list[Entry]:
        """The entries that can run; `failed` says why the others cannot. If none can, raise the first reason."""
        accepted, refused = [], []
        search = self.session.search(self.task.problems[0]) if self.task.problems else None
        for entry in self.entries:
            try:
                if search is not None:
                    check(entry.name, entry.strategy, search)
            except (CapabilityError, InputError) as error:
                refused.append(error)
                self.failed[entry.label] = str(error)
            else:
                accepted.append(entry)
        if refused and not accepted:
            raise refused[0]
        return accepted

    async def _run_entry(self, entry: Entry) -> None:
        free = asyncio.Semaphore(IN_FLIGHT)
        tasks: list[asyncio.Task[ModelError | None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(self._one(entry, problem, free)) for problem in self.problems]
        except* ThinktimeError as errors:
            self.failed[entry.label] = str(errors.exceptions[0])
        else:
            unanswered = [str(error) for task in tasks if (error := task.result()) is not None]
            if unanswered and not self.outcomes.get(entry.label):
                self.failed[entry.label] = unanswered[0]
            else:
                self.failures += unanswered

    async def _one(self, entry: Entry, problem: Problem, free: asyncio.Semaphore) -> ModelError | None:
        """Store the outcome of one problem, or return the error."""
        async with free:
            try:
                outcome = await self._solve(entry, problem)
            except ModelError as error:
                return error
        self.outcomes.setdefault(entry.label, {})[problem.id] = outcome
        self.on_outcome(entry, outcome)
        return None

    async def _solve(self, entry: Entry, problem: Problem) -> Outcome:
        search = self.session.search(problem)
        try:
            answer = await entry.strategy(search)
        except ModelError:
            self.unanswered[entry.label] = self.unanswered.get(entry.label, Tally()) + tally(
                kind for _, kind in ends(search)
            )
            raise
        correct = await self.task.right(answer.value, problem)
        if answer.node is not None:
            self.bank.add_verdict(answer.node.key, self.task.name, correct)
        drawn = [r.node for r in search.records() if r.node.parent is search.root]
        leaves = [node for node in drawn if node.done]
        read = [self.task.answers.read(leaf.state) for leaf in leaves]
        samples = tuple([await self.task.right(each, problem) for each in read])
        capped = self.thinking_tokens is not None
        thoughts = thinking_counts(record.node for record in search.records()) if capped else ()
        trace, events = tuple(records(search)), tuple(search.events)
        ended = tuple([await self._sample(record, kind, problem) for record, kind in ends(search)])
        if delegated := isinstance(entry.strategy, Delegate):  # its samples belong to the root of another search
            parents = ((r.node, r.node.parent) for r in search.records())
            drawn = [node for node, parent in parents if parent is not None and parent.parent is None]
        known = signals(search, drawn) if leaves or delegated else {}
        return Outcome(problem, answer, correct, samples, trace, tuple(thoughts), events, ended, known)

    async def _sample(self, record: Record, kind: Kind, problem: Problem) -> dict[str, Any]:
        node = record.node
        answer = self.task.answers.read(node.state) if kind == "readable" else None
        return {
            "key": node.key,
            "kind": kind,
            "answer": answer,
            "correct": kind == "readable" and await self.task.right(answer, problem),
            "tokens": self.session.models[node.model].length(node.state),
            "score": record.score,
            "text": getattr(node.state, "text", ""),
            "error": None if record.error is None else str(record.error),
        }

    def samples(self) -> Iterator[dict[str, Any]]:
        """Every sample of every run, as a row. Strategies share samples, so a key may come several times."""
        for entry in self.entries:
            for outcome in self._ordered(entry):
                for row in outcome.ends:
                    yield {"strategy": entry.name, "n": entry.n, "problem": outcome.problem.id, **row}

    def _key(self, answer: str | None) -> Hashable:
        return None if answer is None else self.task.answers.key(answer)

    def settings(self) -> dict[str, Any]:
        """The part of the result that decides the rest. Runs with the same settings are the same run, resumed."""
        return {
            "seed": self.session.seed,
            "task": self._task_result(),
            "model": self._model_result(),
            "reader": self.task.answers.name,
            "sampling": self._sampling_result(),
            "budget": asdict(self.session.budget),
            "strategies": [
                {"strategy": entry.name, "n": entry.n, "options": _options(entry)} for entry in self.entries
            ],
        }

    def result(self, command: str, environment: Mapping[str, Any]) -> dict[str, Any]:
        """The result file: runs with intervals, costs and differences; failed entries; coverage; traces."""
        finished = [entry for entry in self.entries if self.outcomes.get(entry.label)]
        return {
            "schema": SCHEMA,
            "command": command,
            "environment": dict(environment),
            **self.settings(),
            "complete": all(len(self.outcomes.get(e.label, {})) == len(self.task.problems) for e in self.entries),
            "evaluator": self.task.evaluator,
            "stamp": self._stamp(),
            **self._programs_result(),
            "runs": [self._run_result(entry) for entry in finished],
            "failed": [
                {"strategy": entry.name, "n": entry.n, "error": self.failed[entry.label]}
                for entry in self.entries
                if entry.label in self.failed
            ],
            "plot_missing": self.plot_missing,
            "coverage": self._coverage(finished),
            "traces": self._traces(finished),
        }

    def results(self, command: str, environment: Mapping[str, Any]) -> Results:
        """Everything that is written to files."""
        result = self.result(command, environment)
        return Results(result, self.timing(), list(self.samples()), list(self.failures), dict(self.failed))

    def _task_result(self) -> dict[str, Any]:
        levels = [str(p.metadata["level"]) for p in self.task.problems if "level" in p.metadata]
        counts = {level: levels.count(level) for level in sorted(set(levels))}
        return {"name": self.task.name, "n": len(self.task.problems), "levels": counts, **self.task.details}

    def _stamp(self) -> str | None:
        """What a reader has to know if the main scorer uses the reference answers."""
        if self._judge == self.task.evaluator:
            return STAMP
        return DIAL_STAMP if self._judge and self._judge.startswith(self.task.evaluator) else None

    @property
    def _judge(self) -> str | None:
        """The name of the main scorer."""
        return self.session.scorers[MAIN].name if MAIN in self.session.scorers else None

    def _programs_result(self) -> dict[str, Any]:
        """Where programs ran, and how many different ones got each verdict."""
        programs = self.task.answers if isinstance(self.task.answers, ProgramValues) else self.task.programs
        return {"sandbox": programs.sandbox.kind, "verdicts": programs.counts()} if programs else {}

    def _model_result(self) -> dict[str, Any]:
        """The names of the main model and scorer, and those of all roles if there are more."""
        named: dict[str, Any] = {"generator": self.session.models[MAIN].name, "scorer": self._judge}
        for kind in ("models", "scorers", "environments"):
            roles = {role: each.name for role, each in sorted(getattr(self.session, kind).items())}
            if roles.keys() - {MAIN} or (roles and kind == "environments"):
                named[kind] = roles
        noted, used = self._provenance, self.session.models.items()
        models = {role: noted[model.name] for role, model in used if model.name in noted}
        return named | ({"provenance": models} if models else {})

    def _sampling_result(self) -> dict[str, Any]:
        """The sampling options, the length limit named by the model's unit."""
        named = asdict(self.session.sampling)
        named[f"max_{self.session.models[MAIN].unit}"] = named.pop("max_length")
        if not named["stop"]:
            del named["stop"]
        return named

    def timing(self) -> dict[str, float]:
        """Mean machine seconds per problem of every entry, by label; banked samples keep their first time."""
        return {
            label: sum(o.answer.usage.seconds for o in outcomes.values()) / len(outcomes)
            for label, outcomes in self.outcomes.items()
            if outcomes
        }

    def _ordered(self, entry: Entry) -> list[Outcome]:
        found = self.outcomes.get(entry.label, {})
        return [found[problem.id] for problem in self.task.problems if problem.id in found]

    def _run_result(self, entry: Entry) -> dict[str, Any]:
        outcomes = self._ordered(entry)
        right = [float(o.correct) for o in outcomes]
        single = self.outcomes.get("single@1", {})
        shared = [(o.correct, single[o.problem.id].correct) for o in outcomes if o.problem.id in single]
        by_level: dict[str, list[float]] = {}
        for o in outcomes:
            if "level" in o.problem.metadata:
                by_level.setdefault(str(o.problem.metadata["level"]), []).append(float(o.correct))
        return {
            "strategy": entry.name,
            "n": entry.n,
            "options": _options(entry),
            "n_problems": len(outcomes),
            "undecided": sum(isinstance(self._key(o.answer.value), Undecided) for o in outcomes),
            "samples": self._samples_result(entry, outcomes),
            "accuracy": mean_interval(right, self.session.seed, bounds=SHARES).as_dict(),
            "versus_single": paired_difference(
                [float(mine) for mine, _ in shared],
                [float(theirs) for _, theirs in shared],
                self.session.seed,
                DIFFERENCES,
            ).as_dict()
            if shared and entry.name != "single"
            else None,
            "by_level": {
                level: mean_interval(values, self.session.seed, bounds=SHARES).as_dict() | {"n": len(values)}
                for level, values in sorted(by_level.items())
            },
            "usage": _mean_usage([o.answer.usage for o in outcomes]),
            "accounts": _mean_accounts(outcomes),
            "passes": sum(o.answer.passes for o in outcomes) / len(outcomes),
            **self._thinking(outcomes),
            "problems": [
                {
                    "id": o.problem.id,
                    "level": o.problem.metadata.get("level"),
                    "correct": o.correct,
                    "answer": o.answer.value,
                    "reference": o.problem.reference,
                    "finish": o.answer.finish,
                    "generated_tokens": o.answer.usage.generated_tokens,
                    "signals": dict(o.signals),
                    "pass_at_1": sum(o.samples) / len(o.samples) if o.samples else None,
                }
                for o in outcomes
            ],
        }

    def _samples_result(self, entry: Entry, outcomes: Sequence[Outcome]) -> dict[str, int]:
        """What became of the samples, also of those of problems without an outcome."""
        counted = tally(end["kind"] for outcome in outcomes for end in outcome.ends)
        return asdict(counted + self.unanswered.get(entry.label, Tally()))

    def _thinking(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        if self.thinking_tokens is None:
            return {}
        return {"thinking": thinking_report([count for o in outcomes for count in o.thoughts], self.thinking_tokens)}

    def _coverage(self, finished: Sequence[Entry]) -> dict[str, dict[str, float]]:
        """Unbiased pass@k at powers of two, from the entry with the most independent samples."""
        votes = [entry for entry in finished if entry.name == "majority"]
        if not votes:
            return {}
        entry = max(votes, key=lambda e: e.n)
        outcomes = self._ordered(entry)
        ks = [2**i for i in range(entry.n.bit_length()) if 2**i <= entry.n]
        return {
            str(k): mean_interval(
                [_padded_pass(o.samples, entry.n, k) for o in outcomes], self.session.seed, bounds=SHARES
            ).as_dict()
            for k in ks
        }

    def _traces(self, finished: Sequence[Entry]) -> list[dict[str, Any]]:
        """The trees of every strategy at its largest size, on up to four problems.

        The problems are those on which the deepest strategy at the largest size, or else the largest one, agrees with
        ``single`` and differs from it, in both ways. Its tree comes first.
        """
        largest: dict[str, Entry] = {}
        for entry in sorted(finished, key=lambda e: e.n):
            largest[entry.name] = entry
        if not largest:
            return []
        first = max(largest.values(), key=lambda e: (any(map(_deep, self._ordered(e))), e.n))
        single = self.outcomes.get("single@1", {})
        examples: dict[tuple[bool, bool], Outcome] = {}
        for o in self._ordered(first):
            before = single[o.problem.id].correct if o.problem.id in single else False
            examples.setdefault((before, o.correct), o)
        order = [(False, True), (False, False), (True, True), (True, False)]
        shown = [first, *(entry for entry in finished if entry in largest.values() and entry != first)]
        return [
            _trace(entry, outcome)
            for kind in order
            if kind in examples
            for entry in shown
            if (outcome := self.outcomes[entry.label].get(examples[kind].problem.id)) is not None
        ]


def _options(entry: Entry) -> dict[str, Any]:
    return asdict(entry.strategy)  # type: ignore[call-overload, no-any-return]  # a strategy is a dataclass


def _trace(entry: Entry, o: Outcome) -> dict[str, Any]:
    return {
        "problem": {
            "id": o.problem.id,
            "question": question_text(o.problem) if isinstance(o.problem.prompt, list) else str(o.problem.prompt),
            "reference": o.problem.reference,
            "level": o.problem.metadata.get("level"),
        },
        "strategy": entry.name,
        "n": entry.n,
        "answer": o.answer.value,
        "correct": o.correct,
        "returned": o.answer.node.key if o.answer.node else None,
        "accounts": _mean_accounts([o]),
        "nodes": list(o.trace),
    }


def _deep(outcome: Outcome) -> bool:
    return any(node["depth"] > 1 for node in outcome.trace)


def _padded_pass(samples: Sequence[bool], n: int, k: int) -> float:
    """pass@k where a sample that never finished counts as wrong."""
    return pass_at_k(max(n, len(samples)), sum(samples), k)


def _mean_usage(usages: Sequence[Usage], n: int | None = None) -> dict[str, float | None]:
    """The sum of these divided by ``n``, by default by their number; without seconds."""
    summed = total(usages).as_dict()
    del summed["seconds"]
    return {name: None if value is None else value / (n or len(usages)) for name, value in summed.items()}


def _mean_accounts(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The mean cost of each role in each phase, over all problems, including those where the role spent nothing."""
    spent: dict[Account, list[Usage]] = {}
    for outcome in outcomes:
        for account, usage in outcome.answer.accounts.items():
            spent.setdefault(account, []).append(usage)
    return [
        {"phase": phase, "role": role, "usage": _mean_usage(spent[phase, role], len(outcomes))}
        for phase, role in sorted(spent)
    ]
