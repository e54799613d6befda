"""Row 06, positive control: search over noises with a verifier of known quality, on a model without a network.

    python -m experiments.noise_search.control            # three minutes on an idle core

The model's pictures are one of ten prototypes with a little variance, all equally likely, and its denoiser is exact.
One prototype is wanted, and only the verifier knows which: one noise in ten is right. The verifier is a dial: a right
picture gets a higher score than a wrong one with the chance AUC. So the share of right winners among n noises is known
in advance, and must be met; more denoising steps must change nothing.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from math import cos, pi, sqrt
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from experiments.constructed import shift
from experiments.intervals import as_number, as_percent, as_points, difference, mean
from experiments.kept import Kept
from experiments.plot import COLOURS, line, logarithmic, panels, save
from experiments.provenance import provenance, write_json
from thinktime.core.search import Search
from thinktime.core.types import Capability, Node, Problem, Sampling, Score
from thinktime.core.usage import Budget, Usage
from thinktime.generators.diffusion import DiffusionGenerator
from thinktime.models.diffusion.calls import Call
from thinktime.models.diffusion.levels import Array, Levels
from thinktime.models.diffusion.models import DiffusionModel
from thinktime.strategies import make

HERE = Path(__file__).parent
STEPS, MOST = 20, 32
AUCS, SIZES, CURVE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.99), (1, 2, 4, 8, 16, 32), (5, 20, 80)
SEARCHES: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "random search": ("best_of_n", {"n": 16}),
    "zero order": ("zero_order", {"n": 4, "rounds": 64}),
    "paths": ("search_over_paths", {"n": 2, "width": 2}),
}
LIVE_AUCS = (0.7, 0.9, 0.99)
BUDGETS = (80, 320, 1280)
"""Evaluations of the denoiser, where the verifier gives a graded score without a limit."""
Result = TypeVar("Result")
PROTOTYPES, SIDE, DEVIATION = 10, 4, 0.15
LEVELS = 1000
"""Timesteps of the schedule."""


class Prototypes(DiffusionModel):
    """A mixture of narrow Gaussians around the prototypes, and the exact mean of the clean picture given a state."""

    def __init__(self) -> None:  # nothing is loaded
        signs = np.random.default_rng(6).choice([-1.0, 1.0], (PROTOTYPES, SIDE * SIDE))
        self.means: npt.NDArray[np.float64] = signs
        self.shape, self.text, self.hidden, self.labels = (1, SIDE, SIDE), False, None, ()
        self.name, self.fingerprint = "prototypes", "prototypes"

    @property
    def flops(self) -> float:
        """Not counted."""
        return 0.0

    @property
    def clip(self) -> None:
        """Estimates are not clipped."""
        return

    def levels(self, steps: int) -> Levels:
        """Evenly spaced levels of a cosine schedule."""
        timesteps = tuple(round(LEVELS * (1 - at / steps)) for at in range(steps))
        return Levels(timesteps, (*map(signal, timesteps), 1.0), "sample")

    def predict(self, calls: Sequence[Call], pull: object = None) -> list[Array]:
        """The clean estimates [1, 1, side, side] of the states."""
        x = np.stack([call.x.reshape(-1) for call in calls])[:, None].astype(np.float64)
        left = np.array([signal(call.timestep) for call in calls])[:, None, None]
        spread = left * DEVIATION**2 + 1 - left
        from_means = x - np.sqrt(left) * self.means
        fit = -(from_means**2).sum(2, keepdims=True) / (2 * spread)
        share = np.exp(fit - fit.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        clean = (share * (self.means + DEVIATION**2 * np.sqrt(left) / spread * from_means)).sum(1)
        return list(clean.reshape(-1, 1, *self.shape).astype(np.float32))

    def nearest(self, picture: Array) -> int:
        """The prototype of a clean picture."""
        return int(((picture.reshape(-1) - self.means) ** 2).sum(1).argmin())


def signal(timestep: int) -> float:
    """The share of the picture's variance at a timestep."""
    return cos(0.49 * pi * timestep / LEVELS) ** 2


