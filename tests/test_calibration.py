"""Calibrations: the choice within a budget, the file, what is refused, and the strategy ``auto`` that follows one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import ran

from thinktime.cli.plan import priced
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import Sampling
from thinktime.core.usage import Budget
from thinktime.gateway.methods import parse as of_client
from thinktime.planning.arms import Arm, begins_with, families
from thinktime.planning.auto import SAMPLES, Auto
from thinktime.planning.calibration import Calibration
from thinktime.planning.calibration_files import LEAST_PROBLEMS, SHIPPED, is_shipped, read
from thinktime.planning.calibration_files import text as text_of
from thinktime.strategies import check, parse
from thinktime.testing import ANSWERS, PROBLEM, WordGenerator, WordScorer

WORDS = WordGenerator().name
PROBLEMS = tuple(str(number) for number in range(20))


def arm(strategy: str, right: int, tokens: float, lost: int = 0, **usage: float | None) -> Arm:
    """An arm that solves the first ``right`` of 20 problems."""
    solved = tuple(float(number < right) for number in range(20))
    counts = {"total": 20, "unreadable": lost, "missing": 0, "cut": 0, "timed_out": 0}
    costs = {"judge_tokens": 0.0, "flops": tokens * 10, "scorer_flops": 0.0, "model_calls": tokens / 10}
    return Arm(strategy, solved, (tokens,) * 20, costs | {"scorer_calls": 0.0} | usage, None, counts)


def calibration(*arms: Arm, **model: Any) -> Calibration:
    found = {"generator": WORDS, "scorer": None} | model
    source = {"command": "thinktime bench made", "thinktime": "0", "date": "2026-11-30"}
    return Calibration({"name": "made"}, found, {"temperature": 1.0}, 0, PROBLEMS, arms, (source,))


TOKENS = {"prompt_tokens": 10, "cached_tokens": 0, "generated_tokens": 10}
SINGLE, FOUR, SIXTEEN = arm("single", 4, 10), arm("majority:n=4", 12, 100), arm("majority:n=16", 14, 1000)
MADE = calibration(SINGLE, FOUR, SIXTEEN)


@pytest.mark.parametrize(
    ("budget", "chosen", "reason"),
    [
        ("", SIXTEEN, r"\+50\.0 \[.*\] points over single, for 1000 tokens \(majority:n=16\)"),
        ("1000tok", SIXTEEN, "no strategy with a higher cost is measured"),
        ("999tok", FOUR, r"\+40\.0 "),
        ("99tok", SINGLE, "no other strategy within the budget has a higher accuracy than 20.0 %"),
        ("9tok", SINGLE, r"the budget is below the cheapest measured strategy, 10 tokens \(single\)"),
        ("5000flops", FOUR, r"\+40\.0 "),
        ("10calls", FOUR, r"\+40\.0 "),
    ],
)
def test_the_most_accurate_arm_within_the_budget_is_chosen(budget: str, chosen: Arm, reason: str) -> None:
    found = MADE.choose(Budget.parse(budget) if budget else Budget())
    assert found.arm == chosen
    assert re.search(reason, found.reason), found.reason


def test_a_limit_whose_cost_is_unknown_is_refused_and_not_chosen_by(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_text(text_of(MADE))
    code, _, errors = ran("plan", "made", "--calibration", str(path), "--budget", "60s")
    assert (code, errors.count("\n")) == (2, 1) and "no measured strategy has known seconds" in errors
    search = searching("200tok,60s")
    asyncio.run(auto(MADE, tmp_path)(search))
    assert search.events[0]["strategy"] == "majority:n=4"
    assert search.events[0]["reason"].endswith("no measured strategy has known seconds")


def test_a_gain_that_may_be_none_is_said() -> None:
    found = calibration(SINGLE, arm("majority:n=2", 5, 20)).choose(Budget())
    assert found.arm.strategy == "majority:n=2"
    assert re.match(r"\+5\.0 \[\+0\.0, .*; the gain may be none", found.reason)


def test_more_compute_that_is_known_not_to_help_is_not_spent() -> None:
    def many(strategy: str, right: int, tokens: float) -> Arm:
        made = arm(strategy, 0, tokens)
        return replace(made, right=tuple(float(number < right) for number in range(2000)), tokens=(tokens,) * 2000)

    found = calibration(many("single", 1000, 10), many("majority:n=2", 1001, 20)).choose(Budget())
    assert found.arm.strategy == "single"
    assert found.reason.startswith("more compute does not help here: majority:n=2 gains +0.1 [+0.0, +0.")
    assert calibration(many("single", 1000, 10), many("majority:n=2", 1030, 20)).choose(Budget()).arm.tokens[0] == 20


def test_of_equal_arms_the_cheaper_is_chosen() -> None:
    assert calibration(SINGLE, FOUR, arm("most_likely:n=4", 12, 101)).choose(Budget()).arm == FOUR


def test_the_frontier_and_its_knee() -> None:
    worse = arm("most_likely:n=4", 11, 300)
    found = calibration(SINGLE, FOUR, worse, SIXTEEN)
    assert found.frontier() == [SINGLE, FOUR, SIXTEEN]
    # over the logarithm of tokens the line is 20, 45, 70 %, and majority:n=4 is 15 points above it
    assert found.knee() == FOUR
    assert calibration(SINGLE, FOUR).knee() == FOUR and calibration(SINGLE).knee() == SINGLE


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_text(text_of(MADE))
    assert read(path) == MADE
    shown = json.loads(path.read_text())["summary"][1]
    assert (shown["strategy"], shown["tokens"], shown["accuracy"]["value"]) == ("majority:n=4", 100.0, 0.6)


def test_calibrations_of_the_same_problems_are_merged() -> None:
    again = replace(FOUR, tokens=(120.0,) * 20)
    merged = calibration(SINGLE, FOUR).merged(calibration(again, SIXTEEN))
    assert merged.arms == (SINGLE, again, SIXTEEN) and len(merged.sources) == 2
    for other in (replace(MADE, seed=1), calibration(SINGLE, generator="other"), replace(MADE, problems=PROBLEMS[1:])):
        with pytest.raises(InputError, match="cannot be merged"):
            MADE.merged(other)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "recipe"}, "no kind 'calibration'"),
        ({"schema": 7}, "of schema 1"),
        ({"arms": []}, "it has no arm"),
        ({"arms": 3}, "arms is 3"),
        ({"problems": ["1"] * 3}, "has not one value for each of 20 problems"),
        ({"arms": [{}]}, "an arm has no strategy"),
        ({"arms": ["single"]}, "an arm has no strategy"),
        ({"measure": "luck"}, "measure is 'luck'"),
        ({"rates": [0.5]}, "rates is no list of 20 numbers"),
        ({"rates": [2.0] * 20}, "rates has a value outside of 0 to 1"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    refused(tmp_path, json.dumps(json.loads(text_of(MADE)) | change), reason)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("model", 3, "(model is 3)"),
        ("model", {}, "KeyError: 'generator'"),
        ("model", {"generator": "x"}, "KeyError: 'scorer'"),
        ("model.generator", 5, "model.generator is 5"),
        ("model.scorer", {}, "model.scorer is {}"),
        ("model.models", 3, "model.models is 3"),
        ("model.models", {"main": 5}, "model.models.main is 5"),
        ("model.models", {"main": "other"}, f"model.models.main is 'other' and model.generator is {WORDS!r}"),
        ("model.models", {"draft": [1]}, "model.models.draft is [1]"),
        ("model.models", {"drafft": "x"}, "delegate(majority:n=4): model.models has no role 'draft'"),
        ("model.provenance", 3, "model.provenance is 3"),
        ("model.provenance", {"main": 3}, "model.provenance.main is 3"),
        ("task", 3, "task is 3"),
        ("task", {}, "KeyError: 'name'"),
        ("sampling", {}, "KeyError: 'temperature'"),
        ("sampling.temperature", "warm", "sampling.temperature is 'warm'"),
    ],
)
def test_a_head_edited_by_hand_is_refused_in_one_line(tmp_path: Path, place: str, value: Any, reason: str) -> None:
    found = json.loads(text_of(BOTH))
    table, _, name = place.rpartition(".")
    (found[table] if table else found)[name] = value
    refused(tmp_path, json.dumps(found), reason)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("samples", {}, "samples.total is None, and no whole number"),
        ("samples", 3, "samples is 3"),
        ("samples", {"total": "many"}, "samples.total is 'many', and no whole number"),
        ("right", [2.0] * 20, "right has a value outside of 0 to 1"),
        ("right", ["x"] * 20, "majority:n=4: right is no list of 20 numbers"),
        ("tokens", [-1.0] * 20, "majority:n=4: tokens is -1.0; a cost is a number, 0 or more"),
        ("tokens", [1.0] * 19, "tokens is no list of 20 numbers"),
        ("strategy", "majorty:n=4", "did you mean 'majority'"),
        ("strategy", "majority:n=-4", "n=-4: give 1 or more"),
        ("usage", None, "usage is None"),
        ("seconds", "long", "seconds is 'long'"),
    ],
)
def test_an_arm_edited_by_hand_is_refused_in_one_line(tmp_path: Path, field: str, value: Any, reason: str) -> None:
    found = json.loads(text_of(MADE))
    found["arms"][1][field] = value
    refused(tmp_path, json.dumps(found), reason)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"x"', "null", "{}"])
def test_a_file_that_is_no_json_object_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text, "calibration=")


def refused(folder: Path, text: str, reason: str) -> None:
    path = folder / "made.json"
    path.write_text(text)
    code, _, errors = ran("plan", "made", "--calibration", str(path))
    assert (code, errors.count("\n")) == (2, 1) and reason in errors, errors


def result(strategy: str, n: int, right: Sequence[bool], **changes: Any) -> dict[str, Any]:
    """A bench's result with one run."""
    problems = [
        {"id": str(number), "correct": each, "generated_tokens": 10 * n, "signals": {"agreement": number / 30}}
        for number, each in enumerate(right)
    ]
    samples = {"total": n * len(right), "unreadable": 1, "missing": 0, "cut": 0, "timed_out": 0}
    run = {"strategy": strategy, "n": n, "n_problems": len(right), "usage": SINGLE.usage, "samples": samples}
    return {
        "schema": 1,
        "command": "thinktime bench made",
        "environment": {"thinktime": "0"},
        "task": {"name": "made", "n": len(right)},
        "model": {"generator": WORDS, "scorer": None},
        "sampling": {"temperature": 1.0},
        "seed": 0,
        "stamp": None,
        "runs": [run | {"problems": problems}],
    } | changes


