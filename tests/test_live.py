"""What the runs on the real model report about their arms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toy import ANSWERS, PROBLEM

from experiments.harness import Arm, arm, run_session
from experiments.live import GREEDY, mean_tokens, rows
from thinktime.bank.store import Bank
from thinktime.bench.tasks import Task
from thinktime.core.types import Sampling
from thinktime.scorers.confidence import Confidence
from thinktime.session import Session
from thinktime.testing import WordGenerator


def test_an_arm_stands_beside_greedy_the_baseline_and_the_vote_of_equal_tokens(tmp_path: Path) -> None:
    generator = WordGenerator()
    task = Task("toy", tuple(replace(PROBLEM, id=str(number)) for number in range(12)), ANSWERS)
    session = Session({"main": generator}, {"main": Confidence(generator)}, sampling=Sampling(max_length=30))
    arms: list[Arm | str] = [
        "majority:n=1",
        "majority:n=4",
        "beam_search:n=4,width=2",
        replace(arm("single"), label=GREEDY),
    ]
    with Bank(tmp_path / "bank.db") as bank:
        outcomes = run_session(arms, task, session, bank)
    found = rows(outcomes, "beam_search:n=4,width=2")
    beam, vote = found["beam_search:n=4,width=2"], found["majority:n=4"]
    nearest = min(
        (1, 4), key=lambda n: abs(mean_tokens(outcomes[f"majority:n={n}"]) - beam["usage"]["generated_tokens"])
    )
    assert beam["vote_of_equal_tokens"] == f"majority:n={nearest}"
    assert beam["minus_baseline"]["value"] == 0 and beam["baseline_over_this_tokens"]["value"] == 1
    assert vote["samples"]["readable"] + vote["samples"].get("unreadable", 0) == 12 * 4
    assert found[GREEDY]["minus_greedy"]["value"] == 0
