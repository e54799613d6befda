"""``thinktime doctor``: what a model or an endpoint supports, which strategies run, and which are refused and why."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.cli.common import EXIT_INPUT, Dtype, Json, ModelName, PriceText, ScorerText, config_of, read_json
from thinktime.cli.models import CAN
from thinktime.cli.probe import described
from thinktime.config import POCKET, is_url
from thinktime.core.errors import InputError, ModelError, ThinktimeError
from thinktime.core.printable import printable
from thinktime.core.types import MAIN, Problem, missing
from thinktime.files import user_path
from thinktime.session import Session, model_key, model_path, open_session, user_probe_cache

if TYPE_CHECKING:
    from thinktime.models.engine.templates import ChatTemplate, Messages
    from thinktime.models.remote.probe import Traits

QUESTION = "Ben buys 7 figs. Ben buys 3 keys. How many coins does Ben pay?"
"""In words that the shipped models know."""
TURNS: dict[str, Messages] = {
    "system turn": [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": QUESTION}],
    "repeated roles": [{"role": "user", "content": "A question:"}, {"role": "user", "content": QUESTION}],
}
"""Conversations that some templates refuse."""
WIDTH, LABEL = 110, 34


def doctor(
    model: Annotated[
        str,
        typer.Argument(
            help="A shipped model, a real model of `thinktime models`, a Hugging Face model directory, a .gguf file, "
            "or an endpoint: http://host/v1."
        ),
    ],
    model_name: ModelName = None,
    price: PriceText = None,
    scorer: ScorerText = None,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Check a model or an endpoint before you use it.

    It prints what is supported, which strategies run, and which are refused and why.
    """
    found: dict[str, Any] = {}
    origin = None if is_url(model) or model in POCKET else _origin(model)
    if is_url(model):
        found = _endpoint(model, model_name, price)
        model_name = found["model"]
    config = config_of(
        model=[model],
        model_name=None if model_name is None else [model_name],
        price=None if price is None else [price],
        parameters=None,
        scorer=scorer,
        scorer_name=None,
        scorer_price=None,
        aggregate="last",
        dtype=dtype,
        thinking_tokens=None,
        environment=None,
        prompt=None,
    )
    try:
        session = open_session(config)
        found = found or _local(model, session)
    except ThinktimeError as error:
        if origin is not None and not as_json and not user_path("model", model).is_dir():
            _print_rows(_origin_rows(origin))
        if is_url(model) or not isinstance(error, ModelError):
            raise
        print(printable(f"error: {error}"), file=sys.stderr)  # the directory is the input, and its files are broken
        raise typer.Exit(EXIT_INPUT) from None
    judge = session.scorers.get(MAIN)
    if origin is not None:
        found["origin"] = origin
    found |= {"scorer": None if judge is None else judge.name, "strategies": _refusals(session)}
    if as_json:
        print(json.dumps(found))
    else:
        _print(found)


def _endpoint(url: str, model_name: str | None, price: str | None) -> dict[str, Any]:
    """Probe an endpoint anew, and keep the result for the commands that use it."""
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.models.remote.prices import Price, listed
    from thinktime.models.remote.protocol import root_and_api
    from thinktime.models.remote.refusals import listed_models, only_model
    from thinktime.models.remote.sizes import active_parameters

    key, cache, names = model_key(url), user_probe_cache(), list[str]()
    root, api = root_and_api(url)
    with suppress(ThinktimeError):  # an endpoint may have no list; the probe reports every other fault
        names = listed_models(url, key)
    model = model_name or (names[0] if len(names) == 1 else only_model(url, key))
    generator = RemoteGenerator(url, model, key)
    cache.keep(generator.probe_key, traits := generator.traits)
    cost = listed(root, model) if price is None else Price.parse(price)
    spent = traits.spent
    return {
        "endpoint": root,
        "call": api,
        "model": model,
        "listed_models": names,
        "price": None if cost is None else asdict(cost),
        "active_parameters": active_parameters(model),
        "traits": asdict(traits),
        "counts_wrongly": _miscounts(traits),
        "probe": {
            "prompt_tokens": spent.prompt,
            "generated_tokens": spent.generated,
            "dollars": None if cost is None or not traits.usage else cost.dollars(spent.prompt, 0, spent.generated),
        },
    }


