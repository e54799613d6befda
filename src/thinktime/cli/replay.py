"""``thinktime replay``: analyse recorded samples without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from thinktime.cli.common import Json, Seed, numbers_in


def replay(
    file: Annotated[Path, typer.Argument(help="Recorded samples: JSONL, one problem per line.")],
    samples: Annotated[str, typer.Option(help="Field with the list of samples.")] = "outputs",
    text: Annotated[str, typer.Option(help="Field of a sample's text.")] = "response",
    answer: Annotated[str, typer.Option(help="Field of a sample's answer.")] = "response_answer",
    correct: Annotated[str, typer.Option(help="Field with true or false: whether a sample is right.")] = "label",
    reward: Annotated[str | None, typer.Option(help="Field of a sample's reward.")] = None,
    k: Annotated[str, typer.Option("--k", help="Values of k, separated by commas.")] = "1,4,16",
    drop_unjudged: Annotated[
        bool, typer.Option("--drop-unjudged", help="Leave out samples that were not judged.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare ways to choose among recorded samples.

    It computes coverage, votes and reward selection, and needs no model.
    """
    from thinktime.bench.replay import Fields, read_recorded
    from thinktime.bench.replay import replay as replay_samples

    fields = Fields(samples, text, answer, correct, reward)
    recorded = read_recorded(file, fields, drop_unjudged=drop_unjudged)
    result = replay_samples(recorded, numbers_in("k", k), rewards=reward is not None, seed=seed)
    if as_json:
        print(json.dumps(result))
        return
    from rich.console import Console
    from rich.table import Table

    from thinktime.bench.table import interval

    table = Table(title=f"{file.name}: {result['n_problems']} problems, {result['n_samples']} samples, seed {seed}")
    table.add_column("")
    table.add_column("right, with 95% interval", justify="right")
    for size, estimate in result["pass_at_k"].items():
        table.add_row(f"pass@{size}", interval(estimate))
    for name in ("majority", "best_of_n", "weighted_majority"):
        if name in result:
            table.add_row(name, interval(result[name]))
    Console().print(table)
    print(f"{result['unjudged']} samples were not judged; they count as wrong (--drop-unjudged leaves them out)")
