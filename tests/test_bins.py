"""Policies by difficulty: signals, bins, what they cost, folds, the file, and ``auto`` that draws the first samples."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from commands import ran

from thinktime.bank.store import Bank
from thinktime.bench.runner import Bench, Entry
from thinktime.bench.signals import signals
from thinktime.bench.statistics import Estimate
from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import Sampling
from thinktime.core.usage import Budget
from thinktime.planning.arms import Arm, fitted
from thinktime.planning.auto import Auto
from thinktime.planning.bins import Bins, Policy, charged, policy
from thinktime.planning.calibration import Calibration
from thinktime.planning.calibration_files import read, text
from thinktime.planning.difficulty import crossing
from thinktime.session import Session
from thinktime.strategies import check, parse
from thinktime.testing import ANSWERS, PROBLEM, Piece, WordGenerator, WordScorer, check_strategy

COUNT = 200
HARD = tuple(number < COUNT // 2 for number in range(COUNT))


def arm(strategy: str, right: tuple[float, ...], tokens: float, **signals: tuple[float, ...]) -> Arm:
    usage = {"judge_tokens": 0.0, "model_calls": tokens / 10, "scorer_calls": 0.0}
    samples = {"total": COUNT, "unreadable": 0, "missing": 0, "cut": 0, "timed_out": 0}
    return Arm(strategy, right, (tokens,) * COUNT, usage, None, samples, signals)


def calibration(*arms: Arm) -> Calibration:
    model = {"generator": WordGenerator().name, "scorer": None}
    problems = tuple(map(str, range(COUNT)))
    return Calibration({"name": "made"}, model, {"temperature": 1.0}, 0, problems, arms, ({"command": "made"},))


RNG = Random(0)
NOISE = tuple(round(RNG.random(), 3) for _ in range(COUNT))
KNOWS = tuple(0.1 + 0.2 * noise if hard else 0.6 + 0.2 * noise for hard, noise in zip(HARD, NOISE, strict=True))
EASY = tuple(float(not hard) for hard in HARD)
SINGLE = arm("single", EASY, 10, agreement=KNOWS)
VOTE = arm("majority:n=16", (1.0,) * COUNT, 160)
MADE = calibration(SINGLE, VOTE).with_policies()


def searching(budget: Budget | None = None, **changes: Any) -> Search:
    given: dict[str, Any] = {"answers": ANSWERS, "sampling": Sampling(1.0, max_length=20)} | changes
    return Search(PROBLEM, given.pop("generator", WordGenerator()), budget=budget, **given)


def test_easy_problems_stop_after_the_first_sample() -> None:
    found = MADE.policies[-1]
    assert found.strategies == ("majority:n=16", "single") and found.bins.samples == 1
    assert 0.3 < found.bins.edges[0] <= 0.6
    # half of the problems take 10 tokens and the others 160; near the edge some take 160 that need not
    assert found.gain.value == 0 and 85 <= found.cost < 100 and found.cost_of_one == 160 and found.is_better
    advice = MADE.choose(Budget(tokens=1000))
    assert advice.policy == found and "in place of 160 tokens" in advice.reason
    assert MADE.choose(Budget(tokens=20)).policy is None


def test_methods_that_cross_gain() -> None:
    hard = tuple(float(each) for each in HARD)
    found = policy((SINGLE, arm("beam_search:n=4", hard, 60)), 100)
    assert found is not None and found.strategies == ("beam_search:n=4", "single")
    assert found.gain.low > 0.4 and 35 < found.cost < 45  # half pay for the first sample, and then for the search


def test_a_signal_that_knows_nothing_gives_one_arm_for_all() -> None:
    rng = Random(1)
    single, vote = (tuple(float(rng.random() < rate) for _ in range(COUNT)) for rate in (0.3, 0.5))
    found = calibration(arm("single", single, 10, agreement=NOISE), arm("majority:n=16", vote, 160)).with_policies()
    assert found.policies and not found.policies[-1].is_better
    assert found.choose(Budget()).policy is None


@pytest.mark.parametrize(
    "arms",
    [
        (replace(SINGLE, signals={}), VOTE),
        (arm("beam_search:n=4", EASY, 10, agreement=KNOWS), VOTE),
        (SINGLE.on(range(30)), VOTE.on(range(30))),
    ],
    ids=["no signals", "no plain samples", "too few problems"],
)
def test_without_signals_or_problems_there_is_no_policy(arms: tuple[Arm, ...]) -> None:
    assert policy(arms, 1000) is None


def test_first_samples_are_charged_once() -> None:
    first = arm("majority:n=2", EASY, 20)
    assert charged(VOTE, first).tokens[0] == 160 and charged(VOTE, first).usage["model_calls"] == 16
    assert charged(SINGLE, first).tokens[0] == 20
    assert charged(arm("beam_search:n=4", EASY, 60), first).cost("tokens") == 80
    assert charged(replace(VOTE, usage={"flops": None}), first).usage["flops"] is None


def test_a_value_on_an_edge_is_in_the_easier_bin() -> None:
    bins = Bins("agreement", 2, (0.5, 0.75))
    assert [bins.place(value) for value in (0.0, 0.5, 0.7, 0.75, 1.0)] == [0, 1, 1, 2, 2]
    names = [bins.name(number) for number in range(3)]
    assert names == ["agreement below 0.5", "agreement from 0.5 and below 0.75", "agreement from 0.75"]


def test_other_limits_hold_for_every_bin() -> None:
    assert MADE.choose(Budget(tokens=1000, calls=16)).policy is not None
    assert MADE.choose(Budget(tokens=1000, calls=15)).arm.strategy == "single"
    assert MADE.choose(Budget(tokens=1000, calls=15)).policy is None


def test_a_file_keeps_its_policies(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_text(text(MADE))
    assert read(path) == MADE
    assert json.loads(path.read_text())["policies"][-1]["take"] == "the policy"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"strategies": ["single"]}, "one strategy more than edges"),
        ({"strategies": ["single", "majority:n=3"]}, "strategies that are measured"),
        ({"bins": {"signal": "mood", "samples": 1, "edges": [0.5]}}, "a known signal"),
        ({"bins": {"signal": "agreement", "samples": 1, "edges": [0.5, 0.5]}}, "rising edges"),
        ({"bins": {"signal": "agreement", "samples": 1, "edges": ["x"]}}, "TypeError"),
        ({"bins": {"signal": "agreement", "samples": 1000, "edges": [0.5]}}, "1 to 4 first samples"),
        ({"gain": 3}, "TypeError"),
        ({"budget": None}, "TypeError"),
    ],
)
def test_a_policy_edited_by_hand_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    found = json.loads(text(MADE))
    found["policies"][-1] |= change
    path = tmp_path / "made.json"
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=reason):
        read(path)


def test_signals_are_the_agreement_and_the_confidence_of_samples() -> None:
    texts = {0: "so 7", 1: "so so 7", 2: "none", 3: "so 8"}
    search = searching(generator=WordGenerator(lambda extension: Piece(texts[extension.index], "eos")))
    found = signals(search, asyncio.run(search.extend([search.root], 4)))
    assert found["agreement"] == 0.5 and 0 < found["confidence"] < 1
    assert signals(search, []) == {}


def following(found: Calibration, folder: Path) -> Auto:
    path = folder / "policy.json"
    path.write_text(text(found))
    return Auto(policy=str(path))


@pytest.mark.parametrize(("edge", "chosen", "samples"), [(0.0, "single", 1), (2.0, "majority:n=16", 16)])
def test_auto_goes_on_with_the_arm_of_the_bin(tmp_path: Path, edge: float, chosen: str, samples: int) -> None:
    bins = replace(MADE.policies[-1].bins, edges=(edge,))
    method = following(replace(MADE, policies=(replace(MADE.policies[-1], bins=bins),)), tmp_path)
    mine, its = searching(), searching()
    answers = asyncio.run(method(mine)), asyncio.run(parse(chosen)[1](its))
    assert answers[0].value == answers[1].value and mine.trace.keys() == its.trace.keys()
    assert mine.ledger.spent == its.ledger.spent and mine.ledger.spent.model_calls == samples
    logged = mine.events[0]
    assert logged["strategy"] == chosen and logged["first_samples"] == 1 and "across folds" in logged["reason"]
    assert logged["bin"].startswith("agreement ") and logged["agreement"] in (0.0, 1.0)


def test_auto_by_difficulty_keeps_the_laws(tmp_path: Path) -> None:
    judged = {**MADE.model, "scorer": WordScorer().name}  # the laws run with a scorer
    check_strategy(following(replace(MADE, model=judged), tmp_path))


def test_curves_take_the_noise_from_single_sizes() -> None:
    """Four sizes on a line with one size off it; a bend beyond noise stays."""
    rng = Random(2)

    def right(share: float) -> tuple[float, ...]:
        values = [float(number < share * COUNT) for number in range(COUNT)]
        rng.shuffle(values)
        return tuple(values)

    sizes = {1: 0.5, 2: 0.6, 4: 0.5, 8: 0.6}
    arms = tuple(arm(f"most_likely:n={n}" if n > 1 else "single", right(rate), 10 * n) for n, rate in sizes.items())
    means = [sum(each.right) / COUNT for each in fitted(arms)]
    # least squares over 0, 1, 2, 3: the slope is (1.5 * 0.1 + 0.5 * -0.1) / 5, through the mean of 0.55
    assert means == pytest.approx([0.5, 0.54, 0.56, 0.58])
    bent = {1: 0.1, 2: 0.6, 4: 0.6, 8: 0.1}
    arms = tuple(arm(f"most_likely:n={n}" if n > 1 else "single", right(rate), 10 * n) for n, rate in bent.items())
    assert [sum(each.right) / COUNT for each in fitted(arms)] == pytest.approx([0.1, 0.6, 0.6, 0.1])


def test_plan_shows_the_policy_and_a_command_that_follows_it(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_text(text(MADE))
    code, shown, errors = ran("plan", "made", "--calibration", str(path), "--budget", "1000tok")
    assert code == 0 and f"take:    auto:policy={path}: across folds +0.0 [" in shown, errors
    assert "draws 1 first" in shown and ": majority:n=16" in shown
    assert f"--strategies auto:policy={path} " in shown
    found = json.loads(ran("plan", "made", "--calibration", str(path), "--json")[1])
    assert list(found["policy"]["bins"].values()) == ["majority:n=16", "single"]


def test_whole_numbers_of_a_file_do_not_round_the_curves(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    found = calibration(SINGLE, arm("most_likely:n=2", NOISE, 20), arm("most_likely:n=4", EASY, 40))
    path.write_text(text(found))
    assert [read(path).value(each) for each in found.arms] == [found.value(each) for each in found.arms]
    whole = [replace(each, right=(1, 0) * (COUNT // 2)) for each in found.arms]
    assert [sum(each.right) / COUNT for each in fitted(whole)] == pytest.approx([0.5] * 3)
    other = replace(whole[2], right=(1, 1, *whole[2].right[2:]))  # one problem more, which makes no bend
    assert 0 < fitted([*whole[:2], other])[1].right[1] < 1


def test_a_vote_of_an_even_size_is_taken_for_one_of_the_odd_size_before() -> None:
    sizes = {1: 0.3, 2: 0.4, 3: 0.45, 4: 0.55, 8: 0.7}
    arms = [
        arm(f"majority:n={n}" if n > 1 else "single", tuple(float(place < rate * COUNT) for place in range(COUNT)), n)
        for n, rate in sizes.items()
    ]
    means = [sum(each.right) / COUNT for each in fitted(arms)]
    assert means[0] == pytest.approx(0.3) and means[2] == pytest.approx(means[3])
    assert 0.3 < means[1] < 0.4


@pytest.mark.parametrize(
    ("rates", "limit", "edge"),
    [
        ([0.0, 0.2, 0.6, 1.0], 0.5, 3.0),
        ([0.0, 0.6, 0.2, 1.0], 0.5, 4.0),  # the second and the third predict their mean, 0.4
        ([0.0, 0.6, 0.2, 1.0], 0.3, 2.0),
        ([0.5, 0.5, 0.5, 0.5], 0.5, None),
        ([0.0, 0.1, 0.1, 0.2], 0.5, None),
    ],
)
def test_a_fixed_limit_is_crossed_where_the_signal_predicts_it(
    rates: list[float], limit: float, edge: float | None
) -> None:
    assert crossing(np.array([1.0, 2.0, 3.0, 4.0]), np.array(rates), limit) == edge
    assert crossing(np.array([3.0, 4.0, 1.0, 2.0]), np.array(rates[2:] + rates[:2]), limit) == edge
    assert crossing(np.array([1.0, 1.0]), np.array([0.0, 1.0]), 0.5) is None, "one value cuts nothing"


def test_bins_of_fixed_pass_at_1_are_taken_where_equal_shares_cut_wrongly(tmp_path: Path) -> None:
    """One problem of eight is hard, so halves and thirds put easy problems among them."""
    hard = tuple(number < COUNT // 8 for number in range(COUNT))
    knows = tuple(0.1 * noise if each else 0.6 + 0.2 * noise for each, noise in zip(hard, NOISE, strict=True))
    solved = tuple(float(not each) for each in hard)
    made = calibration(arm("single", solved, 10, agreement=knows), arm("beam_search:n=4", (1.0,) * COUNT, 160))
    found = replace(made, rates=tuple(0.02 if each else 0.9 for each in hard)).with_policies()
    best, plain = found.policies[-1], made.with_policies().policies[-1]
    assert best.bins.limits and 0.1 < best.bins.edges[0] <= 0.61 and not plain.bins.limits
    assert best.strategies == ("beam_search:n=4", "single") and best.cost < plain.cost
    assert re.fullmatch(r"pass@1 predicted below 0\.\d: agreement below 0\.6\S*", best.bins.name(0))
    path = tmp_path / "made.json"
    path.write_text(text(found))
    assert read(path) == found
    agreeing = replace(found, measure="agreement").with_policies()
    assert not any(each.bins.limits for each in agreeing.policies), "agreement knows no pass@1"


def costing(strategy: str, right: tuple[float, ...], tokens: float, flops: float, **signals: tuple[float, ...]) -> Arm:
    made = arm(strategy, right, tokens, **signals)
    return replace(made, usage={**made.usage, "flops": flops, "scorer_flops": 0.0})


def of_both(*more: Policy) -> Calibration:
    """A small model that solves half of the problems and knows which, and a large one that solves all."""
    arms = (
        costing("delegate(single)", EASY, 10, 100, agreement=KNOWS),
        costing("single", (1.0,) * COUNT, 10, 1000, agreement=NOISE),
    )
    names = {"main": WordGenerator().name, "draft": "small words"}
    made = calibration(*arms)
    return replace(made, model={**made.model, "models": names}, policies=more)


def test_a_policy_draws_with_the_small_model_and_goes_on_with_the_large_one(tmp_path: Path) -> None:
    found = of_both().with_policies()
    best = found.policies[-1]
    assert (best.bins.model, best.unit, best.strategies) == ("draft", "flops", ("single", "delegate(single)"))
    # half of the problems cost 100, and the others 100 and 1000; near the edge some are taken for hard
    assert best.gain.value == 0 and 600 <= best.cost < 700 and best.cost_of_one == 1000 and best.is_better
    assert found.choose(Budget()).policy == best and found.choose(Budget(flops=1210)).policy == best
    assert "in place of 1e+03 flops" in found.choose(Budget()).reason
    assert found.choose(Budget(flops=99)).policy is None
    assert found.choose(Budget(tokens=1000)).policy is None, "tokens of two models are not compared"
    without = found.runnable(frozenset(set(searching().capabilities)))
    assert without.policies == () and [each.strategy for each in without.arms] == ["single"]
    path = tmp_path / "made.json"
    path.write_text(text(found))
    assert read(path).policies == found.policies
    code, shown, errors = ran("plan", "made", "--calibration", str(path))
    assert code == 0 and "draws 1 first of the model draft, and goes on with" in shown, errors


@pytest.mark.parametrize(
    ("edge", "chosen", "calls"), [(0.0, "delegate(majority:n=3)", 3), (2.0, "single", 2), (2.0, "majority:n=3", 4)]
)
def test_first_samples_of_another_model_are_used_again(tmp_path: Path, edge: float, chosen: str, calls: int) -> None:
    """The same samples as without `auto`, so a bank has them; only another model pays for them in addition."""
    sure = Estimate(0.0, 0.0, 0.0), 20.0, 30.0, Estimate(5.0, 4.0, 6.0)
    policy = Policy(100, Bins("agreement", 1, (edge,), "draft"), (chosen, chosen), *sure, "flops")
    flops = {"delegate": 110.0, "majority": 1100.0}
    more = [costing(name, EASY, 30, flops[name[:8]]) for name in ("delegate(majority:n=3)", "majority:n=3")]
    whole = of_both(policy)
    method = following(replace(whole, arms=(*whole.arms, *more)), tmp_path)
    small = WordGenerator(name="small words")
    models: dict[str, Any] = {"generator": {"main": WordGenerator(), "draft": small}}
    mine, its = searching(**models), searching(**models)
    check("auto", method, mine)
    answers = asyncio.run(method(mine)), asyncio.run(parse(chosen)[1](its))
    assert answers[0].value == answers[1].value and answers[0].share == answers[1].share
    assert its.trace.keys() <= mine.trace.keys() and mine.ledger.spent.model_calls == calls
    logged = mine.events[0]
    assert logged["strategy"] == chosen and logged["first_model"] == "draft" and logged["first_samples"] == 1


def test_a_delegated_bench_has_signals_and_every_bench_pass_at_1(tmp_path: Path) -> None:
    generators = {"main": WordGenerator(), "draft": WordGenerator(name="small words")}
    session = Session(generators, answers=ANSWERS, sampling=Sampling(1.0, max_length=20))
    problems = tuple(replace(PROBLEM, id=str(number), reference="7") for number in range(3))
    entries = [Entry("majority", 2, parse("majority:n=2")[1]), Entry("d", 2, parse("delegate(majority:n=2)")[1])]
    with Bank(tmp_path / "bank.db") as bank:
        bench = Bench(Task("made", problems, ANSWERS), session, entries, bank)
        asyncio.run(bench.run())
        votes, delegated = bench.result("made", {})["runs"]
    for row in (*votes["problems"], *delegated["problems"]):
        assert row["signals"]["agreement"] in (0.0, 0.5, 1.0)
    assert {row["pass_at_1"] for row in delegated["problems"]} == {None}
    assert all(row["pass_at_1"] is None or 0 <= row["pass_at_1"] <= 1 for row in votes["problems"])