class Verifier:
    """Scores the clean estimate of a picture.

    Args:
        generator: of the pictures.
        auc: the chance that a right picture scores higher than a wrong one; None gives the mean brightness instead.
    """

    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD})

    def __init__(self, generator: DiffusionGenerator, auc: float | None) -> None:
        self._generator, self._auc = generator, auc
        self.name = f"dial of {auc}"

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """One call."""
        return Usage(scorer_calls=1)

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """One score per node."""
        return [Score(self._score(problem, node), Usage(scorer_calls=1)) for node in nodes]

    def _score(self, problem: Problem, node: Node) -> float | None:
        clean = self._generator.clean(node.state)
        if clean is None:
            return None
        if self._auc is None:
            return float(clean.mean())
        right = int(MODEL.nearest(clean) == problem.prompt)
        noise: float = Random(f"dial/{node.key}").gauss(0, 1)
        return noise + shift(self._auc) * right


MODEL = Prototypes()


@cache
def sampler(steps: int) -> DiffusionGenerator:
    """The deterministic sampler with this many steps; all searches share its batches."""
    return DiffusionGenerator(MODEL, steps=steps, eta=0.0)


def search(draw: int, steps: int = STEPS, auc: float | None = None, nfe: int | None = None) -> Search:
    """The search of a draw; the wanted prototype goes round."""
    generator = sampler(steps)
    return Search(
        Problem(f"draw/{draw}", draw % PROTOTYPES),
        generator,
        scorers=Verifier(generator, auc),
        sampling=Sampling(max_length=steps),
        budget=Budget(nfe=nfe),
        seed=draw,
    )


def expected(auc: float, n: int, rate: float) -> float:
    """The chance that the winner among n noises is right, if each is right with this rate."""
    x = np.linspace(-8, 12, 4001)

    def below(shifted: float) -> npt.NDArray[np.float64]:
        density = np.exp(-((x - shifted) ** 2) / 2) / sqrt(2 * pi)
        return np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])

    right, wrong = below(shift(auc)), below(0.0)
    highest = (rate * right + (1 - rate) * wrong) ** (n - 1)
    return float((n * rate * (highest[1:] + highest[:-1]) / 2 * np.diff(right)).sum())


def each_of(draws: int, work: Callable[[int], Awaitable[Result]]) -> list[Result]:
    """The work of every draw, all at once."""

    async def gathered() -> list[Result]:
        return list(await asyncio.gather(*map(work, range(draws))))

    return asyncio.run(gathered())


async def pool(draw: int, n: int, steps: int) -> list[tuple[str, bool]]:
    """The key of each noise's picture, and whether it is right."""
    here = search(draw, steps)
    nodes = await here.extend([here.root], n)
    return [(node.key, MODEL.nearest(node.state.x) == here.problem.prompt) for node in nodes]


def random_search(draws: int) -> dict[str, Any]:
    """The share of right winners by AUC and number of noises, beside what it must be."""
    pools = each_of(draws, partial(pool, n=MOST, steps=STEPS))
    rate = float(np.mean([right for each in pools for _, right in each]))
    one = [float(each[0][1]) for each in pools]
    table: dict[str, Any] = {}
    for auc in AUCS:
        table[str(auc)] = {}
        for n in SIZES:
            found = []
            for each in pools:
                scores = [Random(f"dial/{key}").gauss(0, 1) + shift(auc) * right for key, right in each[:n]]
                found.append(float(each[int(np.argmax(scores))][1]))
            row = {"right": mean(found), "minus_one": difference(found, one), "expected": expected(auc, n, rate)}
            table[str(auc)][str(n)] = row
    return {"rate": rate, "by_auc": table}


