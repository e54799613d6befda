"""Selectors on small hand-made candidates: best-of-n, majority, weighted majority."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import unhurried

from thinktime.core.selection import Candidate, best, majority, weighted_majority
from thinktime.core.types import Node

Selector = Callable[[Sequence[Candidate]], Candidate | None]


def candidates(*pairs: tuple[str | None, float | None]) -> list[Candidate]:
    """A candidate for each answer and score; the key of its node is its index."""
    return [
        Candidate(Node(str(index), (index,), None), answer, answer, score)
        for index, (answer, score) in enumerate(pairs)
    ]


def index_of(chosen: Candidate | None) -> int | None:
    """The index of the chosen candidate."""
    return int(chosen.node.key) if chosen else None


def votes(*answers: str | None) -> list[Candidate]:
    return candidates(*((answer, None) for answer in answers))


# Best


def test_best_is_the_highest_score() -> None:
    assert index_of(best(candidates(("a", 0.2), ("b", 0.9), ("c", 0.5)))) == 1


def test_best_of_equal_scores_is_the_earliest() -> None:
    assert index_of(best(candidates(("a", 0.2), ("b", 0.9), ("c", 0.9)))) == 1


def test_a_missing_score_is_not_zero_for_best() -> None:
    assert index_of(best(candidates(("a", None), ("b", -3.0), ("c", None)))) == 1


def test_a_score_of_zero_is_below_any_above_zero() -> None:
    assert index_of(best(candidates(("a", 0.0), ("b", 0.5)))) == 1
    assert index_of(weighted_majority(candidates(("a", 0.0), ("b", 0.5)))) == 1


def test_without_any_score_best_is_the_earliest_readable() -> None:
    assert index_of(best(candidates((None, None), ("b", None), ("c", None)))) == 1


def test_an_unreadable_answer_is_never_best() -> None:
    assert index_of(best(candidates((None, 0.99), ("b", 0.01)))) == 1
    assert index_of(best(candidates((None, 0.99), ("b", None)))) == 1


# Majority


def test_majority_is_the_most_frequent_answer_and_its_share() -> None:
    chosen = majority(votes("a", "b", "b", "c"))
    assert chosen is not None
    assert (chosen.answer, chosen.share) == ("b", 0.5)


def test_a_plurality_is_enough() -> None:
    assert index_of(majority(votes("a", "b", "c", "d", "c"))) == 2


def test_a_tie_goes_to_the_answer_seen_first() -> None:
    assert index_of(majority(votes("b", "a", "a", "b"))) == 0


def test_two_unreadable_answers_are_not_equal_and_do_not_count() -> None:
    chosen = majority(votes(None, None, None, "a", "b", "b"))
    assert chosen is not None
    assert chosen.answer == "b"
    assert chosen.share == pytest.approx(2 / 3)


def test_equivalent_answers_are_one_answer_with_its_best_scored_sample() -> None:
    """1/2 and 0.5 share a key and outvote 3."""
    node = [Node(str(i), (i,), None) for i in range(3)]
    found = [Candidate(node[0], "3", 3, 0.9), Candidate(node[1], "1/2", 0.5, 0.2), Candidate(node[2], "0.5", 0.5, 0.4)]
    chosen = majority(found)
    assert chosen is not None and (chosen.answer, chosen.node) == ("0.5", node[2])


# Weighted majority


def test_weighted_majority_adds_up_the_scores_of_an_answer() -> None:
    """0.9 for a; 0.5 + 0.5 for b."""
    chosen = weighted_majority(candidates(("a", 0.9), ("b", 0.5), ("b", 0.5)))
    assert chosen is not None
    assert chosen.answer == "b"
    assert chosen.share == pytest.approx(1.0 / 1.9)


def test_in_a_weighted_majority_one_high_score_can_outvote_two_low_ones() -> None:
    assert index_of(weighted_majority(candidates(("b", 0.25), ("b", 0.25), ("a", 0.75)))) == 2


def test_a_weighted_tie_goes_to_the_answer_seen_first() -> None:
    """Both have 0.5; b was seen first."""
    assert index_of(weighted_majority(candidates(("b", 0.5), ("a", 0.25), ("a", 0.25)))) == 0


def test_a_missing_score_has_no_vote_if_others_have_scores() -> None:
    assert index_of(weighted_majority(candidates(("a", None), ("a", None), ("b", 0.1)))) == 2


def test_without_any_score_weighted_majority_is_majority() -> None:
    assert index_of(weighted_majority(votes("a", "b", "b"))) == 1


def test_if_only_unreadable_answers_have_scores_the_readable_ones_vote() -> None:
    assert index_of(weighted_majority(candidates((None, 0.9), ("a", None), ("b", None), ("b", None)))) == 2


def test_scores_of_zero_still_give_an_answer() -> None:
    chosen = weighted_majority(candidates(("a", 0.0), ("b", 0.0)))
    assert chosen is not None
    assert (chosen.answer, chosen.share) == ("a", None)


# All selectors


@pytest.mark.parametrize("select", [best, majority, weighted_majority])
def test_without_a_readable_answer_nothing_is_chosen(select: Selector) -> None:
    assert select([]) is None
    assert select(candidates((None, 0.9), (None, None))) is None


ANY = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.none() | st.integers(0, 8).map(lambda i: i / 8)), max_size=8
)


@unhurried
@given(st.sampled_from([best, majority, weighted_majority]), ANY)
def test_if_an_answer_is_readable_one_of_the_candidates_is_chosen(
    select: Selector, pairs: list[tuple[str | None, float | None]]
) -> None:
    chosen = select(candidates(*pairs))
    readable = [answer for answer, _ in pairs if answer is not None]
    assert (chosen is not None) == bool(readable)
    if chosen is not None:
        assert chosen.answer in readable
        assert pairs[int(chosen.node.key)] == (chosen.answer, chosen.score)


@unhurried
@given(ANY)
def test_no_answer_has_more_votes_than_the_winner(pairs: list[tuple[str | None, float | None]]) -> None:
    answers = [answer for answer, _ in pairs if answer is not None]
    winner = majority(candidates(*pairs))
    if winner is not None:
        counts = {answer: answers.count(answer) for answer in answers}
        assert winner.answer is not None and counts[winner.answer] == max(counts.values())
        assert winner.share == pytest.approx(counts[winner.answer] / len(answers))


@unhurried
@given(ANY)
def test_no_answer_has_more_weight_than_the_weighted_winner(pairs: list[tuple[str | None, float | None]]) -> None:
    weights: dict[str, float] = {}
    for answer, score in pairs:
        if answer is not None and score is not None:
            weights[answer] = weights.get(answer, 0.0) + score
    winner = weighted_majority(candidates(*pairs))
    if winner is not None and weights:
        assert winner.answer is not None
        assert weights[winner.answer] == max(weights.values())
