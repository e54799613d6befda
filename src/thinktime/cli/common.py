"""What several commands share: options, and names turned into models, sampling and lists."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from thinktime.core.errors import InputError
from thinktime.core.usage import Budget

if TYPE_CHECKING:
    from thinktime.core.types import Generator, Sampling, Scorer

Result = TypeVar("Result")
EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Model = Annotated[
    str,
    typer.Option(help="'pocket' (shipped), a Hugging Face model directory, or an endpoint: http://host:port/v1."),
]
ModelName = Annotated[str | None, typer.Option(help="Which of an endpoint's models; not needed if it has one.")]
PriceText = Annotated[
    str | None,
    typer.Option("--price", help="An endpoint's dollars per million tokens, prompt/generated: 0.15/0.60, or /reused."),
]
Reward = Annotated[
    str | None,
    typer.Option("--reward-model", help="'pocket', 'none', or a reward model directory; default: fits --model."),
]
Aggregate = Annotated[str, typer.Option(help="How step rewards become one: last, min, mean, product.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")]
MaxTokens = Annotated[int | None, typer.Option(help="Length limit of one generation; default 400 (pocket) or 1024.")]
Seed = Annotated[int, typer.Option(help="Same seed, same samples.")]
Dtype = Annotated[
    str,
    typer.Option(help="float64: samples never depend on what shares their batch; float32: about twice as fast; auto."),
]
BudgetText = Annotated[
    str | None,
    typer.Option("--budget", help="Hard limit per problem: 4000tok, 16calls, 2e12flops, 30s, 0.05usd, or several."),
]


def budget_of(text: str | None) -> Budget:
    """The limits of ``--budget``; none where the option was not given."""
    return Budget() if text is None else Budget.parse(text)


def sampling_of(model: str, temperature: float, max_tokens: int | None) -> Sampling:
    """The sampling options, with the defaults of the model."""
    from thinktime.core.types import Sampling
    from thinktime.pocket import MAX_TOKENS

    pocket = model == "pocket"
    limit = max_tokens if max_tokens is not None else MAX_TOKENS if pocket else 1024
    if not 0 <= temperature <= 5:
        raise InputError("temperature", temperature, "give a number from 0 to 5")
    if limit < 1:
        raise InputError("max_tokens", limit, "give 1 or more")
    return Sampling(temperature=temperature, max_tokens=limit)


def load_models(
    model: str,
    reward_model: str | None,
    aggregate: str,
    dtype: str,
    model_name: str | None = None,
    price: str | None = None,
) -> tuple[Generator, Scorer | None]:
    """The generator and the scorer that the options name."""
    from thinktime import pocket

    if dtype not in ("auto", "float64", "float32", "bfloat16", "float16"):
        raise InputError("dtype", dtype, "give auto, float64, float32, bfloat16 or float16")
    number = dtype if dtype != "auto" else "float64" if model == "pocket" else "float32"
    generator: Generator
    if model.startswith(("http://", "https://")):
        generator = _remote(model, model_name, price)
    else:
        from thinktime.generators.local import LocalGenerator

        for field, value in (("model_name", model_name), ("price", price)):
            if value is not None:
                raise InputError(field, value, "this is for an endpoint; give its URL with --model")
        generator = LocalGenerator(pocket.directory("solver") if model == "pocket" else Path(model), dtype=number)
    chosen = reward_model or ("pocket" if model == "pocket" else "none")
    if chosen == "none":
        return generator, None
    from thinktime.scorers.prm import ProcessReward

    directory = pocket.directory("reward") if chosen == "pocket" else Path(chosen)
    return generator, ProcessReward(directory, aggregate=aggregate, dtype=number)


def _remote(url: str, name: str | None, price: str | None) -> Generator:
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.remote.prices import Price
    from thinktime.remote.refusals import only_model

    key = os.environ.get("THINKTIME_API_KEY") or os.environ.get("OPENAI_API_KEY")
    cost = None if price is None else Price.parse(price)
    return RemoteGenerator(url, name or only_model(url, key), key, price=cost)


async def closing(generator: Generator, work: Awaitable[Result]) -> Result:
    """What the work gives, with the generator's connections closed behind it."""
    try:
        return await work
    finally:
        close = getattr(generator, "close", None)
        if close is not None:
            await close()


def strategies_in(text: str) -> list[str]:
    """Strategies separated by commas, options with them: ``majority,a_star:k=2,n_goals=4,ets`` are three."""
    found: list[str] = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    if not found:
        raise InputError("strategies", text, "name at least one; see `thinktime strategies`")
    return list(dict.fromkeys(found))


def numbers_in(field: str, text: str) -> list[int]:
    """A comma-separated list of numbers of 1 or more."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(field, text, "give whole numbers separated by commas") from None
    if min(numbers) < 1:
        raise InputError(field, min(numbers), "give 1 or more")
    return list(dict.fromkeys(numbers))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError("file", str(path), f"cannot read it as JSON ({error})") from None
    return value if isinstance(value, dict) else {}


def gflops(usage: dict[str, float | None]) -> str:
    """Operations of generator and scorer, in words."""
    flops, scorer = usage["flops"], usage["scorer_flops"]
    return "FLOPs unknown" if flops is None or scorer is None else f"{(flops + scorer) / 1e9:.2f} GFLOPs"
