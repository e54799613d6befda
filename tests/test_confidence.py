"""The model's confidence as a process reward."""

from __future__ import annotations

import asyncio
import math

import pytest
from toy import PROBLEM

from thinktime import Search
from thinktime.bench.tasks import load
from thinktime.config import Config
from thinktime.core.errors import InputError
from thinktime.core.types import Node, Sampling
from thinktime.generators.local import LocalGenerator
from thinktime.generators.recorded import RecordedGenerator
from thinktime.generators.text import Text
from thinktime.scorers.confidence import Confidence
from thinktime.session import open_session
from thinktime.strategies import make
from thinktime.testing import WordGenerator


def value(state: Text) -> float | None:
    scorer = Confidence(WordGenerator())
    return asyncio.run(scorer.score(PROBLEM, [Node("", (0,), state)], [None]))[0].value


def test_confidence_is_the_geometric_mean_of_the_probabilities_of_the_tokens() -> None:
    assert value(Text((), ids=(1, 2), logprob=math.log(0.5) + math.log(0.125))) == pytest.approx(0.25)


def test_a_text_without_tokens_or_with_unknown_probabilities_has_no_score() -> None:
    assert value(Text(())) is None
    assert value(Text((), ids=(1,), logprob=math.nan)) is None


def test_a_model_without_log_probabilities_is_refused() -> None:
    with pytest.raises(InputError, match="gives no log-probabilities"):
        Confidence(RecordedGenerator([]))


def test_it_guides_a_search_over_steps_without_a_reward_model(generator: LocalGenerator) -> None:
    problem = load("pocket", 1, levels=[1]).problems[0]
    search = Search(problem, generator, scorers=Confidence(generator), sampling=Sampling(max_length=60))
    asyncio.run(make("early_rejection", {"n": 4, "width": 2, "tau": 3})(search))
    scores = [record.score for record in search.records() if record.node.parent]
    assert scores and all(score is not None and 0 < score <= 1 for score in scores)


def test_a_config_names_it() -> None:
    session = open_session(Config("pocket", "confidence"))
    assert isinstance(session.scorers["main"], Confidence)