def _miscounts(traits: Traits) -> list[str]:
    """What the endpoint counts wrongly, or not at all, and what thinktime does about it."""
    found = []
    if not traits.usage:
        found.append("It reports no usage, so every sample is charged its upper bound.")
    if not traits.counts_all:
        fix = "the listed log-probabilities are counted" if traits.n else "each sample has a request of its own"
        found.append(f"Its usage counts one sample of several, so {fix}.")
    if traits.stops == "unlisted":
        found.append("A stop string is counted, but has no log-probability.")
    return found


def _origin(source: str) -> dict[str, Any] | None:
    """Where the files of a local model come from; None if there are none.

    Raises:
        NotPulledError: the catalogue has it, but this machine does not.
    """
    from thinktime.hub.resolve import find_known, here, reference

    found = find_known(source)
    if found is None and (known := reference(source)) is not None:
        found = here(known)
    return None if found is None else found.provenance.as_dict()


def _local(source: str, session: Session) -> dict[str, Any]:
    """Look at a local model. A directory is compared with the forward pass of transformers."""
    from transformers.utils.logging import disable_progress_bar

    from thinktime import pocket
    from thinktime.generators.local import LocalGenerator
    from thinktime.models.engine.llama import Llama
    from thinktime.models.engine.llamacpp_model import LlamaCppModel
    from thinktime.models.engine.transformers_model import TOLERANCE, TransformersLM, difference

    generator = session.models[MAIN]
    if not isinstance(generator, LocalGenerator):
        raise InputError("model", source, "give a shipped model, a model directory or an endpoint")
    disable_progress_bar()
    path = pocket.directory(POCKET[source]) if source in POCKET else model_path(source)
    model, tokenizer = generator.model, generator.model.tokenizer
    if isinstance(model, LlamaCppModel):
        fix = "our engine refuses it, and this command does not look into llama.cpp; `ask` and `bench` run it there"
        raise InputError("model", source, fix)
    inner, template, sizes = model.model, tokenizer.template, (model.shape, model.dtype)
    assert isinstance(inner, Llama | TransformersLM)
    apart = None
    if path.is_dir():
        apart = difference(inner, path, *sizes) if isinstance(inner, Llama) else inner.verify(*sizes)
    own, parameters = isinstance(inner, Llama), list(inner.parameters())
    return {
        "model": generator.name,
        "family": str(read_json(path / "config.json").get("model_type")) if path.is_dir() else "GGUF",
        "runs_in": "thinktime's own Llama" if own else "transformers, with the attention of thinktime",
        "largest_difference": apart,
        "matches_transformers": None if apart is None else apart < TOLERANCE,
        "dtype": str(model.dtype).removeprefix("torch."),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        "bytes_per_token": model.shape.kv_bytes_per_token,
        "context": model.context,
        "end_tokens": tokenizer.end_tokens,
        "prompt_tokens": len(tokenizer.encode_chat(QUESTION)),
        "roles": None if template is None else {name: _accepts(template, turns) for name, turns in TURNS.items()},
    }


def _accepts(template: ChatTemplate, turns: Messages) -> str:
    """What a template does with a conversation, in words."""
    try:
        _, why = template.rendered(turns)
    except ThinktimeError as error:
        return f"refused: {error}"
    return f"it {why}, so turns are joined" if why else "accepted"


def _refusals(session: Session) -> dict[str, dict[str, Any] | None]:
    """Why each strategy is refused with its default options: what it lacks, and the whole reason. None if it runs."""
    from thinktime.strategies import check, known, make

    search = session.search(Problem("doctor", QUESTION))
    found: dict[str, dict[str, Any] | None] = {}
    for name, kind in known().items():
        try:
            check(name, make(name), search)
            found[name] = None
        except ThinktimeError as error:
            found[name] = {"lacks": sorted(missing(kind.needs, search.capabilities)), "reason": str(error)}
    return found


