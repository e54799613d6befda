"""Draws a figure of steering: the same draws under each method with their scores, and scores against cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from thinktime import pocket
from thinktime.core.types import MAIN, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.diffusion import DiffusionGenerator
from thinktime.models.diffusion.classifier import Classifier
from thinktime.models.diffusion.models import DiffusionModel
from thinktime.pocket.digits import STEPS
from thinktime.scorers.composed import Composed
from thinktime.scorers.pictures import PictureScorer, class_score, ink
from thinktime.session import Session
from thinktime.strategies import make

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

DIGITS = (2, 4, 5, 7, 8, 9)
BUDGETS = (80, 160, 320)
"""Denoiser evaluations for one picture."""
METHODS: Mapping[str, Mapping[str, int | str]] = {
    "best_of_n": {},
    "beam_search": {"width": 2},
    "fk_steering": {},
    "dts": {"n": 1000, "walks": 2},
}
CELL, MARGIN, LEFT = 72, 18, 110


@dataclass(frozen=True)
class Painted:
    """A picture between 0 and 1 [height, width], and its score."""

    picture: Any
    score: float


def paintings() -> dict[tuple[str, int], list[Painted]]:
    """Digits with heavy ink, by method and budget; ``single`` spends the evaluations of one picture."""
    generator = DiffusionGenerator(DiffusionModel(pocket.directory("digits")), steps=STEPS)
    digit = PictureScorer(generator, class_score(Classifier.load(pocket.directory("digits_scorer"))), "class")
    scorer = Composed([(digit, 1.0), (PictureScorer(generator, ink, "ink"), 10.0)])
    session = Session({MAIN: generator}, {MAIN: scorer}, sampling=Sampling(max_length=STEPS))

    async def one(name: str, nfe: int, digit: int) -> Painted:
        values = dict(METHODS.get(name, {"n": 1}))
        values.setdefault("n", nfe // STEPS)
        search = replace(session, budget=Budget(nfe=nfe)).search(Problem(f"gallery/{digit}", digit))
        answer = await make("best_of_n" if name == "single" else name, values)(search)
        assert answer.node is not None
        (picture,) = generator.model.pictures([answer.node.state.x])
        return Painted(picture[0], search.trace[answer.node.key].score or 0.0)

    async def every() -> dict[tuple[str, int], list[Painted]]:
        arms = [("single", STEPS), *((name, nfe) for name in METHODS for nfe in BUDGETS)]
        found = await asyncio.gather(*(one(name, nfe, digit) for name, nfe in arms for digit in DIGITS))
        rows = [found[start : start + len(DIGITS)] for start in range(0, len(found), len(DIGITS))]
        return dict(zip(arms, rows, strict=True))

    return asyncio.run(every())


def draw(found: Mapping[tuple[str, int], Sequence[Painted]], path: Path) -> None:
    """Write the figure: a row of digits for each method at the largest budget, and below them the curves."""
    from PIL import Image, ImageDraw

    rows = [arm for arm in found if arm[1] in (STEPS, BUDGETS[-1])]
    width, height = LEFT + len(DIGITS) * (CELL + MARGIN) + MARGIN, len(rows) * (CELL + MARGIN) + 250
    sheet = Image.new("L", (width, height), 255)
    canvas = ImageDraw.Draw(sheet)
    for row, (name, nfe) in enumerate(rows):
        top = MARGIN + row * (CELL + MARGIN)
        canvas.text((8, top + 20), f"{name}\n{nfe} NFE", fill=0)
        for column, painted in enumerate(found[name, nfe]):
            left = LEFT + column * (CELL + MARGIN)
            levels = np.round(255 - 255 * painted.picture).astype(np.uint8)
            sheet.paste(Image.fromarray(levels).resize((CELL, CELL), Image.Resampling.NEAREST), (left, top))
            canvas.text((left + 18, top + CELL), f"{painted.score:+.2f}", fill=90)
    _curve(canvas, found, (LEFT, height - 210, width - 130, height - 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _curve(
    canvas: ImageDraw, found: Mapping[tuple[str, int], Sequence[Painted]], box: tuple[int, int, int, int]
) -> None:
    """Draw mean scores against evaluations, on a logarithmic axis."""
    left, top, right, bottom = box
    means = {arm: fmean(painted.score for painted in row) for arm, row in found.items()}
    low, high = min(means.values()), max(means.values())

    def at(nfe: int, score: float) -> tuple[float, float]:
        across = np.log2(nfe / STEPS) / np.log2(BUDGETS[-1] / STEPS)
        return left + float(across) * (right - left), bottom - (score - low) / (high - low) * (bottom - top)

    canvas.line([(left, top), (left, bottom), (right, bottom)], fill=150)
    for nfe in (STEPS, *BUDGETS):
        canvas.text((at(nfe, low)[0] - 8, bottom + 6), str(nfe), fill=90)
    canvas.text((left, bottom + 20), "evaluations of the denoiser (NFE)", fill=90)
    canvas.text((8, top), "mean score\n" + f"{high:.2f}", fill=90)
    canvas.text((8, bottom - 10), f"{low:.2f}", fill=90)
    start = at(STEPS, means["single", STEPS])
    ends = sorted((means[name, BUDGETS[-1]], name) for name in METHODS)
    below = bottom + 12.0
    for score, name in ends:
        canvas.line([start, *(at(nfe, means[name, nfe]) for nfe in BUDGETS)], fill=40, width=2)
        below = min(below - 12, at(BUDGETS[-1], score)[1] - 6)
        canvas.text((right + 6, below), f"{name} {score:.2f}", fill=0)
