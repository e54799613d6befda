"""Agreement with a vote of other samples: by hand, what it costs, and what is chosen by it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from thinktime.core.search import Search
from thinktime.core.types import Sampling
from thinktime.core.usage import Budget
from thinktime.planning.agreement import SAMPLES, SIZES, Agreement, begun, finished, measured, with_request
from thinktime.planning.calibration import Calibration
from thinktime.testing import ANSWERS, PROBLEM, Piece, WordGenerator, WordScorer

NAMES = ["single", *(f"majority:n={n}" for n in SIZES[1:])]


def found(answers: str, scorer: WordScorer | None = None) -> tuple[Search, dict[str, Agreement] | None]:
    """What is measured on samples with these answers, one sign each; ``-`` is no answer."""
    words = {place: "none" if sign == "-" else f"so {sign}" for place, sign in enumerate(answers)}
    generator = WordGenerator(lambda extension: Piece(words[extension.index], "eos"))
    search = Search(
        PROBLEM, generator, scorers=scorer, answers=ANSWERS, sampling=Sampling(1.0, max_length=20), budget=Budget()
    )

    async def run() -> dict[str, Agreement] | None:
        return await measured(search, await search.extend([search.root], SAMPLES))

    return search, asyncio.run(run())


@pytest.mark.parametrize(
    ("own", "other", "agrees"),
    [
        ("77777777", "77777777", [1, 1, 1, 1, 1]),
        ("87777777", "77777777", [0, 0, 1, 1, 1]),
        ("88877777", "77777777", [0, 0, 0, 0, 1]),
        ("77777777", "88888777", [0, 0, 0, 0, 0]),  # surely agreeing with itself is not enough
        ("--77----", "777-----", [0, 0, 1, 1, 1]),  # a vote without an answer agrees with nothing
    ],
)
def test_each_vote_is_compared_with_a_vote_of_other_samples(own: str, other: str, agrees: list[int]) -> None:
    _, rows = found(own + other)
    assert rows is not None and list(rows) == NAMES
    assert [row.agrees for row in rows.values()] == agrees


def test_a_request_whose_other_samples_have_no_answer_measures_nothing() -> None:
    assert found("77777777--------")[1] is None


def test_costs_signals_and_counts_are_those_of_the_own_samples() -> None:
    search, rows = found("7-877777" + "77777777")
    assert rows is not None
    sixteen = search.ledger.spent.generated_tokens
    assert sum(record.node.length for record in search.records()) == sixteen > rows["majority:n=8"].tokens
    assert [row.usage["model_calls"] for row in rows.values()] == list(SIZES)
    assert rows["majority:n=3"].signals["agreement"] == pytest.approx(1 / 3)
    assert rows["majority:n=2"].samples["unreadable"] == 1 and rows["majority:n=2"].samples["total"] == 2


def test_with_a_scorer_votes_are_weighted_and_pay_their_share_of_it() -> None:
    search, rows = found("7" * SAMPLES, WordScorer())
    assert rows is not None and "weighted_majority:n=8" in rows and "majority:n=8" not in rows
    spent = search.ledger.spent
    assert spent.scorer_calls == SAMPLES and rows["single"].usage["scorer_calls"] == 0
    assert rows["weighted_majority:n=8"].usage["scorer_calls"] == spent.scorer_calls / 2


def collected(*answers: str) -> Calibration:
    """A calibration of so many requests."""
    made = begun("words", None, 1.0)
    for each in answers:
        rows = found(each)[1]
        assert rows is not None
        made = with_request(made, rows)
    return finished(made, {"command": "made"})


def test_of_votes_that_agree_as_often_the_cheapest_is_chosen() -> None:
    stable, one_off = "7" * SAMPLES, "8" + "7" * (SAMPLES - 1)
    sure = collected(*[stable] * 20)
    assert sure.choose(Budget()).arm.strategy == "single"
    unsure = collected(*[stable, one_off] * 15)
    advice = unsure.one(Budget())
    assert unsure.measure == "agreement" and advice.arm.strategy != "single"
    assert [sum(arm.right) / 30 for arm in unsure.arms] == [0.5, 0.5, 1.0, 1.0, 1.0]
    assert "measured without right answers" in unsure.choose(Budget()).reason
    assert replace(unsure, measure="accuracy").one(Budget()).arm.size >= advice.arm.size
    first = unsure.arms[0]
    assert (first.usage["model_calls"], len(first.tokens), len(first.signals["agreement"])) == (1, 30, 30)
    assert unsure.arms[-1].signals == {}, "too many samples to begin with"
