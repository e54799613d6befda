"""Row 35: the greedy tree with the settings that help in the control, on the shipped digits.

    python -m experiments.dts.real            # 5 minutes on an idle core; goes on where it was stopped

The draws and the reward are those of `experiments.dts.run`. The tree takes four steps of the sampler at once and widens
with the power 0.25 of its visits. The weight of exploration stays 1: the rewards spread over several units here, and
over one in the control.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiments.dts.run import HERE, STEPS, TARGET
from experiments.image_bench import ImageBench, minus, of_first, reward, summary
from experiments.intervals import as_number, as_percent
from experiments.provenance import provenance, write_json

BUDGETS, STRIDE, OPTIONS = (240, 480), 4, {"n": 4096, "alpha": 0.25, "walks": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/dts-real"))
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    draws = [(None, seed) for seed in range(args.draws)]
    bench = ImageBench(args.kept, STEPS, 1.0, TARGET)
    shallow = ImageBench(args.kept, STEPS, 1.0, TARGET, stride=STRIDE)
    pool = bench.run("best_of_n", "best_of_n", {"n": BUDGETS[-1] // STEPS}, draws)
    rows: dict[str, Any] = {}
    for nfe in BUDGETS:
        plain = of_first(pool, nfe // STEPS, STEPS)
        tree = shallow.run(f"narrow-{nfe}", "dts", OPTIONS, draws, nfe=nfe)
        rows[f"best of n, {nfe}"] = summary(plain)
        rows[f"DTS*, narrow, {nfe}"] = summary(tree) | {
            "reward_minus_best_of_n": minus(tree, plain, reward),
            "hit_minus_best_of_n": minus(tree, plain),
        }
    for name, row in rows.items():
        print(
            name,
            as_number(row["reward"]),
            as_percent(row["hit"]),
            as_number(row.get("reward_minus_best_of_n", row["reward"])),
        )
    result = {
        **provenance(HERE, 0, "real"),
        "n_draws": len(draws),
        "steps": STEPS,
        "stride": STRIDE,
        "options": OPTIONS,
    }
    write_json(args.out / "real.json", result | {"target": TARGET, "rows": rows})


if __name__ == "__main__":
    main()
