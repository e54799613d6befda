"""First results on the committed banks: accuracy against tokens and against seconds, and what became of the samples.

    python -m experiments.banks.table

Reads the exports and their judgements, so it needs no model, no sandbox and no data. Accuracies are over random subsets
of the samples of a problem; "tests" is best-of-n by the tests of HumanEval, or by the right answer, which is coverage.
Writes ``result.json`` and ``plot.png``, and prints the table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.banks.judge import LARGE, SMALL, SUFFIX, exports, judged_pool, known_exports
from experiments.intervals import as_percent, as_points, difference, mean
from experiments.plot import COLOURS, bars, line, logarithmic, panels, save
from experiments.pools import selectors
from experiments.provenance import begin, write_json
from thinktime.bench.bank_export import LONGEST, header_of
from thinktime.bench.jsonl import read_jsonl
from thinktime.bench.selectors import curve
from thinktime.bench.statistics import pass_at_k

HERE = Path(__file__).parent
TESTS = "best by tests (coverage)"


def costs(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Tokens and seconds of the whole samples of each problem, in their order."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _, row in read_jsonl(path, LONGEST):
        if "usage" in row and "index" in row and "cut" not in row:
            found[row["problem"]].append((row["tokens"], row["usage"].get("seconds", 0.0)))
    return found


def measure(path: Path, seed: int) -> dict[str, Any]:
    """Accuracy and costs by the number of samples."""
    pool, header = judged_pool(path), header_of(path)
    most = pool.fewest
    pool = replace(pool, problems=tuple(replace(p, samples=p.samples[:most]) for p in pool.problems))
    ks = [2**i for i in range(most.bit_length()) if 2**i <= most]
    spent = [list(accumulate(costs(path)[p.id][:most], lambda a, b: (a[0] + b[0], a[1] + b[1]))) for p in pool.problems]
    one = [problem.pass_rate for problem in pool.problems]
    found = {
        name: curve(pool.problems, ks, of, score=score, seed=seed) for name, (of, score) in selectors(pool).items()
    }
    right = {name: {k: list(of[k].each) for k in ks} for name, of in found.items()}
    right[TESTS] = {k: [pass_at_k(n, good, k) for n, good in pool.counts] for k in ks}
    samples = [sample for problem in pool.problems for sample in problem.samples]
    return {
        "model": header["provenance"],
        "sampling": header["sampling"],
        "n_problems": len(pool.problems),
        "samples_each": most,
        "without_answer": sum(sample.key is None for sample in samples),
        "cut": sum(not sample.ended for sample in samples),
        "one_sample": mean(one, seed),
        "costs": {
            str(k): {
                "tokens": fmean(each[k - 1][0] for each in spent),
                "seconds": fmean(each[k - 1][1] for each in spent),
            }
            for k in ks
        },
        "by_method": {
            name: {
                str(k): {"accuracy": mean(of[k], seed), "minus_one_sample": difference(of[k], one, seed)}
                for k in ks
                if k > 1
            }
            for name, of in right.items()
        },
    }


def greedy(name: str, seed: int, model: str = SMALL) -> dict[str, Any] | None:
    """The samples at temperature 0 of a task; None if the repository has none."""
    path = known_exports(model).get(f"{name}-greedy")
    if path is None:
        return None
    pool, spent = judged_pool(path), costs(path)
    samples = [problem.samples[0] for problem in pool.problems]
    return {
        "n_problems": len(samples),
        "without_answer": sum(sample.key is None for sample in samples),
        "cut": sum(not sample.ended for sample in samples),
        "accuracy": mean((float(sample.correct) for sample in samples), seed),
        "tokens": fmean(spent[problem.id][0][0] for problem in pool.problems),
        "seconds": fmean(spent[problem.id][0][1] for problem in pool.problems),
    }


def minus_large(path: Path, name: str, seed: int) -> dict[str, Any] | None:
    """All samples of the small model, minus one of the large model at temperature 0, on the same problems."""
    other = known_exports(LARGE).get(f"{name}-greedy")
    if other is None:
        return None
    large = {problem.id: problem.pass_rate for problem in judged_pool(other).problems}
    pool = judged_pool(path)
    pool = replace(pool, problems=tuple(problem for problem in pool.problems if problem.id in large))
    k, base = pool.fewest, [large[problem.id] for problem in pool.problems]
    found = {
        method: difference(curve(pool.problems, [k], of, score=score, seed=seed)[k].each, base, seed)
        for method, (of, score) in selectors(pool).items()
    }
    found[TESTS] = difference([pass_at_k(n, good, k) for n, good in pool.counts], base, seed)
    return {"n_problems": len(base), "samples_each": k, "minus": found}


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Two panels a task: right answers against tokens, and below against seconds."""
    shown = result["tasks"]
    figure, each = panels(len(shown), 4.5 * len(shown), 8, rows=2)
    colours = {"vote": 1, "likeliest sample": 2, "examples of the prompt": 3, TESTS: 0}
    for place, (name, of) in enumerate(shown.items()):
        for axes, unit in zip(each[place :: len(shown)], ("tokens", "seconds"), strict=True):
            cost = {k: row[unit] for k, row in of["costs"].items()}
            for method, rows in of["by_method"].items():
                points = {"1": of["one_sample"]} | {k: row["accuracy"] for k, row in rows.items()}
                style = "--" if method == TESTS else "o-"
                line(axes, [cost[k] for k in points], points.values(), colours[method], method, style)
            for which, label, colour in (("greedy", "temperature 0", 4), ("large", "1.5B, temperature 0", 5)):
                if one := of[which]:
                    y, whiskers = bars([one["accuracy"]])
                    axes.errorbar([one[unit]], y, whiskers, fmt="*", ms=11, color=COLOURS[colour], label=label)
            logarithmic(axes, f"{'generated tokens' if unit == 'tokens' else 'seconds of one thread'} per problem")
            axes.set_title(f"{name}: {of['n_problems']} problems")
    for axes in each[:: len(shown)]:
        axes.set_ylabel("right, %")
    handles: dict[str, Any] = {}
    for axes in each:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=9)
    save(figure, path, (0, 0.05, 1, 1))


