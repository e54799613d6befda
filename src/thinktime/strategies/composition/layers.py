"""Components of an inference-time architecture and what a layer of them passes on (Archon, arXiv 2409.15254).

See `thinktime.strategies.composition.archon`, which runs the layers.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from thinktime.core.errors import ModelError, TooLongError
from thinktime.core.search import Search, Strategy
from thinktime.core.selection import majority, ranked, weighted_majority
from thinktime.core.types import MAIN, Node, Prompt
from thinktime.prompts.layers import ARGUE, CRITIQUE, EVALUATE, FUSE, RANK, VERDICT, WRITE_TESTS, with_critiques
from thinktime.prompts.turns import quoted
from thinktime.strategies.composition.roles import generator_of

T = TypeVar("T")


class UnreadLayerError(ModelError):
    """Replies of a layer ended, and none can be read."""


@dataclass(frozen=True)
class State:
    """What a layer passes on: candidates, one critique for each if there are any, and the reply that has the tests."""

    candidates: tuple[Node, ...] = ()
    critiques: tuple[str, ...] = ()
    critic: tuple[Node, ...] = ()
    """The reply that has the critiques."""
    tests: tuple[Node, ...] = ()

    def keep(self, places: Sequence[int]) -> State:
        """The candidates at these places in this order, each with its critique."""
        critiques = tuple(self.critiques[place] for place in places) if self.critiques else ()
        return replace(self, candidates=tuple(self.candidates[place] for place in places), critiques=critiques)


@dataclass(frozen=True)
class LayerCalls:
    """Calls of a model with one prompt in a layer.

    Args:
        prompt: its name; ``generate`` is the question itself.
        model: the role.
        count: how many calls.
        candidates: how many candidates each call reads.
        critiques: whether it reads their critiques too.
    """

    prompt: str
    model: str
    count: int
    candidates: int = 0
    critiques: bool = False


@dataclass(frozen=True)
class Flow:
    """The most candidates that a layer passes on, and whether they have critiques."""

    candidates: int = 0
    critiques: bool = False


@dataclass(frozen=True)
class Run:
    """A layer while it runs."""

    search: Search
    place: int
    retries: int

    async def read(
        self, prompt: Prompt, model: str, abouts: Sequence[Sequence[Node]], saids: Sequence[Sequence[Node]]
    ) -> list[tuple[Node, Any] | None]:
        """The first readable reply to each question with its value; None if the budget or the retries ended first."""
        pairs = zip(abouts, saids, strict=True)
        roots = [self.ask(prompt, model, about, said) for about, said in pairs]
        found: list[tuple[Node, Any] | None] = [None] * len(roots)
        failed: list[Node] = []
        for _ in range(1 + (self.retries if self.search.sampling.temperature > 0 else 0)):
            left = [place for place, reply in enumerate(found) if reply is None]
            replies = await self.search.extend([roots[place] for place in left]) if left else []
            by_root = {reply.parent: reply for reply in replies}
            for place in left:
                reply = by_root.get(roots[place])
                value = None if reply is None else self.search.read(prompt, reply)
                if reply is not None and value is not None:
                    found[place] = reply, value
                elif reply is not None and reply.done:
                    failed.append(reply)
            if self.search.exhausted:
                break
        self.search.log(layer=self.place, prompt=prompt.name, asked=len(roots), unreadable=found.count(None))
        if failed and not any(found):
            raise UnreadLayerError(
                f"layer {self.place}: no reply to the prompt {prompt.name!r} can be read; they end "
                f"{quoted([reply.state for reply in failed[:2]])}; take another model, or unreadable=plurality"
            )
        return found

    def ask(self, prompt: Prompt, model: str, about: Sequence[Node], said: Sequence[Node] = ()) -> Node:
        """The root of a question.

        Raises:
            TooLongError: it does not fit the model's context.
        """
        search = self.search
        root = search.ask(prompt, about, said, model=model)
        if root is not None:
            return root
        render = search.prompts.get(prompt.name, prompt).render
        question = render(search.problem, [node.state for node in about], [node.state for node in said])
        try:
            generator_of(search, model).root(replace(search.problem, prompt=question), quotes=True)
        except TooLongError as error:
            named = f"layer {self.place} {prompt.name} of {len(about)} candidates"
            fix = f"{error.fix}, take fewer samples, or put a ranker with a smaller top_k before it"
            raise TooLongError(named, error.value, fix) from None
        raise AssertionError("a question that fits has a root")


@dataclass(frozen=True)
class Generate:
    """Samples of the question by a model, or answers of a strategy that runs with it.

    Args:
        model: the role.
        samples: candidates.
        strategy: with its options, as ``beam_search:n=4``; without one each candidate is a plain sample.
    """

    model: str = MAIN
    samples: int = 1
    strategy: str = ""
    kind: ClassVar[str] = "generate"
    prompts: ClassVar[tuple[Prompt, ...]] = ()

    async def __call__(self, run: Run, state: State) -> State:
        search, inner = run.search, self.inner
        if inner is None:
            return State(tuple(await search.extend([search.root], self.samples, model=self.model)))
        answers = await together([search.run(inner, model=self.model) for _ in range(self.samples)])
        return State(tuple(answer.node for answer in answers if answer.node is not None))

    @property
    def inner(self) -> Strategy | None:
        """The strategy that runs for each candidate."""
        from thinktime.strategies import parse  # it imports this module

        return parse(self.strategy)[1] if self.strategy else None

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return [LayerCalls(self.kind, self.model, self.samples * getattr(self.inner, "n", 1))]

    def passes(self, flow: Flow) -> Flow:
        return Flow(self.samples)


@dataclass(frozen=True)
class Fuse:
    """New candidates, each written from all candidates so far and their critiques."""

    model: str = MAIN
    samples: int = 1
    kind: ClassVar[str] = "fuse"
    prompts: ClassVar[tuple[Prompt, ...]] = (FUSE,)

    async def __call__(self, run: Run, state: State) -> State:
        root = run.ask(with_critiques(FUSE, state.critiques), self.model, state.candidates, state.critic)
        return State(tuple(await run.search.extend([root], self.samples)), tests=state.tests)

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return [LayerCalls(self.kind, self.model, self.samples, flow.candidates, flow.critiques)]

    def passes(self, flow: Flow) -> Flow:
        return Flow(self.samples)


@dataclass(frozen=True)
class Rank:
    """The ``top_k`` best candidates in the order in which a model ranks them."""

    model: str = MAIN
    top_k: int = 5
    kind: ClassVar[str] = "rank"
    prompts: ClassVar[tuple[Prompt, ...]] = (RANK,)

    async def __call__(self, run: Run, state: State) -> State:
        if len(state.candidates) < 2:
            return state
        prompt = with_critiques(RANK, state.critiques)
        (reply,) = await run.read(prompt, self.model, [state.candidates], [state.critic])
        return state if reply is None else state.keep(reply[1][: self.top_k])

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return [LayerCalls(self.kind, self.model, int(flow.candidates > 1), flow.candidates, flow.critiques)]

    def passes(self, flow: Flow) -> Flow:
        return replace(flow, candidates=min(flow.candidates, self.top_k))


@dataclass(frozen=True)
class Critique:
    """Strengths and weaknesses of every candidate, for the next ranker or fuser."""

    model: str = MAIN
    kind: ClassVar[str] = "critique"
    prompts: ClassVar[tuple[Prompt, ...]] = (CRITIQUE,)

    async def __call__(self, run: Run, state: State) -> State:
        (reply,) = await run.read(CRITIQUE, self.model, [state.candidates], [()])
        return state if reply is None else replace(state, critiques=reply[1], critic=(reply[0],))

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return [LayerCalls(self.kind, self.model, 1, flow.candidates)]

    def passes(self, flow: Flow) -> Flow:
        return replace(flow, critiques=True)


@dataclass(frozen=True)
class Verify:
    """The candidates that a model judges right after it has argued for them; all of them if it judges none right."""

    model: str = MAIN
    kind: ClassVar[str] = "verify"
    prompts: ClassVar[tuple[Prompt, ...]] = (ARGUE, VERDICT)

    async def __call__(self, run: Run, state: State) -> State:
        roots = [run.ask(ARGUE, self.model, [candidate]) for candidate in state.candidates]
        arguments = {reply.parent: reply for reply in await run.search.extend(roots) if reply.done}
        argued = [place for place, root in enumerate(roots) if root in arguments]
        abouts = [[state.candidates[place]] for place in argued]
        saids = [[arguments[roots[place]]] for place in argued]
        verdicts = await run.read(VERDICT, self.model, abouts, saids)
        right = [place for place, verdict in zip(argued, verdicts, strict=True) if verdict and verdict[1] > 0.5]
        return state.keep(right) if right else state

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return [LayerCalls(prompt.name, self.model, flow.candidates, 1) for prompt in self.prompts]

    def passes(self, flow: Flow) -> Flow:
        return flow


@dataclass(frozen=True)
class WriteTests:
    """Short statements that are true of every good answer, for the next evaluation."""

    model: str = MAIN
    kind: ClassVar[str] = "write_tests"
    prompts: ClassVar[tuple[Prompt, ...]] = (WRITE_TESTS,)

    async def __call__(self, run: Run, state: State) -> State:
        (reply,) = await run.read(WRITE_TESTS, self.model, [()], [()])
        return state if reply is None else replace(state, tests=(reply[0],))

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return [LayerCalls(self.kind, self.model, 1)]

    def passes(self, flow: Flow) -> Flow:
        return flow


@dataclass(frozen=True)
class Evaluate:
    """The candidates by the number of tests that they pass.

    Args:
        model: the role.
        top_k: how many candidates are kept.
        first_k: evaluate one candidate after the other, and keep the first ``first_k`` that pass all tests; 0
            evaluates all at once. The calls then differ from question to question.
    """

    model: str = MAIN
    top_k: int = 1
    first_k: int = 0
    kind: ClassVar[str] = "evaluate"
    prompts: ClassVar[tuple[Prompt, ...]] = (EVALUATE,)

    async def __call__(self, run: Run, state: State) -> State:
        if not state.tests:
            return state
        tests = len(run.search.read(WRITE_TESTS, state.tests[0]))
        places = range(len(state.candidates))
        passed: dict[int, int] = {}
        for turn in [[place] for place in places] if self.first_k else [places]:
            abouts = [[state.candidates[place]] for place in turn]
            replies = await run.read(EVALUATE, self.model, abouts, [state.tests] * len(abouts))
            for place, reply in zip(turn, replies, strict=True):
                if reply is not None:
                    passed[place] = sum(reply[1].get(number, False) for number in range(1, tests + 1))
            whole = [place for place in passed if passed[place] == tests]
            if self.first_k and len(whole) == self.first_k:
                return state.keep(whole)
        return state.keep(sorted(passed, key=lambda place: (-passed[place], place))[: self.top_k]) if passed else state

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return [LayerCalls(self.kind, self.model, flow.candidates, 1)]

    def passes(self, flow: Flow) -> Flow:
        return replace(flow, candidates=min(flow.candidates, max(self.top_k, self.first_k)))


@dataclass(frozen=True)
class Top:
    """The ``top_k`` best candidates by a scorer; those without a score come last."""

    scorer: str = MAIN
    top_k: int = 1
    kind: ClassVar[str] = "score"
    prompts: ClassVar[tuple[Prompt, ...]] = ()

    async def __call__(self, run: Run, state: State) -> State:
        places = {node.key: place for place, node in enumerate(state.candidates)}
        scores = await run.search.score(state.candidates, scorer=self.scorer)
        return state.keep([places[node.key] for node, _ in ranked(state.candidates, scores)][: self.top_k])

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return []

    def passes(self, flow: Flow) -> Flow:
        return replace(flow, candidates=min(flow.candidates, self.top_k))


@dataclass(frozen=True)
class Vote:
    """A candidate with the most frequent answer, or with the answer of the largest sum of scores.

    Args:
        scorer: the role whose scores are the weights; without one all candidates weigh the same.
    """

    scorer: str = ""
    kind: ClassVar[str] = "vote"
    prompts: ClassVar[tuple[Prompt, ...]] = ()

    async def __call__(self, run: Run, state: State) -> State:
        search = run.search
        scores = await search.score(state.candidates, scorer=self.scorer) if self.scorer else None
        winner = (weighted_majority if self.scorer else majority)(search.candidates(state.candidates, scores))
        return state if winner is None else state.keep([state.candidates.index(winner.node)])

    def calls(self, flow: Flow) -> list[LayerCalls]:
        return []

    def passes(self, flow: Flow) -> Flow:
        return replace(flow, candidates=min(flow.candidates, 1))


Component = Generate | Fuse | Rank | Critique | Verify | WriteTests | Evaluate | Top | Vote
Layers = tuple[tuple[Component, ...], ...]
KINDS: dict[str, type[Component]] = {
    kind.kind: kind for kind in (Generate, Fuse, Rank, Critique, Verify, WriteTests, Evaluate, Top, Vote)
}
WRITERS = (Generate, Fuse)
"""The components that write candidates; several may share a layer."""


def flows(layers: Layers) -> list[Flow]:
    """The most that each layer gets from the one before it."""
    found = [Flow()]
    for layer in layers:
        parts = [component.passes(found[-1]) for component in layer]
        found.append(replace(parts[0], candidates=sum(part.candidates for part in parts)))
    return found[:-1]


def calls(layers: Layers) -> list[LayerCalls]:
    """The most calls that the layers make for a question, without retries: a dry run."""
    pairs = zip(layers, flows(layers), strict=True)
    return [call for layer, flow in pairs for component in layer for call in component.calls(flow)]


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines that run side by side; an error is raised when all have ended."""
    from asyncio import gather  # costs as much to import as all of the core

    results: list[T] = []
    for result in await gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results
