"""The committed banks: examples of prompts, judgements beside an export, and samples as words."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.banks.examples import visible_tests
from experiments.banks.judge import digest, exports, judged_pool, judgements
from experiments.banks.words import saying, texts
from experiments.compute_optimal.real import chosen, dialled
from experiments.constructed import solved
from experiments.monkeys.control import FIRST, fitted, mixture
from experiments.pools import selectors
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.core.errors import InputError


def test_examples_in_both_forms_become_assertions() -> None:
    lines = (
        "def f(x, y=1):",
        '    """ Adds f(x).',
        "    >>> f(1, 2)",
        "    3",
        "    f([1]) ==> [2]",
        "    f(5) returns true",
    )
    prompt = "\n".join([*lines, '    """'])
    assert visible_tests(prompt, "f").splitlines() == [
        "assert f(1, 2) == 3",
        "assert f([1]) == [2]",
        "assert f(5) == True",
    ]


@pytest.mark.parametrize(
    "line",
    ["f(n) == 3", "f(1) == n", "f(1) = 3", "f(1) == 19 - 5 = 14", "g.f(1) == 2", "off(1) == 2", 'f("a") == "b', "f("],
)
def test_what_is_no_literal_example_is_left_out(line: str) -> None:
    assert visible_tests(f'def f(x):\n    """\n    {line}\n    """\n', "f") == ""


def export(folder: Path, rows: list[list[object]]) -> Path:
    """A made-up export with judgements of one problem."""
    path = folder / "task.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n"))
    problems = [{"id": "p", "reference": "7", "samples": rows}]
    found = {"export": digest(path), "model": "m", "setting": "s", "problems": problems}
    judgements(path).write_bytes(gzip.compress(json.dumps(found).encode()))
    return path


def test_judgements_make_a_pool_without_a_sandbox(tmp_path: Path) -> None:
    path = export(tmp_path, [["7", True, 3, True, -1.5, None], [None, False, 9, False, None, 1.0]])
    (problem,) = judged_pool(path).problems
    assert problem == Sampled(
        "p", (Sample(3, "7", True, logprob=-1.5), Sample(9, None, False, ended=False, reward=1.0)), "7"
    )
    with pytest.raises(InputError, match=r"n=3: no problem of task.jsonl.gz has as many samples"):
        judged_pool(path, 3)


def test_judgements_of_another_export_are_refused(tmp_path: Path) -> None:
    path = export(tmp_path, [["7", True, 3, True, -1.5, None]])
    path.write_bytes(gzip.compress(b"{}\n{}\n"))
    with pytest.raises(InputError, match=r"they are of another task.jsonl.gz"):
        judged_pool(path)
    judgements(path).unlink()
    with pytest.raises(InputError, match="they are not there"):
        judged_pool(path)


def test_every_committed_export_has_its_judgements() -> None:
    for path in exports():
        pool = judged_pool(path)
        assert len(pool.problems) > 50 and pool.fewest >= 4
    with pytest.raises(InputError, match=r"the repository has: .*gsm8k-program"):
        exports(["gsm9k"])


def test_real_samples_run_as_words() -> None:
    wrong, right = Sample(4, "5", False), Sample(3, "7", True)
    cut, other = Sample(2, None, False, ended=False), Sample(2, "6", False)
    problem = Sampled("p", (wrong, right, cut, other, wrong), "7")
    assert texts(problem) == ["so so so 1", "so so 0", "so none", "so 2", "so so so 1"]
    say = saying(Pool("m", "s", "tokens", (problem,)))
    assert solved("majority:n=5", "p", say).value == "1"
    first = solved("first_finish:n=4,guard=off", "p", say)
    assert first.value == "2" and first.passes == 2 and first.usage.generated_tokens == 8


def test_the_constructed_rates_have_the_coverage_of_the_law() -> None:
    rates, weights, error = mixture(0.3)
    assert error < 1e-4 and weights.sum() == pytest.approx(1)
    for k in (1, 16, 256):
        assert weights @ (1 - (1 - rates) ** k) == pytest.approx(np.exp(np.log(FIRST) * k**-0.3), abs=1e-4)


def test_the_interval_of_an_exponent_contains_its_fit() -> None:
    counts = [(16, right) for right in (0, 0, 1, 2, 4, 8, 12, 16)]
    law, exponent = fitted(counts, 16, seed=0, refits=20)
    assert exponent["low"] <= law.b == exponent["value"] <= exponent["high"]


def test_a_choice_by_difficulty_gains_where_methods_cross_and_nothing_where_they_do_not() -> None:
    difficulty = [place / 40 for place in range(40)]
    easy = [float(value > 0.5) for value in difficulty]
    crossing = {"easy": easy, "hard": [1 - value for value in easy]}
    policy = chosen(crossing, difficulty)
    assert policy["minus_best_single"]["value"] > 0.3 and set(policy["picks"]) == {"easy", "hard"}
    same = chosen({"first": easy, "second": easy}, difficulty)
    assert same["minus_best_single"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert set(same["picks"]) == {"first"}


def test_a_dial_keeps_its_noise_and_orders_right_above_wrong() -> None:
    problem = Sampled("p", tuple(Sample(1, str(i), i % 2 == 0) for i in range(200)), "0")
    low, high = dialled(0.5, problem, 200), dialled(0.99, problem, 200)
    assert [s.reward for s in low if not s.correct] == [s.reward for s in high if not s.correct]
    right, wrong = ([s.reward or 0.0 for s in high if s.correct is kind] for kind in (True, False))
    assert min(right) > sorted(wrong)[len(wrong) // 2]


def test_functions_have_no_vote_but_examples() -> None:
    function = Sampled("f", (Sample(1, "ab", True, reward=1.0),))
    assert list(selectors(Pool("m", "s", "tokens", (function,)))) == ["likeliest sample", "examples of the prompt"]
    value = Sampled("v", (Sample(1, "7", True),), "7")
    assert list(selectors(Pool("m", "s", "tokens", (value,)))) == ["vote", "likeliest sample"]
