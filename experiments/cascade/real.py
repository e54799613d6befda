"""The cascade on real samples: Qwen2.5-Coder-0.5B votes, and the 1.5B answers where its samples disagree.

    python -m experiments.cascade.real

The samples are programs for GSM8K, committed in `experiments/banks`. So this needs no model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.banks.judge import LARGE, judged_pool, known_exports
from experiments.cascade.replay import Model, Pair
from experiments.live import EXPORT, TASK
from experiments.provenance import FORCE, provenance, refuse_another, write_json

HERE = Path(__file__).parent
PRICE = 3.12
"""Parameters that a token is multiplied with: 1.54e9 of the 1.5B over 0.494e9 of the 0.5B."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, 0, "real")
    refuse_another(args.out / "real.json", made["command"], force=args.force)
    small, large = judged_pool(EXPORT), judged_pool(known_exports(LARGE)[TASK])
    by_id = {problem.id: problem for problem in large.problems}
    both = [problem for problem in small.problems if problem.id in by_id]
    answers = [by_id[problem.id] for problem in both]
    samples = {"small": both, "large": answers}
    about = {
        "models": {"small": small.generator, "large": large.generator},
        "settings": {"small": small.setting, "large": large.setting},
        "n_problems": len(both),
        "price": PRICE,
        "samples": {name: sum(len(each.samples) for each in some) for name, some in samples.items()},
        "without_answer": {
            name: sum(not sample.answered for each in some for sample in each.samples) for name, some in samples.items()
        },
        "cut": {
            name: sum(not sample.ended for each in some for sample in each.samples) for name, some in samples.items()
        },
    }
    write_json(args.out / "real.json", made | about | Pair(Model(both), Model(answers, PRICE)).measure())


if __name__ == "__main__":
    main()