def test_a_calibration_is_made_of_results_and_planned_with(tmp_path: Path) -> None:
    right = [number < 16 for number in range(20)]
    for name, made in (("one", result("single", 1, right[12:] + right[:12])), ("two", result("majority", 4, right))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(made))
    (tmp_path / "two" / "timing.json").write_text(json.dumps({"majority@4": 2.5}))
    files = [str(tmp_path / name / "result.json") for name in ("one", "two")]
    out = str(tmp_path / "made.json")
    code, shown, errors = ran("calibrate", *files, "--out", out)
    assert code == 0 and "majority:n=4" in shown and "80.0% [" in shown, errors
    found = read(Path(out))
    assert [(each.strategy, each.cost("tokens"), each.seconds) for each in found.arms] == [
        ("single", 10.0, None),
        ("majority:n=4", 40.0, 2.5),
    ]
    assert found.arms[0].signals["agreement"][:2] == (0.0, 0.0333)
    code, shown, _ = ran("plan", "made", "--calibration", out, "--budget", "20tok")
    assert code == 0 and "take:    single: no other strategy within the budget" in shown
    advised = json.loads(ran("plan", "made", "--calibration", out, "--json")[1])
    assert advised["arms"][1]["cost_per_point"] is None  # it is no more accurate than single
    assert advised["strategy"] == advised["knee"] == "single"
    code, _, errors = ran("plan", "other", "--calibration", out)
    assert (code, errors.count("\n")) == (2, 1) and "it is of the task 'made'" in errors


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (result("single", 1, [True] * (LEAST_PROBLEMS - 1)), f"take {LEAST_PROBLEMS} or more"),
        (result("single", 1, [True] * 20, stamp="The selector is the evaluator."), "A calibration needs another one"),
        (result("single", 1, [True] * 20, task={"name": "made", "n": 21}), "no run over all problems"),
        (result("single", 1, [True] * 20, runs=[{}]), "no whole result"),
        ({"schema": 1}, "no result of `thinktime bench`"),
    ],
)
def test_results_that_make_no_calibration_are_refused(tmp_path: Path, made: dict[str, Any], reason: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(made))
    code, _, errors = ran("calibrate", str(path), "--out", str(tmp_path / "out.json"))
    assert (code, errors.count("\n")) == (2, 1) and reason in errors, errors


