"""Solutions and their checks: estimates by hand and by enumeration, and fits that recover known laws."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from math import nan
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.selection import Candidate
from thinktime.core.types import Node
from thinktime.planning.verification import Checked, Verdicts, at_random, best_split, budgets, crossover, fit, splits
from thinktime.strategies.verification.solve_or_verify import SELECT, cost


def checked(answers: Sequence[Hashable], verdicts: Sequence[Sequence[float]], right: Hashable = "r") -> Checked:
    """A problem with solutions of 10 tokens and checks of 20; a check reads 5 more tokens per solution."""
    said = np.array(verdicts, dtype=float).reshape(len(answers), -1)
    tokens = np.full(len(answers), 10.0), np.full(said.shape, 20.0), np.full(len(answers), 5.0)
    return Checked("p", tuple(answers), np.array([a == right for a in answers]), said, *tokens, solution_read=30.0)


def bank(answers: Sequence[Hashable], verdicts: Sequence[Sequence[float]]) -> Verdicts:
    return Verdicts((checked(answers, verdicts),))


def test_costs_are_in_units_of_one_solution() -> None:
    assert (cost(4, 3, 1), cost(4, 1, 2)) == (16, 12)


def test_best_of_two_of_four_if_the_first_and_the_last_by_score_are_right() -> None:
    four = bank(["r", "w", "x", "r"], [[0.9], [0.8], [0.7], [0.6]])
    assert four.success((2, 1), "best_of_n") == pytest.approx([0.5])


def test_ties_of_best_of_n_are_split_evenly() -> None:
    assert bank(["r", "w"], [[1], [1]]).success((2, 1), "best_of_n") == pytest.approx([0.5])


def test_an_unreadable_answer_never_wins_with_any_verdicts() -> None:
    some = bank([None, "r", None], [[1], [0], [1]])
    assert some.success((3, 1), "best_of_n") == pytest.approx([1])
    assert some.success((1, 1), "best_of_n") == pytest.approx([1 / 3])
    assert some.success((3, 1)) == some.success((3, 0)) == [1]
    assert bank([None, None], [[1], [1]]).success((2, 1)) == [0]


def test_a_score_is_the_mean_of_the_first_existing_verdicts() -> None:
    problem = checked(["r", "w", "x", None], [[1, nan, 0], [nan, nan, 1], [0, 1, 1], [1, 1, 1]])
    assert problem.scores(2).tolist() == [1, 0, 0.5, 0]
    assert problem.scores(3).tolist() == pytest.approx([0.5, 1, 2 / 3, 0])
    assert np.isnan(problem.verdicts[0, 1]) and problem.verdicts[3].tolist() == [1, 1, 1]


def test_a_certain_no_is_a_verdict_and_not_a_missing_one() -> None:
    assert checked(["r"], [[0, 1]]).scores(2).tolist() == [0.5]
    assert bank(["r", "w"], [[0], [0]]).missing == 0


def test_weights_can_change_the_winner_of_a_vote() -> None:
    three = bank(["w", "w", "r"], [[0.2], [0.2], [0.9]])
    assert three.success((3, 0)) == [0]
    assert three.success((3, 1)) == [1]


def test_equal_votes_go_to_the_answer_drawn_first() -> None:
    many = Verdicts(tuple(checked(["r", "w"], [[1], [1]]) for _ in range(400)))
    assert many.success((2, 0)).mean() == pytest.approx(0.5, abs=0.1)


def test_missing_checks_count_among_the_requested_ones() -> None:
    problem = checked(["r", "w"], [[1, nan], [nan, nan]])
    asked = replace(problem, check_tokens=np.array([[20.0, 10.0], [0.0, 0.0]]))
    assert Verdicts((asked,)).missing == 0.5
    assert Verdicts((asked,)).ratio == 1.5


def test_tokens_count_solutions_checks_and_every_prompt_once() -> None:
    two = bank(["r", "w"], [[1, 1], [0, 0]])
    assert two.tokens((2, 2), read=False) == [2 * 10 + 4 * 20]
    assert two.tokens((2, 2)) == [2 * 10 + 4 * 20 + 30 + 2 * 5]
    assert two.tokens((2, 0)) == [2 * 10 + 30]


def test_a_bank_of_missing_verdicts_shows_how_checks_end() -> None:
    with pytest.raises(InputError, match=r"verdicts='all missing'.*they end: 'so it is'; 'b'; 'c'$"):
        Verdicts((checked(["r"], [[nan]]),), ("so it is", "b", "c", "d"))


def test_numbers_beyond_the_bank_are_refused_with_its_limits() -> None:
    two = bank(["r", "w"], [[1], [0]])
    for split in ((3, 0), (2, 2), (0, 1)):
        with pytest.raises(InputError, match="the bank holds 1 to 2 solutions with 0 to 1 checks"):
            two.success(split)
    with pytest.raises(InputError, match="the bank holds 1 to 2 solutions"):
        two.coverage(3)
    with pytest.raises(UnknownNameError, match="best_of_n, weighted"):
        two.success((1, 1), "median")
    with pytest.raises(InputError, match="at least one problem"):
        Verdicts(())
    with pytest.raises(InputError, match="the same number of solutions and checks"):
        Verdicts((checked(["r"], [[1]]), checked(["r"], [[1, 1]])))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 5))
def test_best_of_n_is_the_mean_over_all_subsets_and_orders(seed: int, n: int) -> None:
    rng = Random(seed)
    problem = checked(
        [rng.choice(["r", "w", None]) for _ in range(5)], [[rng.choice([0.0, 1.0, nan])] for _ in range(5)]
    )
    scores, won = problem.scores(1), []
    for subset in combinations(range(5), n):
        for order in permutations(subset):
            readable = [i for i in order if problem.answers[i] is not None]
            won.append(bool(readable) and bool(problem.correct[max(readable, key=lambda i: float(scores[i]))]))
    whole = Verdicts((problem, checked(["r"] * 5, [[1]] * 5)))
    assert whole.success((n, 1), "best_of_n")[0] == pytest.approx(np.mean(won))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_with_all_solutions_the_answer_equals_that_of_the_strategy(seed: int) -> None:
    rng = Random(seed)
    problem = checked([rng.choice(["r", "w", "x", None]) for _ in range(6)], [[rng.random()] for _ in range(6)])
    candidates = [
        Candidate(Node(str(index), (index,), None), None if key is None else str(key), key, float(score))
        for index, (key, score) in enumerate(zip(problem.answers, problem.scores(1), strict=True))
    ]
    for name, select in SELECT.items():
        winner = select(candidates)
        right = winner is not None and winner.key == "r"
        assert Verdicts((problem,)).success((6, 1), name) == pytest.approx([float(right)])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 6))
def test_no_selection_beats_coverage_and_a_perfect_verifier_reaches_it(seed: int, n: int) -> None:
    rng = Random(seed)
    answers = [rng.choice(["r", "w", "x", None]) for _ in range(6)]
    sure = bank(answers, [[float(a == "r")] for a in answers])
    for select in ("best_of_n", "weighted"):
        assert sure.success((6, 1), select) == pytest.approx(sure.coverage(6))
    assert sure.success((n, 1), "best_of_n") == pytest.approx(sure.coverage(n))
    guess = bank(answers, [[1.0], *([rng.choice([0.0, 1.0, nan])] for _ in answers[1:])])
    assert guess.success((n, 1), "best_of_n")[0] <= guess.coverage(n)[0] + 1e-9
    assert guess.success((6, 0))[0] <= guess.coverage(6)[0]


def test_shuffled_verdicts_stay_within_a_problem_and_cost_the_same() -> None:
    asked = checked(["r", "w", "x", None], [[1, 1], [0, nan], [0.5, 0], [nan, nan]])
    problem = replace(asked, check_tokens=np.array([[20.0, 30.0], [20.0, 20.0], [5.0, 5.0], [0.0, 0.0]]))
    found = {tuple(at_random(Verdicts((problem,)), seed).problems[0].scores(2)) for seed in range(40)}
    assert len(found) == 6 and all(sorted(scores) == [0, 0, 0.25, 1] and scores[3] == 0 for scores in found)
    moved = at_random(Verdicts((problem,)))
    assert moved.tokens((2, 1)) == Verdicts((problem,)).tokens((2, 1))
    assert problem.verdicts[0].tolist() == [1, 1]


def test_every_split_of_a_budget_has_as_many_whole_solutions_as_it_covers() -> None:
    large = Verdicts((checked(["r"] * 8, [[1.0] * 4] * 8),))
    assert splits(large, 8, 1) == [(4, 1), (2, 2), (2, 3), (1, 4)]
    assert splits(large, 16, 1) == [(8, 1), (5, 2), (4, 3), (3, 4)]
    assert splits(large, 32, 1) == [(8, 3), (6, 4)]  # 16 or 10 solutions are not in the bank
    assert budgets(large, 1) == [4, 6, 8, 11, 16]
    assert best_split(large, [(4, 1), (2, 2)]) == (4, 1)
    with pytest.raises(InputError, match=r"lambda=0: it must be positive \(verification tokens / solution tokens\)"):
        splits(large, 8, 0)
    with pytest.raises(InputError, match="lambda=-1"):
        budgets(large, -1)
    with pytest.raises(InputError, match=r"budget=0\.5: it buys less than one solution"):
        splits(large, 0.5, 1)


def test_the_fit_recovers_a_known_law() -> None:
    """The best split of a budget C has 0.5 * C**0.75 solutions and C**0.25 checks for every problem."""
    spent = [16, 81, 256, 625]
    options = [[(round(0.5 * c**0.75), round(c**0.25)), (c // 2, 1), (1, c // 2)] for c in spent]
    right = [np.tile([[0.9], [0.5], [0.4]], 20) for _ in spent]
    law = fit(spent, options, right)
    assert (law.a.value, law.b.value) == pytest.approx((0.75, 0.25), abs=0.02)
    assert (law.alpha_s.value, law.alpha_v.value) == pytest.approx((0.5, 1), abs=0.05)
    assert (law.a.low, law.a.high) == pytest.approx((law.a.value, law.a.value))
    # 32 and 4 do not use the whole budget: the rest goes into solutions
    assert law.strategy(256, 1.0).split() == (51, 4)
    assert law.strategy(256, 1.0, crossover=300).split() == (256, 0)


def test_a_law_can_have_a_negative_exponent_for_checks() -> None:
    options = [[(1, 4), (2, 1)], [(4, 2), (2, 5)], [(16, 1), (1, 31)]]
    law = fit([4, 16, 64], options, [np.array([[1.0] * 5, [0.0] * 5])] * 3)
    assert law.b.value == pytest.approx(-0.5)
    assert law.strategy(64, 1.0).split() == (32, 1)


def test_a_law_of_noise_has_wide_intervals() -> None:
    rng = np.random.default_rng(0)
    spent, options = [8, 16, 32], [[(4, 1), (1, 7)], [(8, 1), (2, 7)], [(16, 1), (4, 7)]]
    law = fit(spent, options, [rng.integers(0, 2, (2, 30)).astype(float) for _ in spent])
    assert law.b.high - law.b.low > 0.5


def test_a_law_needs_three_budgets_with_a_choice() -> None:
    with pytest.raises(InputError, match="a law needs 3 or more"):
        fit([4, 8], [[(2, 1), (1, 3)], [(4, 1)]], [np.ones((2, 3)), np.ones((1, 3))])


def test_checks_cross_votes_at_the_first_budget_where_their_interval_is_not_below_0() -> None:
    voted = [np.full(10, 0.5)] * 3
    better, worse = np.full(10, 0.6), np.full(10, 0.4)
    assert crossover([4, 8, 16], [worse, better, better], voted) == 8
    assert crossover([4, 8, 16], [worse] * 3, voted) is None
