"""What a strategy is handed. Its few verbs do the charging, journaling and tracing, so strategies contain none."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Literal

from thinktime.core.errors import CapabilityError, InputError, ModelError, ThinktimeError, TooLongError
from thinktime.core.journal import Journal, Samples
from thinktime.core.ledger import Ledger
from thinktime.core.readings import Readings
from thinktime.core.selection import Candidate, best
from thinktime.core.types import (
    Answers,
    Capability,
    Child,
    Embedder,
    Extension,
    Generator,
    Move,
    Node,
    Problem,
    Race,
    Redo,
    Sampling,
    Scorer,
    Skills,
    Until,
)
from thinktime.core.usage import Budget, Usage, total


@dataclass(frozen=True)
class Answer:
    """The result of a strategy.

    ``finish`` is ``done``, ``budget`` (the budget ended the search; this is the best so far) or ``incomplete``
    (no complete generation with a readable answer; ``value`` is None).
    """

    value: str | None
    finish: Literal["done", "budget", "incomplete"]
    usage: Usage
    node: Node | None = None
    share: float | None = None
    path_tokens: int = 0
    """Tokens on the returned path; ``usage.generated_tokens`` counts the whole tree."""
    passes: int = 0
    """Sequential forward passes on the longest chain of the tree."""


@dataclass
class Record:
    """One node of the trace."""

    node: Node
    score: float | None = None
    steps: tuple[float, ...] = ()
    pruned: bool = False
    skill: Capability | None = None
    """What this root asks for, where it is not the problem itself."""
    about: tuple[Node, ...] = ()
    error: ThinktimeError | None = None
    """Why it could not be had."""

    @property
    def aside(self) -> bool:
        """Whether the children of this root are no answers to the problem: checks, judgements, plans."""
        by_plan = self.skill == Capability.PLAN and bool(self.about)
        return self.skill not in (None, Capability.REVISE, Capability.AGGREGATE) and not by_plan


class Search:
    """One problem under one budget, with the generator and the scorer to spend it on.

    ``within`` is a ledger that other searches share: all of them together keep its limits.
    """

    def __init__(
        self,
        problem: Problem,
        generator: Generator,
        *,
        scorer: Scorer | None = None,
        answers: Answers | None = None,
        embedder: Embedder | None = None,
        skills: Skills | None = None,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        journal: Journal | None = None,
        within: Ledger | None = None,
    ) -> None:
        self.problem, self.generator, self.scorer, self.answers = problem, generator, scorer, answers
        self.embedder, self.skills = embedder, skills
        self.sampling = sampling or Sampling()
        self.ledger = Ledger(budget, within=within)
        self.exhausted = False
        self.trace: dict[str, Record] = {}
        self.growing: dict[str, tuple[Extension, Child | None]] = {}
        """Children that are sampled now and not yet in the trace, with what has arrived; for whoever looks on."""
        self.events: list[dict[str, Any]] = []
        """What the strategy said of itself, in order."""
        self.errors: list[ThinktimeError] = []
        """Why children could not be had."""
        self._children: Counter[str] = Counter()
        self._answers: dict[str, tuple[str | None, Hashable]] = {}
        self._samples = Samples(journal, problem, generator)
        self.readings = Readings(scorer, self.ledger, journal) if scorer is not None else None
        identity = [generator.name, problem.id, problem.prompt, seed, self.sampling.temperature, self.sampling.top_p]
        self.root = Node(_hash(json.dumps([*identity, self.sampling.max_tokens])), (), generator.root(problem))
        self.trace[self.root.key] = Record(self.root)
        least = generator.worst_case(self.root, 1)
        _count_what_is_limited(self.ledger.budget, least)
        self.ledger.check(least)
        if scorer is not None:
            self.ledger.check(scorer.worst_case(self.root, None))

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What generator, scorer, skills and answers offer together."""
        offered = self.generator.capabilities
        if self.scorer is not None:
            offered |= self.scorer.capabilities
        if self.skills is not None:
            offered |= self.skills.capabilities
        return offered | {Capability.ANSWERS} if self.answers is not None else offered

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int | Sequence[int] = 1,
        *,
        until: Until = "done",
        at_most: int | None = None,
        temperature: float | None = None,
        race: Race | None = None,
        move: Move | None = None,
    ) -> list[Node]:
        """Children of the nodes, grouped by parent in the given order.

        Complete nodes, and those at the length limit, have no children. Where the budget does not cover
        everything asked for, every parent gets its first child before any gets its second, and `exhausted`
        is set.

        Args:
            nodes: the parents.
            n: how many children each gets, or one number a parent (0 is none).
            until: where a child ends if nothing else ends it.
            at_most: tokens (or denoising steps) after which a child is cut.
            temperature: in place of the search's own.
            race: give the others up when enough have ended; their finish is ``pruned``.
            move: what happens to a node instead of going on; its children are where it was moved to.

        Raises:
            InputError: a number is below its least, or several samples of one node would be the same.
            CapabilityError: the generator knows no steps, cannot go on from a prefix, or cannot cancel a row.
        """
        counts = [n] * len(nodes) if isinstance(n, int) else n
        sampling = self.sampling if temperature is None else replace(self.sampling, temperature=temperature)
        if isinstance(n, int) and n < 1:
            raise InputError("n", n, "ask for at least 1 child")
        if min(counts, default=0) < 0:
            raise InputError("n", min(counts), "ask for 0 children or more of each node")
        if at_most is not None and at_most < 1:
            raise InputError("at_most", at_most, "give 1 or more")
        if sampling.temperature == 0:
            refuse_copies(max(counts, default=0))
        self._need(Capability.STEPS, until == "step")
        self._need(Capability.PREFIX, any(node.parent is not None for node in nodes))
        self._need(Capability.CANCEL, race is not None)
        self._need(Capability.MOVES, move is not None)
        kind = until if at_most is None else f"{until}:{at_most}"
        kind += "" if temperature is None else f"@{temperature}"
        kind += "" if move is None else f"~{move}"
        wanted: list[Extension] = []
        for turn in range(max(counts, default=0)):
            for node, count in zip(nodes, counts, strict=True):
                room = self.sampling.max_tokens - self.generator.length(node.state)
                if turn >= count or node.finish not in ("root", "step", "cut", "budget") or room <= 0:
                    continue
                index = self._children[node.key]
                place = self._children[f"{node.key}/{kind}"]
                self._children.update((node.key, f"{node.key}/{kind}"))
                cap = room if at_most is None else min(room, at_most)
                # a node that the budget cut has the key of the whole sample; what grows from it is another thing
                parent = node.key if node.finish != "budget" else f"{node.key}+{self.generator.length(node.state)}"
                key = _hash(f"{parent}/{kind}/{place}")
                deadline, arrived = self.ledger.deadline, partial(self._keep, key)
                wanted.append(Extension(node, index, key, until, sampling, cap, at_most, deadline, race, move, arrived))
        made: dict[str, Record] = {}
        while wanted:
            over = race is not None and race.limit is not None and bool(made)
            granted, wanted = ([], wanted) if over else self._grant(wanted, whole=not made)
            if not granted and not over and self._held_by_others(wanted[0]):
                await self.ledger.freed()
                continue
            if not granted:
                self.exhausted = True
                break
            for extension, child in await self._sample(granted):
                self.exhausted |= child.finish == "budget"
                node = Node(
                    extension.key,
                    (*extension.node.path, extension.index),
                    child.state,
                    extension.node,
                    child.finish,
                    child.usage,
                    extension.node.passes + child.passes,
                )
                made[node.key] = Record(node, error=child.error)
        order = {node.key: place for place, node in enumerate(nodes)}
        grown = [record.node for record in made.values()]
        grown.sort(key=lambda node: (order[node.parent.key] if node.parent else 0, node.path[-1]))
        for node in grown:
            self.trace[node.key] = made[node.key]
            del self.growing[node.key]
        return grown

    def ask(self, skill: Capability, about: Sequence[Node] = (), said: Sequence[Node] = ()) -> Node | None:
        """Another root, whose children are replies: see `Skills.ask`. The same question is the same root.

        None where the question does not fit the model's context.

        Raises:
            CapabilityError: the model lacks the skill.
        """
        if self.skills is None or skill not in self.skills.capabilities:
            raise CapabilityError(f"generator={self.generator.name!r}: it lacks {skill}")
        key = _hash(json.dumps([self.root.key, skill.name, *([node.key for node in nodes] for nodes in (about, said))]))
        if key not in self.trace:
            states = [node.state for node in about], [node.state for node in said]
            question = replace(self.problem, prompt=self.skills.ask(skill, self.problem, *states))
            known = [*([self.root.state] if self._children[self.root.key] else []), *states[0], *states[1]]
            try:
                state = self.generator.root(question, self.root.state, known)
            except TooLongError:
                return None
            self.trace[key] = Record(Node(key, (), state), skill=skill, about=(*about, *said))
        return self.trace[key].node

    def read(self, skill: Capability, reply: Node, n: int = 1) -> list[float] | None:
        """What a reply gives each of the ``n`` generations asked about; None where it is incomplete or unreadable."""
        return self.skills.read(skill, reply.state, n) if self.skills is not None and reply.done else None

    def is_answer(self, node: Node) -> bool:
        """Whether this node answers the problem, and not a question about answers of it."""
        *_, root = node.lineage()
        return not self.trace[root.key].aside

    async def score(self, nodes: Sequence[Node]) -> list[float | None]:
        """One score per node; None where the scorer gave none, gave no finite number, or the budget is over.

        A node that was read before is not read again; see `Readings` for what is charged.
        """
        if self.readings is None:
            raise CapabilityError("this strategy scores nodes, but no scorer was given")
        self.exhausted |= not await self.readings.read(nodes)
        scores: list[float | None] = []
        for node in nodes:
            record = self.trace[node.key]
            record.score, record.steps = self.readings.of(node)
            scores.append(record.score)
        return scores

    def prune(self, nodes: Sequence[Node]) -> None:
        """Give nodes up; the trace says so."""
        for node in nodes:
            self.trace[node.key].pruned = True

    def log(self, **facts: Any) -> None:
        """Note what happened, for whoever studies the method; nothing else depends on it."""
        self.events.append(facts)

    def random(self, name: str) -> Random:
        """The strategy's own dice: keyed by model, problem and seed, so a run can be repeated."""
        return Random(f"{self.root.key}/{name}")

    def candidates(self, nodes: Collection[Node], scores: Collection[float | None] | None = None) -> list[Candidate]:
        """The complete nodes among these, with their answers and scores, each once."""
        found: dict[str, Candidate] = {}
        for node, score in zip(nodes, scores or [None] * len(nodes), strict=True):
            if node.done:
                if node.key not in self._answers:
                    answer = self.answers.read(node.state) if self.answers else ""
                    key = self.answers.key(answer) if self.answers and answer is not None else None
                    self._answers[node.key] = answer, key
                found[node.key] = Candidate(node, *self._answers[node.key], score)
        return list(found.values())

    def finish(self, chosen: Candidate | None) -> Answer:
        """Close the account and return the chosen candidate as the answer.

        A strategy that chose none answers with the best-scored sample of the trace that can be read, so what was
        sampled on the way is never lost to a budget that ran out, or to a rule that nothing fitted.

        Raises:
            ThinktimeError: nothing was sampled to its end, and a child could not be had for this reason; or not one
                reading could be had.
        """
        failed = self.readings.failed if self.readings is not None else []
        if failed and all(record.score is None for record in self.trace.values()):
            raise ModelError(failed[0])
        if chosen is None:
            records = [record for record in self.trace.values() if self.is_answer(record.node)]
            if self.errors and not any(record.node.done for record in records):
                raise self.errors[0]
            chosen = best(self.candidates([record.node for record in records], [record.score for record in records]))
        node = chosen.node if chosen else None
        return Answer(
            value=(chosen.answer or None) if chosen else None,
            finish="incomplete" if chosen is None else "budget" if self.exhausted else "done",
            usage=self.ledger.spent,
            node=node,
            share=chosen.share if chosen else None,
            path_tokens=self.generator.length(node.state) if node else 0,
            passes=max(record.node.passes for record in self.trace.values()),
        )

    def _grant(self, wanted: Sequence[Extension], whole: bool) -> tuple[list[tuple[Extension, Usage]], list[Extension]]:
        """Split into what the budget covers now, each with its reservation, and the rest.

        With ``whole`` all of it is tried at once first, which is cheaper if it fits; the rest of what did not is not
        tried again and again.

        A banked sample reserves its worst case too: a resumed run then decides as an undisturbed one.
        """
        if whole:
            asked = [(extension, self._worst(extension)) for extension in wanted]
            if self.ledger.reserve(total(worst for _, worst in asked)):
                return asked, []
        granted: list[tuple[Extension, Usage]] = []
        for place, extension in enumerate(wanted):
            worst = self._worst(extension)
            if not self.ledger.reserve(worst):
                if not granted and not self._held_by_others(extension) and (shorter := self._shorter(extension)):
                    worst = self.generator.worst_case(extension.node, shorter.max_tokens)
                    if self.ledger.reserve(worst):
                        return [(shorter, worst)], list(wanted[place + 1 :])
                return granted, list(wanted[place:])
            granted.append((extension, worst))
        return granted, []

    def _held_by_others(self, extension: Extension) -> bool:
        return self.ledger.held_by_others(self._worst(extension))

    def _worst(self, extension: Extension) -> Usage:
        """The most it can cost; a move makes one state, as a first step from the root does, or all of them."""
        if extension.move is not None:
            return self.generator.worst_case(self.root, extension.move.steps if isinstance(extension.move, Redo) else 1)
        return self.generator.worst_case(extension.node, extension.max_tokens)

    def _shorter(self, extension: Extension) -> Extension | None:
        """The same extension cut to the tokens left, if a child of the usual length would still fit."""
        room = self.ledger.room_for_tokens()
        calls = self.ledger.spent.model_calls
        if room is None or not calls or room < self.ledger.spent.generated_tokens / calls:
            return None
        return replace(extension, max_tokens=room)

    async def _sample(self, granted: Sequence[tuple[Extension, Usage]]) -> list[tuple[Extension, Child]]:
        extensions = [extension for extension, _ in granted]
        children: dict[str, Child] = {}
        for extension in extensions:
            child = self._samples.find(extension)
            if child is not None:
                children[extension.key] = child
                self._arrive(extension, child)
        for extension in extensions:  # what was given up before may do for a race that is over by then
            limit = extension.race.limit if extension.race else None
            if limit is not None and extension.key not in children:
                left = self._samples.left(extension, limit, extension.max_tokens, "pruned")
                if left is not None:
                    children[extension.key] = left
        reserved = total(worst for _, worst in granted)
        new = [extension for extension in extensions if extension.key not in children]
        self.growing |= {extension.key: (extension, children.get(extension.key)) for extension in extensions}
        if new:
            try:
                children |= await self._fresh(new)
            except InputError:  # nothing came, and nothing of it was paid for
                self.ledger.settle(reserved, Usage())
                raise
        for extension in extensions:
            child, limit = children[extension.key], extension.race.limit if extension.race else None
            if limit is not None and child.usage.generated_tokens > limit:
                children[extension.key] = self._given_up(extension, child, limit)
        self.ledger.settle(reserved, total(child.usage for child in children.values()))
        return [(extension, children[extension.key]) for extension in extensions]

    async def _fresh(self, new: Sequence[Extension]) -> dict[str, Child]:
        """Children from the generator, written down before anyone sees them."""
        fresh = await self.generator.extend(new)
        self.errors += [child.error for child in fresh if child.error is not None]
        self._samples.add([pair for pair in zip(new, fresh, strict=True) if self.growing[pair[0].key][1] is None])
        return {extension.key: child for extension, child in zip(new, fresh, strict=True)}

    def _keep(self, key: str, child: Child) -> None:
        """A child is there before its siblings are."""
        extension, _ = self.growing[key]
        self.growing[key] = extension, child
        self._samples.add([(extension, child)])

    def _arrive(self, extension: Extension, child: Child) -> None:
        if extension.race and child.finish == "eos" and extension.race.counts(child.state):
            extension.race.lengths.append(child.usage.generated_tokens)

    def _given_up(self, extension: Extension, child: Child, limit: int) -> Child:
        """The child as far as its race went, whatever it had run ahead of others; that much it is charged."""
        left = self._samples.left(extension, limit, limit, "pruned")
        if left is None:
            left = self.generator.cut(extension, child, limit)
            shorter = left.usage.generated_tokens < child.usage.generated_tokens
            if shorter and left.usage.flops is not None:  # a replay knows only its tokens, which the bank has anyway
                self._samples.add([(extension, left)])
        return left

    def _need(self, capability: Capability, needed: bool) -> None:
        if needed and capability not in self.generator.capabilities:
            raise CapabilityError(
                f"generator={self.generator.name!r}: it lacks {capability}; take a strategy of whole samples"
            )


def _count_what_is_limited(budget: Budget, least: Usage) -> None:
    """Raise an `InputError` for a limit on tokens where there are none, or on a denoiser that there is not."""
    if budget.tokens is not None and not least.generated_tokens:
        raise InputError(
            "budget.tokens", budget.tokens, "this model generates no tokens; limit its evaluations: 400nfe"
        )
    if budget.nfe is not None and not least.denoiser_calls:
        raise InputError("budget.nfe", budget.nfe, "this model has no denoiser; limit its tokens: 4000tok")


def refuse_copies(n: int) -> None:
    """Raise an `InputError` for more than one sample at temperature 0."""
    if n > 1:
        raise InputError("temperature", 0, f"{n} samples would be the same; give more than 0, or n=1")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
