"""The harness of the experiments on pictures: the shipped digits, a classifier to steer by, another to judge with.

A draw is a prompt and a seed; all arms see the same draws, so they are compared in pairs. What an arm finds is kept in
a folder, and a killed run goes on with the arms that are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes

from experiments.intervals import Estimate, difference, mean
from experiments.plot import ResultRow, lines, logarithmic, panels, save
from experiments.provenance import provenance, write_json
from thinktime import pocket
from thinktime.core.search import Search
from thinktime.core.types import Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.diffusion import DiffusionGenerator
from thinktime.models.diffusion.classifier import Classifier
from thinktime.models.diffusion.gradient import Part, Pull
from thinktime.models.diffusion.models import DiffusionModel
from thinktime.scorers.composed import Composed
from thinktime.scorers.pictures import SIMPLE, PictureScorer, class_score
from thinktime.strategies import make

AT_ONCE = 40
"""Draws in flight."""
COSTS = ("denoiser_calls", "scorer_calls", "decodes", "model_calls", "flops", "scorer_flops")
WORST = -20.0
"""The reward of a draw without a finished picture, the lowest possible."""
Place = tuple[int | None, int]
"""The prompt and the seed of a draw; None asks for no class."""
Draw = dict[str, Any]
"""One draw of an arm: scores and judgements of every finished picture, the place of the chosen one, and costs."""


def options(description: str | None, name: str, draws: int) -> argparse.ArgumentParser:
    """The options of an experiment on pictures."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments") / name)
    return parser


class ImageBench:
    """The models, and the folder of the results.

    Args:
        kept: the folder.
        steps: of the sampler.
        eta: the sampler's noise.
        target: the class to steer an unconditional model to; None paints the class of the prompt.
        beside: other measures and their weights in the score, beside the log-probability of the class.
        pull: how strongly every step follows the slope of the score.
        stride: steps of the sampler that form one step of a search.
    """

    def __init__(
        self,
        kept: Path,
        steps: int,
        eta: float,
        target: int | None,
        *,
        beside: Mapping[str, float] | None = None,
        pull: float | None = None,
        stride: int = 1,
    ) -> None:
        parts = [Part("class", class_score(Classifier.load(pocket.directory("digits_scorer")), target))]
        parts += [Part(name, SIMPLE[name], weight) for name, weight in (beside or {}).items()]
        slopes = None if pull is None else Pull(parts, pull)
        model = DiffusionModel(pocket.directory("digits"))
        self.generator = DiffusionGenerator(model, steps=steps, eta=eta, pull=slopes, stride=stride)
        self.kept, self.target = kept, target
        self.scorer = Composed(
            [(PictureScorer(self.generator, part.measure, part.name), part.weight) for part in parts]
        )
        self._judge = Classifier.load(pocket.directory("digits_judge"))

    def search(self, prompt: int | None, seed: int, budget: Budget | None = None) -> Search:
        """A search for one draw."""
        problem, sampling = Problem(f"digit/{prompt}", prompt), Sampling(max_length=self.generator.levels.steps)
        return Search(problem, self.generator, scorers=self.scorer, sampling=sampling, budget=budget, seed=seed)

    def run(
        self, label: str, strategy: str, given: Mapping[str, Any], draws: Sequence[Place], nfe: int | None = None
    ) -> list[Draw]:
        """A strategy with its options on all draws, within ``nfe`` evaluations each; what is kept is read."""
        path = self.kept / f"{label}-{len(draws)}.json"
        if path.exists():
            return list(json.loads(path.read_text()))
        started, budget, chosen = time.perf_counter(), Budget(nfe=nfe), make(strategy, given)

        async def one(prompt: int | None, seed: int) -> Draw:
            async with free:
                search = self.search(prompt, seed, budget)
                return self._draw(search, await chosen(search), prompt, seed)

        async def every() -> list[Draw]:
            return list(await asyncio.gather(*(one(prompt, seed) for prompt, seed in draws)))

        free = asyncio.Semaphore(AT_ONCE)
        found = asyncio.run(every())
        self.kept.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
        hits, calls = fmean(map(hit, found)), fmean(draw["usage"]["denoiser_calls"] for draw in found)
        print(f"{label}: judge {hits:.3f}, {calls:.0f} NFE, {time.perf_counter() - started:.0f} s", flush=True)
        return found

    def _draw(self, search: Search, answer: Any, prompt: int | None, seed: int) -> Draw:
        ended = [record for record in search.trace.values() if record.node.done]
        states = [record.node.state.x for record in ended]
        judgements = zip(ended, self.judge(states, prompt), self.features(states), strict=True)
        pool = [
            {"reward": record.score, "parts": record.steps, "judged": judgement, "features": seen}
            for record, judgement, seen in judgements
        ]
        return {
            "prompt": prompt,
            "seed": seed,
            "usage": {name: answer.usage.as_dict()[name] for name in COSTS},
            "passes": answer.passes,
            "roots": next((event["roots"] for event in reversed(search.events) if "roots" in event), None),
            "pool": pool,
            "chosen": next((i for i, record in enumerate(ended) if answer.node and record.node is answer.node), None),
        }

    def features(self, states: Sequence[Any]) -> list[list[float]]:
        """The features of clean states in the judge's last layer but one."""
        if not states:
            return []
        with torch.inference_mode():
            shown = torch.from_numpy(np.stack(self.generator.model.pictures(states)))
            return [[round(float(value), 4) for value in row] for row in self._judge.features(shown)]

    def judge(self, states: Sequence[Any], prompt: int | None) -> list[list[float]]:
        """The judge's log-probability of the wanted class in each picture, and whether that class comes first."""
        if not states:
            return []
        table = self._judge.log_probabilities(self.generator.model.pictures(states))
        wanted = prompt if self.target is None else self.target
        return [[round(float(row[wanted]), 6), float(int(row.argmax()) == wanted)] for row in table]


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
    """The score of the chosen picture."""
    return WORST if draw["chosen"] is None else float(draw["pool"][draw["chosen"]]["reward"])


