"""Row 02 on real models: Qwen2.5-Coder-0.5B drafts the lines of programs for GSM8K, and the 1.5B rates and writes them.

    python -m experiments.speculative_reasoning.real --data FOLDER     # a quarter of an hour an arm on one core

The 1.5B rates each drafted line by a digit. Both models run in llama.cpp. All arms are live; a killed run goes on where
it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np

from experiments.harness import Arm, arm, minus, over, run_session, summary, tokens
from experiments.intervals import Estimate, areas, bootstrap, mean
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from experiments.speculative_reasoning.steps import known_numbers, labels
from thinktime.bank.store import Bank
from thinktime.bench.runner import Outcome
from thinktime.bench.statistics import auc
from thinktime.bench.tasks import load
from thinktime.config import Config, ModelSpec
from thinktime.core.protocols import Scorer
from thinktime.core.types import MAIN, Capability, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.scorers.digit import DigitRating, expected_digit
from thinktime.session import Session, open_session

HERE = Path(__file__).parent
TASK = "gsm8k-program"
MODELS = {"main": "qwen2.5-coder-1.5b-instruct", "draft": "qwen2.5-coder-0.5b-instruct"}
TEMPERATURE = 0.7
STEP = "max_step_tokens=64"
"""A line of these programs has 9 tokens (median)."""
THRESHOLD = 7
"""The paper's default."""
ROWS = 16
"""Problems at once."""
MAIN_ALONE, DRAFT_ALONE, DIGIT, RANDOM = "main alone", "draft alone", "digit", "random, same rate"


class Coin:
    """Scores at random, for nothing: uniform in [0, 1) by the node's key."""

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})
    name = "coin"

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """Nothing."""
        return Usage()

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node."""
        return [Score(Random(f"coin/{node.key}").random(), Usage()) for node in nodes]


def speculating(label: str, options: str, scorer: Scorer) -> Arm:
    """An arm of this strategy with its own name."""
    return replace(arm(f"speculative_reasoning:{options},{STEP}", scorer), label=label)


def measured(session: Session, bank: Bank, task: Any) -> dict[str, list[Outcome]]:
    """Every arm; the last one accepts as many drafts as the judge, at random."""
    main = session.models[MAIN]
    assert isinstance(main, LocalGenerator)
    arms = [
        speculating(DIGIT, f"threshold={THRESHOLD}", DigitRating(main, writes=True)),
        speculating(MAIN_ALONE, "first_n_base=999", Coin()),
        speculating(DRAFT_ALONE, "threshold=0", Coin()),
    ]
    found = run_session(arms, task, session, bank)
    rate = share_accepted(found[DIGIT])
    coin = speculating(RANDOM, f"threshold={9 * (1 - rate):.4f}", Coin())
    return found | run_session([coin], task, session, bank)


def ends(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The sums of each problem."""
    return [next(event for event in outcome.events if "stop" in event) for outcome in outcomes]


def share_accepted(outcomes: Sequence[Outcome]) -> float:
    """Accepted drafts over all drafts."""
    accepted, drafted = (sum(int(end[name]) for end in ends(outcomes)) for name in ("accepted", "drafted"))
    return accepted / max(1, drafted)


def passes(outcome: Outcome) -> float:
    """Forward passes of the main model, those of its ratings with them."""
    end = ends([outcome])[0]["passes"]
    return float(end.get("main", 0) + end["judge"])


def row(outcomes: Sequence[Outcome], base: Sequence[Outcome]) -> dict[str, Any]:
    """Accuracy, costs and passes of an arm, beside the main model alone."""
    found = ends(outcomes)
    stops = [end["stop"] for end in found]
    return summary(outcomes) | {
        "minus_main_alone": minus(outcomes, base),
        "accepted_share": share_accepted(outcomes),
        "kept_tokens": fmean(end["kept_tokens"] for end in found),
        "generated_tokens": fmean(end["generated_tokens"] for end in found),
        "draft_passes": fmean(end["passes"]["draft"] for end in found),
        "main_passes": fmean(end["passes"]["main"] for end in found),
        "judge_passes": fmean(end["passes"]["judge"] for end in found),
        "main_alone_over_this_main_passes": None if not any(map(passes, outcomes)) else over(base, outcomes, passes),
        "main_alone_over_this_tokens": over(base, outcomes, tokens),
        "stops": {stop: stops.count(stop) for stop in sorted(set(stops))},
    }


