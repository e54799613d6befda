"""What several commands share: options, and names turned into models, sampling and lists."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from thinktime.core.errors import InputError
from thinktime.core.usage import Budget

if TYPE_CHECKING:
    from thinktime.answers import TextAnswers
    from thinktime.core.protocols import Generator, Scorer
    from thinktime.core.search import Search
    from thinktime.core.types import Prompt, Sampling
    from thinktime.models.remote.probe_cache import ProbeCache

Result = TypeVar("Result")
POCKET = {"pocket": "solver", "pocket-skilled": "skilled", "pocket-retry": "retry"}
"""The shipped models that can be asked, by their name in ``--model``."""
SHIPPED_SCORERS = {"pocket": "reward", "self": "self_evaluation"}
"""The shipped models that judge, by their name in ``--scorer``."""
EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Model = Annotated[
    str,
    typer.Option(
        help="'pocket', 'pocket-skilled' or 'pocket-retry' (shipped), a Hugging Face model directory, or an endpoint: "
        "http://host/v1."
    ),
]
ModelName = Annotated[str | None, typer.Option(help="Which of an endpoint's models; not needed if it has one.")]
PriceText = Annotated[
    str | None,
    typer.Option("--price", help="An endpoint's dollars per million tokens, prompt/generated: 0.15/0.60, or /reused."),
]
Parameters = Annotated[
    float | None,
    typer.Option(help="Parameters that a token of an endpoint's model is multiplied with, for its FLOPs: 8.2e9."),
]
ScorerText = Annotated[
    str | None,
    typer.Option(
        "--scorer",
        "--reward-model",
        help="'pocket', 'none', 'self' (self-evaluation of the pocket solver), 'meta' (rewards of judgements, where "
        "--model has them), 'verdicts' (how sure --model is of its checks), 'untrained-self' (self-evaluation of an "
        "endpoint's --model by asking it; little better than chance), a reward model directory, a reward model behind "
        "HTTP (http://host:port/pooling, /classify or /score), or an endpoint that judges by prompt "
        "(http://host:port/v1); in a bench also the controls 'oracle' and 'random'; default: fits --model.",
    ),
]
ScorerName = Annotated[str | None, typer.Option(help="Which of the scorer's models; not needed if it has one.")]
ScorerPrice = Annotated[str | None, typer.Option(help="The scorer's dollars per million tokens, like --price.")]
Aggregate = Annotated[str, typer.Option(help="How step rewards become one: last, min, mean, product.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")]
MaxTokens = Annotated[int | None, typer.Option(help="Length limit of one generation; default 400 (pocket) or 1024.")]
ThinkingTokens = Annotated[int | None, typer.Option(help="The most that a sample may think; checked afterwards.")]
Seed = Annotated[int, typer.Option(help="Same seed, same samples.")]
Dtype = Annotated[
    str,
    typer.Option(help="float64: samples never depend on what shares their batch; float32: about twice as fast; auto."),
]
BudgetText = Annotated[
    str | None,
    typer.Option(
        "--budget", help="Hard limit per problem: 4000tok, 400nfe, 16calls, 2e12flops, 30s, 0.05usd, or several."
    ),
]


def budget_of(text: str | None) -> Budget:
    """The limits of ``--budget``; none where the option was not given."""
    return Budget() if text is None else Budget.parse(text)


def sampling_of(model: str, temperature: float, max_tokens: int | None) -> Sampling:
    """The sampling options, with the defaults of the model."""
    from thinktime.core.types import Sampling
    from thinktime.pocket import MAX_TOKENS

    pocket = model in POCKET
    limit = max_tokens if max_tokens is not None else MAX_TOKENS if pocket else 1024
    if not 0 <= temperature <= 5:
        raise InputError("temperature", temperature, "give a number from 0 to 5")
    if limit < 1:
        raise InputError("max_tokens", limit, "give 1 or more")
    return Sampling(temperature=temperature, max_length=limit)


@dataclass(frozen=True)
class Models:
    """What the options say of generator and scorer."""

    model: str
    model_name: str | None
    price: str | None
    parameters: float | None
    scorer: str | None
    scorer_name: str | None
    scorer_price: str | None
    aggregate: str
    dtype: str
    thinking_tokens: int | None = None


def load_models(options: Models) -> tuple[Generator, Scorer | None]:
    """The generator and the scorer that the options name."""
    from thinktime import pocket

    model, dtype = options.model, options.dtype
    if dtype not in ("auto", "float64", "float32", "bfloat16", "float16"):
        raise InputError("dtype", dtype, "give auto, float64, float32, bfloat16 or float16")
    number = dtype if dtype != "auto" else "float64" if model in POCKET else "float32"
    chosen = options.scorer or ("pocket" if model in POCKET else "none")
    if chosen in ("oracle", "random"):
        why = "uses the reference answers" if chosen == "oracle" else "knows nothing"
        raise InputError("scorer", chosen, f"it {why}: a control for `thinktime bench`, no scorer of an answer")
    if not is_url(chosen):
        only_for_endpoints("--scorer", scorer_name=options.scorer_name, scorer_price=options.scorer_price)
    generator: Generator
    if is_url(model):
        generator = _remote(options)
    else:
        from thinktime.generators.local import LocalGenerator

        only_for_endpoints("--model", model_name=options.model_name, price=options.price, parameters=options.parameters)
        directory = pocket.directory(POCKET[model]) if model in POCKET else Path(model)
        generator = local = LocalGenerator(
            directory, dtype=number, thinking_tokens=options.thinking_tokens, chat=model not in POCKET
        )
        if chosen == "meta":
            from thinktime.scorers.meta import MetaReward

            return generator, MetaReward(local, directory / "meta.json")
        if chosen == "verdicts":
            from thinktime.scorers.verdict import VerdictProbability

            return generator, VerdictProbability(local)
    if chosen == "none":
        return generator, None
    if is_url(chosen):
        return generator, remote_scorer(
            chosen, model, name=options.scorer_name, price=options.scorer_price, aggregate=options.aggregate
        )
    if chosen in ("meta", "verdicts"):
        raise InputError("scorer", chosen, "an endpoint does not show its inside; give a local --model")
    from thinktime.scorers.prm import ProcessReward

    if chosen == "untrained-self":
        from thinktime.generators.openai import RemoteGenerator
        from thinktime.scorers.untrained import UntrainedSelfEvaluation

        if not isinstance(generator, RemoteGenerator):
            raise InputError("scorer", chosen, "it asks a model behind HTTP; give the URL of one with --model")
        return generator, UntrainedSelfEvaluation(generator)
    directory = pocket.directory(SHIPPED_SCORERS[chosen]) if chosen in SHIPPED_SCORERS else Path(chosen)
    return generator, ProcessReward(directory, aggregate=options.aggregate, dtype=number)


def prompts_of(model: str) -> dict[str, Prompt]:
    """The prompts in the words of the model's training. Two of the pocket models only solve."""
    from thinktime.pocket.prompts import PROMPTS

    return PROMPTS if model == "pocket-skilled" else {}