def more_steps(draws: int) -> dict[str, Any]:
    """The share of right pictures of one noise, by steps of the sampler."""
    return {
        str(steps): mean(float(right) for ((_, right),) in each_of(draws, partial(pool, n=1, steps=steps)))
        for steps in CURVE
    }


async def answered(draw: int, name: str, auc: float | None, nfe: int) -> dict[str, float]:
    """The answer of a search within a budget."""
    here = search(draw, auc=auc, nfe=nfe)
    kind, options = SEARCHES[name]
    if name == "random search":
        options = {"n": nfe // STEPS}
    answer = await make(kind, options)(here)
    assert answer.node is not None
    picture = answer.node.state.x
    right = float(MODEL.nearest(picture) == here.problem.prompt)
    return {"right": right, "score": float(picture.mean()), "nfe": float(answer.usage.denoiser_calls or 0)}


def searches(draws: int, kept: Kept) -> dict[str, Any]:
    """The three searches with the dial, and with a graded score, at equal evaluations."""
    result: dict[str, Any] = {"dial": {}, "graded": {}}
    places: list[tuple[str, str, float | None, int, str]] = [
        ("dial", str(auc), auc, 16 * STEPS, "right") for auc in LIVE_AUCS
    ]
    places += [("graded", str(nfe), None, nfe, "score") for nfe in BUDGETS]
    for kind, place, auc, nfe, measure in places:
        found: dict[str, list[dict[str, float]]] = {}
        for name in SEARCHES:
            work = partial(answered, name=name, auc=auc, nfe=nfe)
            found[name] = kept(f"{kind}, {place}, {name}, {draws}", partial(each_of, draws, work))
        base = [row[measure] for row in found["random search"]]
        result[kind][place] = {
            name: {
                measure: mean(row[measure] for row in rows),
                "nfe": float(np.mean([row["nfe"] for row in rows])),
                "minus_random": difference((row[measure] for row in rows), base),
            }
            for name, rows in found.items()
        }
        print(kind, place, {name: as_number(row["minus_random"]) for name, row in result[kind][place].items()})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--live", type=int, default=100, help="draws of the three searches")
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/noise-control"))
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    kept = Kept(args.kept)
    noises = kept(f"random, {args.draws}", partial(random_search, args.draws))
    for auc, rows in noises["by_auc"].items():
        for n, row in rows.items():
            print(
                auc, n, as_percent(row["right"]), f"expected {100 * row['expected']:.1f}", as_points(row["minus_one"])
            )
    steps = kept(f"steps, {args.draws}", partial(more_steps, args.draws))
    print({count: as_percent(row) for count, row in steps.items()}, flush=True)
    result = {
        **provenance(HERE, 0, "control"),
        "steps": STEPS,
        "draws": args.draws,
        "live_draws": args.live,
        "random": noises,
        "more_steps": steps,
        "searches": searches(args.live, kept),
    }
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Right winners against the number of noises, by AUC, and against AUC; dashed lines are what they must be."""
    figure, (by_size, by_auc) = panels(2, 11, 4.4)
    table = result["random"]["by_auc"]
    for colour, auc in enumerate(AUCS):
        rows = table[str(auc)]
        line(by_size, SIZES, [rows[str(n)]["right"] for n in SIZES], colour, f"AUC {auc}")
        by_size.plot(SIZES, [100 * rows[str(n)]["expected"] for n in SIZES], "--", color=COLOURS[colour], lw=0.8)
    one, most = STEPS, result["more_steps"]
    line(by_size, [int(s) / one for s in most], most.values(), len(AUCS), "more steps, equal evaluations", "o:")
    logarithmic(by_size, "noises (20 evaluations each)")
    by_size.set(title="right, %")
    by_size.legend(fontsize=8)
    for colour, n in enumerate(SIZES[1:]):
        line(by_auc, AUCS, [table[str(auc)][str(n)]["minus_one"] for auc in AUCS], colour, f"{n} noises")
    by_auc.set(title="gain over one noise, points", xlabel="AUC of the verifier")
    by_auc.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
