"""Tournaments of answers: pairings and win rates worked out by hand, and judges with faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, inf, nan
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import MemoryJournal, done, extend, solve, toy_search, unhurried

from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.types import Node, Problem, Score
from thinktime.core.usage import Budget
from thinktime.generators.recorded import BankedGenerator
from thinktime.scorers.recorded import BankedScorer
from thinktime.strategies import check
from thinktime.strategies.verification.pairwise_tournament import (
    PairwiseTournament,
    Standings,
    against_pivots,
    by_margin,
    by_probability,
    coverage,
    neighbours,
    ring,
)
from thinktime.testing import WordJudge

TREE = {"0": done("so 5"), "1": done("so 7"), "2": done("be 5"), "3": done("is 9"), "4": done("what"), "5": done("a 7")}
"""5 and 7 twice, 9 once, and an unreadable sample."""
GRADES = {"5": 0.3, "7": 0.9, "9": 0.6, "?": 0.1}


class Judge(WordJudge):
    """Grades each answer, adds ``bias`` to the one that is shown first, and notes the pairs that it is shown."""

    def __init__(self, fails: Callable[[list[str]], bool] = lambda shown: False, bias: float = 0.0) -> None:
        super().__init__(lambda node: GRADES[node.state.text[-1]])
        self.pairs: list[str] = []
        self._fails, self._bias = fails, bias

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        shown = [node.state.text[-1] for node in nodes]
        self.pairs.append("".join(shown))
        score = await super().compare(problem, nodes)
        if self._fails(shown):
            return replace(score, value=None, steps=(), reason="the judge mumbles")
        return replace(score, steps=(score.steps[0] + self._bias, *score.steps[1:]))


def played(strategy: PairwiseTournament, judge: Judge, **options: Any) -> Search:
    search = toy_search(TREE, judge, **options)
    solve(strategy, search)
    return search


def rated(standings: Standings) -> list[float]:
    return [standings.rate(player) for player in range(standings.players)]


# The Swiss schedule


def test_the_weight_of_a_win_is_the_gap_between_the_grades() -> None:
    """Grades 9 and 3 of 10 differ by 6 of 9; a tie and the smallest gap weigh 0.1 and 1 / 9."""
    assert by_margin(0.9, 0.3) == pytest.approx((6 / 9, 1.0))
    assert by_margin(0.3, 0.9) == pytest.approx((6 / 9, 0.0))
    assert by_margin(0.5, 0.5) == (0.1, 0.5)
    assert by_margin(0.5, 0.6) == pytest.approx((1 / 9, 0.0))
    standings = Standings(3, by_margin)
    standings.add(0, 1, 0.9, 0.3)
    standings.add(0, 2, 0.5, 0.5)
    assert rated(standings) == pytest.approx([(6 / 9 + 0.05) / (6 / 9 + 0.1), 0.0, 0.5])


def test_every_answer_first_meets_two_others_near_it() -> None:
    """Of four answers, 0 beats 1 and 3 beats 2. Then the winners meet, and the losers do."""
    standings = Standings(4, by_margin)
    assert coverage(standings) == [(0, 1), (2, 3)]
    standings.add(0, 1, 0.9, 0.3)
    standings.add(2, 3, 0.3, 0.9)
    assert coverage(standings) == [(0, 3), (1, 2)]
    standings.add(0, 3, 0.9, 0.6)
    standings.add(1, 2, 0.3, 0.3)
    assert coverage(standings) == []
    assert rated(standings) == pytest.approx([1.0, 0.05 / (6 / 9 + 0.1), 0.05 / (6 / 9 + 0.1), (6 / 9) / 1])


def test_an_answer_without_a_result_meets_another_opponent() -> None:
    standings = Standings(3, by_margin)
    standings.add(0, 1, None, None)
    assert rated(standings) == [0.5, 0.5, 0.5]
    assert coverage(standings) == [(0, 2)]


def test_neighbours_in_the_ranking_meet_once() -> None:
    """Win rates 1, 0.75, 0.5 and 0: the first two have met already, so the first meets the third."""
    standings = Standings(4, lambda a, b: (a, b))
    standings.add(0, 1, 1.0, 1.0)
    standings.add(1, 3, 1.0, 1.0)
    standings.add(1, 2, 1.0, 1.0)
    standings.add(1, 2, 1.0, 0.5)
    assert rated(standings) == pytest.approx([1.0, 2.5 / 4, 0.25, 0.0])
    assert neighbours(standings) == [(0, 2)], "1 has met all others"
    standings.add(0, 2, 1.0, 1.0)
    assert neighbours(standings) == [(0, 3)]


def test_neighbours_are_at_most_eight_places_apart() -> None:
    standings = Standings(10, by_margin)
    for other in range(1, 9):
        standings.met.add(frozenset((0, other)))
    assert neighbours(standings)[0] == (1, 2), "the tenth is nine places below the first"
    standings.met.discard(frozenset((0, 8)))
    assert neighbours(standings)[0] == (0, 8)


@unhurried
@given(st.integers(2, 12), st.integers(0, 10_000))
def test_a_round_has_disjoint_new_pairs(players: int, seed: int) -> None:
    rng, standings = Random(seed), Standings(players, by_margin)
    for _ in range(20):
        pairs = coverage(standings) or neighbours(standings)
        assert len({player for pair in pairs for player in pair}) == 2 * len(pairs)
        assert not any(frozenset(pair) in standings.met for pair in pairs)
        for a, b in pairs:
            standings.add(a, b, rng.random(), rng.choice([None, rng.random()]))
    assert all(len(pair) == 2 for pair in standings.met)


# The pivot schedule


def test_the_probability_of_a_win_follows_the_bradley_terry_model() -> None:
    assert by_probability(0.9, 0.3) == pytest.approx((1.0, 1 / (1 + exp(-0.6))))
    assert by_probability(0.4, 0.4) == (1.0, 0.5)


def test_a_ring_shows_every_answer_first_once_and_second_once() -> None:
    assert ring(4) == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert ring(3) == [(0, 1), (1, 2), (2, 0)]
    assert (ring(2), ring(1), ring(0)) == ([(0, 1)], [], [])


def test_all_answers_meet_the_leaders_of_the_ring() -> None:
    """0 and 2 win both comparisons of the ring of five; 3 and 4 tie. What has met in the ring does not meet again."""
    standings = Standings(5, by_probability)
    for a, b in ring(5):
        standings.add(a, b, *((0.9, 0.1) if a in (0, 2) else (0.1, 0.9) if b in (0, 2) else (0.5, 0.5)))
    won = 1 / (1 + exp(-0.8))
    assert rated(standings) == pytest.approx([won, 1 - won, won, (1.5 - won) / 2, (1.5 - won) / 2])
    assert against_pivots(standings, 2) == [(3, 0), (4, 2), (0, 2)]
    assert against_pivots(standings, 1) == [(2, 0), (3, 0)]
    assert against_pivots(standings, 9) == [(0, 2), (0, 3), (1, 3), (1, 4), (2, 4)]


# The strategy


@pytest.mark.parametrize("schedule", ["swiss", "pivot"])
def test_the_answer_that_wins_its_comparisons_answers(schedule: str) -> None:
    """Three distinct answers meet, each pair once and in both orders."""
    search = toy_search(TREE, judge := Judge())
    answer = solve(PairwiseTournament(n=6, schedule=schedule), search)
    assert (answer.value, answer.finish) == ("7", "done")
    assert answer.node is not None and answer.node.path == (1,), "the first sample of the answer"
    assert sorted(judge.pairs) == ["57", "59", "75", "79", "95", "97"]
    (event,) = search.events
    by_answer = dict(zip(event["answers"], event["rates"], strict=True))
    if schedule == "swiss":
        assert by_answer == pytest.approx({"7": 1.0, "9": 0.5, "5": 0.0})
    else:
        one, two = 1 / (1 + exp(-0.3)), 1 / (1 + exp(-0.6))
        assert by_answer == pytest.approx({"7": (one + two) / 2, "9": 0.5, "5": 1 - (one + two) / 2})
    assert event["met"] == 3 and answer.usage.scorer_calls == 6


def test_equal_answers_never_meet() -> None:
    search = toy_search({"0": done("a 5"), "1": done("b 5"), "2": done("what")}, judge := Judge())
    assert solve(PairwiseTournament(n=3), search).value == "5"
    assert judge.pairs == []


def test_without_readable_answers_there_is_none() -> None:
    answer = solve(PairwiseTournament(n=2), toy_search({"0": done("what"), "1": done("so")}, Judge()))
    assert (answer.value, answer.finish) == (None, "incomplete")


@pytest.mark.parametrize("schedule", ["swiss", "pivot"])
def test_both_orders_cancel_a_preference_for_the_first_place(schedule: str) -> None:
    """The bias is larger than any gap. In both orders the means keep the order of the grades."""
    for seed in range(20):
        search = played(PairwiseTournament(n=6, schedule=schedule), Judge(bias=0.7), seed=seed)
        best = max(zip(search.events[0]["rates"], search.events[0]["answers"], strict=True))
        assert best[1] == "7"
    in_one = PairwiseTournament(n=6, schedule=schedule, orders="one")
    answers = {solve(in_one, toy_search(TREE, Judge(bias=0.7), seed=seed)).value for seed in range(20)}
    assert (answers == {"7"}) == (schedule == "pivot"), "around a ring every answer is shown first once"


def test_the_number_of_pairs_is_bounded() -> None:
    """Eight distinct answers have 28 pairs; one for each answer are 8."""
    tree = {str(i): done(f"so {i}") for i in range(8)}
    for pairs, most in ((1, 8), (2, 16), (3, 24), (9, 28)):
        scorer = WordJudge(lambda node: int(node.state.text[-1]) / 10)
        search = toy_search(tree, scorer)
        answer = solve(PairwiseTournament(n=8, pairs=pairs, orders="one"), search)
        assert answer.usage.scorer_calls == search.events[0]["met"] == most
        assert answer.value == "7" or most < 28, "7 beats all others"


def test_pivots_bound_the_number_of_pairs() -> None:
    """A ring of 8, then at most 2 x 6 pairs with two pivots, and one pair of pivots."""
    tree = {str(i): done(f"so {i}") for i in range(8)}
    search = toy_search(tree, WordJudge(lambda node: int(node.state.text[-1]) / 10))
    answer = solve(PairwiseTournament(n=8, schedule="pivot", orders="one"), search)
    assert answer.value == "7"
    assert 8 + 2 * 6 + 1 - 4 <= search.events[0]["met"] <= 8 + 2 * 6 + 1 - 3, "each pivot has met two in the ring"


def test_a_pair_without_a_readable_judgement_counts_for_neither_side() -> None:
    """5 against 7 fails in one order, so both have only their comparison with 9."""
    search = played(PairwiseTournament(n=6), judge := Judge(lambda shown: shown == ["5", "7"]))
    event = search.events[0]
    assert dict(zip(event["answers"], event["rates"], strict=True)) == pytest.approx({"7": 1.0, "9": 0.5, "5": 0.0})
    assert len(judge.pairs) == 6 and event["met"] == 3


@pytest.mark.parametrize("grade", [nan, inf, -inf])
def test_a_grade_that_is_no_finite_number_counts_for_neither_side(grade: float) -> None:
    search = toy_search(TREE, WordJudge(lambda node: grade if node.state.text[-1] == "7" else 0.5))
    assert solve(PairwiseTournament(n=6), search).value in ("5", "7")
    assert set(search.events[0]["rates"]) == {0.5}


def test_if_no_judgement_is_readable_the_reason_is_raised() -> None:
    with pytest.raises(ModelError, match="the judge mumbles"):
        played(PairwiseTournament(n=6), Judge(lambda shown: True))


def test_a_tie_goes_to_the_more_frequent_answer() -> None:
    tree = {"0": done("so 5"), "1": done("so 7"), "2": done("so 9"), "3": done("be 9")}
    for seed in range(10):
        assert solve(PairwiseTournament(n=4), toy_search(tree, WordJudge(lambda node: 0.5), seed=seed)).value == "9"


@pytest.mark.parametrize(("flops", "comparisons"), [(35, 0), (51, 2), (63, 2), (64, 3)])
def test_if_the_budget_ends_the_best_so_far_answers(flops: float, comparisons: int) -> None:
    """The samples take 22 FLOPs and a comparison 14. A pair that was judged in one order only does not count."""
    search = toy_search(TREE, judge := Judge(), budget=Budget(flops=flops))
    answer = solve(PairwiseTournament(n=6), search)
    assert (len(judge.pairs), answer.finish) == (comparisons, "budget")
    assert sorted(search.events[0]["rates"]) == ([0.0, 0.5, 1.0] if comparisons else [0.5] * 3)
    if comparisons:
        assert answer.value == max(judge.pairs[0], key=lambda each: GRADES[each])
    else:
        assert answer.value in ("5", "7"), "the most frequent answers"


def test_the_same_seed_gives_the_same_tournament_and_a_bank_repeats_it_for_nothing() -> None:
    journal = MemoryJournal()
    first = played(PairwiseTournament(n=6), before := Judge(), journal=journal)
    again = played(PairwiseTournament(n=6), after := Judge(), journal=journal)
    assert first.events == again.events
    assert len(before.pairs) == 6 and after.pairs == []


def test_a_replay_has_the_comparisons_of_the_bank_and_asks_for_no_others() -> None:
    journal = MemoryJournal()
    live = played(PairwiseTournament(n=6, orders="one"), Judge(), journal=journal)
    judge = BankedScorer("word-scorer", WordJudge.capabilities)
    replay = toy_search(BankedGenerator("toy"), judge, journal=journal)
    solve(PairwiseTournament(n=6, orders="one"), replay)
    assert replay.events == live.events
    more = toy_search(BankedGenerator("toy"), judge, journal=journal)
    with pytest.raises(ModelError, match="the bank lacks a comparison of word-scorer; run without --replay"):
        solve(PairwiseTournament(n=6), more)


def test_a_judge_of_single_answers_is_refused() -> None:
    class Alone(WordJudge):
        candidates = 1

    search = toy_search(TREE, Alone(lambda node: 0.5))
    with pytest.raises(InputError, match=r"^candidates=1: a tournament compares pairs"):
        check("pairwise_tournament", PairwiseTournament(), search)
    with pytest.raises(CapabilityError, match="a judge that compares several candidates"):
        check("pairwise_tournament", PairwiseTournament(), toy_search(TREE, None))


# Several comparisons at once


def test_several_groups_are_compared_at_once_as_far_as_the_budget_reaches() -> None:
    """A comparison of two samples reads 2 x (6 + 2) words of a FLOP each."""
    search = toy_search(TREE, Judge(), budget=Budget(flops=2.0 * 3 * 8))
    a, b, c = extend(search, [search.root], 3)
    spent = 3 * 2 * 2.0
    room = int((2.0 * 3 * 8 - spent) // (2 * (len(search.root.state.prompt) + 2)))
    assert 0 < room < 4

    async def compared() -> list[list[float | None]]:
        return await search.compare_all([[a, b], [b, c], [c, a], [b, a]])

    found = asyncio.run(compared())
    assert found[:room] == [[0.3, 0.9], [0.9, 0.3], [0.3, 0.3], [0.9, 0.3]][:room]
    assert found[room:] == [[None, None]] * (4 - room)
    assert search.exhausted
