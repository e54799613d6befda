"""Searches over noise, worked out by hand: the painted pictures, their noises, and the answer.

A picture is a number. Its noise is the same number: painting does not change it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.transitions import Neighbour, Redo, Renoise
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Sampling, Score
from thinktime.core.usage import Budget, Usage
from thinktime.strategies.diffusion.noise_search import SearchOverPaths, ZeroOrder

STEPS = 20


@dataclass(frozen=True)
class Canvas:
    """A picture after some of its steps: its number, and its position."""

    number: int
    position: int = 0


class Painter:
    """Draws the numbers 0, 1, 2, … as noises; a neighbour adds 10, and adding noise adds 100."""

    name, unit = "painter", "steps"
    capabilities = frozenset(
        {Capability.STEPS, Capability.PREFIX, Capability.NOISE, Capability.NO_NOISE, Capability.TRANSITIONS}
    )

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._drawn = 0
        self._near: Counter[int] = Counter()

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Canvas:
        return Canvas(-1)

    def adopt(self, root: Canvas, state: Canvas, known: Sequence[Any] = ()) -> Canvas:
        return state

    def length(self, state: Canvas) -> int:
        return state.position

    def worst_case(self, node: Node, max_length: int) -> Usage:
        return Usage(denoiser_calls=max_length, model_calls=1)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        self.asked.append(", ".join(map(self._named, extensions)))
        return [self._child(extension) for extension in extensions]

    def _named(self, extension: Extension) -> str:
        state, change = extension.node.state, extension.transition
        if isinstance(change, Neighbour):
            return f"near {state.number}"
        if isinstance(change, Renoise):
            return f"noise {round(change.left, 2)} on {state.number}"
        if isinstance(change, Redo):
            return f"{state.number} in {change.steps}"
        if extension.until == "step":
            return "noise"
        return f"{state.number if state.number >= 0 else 'new'} to {extension.at_most or 'end'}"

    def _child(self, extension: Extension) -> Child:
        state, change = extension.node.state, extension.transition
        number, position = state.number, state.position
        if number < 0:
            number, self._drawn = self._drawn, self._drawn + 1
        if isinstance(change, Neighbour):
            self._near[number] += 1
            return self._made(Canvas(number + 10 * self._near[number]), "step", 0)
        if isinstance(change, Renoise):
            self._near[number] += 1
            left = STEPS - round(change.left * STEPS)
            return self._made(Canvas(number + 100 * self._near[number], left), "step", 0)
        if isinstance(change, Redo):
            return self._made(Canvas(number + 1000, STEPS), "eos", change.steps)
        if extension.until == "step":
            return self._made(Canvas(number), "step", 0)
        steps = min(STEPS - position, extension.at_most or STEPS)
        done = position + steps == STEPS
        return self._made(Canvas(number, position + steps), "eos" if done else "cut", steps)

    def _made(self, state: Canvas, finish: Any, steps: int) -> Child:
        return Child(state, finish, Usage(denoiser_calls=steps, model_calls=1), steps, length=steps)

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        raise NotImplementedError

    def pack(self, node_state: Canvas, state: Canvas) -> dict[str, Any]:
        return vars(state)

    def unpack(self, node_state: Canvas, packed: Mapping[str, Any]) -> Canvas:
        return Canvas(**packed)


class Reward:
    """Scores a picture by a function of its number, at no cost."""

    name, capabilities = "reward", frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def __init__(self, reward: Callable[[int], float | None]) -> None:
        self._reward = reward

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        return Usage()

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        return [Score(self._reward(node.state.number), Usage()) for node in nodes]


def painted(
    strategy: ZeroOrder | SearchOverPaths, reward: Callable[[int], float | None], nfe: int | None = None
) -> tuple[Search, Painter, Answer]:
    painter, sampling, budget = Painter(), Sampling(max_length=STEPS), Budget(nfe=nfe)
    search = Search(Problem("p", "a number"), painter, scorers=Reward(reward), sampling=sampling, budget=budget)
    return search, painter, asyncio.run(strategy(search))


def number(answer: Answer) -> int:
    assert answer.node is not None
    return int(answer.node.state.number)


def test_zero_order_continues_from_the_best_picture_so_far() -> None:
    best_near_one = {0: 0.0, 1: 0.5, 11: 0.4, 21: 0.9, 31: 0.1, 41: 0.2}
    search, painter, answer = painted(ZeroOrder(n=2, rounds=3, start=2), lambda n: best_near_one.get(n, 0.3))
    assert painter.asked == [
        *("noise, noise", "0 to end, 1 to end"),
        *("near 1, near 1", "11 to end, 21 to end"),
        *("near 21, near 21", "31 to end, 41 to end"),
        *("near 21, near 21", "51 to end, 61 to end"),
    ]
    assert (number(answer), answer.finish) == (21, "done")
    assert search.events == [{"nfe_search": 8 * STEPS, "nfe_final": 0}]


def test_zero_order_restarts_on_request_if_no_neighbour_is_better() -> None:
    _, painter, answer = painted(ZeroOrder(n=1, rounds=2, start=1, on_stall="restart"), lambda n: {0: 0.9}.get(n, 0.1))
    assert painter.asked == ["noise", "0 to end", "near 0", "10 to end", "noise", "1 to end"]
    assert number(answer) == 0, "the best of all rounds is the answer"


def test_zero_order_without_rounds_is_a_random_search_and_paints_the_winner_again() -> None:
    search, painter, answer = painted(ZeroOrder(rounds=0, start=3, final_steps=9), lambda n: {1: 0.9}.get(n, 0.1))
    assert painter.asked == ["noise, noise, noise", "0 to end, 1 to end, 2 to end", "1 in 9"]
    assert (number(answer), search.events) == (1001, [{"nfe_search": 3 * STEPS, "nfe_final": 9}])
    assert answer.node is not None and search.trace[answer.node.key].score == 0.1, "the new picture has its own score"


@pytest.mark.parametrize(("nfe", "found"), [(STEPS + 8, 0), (STEPS + 9, 1000)])
def test_the_winner_is_painted_again_only_if_the_budget_covers_all_its_steps(nfe: int, found: int) -> None:
    _, _, answer = painted(ZeroOrder(rounds=0, final_steps=9), lambda n: 0.5, nfe)
    assert (number(answer), answer.finish) == (found, "budget" if found == 0 else "done")


def test_a_neighbour_is_reserved_one_step() -> None:
    for left, asked in ((0, []), (1, ["near 0"])):
        _, painter, answer = painted(ZeroOrder(n=1, rounds=1), lambda n: 0.5, STEPS + left)
        assert (painter.asked, number(answer)) == (["noise", "0 to end", *asked], 0)


def test_zero_order_by_ranks_needs_a_score_of_several_parts() -> None:
    painter = Painter()
    search = Search(Problem("p", "a number"), painter, scorers=Reward(lambda n: 0.5))
    with pytest.raises(CapabilityError, match="by='ranks': an ensemble needs at least two verifiers"):
        asyncio.run(ZeroOrder(by="ranks")(search))
    assert painter.asked == []


def test_zero_order_ignores_pictures_without_a_score_and_takes_the_first_of_a_tie() -> None:
    _, painter, answer = painted(ZeroOrder(n=1, rounds=1, start=3), lambda n: {0: None}.get(n, 0.5))
    assert painter.asked[2] == "near 1" and number(answer) == 1


def test_zero_order_at_the_end_of_its_budget_answers_with_the_best_so_far() -> None:
    _, painter, answer = painted(ZeroOrder(n=2, rounds=3, start=2), lambda n: n / 100, nfe=3 * STEPS)
    assert painter.asked == ["noise, noise", "0 to end, 1 to end", "near 1, near 1", "11 to end"]
    assert (number(answer), answer.finish) == (11, "budget")


def test_each_round_of_paths_removes_more_noise_than_it_adds() -> None:
    """From level 0.5 a round goes to 0.8 and back to 0.3, the next to 0.6 and 0.1, the last to 0.4 and the end."""
    strategy = SearchOverPaths(n=2, width=2, level=0.5, forward=0.3, backward=0.5)
    search, painter, answer = painted(strategy, lambda n: {100: 0.8, 201: 0.7, 1: 0.75}.get(n, (n % 10) / 10 + n / 1e4))
    assert painter.asked[:3] == ["new to 10", "0 to end", "new to 10"]
    assert painter.asked[3:5] == [
        "noise 0.8 on 0, noise 0.8 on 1, noise 0.8 on 0, noise 0.8 on 1",
        _to(10, 100, 200, 101, 201),
    ]
    assert painter.asked[5:7] == [
        "noise 0.6 on 100, noise 0.6 on 201, noise 0.6 on 100, noise 0.6 on 201",
        _to(10, 200, 300, 301, 401),
    ]
    assert painter.asked[7].startswith("noise 0.4 on 401, noise 0.4 on 301") and painter.asked[8].startswith("501 to 8")
    assert len(painter.asked) == 9, "the last round ends the pictures"
    assert [r.node.state.number for r in search.trace.values() if r.pruned] == [200, 101, 200, 300], "two a round"
    assert answer.finish == "done" and search.ledger.spent.denoiser_calls == 10 + 10 + 10 + 4 * 10 + 4 * 10 + 4 * 8


def _to(at_most: int, *numbers: int) -> str:
    return ", ".join(f"{number} to {at_most}" for number in numbers)


def test_a_search_with_one_path_keeps_one_picture_and_makes_noisy_copies() -> None:
    strategy = SearchOverPaths(n=1, width=3, level=0.2, forward=0.3, backward=0.6)
    _, painter, answer = painted(strategy, lambda n: n / 1000)
    assert painter.asked == [
        "new to 16",
        "0 to end",
        "noise 0.5 on 0, noise 0.5 on 0, noise 0.5 on 0",
        _to(10, 100, 200, 300),
    ]
    assert number(answer) == 300


def test_every_part_of_a_path_has_at_least_one_step() -> None:
    """2 % of 20 steps, and rounds that remove 1 % of the noise, are less than one step."""
    early = SearchOverPaths(n=1, width=1, level=0.98, forward=0.01, backward=1.0)
    _, painter, _ = painted(early, lambda n: 0.5)
    assert painter.asked == ["new to 1", "0 to end", "noise 0.99 on 0", "100 to 20"]
    slow = SearchOverPaths(n=1, width=1, level=0.3, forward=0.01, backward=0.02)
    _, painter, _ = painted(slow, lambda n: 0.5)
    assert painter.asked[:4] == ["new to 14", "0 to end", "noise 0.31 on 0", "100 to 1"]


@pytest.mark.parametrize(("nfe", "found"), [(STEPS, 0), (STEPS - 1, None)])
def test_a_budget_for_one_picture_gives_one_picture(nfe: int, found: int | None) -> None:
    _, _, answer = painted(SearchOverPaths(n=2, width=2, level=0.2), lambda n: 0.5, nfe=nfe)
    assert (answer.node.state.number if answer.node else None) == found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Redo(0), "^steps=0: give 1 or more"),
        (lambda: Neighbour(0), "^cosine=0: give a number strictly between 0 and 1"),
        (lambda: Neighbour(1), "^cosine=1: give a number strictly between 0 and 1"),
        (lambda: Renoise(0), "^left=0: give a share above 0"),
        (lambda: Renoise(1.01), r"^left=1\.01: give a share above 0"),
    ],
)
def test_impossible_transitions_are_refused_and_those_at_the_limits_are_not(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make()
    assert (Redo(1).steps, Neighbour(0.001).cosine, Neighbour(0.999).cosine, Renoise(1).left) == (1, 0.001, 0.999, 1)
