"""Row 39 on a real model: Qwen2.5-Coder-0.5B writes functions for HumanEval, and repairs failing ones.

    python -m experiments.agenttts.real --data FOLDER --fill     # draws repairs; can be interrupted
    python -m experiments.agenttts.real --data FOLDER            # analyses what there is, without a model

The pipeline is generate, test, repair. The functions come from the committed bank, the tests are the examples of the
prompt and run in the sandbox, and repairs are drawn live.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.agenttts.examples import Examples
from experiments.banks.judge import SMALL, judged_pool, known_exports
from experiments.intervals import as_percent, as_points, difference, mean
from experiments.live import TEMPERATURE
from experiments.partial import Run, fill, recorded
from experiments.plot import line, panels, save
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime.bank.store import Bank
from thinktime.bench.bank_export import header_of, import_samples
from thinktime.bench.tasks import Task, load
from thinktime.config import Config, ModelSpec
from thinktime.core.types import MAIN
from thinktime.planning.pipeline_advisors import BuiltInRules
from thinktime.planning.pipeline_search import Archive, ResultTable, refuse_shared, search_allocations
from thinktime.planning.pipeline_space import Allocation, PipelineSpace, Reference, StageChoice, Subtask
from thinktime.session import Session, open_session

HERE = Path(__file__).parent
TASK = "humaneval"
GENERATED, REPAIRED = 4, 3
SIZE = 4.9e8
"""Parameters of the model."""


def name(answers: int, repairs: int) -> str:
    """The label of a pipeline of so many samples in its two stages."""
    return f"{answers} answers, {repairs} repairs"


def strategies() -> dict[str, str]:
    """All pipelines by label; without repairs it is best-of-n by the same tests. The vote is of whole programs."""
    found = {f"vote of {n}": f"majority:n={n}" for n in range(2, GENERATED + 1)}
    for n in range(1, GENERATED + 1):
        found[name(n, 0)] = f"best_of_n:n={n}"
        for k in range(1, REPAIRED + 1):
            found[name(n, k)] = f"pipeline:stages=generate*{n};repair*{k}"
    return found


def settings(task: Task) -> Config:
    """The model and the sampling of the committed bank."""
    model = ModelSpec(SMALL, dtype="float16")
    return Config(model, "none", temperature=TEMPERATURE, max_tokens=task.max_tokens, stop=task.stop)


def live(task: Task) -> Session:
    """The model, with the examples of the prompts as its scorer."""
    return replace(open_session(settings(task)), answers=task.answers, scorers={MAIN: Examples(task)})


def replayed(task: Task) -> Session:
    """The same without the model."""
    config = settings(task)
    return Session({}, {MAIN: Examples(task)}, sampling=config.sampling(), seed=config.seed, answers=task.answers)


def table(runs: Mapping[str, Mapping[str, Run]], greedy: Mapping[str, float]) -> dict[str, Any]:
    """Every pipeline: accuracy, costs, lost samples; against one sample, greedy, and best-of-n of equal tokens."""
    chosen = {label: [float(run.right) for run in mine.values()] for label, mine in runs.items()}
    tokens = {label: fmean(run.generated for run in mine.values()) for label, mine in runs.items()}
    plain = [name(n, 0) for n in range(1, GENERATED + 1)]
    rows = {}
    for label, by_problem in runs.items():
        mine = list(by_problem.values())
        below = max(
            (one for one in plain if tokens[one] <= tokens[label]), key=lambda one: tokens[one], default=plain[0]
        )
        above = min((one for one in plain if tokens[one] > tokens[label]), key=lambda one: tokens[one], default=below)
        gap = tokens[above] - tokens[below]
        share = (tokens[label] - tokens[below]) / gap if gap else 0.0
        equal = [(1 - share) * a + share * b for a, b in zip(chosen[below], chosen[above], strict=True)]
        rows[label] = {
            "accuracy": mean(chosen[label]),
            "generated_tokens": tokens[label],
            "prompt_tokens": fmean(run.prompts for run in mine),
            "flops": fmean(run.flops for run in mine),
            "calls": fmean(run.calls for run in mine),
            "cut": sum(run.cut for run in mine),
            "unreadable": sum(run.unreadable for run in mine),
            "minus_one_sample": difference(chosen[label], chosen[name(1, 0)]),
            "minus_greedy": difference(chosen[label], [greedy[one] for one in by_problem]),
            "equal_tokens": [below, above, share],
            "minus_best_of_n_of_equal_tokens": difference(chosen[label], equal),
            "minus_without_repairs": (
                difference(chosen[label], chosen[name(int(label[0]), 0)]) if label.endswith("repairs") else None
            ),
        }
    return rows


def searched(runs: Mapping[str, Mapping[str, Run]]) -> dict[str, Any]:
    """An allocation that is searched for on every second problem, and its accuracy on the others."""
    ids = list(runs[name(1, 0)])
    halves = ids[::2], ids[1::2]
    refuse_shared(*halves)
    lengths = {label: fmean(run.generated for run in mine.values()) for label, mine in runs.items()}
    of_one, of_repair = lengths[name(1, 0)], lengths[name(1, 1)] - lengths[name(1, 0)]
    prompt = fmean(run.prompts for run in runs[name(1, 0)].values())
    stages = (Subtask("generate", {"main": SIZE}, prompt, of_one), Subtask("repair", {"main": SIZE}, 1.0, of_repair))
    space = PipelineSpace(stages, 1e6, (1, GENERATED), Reference(SIZE, prompt, of_one))

    def of(half: list[str], n: int, k: int) -> list[float]:
        return [float(runs[name(n, k)][one].right) for one in half]

    pairs = [(n, k) for n in range(1, GENERATED + 1) for k in range(1, REPAIRED + 1)]
    results: dict[Allocation, dict[str, float]] = {
        (StageChoice("main", n), StageChoice("main", k)): {"accuracy": fmean(of(halves[0], n, k))} for n, k in pairs
    }
    archive = Archive(space, ResultTable(results), len(pairs) // 2)
    first, second = (choice.samples for choice in search_allocations(BuiltInRules(space), archive).allocation)
    chosen = of(halves[1], first, second)
    return {
        "evaluations": len(archive.trials),
        "allocation": name(first, second),
        "n_problems": [len(half) for half in halves],
        "on_the_others": mean(chosen),
        "minus_one_sample": difference(chosen, of(halves[1], 1, 0)),
        "minus_best_of_all": difference(chosen, of(halves[1], GENERATED, 0)),
    }


def plot(rows: Mapping[str, Any], path: Path) -> None:
    """Accuracy against tokens, a line for each number of repairs."""
    figure, (axes,) = panels(1, 6.5, 4)
    for k in range(REPAIRED + 1):
        some = [rows[name(n, k)] for n in range(1, GENERATED + 1)]
        line(axes, [row["generated_tokens"] for row in some], [row["accuracy"] for row in some], k, f"{k} repairs")
    axes.set(xlabel="generated tokens a problem", ylabel="right, %")
    axes.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=64, help="the first ones")
    parser.add_argument("--data", type=Path, help="a folder with the files of HumanEval")
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/repairs.db"))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the result")
    parser.add_argument("--fill", action="store_true", help="draw the samples")
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    task = load(TASK, args.problems, data=args.data)
    export = known_exports()[TASK]
    with Bank(args.bank) as bank:
        if not bank.imports():
            import_samples(export, bank)
        if args.fill:
            fill({"repairs": f"pipeline:stages=generate;repair*{REPAIRED}"}, task, live(task), bank)
            return
        made = provenance(HERE, 0, "real")
        refuse_another(args.out / "real.json", made["command"], force=args.force)
        runs = recorded(strategies(), task, replayed(task), bank)
    greedy = {problem.id: problem.pass_rate for problem in judged_pool(known_exports()[f"{TASK}-greedy"]).problems}
    ids = list(runs[name(1, 0)])
    rows, header = table(runs, greedy), header_of(export)
    found = {field: header[field] for field in ("provenance", "task", "sampling")} | {
        "n_problems": len(ids),
        "repaired": sum(run.calls > 1 for run in runs[name(1, 1)].values()),
        "greedy": mean(greedy[one] for one in ids),
        "arms": rows,
        "search": searched(runs),
    }
    write_json(args.out / "real.json", made | found)
    plot(rows, args.out / "real.png")
    print(f"{len(ids)} problems, greedy {as_percent(found['greedy'])}; {found['search']}")
    for label, row in rows.items():
        print(
            f"{label:22} {as_percent(row['accuracy'])}  {row['generated_tokens']:.0f} tok, {row['cut']} cut "
            f"{row['unreadable']} lost; single {as_points(row['minus_one_sample'])} greedy "
            f"{as_points(row['minus_greedy'])} equal {as_points(row['minus_best_of_n_of_equal_tokens'])}"
        )


if __name__ == "__main__":
    main()
