"""The HTML report: self-contained, safe with hostile text, unknown numbers marked as unknown, drawn by a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from math import log2
from pathlib import Path
from typing import Any

import pytest
from browser import Browser

from thinktime.bench.report import headline, write_report
from thinktime.core.errors import InputError

HOSTILE = "</script><b>x</b><!-- <img src=x onerror=\"document.title='owned'\"> & \u2028 {{data}}"
BUDGETS = (1, 2, 4, 8, 16)
LEVELS = {"1": 20, "2": 20, "3": 20, "4": 20, "5": 20}
GAINS = {  # strategy: accuracy gained by doubling n, tokens per sample, whether a scorer runs
    "majority": (0.035, 96.0, False),
    "weighted_majority": (0.055, 96.0, True),
    "best_of_n": (0.048, 96.0, True),
    "beam_search": (0.062, 81.0, True),
    "likelihood": (0.012, 96.0, False),
    "first_finish": (0.02, 71.0, False),
}


def estimate(value: float, half: float = 0.09) -> dict[str, float]:
    value = min(1.0, max(0.0, value))
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def make_run(strategy: str, n: int) -> dict[str, Any]:
    gain, tokens, scored = GAINS.get(strategy, (0.0, 96.0, False))
    accuracy = 0.41 + gain * log2(n)
    generated = tokens * n * (1.0 if n == 1 else 1.03)
    return {
        "strategy": strategy,
        "n": n,
        "options": {"n": n} if n > 1 else {},
        "n_problems": 100,
        "accuracy": estimate(accuracy),
        "versus_single": None if strategy == "single" else estimate_difference(accuracy - 0.41),
        "by_level": {
            level: {**estimate(accuracy + 0.45 - 0.15 * int(level), 0.17), "n": size} for level, size in LEVELS.items()
        },
        "usage": {
            "prompt_tokens": 88.0,
            "cached_tokens": 88.0 * (n - 1),
            "generated_tokens": generated,
            "scorer_tokens": (generated + 88 * n) if scored else 0.0,
            "model_calls": float(n),
            "scorer_calls": float(n) if scored else 0.0,
            "flops": None if strategy == "first_finish" else 2.1e7 * (generated + 88),
            "scorer_flops": 1.4e7 * (generated + 88 * n) if scored else 0.0,
            "kv_bytes": None if strategy == "likelihood" else 3.3e5 * generated,
            "dollars": None,
        },
        "passes": 104.2,
        "problems": [
            {"id": "p0", "level": 1, "correct": True, "answer": HOSTILE, "reference": "42", "finish": "done",
             "generated_tokens": 123},
        ],
    }  # fmt: skip


def estimate_difference(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.08, "high": value + 0.08}


def make_node(
    key: str, parent: str | None, depth: int, text: str, score: float | None, finish: str, pruned: bool = False
) -> dict[str, Any]:
    steps = [] if score is None else [score]
    return {"key": key, "parent": parent, "depth": depth, "text": text, "score": score, "steps": steps,
            "finish": finish, "tokens": len(text.split()) + 7, "pruned": pruned}  # fmt: skip


QUESTION = (
    "Kim has 31 shells. Leo gives 14 shells to Kim. Kim has 9 maps. Kim loses 3 shells. How many shells does Kim have?"
)


def beam_trace() -> dict[str, Any]:
    nodes = [
        make_node("r", None, 0, "", None, "root"),
        make_node("a", "r", 1, "Kim gets 14 from Leo, so Kim has 31 + 14 = 45.", 0.93, "step"),
        make_node("b", "r", 1, "Kim gets 14 from Leo, so Kim has 31 + 14 = 46.", 0.12, "step", True),
        make_node("c", "r", 1, "Kim has 9 maps, so Kim has 31 + 9 = 40.", 0.05, "step", True),
        make_node("d", "r", 1, "Kim gets 14 from Leo, so Kim has 31 - 14 = 17.", None, "step", True),
        make_node("aa", "a", 2, "Kim loses 3, so Kim has 45 - 3 = 42.", 0.97, "step"),
        make_node("ab", "a", 2, "Kim loses 3, so Kim has 45 - 3 = 41.", 0.31, "step"),
        make_node("ac", "a", 2, HOSTILE, 0.02, "length", True),
        make_node("aaa", "aa", 3, "Answer: 42", 0.99, "eos"),
        make_node("aba", "ab", 3, "Answer: 41", 0.34, "eos"),
    ]
    problem = {"id": "test-00017", "question": QUESTION, "reference": "42", "level": 3}
    return {"problem": problem, "strategy": "beam_search", "n": 4, "answer": "42", "correct": True, "returned": "aaa",
            "nodes": nodes}  # fmt: skip


def majority_trace() -> dict[str, Any]:
    solution = "Kim gets 14 from Leo, so Kim has 31 + 14 = {}.\nKim loses 3, so Kim has {} - 3 = {}.\nAnswer: {}"
    values = [(45, 45, 42, 42), (46, 46, 43, 43), (46, 46, 43, 43), (17, 17, 14, 14)]
    samples = [make_node(f"s{i}", "r", 1, solution.format(*v), None, "eos") for i, v in enumerate(values)]
    problem = {"id": "test-00017", "question": QUESTION + "\n" + HOSTILE, "reference": "42", "level": 3}
    return {"problem": problem, "strategy": "majority", "n": 4, "answer": "43", "correct": False, "returned": "s1",
            "nodes": [make_node("r", None, 0, "", None, "root"), *samples]}  # fmt: skip


@pytest.fixture
def result() -> dict[str, Any]:
    runs = [make_run("single", 1), *(make_run(strategy, n) for strategy in GAINS for n in BUDGETS[1:])]
    runs.append({**make_run("likelihood", 32), "accuracy": None, "versus_single": None, "by_level": {}})
    return {
        "schema": 1,
        "command": "thinktime bench pocket --n 100 --strategies single,majority,beam_search --budgets 1,2,4,8,16",
        "environment": {"thinktime": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "platform": "Linux", "cpu": None},
        "seed": 0,
        "task": {"name": "pocket", "n": 100, "levels": LEVELS},
        "model": {"generator": "solver@1f3a9c/float32", "scorer": "reward@77ab02/last/float32"},
        "sampling": {"temperature": 0.8, "top_p": 1.0, "max_tokens": 200},
        "runs": runs,
        "coverage": {str(n): estimate(0.41 + 0.105 * log2(n)) for n in BUDGETS},
        "traces": [beam_trace(), majority_trace()],
    }


@pytest.fixture
def timing(result: dict[str, Any]) -> dict[str, float]:
    timed = [run for run in result["runs"] if run["strategy"] != "likelihood"]
    return {f"{run['strategy']}@{run['n']}": 0.0004 * run["usage"]["generated_tokens"] for run in timed}


@pytest.fixture
def report(result: dict[str, Any], timing: dict[str, float], tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    write_report(result, timing, path)
    return path


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text inside ``script id=data``."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag == "script" and dict(attrs).get("id") == "data"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.data += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def count(self, tag: str, **attributes: str) -> int:
        return sum(t == tag and attributes.items() <= a.items() for t, a in self.elements)


def test_embedded_data_round_trips(report: Path, result: dict[str, Any], timing: dict[str, float]) -> None:
    data = json.loads(Elements(report.read_text("utf-8")).data)
    assert data == {"headline": headline(result), "warnings": [], "result": result, "timing": timing}


def test_nothing_in_the_file_refers_outside(report: Path) -> None:
    page = report.read_text("utf-8")
    policy = next(a["content"] for t, a in Elements(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    references = [a[name] for _, a in Elements(page).elements for name in ("src", "href", "action") if name in a]
    assert references == ["data:,"]
    assert re.findall(r"https?://[^\"'\s]+", page) == ["http://www.w3.org/2000/svg"]  # a name, never fetched
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", page)


def test_hostile_text_cannot_leave_the_data(report: Path) -> None:
    page = report.read_text("utf-8")
    assert page.count("</script>") == 2 and "<!--" not in page and "<img" not in page
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_the_file_is_the_same_every_time(report: Path, result: dict[str, Any], timing: dict[str, float]) -> None:
    again = report.with_name("again.html")
    write_report(result, timing, again)
    assert again.read_bytes() == report.read_bytes()


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    report: Path, result: dict[str, Any], timing: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    before = report.read_bytes()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_report(result | {"seed": 8}, timing, report)
    assert report.read_bytes() == before and list(report.parent.iterdir()) == [report]


def test_headline_compares_the_best_at_the_largest_budget_with_single(result: dict[str, Any]) -> None:
    del result["runs"][-1]
    assert headline(result) == (
        "At n=16, beam_search solves 65.8% [56.8, 74.8] of the problems: +24.8 points [+16.8, +32.8] against single "
        "(41.0%), for 17.7 times its FLOPs."
    )


def test_headline_reports_an_interval_that_includes_zero_and_an_unknown_cost(result: dict[str, Any]) -> None:
    run = make_run("first_finish", 2)
    result["runs"] = [make_run("single", 1), run]
    assert headline(result).endswith("for 1.52 times its generated tokens. The interval of the difference includes 0.")
    run["usage"]["generated_tokens"] = None
    assert "at an unknown cost" in headline(result)


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([], "No run has a known accuracy."),
        ([{**make_run("majority", 2), "accuracy": None}], "No run has a known accuracy."),
        ([{**make_run("majority", 2), "accuracy": estimate(0.4) | {"low": None}}], "No run has a known accuracy."),
        (
            [make_run("single", 1), {**make_run("majority", 2), "versus_single": {"value": None}}],
            "At n=2, majority solves 44.5% [35.5, 53.5] of the problems.",
        ),
        ([make_run("single", 1)], "At n=1, single solves 41.0% [32.0, 50.0] of the problems."),
    ],
)
def test_headline_without_a_comparison(runs: list[dict[str, Any]], sentence: str) -> None:
    assert headline({"runs": runs}) == sentence


def test_errors_name_the_field_and_the_fix(result: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="schema=2: this version writes reports of schema 1"):
        write_report({**result, "schema": 2}, {}, tmp_path / "x.html")
    with pytest.raises(InputError, match="give null for an unknown number"):
        write_report(result, {"single@1": float("nan")}, tmp_path / "x.html")
    with pytest.raises(InputError, match="cannot write it"):
        write_report(result, {}, tmp_path)


COVERAGE = "coverage (pass@k)"


Draw = Callable[..., str]


@pytest.fixture
def draw(tab: Browser) -> Draw:
    """Draws a page in a browser, runs some JavaScript statements there, and returns its HTML."""

    def drawn(page: Path, *clicks: str) -> str:
        tab.open(page.as_uri())
        tab.wait(lambda: tab.read("location.href + document.readyState") == f"{page.as_uri()}complete")
        for click in clicks:
            tab.read(click)
        return str(tab.read("document.documentElement.outerHTML"))

    return drawn


def visible(drawn: str) -> str:
    """The text of a drawn page, tags left out."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", drawn, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_a_browser_draws_plot_tables_and_traces(report: Path, result: dict[str, Any], draw: Draw) -> None:
    drawn = draw(report)
    elements, text = Elements(drawn), visible(drawn)
    n_runs, n_drawn = len(result["runs"]), len(result["runs"]) - 1
    assert elements.count("path", **{"class": "point"}) == n_drawn + len(result["coverage"])
    assert elements.count("path", **{"class": "whisker"}) == n_drawn + len(result["coverage"])
    assert elements.count("g", **{"class": "series"}) == len(GAINS) + 2
    assert elements.count("th", scope="row") == 2 * n_runs + 1 and elements.count("th", scope="col") > 15
    assert headline(result) in text and result["command"] in text and "Level 5 (20 problems)" in text
    assert "Not drawn, because cost or accuracy is unknown: likelihood@32." in text
    assert elements.count("details", **{"class": "trace"}) == 2
    assert elements.count("summary", **{"class": "line returned"}) == 5  # two roots, two steps, a solution
    assert "\u2713 right" in text and "\u2717 wrong" in text and "cpu unknown" in text
    assert "[object" not in text and "undefined" not in text and "NaN" not in text and "null" not in text


