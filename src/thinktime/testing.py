"""The laws every strategy keeps, as checks to put any strategy to, and a generator over words to do it with.

``check_strategy(MyMethod(n=4))`` raises an `AssertionError` of one line for the first law that is broken. No model and
no test framework is needed: what is sampled is a function of the sample's key, so a run takes milliseconds and can be
repeated, crowded, cut short and killed. Each law is also a function of its own, with the same arguments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from zlib import crc32

from thinktime.answers import TextAnswers
from thinktime.core.ledger import Ledger
from thinktime.core.search import Answer, Journal, Search
from thinktime.core.types import Capability, Child, Extension, Finish, Node, Problem, Reading, Sampling
from thinktime.core.usage import Budget, Usage, total
from thinktime.generators.text import Text, pack, unpack
from thinktime.scorers.embedding import HashedNgrams
from thinktime.strategies import Strategy

PROBLEM = Problem("sum", "what is 3 + 4", "7")
FLOPS = 2.0
"""Of one generated token."""
DOLLARS = 1 / 64
"""Of one generated token; a power of two, so sums are exact."""
SECONDS = 0.25
"""Of one generated token."""


# Doubles


@dataclass(frozen=True)
class Piece:
    """What one child says beyond its parent, why it stops, and the log-probability of saying it."""

    words: str
    finish: Finish
    logprob: float = -1.0


def drawn(extension: Extension) -> Piece:
    """One to five words ending in a digit or, unreadably, in ``?``; a function of the extension's key alone."""
    rng = Random(extension.key)
    words = ["so"] * rng.randint(0, 4) + [rng.choice("77758?")]
    ends = extension.until == "done" or rng.random() < 0.4
    return Piece(" ".join(words), "eos" if ends else "step", logprob=-rng.random())


def rambling(extension: Extension) -> Piece:
    """As `drawn`, but one child in eight would go on and on if nothing cut it."""
    piece = drawn(extension)
    at_length = Random(f"{extension.key}/ramble").random() < 1 / 8
    return replace(piece, words="and " * 99 + piece.words) if at_length else piece


def drawn_score(node: Node) -> float | None:
    """A score in 0..1 for most nodes, none for some; a function of the node's key alone."""
    rng = Random(node.key)
    return None if rng.random() < 0.1 else rng.random()


def last_number(text: str) -> str | None:
    """The last word, if it is a number."""
    word = text.split()[-1] if text.split() else ""
    return word if word.isdecimal() else None


ANSWERS = TextAnswers(last_number)


class WordGenerator:
    """Says what ``say`` has for an extension, a token a word. What would be too long is cut, as an engine cuts it."""

    capabilities = frozenset({Capability.STEPS, Capability.PREFIX, Capability.LOGPROBS, Capability.CANCEL})

    def __init__(
        self, say: Callable[[Extension], Piece] = drawn, *, name: str = "words", price: float | None = DOLLARS
    ) -> None:
        self.name = name
        self.asked: list[list[Extension]] = []
        """Every batch asked for."""
        self._say = say
        self._price = price

    def root(self, problem: Problem) -> Text:
        """Nothing said yet."""
        return Text(_ids(str(problem.prompt)))

    def length(self, state: Text) -> int:
        """Words said so far."""
        return len(state.ids)

    def worst_case(self, node: Node, max_tokens: int) -> Usage:
        """What so many words cost."""
        return self._usage(node.state, max_tokens)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """All children at once."""
        self.asked.append(list(extensions))
        await asyncio.sleep(0)  # let other searches run, as an engine would
        children = [self._child(extension) for extension in extensions]
        for extension, child in zip(extensions, children, strict=True):
            if extension.race and child.finish == "eos" and extension.race.counts(child.state):
                extension.race.lengths.append(child.passes)
        return [self._raced(e, child) for e, child in zip(extensions, children, strict=True)]

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """The child's first words."""
        before: Text = extension.node.state
        ids = child.state.ids[: len(before.ids) + tokens]
        text = " ".join(child.state.text.split()[: len(ids)])
        state = replace(child.state, ids=ids, text=text, step_ends=(*before.step_ends, len(ids)))
        return Child(state, "pruned", self._usage(before, tokens), tokens)

    def pack(self, node_state: Text, state: Text) -> dict[str, Any]:
        """As every text is packed."""
        return pack(node_state, state)

    def unpack(self, node_state: Text, packed: Mapping[str, Any]) -> Text:
        """As every text is unpacked."""
        return unpack(node_state, packed)

    def _raced(self, extension: Extension, child: Child) -> Child:
        limit = extension.race.limit if extension.race else None
        return child if limit is None or child.passes <= limit else self.cut(extension, child, limit)

    def _child(self, extension: Extension) -> Child:
        before: Text = extension.node.state
        piece = self._say(extension)
        words, finish = piece.words.split(), piece.finish
        if len(words) > extension.max_tokens:
            words = words[: extension.max_tokens]
            if len(before.ids) + len(words) == extension.sampling.max_tokens:
                finish = "length"
            elif extension.max_tokens == extension.at_most:
                finish = "cut"
            else:
                finish = "budget"
        text = " ".join([before.text, *words]).strip()
        ids = before.ids + _ids(" ".join(words))
        state = Text(before.prompt, ids, text, (*before.step_ends, len(ids)), before.logprob + piece.logprob)
        return Child(state, finish, self._usage(before, len(words)), passes=len(words))

    def _usage(self, before: Text, tokens: int) -> Usage:
        return Usage(
            prompt_tokens=len(before.prompt) + len(before.ids),
            generated_tokens=tokens,
            model_calls=1,
            flops=FLOPS * tokens,
            seconds=SECONDS * tokens,
            dollars=None if self._price is None else self._price * tokens,
        )


