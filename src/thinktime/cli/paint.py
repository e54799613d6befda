"""``thinktime paint``: paint one picture for one prompt, with its cost."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.cli.common import BudgetText, Json, Seed, budget_of, gflops, tell_warnings
from thinktime.core.errors import InputError, ModelError, UnknownNameError

if TYPE_CHECKING:
    from thinktime.core.protocols import Scorer
    from thinktime.core.search import Search
    from thinktime.core.trace import Answer
    from thinktime.models.diffusion.gradient import Part
    from thinktime.strategies import Strategy

POCKET = "pocket-digits"
"""The shipped image model, by its name in ``--model``."""


def paint(
    prompt: Annotated[str, typer.Argument(help="What to paint: words, or a class ('digit 7, heavy ink').")],
    strategy: Annotated[str, typer.Option(help="A strategy, with options: dts:n=64, fk_steering:n=8.")] = "dts",
    model: Annotated[str, typer.Option(help="'pocket-digits' (shipped) or a diffusers directory.")] = POCKET,
    scorer: Annotated[
        str | None,
        typer.Option(
            help="Measures and weights: class, ink, symmetry, compressibility, clip=DIR, image_reward=DIR, joined as "
            "in class+10*ink; default: the measures in the prompt of pocket-digits."
        ),
    ] = None,
    budget: BudgetText = "400nfe",
    steps: Annotated[int, typer.Option(help="Denoising steps from noise to picture.")] = 20,
    eta: Annotated[
        float | None,
        typer.Option(help="Noise of a step, 0 to 1; default: 0 if the strategy needs steps without noise, else 1."),
    ] = None,
    guidance: Annotated[float, typer.Option(help="Above 1: closer to the prompt, for two evaluations a step.")] = 1.0,
    pull: Annotated[
        float | None,
        typer.Option(help="Weight of the score's gradient in every step; for class, ink, symmetry."),
    ] = None,
    stride: Annotated[int, typer.Option(help="Denoising steps that count as one step of a search.")] = 1,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("picture.png"),
    side: Annotated[int, typer.Option(help="Least height of the PNG in pixels; small pictures are enlarged.")] = 256,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Paint one picture with a search, and print its cost."""
    from thinktime import pocket
    from thinktime.core.types import MAIN, Capability, Problem, Sampling
    from thinktime.generators.diffusion import DiffusionGenerator
    from thinktime.models.diffusion.gradient import Pull
    from thinktime.pocket.digits import scorer_for
    from thinktime.scorers.pictures import PictureScorer
    from thinktime.session import Session
    from thinktime.strategies import check, parse

    name, method = parse(strategy)
    limits = budget_of(budget)
    if out.suffix.lower() != ".png":
        raise InputError("out", str(out), "pictures are written as PNG; give a name that ends in .png")
    if eta is None:
        eta = 0.0 if Capability.NO_NOISE in method.needs else 1.0
    directory = pocket.directory("digits") if model == POCKET else Path(model)
    wanted = scorer or (scorer_for(prompt) if model == POCKET else None)
    measures = measures_of(wanted) if wanted else []
    generator = DiffusionGenerator(
        directory,
        steps=steps,
        eta=eta,
        guidance=guidance,
        pull=None if pull is None else Pull(measures, pull),
        stride=stride,
        device=device,
    )
    judge = composed([(PictureScorer(generator, each.measure, each.name), each.weight) for each in measures])
    scorers, sampling = {MAIN: judge} if judge else {}, Sampling(max_length=steps)
    session = Session({MAIN: generator}, scorers, sampling=sampling, budget=limits, seed=seed)
    search = session.search(Problem("paint", prompt))
    check(name, method, search)
    answer = asyncio.run(_watched(method, search, quiet=as_json))
    tell_warnings(search)
    if answer.node is None:
        least = generator.worst_case(search.root, steps).denoiser_calls
        raise InputError("budget", budget, f"not enough for one picture, which takes {least}nfe")
    (picture,) = generator.model.pictures([answer.node.state.x])
    if bool((picture != picture).any()):
        raise ModelError(f"model={model!r}: its decoder gives NaN or infinity; check the weights in vae")
    _write(picture, out, side)
    score = search.trace[answer.node.key].score
    usage = answer.usage
    if as_json:
        result = {"picture": str(out), "score": score, "finish": answer.finish, "strategy": name}
        print(json.dumps(result | {"usage": usage.as_dict(), "passes": answer.passes}))
        return
    print(f"{out}: score {'none' if score is None else f'{score:.3f}'}  ({name}, {answer.finish})")
    print(
        f"{usage.denoiser_calls} evaluations of the denoiser in {usage.model_calls} calls, "
        f"{usage.scorer_calls} pictures scored, {usage.decodes} decoded, {gflops(usage.as_dict())}, "
        f"{usage.seconds:.1f} s"
    )