def test_a_run_that_lacks_samples_is_drawn_only_on_request(result: dict[str, Any], tmp_path: Path, draw: Draw) -> None:
    path, counts = (
        tmp_path / "lacking.html",
        {"total": 800, "unreadable": 8, "cut": 0, "missing": 400, "timed_out": 130},
    )
    for run in result["runs"]:
        run["samples"] = counts if run["strategy"] == "majority" else dict.fromkeys(counts, 0) | {"total": 800}
    write_report(result, {}, path)
    drawn = draw(path)
    elements, text = Elements(drawn), visible(drawn)
    assert elements.count("g", **{"data-series": "majority"}) == elements.count("g", **{"data-series": COVERAGE}) == 0
    assert "Not drawn, because samples are missing: pass@1" in text and "majority@16" in text.split("are missing:")[1]
    assert "majority, n = 16: of 800 samples 8 unreadable, 400 missing, 130 timed out" in text and "50.0%" in text
    write_report({**result, "plot_missing": True}, {}, path)
    elements = Elements(draw(path))
    assert elements.count("g", **{"data-series": "majority"}) == elements.count("g", **{"data-series": COVERAGE}) == 1


def test_a_table_has_the_answer_of_every_run_to_every_problem(
    result: dict[str, Any], tmp_path: Path, draw: Draw
) -> None:
    def answered(id_: str, correct: bool, answer: str | None) -> dict[str, Any]:
        return {"id": id_, "level": None, "correct": correct, "answer": answer, "reference": "7", "finish": "done",
                "generated_tokens": 1234}  # fmt: skip

    long = "x" * 40
    first, second = result["runs"] = [make_run("single", 1), make_run("majority", 2)]
    first["problems"] = [answered("p1", True, "7"), answered("p2", False, long)]
    second["problems"] = [answered("p2", False, None)]  # it has no outcome for p1
    path = tmp_path / "problems.html"
    write_report(result, {}, path)
    drawn = draw(path)
    table = drawn.split('id="problems"')[1].split("</table>")[0]
    rows = [visible(row) for row in table.split("<tbody>")[1].split("</tr>")]
    assert rows[0].split() == ["p1", "unknown", "7", "100%", "\u2713", "7", "unknown"]
    assert rows[1].split() == ["p2", "unknown", "7", "0%", "\u2717", "x" * 24 + "…", "\u2717", "no", "answer"]
    assert f'title="{long} · done · 1,234 tokens"' in table
    path.write_text("")
    write_report({**result, "runs": [{**run, "problems": []} for run in result["runs"]]}, {}, path)
    assert Elements(draw(path)).count("section", id="problems-section", hidden="") == 1