class WordScorer:
    """Scores nodes by a function; one FLOP a token read."""

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def __init__(
        self,
        judge: Callable[[Node], float | None] = drawn_score,
        *,
        name: str = "word-scorer",
        price: float | None = 0.0,
    ) -> None:
        self.name = name
        self.asked: list[list[Node]] = []
        """Every batch asked for."""
        self._judge = judge
        self._price = price

    def worst_case(self, node: Node) -> Usage:
        """Exactly what the reading will cost."""
        tokens = len(node.state.ids)
        return Usage(scorer_tokens=tokens, scorer_calls=1, scorer_flops=float(tokens), dollars=self._price)

    async def score(self, nodes: Sequence[Node]) -> list[Reading]:
        """All readings at once."""
        self.asked.append(list(nodes))
        await asyncio.sleep(0)
        return [Reading(self._judge(node), self.worst_case(node), steps=(0.5,)) for node in nodes]


@dataclass
class Notebook:
    """A journal in memory."""

    samples: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    readings: dict[tuple[str, str], Reading] = field(default_factory=dict)

    def find_sample(self, key: str) -> Mapping[str, Any] | None:
        """The sample of this key, if it was noted."""
        return self.samples.get(key)

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Note samples."""
        self.samples.update(samples)

    def find_reading(self, key: str, scorer: str) -> Reading | None:
        """The reading of a node by a scorer, if it was noted."""
        return self.readings.get((key, scorer))

    def add_readings(self, scorer: str, readings: Sequence[tuple[str, Reading]]) -> None:
        """Note readings."""
        self.readings.update({(key, scorer): reading for key, reading in readings})


# One run, watched


class Killed(BaseException):
    """The process is gone; no strategy is asked whether it agrees."""


class Trial:
    """One run of a strategy on words, with books of its own: the ledger is not asked what was spent.

    Args:
        strategy: what is on trial.
        seed: of the search.
        budget: of the search.
        journal: of the search.
        killed_at: the call, of generator or scorer, that is never answered; nor is any later one.
        disorder: dice for how long calls take and in which order the children of a batch are made.
    """

    def __init__(
        self,
        strategy: Strategy,
        seed: int,
        budget: Budget | None = None,
        *,
        journal: Journal | None = None,
        killed_at: int | None = None,
        disorder: Random | None = None,
    ) -> None:
        self.strategy, self.seed, self.budget = strategy, seed, budget or Budget()
        self.calls = 0
        self.sampled: list[tuple[str, Child]] = []
        """Every child the generator returned, with its key."""
        self.readings: list[Reading] = []
        self.moments: list[Usage] = []
        """What was spent and under way whenever something was asked."""
        self.grown_from_pruned: list[Node] = []
        self.answer: Any = None
        self.search = Search(
            PROBLEM,
            _WatchedGenerator(self),
            scorer=_WatchedScorer(self),
            answers=ANSWERS,
            embedder=HashedNgrams(),
            sampling=Sampling(max_tokens=20),
            budget=budget,
            seed=seed,
            journal=journal,
        )
        self.disorder = disorder
        self._killed_at = killed_at
        self._under_way: dict[int, Usage] = {}

    @property
    def spent(self) -> Usage:
        """The cost of all that was returned."""
        return total([*(child.usage for _, child in self.sampled), *(reading.usage for reading in self.readings)])

    async def run(self) -> Trial:
        """Run the strategy to its end.

        Raises:
            AssertionError: it raised, or returned something else than an `Answer`.
        """
        try:
            self.answer = await self.strategy(self.search)
        except Exception as error:
            message = " ".join(str(error).split())
            raise AssertionError(self.told(f"it raised {type(error).__name__}: {message}")) from error
        self.require(isinstance(self.answer, Answer), f"it returned {self.answer!r} in place of an Answer")
        return self

    async def call(self, worst_case: Usage) -> int:
        """Note that something is asked; what this returns is given back to `settle` with the cost."""
        if self._killed_at is not None and self.calls >= self._killed_at:
            raise Killed
        number = self.calls
        self.calls += 1
        self._under_way[number] = worst_case
        self.moments.append(self.spent + total(self._under_way.values()))
        for _ in range(self.disorder.randint(0, 3) if self.disorder else 0):
            await asyncio.sleep(0)
        return number

    def settle(self, number: int) -> None:
        """Note that a call was answered."""
        del self._under_way[number]

    def told(self, what: str) -> str:
        """One line: the strategy, the case, what is wrong."""
        limits = ", ".join(f"{value:g} {name}" for name, value in vars(self.budget).items() if value is not None)
        return f"{self.strategy!r}, seed {self.seed}, budget {limits or 'none'}: {what}"

    def require(self, holds: bool, what: str) -> None:
        """Raise an `AssertionError` of one line unless something holds."""
        if not holds:
            raise AssertionError(self.told(what))

    def facts(self) -> dict[str, Any]:
        """All that a run tells of itself, but for seconds."""
        answer: Answer = self.answer
        told = vars(answer) | {"usage": _counts(answer.usage), "node": answer.node and answer.node.key}
        trace = [
            (record.node.key, record.node.path, record.node.finish, record.node.state, record.score, record.pruned)
            for record in self.search.trace.values()
        ]
        return told | {"trace": trace}


class _WatchedGenerator(WordGenerator):
    def __init__(self, trial: Trial) -> None:
        super().__init__(rambling)
        self._trial = trial

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        trial = self._trial
        parents = [extension.node for extension in extensions]
        trial.grown_from_pruned += [node for node in parents if _pruned(trial.search, node)]
        worst = total(self.worst_case(extension.node, extension.max_tokens) for extension in extensions)
        number = await trial.call(worst)
        order = list(range(len(extensions)))
        if trial.disorder:
            trial.disorder.shuffle(order)
        made = dict(zip(order, await super().extend([extensions[place] for place in order]), strict=True))
        children = [made[place] for place in range(len(extensions))]
        trial.sampled += [(extension.key, child) for extension, child in zip(extensions, children, strict=True)]
        trial.settle(number)
        return children


class _WatchedScorer(WordScorer):
    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self._trial = trial

    async def score(self, nodes: Sequence[Node]) -> list[Reading]:
        number = await self._trial.call(total(self.worst_case(node) for node in nodes))
        readings = await super().score(nodes)
        self._trial.readings += readings
        self._trial.settle(number)
        return readings


def _pruned(search: Search, node: Node) -> bool:
    record = search.trace.get(node.key)
    return record is not None and record.pruned


def _counts(usage: Usage) -> dict[str, float | None]:
    return {name: count for name, count in usage.as_dict().items() if name != "seconds"}


def _ids(text: str) -> tuple[int, ...]:
    return tuple(crc32(word.encode()) for word in text.split())


def _run(strategy: Strategy, seed: int, budget: Budget | None = None, **options: Any) -> Trial:
    return asyncio.run(Trial(strategy, seed, budget, **options).run())


def random_budget(seed: int) -> Budget:
    """One to three of the limits of a budget but seconds, from hardly anything to more than most need."""
    dice = Random(f"budget/{seed}")
    limits = {
        "tokens": int(2 ** dice.uniform(0, 8)),
        "calls": int(2 ** dice.uniform(0, 6)),
        "flops": float(int(2 ** dice.uniform(1, 10))),
        "dollars": DOLLARS * int(2 ** dice.uniform(0, 8)),
    }
    chosen = dice.sample(sorted(limits), dice.randint(1, 3))
    return Budget(**{name: limits[name] for name in chosen})  # type: ignore[arg-type]  # ints where ints are declared


# The laws

SEEDS = range(6)


def keeps_within_budget(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """Whenever anything is asked, what is spent and the worst case of what is under way are within every limit."""
    for seed in seeds:
        trial = _run(strategy, seed, random_budget(seed))
        ledger = Ledger(trial.budget)
        for usage in [*trial.moments, trial.spent]:
            flops = (usage.flops or 0.0) + (usage.scorer_flops or 0.0)
            committed = f"{usage.generated_tokens} tokens, {usage.model_calls} calls and {flops:g} FLOPs"
            trial.require(ledger.check(usage), f"the budget was exceeded: {committed} were spent or under way")


def answers_anytime(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """Whatever the budget, it returns an answer it has sampled, if there is any, and says how the search ended."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            trial = _run(strategy, seed, budget)
            answer: Answer = trial.answer
            complete = [record.node for record in trial.search.trace.values() if record.node.done]
            readable = {node.key: value for node in complete if (value := ANSWERS.read(node.state)) is not None}
            trial.require(
                answer.value is not None or not readable, f"no answer, though {len(readable)} of its samples have one"
            )
            if answer.value is not None:
                at = answer.node.key if answer.node else ""
                trial.require(readable.get(at) == answer.value, f"the answer {answer.value!r} is not that of its node")
            cut_short = "budget" if trial.search.exhausted else "done"
            expected = "incomplete" if answer.value is None else cut_short
            trial.require(answer.finish == expected, f"finish is {answer.finish!r} where it is {expected!r}")


