"""Let measurements choose the strategy: what is the best method within each of several budgets?

    python examples/plan.py
    python examples/plan.py --calibration calibration.json

It reads the shipped calibration, or one of `thinktime calibrate`. No model is loaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from thinktime import Budget
from thinktime.planning.calibration_files import read, shipped


def main() -> None:
    """Print a line for each budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--budgets", default="100tok,200tok,400tok,800tok", help="one line for each")
    given = parser.parse_args()

    found = read(given.calibration) if given.calibration else next(shipped("gsm8k-program"))[1]
    print(f"{found.task['name']}, {len(found.problems)} problems, {found.model['generator']}")
    for text in given.budgets.split(","):
        advice = found.choose(Budget.parse(text))
        print(f"{text}: {advice.arm.strategy}, right {advice.arm.accuracy}, {advice.reason}")


if __name__ == "__main__":
    main()