def auto(found: Calibration, folder: Path) -> Auto:
    path = folder / "policy.json"
    path.write_text(text_of(found))
    return Auto(policy=str(path))


def searching(budget: str = "", **changes: Any) -> Search:
    given: dict[str, Any] = {"answers": ANSWERS, "sampling": Sampling(1.0, max_length=20)} | changes
    return Search(PROBLEM, WordGenerator(), budget=Budget.parse(budget) if budget else None, **given)


def test_auto_runs_what_the_calibration_advises_and_says_why(tmp_path: Path) -> None:
    method = auto(MADE, tmp_path)
    for budget, chosen in (("", "majority:n=16"), ("200tok", "majority:n=4"), ("20tok", "single")):
        mine, its = searching(budget), searching(budget)
        check("auto", method, mine)
        answers = asyncio.run(method(mine)), asyncio.run(parse(chosen)[1](its))
        assert (
            answers[0].value == answers[1].value
            and mine.ledger.spent.generated_tokens == its.ledger.spent.generated_tokens
        )
        assert mine.events[0]["strategy"] == chosen and mine.events[0]["reason"]


def test_auto_chooses_among_the_arms_that_the_search_can_run(tmp_path: Path) -> None:
    best = arm("best_of_n:n=4", 20, 50)
    method = auto(calibration(SINGLE, best, FOUR), tmp_path)
    search = searching()
    asyncio.run(method(search))
    assert search.events[0]["strategy"] == "majority:n=4"  # best_of_n needs a scorer


