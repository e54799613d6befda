"""``thinktime probe``: probes an endpoint, and stores the result for the commands that use it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from thinktime.cli.common import Json, ModelName
from thinktime.core.printable import printable
from thinktime.session import model_key, user_probe_cache


def probe(
    url: Annotated[str, typer.Argument(help="An endpoint: http://host:port/v1, or with /completions at its end.")],
    model_name: ModelName = None,
    as_json: Json = False,
) -> None:
    """Probe what an endpoint supports, for a few tokens.

    `ask` and `bench` use the result for a day.
    """
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.models.remote.refusals import only_model

    key, cache = model_key(url), user_probe_cache()
    generator = RemoteGenerator(url, model_name or only_model(url, key), key)
    cache.keep(generator.probe_key, traits := generator.traits)
    seen = {"endpoint": generator.name, **asdict(traits), "capabilities": sorted(generator.capabilities)}
    if as_json:
        print(json.dumps(seen))
        return
    spent = f"{traits.spent.prompt} tokens read and {traits.spent.generated} generated"
    print(f"{printable(generator.name)}, for {spent}:")
    for text, value in (
        *described(asdict(traits)).items(),
        ("capabilities", ", ".join(sorted(generator.capabilities))),
    ):
        print(f"  {text:<34}{value}")


def described(traits: Mapping[str, Any]) -> dict[str, str]:
    """The traits of an endpoint in words; see `Traits` for their names."""
    found = {
        "several samples per request (n)": traits["n"],
        "log-probabilities": traits["logprobs"],
        "seeds": traits["seeds"],
        "continues a given prefix": traits["continues"],
        "repeats the prefix": traits["echoes"],
        "marks a stop string": traits["stops"],
        "streams": traits["streams"],
        "reports usage": traits["usage"],
        "counts all samples of a request": traits["counts_all"],
        "name of the length limit": traits["limit_field"],
        "tokens of its template": traits["overhead"],
        "shows thoughts": traits["thinks"],
    }
    return {text: _word(value) for text, value in found.items()}


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not observed" if value in (None, "") else str(value)
