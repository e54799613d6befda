"""Code that several commands share: their options, and the `Config` that the options choose."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.bank.database import shown
from thinktime.config import POCKET, ROLE, Config, ModelSpec, ScorerSpec, fitting_scorer, is_url
from thinktime.core.errors import InputError
from thinktime.core.printable import printable
from thinktime.core.types import MAIN, Prompt
from thinktime.core.usage import Budget
from thinktime.files import user_path

if TYPE_CHECKING:
    from thinktime.core.search import Search

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Model = Annotated[
    list[str] | None,
    typer.Option(
        help="'pocket', 'pocket-skilled' or 'pocket-retry' (shipped), a real model of `thinktime models`, a "
        "Hugging Face model directory, a .gguf file, org/repo of the hub, or an endpoint: http://host/v1. "
        "Several by role: --model ~/m/large --model draft=~/m/small. Default: THINKTIME_MODEL, or pocket.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Download models and data that are not on this machine.")]
ModelName = Annotated[str | None, typer.Option(help="Which of an endpoint's models; not needed if it has one.")]
ModelNames = Annotated[
    list[str] | None,
    typer.Option("--model-name", help="Which of an endpoint's models; not needed if it has one. By role: draft=NAME."),
]
PriceText = Annotated[
    str | None,
    typer.Option("--price", help="An endpoint's dollars per million tokens, prompt/generated: 0.15/0.60, or /reused."),
]
Prices = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        help="An endpoint's dollars per million tokens, prompt/generated: 0.15/0.60, or /reused. "
        "By role: draft=0.1/0.2.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        help="Parameters that a token of an endpoint's model is multiplied with, for its FLOPs: 8.2e9. "
        "By role: draft=5e8."
    ),
]
ScorerText = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer",
        "--reward-model",
        help="'pocket', 'none', 'self' (self-evaluation of the pocket solver), 'meta' (rewards of judgements, if "
        "--model has them), 'verdicts' (the probability of the verdicts of --model), 'untrained-self' (self-evaluation "
        "of an endpoint's --model by asking it; little better than chance), 'generative-reward' (--model judges its "
        "answers, also side by side), 'confidence' (of --model in its own tokens; costs nothing), 'p-yes' (the "
        "probability that --model says yes if it is asked whether a solution is right), another model that is asked "
        "this (qwen2.5-coder-1.5b-instruct, FILE.gguf), 'digit' (--model rates the last step from 0 to 9 by one "
        "token), 'expected-digit' (the mean digit under its probabilities), head:FILE (a reward head on the hidden "
        "states of --model), a reward model directory, a reward model behind HTTP (http://host:port/pooling, /classify "
        "or /score), or an endpoint that judges by prompt "
        "(http://host:port/v1); in a bench also the controls 'oracle', 'dial:auc=0.8' and 'random'; default: fits "
        "--model. Several by role: --scorer pocket --scorer judge=http://host:port/v1.",
    ),
]
ScorerName = Annotated[str | None, typer.Option(help="Which of the scorer's models; not needed if it has one.")]
ScorerNames = Annotated[
    list[str] | None,
    typer.Option("--scorer-name", help="Which of the scorer's models; not needed if it has one. By role: judge=NAME."),
]
ScorerPrice = Annotated[str | None, typer.Option(help="The scorer's dollars per million tokens, like --price.")]
ScorerPrices = Annotated[
    list[str] | None, typer.Option("--scorer-price", help="The scorer's dollars per million tokens, like --price.")
]
Environments = Annotated[
    list[str] | None,
    typer.Option(
        "--environment",
        help="What a strategy may act on: calculator, key_value, or one of an installed package. "
        "Several by name: --environment store=key_value.",
    ),
]
PromptFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        help="Replaces a prompt of the strategy: check=FILE, a template with fields in braces, or the name of "
        "an installed prompt. Repeatable.",
    ),
]
Aggregate = Annotated[str, typer.Option(help="How step rewards become one: last, min, mean, product.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")]
TopP = Annotated[float, typer.Option("--top-p", help="Sample from the likeliest tokens that reach this probability.")]
MaxTokens = Annotated[int | None, typer.Option(help="Length limit of one generation; default 400 (pocket) or 1024.")]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", help=r"A string that ends a sample; \n is a line end, \t a tab. Repeatable."),
]
ThinkingTokens = Annotated[int | None, typer.Option(help="The most that a sample may think; checked afterwards.")]
Seed = Annotated[int, typer.Option(help="Same seed, same samples.")]
Dtype = Annotated[
    str,
    typer.Option(
        help="Of the weights. float64: samples never depend on what shares their batch; auto: float64 for the shipped "
        "models; for others the fastest of this processor that keeps the checkpoint's precision."
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="Of a local model. own; llamacpp: llama.cpp, for GGUF files; auto: own where it computes the family, and "
        "else llama.cpp if it is installed."
    ),
]
BudgetText = Annotated[
    str | None,
    typer.Option(
        "--budget", help="Hard limit per problem: 4000tok, 400nfe, 16calls, 2e12flops, 30s, 0.05usd, or several."
    ),
]


def command_line(without: Collection[str] = ()) -> str:
    """The command of this process as results note it: a bank's URL is without its password.

    Args:
        without: options with a value, which are left out.
    """
    arguments, words = [], iter(sys.argv[1:])
    for word in words:
        if word in without:
            next(words, None)
        elif word.partition("=")[0] not in without:
            arguments.append(re.sub(r"postgres(ql)?://.*", lambda url: shown(url[0]), word))
    return "thinktime " + shlex.join(arguments)


def budget_of(text: str | None) -> Budget:
    """The limits of ``--budget``; none where the option was not given."""
    return Budget() if text is None else Budget.parse(text)


def config_of(
    *,
    model: Sequence[str] | None,
    model_name: Sequence[str] | None,
    price: Sequence[str] | None,
    parameters: Sequence[str] | None,
    scorer: Sequence[str] | None,
    scorer_name: Sequence[str] | None,
    scorer_price: Sequence[str] | None,
    aggregate: str,
    dtype: str,
    thinking_tokens: int | None,
    environment: Sequence[str] | None,
    prompt: Sequence[str] | None,
    concurrency: int | None = None,
    timeout: float | None = None,
    engine: str = "auto",
    without: Collection[str] = (),
    yes: bool = False,
    **rest: Any,
) -> Config:
    """Build the `Config` from the options of a command.

    Args:
        model, model_name, price, parameters: the values of these options. A value may name a role: ``draft=VALUE``.
        scorer, scorer_name, scorer_price: likewise.
        aggregate: of every scorer.
        dtype, thinking_tokens: of every model.
        concurrency: likewise.
        timeout: of every endpoint.
        engine: of every local model.
        environment: likewise.
        prompt: values of the form ``name=FILE``.
        without: scorers of the command itself, which the config does not know.
        yes: whether models that are not on this machine are downloaded.
        rest: other fields of the config.

    Raises:
        InputError: an option cannot work.
    """
    from thinktime.hub.catalogue import CATALOGUE

    models = roles_in("model", model or [os.environ.get("THINKTIME_MODEL") or "pocket"])
    if yes:
        pull_missing(models.values())
    names, prices, counts = (
        roles_in(field, texts or [], models)
        for field, texts in (("model_name", model_name), ("price", price), ("parameters", parameters))
    )
    given = roles_in("scorer", scorer or [])
    if yes:
        pull_missing(source for source in given.values() if source in CATALOGUE)
    scorers = {MAIN: fitting_scorer(models.get(MAIN)), **{r: each for r, each in given.items() if each not in without}}
    scorer_names, scorer_prices = (
        roles_in(field, texts or [], scorers)
        for field, texts in (("scorer_name", scorer_name), ("scorer_price", scorer_price))
    )
    return Config(
        models={
            role: ModelSpec(
                source,
                names.get(role),
                prices.get(role),
                _number("parameters", counts.get(role)),
                dtype=dtype,
                thinking_tokens=thinking_tokens,
                concurrency=concurrency,
                engine=engine,
                timeout=timeout if is_url(source) or not any(map(is_url, models.values())) else None,
            )
            for role, source in models.items()
        },
        scorers={
            role: ScorerSpec(source, scorer_names.get(role), scorer_prices.get(role), aggregate)
            for role, source in scorers.items()
        },
        environments=roles_in("environment", environment or []),
        prompts=prompts_in(prompt or []),
        **rest,
    )


def pull_missing(models: Iterable[str]) -> None:
    """Download those models that can be downloaded and are not on this machine."""
    from thinktime.cli.models import pulled
    from thinktime.hub.resolve import NotPulledError, find_elsewhere, find_known

    for source in models:
        try:
            if source not in POCKET and not is_url(source) and find_known(source) is None:
                find_elsewhere(source)
        except NotPulledError:
            pulled(source)


def roles_in(field: str, given: Iterable[str], known: Collection[str] | None = None) -> dict[str, str]:
    """The values of a repeatable option by role: ``draft=VALUE``, or the value alone for the role ``main``.

    The last value of a role counts.

    Args:
        field: the option's name in messages.
        given: its values. An existing path is a value without a role, even if it contains ``=``.
        known: the allowed roles; by default every word is allowed.

    Raises:
        InputError: a role is given without a value.
    """
    found: dict[str, str] = {}
    for text in given:
        role, sign, value = text.partition("=")
        is_role = sign and ROLE.fullmatch(role) and (known is None or role in known)
        if not is_role or _is_file(text):
            role, value = MAIN, text
        if not value:
            raise InputError(field, text, f"give a value behind the role, as {role}=VALUE")
        found[role] = value
    return found


def _is_file(text: str) -> bool:
    try:
        return user_path("path", text).exists()
    except InputError:
        return False


def _number(field: str, text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise InputError(field, text, "give a number, as 8.2e9") from None


def prompts_in(given: Iterable[str]) -> Mapping[str, str | Prompt]:
    """The prompts of ``--prompt``: the text of a file, or an installed prompt.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    from thinktime.plugins import installed

    found: dict[str, str | Prompt] = {}
    for text in given:
        name, sign, source = text.partition("=")
        if not (sign and name and source):
            raise InputError("prompt", text, "write it as name=FILE")
        path = user_path("prompt", source)
        if not path.exists() and source in (prompts := installed("prompts", source)):
            found[name] = prompts[source]
            continue
        try:
            found[name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("prompt", text, f"cannot read the file ({error})") from None
    return found


def stops_in(given: Iterable[str]) -> tuple[str, ...]:
    r"""The values of ``--stop``, with a line end for ``\n``, a tab for ``\t`` and a backslash for ``\\``."""
    escapes = {"n": "\n", "t": "\t", "\\": "\\"}
    return tuple(re.sub(r"\\([nt\\])", lambda match: escapes[match[1]], text) for text in given)


def template_of(given: str) -> str:
    """The template of ``--prompt-template``, which is a text or a file."""
    if "{question}" in given:
        return given
    try:
        return user_path("prompt_template", given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fix = f"give a text with {{question}}, or a file with such a text ({error})"
        raise InputError("prompt_template", given, fix) from None


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
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("file", str(path), f"cannot read it as JSON ({error})") from None
    return value if isinstance(value, dict) else {}


def tell_warnings(search: Search) -> None:
    """Print each different warning of the strategy once, to standard error."""
    for warning in dict.fromkeys(event["warning"] for event in search.events if "warning" in event):
        print(f"warning: {printable(warning)}", file=sys.stderr)


def gflops(usage: dict[str, float | None]) -> str:
    """Operations of generator and scorer, in words."""
    flops, scorer = usage["flops"], usage["scorer_flops"]
    return "FLOPs unknown" if flops is None or scorer is None else f"{(flops + scorer) / 1e9:.2f} GFLOPs"
