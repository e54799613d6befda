"""Checks of the parts that packages add to a search: scorers, generators and environments.

Each check raises an `AssertionError` of one line that names the part and the broken rule. The rules are those of
`thinktime.core.protocols` and `thinktime.core.environment`, on which budgets, the bank and resumed runs depend.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import iscoroutinefunction
from math import isfinite
from typing import Any

from thinktime.core.environment import FORK, IRREVERSIBLE, REPLAY, Environment, Observation
from thinktime.core.errors import ThinktimeError
from thinktime.core.protocols import Generator, Scorer
from thinktime.core.search import Search
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Sampling, Score
from thinktime.core.usage import Usage
from thinktime.testing.doubles import PROBLEM, WordGenerator

JUDGING: frozenset[str] = frozenset(
    {
        *(Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD, Capability.PARTS),
        *(Capability.COMPARE, Capability.SELF_EVALUATION, Capability.META_REWARD, Capability.VERDICTS),
    }
)
"""The capabilities of scorers."""
ODD_ACTIONS: tuple[Any, ...] = (None, "", 0, [], {}, {"": [None]}, "\0", "(" * 999)
"""Actions that a model may write by mistake."""
SAMPLES = 8
"""Samples of a checked generator."""


def check_scorer(
    scorer: Scorer, nodes: Sequence[Node] = (), problem: Problem = PROBLEM, *, repeatable: bool = True
) -> None:
    """Check what a search relies on in a scorer.

    A score is in the place of its node, is a finite number or None, depends on nothing but the node, and costs at most
    the announced worst case, in counts of scorers. What is known makes it cheaper and changes no value.

    Args:
        scorer: the scorer; if it can compare, its comparison is checked too.
        nodes: three or more nodes of the problem; by default texts of words, of which unfinished ones are left out if
            the scorer has no process rewards.
        problem: their question.
        repeatable: whether equal calls give equal values; not so for a judge that samples behind an endpoint.

    Raises:
        AssertionError: a rule is broken.
    """
    _named(scorer, "scorer")
    who = f"scorer {scorer.name!r}"
    _require(scorer.capabilities & JUDGING != set(), who, "its capabilities have none of a scorer, such as SCORES")
    some = list(nodes) or _word_nodes(unfinished=Capability.PROCESS_REWARD in scorer.capabilities)
    asyncio.run(_check_scores(scorer, who, some, problem, repeatable))
    if Capability.COMPARE in scorer.capabilities:
        asyncio.run(_check_comparison(scorer, who, some, problem))


async def _check_scores(scorer: Scorer, who: str, nodes: list[Node], problem: Problem, repeatable: bool) -> None:
    _require(iscoroutinefunction(getattr(scorer, "score", None)), who, "its method score is not async")

    async def scored(some: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        with _no_exception(who, "score"):
            scores = list(await scorer.score(problem, some, known))
        _require(len(scores) == len(some), who, f"{len(scores)} scores for {len(some)} nodes")
        for node, before, score in zip(some, known, scores, strict=True):
            _check_score(score, who)
            with _no_exception(who, "worst_case"):
                worst = scorer.worst_case(problem, node, before)
            _within(score.usage, worst, who, "a score costs more than its worst case")
        return scores

    nothing: list[Node | None] = [None] * len(nodes)
    await scored([], [])
    with _no_exception(who, "worst_case of the root"):
        scorer.worst_case(problem, nodes[0].root, None)  # a search asks this before it begins
    first = await scored(nodes, nothing)
    for node in nodes:
        less, most = scorer.worst_case(problem, node, node), scorer.worst_case(problem, node, None)
        _within(less, most, who, "the worst case of a node that it knows is larger")
    again = await scored(nodes, nodes)
    if repeatable:
        values = [score.value for score in first]
        _require([s.value for s in await scored(nodes, nothing)] == values, who, "a second call gives other values")
        _require([s.value for s in again] == values, who, "its values depend on what is known")
        turned = await scored(nodes[::-1], nothing)
        _require([s.value for s in turned] == values[::-1], who, "its values depend on the order of the nodes")
        alone = [(await scored([node], [None]))[0].value for node in nodes]
        _require(alone == values, who, "its values depend on the other nodes of the call")


async def _check_comparison(scorer: Any, who: str, nodes: list[Node], problem: Problem) -> None:
    can = iscoroutinefunction(getattr(scorer, "compare", None)) and hasattr(scorer, "worst_case_of_comparison")
    _require(can, who, "it offers COMPARE without async compare and worst_case_of_comparison")
    with _no_exception(who, "compare"):
        score = await scorer.compare(problem, nodes)
    _check_score(score, who)
    whole = score.value is None or len(score.steps) == len(nodes)
    _require(whole, who, f"a comparison of {len(nodes)} nodes has {len(score.steps)} scores")
    worst = scorer.worst_case_of_comparison(problem, nodes)
    _within(score.usage, worst, who, "a comparison costs more than its worst case")


def _check_score(score: Any, who: str) -> None:
    _require(isinstance(score, Score), who, f"it returns {type(score).__name__} instead of a Score")
    numbers = [*score.steps, *([] if score.value is None else [score.value])]
    fine = all(isinstance(x, int | float) and not isinstance(x, bool) and isfinite(x) for x in numbers)
    _require(fine, who, f"a score is no finite number: {score.value!r}; a missing one is None")
    _require("\n" not in score.reason, who, "the reason of a missing score has several lines")
    kind = type(score.usage).__name__
    _require(isinstance(score.usage, Usage), who, f"the usage of a score is {kind} instead of a Usage")
    models = score.usage.generated_tokens or score.usage.model_calls or score.usage.flops
    _require(not models, who, "it charges counts of models; those of scorers begin with scorer_, and judge_tokens")


def _word_nodes(*, unfinished: bool) -> list[Node]:
    """Nodes of words: unfinished ones if asked for, and complete ones below them."""

    async def drawn() -> list[Node]:
        search = Search(PROBLEM, WordGenerator(), sampling=Sampling(max_length=20))
        begun = await search.extend([search.root], 4, until="step")
        ended = await search.extend([node for node in begun if not node.done])
        return [node for node in (*begun, *ended) if unfinished or node.done]

    return asyncio.run(drawn())


def check_generator(
    generator: Generator, problem: Problem = PROBLEM, *, max_length: int = 24, repeatable: bool = True
) -> None:
    """Check what a search relies on in a generator.

    Children come in order, keep the limit of their length, and cost at most the announced worst case; the key of a
    child seeds its noise; the bank can store a state and read it back. Of the capabilities it checks steps,
    continuation, confidences and cancelling, if the generator offers them.

    Args:
        generator: the generator.
        problem: a question that it takes, on which samples differ.
        max_length: of a generation, in the generator's unit; 4 or more.
        repeatable: whether equal keys give equal samples; not so for an endpoint without seeds.

    Raises:
        AssertionError: a rule is broken.
    """
    _named(generator, "generator")
    who = f"generator {generator.name!r}"
    unit = getattr(generator, "unit", None)
    _require(isinstance(unit, str) and unit != "", who, "its unit is no text")
    _require(iscoroutinefunction(getattr(generator, "extend", None)), who, "its method extend is not async")
    asyncio.run(_Generating(generator, who, problem, Sampling(max_length=max_length), repeatable).check())


class _Generating:
    """The checks of one generator, with its root."""

    def __init__(self, generator: Generator, who: str, problem: Problem, sampling: Sampling, repeatable: bool) -> None:
        self.generator, self.who, self.sampling, self.repeatable = generator, who, sampling, repeatable
        with _no_exception(who, "root"):
            self.root = Node("check", (), generator.root(problem))
        _require(generator.length(self.root.state) == 0, who, "its root has a length")

    async def check(self) -> None:
        can, most = self.generator.capabilities, self.sampling.max_length
        with _no_exception(self.who, "extend"):
            nothing = await self.generator.extend([])
        _require(nothing == [], self.who, "children for no extension")
        wanted = [self._wanted(self.root, f"sample {number}", most) for number in range(SAMPLES)]
        children = await self._children(wanted)
        packed = [self._stored(self.root, child) for child in children]
        if self.repeatable:
            again = [self._stored(self.root, child) for child in await self._children(wanted[::-1])][::-1]
            _require(again == packed, self.who, "equal keys give other samples in another order")
            alone = self._stored(self.root, (await self._children(wanted[:1]))[0])
            _require(alone == packed[0], self.who, "equal keys give other samples alone")
            _require(any(each != packed[0] for each in packed), self.who, "all keys give the same sample")
        for limit in (1, most // 2):
            await self._children([replace(each, max_length=limit) for each in wanted])
        at_most = replace(wanted[0], at_most=2, max_length=2)
        (begun,) = await self._children([at_most])
        if Capability.STEPS in can:
            (begun,) = await self._children([replace(wanted[0], until="step")])
        if Capability.PREFIX in can and begun.finish in ("cut", "step"):
            node = Node("begun", (0,), begun.state, self.root, begun.finish)
            left = most - self.generator.length(begun.state)
            (rest,) = await self._children([self._wanted(node, "rest", left)])
            self._stored(node, rest)
        if Capability.CONFIDENCES in can:
            (sure,) = await self._children([replace(wanted[0], confidences=True)])
            count = len(getattr(sure.state, "confidences", ()))
            _require(count == sure.length, self.who, f"{count} confidences for {sure.length} of its length")
        if Capability.CANCEL in can:
            longest = max(range(SAMPLES), key=lambda number: children[number].length)
            cut = self.generator.cut(wanted[longest], children[longest], 1)
            _require(cut.length == 1, self.who, f"a child that is cut to a length of 1 has {cut.length}")

    def _wanted(self, node: Node, key: str, most: int) -> Extension:
        return Extension(node, 0, key, "done", self.sampling, most)

    async def _children(self, wanted: Sequence[Extension]) -> list[Child]:
        """The children of these extensions, each of which keeps the rules of a child."""
        with _no_exception(self.who, "extend"):
            children = await self.generator.extend(wanted)
        _require(len(children) == len(wanted), self.who, f"{len(children)} children for {len(wanted)} extensions")
        for extension, child in zip(wanted, children, strict=True):
            self._check_child(extension, child)
        return children

    def _check_child(self, extension: Extension, child: Child) -> None:
        failed = child.finish == "error"
        _require(failed == (child.error is not None), self.who, "a child has an error without the finish error, or not")
        if failed:
            raise AssertionError(f"{self.who}: a sample failed: {child.error}")
        before, length = self.generator.length(extension.node.state), self.generator.length(child.state)
        told = f"a child adds {length - before} to the length and reports {child.length}"
        _require(child.length == length - before, self.who, told)
        _require(child.length <= extension.max_length, self.who, "a child is longer than its limit")
        allowed = {"eos", "step"} if extension.until == "step" else {"eos"}
        allowed |= {"cut", "length", "budget"} if child.length == extension.max_length else set()
        _require(child.finish in allowed, self.who, f"a child of this length cannot end by {child.finish!r}")
        worst = self.generator.worst_case(extension.node, extension.max_length)
        _within(child.usage, worst, self.who, "a child costs more than its worst case")

    def _stored(self, node: Node, child: Child) -> Mapping[str, Any]:
        """What the bank stores of a child, after it has read it back."""
        with _no_exception(self.who, "pack"):
            packed = self.generator.pack(node.state, child.state)
            stored = {k: v if isinstance(v, bytes) else json.loads(json.dumps(v)) for k, v in packed.items()}
        with _no_exception(self.who, "unpack"):
            state = self.generator.unpack(node.state, stored)
            again = self.generator.pack(node.state, state)
        kept = {k: v if isinstance(v, bytes) else json.loads(json.dumps(v)) for k, v in again.items()}
        whole = kept == stored and self.generator.length(state) == self.generator.length(child.state)
        _require(whole, self.who, "unpack does not give back the state that pack took")
        return stored


def check_environment(environment: Environment, actions: Sequence[Any], problem: Problem = PROBLEM) -> None:
    """Check what a search relies on in an environment.

    A step answers with an `Observation`, also to an action that makes no sense, or raises a `ThinktimeError`. With
    ``replay`` the same actions give the same observations from every start. With ``fork`` a copy goes on as its
    original does, and leaves it alone. The actions of an irreversible environment are not carried out.

    Args:
        environment: the environment.
        actions: two or more JSON values that it understands, in an order that makes sense.
        problem: the problem that it starts from.

    Raises:
        AssertionError: a rule is broken.
    """
    _named(environment, "environment")
    who, can = f"environment {environment.name!r}", environment.capabilities
    unknown = sorted(can - {FORK, REPLAY, IRREVERSIBLE})
    _require(not unknown, who, f"unknown capabilities: {', '.join(unknown)}")
    _require(not {IRREVERSIBLE, REPLAY} <= can, who, "its actions cannot be both irreversible and replayed")
    for name in ("start", "step", *(["fork"] if FORK in can else [])):
        _require(iscoroutinefunction(getattr(environment, name, None)), who, f"it has no async {name}")
    with _no_exception(who, "JSON of the actions"):
        json.dumps(list(actions))
    if IRREVERSIBLE not in can:
        asyncio.run(_check_steps(environment, who, list(actions), problem))


async def _check_steps(environment: Environment, who: str, actions: list[Any], problem: Problem) -> None:
    can = environment.capabilities

    async def observed(state: Any, action: Any) -> Observation:
        with _no_exception(who, f"step({action!r})"):
            found = await environment.step(state, action)
        _require(isinstance(found, Observation), who, f"step returns {type(found).__name__} instead of an Observation")
        _require(isinstance(found.text, str), who, "the text of an observation is no text")
        fine = found.reward is None or (isinstance(found.reward, int | float) and isfinite(found.reward))
        _require(fine, who, f"a reward is no finite number: {found.reward!r}")
        return found

    async def played(state: Any, some: Sequence[Any]) -> tuple[list[Any], Any]:
        """What the actions give from a state, and the state after them."""
        said = []
        for action in some:
            found = await observed(state, action)
            said.append((found.text, found.reward, found.done))
            state = found.state
        return said, state

    with _no_exception(who, "start"):
        first, second = await environment.start(problem), await environment.start(problem)
    whole, _ = await played(first, actions)
    if REPLAY in can:
        again, _ = await played(second, actions)  # it started before the first one acted
        _require(again == whole, who, "the same actions from another start give other observations")
    if FORK in can:
        for number in range(len(actions)):
            _, state = await played(await environment.start(problem), actions[:number])
            with _no_exception(who, "fork"):
                copy = await environment.fork(state)
            from_copy, _ = await played(copy, actions[number:])
            from_state, _ = await played(state, actions[number:])
            _require(from_copy == from_state, who, "a copy and its original give other observations")
    for action in ODD_ACTIONS:
        try:
            await observed(await environment.start(problem), action)
        except ThinktimeError:  # the node then has the finish error
            continue


def _named(part: Any, kind: str) -> None:
    name, can = getattr(part, "name", None), getattr(part, "capabilities", None)
    if not isinstance(name, str) or not name:
        raise AssertionError(f"{kind} {type(part).__name__}: it has no name")
    fine = isinstance(can, frozenset) and all(isinstance(each, str) for each in can)
    _require(fine, f"{kind} {name!r}", "its capabilities are no frozenset of texts")


def _require(holds: bool, who: str, what: str) -> None:
    if not holds:
        raise AssertionError(f"{who}: {what}")


@contextmanager
def _no_exception(who: str, what: str) -> Iterator[None]:
    """Turn an exception of the part into an `AssertionError` of one line, but for those that a search expects."""
    try:
        yield
    except (AssertionError, ThinktimeError):
        raise
    except Exception as error:
        message = " ".join(str(error).split())
        raise AssertionError(f"{who}: {what} raised {type(error).__name__}: {message}") from error


_LIMITED = (
    *("generated_tokens", "scorer_tokens", "judge_tokens", "model_calls", "scorer_calls", "flops", "scorer_flops"),
    *("dollars", "denoiser_calls", "actions"),
)
"""Counts of a usage that a budget limits."""


def _within(usage: Usage, worst: Usage, who: str, told: str) -> None:
    """Require that no count of a usage is above that of a worst case; unknown ones are not compared."""
    _require(isinstance(worst, Usage), who, f"its worst case is {type(worst).__name__} instead of a Usage")
    pairs = {name: (getattr(usage, name), getattr(worst, name)) for name in _LIMITED}
    larger = {name: pair for name, pair in pairs.items() if None not in pair and pair[0] > pair[1]}
    above = ", ".join(f"{name} {spent:g} > {most:g}" for name, (spent, most) in larger.items())
    _require(not above, who, f"{told}: {above}")
