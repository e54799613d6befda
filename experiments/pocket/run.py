"""Measure the shipped models against the targets that make every later method measurable.

    python -m experiments.pocket.run            # 500 held-out problems, 16 samples each; about 10 minutes on 2 cores

Writes ``targets.json``, ``result.json``, ``timing.json``, ``report.html`` and ``plot.png`` beside this file; the bank
goes to ``runs/pocket``, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness import SAMPLING, language_model, reward_model
from experiments.intervals import Estimate, difference, mean
from experiments.plot import accuracy_against_cost
from experiments.provenance import write_json
from thinktime import pocket
from thinktime.bank.store import Bank
from thinktime.bench.environment import environment
from thinktime.bench.report import write_report
from thinktime.bench.runner import Bench, Entry
from thinktime.bench.statistics import auc
from thinktime.bench.tasks import Task, load
from thinktime.core.types import MAIN
from thinktime.generators.local import LocalGenerator
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


def right(run: Bench, label: str) -> list[bool]:
    """Whether an entry's answers are right, in the order of the problems."""
    return [run.outcomes[label][problem.id].correct for problem in run.task.problems]


def compare(run: Bench, a: str, b: str) -> Estimate:
    """Paired difference of two entries' accuracies over the same problems."""
    return difference(right(run, a), right(run, b), run.session.seed)


def reward_quality(
    bank: Bank, generator: LocalGenerator, task: Task, reference: Sequence[WordProblem]
) -> dict[str, Any]:
    """AUC of the reward model: over all steps, to the first error, in mid-step, of answers, within a problem."""
    engine = load_reward_model(pocket.directory("reward"), "float64").engine()
    everything: dict[str, tuple[list[float], list[bool]]] = {}
    within: dict[str, list[float]] = {"reward": [], "log_likelihood": []}
    lucky = right_answers = 0
    for problem, word_problem in zip(task.problems, reference, strict=True):
        states = [
            sample["state"] for sample in bank.samples_of(problem.id) if sample["finish"] == "eos" and _whole(sample)
        ]
        if not states:
            continue
        prompt = generator.root(problem).prompt
        rows = engine.run([Read(prompt + tuple(state["ids"]), len(prompt)) for state in states])
        finals: list[float] = []
        likelihoods: list[float] = []
        outcomes: list[bool] = []
        for state, output in zip(states, rows, strict=True):
            assert output.values is not None
            row = output.values.softmax(-1)[:, 1]
            labels = check_steps(word_problem, state["text"])
            ends = [end - 1 for end in state["step_ends"]]
            starts = [0, *(end + 1 for end in ends[:-1])]
            if len(labels) != len(ends):
                continue
            scores = [float(row[end]) for end in ends]
            middle = [float(row[(start + end) // 2]) for start, end in zip(starts, ends, strict=True)]
            cut = labels.index(False) + 1 if False in labels else len(labels)
            for name, values, truths in (
                ("all_steps", scores, labels),
                ("to_first_error", scores[:cut], labels[:cut]),
                ("mid_step", middle, labels),
            ):
                all_values, all_truths = everything.setdefault(name, ([], []))
                all_values += values
                all_truths += truths
            correct = task.check(task.answers.read(_Text(state["text"])), problem.reference)
            right_answers += correct
            lucky += correct and not labels[-1]
            finals.append(scores[-1])
            likelihoods.append(state["logprob"])
            outcomes.append(correct)
        for name, values in (("reward", finals), ("log_likelihood", likelihoods)):
            one = auc(values, outcomes)
            if one is not None:
                within[name].append(one)
        answer_values, answer_truths = everything.setdefault("final_answer", ([], []))
        answer_values += finals
        answer_truths += outcomes
    return {
        **{name: {"auc": auc(*pair), "n": len(pair[0])} for name, pair in everything.items()},
        "within_problem": mean(within["reward"]) | {"n_problems": len(within["reward"])},
        "within_problem_log_likelihood": mean(within["log_likelihood"]),
        "right_answer_by_wrong_steps": lucky / max(1, right_answers),
    }


def targets(run: Bench, quality: dict[str, Any], result: dict[str, Any], n: int) -> dict[str, Any]:
    """Every target of the shipped models: the measured value, and whether it is met."""
    single = next(r for r in result["runs"] if r["strategy"] == "single")
    levels = pass_at_1_by_level(run, n)
    pass_1 = result["coverage"]["1"]
    samples = [run.outcomes[f"majority@{n}"][problem.id].samples for problem in run.task.problems]
    rates = [sum(s) / n for s in samples]
    gap = difference(map(any, samples), rates, run.session.seed)
    better = compare(run, f"best_of_n@{n}", f"majority@{n}")
    vote = compare(run, f"weighted_majority@{n}", f"best_of_n@{n}")
    vote_majority = compare(run, f"weighted_majority@{n}", f"majority@{n}")
    majority = difference(right(run, f"majority@{n}"), rates)
    likelihood = compare(run, f"best_of_n@{n}", f"most_likely@{n}")
    summed = compare(run, f"weighted_majority@{n}", f"summed_probability@{n}")
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
        "command": result["command"],
        "environment": result["environment"],
        "seed": run.session.seed,
        "n_problems": single["n_problems"],
        "n_samples": n,
        "model": result["model"],
        "sampling": result["sampling"],
        "targets": {name: {"measured": measured, "met": bool(met)} for name, (measured, met) in rows.items()},
        "pass_at_1_by_level": levels,
        "reward_model": quality,
    }


def pass_at_1_by_level(run: Bench, n: int) -> dict[str, Estimate]:
    """pass@1 of every level from all n samples."""
    values: dict[str, list[float]] = {}
    for outcome in run.outcomes[f"majority@{n}"].values():
        values.setdefault(str(outcome.problem.metadata["level"]), []).append(sum(outcome.samples) / n)
    return {level: mean(v, run.session.seed) | {"n": len(v)} for level, v in sorted(values.items())}


class _Text:
    def __init__(self, text: str) -> None:
        self.text = text


def _whole(sample: dict[str, Any]) -> bool:
    """Whether a banked sample is a whole solution from the root, not the end of a beam."""
    return bool(len(sample["state"]["ids"]) == sample["state"]["step_ends"][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bank", type=Path, default=Path("runs/pocket/bank.db"))
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
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
    write_json(args.out / "targets.json", measured)
    slim = result | {"runs": [{k: v for k, v in r.items() if k != "problems"} for r in result["runs"]]}
    write_json(args.out / "result.json", slim)
    write_json(args.out / "timing.json", run.timing())
    write_report(result, run.timing(), args.out / "report.html")
    accuracy_against_cost(result, args.out / "plot.png")
    for name, row in measured["targets"].items():
        print("met   " if row["met"] else "MISSED", name, row["measured"])


if __name__ == "__main__":
    main()
