"""``thinktime demo``: the shipped model and its pictures, or a real model on a real benchmark."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from thinktime.cli.bench import bench
from thinktime.cli.common import EXIT_FAILED, Yes, read_json

REAL_MODEL, REAL_TASK = "qwen2.5-coder-0.5b-instruct", "gsm8k-program"
REAL_STRATEGIES = "single,first_finish,adaptive_consistency,majority"


def demo(
    out: Annotated[Path | None, typer.Option(help="Where the report goes.", show_default="runs/demo")] = None,
    problems: Annotated[int | None, typer.Option(help="How many problems; default 100, or 10 with --real.")] = None,
    real: Annotated[
        bool,
        typer.Option("--real", help="A real model writes programs for problems of GSM8K; asks before it downloads."),
    ] = False,
    yes: Yes = False,
) -> None:
    """Show the accuracy and the tokens of several strategies."""
    if real:
        _real(out or Path("runs/demo-real"), problems or 10, yes)
    else:
        _pocket(out or Path("runs/demo"), problems or 100)


def _pocket(out: Path, problems: int) -> None:
    from thinktime.bench.report import headline
    from thinktime.pocket.problems import problems as pocket_problems

    print(f"Five strategies, budgets 1 to 16, {problems} word problems from the test split. A few minutes…")
    bench(out=out, problems=problems, model=["pocket"], force=True)
    print(f"\n{headline(read_json(out / 'result.json'))}")
    _paint(out / "pictures.png")
    question = next(pocket_problems("test", 1, seed=1, levels=[3])).question
    me = shlex.quote(sys.argv[0])
    print("\nThree things to try next:")
    print(f"  {me} ask {shlex.quote(question)} --strategy beam_search --tree")
    print(f"  {me} bench pocket --levels 5 --problems 50 --strategies majority,beam_search --out runs/hard")
    print(f"  {me} paint 'digit 7, heavy ink' --strategy dts --budget 400nfe")


def _real(out: Path, problems: int, yes: bool) -> None:
    """Ten problems at two budgets, about 6,000 tokens."""
    from thinktime.bench.benchmarks import BENCHMARKS
    from thinktime.bench.report import headline
    from thinktime.hub.catalogue import CATALOGUE
    from thinktime.hub.resolve import here
    from thinktime.hub.store import megabytes

    lacking = []
    if here(entry := CATALOGUE[REAL_MODEL]) is None:
        lacking.append(f"the model {REAL_MODEL} ({megabytes(entry.size)}, {entry.licence})")
    lacking += [
        f"{file.name} ({megabytes(file.size)}, {file.licence})" for file in BENCHMARKS[REAL_TASK].missing("test")
    ]
    if lacking and not (yes or typer.confirm(f"This downloads {' and '.join(lacking)}. Go on?")):
        raise typer.Exit(EXIT_FAILED)
    print(f"Four strategies, {problems} problems of GSM8K, answered by programs that run in a sandbox. Some minutes…")
    bench(
        REAL_TASK,
        out=out,
        problems=problems,
        model=[REAL_MODEL],
        strategies=REAL_STRATEGIES,
        n="2,8",
        temperature=0.7,
        yes=True,
        force=True,
    )
    print(f"\n{headline(read_json(out / 'result.json'))}")


def _paint(path: Path) -> None:
    """Paint the demo's pictures, if the packages for pictures are installed."""
    if importlib.util.find_spec("diffusers") is None or importlib.util.find_spec("PIL") is None:
        print("\nThe same strategies paint: pip install 'thinktime[images]'")
        return
    from thinktime.bench.gallery import draw, paintings

    print("\nThe same strategies on pictures: digits with heavy ink by the shipped image model, half a minute…")
    draw(paintings(), path)
    print(f"{path}: the same draws under each method, and scores against evaluations of the denoiser")
