"""Do policies by difficulty gain where methods cross by construction? A control, whose true accuracies are known.

    python -m experiments.planner.difficulty

Problems have all success rates from 0.02 to 0.98. A vote is right in the long run if a sample is right in more than
0.375, so it wins on easy problems; best-of-n by a scorer of a chosen AUC wins on hard ones. Writes ``difficulty.json``
beside this file, and prints the table.
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
AREAS = (0.5, 0.6, 0.7, 0.8, 0.9)
COUNT, HELD, REPEATS = 300, 5000, 8
"""Problems of a calibration, problems on which its policy is judged, and calibrations."""
BUDGET = 18

Floats = npt.NDArray[np.float64]


def calibration(count: int, area: float, rng: np.random.Generator) -> Calibration:
    """Single, votes and best-of-n on constructed problems; a sample costs one token."""
    most = SIZES[-1]
    rates = rng.uniform(0.02, 0.98, (count, 1))
    right = rng.random((count, most)) < rates
    wrong = np.where(rng.random((count, most)) < 0.6, 1, rng.integers(2, 10, (count, most)))
    answers = np.where(right, 0, wrong)
    scores = rng.normal(size=(count, most)) + shift(area) * right
    arms = [_arm("single", 1, right[:, 0], np.ones(count))]
    for n in SIZES:
        votes = (answers[:, :n, None] == np.arange(10)).sum(1)
        tied = votes == votes.max(1, keepdims=True)
        arms.append(_arm("majority", n, tied[:, 0] / tied.sum(1), votes.max(1) / n))
        picked = scores[:, :n].argmax(1)
        arms.append(_arm("best_of_n", n, right[np.arange(count), picked], votes.max(1) / n))
    return Calibration({}, {}, {}, 0, tuple(map(str, range(count))), tuple(arms), ())


def _arm(name: str, n: int, right: Floats | npt.NDArray[np.bool_], agreement: Floats) -> Arm:
    text = name if n == 1 else f"{name}:n={n}"
    solved = tuple(right.astype(float).tolist())
    return Arm(
        text, solved, (float(n),) * len(solved), {"judge_tokens": 0.0}, None, {}, {"agreement": tuple(agreement)}
    )


def measure(area: float, seed: int) -> dict[str, Any]:
    """The true gain of the advice over one strategy for all, in points, and the share of the tokens that it takes."""
    rng = np.random.default_rng([seed, round(100 * area)])
    gains, shares, followed = [], [], []
    for _ in range(REPEATS):
        made, held = (calibration(count, area, rng) for count in (COUNT, HELD))
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
    lines = ["| scorer's AUC | gain, points | share of the tokens | calibrations with a policy |", "|---" * 4 + "|"]
    for area, row in rows.items():
        cells = as_number(row["gain_points"], 1), as_number(row["share_of_tokens"]), f"{row['followed']:.0%}"
        lines.append(f"| {area} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    args, made = begin(HERE, __doc__, "difficulty", "difficulty.json")
    rows = {str(area): measure(area, args.seed) for area in AREAS}
    settings = {"problems": COUNT, "held_out": HELD, "repeats": REPEATS, "budget": BUDGET, "sizes": SIZES}
    write_json(args.out / "difficulty.json", made | settings | {"areas": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