@pytest.mark.parametrize(
    ("found", "changes", "reason"),
    [
        (calibration(SINGLE, generator="another/float16"), {}, "it is of another model"),
        (calibration(SINGLE, scorer="another"), {"scorers": WordScorer()}, "it is of another scorer"),
        (MADE, {"sampling": Sampling(0.5, max_length=20)}, "it is of another temperature"),
        (calibration(FOUR), {"answers": None}, "can run none of its strategies"),
    ],
)
def test_auto_refuses_a_calibration_of_something_else(
    tmp_path: Path, found: Calibration, changes: dict[str, Any], reason: str
) -> None:
    search = searching(**changes)
    with pytest.raises(InputError, match=reason):
        check("auto", auto(found, tmp_path), search)
    assert search.ledger.spent.generated_tokens == 0


def test_the_number_format_is_no_other_model(tmp_path: Path) -> None:
    found = calibration(SINGLE, generator=f"{WORDS}/float16")
    check("auto", auto(found, tmp_path), searching())


# Several models

DRAFTS = arm("delegate(majority:n=4)", 10, 200, flops=500.0)
BOTH = calibration(SINGLE, FOUR, DRAFTS, models={"main": WORDS, "draft": "small"})
"""By tokens the draft's vote is the dearest; by FLOPs (100, 1000, 500) it is between the others."""


def test_costs_of_several_models_are_compared_in_a_unit_that_all_have() -> None:
    assert MADE.unit_of(Budget()) == "tokens" and BOTH.unit_of(Budget()) == "flops"
    assert BOTH.unit_of(Budget(calls=9)) == "calls" and BOTH.unit_of(Budget(calls=9, tokens=9)) == "flops"
    assert [each.cost("flops") for each in BOTH.in_unit("flops").arms] == [100, 500, 1000]
    assert BOTH.choose(Budget(flops=999)).arm == DRAFTS and BOTH.choose(Budget()).arm == FOUR
    assert "for 500 flops (delegate(majority:n=4))" in BOTH.choose(Budget(flops=999)).reason
    assert BOTH.choose(Budget(tokens=199)).arm == FOUR, "a budget of tokens compares tokens"
    unknown = calibration(SINGLE, replace(DRAFTS, usage={}), models={"main": WORDS, "draft": "small"})
    assert unknown.unit_of(Budget()) == "tokens"
    assert unknown.with_policies() is unknown, "tokens of two models are not compared"


def test_a_strategy_with_a_draft_needs_the_role_in_the_file(tmp_path: Path) -> None:
    cascade = arm("cascade:n=4", 12, 60)
    made = calibration(SINGLE, cascade)
    refused(tmp_path, text_of(made), "cascade:n=4: model.models has no role 'draft'")
    path = tmp_path / "made.json"
    path.write_text(text_of(calibration(SINGLE, cascade, models={"main": WORDS, "draft": "small"})))
    assert len(read(path).arms) == 2


