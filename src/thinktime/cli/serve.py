"""``thinktime serve``: an OpenAI-compatible server in front of an endpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.cli.common import PriceText, ScorerName, ScorerPrice
from thinktime.config import is_url, only_for_endpoints
from thinktime.core.errors import InputError
from thinktime.session import may_share_key, model_key, remote_scorer, scorer_key

if TYPE_CHECKING:
    from thinktime.core.protocols import Scorer


def serve(
    upstream: Annotated[str | None, typer.Option(help="Root of an OpenAI-compatible API: http://host:port/v1.")] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; beyond this machine only with a key.")] = None,
    port: Annotated[int | None, typer.Option(help="Default 8080; 0 takes any that is free.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings and keys; options here win.")] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="THINKTIME_GATEWAY_KEY", help="Clients must send it; better in the environment."),
    ] = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Print a new key and what to write into --config.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="For all requests together: 1e6tok, 5usd; seconds are for each request.")
    ] = None,
    price: PriceText = None,
    max_tokens: Annotated[int | None, typer.Option(help="Length limit of a sample if the request has none.")] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            "--scorer",
            "--reward-model",
            help="For the methods that score: 'pocket', a reward model's directory, a reward model behind HTTP "
            "(http://host:port/pooling, /classify or /score), or an endpoint that judges by prompt (http://host:port/v1).",
        ),
    ] = None,
    scorer_name: ScorerName = None,
    scorer_price: ScorerPrice = None,
    bank: Annotated[Path | None, typer.Option(help="File in which all samples are kept.")] = None,
) -> None:
    """Serve any OpenAI client, with a method in the model's name.

    The method before the model's name selects the search. Each answer has its cost.
    """
    from thinktime.core.usage import Budget
    from thinktime.gateway.config import GatewayConfig, digest, given_key, read_config
    from thinktime.gateway.config import new_key as make_key
    from thinktime.models.remote.prices import Price

    if new_key:
        made = make_key()
        print(f'{made}\n\n[keys.NAME]\nsha256 = "{digest(made)}"\nbudget = "100000tok"\nrequests_per_minute = 60')
        return
    settings: dict[str, Any] = {} if config is None else read_config(config)
    given = {"upstream": upstream, "host": host, "port": port, "max_tokens": max_tokens, "bank": bank}
    settings |= {name: value for name, value in given.items() if value is not None}
    if budget is not None:
        settings["budget"] = Budget.parse(budget)
    if price is not None:
        settings["price"] = Price.parse(price)
    if key is not None:
        settings["keys"] = (*settings.get("keys", ()), given_key(key))
    if "upstream" not in settings:
        raise InputError("upstream", None, "give --upstream http://host:port/v1, or upstream in --config")
    upstream_key = os.environ.get("THINKTIME_API_KEY") or os.environ.get("OPENAI_API_KEY")
    made_config = GatewayConfig(**settings, upstream_key=upstream_key)
    from thinktime.gateway.server import serve as serve_forever

    serve_forever(made_config, _scorer(scorer, made_config.upstream, scorer_name, scorer_price))


def _scorer(scorer: str | None, upstream: str, name: str | None, price: str | None) -> Scorer | None:
    if scorer is not None and is_url(scorer):
        key = scorer_key() or (model_key() if may_share_key(scorer, upstream) else None)
        return remote_scorer(scorer, key, name=name, price=price)
    only_for_endpoints("--scorer", scorer_name=name, scorer_price=price)
    if scorer is None:
        return None
    from thinktime import pocket
    from thinktime.scorers.prm import ProcessReward

    if scorer == "pocket":
        return ProcessReward(pocket.directory("reward"), dtype="float64")
    return ProcessReward(Path(scorer))
