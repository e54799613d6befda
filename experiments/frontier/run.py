"""Row 09: what is the best use of tokens where there is no verifier (Wang et al. 2025, arXiv 2504.14047)?

    python -m experiments.frontier.run        # 500 problems; an hour on one core

The frontier of accuracy against tokens, FLOPs and eFLOPs (Kinetics), and a table at equal tokens. An aggregation is, to
this model, a revision that sees up to four answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from experiments.frontier.cost_frontier import Point, area, cost_to_reach, frontier
from experiments.harness import SKILLED_BANK, Arm, Experiment, correct, flops, minus, options, replies, skilled, summary
from experiments.intervals import Estimate, as_points, mean, share
from experiments.plot import line, lines, logarithmic, panels, save
from thinktime.bench.runner import Outcome
from thinktime.bench.tasks import Task
from thinktime.core.search import Search
from thinktime.core.selection import Candidate
from thinktime.core.trace import Answer, Record
from thinktime.core.types import Capability, Node
from thinktime.generators.text import Text
from thinktime.models.engine.tokenizer import ChatTokenizer
from thinktime.pocket import directory, prompts
from thinktime.pocket.problems import read_answer
from thinktime.pocket.tokenizer import STEP

HERE = Path(__file__).parent
FAMILIES = {
    "one sample": ("single",),
    "one greedy sample": ("greedy",),
    "vote": tuple(f"majority:n={n}" for n in (2, 4, 8, 16, 32)),
    "vote of the shortest half": tuple(f"length_vote:n={n}" for n in (4, 8, 16)),
    "own verdict on each": tuple(
        f"generative_verification:n={n},checks=1,select=best_of_n,verdict=text" for n in (2, 4, 8, 16)
    ),
    "own choice among four": tuple(f"generative_reward:n={n},k=1" for n in (2, 4, 8)),
    "revision, the last": tuple(f"revision:n={n},chains=1,context=1,select=last" for n in (2, 4, 8, 16)),
    "revision, all vote": tuple(f"revision:n={n},chains=1,context=1,select=majority" for n in (2, 4, 8, 16)),
    "four chains of revisions": tuple(f"revision:n={n},chains=4,context=1,select=last" for n in (8, 16)),
    "aggregation": (*(f"aggregate:n={n}" for n in (2, 4)), "aggregate:n=4,layers=2"),
}
TABLE = (2, 4, 8, 16)
"""Votes of so many samples are the budgets of the table."""
ABOUT = 1.05
"""Equal tokens are no more than five in a hundred beyond those of the vote."""
KEPT = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
MARK = "Answer:"
INTENSITY = 562.5
"""Operations to the byte of the accelerator for which Kinetics plans (arXiv 2506.05333)."""
CLEARLY = 0.02
"""The falsifier: revision ahead of a vote by more than two points."""


@dataclass(frozen=True)
class Greedy:
    """One sample at temperature 0."""

    needs: ClassVar[frozenset[str]] = frozenset()

    async def __call__(self, search: Search) -> Answer:
        """The answer of that sample."""
        found = search.candidates(await search.extend([search.root], temperature=0.0))
        return search.finish(next(iter(found), None))


@dataclass(frozen=True)
class Truncated:
    """A share ``kept`` of the tokens before the answer of one sample, and an answer to that.

    No model here thinks before it answers. Its steps stand for thoughts, and ``Answer:`` for the mark that ends them.
    """

    kept: float
    needs: ClassVar[frozenset[str]] = frozenset({Capability.ANSWERS, Capability.PREFIX})

    async def __call__(self, search: Search) -> Answer:
        """The answer behind the cut; none where the sample never ended."""
        (leaf,) = await search.extend([search.root]) or [search.root]
        if not leaf.done:
            return search.finish(None)
        tokenizer = ChatTokenizer(directory("skilled"))
        (line,) = tokenizer.encode(STEP)
        thought = leaf.state.ids[: ([0, *leaf.state.step_ends])[-2]]
        kept = thought[: round(self.kept * len(thought))]
        mark = tokenizer.encode(MARK)
        begun = search.root.state.prompt + kept + ((line,) if kept and kept[-1] != line else ()) + tuple(mark)
        root = Node(f"{leaf.key}/{self.kept}", (), replace(search.root.state, prompt=begun, known=len(begun)))
        search.trace[root.key] = Record(root)
        (answered,) = await search.extend([root])
        search.log(tokens=len(kept) + len(mark) + answered.usage.generated_tokens)
        value = read_answer(MARK + answered.state.text) if answered.done else None
        return search.finish(Candidate(answered, value))


def read(outcome: Outcome) -> float:
    """Tokens generated, and prompt tokens read for the first time."""
    return float(outcome.answer.usage.generated_tokens + (outcome.answer.usage.prompt_tokens or 0))


def eflops(outcome: Outcome) -> float:
    """Operations, and the reading of keys and values in operations."""
    return flops(outcome) + INTENSITY * (outcome.answer.usage.kv_bytes or 0.0)


def turned(outcomes: Sequence[Outcome], task: Task) -> dict[str, Any]:
    """Shares of right answers that a revision turns wrong, and of wrong ones that it turns right."""
    pairs: list[list[tuple[bool, bool]]] = []
    for outcome in outcomes:
        nodes = {node["key"]: node for node in outcome.trace}
        revised = [(nodes[asked["about"][-1]], reply) for asked, reply in replies(outcome, "revise") if asked["about"]]
        pairs.append([(_right(before, outcome, task), _right(after, outcome, task)) for before, after in revised])

    def turns(right: bool) -> Estimate | None:
        mine = [[after for before, after in problem if before is right] for problem in pairs]
        return share([sum(after is not right for after in problem) for problem in mine], list(map(len, mine)))

    return {"right_to_wrong": turns(True), "wrong_to_right": turns(False)}


def _right(node: Mapping[str, Any], outcome: Outcome, task: Task) -> bool:
    answer = task.answers.read(Text((), text=node["text"])) if node["finish"] == "eos" else None
    return task.check(answer, outcome.problem.reference)


def verdict_ties(outcomes: Sequence[Outcome]) -> float:
    """Share of problems in which the best verdict is that of several samples."""
    tied = []
    for outcome in outcomes:
        verdicts = [prompts.verdict(reply["text"]) for _, reply in replies(outcome, "check")]
        known = [verdict for verdict in verdicts if verdict is not None]
        tied.append(bool(known) and known.count(max(known)) > 1)
    return fmean(tied)


def measured(outcomes: Mapping[str, Sequence[Outcome]], task: Task) -> dict[str, Any]:
    """Every arm, the frontiers, the table at equal tokens, and what revisions turn."""
    found: dict[str, Any] = {"arms": {label: summary(of) for label, of in outcomes.items()}}
    right = {label: fmean(map(correct, of)) for label, of in outcomes.items()}
    for unit, cost in (("tokens", read), ("flops", flops), ("eflops", eflops)):
        points = {label: Point(label, fmean(map(cost, of)), right[label]) for label, of in outcomes.items()}
        for label, point in points.items():
            found["arms"][label][unit] = point.cost
        families = {name: [points[label] for label in labels] for name, labels in FAMILIES.items()}
        least, most = points["single"].cost, max(point.cost for point in points.values())
        found[f"by_{unit}"] = {
            "frontier": [point.label for point in frontier([p for of in families.values() for p in of])],
            "area": {"from": least, "to": most}
            | {name: area([points["single"], *of], least, most) for name, of in families.items()},
            "cost_of_the_accuracy_of_8_votes": {
                name: cost_to_reach(of, right["majority:n=8"]) for name, of in families.items()
            },
        }
        if unit == "tokens":
            votes = [f"majority:n={n}" for n in TABLE]
            found["equal_tokens"] = {vote: at_equal_tokens(outcomes, families, points[vote]) for vote in votes}
    found["revisions"] = {label: turned(outcomes[label], task) for label in FAMILIES["revision, the last"]}
    found["verdict_ties"] = {label: verdict_ties(outcomes[label]) for label in FAMILIES["own verdict on each"]}
    return found


def at_equal_tokens(
    outcomes: Mapping[str, Sequence[Outcome]], families: Mapping[str, Sequence[Point]], vote: Point
) -> dict[str, Any]:
    """The dearest arm of each family that takes about the tokens of a vote or less, against this vote."""
    rows = {}
    for name, points in families.items():
        paid = [point for point in points if point.cost <= ABOUT * vote.cost]
        if paid:
            peer = max(paid, key=lambda point: point.cost).label
            rows[name] = {"label": peer, "minus_vote": minus(outcomes[peer], outcomes[vote.label])}
    return rows


def cut_short(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Accuracy by the share that is kept of the tokens before the answer."""
    whole = outcomes[_cut(1.0)]
    return {
        label: {"accuracy": mean(map(correct, of)), "minus_whole": minus(of, whole)} for label, of in outcomes.items()
    }