def printed(name: str, of: Mapping[str, Any]) -> str:
    """The table of a task in Markdown."""
    lines = [
        f"`{name}`: {of['n_problems']} problems, {of['samples_each']} samples of each, "
        f"{of['without_answer']} without an answer, {of['cut']} cut",
        "",
        "| method | n | right, % | minus one sample, points | tokens | seconds |",
        "|---|---|---|---|---|---|",
        f"| one sample | 1 | {as_percent(of['one_sample'])} | | {_cost(of['costs']['1'])} |",
    ]
    for which, model in (("greedy", ""), ("large", "1.5B, ")):
        if one := of[which]:
            label = f"{model}temperature 0, {one['n_problems']} problems"
            lines.append(f"| {label} | 1 | {as_percent(one['accuracy'])} | | {_cost(one)} |")
    for method, rows in of["by_method"].items():
        for k, row in rows.items():
            gain = as_points(row["minus_one_sample"])
            lines.append(f"| {method} | {k} | {as_percent(row['accuracy'])} | {gain} | {_cost(of['costs'][k])} |")
    if other := of["minus_large"]:
        gains = ", ".join(f"{method} {as_points(gain)}" for method, gain in other["minus"].items())
        lines += ["", f"Minus the 1.5B, {other['samples_each']} samples, {other['n_problems']} problems: {gains}"]
    return "\n".join(lines)


def _cost(of: Mapping[str, Any]) -> str:
    return f"{of['tokens']:.0f} | {of['seconds']:.1f}"


def main() -> None:
    args, made = begin(HERE, __doc__, "table", "result.json")
    tasks = {}
    for path in exports():
        name = path.name.removesuffix(SUFFIX)
        tasks[name] = measure(path, args.seed) | {
            "greedy": greedy(name, args.seed),
            "large": greedy(name, args.seed, LARGE),
            "minus_large": minus_large(path, name, args.seed),
        }
    result = made | {"tasks": tasks}
    write_json(args.out / "result.json", result)
    plot(result, args.out / "plot.png")
    print("\n\n".join(printed(name, of) for name, of in tasks.items()))


if __name__ == "__main__":
    main()
