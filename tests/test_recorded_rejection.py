"""Early rejection on recorded samples: by hand."""

from __future__ import annotations

import pytest

from experiments.early_rejection.recorded import Solution, at_random, calibration, chosen, kept_after, tokens

SURE_LATE = Solution((-3.0, -0.1, -0.1, -0.1), right=True, readable=True)
SURE_EARLY = Solution((-0.1, -3.0, -3.0, -3.0), right=False, readable=True)
MIDDLE = Solution((-1.0, -1.0), right=False, readable=True)
UNREADABLE = Solution((0.0, 0.0, 0.0), right=False, readable=False)
FOUR = (SURE_LATE, SURE_EARLY, MIDDLE, UNREADABLE)


def test_the_most_confident_sample_with_an_answer_is_chosen() -> None:
    assert chosen(FOUR) == 1.0
    assert chosen([SURE_EARLY, MIDDLE]) == 0.0
    assert chosen([UNREADABLE]) == 0.0


def test_samples_are_kept_by_their_first_tokens() -> None:
    assert kept_after(1)(FOUR) == [UNREADABLE, SURE_EARLY]
    assert kept_after(4)(FOUR) == [UNREADABLE, SURE_LATE]


def test_rejected_samples_cost_their_first_tokens_alone() -> None:
    assert tokens(FOUR, [UNREADABLE, SURE_EARLY], 1) == 4 + 2 + 3
    assert tokens(FOUR, [SURE_LATE, MIDDLE], 3) == 3 + 3 + 2 + 3 + 1


def test_random_choices_are_averaged_over_all_of_them() -> None:
    assert at_random(FOUR, 1) == 0.25
    assert at_random(FOUR, 2) == pytest.approx(3 / 6)


def test_calibration_compares_partial_with_whole_confidence() -> None:
    rising = [Solution((-float(n), -float(n), -float(n)), right=True, readable=True) for n in range(4)]
    found = calibration([rising, rising], 1)
    assert found["correlation"] == pytest.approx(1) and found["n_longer"] == 8
    assert found["kendall_within"]["value"] == 1 and found["recall"]["value"] == 1
