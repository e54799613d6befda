"""First finish search on samples whose lengths are drawn from known laws (2505.18149).

    python -m experiments.first_finish.control       # two minutes; writes control.json and control.png

Right samples have a normal length with mean 100 and deviation 20. Wrong ones are longer by the gap, in deviations, and
spread as widely or three times as widely. The search runs live on these samples; `normal_first` predicts its accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from experiments.constructed import RIGHT, answer, solved, success
from experiments.intervals import difference, mean, ratio
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.provenance import begin, write_json
from thinktime.core.trace import Answer
from thinktime.planning.lengths import normal_first

HERE = Path(__file__).parent
MEAN, DEVIATION, SHORTEST = 100, 20, 4
GAPS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
SPREADS = (1.0, 3.0)
"""Deviation of the wrong samples over that of the right ones."""
SIZES = (1, 2, 4, 8, 16, 32)
N = 8
"""Samples of the map against the gap."""
AT = 1.0
"""The gap of the map against n."""


def sample(problem: str, index: int, gap: float, spread: float) -> tuple[str, tuple[float, ...]]:
    """A sample as words; the last is its answer."""
    given, noise = answer(problem, index), Random(f"{problem}/{index}/length").gauss(0, 1)
    drawn = MEAN + DEVIATION * (noise if given == RIGHT else gap + spread * noise)
    return " ".join(["so"] * (max(SHORTEST, round(drawn)) - 1) + [given]), ()


def at(gap: float, spread: float, n: int, names: Sequence[str]) -> dict[str, Any]:
    """The first of n beside one sample, the vote of n, and the vote that generates as many tokens."""

    def run(strategy: str) -> list[Answer]:
        return [solved(strategy, name, lambda p, i: sample(p, i, gap, spread)) for name in names]

    def right(answers: Sequence[Answer]) -> list[float]:
        return [float(each.value == RIGHT) for each in answers]

    def tokens(answers: Sequence[Answer]) -> list[float]:
        return [float(each.usage.generated_tokens) for each in answers]

    one, first, vote = run("single"), run(f"first_finish:n={n},guard=off"), run(f"majority:n={n}")
    equal = max(1, round(n * sum(tokens(first)) / sum(tokens(vote))))
    fair = run(f"majority:n={equal}")
    laws = (MEAN, DEVIATION), (MEAN + gap * DEVIATION, spread * DEVIATION)
    return {
        "one_sample": mean(right(one)),
        "first": mean(right(first)),
        "majority": mean(right(vote)),
        "predicted": fmean(normal_first(success(name), *laws, n) for name in names),
        "equal_tokens": equal,
        "minus_one_sample": difference(right(first), right(one)),
        "minus_majority": difference(right(first), right(vote)),
        "minus_majority_of_equal_tokens": difference(right(first), right(fair)),
        "tokens_over_majority": ratio(tokens(first), tokens(vote)),
        "passes_over_one_sample": ratio([float(a.passes) for a in first], [float(a.passes) for a in one]),
        "passes_over_majority": ratio([float(a.passes) for a in first], [float(a.passes) for a in vote]),
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The gain over one sample against the gap, and the accuracy against n."""
    figure, (left, right) = panels(2, 11.5, 4.4)
    for colour, (spread, row) in enumerate(result["by_gap"].items(), 1):
        label = f"wrong ones spread {float(spread):g} times as widely"
        line(left, map(float, row), [each["minus_one_sample"] for each in row.values()], colour, label)
        gains = [100 * (each["predicted"] - each["one_sample"]["value"]) for each in row.values()]
        left.plot(list(map(float, row)), gains, "--", color=COLOURS[colour], lw=1, label="predicted")
    left.axhline(0, color=COLOURS[0], lw=0.8)
    left.set(xlabel="wrong samples are longer by, deviations", ylabel="points over one sample", title=f"first of {N}")
    left.legend(fontsize=8)
    for colour, (spread, row) in enumerate(result["by_n"].items(), 1):
        sizes = list(map(int, row))
        line(right, sizes, [each["first"] for each in row.values()], colour, f"first of n, spread {float(spread):g}")
        if colour == 1:
            line(right, sizes, [each["majority"] for each in row.values()], 0, "vote of n", "s-")
    logarithmic(right, "samples started, n")
    right.set(ylabel="right, %", title=f"wrong samples longer by {AT:g} deviation")
    right.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=200)
    names = [f"problem {i}" for i in range(args.problems)]
    by_gap = {str(spread): {str(gap): at(gap, spread, N, names) for gap in GAPS} for spread in SPREADS}
    by_n = {str(spread): {str(n): at(AT, spread, n, names) for n in SIZES} for spread in SPREADS}
    result = made | {"n_problems": len(names), "n": N, "gap": AT, "by_gap": by_gap, "by_n": by_n}
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")
    for name, table in (("gap", by_gap), ("n", by_n)):
        for spread, rows in table.items():
            for value, row in rows.items():
                gain = row["minus_one_sample"]
                print(f"spread {spread}, {name} {value}: {gain}, predicted {row['predicted']:.3f}, {row['first']}")


if __name__ == "__main__":
    main()
