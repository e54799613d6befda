"""What experiments on pictures share: the shipped digits, a classifier to steer by, another to judge with.

A draw is a prompt and a seed; all arms see the same draws, so they are compared in pairs. What an arm found is kept,
and a killed run goes on with the arms that are missing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch

from experiments.facts import facts
from experiments.plot import COLOURS, bars, save
from thinktime import pocket
from thinktime.bench.statistics import mean_interval, paired_difference
from thinktime.core.search import Search
from thinktime.core.types import Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.diffusion.classifier import Classifier
from thinktime.diffusion.gradient import Part, Pull
from thinktime.diffusion.models import DiffusionModel
from thinktime.generators.diffusion import DiffusionGenerator
from thinktime.scorers.composed import Composed
from thinktime.scorers.pictures import SIMPLE, PictureScorer, class_score
from thinktime.strategies import Strategy

AT_ONCE = 40
"""Draws in flight."""
COSTS = ("denoiser_calls", "scorer_calls", "decodes", "model_calls", "flops", "scorer_flops")
Draw = dict[str, Any]
"""One draw of an arm: what scorer and judge say of every picture that was finished, which was chosen, and costs."""


class ImageBench:
    """The models, and where what was found is kept.

    Args:
        steps: of the sampler.
        eta: its noise.
        target: the class to steer an unconditional model to; None paints the class of the prompt.
        beside: other measures and their weights in the score, beside the log-probability of the class.
        pull: how strongly every step follows the slope of the score.
    """

    def __init__(
        self,
        steps: int,
        eta: float,
        target: int | None,
        *,
        beside: Mapping[str, float] | None = None,
        pull: float | None = None,
    ) -> None:
        parts = [Part("class", class_score(Classifier.load(pocket.directory("digits_scorer")), target))]
        parts += [Part(name, SIMPLE[name], weight) for name, weight in (beside or {}).items()]
        self.generator = DiffusionGenerator(
            DiffusionModel(pocket.directory("digits")),
            steps=steps,
            eta=eta,
            pull=None if pull is None else Pull(parts, pull),
        )
        self.target = target
        self.scorer = Composed(
            [(PictureScorer(self.generator, part.measure, part.name), part.weight) for part in parts]
        )
        self._judge = Classifier.load(pocket.directory("digits_judge"))

    def search(self, prompt: int | None, seed: int, budget: Budget | None = None) -> Search:
        """For one draw."""
        return Search(
            Problem(f"digit/{prompt}", prompt),
            self.generator,
            scorers=self.scorer,
            sampling=Sampling(max_length=self.generator.levels.steps),
            budget=budget,
            seed=seed,
        )

    async def draw(self, strategy: Strategy, prompt: int | None, seed: int, budget: Budget) -> Draw:
        """One draw by one strategy."""
        search = self.search(prompt, seed, budget)
        answer = await strategy(search)
        ended = [record for record in search.trace.values() if record.node.done]
        told = self.look([record.node.state.x for record in ended], prompt)
        seen = self.features([record.node.state.x for record in ended])
        pool = [
            {"reward": record.score, "parts": record.steps, "judged": judged, "features": features}
            for record, judged, features in zip(ended, told, seen, strict=True)
        ]
        chosen = next((i for i, record in enumerate(ended) if answer.node and record.node is answer.node), None)
        usage = {name: answer.usage.as_dict()[name] for name in COSTS}
        found: Draw = {
            "prompt": prompt,
            "seed": seed,
            "usage": usage,
            "passes": answer.passes,
            "events": search.events[-1:],
        }
        return found | {"pool": pool, "chosen": chosen}

    def features(self, states: Sequence[Any]) -> list[list[float]]:
        """What the judge's last layer but one sees in clean states."""
        if not states:
            return []
        with torch.inference_mode():
            shown = torch.from_numpy(np.stack(self.generator.model.pictures(states)))
            return [[round(float(value), 4) for value in row] for row in self._judge.features(shown)]

    def look(self, states: Sequence[Any], prompt: int | None) -> list[list[float]]:
        """What the judge says of each picture: the log-probability of what was wanted, and whether it comes first."""
        if not states:
            return []
        table = self._judge.log_probabilities(self.generator.model.pictures(states))
        wanted = prompt if self.target is None else self.target
        return [[round(float(row[wanted]), 6), float(int(row.argmax()) == wanted)] for row in table]


def run(
    bench: ImageBench,
    label: str,
    strategy: Strategy,
    draws: Sequence[tuple[int | None, int]],
    budget: Budget,
    kept: Path,
) -> list[Draw]:
    """An arm on all draws, many at once; found again if it was run before."""
    path = kept / f"{label}-{len(draws)}.json"
    if path.exists():
        return list(json.loads(path.read_text()))
    started = time.perf_counter()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(prompt: int | None, seed: int) -> Draw:
        async with gate:
            return await bench.draw(strategy, prompt, seed, budget)

    async def every() -> list[Draw]:
        return list(await asyncio.gather(*(one(prompt, seed) for prompt, seed in draws)))

    found = asyncio.run(every())
    kept.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    hits = fmean(hit(draw) for draw in found)
    nfe = fmean(draw["usage"]["denoiser_calls"] for draw in found)
    print(f"{label}: judge {hits:.3f}, {nfe:.0f} NFE, {time.perf_counter() - started:.0f} s", flush=True)
    return found


