"""The search that a strategy runs on. Its verbs do the charging, banking and tracing, so that no strategy has to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import replace
from random import Random
from typing import Any, ClassVar, Protocol, cast

from thinktime.core import meter
from thinktime.core.actions import Acting, Action
from thinktime.core.clock import Clock
from thinktime.core.context import canonical_json, digest
from thinktime.core.environment import Environment, Places
from thinktime.core.errors import CapabilityError, InputError, ModelError, ThinktimeError, TooLongError
from thinktime.core.journal import Journal, Samples
from thinktime.core.ledger import Ledger
from thinktime.core.meter import Meter
from thinktime.core.protocols import Answers, Comparer, Embedder, Generator, Scorer
from thinktime.core.samples import Drawing
from thinktime.core.scores import Comparing, Embeddings, ScoreCache
from thinktime.core.selection import Candidate, best
from thinktime.core.trace import Answer, Record
from thinktime.core.transitions import Race, Transition
from thinktime.core.types import (
    MAIN,
    Capability,
    Child,
    Extension,
    Node,
    Problem,
    Prompt,
    Sampling,
    Until,
    missing,
    model_of,
)
from thinktime.core.usage import Budget, Usage


class Strategy(Protocol):
    """A configured method: a frozen dataclass of its options that runs on a search."""

    needs: ClassVar[frozenset[str]]
    """Capabilities that the search has to offer."""

    async def __call__(self, search: Search) -> Answer:
        """Spend the search's budget and answer."""
        ...


