"""Searches over steps: the number of rounds, occupied slots and early cuts, worked out by hand."""

from __future__ import annotations

import pytest
from toy import Piece, ToyGenerator, ToyScorer, done, solve, step, texts, toy_search

from thinktime.strategies import parse
from thinktime.strategies.search.beam_search import BeamSearch
from thinktime.strategies.search.dvts import DVTS
from thinktime.strategies.search.early_rejection import EarlyRejection
from thinktime.strategies.search.rebase import Rebase

Rounds = list[list[tuple[tuple[int, ...], int]]]


def rounds(generator: ToyGenerator) -> Rounds:
    """For every requested batch: the parents and the indices of the children."""
    return [[(extension.node.path, extension.index) for extension in batch] for batch in generator.asked]


@pytest.mark.parametrize(
    "text",
    [
        "beam_search:n=2,width=2,max_rounds=3",
        "rebase:n=2,max_rounds=3",
        "dvts:n=2,width=2,max_rounds=3",
        "early_rejection:n=2,width=2,tau=2,max_rounds=3",
    ],
)
def test_endless_steps_are_judged_for_max_rounds(text: str) -> None:
    generator, scorer = ToyGenerator(lambda extension: step("so")), ToyScorer(lambda node: 0.5)
    answer = solve(parse(text)[1], toy_search(generator, scorer))
    assert [len(batch) for batch in scorer.asked] == [2, 2, 2]
    assert (answer.value, answer.finish) == (None, "incomplete")


def test_in_rebase_a_path_at_the_length_limit_keeps_its_slot() -> None:
    tree = {"0": step("a"), "1": step("b"), "2": Piece("c", "length")}
    tree |= {f"{parent}/{child}": done("is 7") for parent in range(2) for child in range(3)}
    generator = ToyGenerator(tree)
    solve(Rebase(n=3), toy_search(generator, dict.fromkeys(tree, 0.5)))
    assert [len(batch) for batch in generator.asked] == [3, 2]


@pytest.mark.parametrize(("balance", "parents"), [(10.0, [(0,), (1,), (1,), (2,)]), (0.01, [(1,), (1,), (1,), (1,)])])
def test_the_balance_of_rebase_decides_the_share_of_the_best(balance: float, parents: list[tuple[int]]) -> None:
    """b leads by .4: its share is .258, so it gets ceil(4 * .258) = 2 and two others 1; or its share is nearly 1."""
    tree = {str(index): step("a") for index in range(4)}
    tree |= {f"{parent}/{child}": done("is 7") for parent in range(4) for child in range(4)}
    generator = ToyGenerator(tree)
    solve(Rebase(n=4, balance=balance), toy_search(generator, dict.fromkeys(tree, 0.5) | {"1": 0.9}))
    assert sorted(extension.node.path for extension in generator.asked[1]) == parents


def test_a_subtree_of_dvts_is_no_wider_than_n() -> None:
    tree = {"0": step("a"), "1": step("b"), "1/0": done("is 7"), "1/1": done("is 7")}
    generator = ToyGenerator(tree)
    solve(DVTS(n=2, width=4), toy_search(generator, {"0": 0.1, "1": 0.9, "1/0": 0.5, "1/1": 0.5}))
    assert rounds(generator) == [[((), 0), ((), 1)], [((1,), 0), ((1,), 1)]]


def test_a_beam_of_one_step_each_keeps_all_of_them() -> None:
    """width=1: four slots with one child each."""
    tree = {str(index): step("a") for index in range(4)} | {f"{index}/0": done("is 7") for index in range(4)}
    search = toy_search(generator := ToyGenerator(tree), dict.fromkeys(tree, 0.5))
    solve(BeamSearch(n=4, width=1), search)
    assert [len(batch) for batch in generator.asked] == [4, 4]
    assert not any(record.pruned for record in search.trace.values())