def test_a_price_holds_for_roles_of_one_model(tmp_path: Path) -> None:
    same = calibration(SINGLE, DRAFTS, models={"main": WORDS, "draft": WORDS})
    same = replace(same, arms=tuple(replace(a, usage={**a.usage, **TOKENS}) for a in same.arms))
    assert [each.usage["dollars"] for each in priced(same, "1/2").arms] == [0.00003] * 2
    with pytest.raises(InputError, match="the calibration has several models"):
        priced(BOTH, "1/2")


def test_arms_of_a_model_have_a_curve_of_their_own() -> None:
    own = [arm("single", 4, 10), arm("majority:n=4", 8, 40), arm("majority:n=16", 12, 160)]
    its = [replace(each, strategy=f"delegate({each.strategy})", right=each.right[::-1]) for each in own]
    found = [{tuple(family.points) for family in families(arms)} for arms in (own, [*own, *its])]
    assert found == [{(0, 1, 2)}, {(0, 1, 2), (3, 4, 5)}]
    assert [(each.model, each.own, each.size) for each in its[:2]] == [
        ("draft", "single", 1),
        ("draft", "majority:n=4", 4),
    ]
    assert [begins_with(each.strategy, "draft") for each in its] == [True] * 3
    assert not any(begins_with(each.strategy, "main") for each in its), "its samples are none of the main model"
    assert not begins_with("delegate(single):model=main", "main"), "it draws in a search of its own"


def test_a_plan_over_models_names_them_in_its_command(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_text(text_of(BOTH))
    assert read(path) == BOTH
    code, out, _ = ran("plan", "made", "--calibration", str(path), "--budget", "999flops", "--json")
    advised = json.loads(out)
    assert code == 0 and [row["cost"] for row in advised["arms"]] == [100, 500, 1000]
    assert "--model MODEL --model draft=small --strategies 'delegate(majority:n=4)'" in advised["command"]
    code, out, _ = ran("plan", "made", "--calibration", str(path))
    assert code == 0 and "flops for a point" in out
    code, _, errors = ran("plan", "made", "--calibration", str(path), "--price", "1/2")
    assert code == 2 and "has several models" in errors


def test_auto_runs_the_model_that_the_calibration_advises(tmp_path: Path) -> None:
    models = {"main": WordGenerator(), "draft": WordGenerator()}
    found = calibration(SINGLE, FOUR, DRAFTS, models={"main": WORDS, "draft": WORDS})
    search = Search(
        PROBLEM, models, answers=ANSWERS, sampling=Sampling(1.0, max_length=20), budget=Budget.parse("999flops")
    )
    with pytest.raises(InputError, match="it is of another model of the role 'draft'"):
        check("auto", auto(BOTH, tmp_path), search)
    chosen = replace(found, arms=(DRAFTS,))
    (tmp_path / "other").mkdir()
    answer = asyncio.run(
        auto(chosen, tmp_path / "other")(
            Search(PROBLEM, models, answers=ANSWERS, sampling=Sampling(1.0, max_length=20))
        )
    )
    assert {role for _, role in answer.accounts} == {"model draft"} and answer.usage.model_calls == 4


@pytest.mark.parametrize("text", ["auto:policy=/etc/passwd", "restarts(auto:policy=x.json):n=2"])
def test_a_client_of_the_gateway_names_no_file(text: str) -> None:
    with pytest.raises(InputError, match="files are not read"):
        of_client(text)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_calibrations_are_whole_and_planned_with_by_name(path: Path) -> None:
    found = read(path)
    assert max(getattr(parse(each.strategy)[1], "n", 1) for each in found.arms) <= SAMPLES == of_client("auto").samples
    assert is_shipped(path.stem) and of_client(f"auto:policy={path.stem}").options["policy"] == path.stem
    code, out, _ = ran("plan", found.task["name"], "--model", found.model["provenance"]["main"]["name"], "--json")
    advised = json.loads(out)
    assert code == 0 and advised["strategy"] in {each.strategy for each in found.arms}


def test_a_task_without_a_shipped_calibration_says_how_to_make_one() -> None:
    code, _, errors = ran("plan", "gsm8k", "--model", "another", "--budget", "4000tok")
    assert (code, errors.count("\n")) == (2, 1) and "run `thinktime bench`, then `thinktime calibrate`" in errors
