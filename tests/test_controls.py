"""Controls: results of the oracle are marked, and random scores cost as much as those of the real scorer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from toy import ANSWERS, PROBLEM, ToyScorer, done, drawn, solve, step, toy_search

from thinktime.bank.store import Bank
from thinktime.bench.controls import Oracle, Scrambled, control
from thinktime.bench.report import headline
from thinktime.bench.runner import STAMP, Bench, Entry
from thinktime.bench.tasks import Task, load
from thinktime.core.errors import InputError
from thinktime.core.protocols import Scorer
from thinktime.core.types import Node, Sampling
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import RemoteText
from thinktime.scorers.prm import ProcessReward
from thinktime.session import Session
from thinktime.strategies import make

TASK = Task("toy", (PROBLEM,), ANSWERS)


def remote(text: str, finish: str = "eos") -> Node:
    asked = json.dumps([{"role": "user", "content": PROBLEM.prompt}])
    return Node(text, (0,), RemoteText(asked, text, 1, (len(text),), chat=True), finish=finish)  # type: ignore[arg-type]


def values(scorer: Scorer, nodes: list[Node]) -> list[float | None]:
    return [score.value for score in asyncio.run(scorer.score(PROBLEM, nodes, [None] * len(nodes)))]


def test_the_oracle_agrees_with_the_evaluator_and_does_not_score_incomplete_nodes() -> None:
    nodes = [remote("is 7"), remote("is 5"), remote("what"), remote("is 7", "step")]
    assert values(Oracle(TASK), nodes) == [1.0, 0.0, 0.0, None]


def test_best_of_n_by_the_oracle_is_coverage(generator: LocalGenerator, tmp_path: Path) -> None:
    task = load("pocket", 6, levels=[2, 3], seed=4)
    entries = [Entry("best_of_n", 4, make("best_of_n", {"n": 4})), Entry("majority", 4, make("majority", {"n": 4}))]
    with Bank(tmp_path / "bank.db") as bank:
        session = Session({"main": generator}, {"main": Oracle(task)}, sampling=Sampling(max_length=300))
        run = Bench(task, session, entries, bank)
        asyncio.run(run.run())
        result = run.result("bench", {})
    best, vote = (run.outcomes[f"{name}@4"] for name in ("best_of_n", "majority"))
    assert [best[p.id].correct for p in task.problems] == [any(vote[p.id].samples) for p in task.problems]
    assert result["stamp"] == STAMP and headline(result).startswith(STAMP)


def test_a_report_of_another_scorer_is_not_marked(
    generator: LocalGenerator, reward: ProcessReward, tmp_path: Path
) -> None:
    task = load("pocket", 1, levels=[2])
    with Bank(tmp_path / "bank.db") as bank:
        for scorer in (reward, Scrambled(reward), None):
            scorers = {"main": scorer} if scorer else {}
            session = Session({"main": generator}, scorers, sampling=Sampling(max_length=300))
            run = Bench(task, session, [Entry("single", 1, make("single"))], bank)
            asyncio.run(run.run())
            result = run.result("bench", {})
            assert result["stamp"] is None and not headline(result).startswith(STAMP)
            assert result["evaluator"] == "reference answers of pocket"


def test_random_scores_cost_what_the_scorer_costs_and_can_be_repeated() -> None:
    tree = {"0": step("a"), "1": step("b")} | {f"{i}/{j}": done("is 7") for i in range(2) for j in range(2)}
    scorers: list[Scorer] = [ToyScorer(dict.fromkeys(tree, 0.5))]
    scorers += [Scrambled(ToyScorer(lambda node: 0.5)) for _ in range(2)]
    real, first, again = (toy_search(tree, scorer) for scorer in scorers)
    strategy = make("beam_search", {"n": 2, "width": 2})
    accounts = [solve(strategy, search).usage for search in (real, first, again)]
    assert len({(a.scorer_tokens, a.scorer_calls, a.scorer_flops, a.generated_tokens) for a in accounts}) == 1
    scores = [[record.score for record in search.trace.values()] for search in (first, again)]
    assert scores[0] == scores[1] and len(set(scores[0])) > 3


def test_a_missing_score_stays_missing() -> None:
    search = toy_search(drawn, Scrambled(ToyScorer(lambda node: None)))
    solve(make("best_of_n", {"n": 4}), search)
    assert all(record.score is None for record in search.trace.values())


def test_random_scores_need_a_scorer_to_replace() -> None:
    with pytest.raises(InputError, match="scorer='random': it replaces a scorer that fits --model"):
        control("random", TASK, None)