def _print(found: dict[str, Any]) -> None:
    _print_rows(_endpoint_rows(found) if "endpoint" in found else _local_rows(found))
    _row("scorer", found["scorer"] or "none; give --scorer to see what one adds")
    refused = defaultdict(list)
    for name, why in found["strategies"].items():
        if why is not None:
            refused[", ".join(map(_short, why["lacks"])) or why["reason"]].append(name)
    runs = [name for name, why in found["strategies"].items() if why is None]
    print(f"\n{len(runs)} strategies run")
    print(fill(", ".join(runs), WIDTH, initial_indent="  ", subsequent_indent="  "))
    print(f"\n{len(found['strategies']) - len(runs)} strategies are refused, because this is missing or wrong:")
    for reason, names in sorted(refused.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        _row(f"  {reason}", ", ".join(names))


def _endpoint_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    price, names, probe = found["price"], found["listed_models"], found["probe"]
    dollars = "" if probe["dollars"] is None else f", {probe['dollars']:.6f} dollars"
    cost = f"{probe['prompt_tokens']} prompt tokens, {probe['generated_tokens']} generated{dollars}"
    each = "unknown; give --price" if price is None else f"{price['prompt']:g}/{price['generated']:g}"
    active = found["active_parameters"]
    return [
        ("endpoint", f"{found['endpoint']}, {found['call']}"),
        ("model", found["model"]),
        ("listed models", f"{', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}" or "none"),
        ("dollars per million tokens", each),
        ("FLOPs", "unknown" if active is None else f"of {active:g} active parameters, by the model's name"),
        ("cost of this probe", cost if found["traits"]["usage"] else "unknown; the endpoint reports no usage"),
        *((text, value) for text, value in described(found["traits"]).items()),
        ("counts wrongly", " ".join(found["counts_wrongly"]) or "nothing seen"),
    ]


def _origin_rows(origin: dict[str, Any]) -> list[tuple[str, str]]:
    size = sum(file["size"] for file in origin["files"].values())
    return [
        ("files", f"{origin['name']}, {size / 1e6:,.1f} MB, from: {origin['source']}"),
        ("can", CAN[origin["kind"]]),
        ("licence", origin["licence"] or "unknown"),
        ("revision", origin["revision"] or "unknown"),
        *((f"SHA-256 of {name}", file["sha256"]) for name, file in origin["files"].items()),
    ]


def _local_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    match = "not compared, because it is a single file"
    if found["largest_difference"] is not None:
        explained = found["matches_transformers"]
        match = f"log-probabilities differ by {found['largest_difference']:.1e}, " + (
            "which rounding explains" if explained else "more than rounding explains; do not trust it"
        )
    roles = found["roles"] or {"chat template": "none; the question itself is the prompt"}
    template = [("chat template", f"renders; a short question has {found['prompt_tokens']} tokens")]
    return [
        ("model", found["model"]),
        ("family", f"{found['family']}; it runs in {found['runs_in']}"),
        ("compared with transformers", match),
        ("number type", found["dtype"]),
        ("size", f"{found['parameters']:,} parameters, {found['bytes'] / 1e6:,.1f} MB"),
        ("memory per token", f"{found['bytes_per_token']:,} bytes of keys and values"),
        ("context", f"{found['context']:,} tokens"),
        ("end tokens", ", ".join(found["end_tokens"])),
        *(template if found["roles"] else []),
        *roles.items(),
        *(_origin_rows(found["origin"]) if "origin" in found else []),
    ]


def _print_rows(rows: list[tuple[str, str]]) -> None:
    for label, text in rows:
        _row(label, printable(text))


def _row(label: str, text: str) -> None:
    """A label and its text; a long label has a line of its own. The text may be from an endpoint or a directory."""
    label, text = printable(label), printable(text)
    if len(label) >= LABEL:
        print(fill(label, WIDTH, subsequent_indent="  "))
        label = ""
    print(fill(text, WIDTH, initial_indent=label.ljust(LABEL), subsequent_indent=" " * LABEL))


def _short(need: str) -> str:
    """The name of a capability without its explanation."""
    return need.partition(" (")[0].partition(":")[0]
