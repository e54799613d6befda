"""Measure the shipped models against the targets that make every later method measurable.

    python -m experiments.pocket.run            # 500 held-out problems, 16 samples each; about 10 minutes on 2 cores

Writes ``targets.json``, ``result.json``, ``timing.json``, ``report.html`` and ``plot.png``; a killed run goes on where
it stopped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness import SAMPLING, by_level, correct, language_model, options, reward_model
from experiments.intervals import Estimate, areas, difference, mean
from experiments.provenance import write_json
from thinktime import pocket
from thinktime.bank.store import Bank
from thinktime.bench.environment import environment
from thinktime.bench.figures import write_figure
from thinktime.bench.report import write_report
from thinktime.bench.runner import Bench, Entry
from thinktime.bench.tasks import Task, load
from thinktime.core.types import MAIN
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text
from thinktime.models.engine.models import load_reward_model
from thinktime.models.engine.rows import Read
from thinktime.pocket.problems import WordProblem, check_steps, problems
from thinktime.session import Session
from thinktime.strategies import make

HERE = Path(__file__).parent
SAMPLED = ("majority", "best_of_n", "weighted_majority", "most_likely", "summed_probability")


def entries(sizes: Sequence[int]) -> list[Entry]:
    """A single sample, every strategy over samples at every size, beam search (the slowest) at every other size."""
    grid = [(name, n) for name in SAMPLED for n in sizes] + [("beam_search", n) for n in sizes[::2]]
    return [Entry("single", 1, make("single")), *(Entry(name, n, make(name, {"n": n})) for name, n in grid)]


def reward_quality(
    bank: Bank, generator: LocalGenerator, task: Task, reference: Sequence[WordProblem]
) -> dict[str, Any]:
    """AUC of the reward model: over all steps, to the first error, in mid-step, of answers, within a problem."""
    engine = load_reward_model(pocket.directory("reward"), "float64").engine()
    ways = ("all_steps", "to_first_error", "mid_step", "final_answer", "log_likelihood")
    scores: dict[str, list[list[float]]] = {way: [] for way in ways}
    truths: dict[str, list[list[bool]]] = {way: [] for way in ways}

    def add(way: str, some: list[float], labels: list[bool]) -> None:
        scores[way].append(some)
        truths[way].append(labels)

    lucky = 0
    for problem, word_problem in zip(task.problems, reference, strict=True):
        ended = [sample["state"] for sample in bank.samples_of(problem.id) if sample["finish"] == "eos"]
        whole = [state for state in ended if len(state["ids"]) == state["step_ends"][-1]]  # no ends of beams
        checked = [(state, check_steps(word_problem, state["text"])) for state in whole]
        checked = [(state, labels) for state, labels in checked if len(labels) == len(state["step_ends"])]
        prompt = generator.root(problem).prompt
        outputs = engine.run([Read(prompt + tuple(state["ids"]), len(prompt)) for state, _ in checked])
        finals: list[float] = []
        right: list[bool] = []
        for (state, labels), output in zip(checked, outputs, strict=True):
            assert output.values is not None
            row = output.values.softmax(-1)[:, 1]
            ends = [end - 1 for end in state["step_ends"]]
            starts = [0, *(end + 1 for end in ends[:-1])]
            steps = [float(row[end]) for end in ends]
            cut = labels.index(False) + 1 if False in labels else len(labels)
            add("all_steps", steps, labels)
            add("to_first_error", steps[:cut], labels[:cut])
            add("mid_step", [float(row[(a + b) // 2]) for a, b in zip(starts, ends, strict=True)], labels)
            finals.append(steps[-1])
            right.append(task.check(task.answers.read(Text((), text=state["text"])), problem.reference))
            lucky += right[-1] and not labels[-1]
        add("final_answer", finals, right)
        add("log_likelihood", [state["logprob"] for state, _ in checked], right)
    found = {way: areas(scores[way], truths[way]) for way in ways}
    within = found["final_answer"][1]
    return {
        **{way: {"auc": found[way][0], "n": sum(map(len, scores[way]))} for way in ways[:-1]},
        "within_problem": mean(within) | {"n_problems": len(within)},
        "within_problem_log_likelihood": mean(found["log_likelihood"][1]),
        "right_answer_by_wrong_steps": lucky / max(1, sum(map(sum, truths["final_answer"]))),
    }


def targets(run: Bench, quality: dict[str, Any], result: dict[str, Any], n: int) -> dict[str, Any]:
    """Every target of the shipped models: the measured value, and whether it is met."""
    votes = by_level(run.outcomes[f"majority@{n}"].values())
    levels = {
        level: mean((sum(o.samples) / n for o in some), run.session.seed) | {"n": len(some)}
        for level, some in votes.items()
    }
    found = {name: [run.outcomes[f"{name}@{n}"][p.id] for p in run.task.problems] for name in SAMPLED}

    def gain(a: str, b: str) -> Estimate:
        return difference(map(correct, found[a]), map(correct, found[b]), run.session.seed)

    pass_1 = result["coverage"]["1"]
    rates = [sum(outcome.samples) / n for outcome in found["majority"]]
    gap = difference((any(outcome.samples) for outcome in found["majority"]), rates, run.session.seed)
    better = gain("best_of_n", "majority")
    vote = gain("weighted_majority", "best_of_n")
    vote_majority = gain("weighted_majority", "majority")
    majority = difference(map(correct, found["majority"]), rates)
    likelihood = gain("best_of_n", "most_likely")
    summed = gain("weighted_majority", "summed_probability")
    rows = {
        "pass@1 is 25-60%": (pass_1, 0.25 <= pass_1["value"] <= 0.60),
        "pass@1 of the easiest level >= 75%": (levels["1"], levels["1"]["value"] >= 0.75),
        "pass@1 of the hardest level <= 25%": (levels["5"], levels["5"]["value"] <= 0.25),
        f"pass@{n} at least 25 points above pass@1": (gap, gap["value"] >= 0.25),
        "step AUC >= 0.90": (quality["all_steps"], quality["all_steps"]["auc"] >= 0.90),
        "best-of-n at least 5 points above majority": (better, better["value"] >= 0.05 and better["low"] > 0),
        "weighted majority not below best-of-n": (vote, vote["high"] >= 0),
        "weighted majority above majority": (vote_majority, vote_majority["low"] > 0),
        "majority above pass@1": (majority, majority["low"] > 0),
        "best-of-n by reward above most likely": (likelihood, likelihood["low"] > 0),
        "weighted majority above summed probability": (summed, summed["low"] > 0),
    }
    return {
        **{name: result[name] for name in ("command", "environment", "seed")},
        "n_problems": len(run.task.problems),
        "n_samples": n,
        **{name: result[name] for name in ("model", "sampling")},
        "targets": {name: {"measured": measured, "met": bool(met)} for name, (measured, met) in rows.items()},
        "pass_at_1_by_level": levels,
        "reward_model": quality,
    }


def main() -> None:
    parser = options(__doc__, bank="pocket.db")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    out = args.out or HERE
    sizes = [2**i for i in range(args.n.bit_length()) if 2**i <= args.n]
    task = load("pocket", args.problems, split=args.split, seed=args.seed)
    generator, scorer = language_model(), reward_model()
    session = Session({MAIN: generator}, {MAIN: scorer}, sampling=SAMPLING, seed=args.seed)
    with Bank(args.bank) as bank:
        run = Bench(task, session, entries(sizes), bank)
        asyncio.run(run.run())
        result = run.result("python -m experiments.pocket.run " + " ".join(sys.argv[1:]), environment())
        reference = list(problems(args.split, args.problems, seed=args.seed))
        quality = reward_quality(bank, generator, task, reference)
    measured = targets(run, quality, result, args.n)
    write_json(out / "targets.json", measured)
    slim = result | {"runs": [{k: v for k, v in r.items() if k != "problems"} for r in result["runs"]]}
    write_json(out / "result.json", slim)
    write_json(out / "timing.json", run.timing())
    write_report(result, run.timing(), out / "report.html")
    write_figure(result, out / "plot.png")
    for name, row in measured["targets"].items():
        print("met   " if row["met"] else "MISSED", name, row["measured"])


if __name__ == "__main__":
    main()