def _cut(kept: float) -> str:
    return f"{kept:.0%} kept"


def verdict(found: Mapping[str, Any]) -> list[str]:
    """Against the card: revision that is surely ahead of a vote at equal tokens by more than two points."""
    rows = [
        (f"{row['label']} minus {vote}", row["minus_vote"])
        for vote, table in found["equal_tokens"].items()
        for name, row in table.items()
        if "revision" in name
    ]
    ahead = [name for name, gain in rows if gain["low"] > CLEARLY]
    sentences = [f"falsified: {', '.join(ahead)}" if ahead else "holds: no revision is ahead of a vote at equal tokens"]
    sentences += [
        f"{row['label']} minus {vote}: {as_points(row['minus_vote'])}"
        for vote, table in found["equal_tokens"].items()
        for name, row in table.items()
        if row["label"] not in ("single", "greedy", vote)
    ]
    sentences.append("frontier by tokens: " + ", ".join(found["by_tokens"]["frontier"]))
    for label, row in found["revisions"].items():
        sentences.append(f"{label}: " + "; ".join(f"{name} {as_points(part)}" for name, part in row.items() if part))
    sentences.append(
        "cut short: " + "; ".join(f"{name} {as_points(r['accuracy'])}" for name, r in found["cut_short"].items())
    )
    return sentences