def test_hostile_text_stays_text_in_a_browser(report: Path, draw: Draw) -> None:
    drawn = draw(report)
    elements = Elements(drawn)
    assert elements.count("b") == 0 and elements.count("img") == 0
    assert "<title>thinktime · pocket · solver@1f3a9c/float32 · 100 problems · seed 0</title>" in drawn
    assert "&lt;/script&gt;&lt;b&gt;x&lt;/b&gt;&lt;!-- &lt;img src=x" in drawn


def test_axes_switch_strategies_hide_and_tables_sort(report: Path, draw: Draw) -> None:
    drawn = draw(
        report,
        "document.querySelectorAll('#axes button')[1].click();",
        "document.querySelectorAll('#legend button')[1].click();",
        "document.querySelectorAll('#runs thead button')[8].click();",
        "document.querySelectorAll('#runs thead button')[8].click();",
    )
    elements, text = Elements(drawn), visible(drawn)
    assert elements.count("button", **{"aria-pressed": "false"}) == 3  # two axes, one strategy
    assert "FLOPs per problem, generator and scorer (log scale, base 2)" in text
    assert "first_finish@16" in text.split("Not drawn")[1].split("All runs")[0]
    assert elements.count("g", **{"data-series": "majority"}) == 0
    assert elements.count("th", **{"aria-sort": "descending"}) == 1
    first = drawn.split("<tbody>")[1].split("</tr>")[0]
    assert "likelihood" in first and ">unknown<" in first  # 32 samples cost the most; their accuracy is unknown


