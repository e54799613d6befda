"""Row 02: positive control and map. Two constructed models write chains, and a judge of a known AUC rates each step.

    python -m experiments.speculative_reasoning.control       # two minutes on one core

Chains are those of `experiments.chains`: five steps of 16 words, and a wrong step is never repaired. A step of the main
model is right with the problem's own probability, from 0.94 to 1. A step of the draft is right with one from 0.80 to
0.98. The judge sees the last step alone. A right step draws a number from N(d, 1), a wrong one from N(0, 1), where
AUC = Phi(d / sqrt(2)). Its score is the share of steps of an average draft that it places below. So a threshold of
9 (1 - a) accepts about the share a of all drafts at any AUC. An AUC of 0.5 is random acceptance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from experiments.chains import STEPS, WORDS, arguments, finished, in_parts, names, say
from experiments.constructed import NORMAL, RIGHT, shift
from experiments.intervals import difference, mean, ratio
from experiments.plot import line, panels, save
from experiments.provenance import provenance, write_json
from thinktime.core.search import Search
from thinktime.core.types import Node, Problem, Sampling
from thinktime.strategies import parse
from thinktime.testing import ANSWERS, WordGenerator, WordScorer

HERE = Path(__file__).parent
CHANCES = {"main": (0.94, 1.0), "draft": (0.80, 0.98)}
"""The range of a problem's probability of a right step, by model."""
DRAFT_RIGHT = fmean(CHANCES["draft"])
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9)
SHARES = (0.4, 0.6, 0.8, 0.95)
"""Of accepted drafts."""
FIRST = (1, 2, 3, 4)
"""First steps of the main model, where the draft writes all others."""
BYTES = (1 / 3, 1 / 10)
"""Bytes of the draft's weights over those of the main model's."""
MAIN, DRAFT = "main alone", "draft alone"


@dataclass(frozen=True)
class Judge:
    """The score of the last step of a prefix; its noise is a function of the prefix."""

    auc: float

    def __call__(self, node: Node) -> float:
        """The share of an average draft's steps with a lower number, from 0 to 1."""
        words = finished(node.state.text.split())[::WORDS]
        lead = shift(self.auc)
        right = words[-1].startswith("r")
        number = lead * right + Random(f"{node.state.prompt}/{words}/judge").gauss(0, 1)
        return DRAFT_RIGHT * NORMAL.cdf(number - lead) + (1 - DRAFT_RIGHT) * NORMAL.cdf(number)


@dataclass(frozen=True)
class Result:
    """A problem: whether the answer is right, passes of each model, and drafts, all and accepted."""

    right: float
    main: float
    draft: float
    drafted: int
    accepted: int
    tokens: int


def solve(options: str, auc: float, problem: str) -> Result:
    """The strategy on a problem; all arms share the steps that they draw after the same prefix."""
    models = {role: WordGenerator(partial(say, chances=chances), name=role) for role, chances in CHANCES.items()}
    search = Search(
        Problem(problem, problem),
        models,
        scorers=WordScorer(Judge(auc)),
        answers=ANSWERS,
        sampling=Sampling(max_length=STEPS * WORDS),
    )
    strategy = parse(f"speculative_reasoning:{options},max_step_tokens={WORDS}")[1]
    answer = asyncio.run(strategy(search))
    end = search.events[-1]
    passes = end["passes"]
    rated = passes["judge"] if auc > 0.5 else 0
    return Result(
        float(answer.value == RIGHT),
        float(passes["main"] + rated),
        float(passes["draft"]),
        end["drafted"],
        end["accepted"],
        end["generated_tokens"],
    )


def cost(found: Sequence[Result], share: float) -> list[float]:
    """Weights read a problem, in passes of the main model; a pass of the draft counts as ``share``."""
    return [each.main + share * each.draft for each in found]


def coin(plain: Mapping[str, Sequence[Result]], mean_cost: float, share: float) -> list[float]:
    """One model alone on each problem, chosen by a coin so that the mean cost is this: the expected accuracy."""
    main, draft = (fmean(cost(plain[label], share)) for label in (MAIN, DRAFT))
    part = min(1.0, max(0.0, (mean_cost - draft) / (main - draft)))
    pairs = zip(plain[MAIN], plain[DRAFT], strict=True)
    return [part * large.right + (1 - part) * small.right for large, small in pairs]


