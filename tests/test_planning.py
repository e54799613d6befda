"""``auto`` without a calibration: its choices for different models, and the laws of strategies."""

from __future__ import annotations

import asyncio

import pytest

from thinktime.core.protocols import Scorer
from thinktime.core.search import Search
from thinktime.core.types import Sampling
from thinktime.planning.auto import SAMPLES, Auto
from thinktime.strategies import check, find, parse, spec
from thinktime.testing import ANSWERS, PROBLEM, WordGenerator, WordScorer, check_strategy


@pytest.mark.parametrize(
    ("scorer", "readable", "temperature", "chosen"),
    [
        (WordScorer(), True, 1.0, f"weighted_majority:n={SAMPLES}"),
        (None, True, 1.0, f"majority:n={SAMPLES}"),
        (WordScorer(), False, 1.0, f"best_of_n:n={SAMPLES}"),
        (None, False, 1.0, "single"),
        (WordScorer(), True, 0.0, "single"),
    ],
)
def test_without_a_calibration_it_takes_the_first_rule_that_can_run(
    scorer: Scorer | None, readable: bool, temperature: float, chosen: str
) -> None:
    answers, sampling = ANSWERS if readable else None, Sampling(temperature, max_length=20)
    runs = [Search(PROBLEM, WordGenerator(), scorers=scorer, answers=answers, sampling=sampling) for _ in range(2)]
    check("auto", Auto(), runs[0])
    mine, its = asyncio.run(Auto()(runs[0])), asyncio.run(parse(chosen)[1](runs[1]))
    assert runs[0].events[0] == {"planner": "prior", "strategy": chosen}
    assert (mine.value, mine.usage.generated_tokens) == (its.value, its.usage.generated_tokens)
    assert mine.usage.model_calls == (1 if chosen == "single" else SAMPLES)


def test_auto_is_found_by_name_and_keeps_the_laws() -> None:
    assert find("auto") is Auto and parse("auto")[1] == Auto() and spec(Auto()) == "auto"
    check_strategy(Auto())