def test_a_lookahead_of_two_steps_stops_where_a_roll_out_has_ended() -> None:
    """a's roll-out ends after one step with .2; b's takes two steps and has .8."""
    tree = {"0": step("a"), "1": step("b"), "0/0": done("is 5"), "1/0": step("c"), "1/0/0": step("d")}
    tree |= {"1/1": done("is 7"), "1/2": done("is 7")}
    generator, scorer = ToyGenerator(tree), ToyScorer(dict.fromkeys(tree, 0.5) | {"0/0": 0.2, "1/0/0": 0.8})
    answer = solve(BeamSearch(n=2, width=2, lookahead=2, max_rounds=2), toy_search(generator, scorer))
    assert texts(scorer.asked[0]) == ["a is 5", "b c d"]
    assert rounds(generator)[:4] == [
        [((), 0), ((), 1)],
        [((0,), 0), ((1,), 0)],
        [((1, 0), 0)],
        [((1,), 1), ((1,), 2)],
    ]
    assert answer.value == "7"


def test_in_early_rejection_a_step_that_ends_keeps_its_slot() -> None:
    """Two slots: ``is 5`` keeps one, so one of b's two steps is kept; ``is 9`` gets no slot, but it votes."""
    tree = {
        "0": done("is 5"), "1": step("b"), "2": done("is 9"), "3": step("d"),
        "1/0": step("e"), "1/1": step("f"), "1/0/0": done("is 9"), "1/0/1": done("is 7"),
    }  # fmt: skip
    scores = {
        **{"0": 0.9, "1": 0.8, "2": 0.6, "3": 0.1},
        **{"1/0": 0.3, "1/1": 0.2, "1/0/0": 0.5, "1/0/1": 0.1},
    }
    search = toy_search(generator := ToyGenerator(tree), scores)
    answer = solve(EarlyRejection(n=4, width=2, tau=3), search)
    assert rounds(generator) == [
        [((), 0), ((), 1), ((), 2), ((), 3)],
        [((1,), 0), ((1,), 1)],
        [((1, 0), 0), ((1, 0), 1)],
    ]
    assert texts([record.node for record in search.trace.values() if record.pruned]) == ["d", "b f"]
    assert (answer.value, answer.share) == pytest.approx(("9", 1.1 / 2.1))
    keys = {record.node.path: record.node.key for record in search.trace.values()}
    assert search.events[0] == {
        **{"tau": 3, "partial": [0.9, 0.8, 0.6, 0.1], "cut_short": 0},
        "kept": [keys[0,], keys[1,]],
    }


def test_a_finished_step_whose_reward_is_missing_comes_last() -> None:
    """a and b have .8 and .9 when cut; when whole, a has .1 and b has no score."""
    tree = {"0": step("a a a"), "1": step("b b b"), "2": step("c"), "3": step("d"), "0/0": step("a"), "1/0": step("b")}
    tree |= {f"{parent}/0/{child}": done("is 7") for parent in range(2) for child in range(2)}
    scores = dict.fromkeys(tree, 0.5) | {"0": 0.8, "1": 0.9, "0/0": 0.1, "1/0": None}
    generator = ToyGenerator(tree)
    solve(EarlyRejection(n=4, width=2, tau=2), toy_search(generator, scores))
    assert rounds(generator)[1:] == [
        [((1,), 0), ((0,), 0)],
        [((0, 0), 0), ((1, 0), 0), ((0, 0), 1), ((1, 0), 1)],
    ]


def test_half_of_a_median_of_one_token_is_one_token() -> None:
    tree = {"0": step("a"), "1": step("b"), "0/0": done("is 7"), "1/0": done("is 7"), "0/0/0": done("7")}
    tree["1/0/0"] = done("7")
    search = toy_search(tree, dict.fromkeys(tree, 0.5))
    solve(EarlyRejection(n=2, width=1, tau="auto"), search)
    assert [(event["tau"], event["cut_short"]) for event in search.events] == [(None, 0), (1, 2)]


def test_early_rejection_accepts_a_tau_below_the_length_limit() -> None:
    tree = {"0": done("is 7")}
    assert solve(EarlyRejection(n=1, width=1, tau=7), toy_search(tree, {"0": 0.5}, cap=8)).value == "7"
