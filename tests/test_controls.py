"""Controls: results of the oracle are marked, and random scores cost as much as those of the real scorer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from math import sqrt
from pathlib import Path
from statistics import NormalDist

import pytest
from commands import ran
from toy import ANSWERS, PROBLEM, ToyScorer, done, drawn, solve, step, toy_search

from thinktime.bank.store import Bank
from thinktime.bench.controls import Dial, Oracle, Scrambled, control
from thinktime.bench.report import headline
from thinktime.bench.runner import DIAL_STAMP, STAMP, Bench, Entry
from thinktime.bench.statistics import auc
from thinktime.bench.tasks import Task, load
from thinktime.core.errors import InputError
from thinktime.core.protocols import Scorer
from thinktime.core.types import Node, Sampling
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import RemoteText
from thinktime.pocket.problems import problems
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


def spread(lead: float, right: int, wrong: int) -> float:
    """The exact standard deviation of the measured AUC of N(lead, 1) against N(0, 1) (Bamber 1975)."""
    normal = NormalDist()
    grid = [i / 100 for i in range(-800, 801)]
    area = normal.cdf(lead / sqrt(2))
    both_right = sum(normal.cdf(lead - y) ** 2 * normal.pdf(y) for y in grid) / 100
    both_wrong = sum(normal.cdf(lead + x) ** 2 * normal.pdf(x) for x in grid) / 100
    parts = area * (1 - area) + (right - 1) * (both_right - area**2) + (wrong - 1) * (both_wrong - area**2)
    return sqrt(parts / (right * wrong))


@pytest.mark.parametrize("wanted", [0.3, 0.5, 0.65, 0.8, 0.95])
def test_a_dial_has_the_chosen_auc(wanted: float) -> None:
    right = [index % 4 == 0 for index in range(4000)]
    nodes = [replace(remote("is 7" if good else "is 5"), key=f"made-up-{index}") for index, good in enumerate(right)]
    scores = values(Dial(TASK, wanted), nodes)
    measured = auc([score for score in scores if score is not None], right)
    assert measured is not None
    assert abs(measured - wanted) < 2.6 * spread(sqrt(2) * NormalDist().inv_cdf(wanted), 1000, 3000)


def test_the_scores_of_a_dial_depend_on_the_node_alone() -> None:
    nodes = [replace(remote("is 7" if index % 2 else "is 5"), key=f"node-{index}") for index in range(20)]
    dial = Dial(TASK, 0.8)
    forwards = values(dial, nodes)
    assert values(dial, nodes[::-1])[::-1] == forwards
    assert [values(Dial(TASK, 0.8), [node])[0] for node in nodes] == forwards
    better = values(Dial(TASK, 0.9), nodes)  # the right samples move, and the noise stays
    assert [mine != other for mine, other in zip(forwards, better, strict=True)] == [
        bool(index % 2) for index in range(20)
    ]
    assert values(dial, [remote("is 7", "step")]) == [None]


@pytest.mark.parametrize(
    "name", ["dial", "dial:0.8", "dial:auc=", "dial:auc=x", "dial:auc=1", "dial:auc=0", "dial:auc=nan"]
)
def test_a_dial_without_an_auc_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"dial:auc=0\.8"):
        control(name, TASK, None)


def test_an_answer_by_a_dial_is_refused() -> None:
    code, _, errors = ran("ask", "?", "--scorer", "dial:auc=0.8")
    assert (
        code == 2 and "scorer='dial:auc=0.8': it uses the reference answers: a control for `thinktime bench`" in errors
    )


def test_a_dial_works_in_a_bench_and_in_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("bench", "pocket", "--problems", "3", "--levels", "2", "--strategies", "best_of_n,majority", "--n", "4")
    assert ran(*words, "--scorer", "dial:auc=0.8", "--out", "live")[0] == 0
    live = json.loads((tmp_path / "live" / "result.json").read_text())
    assert live["stamp"] == DIAL_STAMP and live["model"]["scorer"].endswith("degraded to an AUC of 0.8")
    code, _, errors = ran(*words, "--scorer", "dial:auc=0.6", "--replay", "--bank", "live/bank.db", "--out", "again")
    assert code == 0, errors
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert again["model"]["scorer"].endswith("degraded to an AUC of 0.6")
    assert [run["strategy"] for run in again["runs"]] == ["best_of_n", "majority"]


def test_on_the_pocket_task_unfinished_solutions_are_scored() -> None:
    task = load("pocket", 1, levels=[3])
    solution = next(problems("test", 1, levels=[3])).solution
    first, second, *_ = solution.splitlines(keepends=True)
    wrong = first.replace(" = ", " = 9")
    texts = {
        first: 1.0,
        first + second[:6]: 1.0,
        wrong: 0.0,
        wrong + second: 0.0,
        first + "Answer": 0.0,
        solution[:-1]: 1.0,
    }
    nodes = [remote(text, "step") for text in texts]
    scores = asyncio.run(Oracle(task).score(task.problems[0], nodes, [None] * len(nodes)))
    assert [score.value for score in scores] == list(texts.values())
    dialled = asyncio.run(Dial(task, 0.9).score(task.problems[0], nodes, [None] * len(nodes)))
    assert all(score.value is not None for score in dialled)


def test_a_search_over_steps_runs_with_an_oracle_on_the_pocket_task(generator: LocalGenerator, tmp_path: Path) -> None:
    task = load("pocket", 6, levels=[2, 3], seed=4)
    entries = [Entry("beam_search", 4, make("beam_search", {"n": 4, "width": 2})), Entry("single", 1, make("single"))]
    with Bank(tmp_path / "bank.db") as bank:
        session = Session({"main": generator}, {"main": Oracle(task)}, sampling=Sampling(max_length=300))
        run = Bench(task, session, entries, bank)
        asyncio.run(run.run())
    right = {label: sum(outcome.correct for outcome in found.values()) for label, found in run.outcomes.items()}
    assert not run.failed and right["beam_search@4"] >= right["single@1"]


def test_a_missing_score_stays_missing() -> None:
    search = toy_search(drawn, Scrambled(ToyScorer(lambda node: None)))
    solve(make("best_of_n", {"n": 4}), search)
    assert all(record.score is None for record in search.trace.values())


def test_random_scores_need_a_scorer_to_replace() -> None:
    with pytest.raises(InputError, match="scorer='random': it replaces a scorer that fits --model"):
        control("random", TASK, None)