def measures_of(text: str) -> list[Part]:
    """The measures in ``--scorer``.

    Raises:
        InputError: it has no measure, an unknown measure, or a measure without its model.
    """
    from thinktime import pocket
    from thinktime.models.diffusion.classifier import Classifier
    from thinktime.models.diffusion.gradient import Part
    from thinktime.scorers.pictures import SIMPLE, class_score, clip_score, image_reward

    term = r"([+-]?)(?:(\d+\.?\d*)\*)?([a-z_]+)(?:=([^+]+))?"
    if not re.fullmatch(f"{term}(?:(?=[+-]){term})*", text):
        raise InputError("scorer", text, "write measures with their weights, joined by + or -: class+10*ink")
    found = []
    for sign, weight, name, path in re.findall(term, text):
        if name in SIMPLE:
            measure, label = SIMPLE[name], name
        elif name == "class":
            folder = Path(path) if path else pocket.directory("digits_scorer")
            measure, label = class_score(Classifier.load(folder)), f"class@{folder.name}"
        elif name in ("clip", "image_reward"):
            if not path:
                raise InputError("scorer", name, f"say where its weights are: {name}=DIRECTORY")
            measure, label = (clip_score if name == "clip" else image_reward)(Path(path)), f"{name}@{Path(path).name}"
        else:
            raise UnknownNameError("scorer", name, [*SIMPLE, "class", "clip", "image_reward"])
        found.append(Part(label, measure, float(weight or 1) * (-1 if sign == "-" else 1)))
    return found


def composed(parts: Sequence[tuple[Scorer, float]]) -> Scorer | None:
    """One scorer composed of all parts; None without parts."""
    from thinktime.scorers.composed import Composed

    if len(parts) == 1 and parts[0][1] == 1:
        return parts[0][0]
    return Composed(parts) if parts else None


async def _watched(method: Strategy, search: Search, quiet: bool) -> Answer:
    """Run the strategy with a bar of the spent evaluations and the best score so far; return its answer."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    work = asyncio.ensure_future(method(search))
    size = "x".join(map(str, search.generator.model.shape[:0:-1]))  # type: ignore[attr-defined]
    columns = (BarColumn(), TextColumn("{task.completed} NFE, {task.fields[seen]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("", total=search.ledger.budget.nfe, seen="nothing finished yet")
        while not work.done():
            await asyncio.wait({work}, timeout=0.1)
            scores = [r.score for r in list(search.trace.values()) if r.node.done and r.score is not None]
            seen = f"best so far {max(scores):.3f} ({size})" if scores else "nothing finished yet"
            bar.update(task, completed=search.ledger.spent.denoiser_calls, seen=seen)
    return await work


def _write(picture: Any, out: Path, side: int) -> None:
    """Write a picture ``[channels, height, width]`` of values from 0 to 1 as PNG, at least ``side`` pixels high.

    Small pictures are enlarged without smoothing.
    """
    import numpy as np
    from PIL import Image

    levels = np.round(picture * 255).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    scale = max(1, -(-side // image.height))
    out.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(out)
