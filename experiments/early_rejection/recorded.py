"""Row 17 on recorded samples of a real model: HumanEval, Qwen2.5-Coder-0.5B, and a step is a whole solution.

    python -m experiments.early_rejection.recorded --data FOLDER      # two minutes, without a model

The reward is the model's confidence: the geometric mean of the probabilities of the tokens so far. All samples of a
problem are begun, the less confident half is rejected after tau tokens, and the most confident whole sample answers.
Rejection only cancels samples, so recorded samples give the exact result. The export has the log-probabilities of
tokens (`thinktime bank export`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import exp
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.early_rejection.run import rank_correlation
from experiments.harness import run_session
from experiments.intervals import difference, mean, ratio
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime.bank.store import Bank
from thinktime.bench.bank_export import exported_bank, header_of
from thinktime.bench.runner import Outcome
from thinktime.bench.statistics import auc
from thinktime.bench.tasks import Task, load
from thinktime.core.search import sample_key
from thinktime.core.types import MAIN, Problem, Sampling
from thinktime.generators.recorded import BankedGenerator
from thinktime.generators.text import LOGPROB_DIGITS
from thinktime.planning.rejection import recall
from thinktime.session import Session

HERE = Path(__file__).parent
EXPORT = HERE / "humaneval.jsonl.gz"
TAUS = (4, 8, 16, 32, 64)
SAMPLES, KEPT = 4, 2


@dataclass(frozen=True)
class Solution:
    """A sample: the log-probabilities of its tokens, and whether it is right and has an answer."""

    logprobs: tuple[float, ...]
    right: bool
    readable: bool

    def confidence(self, tau: int | None = None) -> float:
        """The confidence in the first ``tau`` tokens; in all of them unless given."""
        return exp(fmean(self.logprobs[:tau]))


Problems = Sequence[Sequence[Solution]]


def solutions(outcome: Outcome, bank: Bank) -> list[Solution]:
    """The samples of a problem, by index."""
    found = []
    for end in outcome.ends:
        sample = bank.find_sample(end["key"])
        assert sample is not None
        logprobs = tuple(-lp / 10**LOGPROB_DIGITS for lp in sample["state"]["logprobs"])
        found.append(Solution(logprobs, end["correct"], end["kind"] == "readable"))
    return found


def chosen(some: Sequence[Solution]) -> float:
    """1 if the most confident of the samples with an answer is right, else 0."""
    readable = [solution for solution in some if solution.readable]
    return float(max(readable, key=Solution.confidence).right) if readable else 0.0


def kept_after(tau: int) -> Callable[[Sequence[Solution]], list[Solution]]:
    """The samples that are kept after ``tau`` tokens; ties go to the first."""
    return lambda some: sorted(some, key=lambda solution: -solution.confidence(tau))[:KEPT]


def tokens(some: Sequence[Solution], kept: Sequence[Solution], tau: int) -> float:
    """Tokens of all samples up to tau, and of the kept ones to their ends."""
    rest = sum(max(0, len(solution.logprobs) - tau) for solution in kept)
    return rest + sum(min(tau, len(solution.logprobs)) for solution in some)


def at_random(some: Sequence[Solution], n: int) -> float:
    """`chosen` among ``n`` samples, the mean over all choices of these."""
    return fmean(chosen(part) for part in combinations(some, n))


def calibration(problems: Problems, tau: int) -> dict[str, Any]:
    """How partial confidences go with whole ones, over all samples longer than tau and within a problem."""
    longer = [solution for some in problems for solution in some if len(solution.logprobs) > tau]
    pairs = [([one.confidence(tau) for one in some], [one.confidence() for one in some]) for some in problems]
    return {
        "n_longer": len(longer),
        "correlation": float(
            np.corrcoef([(one.confidence(tau), one.confidence()) for one in longer], rowvar=False)[0, 1]
        ),
        "kendall_within": mean(rank_correlation(early, whole) for early, whole in pairs),
        "recall": mean(recall(early, whole, KEPT / SAMPLES) for early, whole in pairs),
    }


def area(problems: Problems, tau: int | None = None) -> dict[str, Any]:
    """The AUC of the confidence after ``tau`` tokens within the problems that have right and wrong samples."""
    areas = [auc([one.confidence(tau) for one in some], [one.right for one in some]) for some in problems]
    within = [each for each in areas if each is not None]
    return {"n_with_both": len(within), "auc_within": mean(within) if within else None}


def measure(problems: Problems) -> dict[str, Any]:
    """Accuracy and tokens of one sample, selections, and early rejection at every tau."""
    whole = [float(sum(len(one.logprobs) for one in some)) for some in problems]
    full = [chosen(some) for some in problems]
    fewer = {n: [at_random(some, n) for some in problems] for n in range(1, SAMPLES)}
    by_tau = {}
    for tau in TAUS:
        kept = [kept_after(tau)(some) for some in problems]
        right = list(map(chosen, kept))
        cost = [tokens(some, mine, tau) for some, mine in zip(problems, kept, strict=True)]
        equal = min(fewer, key=lambda n: abs(n / SAMPLES * sum(whole) - sum(cost)))
        by_tau[str(tau)] = (
            calibration(problems, tau)
            | area(problems, tau)
            | {
                "accuracy": mean(right),
                "tokens": mean(cost),
                "all_over_this_tokens": ratio(whole, cost),
                "minus_best_of_all": difference(right, full),
                "minus_random_rejection": difference(right, fewer[KEPT]),
                "samples_of_equal_tokens": equal,
                "minus_equal_tokens": difference(right, fewer[equal]),
            }
        )
    return {
        "n_problems": len(problems),
        "n_samples": SAMPLES,
        "kept": KEPT,
        "samples_without_answer": sum(not one.readable for some in problems for one in some),
        "single": mean(fmean(one.right for one in some) for some in problems),
        "best_of_all": mean(full) | {"tokens": fmean(whole)} | area(problems),
        "any_of_all": mean(any(one.right for one in some) for some in problems),
        "by_tau": by_tau,
    }


def read(path: Path, data: Path | None) -> list[list[Solution]]:
    """The samples of all problems that have enough in an export. Their programs run in the sandbox."""
    header = header_of(path)
    task = load(header["task"]["name"], data=data)
    given = header["sampling"]
    sampling = Sampling(given["temperature"], given["top_p"], given["max_length"], tuple(given["stop"]))
    with exported_bank(path) as bank:
        session = Session({MAIN: BankedGenerator(bank.models()[0])}, sampling=sampling, seed=header["seed"])

        def enough(problem: Problem) -> bool:
            root = session.search(problem).root.key
            return all(bank.find_sample(sample_key(root, index)) is not None for index in range(SAMPLES))

        some: Task = replace(task, problems=tuple(filter(enough, task.problems)))
        label = f"majority:n={SAMPLES}"
        return [solutions(outcome, bank) for outcome in run_session([label], some, session, bank)[label]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "export", nargs="?", type=Path, default=EXPORT, help="of a bank, with log-probabilities of tokens"
    )
    parser.add_argument("--data", type=Path, help="a folder with the files of the benchmark")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, 0, "recorded")
    refuse_another(args.out / "recorded.json", made["command"], force=args.force)
    header = header_of(args.export)
    about = {name: header[name] for name in ("model", "provenance", "sampling")}
    about |= {"task": header["task"]["name"], "n_problems_of_export": header["n"]["problems"]}
    result = measure(read(args.export, args.data))
    write_json(args.out / "recorded.json", made | about | result)
    plot(result, args.out / "recorded.png")


def plot(result: dict[str, Any], path: Path) -> None:
    """What a partial confidence knows, and what acting on it costs and saves, against tau."""
    figure, (known, points) = panels(2, 11, 4.2)
    rows = list(result["by_tau"].values())
    known.set_ylim(-0.4, 1)
    known.plot(
        TAUS, [row["correlation"] for row in rows], "o-", ms=4, color=COLOURS[0], label="correlation, all samples"
    )
    line(known, TAUS, [row["kendall_within"] for row in rows], 1, "Kendall's tau within a problem", scale=1)
    line(known, TAUS, [row["recall"] for row in rows], 2, "best half kept", scale=1)
    others = {"minus_best_of_all": "all four", "minus_random_rejection": "random rejection"}
    for colour, (name, label) in enumerate(others.items()):
        line(points, TAUS, [row[name] for row in rows], colour, f"against {label}")
    points.axhline(0, color="#999999", lw=0.8)
    points.set_ylabel("points")
    for axes in (known, points):
        logarithmic(axes, "tokens that are read")
        axes.legend(fontsize=8, loc="lower right")
    save(figure, path)


if __name__ == "__main__":
    main()
