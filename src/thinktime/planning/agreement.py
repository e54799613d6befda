"""Calibrations of requests without right answers: how often a vote agrees with a vote of other samples.

Agreement is no accuracy. A vote that agrees with itself may be wrong each time, and a larger vote agrees more often
even where it is wrong more often. So agreement never says that one strategy is better than another one. It says how
many samples are enough for the answer that many samples give (Wang et al. 2022, arXiv 2203.11171). Only the sizes of
one vote are compared, and of sizes that agree as often the cheapest is taken.

The vote that an arm is compared with is made of other samples than the arm's own. With samples in common, a vote of all
samples would agree with itself always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from thinktime.bench.signals import signals
from thinktime.bench.tally import ends, tally
from thinktime.core.search import Search
from thinktime.core.selection import majority, weighted_majority
from thinktime.core.types import MAIN, Node
from thinktime.core.usage import total
from thinktime.planning.arms import Arm
from thinktime.planning.bins import is_plain
from thinktime.planning.calibration import AGREEMENT, Calibration, by_cost

SIZES = (1, 2, 3, 5, 8)
OTHERS = 8
"""Samples of the vote that the arms are compared with."""
SAMPLES = SIZES[-1] + OTHERS
"""Samples of a request."""


@dataclass(frozen=True)
class Agreement:
    """What a vote of some size gave on one request."""

    agrees: float
    tokens: int
    usage: Mapping[str, float | None]
    signals: Mapping[str, float]
    samples: Mapping[str, int]


async def measured(search: Search, drawn: Sequence[Node]) -> dict[str, Agreement] | None:
    """Votes of the first samples, compared with a vote of the last ones.

    With a scorer, the votes are weighted by scores, which are charged to the search.

    Args:
        search: reads, compares and scores answers.
        drawn: `SAMPLES` whole samples of its root.

    Returns:
        By strategy; None if the vote of the last samples has no readable answer.
    """
    judged = search.scorer is not None
    scores = await search.score(drawn) if judged else [None] * len(drawn)
    select, name = (weighted_majority, "weighted_majority") if judged else (majority, "majority")
    scoring = total(usage for (_, role), usage in search.meter.accounts.items() if role == f"scorer {MAIN}")

    def answer(part: slice) -> Any:
        chosen = select(search.candidates(drawn[part], scores[part]))
        return None if chosen is None or chosen.answer is None else chosen.key

    if (other := answer(slice(SIZES[-1], SAMPLES))) is None:
        return None
    kinds = {record.node.key: kind for record, kind in ends(search)}
    found = {}
    for n in SIZES:
        mine = drawn[:n]
        spent = total(node.usage for node in mine)
        share = n / len(drawn) if n > 1 else 0.0
        found["single" if n == 1 else f"{name}:n={n}"] = Agreement(
            float(answer(slice(n)) == other),
            spent.generated_tokens,
            {what: _sum(cost, getattr(scoring, what), share) for what, cost in spent.as_dict().items()},
            signals(search, mine),
            asdict(tally(kinds[node.key] for node in mine)),
        )
    return found


def _sum(cost: float | None, more: float | None, share: float) -> float | None:
    return None if cost is None or more is None else cost + share * more


def begun(generator: str, scorer: str | None, temperature: float) -> Calibration:
    """A calibration of a model, a scorer and a temperature without any request."""
    model = {"generator": generator, "scorer": scorer}
    return Calibration({"name": "traffic"}, model, {"temperature": temperature}, 0, (), (), (), measure=AGREEMENT)


def with_request(calibration: Calibration, found: Mapping[str, Agreement]) -> Calibration:
    """The calibration with one request more."""
    count = len(calibration.problems)
    before = {arm.strategy: arm for arm in calibration.arms}
    arms = [_extended(before.get(name), name, each, count) for name, each in found.items()]
    return replace(calibration, problems=(*calibration.problems, str(count + 1)), arms=by_cost(arms), policies=())


def _extended(arm: Arm | None, name: str, found: Agreement, count: int) -> Arm:
    arm = arm or Arm(name, (), (), {}, None, {}, dict.fromkeys(found.signals, ()))
    means = {what: _mean(arm.usage.get(what, 0.0), cost, count) for what, cost in found.usage.items()}
    extended = replace(
        arm,
        right=(*arm.right, found.agrees),
        tokens=(*arm.tokens, float(found.tokens)),
        usage=means,
        samples={kind: arm.samples.get(kind, 0) + number for kind, number in found.samples.items()},
        signals={
            signal: (*values, round(found.signals[signal], 4))
            for signal, values in arm.signals.items()
            if signal in found.signals
        },
    )
    return extended if is_plain(extended) else replace(extended, signals={})


def _mean(before: float | None, value: float | None, count: int) -> float | None:
    return None if before is None or value is None else (before * count + value) / (count + 1)


def finished(calibration: Calibration, source: Mapping[str, Any]) -> Calibration:
    """The calibration with its policies, and where it comes from."""
    told = {
        "thinktime": version("thinktime"),
        "date": datetime.now(UTC).date().isoformat(),
        "compared_with": f"a vote of {OTHERS} other samples",
    }
    return replace(calibration, sources=({**source, **told},)).with_policies()