def answers_of(model: str) -> TextAnswers:
    """How answers are read off what the model says."""
    from thinktime.answers import TextAnswers
    from thinktime.pocket.problems import read_answer

    return TextAnswers(read_answer) if model in POCKET else TextAnswers()


def is_url(text: str) -> bool:
    """Whether an option names an endpoint."""
    return text.startswith(("http://", "https://"))


def only_for_endpoints(option: str, **given: object) -> None:
    """Raise an `InputError` for the first of these that was given.

    Args:
        option: which would have to be a URL.
        given: by name of a field.
    """
    for field, value in given.items():
        if value is not None:
            raise InputError(field, value, f"this is for an endpoint; give its URL with {option}")


def _remote(options: Models) -> Generator:
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.models.remote.prices import Price
    from thinktime.models.remote.refusals import only_model

    cost = None if options.price is None else Price.parse(options.price)
    if options.parameters is not None and not options.parameters > 0:
        raise InputError("parameters", options.parameters, "give a number above 0, as 8.2e9")
    key = model_key()
    name = options.model_name or only_model(options.model, key)
    return RemoteGenerator(
        options.model,
        name,
        key,
        price=cost,
        parameters=options.parameters,
        probe_cache=user_probe_cache(),
        thinking_tokens=options.thinking_tokens,
    )


def remote_scorer(url: str, model: str, *, name: str | None, price: str | None, aggregate: str = "last") -> Scorer:
    """A reward model, if the URL names its call; else a judge.

    Args:
        url: of the scorer.
        model: what is scored; its key is sent to its own host alone.
        name: which of the scorer's models.
        price: of the scorer, as it was given.
        aggregate: how step rewards become one.
    """
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.models.remote.prices import Price
    from thinktime.models.remote.refusals import only_model
    from thinktime.scorers.judge import Judge
    from thinktime.scorers.pooling import RemoteReward

    cost = None if price is None else Price.parse(price)
    key = os.environ.get("THINKTIME_SCORER_API_KEY")
    if key is None and (not is_url(model) or urlsplit(model).netloc == urlsplit(url).netloc):
        key = model_key()  # a key for one host is never sent to another
    root, _, call = url.rstrip("/").rpartition("/")
    if call in ("pooling", "classify", "score"):
        return RemoteReward(url, name or only_model(f"{root}/v1", key), key, aggregate=aggregate, price=cost)
    return Judge(RemoteGenerator(url, name or only_model(url, key), key, price=cost, probe_cache=user_probe_cache()))


def user_probe_cache() -> ProbeCache:
    """What endpoints were seen to do, in the user's cache folder."""
    from thinktime.models.remote.probe_cache import ProbeCache

    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return ProbeCache(Path(folder) / "thinktime" / "endpoints.json")


def model_key() -> str | None:
    """The key for the model's endpoint, from the environment."""
    return os.environ.get("THINKTIME_API_KEY") or os.environ.get("OPENAI_API_KEY")


async def closing(models: tuple[Generator, Scorer | None], work: Awaitable[Result]) -> Result:
    """What the work gives, with the models' connections closed behind it."""
    try:
        return await work
    finally:
        for model in models:
            close = getattr(model, "close", None)
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


def tell_warnings(search: Search) -> None:
    """What a strategy warned of, each once, to standard error."""
    for warning in dict.fromkeys(event["warning"] for event in search.events if "warning" in event):
        print(f"warning: {warning}", file=sys.stderr)


def gflops(usage: dict[str, float | None]) -> str:
    """Operations of generator and scorer, in words."""
    flops, scorer = usage["flops"], usage["scorer_flops"]
    return "FLOPs unknown" if flops is None or scorer is None else f"{(flops + scorer) / 1e9:.2f} GFLOPs"