def hit(draw: Draw) -> float:
    """Whether the judge sees the wanted class in the chosen picture."""
    return 0.0 if draw["chosen"] is None else float(draw["pool"][draw["chosen"]]["judged"][1])


def class_score_of(draw: Draw) -> float:
    """The part of the reward that is the log-probability of the class."""
    return WORST if draw["chosen"] is None else float(draw["pool"][draw["chosen"]]["parts"][0])


def judged(draw: Draw) -> float:
    """The reward with the judge's log-probability of the class in place of the scorer's."""
    if draw["chosen"] is None:
        return WORST
    return reward(draw) - class_score_of(draw) + float(draw["pool"][draw["chosen"]]["judged"][0])


def gap(draw: Draw) -> float:
    """The reward that the judge does not confirm."""
    return reward(draw) - judged(draw)


def scorer_believes(draw: Draw) -> float:
    """Whether the scorer gives the wanted class more than half."""
    return float(class_score_of(draw) > np.log(0.5))


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
    measures = (reward, judged, gap, hit, scorer_believes)
    return {measure.__name__: mean(map(measure, draws)) for measure in measures} | {
        "usage": {name: fmean(draw["usage"][name] or 0.0 for draw in draws) for name in COSTS},
        "passes": fmean(draw["passes"] for draw in draws),
    }


def minus(a: Sequence[Draw], b: Sequence[Draw], of: Callable[[Draw], float] = hit) -> Estimate:
    """Paired difference over draws, with its interval."""
    return difference(map(of, a), map(of, b))


def finish(folder: Path, n: int, result: Mapping[str, Any], verdict: Sequence[str]) -> None:
    """Write ``result.json`` with what it takes to repeat it, and print the verdict."""
    write_json(folder / "result.json", provenance(folder, 0) | {"n_draws": n, **result, "verdict": verdict})
    print(*verdict, sep="\n")


def evaluations(row: ResultRow) -> float:
    """Evaluations of the denoiser that an arm takes a draw."""
    return float(row["usage"]["denoiser_calls"])


def draw_lines(each: Sequence[Axes], families: Mapping[str, Sequence[ResultRow]], titles: Mapping[str, str]) -> None:
    """A measure of a summary in each panel against evaluations, by families of rows; titles by measure."""
    for axes, (measure, title) in zip(each, titles.items(), strict=False):
        lines(axes, families, evaluations, measure, 100 if "%" in title else 1)
        logarithmic(axes, "evaluations of the denoiser")
        axes.set_title(title)


def plot(families: Mapping[str, Sequence[ResultRow]], titles: Mapping[str, str], path: Path) -> None:
    """A figure of nothing else."""
    figure, each = panels(len(titles), 10, 4.4)
    draw_lines(each, families, titles)
    each[0].legend()
    save(figure, path)