def drafts(outcome: Outcome) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """The rated drafts of a problem, each with the lines of the solution up to it."""
    lines: dict[str | None, list[str]] = {}
    for node in outcome.trace:
        lines[node["key"]] = [*lines.get(node["parent"], []), *([node["text"]] if node["parent"] else [])]
        if node["score"] is not None:
            yield node, lines[node["key"]]


def judge(
    outcomes: Sequence[Outcome],
    ratings: Mapping[str, Callable[[Mapping[str, Any]], float]],
    label: Callable[[Outcome, list[str]], bool | None],
) -> dict[str, Any]:
    """How well ratings tell right drafts from wrong ones, and the histogram of the first rating by label.

    Args:
        outcomes: of the problems.
        ratings: from 0 to 9, of a node of the trace.
        label: whether the last of these lines is right; None if that cannot be said.
    """
    problems = [[(node, label(outcome, lines)) for node, lines in drafts(outcome)] for outcome in outcomes]
    known = [[(node, right) for node, right in some if right is not None] for some in problems]
    rights = [[right for _, right in some] for some in known]
    result: dict[str, Any] = {
        "n_rated": sum(map(len, problems)),
        "n_labelled": sum(map(len, known)),
        "n_right": sum(map(sum, rights)),
    }
    for name, rating in ratings.items():
        scores = [[rating(node) for node, _ in some] for some in known]
        _, within = areas(scores, rights)
        result[name] = {
            "auc": pooled_area(scores, rights),
            "auc_within_problems": mean(within) if within else None,
            "n_with_both": len(within),
        }
        if "histogram" not in result:
            flat = [(round(s), r) for some in zip(scores, rights, strict=True) for s, r in zip(*some, strict=True)]
            result["histogram"] = {
                word: [flat.count((digit, truth)) for digit in range(10)]
                for word, truth in (("right", True), ("wrong", False))
            }
    return result


def pooled_area(scores: Sequence[Sequence[float]], rights: Sequence[Sequence[bool]]) -> Estimate:
    """The AUC over the drafts of all problems, with an interval over problems."""

    def one(picks: Sequence[int]) -> float:
        area = auc([s for p in picks for s in scores[p]], [r for p in picks for r in rights[p]])
        return 0.5 if area is None else area  # a resample without right or wrong drafts tells nothing

    def areas_of(picks: Any) -> Any:
        return np.array([one(row) for row in picks]) if picks.ndim == 2 else one(picks)

    return bootstrap(areas_of, len(scores), resamples=1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=15, help="the first ones of the test split")
    parser.add_argument("--data", type=Path, required=True, help="a folder with the files of GSM8K")
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/speculative.db"))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, 0, "real")
    refuse_another(args.out / "real.json", made["command"], force=args.force)
    task = load(TASK, args.problems, data=args.data)
    specs = {role: ModelSpec(name, engine="llamacpp", concurrency=ROWS) for role, name in MODELS.items()}
    config = Config(specs, "none", temperature=TEMPERATURE, max_tokens=task.max_tokens, stop=task.stop)
    session = replace(open_session(config), answers=task.answers)
    with Bank(args.bank) as bank:
        found = measured(session, bank, task)
    about = {
        "models": {role: model.name for role, model in session.models.items()},
        "task": TASK,
        "n_problems": len(task.problems),
        "sampling": {"temperature": TEMPERATURE, "max_tokens": task.max_tokens},
        "threshold": THRESHOLD,
    }
    arms = {label: row(outcomes, found[MAIN_ALONE]) for label, outcomes in found.items()}
    arms[DIGIT]["minus_random"] = minus(found[DIGIT], found[RANDOM])
    known = known_numbers(args.data)
    ratings: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "greedy": lambda node: 9 * float(node["score"]),
        "expected": lambda node: expected_digit(node["steps"]),
    }
    judged = judge(found[DIGIT], ratings, lambda outcome, lines: labels(lines, *known[outcome.problem.id])[-1])
    judged["digit_mass"] = fmean(sum(node["steps"]) for outcome in found[DIGIT] for node, _ in drafts(outcome))
    write_json(args.out / "real.json", {**made, **about, "arms": arms, "judge": judged})


if __name__ == "__main__":
    main()