def test_a_tooltip_has_the_exact_figures(report: Path, draw: Draw) -> None:
    shown = visible(draw(report, "point(view.points.findIndex(p => p.series === 'beam_search' && p.n === 8));"))
    assert (
        "beam_search, n = 8 accuracy 59.6% [50.6, 68.6] against single +18.6 [+10.6, +26.6] generated tokens 667 "
        "FLOPs 35.1 G seconds 0.267"
    ) in shown


def test_unknown_is_never_zero(result: dict[str, Any], tmp_path: Path, draw: Draw) -> None:
    run = result["runs"][0]
    run.update(usage=dict.fromkeys(run["usage"]), passes=None, accuracy=None, by_level={})
    result.update(runs=[run], coverage={}, traces=[], task={"name": "pocket", "n": 1, "levels": {}})
    path = tmp_path / "bare.html"
    write_report(result, {}, path)
    drawn = draw(path)
    row = visible(drawn.split("<tbody>")[1].split("</tbody>")[0])
    assert row.startswith("single 1 unknown the baseline unknown") and not re.search("[02-9]", row)
    assert Elements(drawn).count("button", title="unknown for every run") == 3
    assert "No run has a known accuracy." in visible(drawn)


def test_the_head_names_the_origin_of_the_models(result: dict[str, Any], tmp_path: Path, draw: Draw) -> None:
    known = {"name": "qwen", "source": "hub: org/qwen", "licence": "MIT", "revision": "c0ffee", "sha256": {"a": "12ab"}}
    unknown: dict[str, Any] = {
        "name": HOSTILE,
        "source": "files of the user",
        "licence": None,
        "revision": None,
        "sha256": {},
    }
    result["model"]["provenance"] = {"main": known, "draft": unknown}
    path = tmp_path / "models.html"
    write_report(result, {}, path)
    text = visible(draw(path))
    assert "qwen · licence MIT · revision c0ffee · SHA-256 12ab; " in text
    hostile = " ".join(HOSTILE.split())
    assert f"{hostile} · licence unknown · revision unknown" in text and "[object" not in text