def plot(found: Mapping[str, Any], out: Path) -> None:
    """Accuracy against tokens by family; accuracy against what is kept of a solution."""
    figure, (left, right) = panels(2, 12, 4.8)
    families = {name: [found["arms"][label] for label in labels] for name, labels in FAMILIES.items()}
    lines(left, families, lambda row: float(row["tokens"]))
    logarithmic(left, "tokens a problem: generated, and read once")
    left.set_ylabel("right answers, %")
    left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=3)
    accuracies = [row["accuracy"] for row in found["cut_short"].values()]
    line(right, [100 * kept for kept in KEPT], accuracies, 1, "one sample, cut short")
    right.set_xlabel("kept of the tokens before the answer, %")
    save(figure, out / "plot.png")


def main() -> None:
    experiment = Experiment(HERE, options(__doc__, bank=SKILLED_BANK).parse_args(), skilled())
    labels = [label for labels in FAMILIES.values() for label in labels]
    outcomes = experiment.run(Arm(label, Greedy()) if label == "greedy" else label for label in labels)
    cut = experiment.run(Arm(_cut(kept), Truncated(kept)) for kept in KEPT)
    found = measured(outcomes, experiment.task) | {"cut_short": cut_short(cut)}
    plot(found, experiment.out)
    experiment.finish(found, verdict(found))


if __name__ == "__main__":
    main()
