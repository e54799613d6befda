"""The checks of scorers, generators and environments: good parts pass, and each rule catches a part that breaks it."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from math import inf, nan
from pathlib import Path
from traceback import extract_tb
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinktime.core.environment import FORK, IRREVERSIBLE, REPLAY, Observation
from thinktime.core.errors import ModelError
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.environments.calculator import Calculator
from thinktime.environments.key_value import KeyValueStore
from thinktime.generators.text import Text
from thinktime.testing import (
    Piece,
    WordGenerator,
    WordJudge,
    WordScorer,
    check_environment,
    check_generator,
    check_scorer,
    drawn,
    drawn_score,
    parts,
    rambling,
)

STORE = [{"set": "a", "value": 1}, {"get": "a"}, {"set": "a", "value": 2}, {"delete": "a"}, {"get": "a"}]
_numbers = count()


# Good parts


def test_the_doubles_and_our_environments_pass() -> None:
    for scorer in (WordScorer(), WordJudge(), WordScorer(price=None)):
        check_scorer(scorer)
    for generator in (WordGenerator(), WordGenerator(rambling, price=None)):
        check_generator(generator)
    check_environment(Calculator(), ["1 + 1", "2 ** 3", "an error"])
    for copies in (True, False):
        check_environment(KeyValueStore(copies=copies), STORE)


_actions = st.lists(
    st.one_of(
        st.builds(lambda key, value: {"set": key, "value": value}, st.sampled_from("ab"), st.integers()),
        st.builds(lambda key: {"get": key}, st.sampled_from("ab")),
        st.builds(lambda key: {"delete": key}, st.sampled_from("ab")),
    ),
    min_size=2,
    max_size=6,
)


@given(_actions, st.booleans())
def test_any_actions_pass_on_the_key_value_store(actions: list[Any], copies: bool) -> None:
    check_environment(KeyValueStore(copies=copies), actions)


@given(st.one_of(st.none(), st.floats(), st.integers(-5, 5)))
def test_a_scorer_passes_if_and_only_if_its_values_are_finite_or_missing(value: float | None) -> None:
    fine = value is None or -inf < value < inf
    with nullcontext() if fine else pytest.raises(AssertionError, match="no finite number"):
        check_scorer(WordScorer(lambda node: value))


@given(st.integers(4, 40), st.randoms(use_true_random=False))
def test_generators_of_any_random_words_pass(max_length: int, rng: Any) -> None:
    salt = rng.random()

    def say(extension: Extension) -> Piece:
        piece = drawn(replace(extension, key=f"{salt}/{extension.key}"))
        return replace(piece, words=f"{extension.key.replace(' ', '_')} {piece.words}")

    check_generator(WordGenerator(say), max_length=max_length)


def test_a_part_that_is_not_repeatable_passes_if_its_author_says_so() -> None:
    noisy = WordScorer(lambda node: float(next(_numbers)))
    check_scorer(noisy, repeatable=False)
    endpoint = WordGenerator(lambda extension: Piece(f"so {next(_numbers)}", "eos"))
    check_generator(endpoint, repeatable=False)
    with pytest.raises(AssertionError, match="a second call gives other values"):
        check_scorer(noisy)
    with pytest.raises(AssertionError, match="equal keys give other samples"):
        check_generator(endpoint)


# Scorers that break one rule each


class Unnamed(WordScorer):
    def __init__(self) -> None:
        super().__init__(name="")


class ListsWhatItCan(WordScorer):
    capabilities = (Capability.SCORES,)  # type: ignore[assignment]  # the mistake


class OffersNothing(WordScorer):
    capabilities = frozenset()


class NotAsync(WordScorer):
    def score(self, *_: Any) -> Any:
        return []


class Changed(WordScorer):
    """Returns other scores than the base."""

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> Any:
        return self.changed(await super().score(problem, nodes, known), nodes, known)

    def changed(self, scores: list[Score], nodes: Sequence[Node], known: Sequence[Node | None]) -> Any:
        return scores


class OneTooFew(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        return scores[1:]


class OneForNothing(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        return scores or [Score(1.0, Usage())]


class Floats(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        return [score.value for score in scores]


class TrueOrFalse(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        return [replace(score, value=True) for score in scores]


class LongReason(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        return [replace(score, value=None, reason="a\nb") for score in scores]


class ChargesTheModel(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        return [replace(score, usage=Usage(generated_tokens=1)) for score in scores]


class Expensive(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        return [replace(score, usage=score.usage + Usage(scorer_tokens=1)) for score in scores]


class Fails(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        raise KeyError("a\nb")


class NeedsText(WordScorer):
    """Cannot say what the root costs, which a search asks first."""

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        return super().worst_case(problem, node, known) if node.state.text else Usage(scorer_tokens=1 // 0)


class DearerIfKnown(WordScorer):
    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        return replace(super().worst_case(problem, node, None), scorer_calls=1 if known is None else 2)


class HasNoWorstCase(WordScorer):
    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Any:
        return None

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        return [Score(0.5, Usage(scorer_calls=1)) for _ in nodes]


class HasNoUsage(Changed):
    def changed(self, scores: list[Score], *_: Any) -> Any:
        return [Score(score.value, None) for score in scores]  # type: ignore[arg-type]


class UsesWhatIsKnown(Changed):
    def changed(self, scores: list[Score], nodes: Sequence[Node], known: Sequence[Node | None]) -> Any:
        return [replace(s, value=0.0 if before is None else 1.0) for s, before in zip(scores, known, strict=True)]


class OutOfPlace(Changed):
    """Sorts the nodes, and returns the scores in that order."""

    def changed(self, scores: list[Score], nodes: Sequence[Node], *_: Any) -> Any:
        in_order = sorted(nodes, key=lambda node: node.key)
        return [replace(score, value=drawn_score(node)) for score, node in zip(scores, in_order, strict=True)]


class Ranks(Changed):
    """Ranks the nodes of a call, so a value depends on the others."""

    def changed(self, scores: list[Score], nodes: Sequence[Node], *_: Any) -> Any:
        texts = sorted({node.state.text for node in nodes})
        return [replace(s, value=float(texts.index(n.state.text))) for s, n in zip(scores, nodes, strict=True)]


class Counts(WordScorer):
    def __init__(self) -> None:
        super().__init__(lambda node: float(next(_numbers)))


class OnlySaysItCompares(WordScorer):
    capabilities = WordScorer.capabilities | {Capability.COMPARE}


class ForgetsACandidate(WordJudge):
    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        score = await super().compare(problem, nodes)
        return replace(score, value=1.0, steps=(1.0,))


class DearComparison(WordJudge):
    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        score = await super().compare(problem, nodes)
        return replace(score, usage=score.usage + Usage(scorer_calls=1))


SCORERS: dict[type[WordScorer], str] = {
    Unnamed: "scorer Unnamed: it has no name",
    ListsWhatItCan: "its capabilities are no frozenset",
    OffersNothing: "have none of a scorer",
    NotAsync: "its method score is not async",
    OneTooFew: "scores for . nodes",
    OneForNothing: "1 scores for 0 nodes",
    Floats: "it returns float instead of a Score",
    TrueOrFalse: "no finite number: True",
    LongReason: "the reason of a missing score has several lines",
    ChargesTheModel: "it charges counts of models",
    Expensive: "costs more than its worst case: scorer_tokens",
    Fails: "score raised KeyError: 'a",
    NeedsText: "worst_case of the root raised ZeroDivisionError",
    DearerIfKnown: "the worst case of a node that it knows is larger: scorer_calls 2 > 1",
    HasNoWorstCase: "its worst case is NoneType instead of a Usage",
    HasNoUsage: "the usage of a score is NoneType instead of a Usage",
    UsesWhatIsKnown: "its values depend on what is known",
    OutOfPlace: "its values depend on the order of the nodes",
    Ranks: "its values depend on the other nodes of the call",
    Counts: "a second call gives other values",
    OnlySaysItCompares: "it offers COMPARE without",
    ForgetsACandidate: "a comparison of . nodes has 1 scores",
    DearComparison: "a comparison costs more than its worst case: scorer_calls",
}


@pytest.mark.parametrize(("kind", "message"), SCORERS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_scorer_that_breaks_a_rule_is_refused_in_one_line(kind: type[WordScorer], message: str) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        check_scorer(kind())
    assert "\n" not in str(caught.value)


def test_parts_without_methods_are_refused_in_one_line() -> None:
    part = SimpleNamespace(name="empty", capabilities=WordScorer().capabilities)
    for check, message in ((check_scorer, "its method score is not async"), (check_generator, "its unit is no text")):
        with pytest.raises(AssertionError, match=message):
            check(part)


def test_nodes_of_the_author_are_scored() -> None:
    scorer = WordScorer()
    nodes = [Node(str(n), (n,), Text((1,), (n,), "so 7"), Node("r", (), Text((1,))), "eos") for n in range(3)]
    check_scorer(scorer, nodes)
    assert {node.key for batch in scorer.asked for node in batch} == {"0", "1", "2"}


# Generators that break one rule each


class NoUnit(WordGenerator):
    unit = ""


class NotAsyncGenerator(WordGenerator):
    def extend(self, extensions: Sequence[Extension]) -> Any:
        return []


class NoRoot(WordGenerator):
    def root(self, *_: Any, **__: Any) -> Text:
        raise ValueError("no template")


class LongRoot(WordGenerator):
    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
        return replace(super().root(problem), ids=(1,))


class ChangedChildren(WordGenerator):
    """Returns other children than the base."""

    async def extend(self, extensions: Sequence[Extension]) -> Any:
        return self.changed(await super().extend(extensions), extensions)

    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        return children


class ChildOfNothing(ChangedChildren):
    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        return children or [None]


class ChildTooFew(ChangedChildren):
    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        return children[1:]


class SilentError(ChangedChildren):
    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        return [replace(child, finish="error") for child in children]


class AlwaysFails(ChangedChildren):
    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        return [replace(child, finish="error", error=ModelError("down")) for child in children]


class WrongLength(ChangedChildren):
    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        return [replace(child, length=child.length + 1) for child in children]


class IgnoresTheLimit(WordGenerator):
    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        return await super().extend([replace(extension, max_length=24) for extension in extensions])


class StopsEarly(ChangedChildren):
    """Ends whole samples at steps."""

    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        return [replace(child, finish="step") for child in children]


class Overspends(ChangedChildren):
    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        return [replace(child, usage=child.usage + Usage(model_calls=1)) for child in children]


class Breaks(ChangedChildren):
    def changed(self, children: list[Child], extensions: Sequence[Extension]) -> Any:
        raise RuntimeError("out of memory")


class SeededByPlace(WordGenerator):
    """The noise depends on the place in the batch."""

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        return await super().extend([replace(each, key=str(place)) for place, each in enumerate(extensions)])


class SeededByBatch(WordGenerator):
    """The noise depends on the size of the batch."""

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        return await super().extend([replace(each, key=f"{each.key}/{len(extensions)}") for each in extensions])


class OneSample(WordGenerator):
    def __init__(self) -> None:
        super().__init__(lambda extension: Piece("so 7", "eos"))


class CannotBeStored(WordGenerator):
    def pack(self, node_state: Text, state: Text) -> dict[str, Any]:
        return {"state": state}


class StoresHalf(WordGenerator):
    def unpack(self, node_state: Text, packed: Mapping[str, Any]) -> Text:
        return replace(super().unpack(node_state, packed), ids=node_state.ids)


class CannotRead(WordGenerator):
    def unpack(self, node_state: Text, packed: Mapping[str, Any]) -> Text:
        raise KeyError("ids")


class StartsAgain(WordGenerator):
    """Writes from the beginning where it should continue."""

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        root = self.root(Problem("", ""))
        return await super().extend([replace(each, node=replace(each.node, state=root)) for each in extensions])


class Unsure(WordGenerator):
    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        return await super().extend([replace(extension, confidences=False) for extension in extensions])


class CutsNothing(WordGenerator):
    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        return child


GENERATORS: dict[type[WordGenerator], str] = {
    NoUnit: "its unit is no text",
    NotAsyncGenerator: "its method extend is not async",
    NoRoot: "root raised ValueError: no template",
    LongRoot: "its root has a length",
    ChildOfNothing: "children for no extension",
    ChildTooFew: "7 children for 8 extensions",
    SilentError: "without the finish error",
    AlwaysFails: "a sample failed: down",
    WrongLength: "a child adds . to the length and reports .",
    IgnoresTheLimit: "a child is longer than its limit",
    StopsEarly: "cannot end by 'step'",
    Overspends: "a child costs more than its worst case: model_calls 2 > 1",
    Breaks: "extend raised RuntimeError: out of memory",
    SeededByPlace: "equal keys give other samples in another order",
    SeededByBatch: "equal keys give other samples alone",
    OneSample: "all keys give the same sample",
    CannotBeStored: "pack raised TypeError",
    StoresHalf: "unpack does not give back",
    CannotRead: "unpack raised KeyError",
    StartsAgain: "to the length and reports",
    Unsure: "0 confidences for",
    CutsNothing: "a child that is cut to a length of 1 has",
}


@pytest.mark.parametrize(("kind", "message"), GENERATORS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_generator_that_breaks_a_rule_is_refused_in_one_line(kind: type[WordGenerator], message: str) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        check_generator(kind())
    assert "\n" not in str(caught.value)


# Environments that break one rule each


class Tally:
    """Counts its actions; those below are variants of it."""

    name = "tally"
    capabilities = frozenset({FORK, REPLAY})

    async def start(self, problem: Problem) -> list[str]:
        return []

    async def fork(self, state: list[str]) -> list[str]:
        return list(state)

    async def step(self, state: list[str], action: Any) -> Observation:
        state.append(str(action))
        return Observation(" ".join(state), state)


class Nameless(Tally):
    name = ""


class Flies(Tally):
    capabilities = frozenset({"fly"})


class BothWays(Tally):
    capabilities = frozenset({IRREVERSIBLE, REPLAY})


class StepsAtOnce(Tally):
    def step(self, state: list[str], action: Any) -> Any:
        return Observation("", state)


class CannotFork(Tally):
    fork: Any = None


class SaysText(Tally):
    async def step(self, state: list[str], action: Any) -> Any:
        return "ok"


class SaysNumbers(Tally):
    async def step(self, state: list[str], action: Any) -> Observation:
        return Observation(7, state)  # type: ignore[arg-type]  # the mistake


class RewardsNothing(Tally):
    async def step(self, state: list[str], action: Any) -> Observation:
        return replace(await super().step(state, action), reward=nan)


class Raises(Tally):
    async def step(self, state: list[str], action: Any) -> Observation:
        raise OSError("no disk")


class OnlyText(Tally):
    """Reads actions as texts, and breaks where a model writes something else."""

    async def step(self, state: list[str], action: Any) -> Observation:
        return await super().step(state, action.lower())


class OneState(Tally):
    def __init__(self) -> None:
        self._state: list[str] = []

    async def start(self, problem: Problem) -> list[str]:
        return self._state


class CopiesNothing(Tally):
    async def fork(self, state: list[str]) -> list[str]:
        return state


class CopiesTheStart(Tally):
    async def fork(self, state: list[str]) -> list[str]:
        return []


class WillNotStart(Tally):
    async def start(self, problem: Problem) -> list[str]:
        raise OSError("no disk")


ENVIRONMENTS: dict[type[Tally], str] = {
    Nameless: "environment Nameless: it has no name",
    Flies: "unknown capabilities: fly",
    BothWays: "cannot be both irreversible and replayed",
    StepsAtOnce: "it has no async step",
    CannotFork: "it has no async fork",
    SaysText: "step returns str instead of an Observation",
    SaysNumbers: "the text of an observation is no text",
    RewardsNothing: "a reward is no finite number: nan",
    Raises: r"step\('a'\) raised OSError: no disk",
    OnlyText: r"step\(None\) raised AttributeError",
    OneState: "the same actions from another start give other observations",
    CopiesNothing: "a copy and its original give other observations",
    CopiesTheStart: "a copy and its original give other observations",
    WillNotStart: "start raised OSError",
}


@pytest.mark.parametrize(("kind", "message"), ENVIRONMENTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_an_environment_that_breaks_a_rule_is_refused_in_one_line(kind: type[Tally], message: str) -> None:
    check_environment(Tally(), ["a", "b", "c"])
    with pytest.raises(AssertionError, match=message) as caught:
        check_environment(kind(), ["a", "b", "c"])
    assert "\n" not in str(caught.value)


def test_actions_have_to_be_json_values() -> None:
    with pytest.raises(AssertionError, match="JSON of the actions raised TypeError"):
        check_environment(Tally(), [object()])


def test_an_irreversible_environment_is_not_acted_on() -> None:
    class Rocket(Tally):
        capabilities = frozenset({IRREVERSIBLE})

        async def start(self, problem: Problem) -> list[str]:
            raise AssertionError("it took off")

    check_environment(Rocket(), ["start"])
    with pytest.raises(AssertionError, match="it took off"):
        asyncio.run(Rocket().start(Problem("", "")))


def broken_at(check: Callable[[Any], None], part: Any) -> int:
    """The line of parts.py with the rule that a part breaks."""
    try:
        check(part)
    except AssertionError as broken:
        frames = [frame for frame in extract_tb(broken.__traceback__) if frame.filename == parts.__file__]
        return next(frame.lineno or 0 for frame in reversed(frames) if frame.name != "_require")
    return 0


def test_every_rule_has_a_part_that_breaks_it() -> None:
    inside = {"_require", "_no_exception"}
    tree = ast.parse(Path(parts.__file__).read_text())
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    rules = {
        node.lineno
        for function in functions
        if function.name not in inside
        for node in ast.walk(function)
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_require")
    }
    found = {broken_at(check_scorer, kind()) for kind in SCORERS}
    found |= {broken_at(check_generator, kind()) for kind in GENERATORS}
    found |= {broken_at(lambda part: check_environment(part, ["a", "b", "c"]), kind()) for kind in ENVIRONMENTS}
    assert rules - found == set()


def test_the_base_of_the_broken_scorers_passes() -> None:
    check_scorer(Changed(drawn_score))
    check_generator(ChangedChildren())