def row(
    found: Sequence[Result], plain: Mapping[str, Sequence[Result]], null: Sequence[Result] | None = None
) -> dict[str, Any]:
    """Accuracy, costs, and differences to the main model alone, to a coin, and to random acceptance of as many."""
    drafted, right = sum(each.drafted for each in found), [each.right for each in found]
    main = plain[MAIN]
    passes = [each.main for each in found]
    result: dict[str, Any] = {
        "accuracy": mean(right),
        "minus_main": difference(right, (each.right for each in main)),
        "accepted_share": sum(each.accepted for each in found) / drafted if drafted else 0.0,
        "main_passes": fmean(passes),
        "draft_passes": fmean(each.draft for each in found),
        "generated_tokens": fmean(each.tokens for each in found),
        "main_alone_over_this_main_passes": ratio([each.main for each in main], passes) if any(passes) else None,
        "by_bytes_of_draft": {
            f"{share:.2f}": {
                "main_alone_over_this": ratio(cost(main, share), cost(found, share)),
                "minus_coin_of_equal_cost": difference(right, coin(plain, fmean(cost(found, share)), share)),
            }
            for share in BYTES
        },
    }
    if null is not None:
        result["minus_random"] = difference(right, (each.right for each in null))
    return result


def part(problems: Sequence[str], setting: str) -> dict[str, Any]:
    """The results of one AUC at all shares, or those of the arms without a judge."""
    if setting == "without a judge":
        options = {MAIN: "first_n_base=999", DRAFT: "threshold=0"}
        options |= {f"first {n} by main": f"threshold=0,first_n_base={n}" for n in FIRST}
        return {label: [vars(solve(text, 0.5, name)) for name in problems] for label, text in options.items()}
    return {
        str(share): [vars(solve(f"threshold={9 * (1 - share):.4f}", float(setting), name)) for name in problems]
        for share in SHARES
    }


def measure(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of all arms."""

    def read(rows: Sequence[Mapping[str, Any]]) -> list[Result]:
        return [Result(**each) for each in rows]

    plain = {label: read(rows) for label, rows in parts["without a judge"].items()}
    null = {share: read(rows) for share, rows in parts["0.5"].items()}
    return {
        "plain": {label: row(found, plain) for label, found in plain.items()},
        "judged": {
            str(auc): {
                share: row(read(rows), plain, null[share] if auc > 0.5 else None)
                for share, rows in parts[str(auc)].items()
            }
            for auc in AUCS
        },
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Points against the main model by share, and against random acceptance by AUC."""
    figure, (against_main, against_random) = panels(2, 11, 4.2)
    for colour, (auc, rows) in enumerate(result["judged"].items()):
        label = "random acceptance" if auc == "0.5" else f"AUC {auc}"
        shares = [100 * each["accepted_share"] for each in rows.values()]
        line(against_main, shares, [each["minus_main"] for each in rows.values()], colour, label)
    first = [each for label, each in result["plain"].items() if label.startswith("first")]
    line(
        against_main,
        [100 * (1 - n / STEPS) for n in FIRST],
        [each["minus_main"] for each in first],
        len(AUCS),
        "first steps by the main model",
        "s--",
    )
    against_main.set_xlabel("steps of the draft, %")
    against_main.set_ylabel("points over the main model alone")
    for colour, share in enumerate(map(str, SHARES)):
        rows = [result["judged"][str(auc)][share]["minus_random"] for auc in AUCS[1:]]
        line(against_random, AUCS[1:], rows, colour, f"{100 * float(share):.0f} % accepted")
    against_random.set_xlabel("AUC of the judge on steps")
    against_random.set_ylabel("points over random acceptance")
    for axes in (against_main, against_random):
        axes.axhline(0, color="#999999", lw=0.8)
        axes.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args = arguments(__doc__, problems=500)
    file = args.parts / "speculative_reasoning.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    problems = names(args.problems)
    parts = in_parts(file, ["without a judge", *AUCS], lambda setting: part(problems, str(setting)))
    out = args.out or HERE
    result = {**provenance(HERE, 0, "control"), "n_problems": args.problems, **measure(parts)}
    write_json(out / "control.json", result)
    plot(result, out / "control.png")


if __name__ == "__main__":
    main()