class Search:
    """One problem under one budget, with the models, scorers and environments to spend it on.

    Args:
        problem: the question.
        models: generators by role; a single one is the role ``main``.
        scorers: reward models and judges by role; a single one is ``main``.
        environments: by name, for `act`; a single one is ``main``.
        answers: reads and compares answers.
        embedder: for strategies that cluster steps.
        prompts: by name; each replaces a strategy's own, with a user's words or those that a model was trained in.
        sampling: how children are drawn.
        budget: hard limits.
        seed: the same seed gives the same samples.
        journal: the store of finished work, such as the bank.
        within: a ledger that several searches share; together they keep its limits.
        clock: measures the budget's seconds.

    Raises:
        InputError: a limit cannot be kept for these models, or the prompt does not fit.
    """

    def __init__(
        self,
        problem: Problem,
        models: Generator | Mapping[str, Generator],
        *,
        scorers: Scorer | Mapping[str, Scorer] | None = None,
        environments: Environment | Mapping[str, Environment] | None = None,
        answers: Answers | None = None,
        embedder: Embedder | None = None,
        prompts: Mapping[str, Prompt] | None = None,
        sampling: Sampling | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        journal: Journal | None = None,
        within: Ledger | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.problem, self.answers, self.journal = problem, answers, journal
        self.models: Mapping[str, Generator] = _by_role(models)
        self.scorers: Mapping[str, Scorer] = _by_role(scorers)
        self.environments: Mapping[str, Environment] = _by_role(environments)
        self.prompts: Mapping[str, Prompt] = prompts or {}
        self.sampling = sampling or Sampling()
        self.meter = Meter(Ledger(budget, within=within, clock=clock))
        self.exhausted = False
        self.trace: dict[str, Record] = {}
        self.in_flight: dict[str, tuple[Extension, Child | None]] = {}
        """In-flight children and their partial output, for observers."""
        self.events: list[dict[str, Any]] = []
        """What the strategy logged, in order."""
        self.errors: list[ThinktimeError] = []
        """Why children failed."""
        self.embedder = embedder
        self._turns = [0]
        self._children: Counter[str] = Counter()
        self._answers: dict[str, tuple[str | None, Hashable]] = {}
        if MAIN not in self.models:
            raise InputError("models", sorted(self.models), f"one of them has to be the role {MAIN!r}")
        self._samples = {role: Samples(journal, problem, model) for role, model in self.models.items()}
        self._embeddings = Embeddings(embedder) if embedder is not None else None
        self._caches: dict[str, ScoreCache] = {}
        self._comparing: dict[str, Comparing] = {}
        self._places: dict[str, Places] = {}
        self._outer: Search | None = None
        self._alias: Mapping[str, str] = {}
        """The outermost search's name of each role of an inner search."""
        self._scope = ""
        """A prefix for the keys of scores: an inner search about another problem keeps its scores apart."""
        generator = self.models[MAIN]
        identity = [generator.name, problem.id, problem.prompt, seed, self.sampling.temperature, self.sampling.top_p]
        identity += [self.sampling.max_length, *([problem.context] if problem.context else [])]
        identity += [{"stop": self.sampling.stop}] if self.sampling.stop else []  # other keys stay as they were
        self.root = Node(digest(canonical_json(identity)), (), generator.root(problem))
        self.trace[self.root.key] = Record(self.root, question=problem)
        least = generator.worst_case(self.root, 1)
        _count_what_is_limited(self.ledger.budget, least)
        self.ledger.check(least)
        if MAIN in self.scorers:
            self.ledger.check(self.scorers[MAIN].worst_case(problem, self.root, None))

    @property
    def ledger(self) -> Ledger:
        """What is spent and reserved of the budget."""
        return self.meter.ledger

    @property
    def generator(self) -> Generator:
        """The main model."""
        return self.models[self._role(MAIN)]

    @property
    def scorer(self) -> Scorer | None:
        """The main scorer."""
        return self.scorers.get(MAIN)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the main model, the main scorer, the other roles, the prompts and the answers offer together."""
        offered = self.generator.capabilities | {prompt.capability for prompt in self.prompts.values()}
        offered |= {model_of(role) for role in self.models if role != MAIN}
        if self.scorer is not None:
            offered |= self.scorer.capabilities
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
        transition: Transition | None = None,
        confidences: bool = False,
        model: str | None = None,
    ) -> list[Node]:
        """Children of the nodes, grouped by parent in the given order.

        Complete nodes, and those at the length limit, have no children. If the budget does not cover all
        requested children, every parent gets its first child before any gets its second, and `exhausted` is
        set.

        Args:
            nodes: the parents.
            n: how many children each gets, or one number a parent (0 is none).
            until: the point where a child ends if nothing else ends it earlier.
            at_most: the length at which a child is cut.
            temperature: replaces the search's own.
            race: cancel the other children when enough have ended; their finish is ``pruned``.
            transition: an operation on the noise of a node, in place of continuing it.
            confidences: the children's states have ``confidences``, one for each token that was drawn; the sample is
                the same as without.
            model: the role that continues the nodes, also nodes of another model. By default it is the role that made
                each node; the root is made by ``main``.

        Raises:
            InputError: a number is too small, or several samples of one node would be the same.
            CapabilityError: there is no such role, or its model has no steps, cannot continue a prefix, or cannot
                cancel a sample.
        """
        counts = [n] * len(nodes) if isinstance(n, int) else list(n)
        if isinstance(n, int) and n < 1:
            raise InputError("n", n, "ask for at least 1 child")
        if min(counts, default=0) < 0:
            raise InputError("n", min(counts), "ask for 0 children or more of each node")
        if at_most is not None and at_most < 1:
            raise InputError("at_most", at_most, "give 1 or more")
        sampling = self.sampling if temperature is None else replace(self.sampling, temperature=temperature)
        if sampling.temperature == 0:
            refuse_copies(max(counts, default=0))
        self._turns[0] += 1
        turn = self._turns[0]
        parts: dict[str, list[int]] = {}
        for place, node in enumerate(nodes):
            parts.setdefault(self._role(model) if model else node.model, []).append(place)
        for role, places in parts.items():
            self._need(role, Capability.STEPS, until == "step")
            self._need(role, Capability.PREFIX, any(nodes[place].parent is not None for place in places))
            self._need(role, Capability.CANCEL, race is not None)
            self._need(role, Capability.TRANSITIONS, transition is not None)
            self._need(role, Capability.CONFIDENCES, confidences)
        kind = until if at_most is None else f"{until}:{at_most}"
        kind += "" if temperature is None else f"@{temperature}"
        kind += "" if transition is None else f"~{transition}"
        options = {"until": until, "sampling": sampling, "at_most": at_most, "race": race, "transition": transition}
        options["confidences"] = confidences
        calls = [
            self._extend(
                turn, role, [nodes[place] for place in places], [counts[place] for place in places], kind, options
            )
            for role, places in parts.items()
        ]
        if len(calls) == 1:
            return await calls[0]
        from asyncio import gather  # costs as much to import as all of the core

        order = {node.key: place for place, node in enumerate(nodes)}
        grown = [node for part in await gather(*calls) for node in part]
        return sorted(grown, key=lambda node: order[node.parent.key] if node.parent else 0)

    async def _extend(
        self, turn: int, role: str, nodes: Sequence[Node], counts: Sequence[int], kind: str, options: Mapping[str, Any]
    ) -> list[Node]:
        """Children of the nodes by one model."""
        generator, race = self._model(role), options["race"]
        work = Drawing(f"model {role}", generator, self.root, self._samples[role], self.ledger, self.in_flight, race)
        ready = []
        for node, count in zip(nodes, counts, strict=True):
            source = self._in_words_of(role, node)
            length = generator.length(source.state)
            room = self.sampling.max_length - length
            if node.finish not in ("root", "step", "cut", "budget") or room <= 0:
                continue
            # a node that the budget cut has the key of the whole sample, so its children need another one
            parent = node.key if node.finish != "budget" else f"{node.key}+{length}"
            stem = f"{parent}/{kind}" if source is node else f"{parent}/{kind}|{generator.name}"
            most = room if options["at_most"] is None else min(room, options["at_most"])
            ready.append((node, source, count, stem, f"{node.key}|{role}", most))
        wanted: list[Extension] = []
        again: list[Node] = []
        parents: dict[str, tuple[Node, int]] = {}
        deadline, made = self.ledger.deadline, self._children
        for number in range(max(counts, default=0)):
            for node, source, count, stem, by_role, most in ready:
                if number >= count:
                    continue
                key = digest(f"{stem}/{made[stem]}")
                if key in self.trace:  # after `rewind`
                    again.append(self.trace[key].node)
                else:
                    parents[key] = node, made[node.key]
                    index, arrived = made[by_role], work.arrived(key)
                    extension = Extension(
                        source, index, key, max_length=most, deadline=deadline, arrived=arrived, **options
                    )
                    wanted.append(extension)
                for name in (stem, by_role, node.key):
                    made[name] += 1
        bought, covered = await self.meter.buy(work, wanted)
        self.exhausted |= not covered
        records = []
        for extension, child in bought:
            self.exhausted |= child.finish == "budget"
            parent_node, path = parents[extension.key]
            node = Node(
                extension.key,
                (*parent_node.path, path),
                child.state,
                parent_node,
                child.finish,
                child.usage,
                parent_node.passes + child.passes,
                role,
                child.length,
                child.log_weight,
            )
            records.append(Record(node, turn, error=child.error))
            self._fail(child)
        order = {node.key: place for place, node in enumerate(nodes)}

        def place(node: Node) -> tuple[int, int]:
            return order[node.parent.key] if node.parent else 0, node.path[-1]

        records.sort(key=lambda record: place(record.node))
        for record in records:
            self._record(record)
            del self.in_flight[record.node.key]
        grown = sorted([*again, *(record.node for record in records)], key=place)
        if prepare := getattr(self.answers, "prepare", None):
            await prepare([node.state for node in grown if node.done and self.is_answer(node)])
        return grown

    def ask(
        self, prompt: Prompt, about: Sequence[Node] = (), said: Sequence[Node] = (), *, model: str = MAIN
    ) -> Node | None:
        """Another root, whose children are replies to a prompt. The same question always gives the same root.

        A prompt of the same name in `prompts` replaces the given one. If it renders to the problem's own prompt, the
        search's root is returned. None is returned if the question does not fit the model's context.

        Args:
            prompt: the question.
            about: the generations that the question is about.
            said: earlier replies that the question quotes.
            model: the role that replies.

        Raises:
            CapabilityError: there is no such role, or its model does not answer this prompt.
        """
        role = self._role(model)
        prompt = self.prompts.get(prompt.name, prompt)
        offered = self._model(role).capabilities | {own.capability for own in self.prompts.values()}
        if missing({prompt.capability}, offered):
            raise CapabilityError(f"model={self.models[role].name!r}: it does not answer {prompt.capability}")
        question = prompt.render(self.problem, [node.state for node in about], [node.state for node in said])
        if question == self.problem.prompt and role == self.root.model:
            return self.root
        asked = canonical_json([prompt.name, question, [node.key for node in about], [node.key for node in said]])
        key = digest(f"{self.root.key}/{asked}" + ("" if role == self.root.model else f"|{self.models[role].name}"))
        if key not in self.trace:
            problem = replace(self.problem, prompt=question)
            before = [self.root] if self._children[self.root.key] else []
            known = [node.state for node in (*before, *about, *said) if node.model == role]
            try:
                state = self.models[role].root(problem, known, quotes=True)
            except TooLongError:
                return None
            root = Node(key, (), state, model=role)
            self._turns[0] += 1
            self._record(
                Record(
                    root,
                    self._turns[0],
                    prompt=prompt.name,
                    about=tuple(about),
                    said=tuple(said),
                    question=problem,
                    is_answer=prompt.is_answer,
                )
            )
        return self.trace[key].node

    def read(self, prompt: Prompt, reply: Node) -> Any:
        """The value of a reply to a prompt; None if the reply is incomplete or unreadable."""
        if not reply.done:
            return None
        return self.prompts.get(prompt.name, prompt).read(reply.state, len(self.trace[reply.root.key].about))

    def is_answer(self, node: Node) -> bool:
        """Whether this node answers the problem itself, and not a question about its answers."""
        return node.finish != "observed" and self.trace[node.root.key].is_answer

    async def score(self, nodes: Sequence[Node], *, scorer: str = MAIN) -> list[float | None]:
        """One score per node; None if the scorer gave none or no finite number, or if the budget is used up.

        A node is scored once; see `ScoreCache` for what is charged. The trace shows the scores of the main scorer.

        Raises:
            CapabilityError: there is no scorer of this role.
        """
        cache = self._cache(scorer)
        _, covered = await self.meter.buy(cache, cache.unscored(nodes))
        self.exhausted |= not covered
        scores: list[float | None] = []
        for node in nodes:
            score, steps = cache.of(node)
            if scorer == MAIN:
                record = self.trace[node.key]
                record.score, record.steps = score, steps
            scores.append(score)
        return scores

    async def compare(self, nodes: Sequence[Node], *, scorer: str = MAIN) -> list[float | None]:
        """One score per node from a judge that sees all of them side by side; scores of two calls cannot be compared.

        All scores are None if the judge gave none, or if the budget is used up.

        Raises:
            CapabilityError: there is no scorer of this role, or it does not compare.
        """
        (scores,) = await self.compare_all([nodes], scorer=scorer)
        return scores

    async def compare_all(self, groups: Sequence[Sequence[Node]], *, scorer: str = MAIN) -> list[list[float | None]]:
        """As `compare`, for several groups at once. If the budget covers some of them, these are the first ones."""
        judge = self._cache(scorer).scorer
        if Capability.COMPARE not in judge.capabilities:
            raise CapabilityError(f"scorer={judge.name!r}: it is not {Capability.COMPARE}")
        if scorer not in self._comparing:
            judge_of_several = cast(Comparer, judge)
            work = Comparing(f"scorer {scorer}", judge_of_several, self.problem, self.journal, self._scope)
            self._comparing[scorer] = work
        bought, covered = await self.meter.buy(self._comparing[scorer], [tuple(nodes) for nodes in groups])
        self.exhausted |= not covered
        found = [score.steps for _, score in bought] + [()] * (len(groups) - len(bought))
        pairs = zip(groups, found, strict=True)
        return [list(steps) if len(steps) == len(nodes) else [None] * len(nodes) for nodes, steps in pairs]

    async def embed(self, nodes: Sequence[Node]) -> list[tuple[float, ...] | None]:
        """The vector of each node's newest step; None if the budget is used up.

        Raises:
            CapabilityError: there is no embedder.
        """
        if self._embeddings is None:
            raise CapabilityError("embedder: this strategy compares steps, but the search has no embedder")
        _, covered = await self.meter.buy(self._embeddings, self._embeddings.missing(nodes))
        self.exhausted |= not covered
        return [self._embeddings.of(node) for node in nodes]

    async def act(self, node: Node, action: Any, *, env: str = MAIN) -> Node | None:
        """The node after an action in an environment. Its state holds what the environment answered (`Observed`).

        If the action fails, the finish of the node is ``error``. None is returned if the budget is used up.

        Args:
            node: the node to act from: one that `act` made, or the root for the environment's start.
            action: a JSON value that the environment reads.
            env: the environment's name in this search.

        Raises:
            CapabilityError: there is no such environment.
        """
        if env not in self.environments:
            raise CapabilityError(f"environment={env!r}: the search has {_names(self.environments)}")
        if node.finish == "error":
            raise InputError("node", node.key, "the action that led here failed; act from an earlier node")
        self._turns[0] += 1
        turn, index = self._turns[0], self._children[f"{node.key}!{env}"]
        asked = canonical_json([self.environments[env].name, action])
        place = self._children[f"{node.key}!{asked}"]
        path = self._children[node.key]
        self._children.update((f"{node.key}!{env}", f"{node.key}!{asked}", node.key))
        item = Action(node, digest(f"{node.key}/act/{asked}/{place}"), action, index)
        work = Acting(f"environment {env}", self._place(env), self.problem, self.journal)
        bought, covered = await self.meter.buy(work, [item])
        self.exhausted |= not covered
        if not bought:
            return None
        child = bought[0][1]
        made = Node(
            item.key,
            (*node.path, path),
            child.state,
            node,
            child.finish,
            child.usage,
            node.passes,
            f"environment {env}",
        )
        self._fail(child)
        self._record(Record(made, turn, error=child.error))
        return made

    async def run(
        self, strategy: Strategy, *, root: Node | None = None, budget: Budget | None = None, model: str = MAIN
    ) -> Answer:
        """A strategy inside this one: a search with its own root, in the same ledger, trace and bank.

        Args:
            strategy: the strategy that runs.
            root: a root from `ask`; its prompt is the inner problem. By default it is this problem, with samples of
                its own.
            budget: a limit within this search's limits.
            model: the role that is ``main`` in the inner search; with a root it is the model of that root.

        Raises:
            CapabilityError: the inner search lacks what the strategy needs.
            ThinktimeError: as the strategy, or its ``validate``, raises.
        """
        inner = self._inner(root, budget, self._role(model) if root is None else root.model)
        lacking = missing(strategy.needs, inner.capabilities)
        if lacking:
            raise CapabilityError(f"strategy={strategy!r}: it needs {', '.join(sorted(lacking))}")
        if (validate := getattr(strategy, "validate", None)) is not None:
            validate(inner)
        answer = await strategy(inner)
        self.exhausted |= inner.exhausted and budget is None
        return answer

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Charge everything inside to a phase of this name, as in ``with search.phase("offline"):``."""
        return meter.phase(name)

    def charge(self, role: str, usage: Usage) -> None:
        """Charge work that a strategy does itself, such as solving an integer program."""
        self.meter.charge(role, usage)

    def rewind(self) -> None:
        """Let the next whole samples be those that the root has already, the first one first. They cost nothing again.

        So a strategy that is chosen by some first samples has them as its own. They are given to `extend` without a
        race and without confidences, which would need samples of another kind.
        """
        root = self.root.key
        for name in list(self._children):
            if name in (root, f"{root}/done") or name.startswith((f"{root}|", f"{root}/done|")):
                del self._children[name]

    def prune(self, nodes: Sequence[Node]) -> None:
        """Mark nodes as pruned in the trace."""
        for node in nodes:
            self.trace[node.key].pruned = True

    def log(self, **facts: Any) -> None:
        """Note what happened, for readers of the trace; nothing else depends on it."""
        self.events.append(facts)

    def random(self, name: str) -> Random:
        """The strategy's own random numbers: keyed by model, problem and seed, so a run can be repeated."""
        return Random(f"{self.root.key}/{name}")

    def records(self) -> list[Record]:
        """The trace in the order in which its nodes were requested. They may have ended in another order."""
        return sorted(self.trace.values(), key=lambda record: record.turn)

    def failed_scores(self) -> list[str]:
        """Why scores and comparisons are missing, one line each."""
        failed = [cache.failed for cache in self._caches.values()]
        failed += [work.failed for work in self._comparing.values()]
        return [reason for reasons in failed for reason in reasons]

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

        If ``chosen`` is None, the best-scored readable sample of the trace is the answer. So no paid sample is lost if
        the budget ends early, or if the strategy's rule chooses nothing.

        Raises:
            ThinktimeError: no sample is complete, and a child failed (its error is raised); or all scores and
                comparisons failed.
        """
        failed, records = self.failed_scores(), self.records()
        compared = any(work.succeeded for work in self._comparing.values())
        if failed and not compared and all(record.score is None for record in records):
            raise ModelError(failed[0])
        if chosen is None:
            answers = [record for record in records if self.is_answer(record.node)]
            if self.errors and not any(record.node.done for record in answers):
                raise self.errors[0]
            chosen = best(self.candidates([record.node for record in answers], [record.score for record in answers]))
        node = chosen.node if chosen else None
        return Answer(
            value=(chosen.answer or None) if chosen else None,
            finish="incomplete" if chosen is None else "budget" if self.exhausted else "done",
            usage=self.ledger.spent,
            node=node,
            share=chosen.share if chosen else None,
            path_tokens=self.models[node.model].length(node.state) if node else 0,
            passes=max(record.node.passes for record in records),
            accounts=self.meter.accounts,
        )

    def _role(self, name: str) -> str:
        """A role as the outermost search names it."""
        return self._alias.get(name, name)

    def _model(self, role: str) -> Generator:
        if role not in self.models:
            raise CapabilityError(f"model={role!r}: no model has this role; the search has {_names(self.models)}")
        return self.models[role]

    def _cache(self, role: str) -> ScoreCache:
        if role not in self.scorers:
            roles = f"; the search has {_names(self.scorers)}" if self.scorers else ""
            which = "" if role == MAIN else f" of the role {role!r}"
            raise CapabilityError(f"this strategy scores nodes, but no scorer{which} was given{roles}")
        if role not in self._caches:
            scorer = self.scorers[role]
            self._caches[role] = ScoreCache(f"scorer {role}", scorer, self.problem, self.journal, self._scope)
        return self._caches[role]

    def _place(self, env: str) -> Places:
        if env not in self._places:
            self._places[env] = Places(self.environments[env], self.problem)
        return self._places[env]

    def _in_words_of(self, role: str, node: Node) -> Node:
        """The node itself, or a stand-in whose state this role's model can continue."""
        if node.model == role:
            return node
        generator, question = self.models[role], self.trace[node.root.key].question
        assert question is not None
        own = generator.root(question, quotes=node.root is not self.root)
        known = [above.state for above in node.lineage() if above.model == role]
        return replace(node, state=generator.adopt(own, node.state, known) if node.parent else own, model=role)

    def _inner(self, root: Node | None, budget: Budget | None, role: str) -> Search:
        inner = copy(self)
        inner.meter = Meter(Ledger(budget, within=self.ledger), outer=self.meter)
        inner.exhausted, inner.trace, inner.errors = False, {}, []
        inner._outer, inner._alias = self, {**self._alias, MAIN: role}
        record = self.trace[root.key] if root is not None else None
        if record is not None and record.question is not None:
            inner.root, inner.problem = record.node, record.question
            inner._scope = f"{record.node.key}:"
            inner._caches, inner._comparing = {}, {}
        else:
            self._children[f"{self.root.key}/run"] += 1
            name = f"{self.root.key}/run/{self._children[f'{self.root.key}/run']}"
            if role != self.root.model:
                name += f"|{self._model(role).name}"
            inner.root = Node(digest(name), (), self._model(role).root(self.problem), model=role)
        self._turns[0] += 1
        inner._record(Record(inner.root, self._turns[0], question=inner.problem))
        return inner

    def _record(self, record: Record) -> None:
        """Put a node into the trace of this search and of those around it."""
        search: Search | None = self
        while search is not None:
            search.trace.setdefault(record.node.key, record)
            search = search._outer

    def _fail(self, child: Child) -> None:
        if child.error is not None:
            self.errors.append(child.error)

    def _need(self, role: str, capability: Capability, needed: bool) -> None:
        if needed and capability not in self._model(role).capabilities:
            raise CapabilityError(
                f"generator={self.models[role].name!r}: it lacks {capability}; take a strategy of whole samples"
            )


def sample_key(root: str, index: int) -> str:
    """The key of an independent sample by its root's key: whole, and at the search's own temperature."""
    return digest(f"{root}/done/{index}")


def _by_role(given: Any) -> Mapping[str, Any]:
    """The given mapping by role; a single object gets the role ``main``."""
    if given is None:
        return {}
    return given if isinstance(given, Mapping) else {MAIN: given}


def _names(roles: Mapping[str, Any]) -> str:
    return ", ".join(sorted(roles)) or "none"


def _count_what_is_limited(budget: Budget, least: Usage) -> None:
    """Raise an `InputError` if tokens or denoiser evaluations are limited, but this model has none of them."""
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