def is_deterministic(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """The same seed gives the same answer, account and trace, also in a crowd where calls end in any order."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            trial = _run(strategy, seed, budget)
            _same(trial, _run(strategy, seed, budget), "a second run with the same seed")
            dice = Random(seed)
            crowd = [Trial(strategy, s, budget, disorder=dice) for s in (seed + 1, seed, seed + 2)]
            _, crowded, _ = asyncio.run(_together(crowd))
            _same(trial, crowded, "a run beside others, its calls and batches in another order,")


def keeps_every_sample(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """Every child the generator returned is in the trace, and nothing in the trace, the ledger or the answer differs
    from what was paid.
    """
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            trial = _run(strategy, seed, budget)
            trace = {key: record.node for key, record in trial.search.trace.items()}
            for key, child in trial.sampled:
                kept = key in trace and trace[key].state == child.state
                trial.require(kept, f"a sample that was paid is not in the trace: {child.state.text!r}")
            readings = total(reading.usage for reading in trial.readings)
            books = {
                "the trace, with the readings,": total(node.usage for node in trace.values()) + readings,
                "the ledger": trial.search.ledger.spent,
                "the answer": trial.answer.usage,
            }
            for name, usage in books.items():
                wrong = _difference(_counts(trial.spent), _counts(usage))
                trial.require(not wrong, f"{name} does not add up to what was paid: {wrong}")


def leaves_pruned_alone(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """No child of a node is sampled after the node was pruned."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            trial = _run(strategy, seed, budget)
            texts = [node.state.text for node in trial.grown_from_pruned]
            trial.require(not texts, f"a node was extended after it had been pruned: {', '.join(map(repr, texts[:1]))}")


def resumes(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """Killed at any call and run again on its journal, it ends as if nothing had happened and samples nothing twice."""
    for seed in seeds:
        for budget in (None, random_budget(seed)):
            whole = _run(strategy, seed, budget, journal=Notebook())
            for call in range(whole.calls):
                journal = Notebook()
                killed = Trial(strategy, seed, budget, journal=journal, killed_at=call)
                with suppress(Killed):
                    asyncio.run(killed.run())
                resumed = _run(strategy, seed, budget, journal=journal)
                _same(whole, resumed, f"a run killed at call {call} and resumed")
                keys = [key for key, child in (*killed.sampled, *resumed.sampled) if child.finish != "budget"]
                twice = len(keys) - len(set(keys))
                whole.require(not twice, f"killed at call {call} and resumed, it sampled {twice} children twice")


LAWS: tuple[Callable[[Strategy, Iterable[int]], None], ...] = (
    keeps_within_budget,
    answers_anytime,
    is_deterministic,
    keeps_every_sample,
    leaves_pruned_alone,
    resumes,
)


def check_strategy(strategy: Strategy, seeds: Iterable[int] = SEEDS) -> None:
    """Put a strategy to every law.

    Args:
        strategy: with the options it is to be checked with; it runs on generations of at most 20 tokens.
        seeds: of the searches, and of the budgets they run under.

    Raises:
        AssertionError: a law is broken; one line says by which strategy, seed and budget, and how.
    """
    seeds = list(seeds)
    for law in LAWS:
        law(strategy, seeds)


async def _together(trials: Sequence[Trial]) -> list[Trial]:
    return await asyncio.gather(*(trial.run() for trial in trials))


def _same(trial: Trial, other: Trial, which: str) -> None:
    wrong = _difference(trial.facts(), other.facts())
    trial.require(not wrong, f"{which} differs: {wrong}")


def _difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The first entry that differs, in words; nothing where none does."""
    for name, value in expected.items():
        if found[name] != value:
            values = "" if name == "trace" else f" is {found[name]!r} where it is {value!r}"
            return f"{name}{values}"
    return ""
