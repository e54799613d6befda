"""The shipped image model, from the command line to the picture."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thinktime import cli, pocket
from thinktime.bench import gallery
from thinktime.models.diffusion.classifier import Classifier
from thinktime.pocket.digits import scorer_for


@pytest.fixture
def paint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs the command; returns its standard output and standard error."""

    def run(*words: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["thinktime", "paint", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.run()
        out, err = capsys.readouterr()
        assert not stopped.value.code, err
        return out, err

    return run


def test_a_digit_is_painted_and_its_cost_is_printed(tmp_path: Path, paint: Callable[..., tuple[str, str]]) -> None:
    path = tmp_path / "new" / "seven.png"
    out, _ = paint("digit 7, heavy ink", "--strategy", "fk_steering:n=4", "--out", str(path), "--json")
    result: dict[str, Any] = json.loads(out)
    assert result["usage"]["denoiser_calls"] == 80 and result["usage"]["generated_tokens"] == 0
    assert result["usage"]["scorer_flops"] > 0
    assert result["finish"] == "done" and result["strategy"] == "fk_steering"
    picture = (np.asarray(Image.open(path), np.float32) / np.float32(255)).astype(np.float32)
    assert picture.shape == (256, 256)
    small = picture[8::16, 8::16][None]
    for kind in ("digits_scorer", "digits_judge"):
        assert Classifier.load(pocket.directory(kind)).log_probabilities([small])[0].argmax() == 7
    score = Classifier.load(pocket.directory("digits_scorer")).log_probabilities([small])[0, 7] + 10 * small.mean()
    assert result["score"] == pytest.approx(score, abs=0.05)


def test_a_budget_is_kept_and_the_same_seed_paints_the_same(
    tmp_path: Path, paint: Callable[..., tuple[str, str]]
) -> None:
    pictures = []
    for name in ("one.png", "other.png"):
        out, _ = paint("4", "--budget", "70nfe", "--seed", "3", "--out", str(tmp_path / name))
        nfe = re.search(r"(\d+) evaluations of the denoiser", out)
        assert nfe and 50 <= int(nfe[1]) <= 70 and "(dts, budget)" in out
        pictures.append(np.asarray(Image.open(tmp_path / name)))
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_a_pull_needs_no_search_and_warnings_are_printed(tmp_path: Path, paint: Callable[..., tuple[str, str]]) -> None:
    path = str(tmp_path / "one.png")
    plain, pulled = (
        json.loads(
            paint("digit 2, heavy ink", "--strategy", "best_of_n:n=1", "--steps", "10", "--json", *more, "--out", path)[
                0
            ]
        )
        for more in ((), ("--pull", "3"))
    )
    assert pulled["score"] > plain["score"]
    assert pulled["usage"]["flops"] == 2 * plain["usage"]["flops"]
    _, result = paint("2", "--strategy", "fk_steering:n=2,start=9", "--steps", "5", "--out", path)
    assert "warning: no step is scored before the end with start=9, every=4: this is importance sampling" in result


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digit 12"], "prompt='digit 12': name one class: 0, 1,"),
        (["5", "--budget", "10nfe"], "budget='10nfe': not enough for one picture, which takes 20nfe"),
        (["5", "--budget", "100tok"], "budget.tokens=100: this model generates no tokens"),
        (["5", "--out", "five.jpg"], "out='five.jpg': pictures are written as PNG"),
        (["5", "--scorer", "beauty"], "scorer='beauty': unknown; there are: class,"),
        (["5", "--scorer", "class+10**ink"], "scorer='class+10**ink': write measures with their weights"),
        (["5", "--scorer", "class 10*ink"], "scorer='class 10*ink': write measures with their weights"),
        (["5", "--scorer", "clip"], "scorer='clip': say where its weights are: clip=DIRECTORY"),
        (["5", "--strategy", "fk_steering", "--eta", "0"], "it needs steps that are drawn"),
        (["5", "--strategy", "zero_order", "--eta", "1"], "it needs a sample that its first noise decides"),
        (["5", "--strategy", "majority"], "it needs answers that can be read and compared"),
        (["5", "--model", "no/such/folder"], "no diffusers directory"),
        (["5", "--pull", "2", "--scorer", "compressibility"], "pull='compressibility': it has no gradient"),
        (["5", "--strategy", "best_of_n:by=ranks"], "by='ranks': an ensemble needs at least two verifiers"),
        (["5", "--steps", "5000"], "steps=5000: give 1 to 1000"),
    ],
)
def test_bad_options_are_refused_in_one_line_and_nothing_is_painted(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["thinktime", "paint", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.run()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_of_the_shipped_model_selects_its_measures() -> None:
    assert scorer_for("digit 7") == "class"
    assert scorer_for("a 3 with Heavy Ink") == "class+10*ink"
    assert scorer_for("8, light ink, symmetric") == "class-10*ink+10*symmetry"


def test_the_gallery_shows_every_method_with_its_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "DIGITS", (4, 9))
    monkeypatch.setattr(gallery, "BUDGETS", (40, 80))
    found = gallery.paintings()
    assert [name for name, _ in found] == ["single", *(name for name in gallery.METHODS for _ in range(2))]
    plain = sum(painted.score for painted in found["single", 20])
    assert all(sum(p.score for p in row) >= plain for (name, _), row in found.items() if name == "best_of_n")
    gallery.draw(found, tmp_path / "sheet.png")
    assert np.asarray(Image.open(tmp_path / "sheet.png")).std() > 10
