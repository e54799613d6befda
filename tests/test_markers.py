"""Marker words: their counts, their association with correctness, and votes weighted by them."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from random import Random

import pytest
from scipy.special import expit
from toy import Piece, done, score, solve, toy_search
from toy import extend as grow

from experiments.verifier_free.features import association, fit_weights
from thinktime.bench.samples import Sample, Sampled
from thinktime.core.errors import InputError
from thinktime.scorers.markers import Markers, MarkerScorer, Weights
from thinktime.strategies import make

MARKERS = Markers()


def rates(text: str, markers: Markers = MARKERS) -> tuple[float, ...]:
    return tuple(markers.rates(text).values())


# Counting


def test_rates_are_per_hundred_words() -> None:
    """Five words with one hedging, one thinking and one discourse marker: 20 per 100 words each."""
    assert rates("so perhaps it actually is") == (20.0, 20.0, 20.0)
    assert rates("") == (0.0, 0.0, 0.0)


def test_only_whole_words_count_in_any_case() -> None:
    assert rates("Then a strengthened, awaited mighty also") == (0.0, 0.0, 100 / 6)
    assert rates("MAYBE, (maybe) maybe.")[0] == 100.0


def test_the_longest_phrase_wins_over_words_of_other_kinds_in_it() -> None:
    """ "second" alone is a discourse marker; in "on second thought" it is part of a thinking marker."""
    assert rates("on second thought no") == (0.0, 25.0, 0.0)
    assert rates("the second thought no") == (0.0, 0.0, 25.0)
    overlapping = Markers(hedging=("not sure",), thinking=("not",), discourse=("so",))
    assert rates("not sure", overlapping) == (50.0, 0.0, 0.0)


def test_phrases_may_be_broken_over_lines_and_have_any_apostrophe() -> None:
    assert rates("not\n  sure let\u2019s check")[:2] == (25.0, 25.0)


def test_lists_in_other_languages_may_be_given() -> None:
    german = Markers(("vielleicht", "w\u00e4re"), ("moment",), ("also",))
    assert rates("Also vielleicht W\u00c4RE", german) == pytest.approx((200 / 3, 0.0, 100 / 3))


def test_an_empty_list_or_a_blank_marker_is_refused() -> None:
    with pytest.raises(InputError, match=r"markers\.thinking=\(\): give at least one"):
        Markers(thinking=())
    with pytest.raises(InputError, match=r"markers\.hedging=.*no blank ones"):
        Markers(hedging=("maybe", " "))


def test_features_begin_with_the_logarithm_of_the_words() -> None:
    assert MARKERS.features("a b c maybe") == (log(4), 25.0, 0.0, 0.0)
    assert MARKERS.features("")[0] == 0.0


# Association


def sample(text: str, correct: bool, *, ended: bool = True) -> Sample:
    return Sample(len(text.split()), "7" if correct else "8", correct, ended, text)


def test_within_problems_by_hand() -> None:
    """Right 2 and 4 words, wrong 4 and 6: of four pairs, the right sample is longer in none, and one pair ties."""
    problem = Sampled(
        "p", (sample("a a", True), sample("a " * 4, True), sample("a " * 4, False), sample("a " * 6, False))
    )
    found = association([problem], MARKERS)
    assert found["length"].auc.value == 0.5 / 4
    assert found["length"].difference.value == -2.0
    assert found["hedging"].auc.value == 0.5
    assert found["length"].mixed == 1


def test_difficulty_shows_in_the_pooled_number_only() -> None:
    easy = Sampled("easy", (*[sample("a " * 5, True)] * 9, sample("a " * 5, False)))
    hard = Sampled("hard", (sample("a " * 50, True), *[sample("a " * 50, False)] * 9))
    found = association([easy, hard], MARKERS)["length"]
    assert (found.auc.value, found.difference.value) == (0.5, 0.0)
    assert found.pooled == pytest.approx(0.1), "81 pairs of a short right and a long wrong sample, and 18 ties"


def test_samples_cut_at_the_limit_and_problems_of_one_kind_are_left_out() -> None:
    cut = sample("a " * 99, False, ended=False)
    mixed = Sampled("p", (sample("a a", True), sample("a a", False), cut))
    found = association([mixed, Sampled("q", (sample("a", True), cut))], MARKERS)["length"]
    assert (found.auc.value, found.mixed) == (0.5, 1)
    with pytest.raises(InputError, match="no problem has right and wrong samples"):
        association([Sampled("q", (sample("a", True), cut))], MARKERS)


# Fitting


def drawn(problems: int, n: int, seed: int = 1) -> list[Sampled]:
    """Hedging lowers the chance to be right; length depends only on the difficulty of the problem."""
    rng = Random(seed)
    found = []
    for index in range(problems):
        hard = rng.random()
        samples = []
        for _ in range(n):
            length, rate = 20 + round(80 * hard) + rng.randint(0, 60), rng.choice((0.0, 0.1, 0.2))
            hedges = round(rate * length)
            correct = rng.random() < expit(4 - 6 * hard - 10 * rate)
            words = ["maybe"] * hedges + ["x"] * (length - hedges)
            samples.append(sample(" ".join(words), correct))
        found.append(Sampled(str(index), tuple(samples)))
    return found


def test_the_fit_finds_effects_within_problems_and_ignores_difficulty() -> None:
    problems = drawn(60, 40)
    weights = fit_weights(problems, "m", MARKERS)
    length, hedging, thinking, discourse = weights.coefficients
    assert hedging == pytest.approx(-10 * weights.spreads[1] / 100, rel=0.2), (
        "the simulated effect, per standard deviation"
    )
    assert abs(length) < 0.2
    as_one = Sampled("all", tuple(sample for problem in problems for sample in problem.samples))
    assert fit_weights([as_one], "m", MARKERS).coefficients[0] < -1, "over problems, length is difficulty"
    assert (thinking, discourse) == pytest.approx((0.0, 0.0), abs=1e-6), "they never occur"
    assert weights.weight("x " * 30) > weights.weight("maybe " * 3 + "x " * 27)


def test_a_marker_that_separates_perfectly_has_a_finite_weight() -> None:
    problem = Sampled("p", (*[sample("x x x", True)] * 5, *[sample("maybe x x", False)] * 5))
    weights = fit_weights([problem], "m", MARKERS)
    assert -20 < weights.coefficients[1] < -0.5
    assert 0.5 < weights.weight("x x x") < 1


@pytest.mark.parametrize(("correct", "word"), [(True, "right"), (False, "wrong")])
def test_calibration_of_one_kind_is_refused(correct: bool, word: str) -> None:
    cut = sample("a", not correct, ended=False)
    with pytest.raises(InputError, match=f"calibration=2: its samples are all {word}"):
        fit_weights([Sampled("p", (sample("a", correct), cut)), Sampled("q", (sample("a", correct),))], "m", MARKERS)


def test_calibration_without_a_mixed_problem_is_refused() -> None:
    problems = [Sampled("p", (sample("a", True),)), Sampled("q", (sample("a", False),))]
    with pytest.raises(InputError, match="no problem has both right and wrong samples"):
        fit_weights(problems, "m", MARKERS)


# Weights


HEDGES_LOSE = Weights("toy", (0.0, -2.0, 0.0, 0.0), 0.0, (0.0,) * 4, (1.0, 50.0, 1.0, 1.0), MARKERS, 1, 2)
"""A text with half its words hedging is one standard deviation above the mean: weight 1 / (1 + e^2)."""


def test_a_weight_by_hand() -> None:
    assert HEDGES_LOSE.weight("so 7") == 0.5
    assert HEDGES_LOSE.weight("maybe 7") == pytest.approx(0.1192, abs=5e-5)


def test_loaded_weights_equal_the_saved_ones(tmp_path: Path) -> None:
    file = tmp_path / "weights.json"
    HEDGES_LOSE.save(file)
    assert Weights.load(file) == HEDGES_LOSE
    assert json.loads(file.read_text())["generator"] == "toy"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"markers": {"hedging": ["a"]}}', None])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "weights.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match="no marker weights"):
        Weights.load(file)


def test_weights_of_another_model_are_refused_with_both_names() -> None:
    with pytest.raises(InputError, match=r"weights='toy': .* do not apply to 'other'"):
        MarkerScorer(HEDGES_LOSE, "other")


def test_scorers_with_different_weights_have_different_names() -> None:
    changed = Weights("toy", (0.0, -1.0, 0.0, 0.0), *list(HEDGES_LOSE.__dict__.values())[2:])
    assert MarkerScorer(HEDGES_LOSE, "toy").name == MarkerScorer(HEDGES_LOSE, "toy").name
    assert MarkerScorer(HEDGES_LOSE, "toy").name != MarkerScorer(changed, "toy").name


# The vote


SAID: dict[str, Piece] = {"0": done("maybe 8"), "1": done("maybe 8"), "2": done("so 7"), "3": done("maybe 8")}


def test_weighted_majority_over_marker_scores_is_the_marker_weighted_vote() -> None:
    """Three hedged samples of 8 weigh 3 * 0.119 = 0.358, one plain sample of 7 weighs 0.5."""
    search = toy_search(SAID, MarkerScorer(HEDGES_LOSE, "toy"))
    answer = solve(make("weighted_majority", {"n": 4}), search)
    assert answer.value == "7"
    assert answer.share == pytest.approx(0.5 / (0.5 + 3 * 0.119203), abs=1e-5)
    assert answer.usage.scorer_calls == 4
    assert answer.usage.scorer_flops == 0.0
    assert solve(make("majority", {"n": 4}), toy_search(SAID, None)).value == "8"


def test_an_incomplete_generation_has_no_score() -> None:
    search = toy_search({"0": done("7 " * 20), "1": done("so 7")}, MarkerScorer(HEDGES_LOSE, "toy"))
    assert score(search, grow(search, [search.root], 2)) == [None, 0.5]
