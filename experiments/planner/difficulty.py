"""Do policies by difficulty gain where methods cross by construction? A control, whose true accuracies are known.

    python -m experiments.planner.difficulty

Problems have all success rates from 0.02 to 0.98. A vote is right in the long run if a sample is right in more than
0.375, so it wins on easy problems; best-of-n by a scorer of AUC 0.6 wins on hard ones. The signal of difficulty is the
agreement of the first samples, and a value that is the success rate with noise of a chosen deviation. Writes
``difficulty.json`` beside this file, and prints the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.constructed import shift
from experiments.intervals import as_number, mean
from experiments.planner.run import outcome
from experiments.provenance import begin, write_json
from thinktime.core.usage import Budget
from thinktime.planning.arms import Arm
from thinktime.planning.calibration import Calibration

HERE = Path(__file__).parent
SIZES = (2, 4, 8, 16)
AREA = 0.6
"""At which the two methods cross most, see row 08."""
NOISES = (0.0, 0.1, 0.2, 0.4, None)
"""Deviations of the signal from the success rate; None is no signal but the agreement."""
COUNT, HELD, REPEATS = 300, 5000, 8
"""Problems of a calibration, problems on which its policy is judged, and calibrations."""
BUDGET = 18

Floats = npt.NDArray[np.float64]


def calibration(count: int, noise: float | None, rng: np.random.Generator) -> Calibration:
    """Single, votes and best-of-n on constructed problems; a sample costs one token."""
    most = SIZES[-1]
    rates = rng.uniform(0.02, 0.98, (count, 1))
    right = rng.random((count, most)) < rates
    wrong = np.where(rng.random((count, most)) < 0.6, 1, rng.integers(2, 10, (count, most)))
    answers = np.where(right, 0, wrong)
    scores = rng.normal(size=(count, most)) + shift(AREA) * right
    known = {} if noise is None else {"confidence": tuple(rng.normal(rates[:, 0], noise).tolist())}
    arms = [_arm("single", 1, right[:, 0], known)]
    for n in SIZES:
        votes = (answers[:, :n, None] == np.arange(10)).sum(1)
        agreement = {"agreement": tuple((votes.max(1) / n).tolist())}
        tied = votes == votes.max(1, keepdims=True)
        arms.append(_arm("majority", n, tied[:, 0] / tied.sum(1), known | agreement))
        picked = scores[:, :n].argmax(1)
        arms.append(_arm("best_of_n", n, right[np.arange(count), picked], known | agreement))
    return Calibration({}, {}, {}, 0, tuple(map(str, range(count))), tuple(arms), ())


def _arm(name: str, n: int, right: Floats | npt.NDArray[np.bool_], signals: Mapping[str, tuple[float, ...]]) -> Arm:
    text = name if n == 1 else f"{name}:n={n}"
    solved = tuple(right.astype(float).tolist())
    return Arm(text, solved, (float(n),) * len(solved), {"judge_tokens": 0.0}, None, {}, signals)


def measure(noise: float | None, seed: int) -> dict[str, Any]:
    """The true gain of the advice over one strategy for all, in points, and the share of the tokens that it takes."""
    rng = np.random.default_rng([seed, 99 if noise is None else round(10 * noise)])
    gains, shares, followed = [], [], []
    for _ in range(REPEATS):
        made, held = (calibration(count, noise, rng) for count in (COUNT, HELD))
        made = made.with_policies()
        right, tokens = outcome(made.choose(Budget(tokens=BUDGET)), held, range(HELD))
        right_of_one, tokens_of_one = outcome(made.one(Budget(tokens=BUDGET)), held, range(HELD))
        gains.append(100 * (fmean(right) - fmean(right_of_one)))
        shares.append(fmean(tokens) / fmean(tokens_of_one))
        followed.append(float(made.choose(Budget(tokens=BUDGET)).policy is not None))
    return {
        "gain_points": mean(gains, seed),
        "share_of_tokens": mean(shares, seed),
        "followed": fmean(followed),
    }


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    lines = [
        "| noise of the signal | gain, points | share of the tokens | calibrations with a policy |",
        "|---" * 4 + "|",
    ]
    for noise, row in rows.items():
        cells = as_number(row["gain_points"], 1), as_number(row["share_of_tokens"]), f"{row['followed']:.0%}"
        lines.append(f"| {noise} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    args, made = begin(HERE, __doc__, "difficulty", "difficulty.json")
    rows = {"agreement alone" if each is None else str(each): measure(each, args.seed) for each in NOISES}
    settings = {"problems": COUNT, "held_out": HELD, "repeats": REPEATS, "budget": BUDGET, "sizes": SIZES}
    write_json(args.out / "difficulty.json", made | settings | {"auc": AREA, "noises": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