def of_first(draws: Sequence[Draw], n: int, steps: int) -> list[Draw]:
    """Best-of-n from the first ``n`` of a larger best-of-n: the same samples, paid for alone."""
    found = []
    for draw in draws:
        pool = draw["pool"][:n]
        chosen = max(range(len(pool)), key=lambda i: pool[i]["reward"])
        usage = dict.fromkeys(COSTS, 0.0) | {"denoiser_calls": n * steps, "scorer_calls": n, "model_calls": n}
        share = n / len(draw["pool"])
        usage |= {name: share * (draw["usage"][name] or 0.0) for name in ("flops", "scorer_flops")}
        found.append(draw | {"pool": pool, "chosen": chosen, "usage": usage, "passes": steps})
    return found


def reward(draw: Draw) -> float:
    """What the search saw of the picture it chose; where none was finished, the worst it could be."""
    return -20.0 if draw["chosen"] is None else float(draw["pool"][draw["chosen"]]["reward"])


def hit(draw: Draw) -> float:
    """Whether the judge sees what was wanted in the picture that was chosen."""
    return 0.0 if draw["chosen"] is None else float(draw["pool"][draw["chosen"]]["judged"][1])


def class_of(draw: Draw) -> float:
    """The part of the reward that the class has; where no picture was finished, the worst it could be."""
    return -20.0 if draw["chosen"] is None else float(draw["pool"][draw["chosen"]]["parts"][0])


def judged(draw: Draw) -> float:
    """The reward with the judge's log-probability of the class in place of the scorer's."""
    if draw["chosen"] is None:
        return -20.0
    return reward(draw) - class_of(draw) + float(draw["pool"][draw["chosen"]]["judged"][0])


def seen_by_scorer(draw: Draw) -> float:
    """Whether the scorer gives what was wanted more than half."""
    return float(class_of(draw) > np.log(0.5))


def diversity(draws: Sequence[Draw], group: Callable[[Draw], Any]) -> float:
    """Mean distance in the judge's features between two chosen pictures of a group, over groups."""
    groups: dict[Any, list[Any]] = {}
    for draw in draws:
        groups.setdefault(group(draw), []).append(draw["pool"][draw["chosen"]]["features"])
    found = []
    for features in groups.values():
        points = np.array(features)
        between = np.linalg.norm(points[:, None] - points[None], axis=-1)
        found.append(between.sum() / (len(points) * (len(points) - 1)))
    return float(np.mean(found))


def summary(draws: Sequence[Draw]) -> dict[str, Any]:
    """Reward, hits and what the scorer believes, each with its interval, and mean costs."""
    return {
        "reward": mean_interval([reward(draw) for draw in draws]).as_dict(),
        "judged": mean_interval([judged(draw) for draw in draws]).as_dict(),
        "gap": mean_interval([reward(draw) - judged(draw) for draw in draws]).as_dict(),
        "hit": mean_interval([hit(draw) for draw in draws]).as_dict(),
        "scorer_believes": mean_interval([seen_by_scorer(draw) for draw in draws]).as_dict(),
        "usage": {name: fmean(draw["usage"][name] or 0.0 for draw in draws) for name in COSTS},
        "passes": fmean(draw["passes"] for draw in draws),
    }


def minus(a: Sequence[Draw], b: Sequence[Draw], of: Callable[[Draw], float] = hit) -> dict[str, float]:
    """Paired difference over draws, with its interval."""
    return paired_difference([of(draw) for draw in a], [of(draw) for draw in b]).as_dict()


def plot(rows: Mapping[str, Any], lines: Mapping[str, Sequence[str]], titles: tuple[str, str], path: Path) -> None:
    """Hits by the judge and by the scorer against evaluations; a line has a name and the labels of its rows."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), dpi=150, sharey=True)
    for axes, measure, title in zip(panels, ("hit", "scorer_believes"), titles, strict=True):
        for colour, (name, labels) in zip(COLOURS, lines.items(), strict=False):
            y, whiskers = bars(rows[label][measure] for label in labels)
            x = [rows[label]["usage"]["denoiser_calls"] for label in labels]
            axes.errorbar(x, y, whiskers, label=name, color=colour, marker="o", ms=4, lw=1.8, elinewidth=0.7)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlabel("evaluations of the denoiser")
        axes.set_title(title, loc="left")
    panels[0].set_ylabel("pictures, %")
    panels[0].legend(frameon=False)
    save(figure, path)


def write(folder: Path, n: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """``result.json`` with what it takes to repeat it; the whole of it is returned."""
    whole = {**facts(folder, 0), "n_draws": n, **result}
    (folder / "result.json").write_text(json.dumps(whole, indent=1) + "\n")
    return whole
