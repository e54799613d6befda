"""Two models by hand: when a cascade asks the large one and what it costs, and a strategy with the small one alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from toy import ANSWERS, PROBLEM, Piece, ToyGenerator, done, drawn, solve

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.types import Sampling
from thinktime.core.usage import Budget
from thinktime.strategies import check, parse

AGREEING = {"0": done("so 5"), "1": done("so so 5"), "2": done("so 3"), "3": done("5")}
LARGE = {"0": done("so 7")}


def two(small: Mapping[str, Piece], large: Mapping[str, Piece] = LARGE, **options: Any) -> Search:
    """A search of two scripts."""
    models = {
        "main": ToyGenerator(lambda e: list(large.values())[e.index], name="large"),
        "draft": ToyGenerator(lambda e: list(small.values())[e.index], name="small"),
    }
    return Search(PROBLEM, models, answers=ANSWERS, sampling=Sampling(max_length=9), **options)


def test_agreement_keeps_the_small_models_answer_and_the_large_one_is_not_asked() -> None:
    search = two(AGREEING)
    answer = solve(parse("cascade")[1], search)
    assert (answer.value, answer.share, answer.usage.model_calls) == ("5", 0.75, 4)
    assert {role for _, role in answer.accounts} == {"model draft"}
    assert search.events == [{"agreement": 0.75, "deferred": False}]


def test_disagreement_asks_the_large_model_and_both_are_charged() -> None:
    search = two(AGREEING)
    answer = solve(parse("cascade:threshold=0.8")[1], search)
    assert (answer.value, answer.usage.model_calls) == ("7", 5)
    small, large = (answer.accounts["online", f"model {role}"] for role in ("draft", "main"))
    assert small.generated_tokens == 8 and small + large == answer.usage
    assert search.events == [{"agreement": 0.75, "deferred": True}]


def test_an_unreadable_sample_agrees_with_none() -> None:
    small = {"0": done("so 5"), "1": done("5"), "2": done("so what"), "3": Piece("and 5", "length")}
    search = two(small)
    assert solve(parse("cascade")[1], search).value == "7" and search.events[0]["agreement"] == 0.5


def test_without_a_readable_answer_of_the_large_model_the_small_ones_counts() -> None:
    search = two(AGREEING, {"0": done("so what")})
    assert solve(parse("cascade:threshold=1")[1], search).value == "5"


def test_a_budget_for_the_small_model_alone_gives_its_answer() -> None:
    answer = solve(parse("cascade:threshold=1")[1], two(AGREEING, budget=Budget(calls=4)))
    assert (answer.value, answer.finish) == ("5", "budget")


def test_the_large_models_sample_is_the_one_that_it_draws_alone() -> None:
    cascade, alone = two(AGREEING), two(AGREEING)
    solve(parse("cascade:threshold=1")[1], cascade), solve(parse("single")[1], alone)
    drawn_by_main = [
        {r.node.key for r in s.records() if r.node.model == "main" and r.node.done} for s in (cascade, alone)
    ]
    assert drawn_by_main[0] == drawn_by_main[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("n=1", "^n=1: give 2 or more"),
        ("threshold=0", r"^threshold=0\.0: give a number above 0"),
        ("threshold=1.01", r"^threshold=1\.01: give a share, at most 1"),
        ("threshold=nan", "^threshold=nan"),
    ],
)
def test_bad_options_are_refused(options: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(f"cascade:{options}")


def test_without_a_draft_the_error_says_how_to_add_one() -> None:
    search = Search(PROBLEM, ToyGenerator(drawn), answers=ANSWERS)
    with pytest.raises(CapabilityError, match=r"a model of the role 'draft' \(--model draft=NAME\)"):
        check("cascade", parse("cascade")[1], search)


def test_equal_samples_at_temperature_0_are_refused() -> None:
    search = Search(
        PROBLEM,
        {"main": ToyGenerator(drawn), "draft": ToyGenerator(drawn, name="small")},
        answers=ANSWERS,
        sampling=Sampling(0.0, max_length=9),
    )
    with pytest.raises(InputError, match=r"^temperature=0: 4 samples would be the same"):
        solve(parse("cascade")[1], search)


def test_a_strategy_can_run_with_the_small_model_alone() -> None:
    answer = solve(parse("delegate(majority:n=4)")[1], two(AGREEING))
    assert (answer.value, answer.share, answer.usage.model_calls) == ("5", 0.75, 4)
    assert {role for _, role in answer.accounts} == {"model draft"}


def test_a_strategy_can_run_with_the_main_model_by_name() -> None:
    _, delegate = parse("delegate(delegate(single):model=main):model=main")
    search = two(AGREEING)
    check("delegate", delegate, search)
    assert {role for _, role in solve(delegate, search).accounts} == {"model main"}


def test_the_model_of_a_strategy_must_be_there_and_must_be_able_to_run_it() -> None:
    for text, reason in (
        ("delegate(majority:n=4):model=other", "a model of the role 'other'"),
        ("delegate(best_of_n:n=4)", "its strategy needs a scorer"),
        ("delegate(delegate(single))", "its strategy needs a model of the role 'draft'"),
    ):
        with pytest.raises(CapabilityError, match=reason):
            check("delegate", parse(text)[1], two(AGREEING))
