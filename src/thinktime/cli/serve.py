"""``thinktime serve``: an OpenAI-compatible server in front of an endpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinktime.cli.common import PriceText, ScorerName, ScorerPrice
from thinktime.config import is_url, only_for_endpoints
from thinktime.core.errors import InputError
from thinktime.session import may_share_key, model_key, remote_scorer, scorer_key

if TYPE_CHECKING:
    from thinktime.core.protocols import Scorer
    from thinktime.gateway.config import UpstreamConfig


def serve(
    upstream: Annotated[
        str | None,
        typer.Option(help="Root of an OpenAI-compatible API: http://host:port/v1."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; beyond this machine only with a key.")] = None,
    port: Annotated[int | None, typer.Option(help="Default 8080; 0 takes any that is free.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that serve the port together; budgets then need --bank postgresql://…."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings and keys; options here win.")] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="THINKTIME_GATEWAY_KEY", help="Clients must send it; better in the environment."),
    ] = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Print a new key and what to write into --config.")
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as JSON, without secrets, and end.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="For all requests together: 1e6tok, 5usd; seconds are for each request."),
    ] = None,
    price: PriceText = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Length limit of a sample if the request has none."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of pages that may send requests: https://chat.example; repeatable. Default none."),
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(
            help="After a signal to stop, running requests go on for so long: 60s; default 30s.",
        ),
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning (default) or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text (default) or json.")] = None,
    access_log: Annotated[bool | None, typer.Option("--access-log", help="Log a line for each request.")] = None,
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
    bank: Annotated[
        str | None,
        typer.Option(
            help="Keeps samples and spending: a file, or postgresql://USER@HOST/DATABASE, which several servers share."
        ),
    ] = None,
    retention_time: Annotated[
        str | None, typer.Option(help="Remove older samples from --bank, every hour: 12h, 30d, 8w. Default none.")
    ] = None,
    retention_size: Annotated[
        str | None, typer.Option(help="Then remove the oldest ones beyond: 500MB, 5GB. Default none.")
    ] = None,
    key_store: Annotated[
        str | None,
        typer.Option(
            help="Where `thinktime keys` keeps the keys of clients: a file, or postgresql://USER@HOST/DATABASE."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="A file of `thinktime calibrate`, or a folder of them, which the method auto follows."),
    ] = None,
    shadow: Annotated[
        float | None,
        typer.Option(help="Share of the requests that are measured in the background: 0.01. Default none."),
    ] = None,
    shadow_budget: Annotated[
        str | None, typer.Option(help="For all measurements of --shadow together: 1e6tok, 5usd.")
    ] = None,
    shadow_out: Annotated[Path | None, typer.Option(help="Folder of the calibrations that --shadow measures.")] = None,
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
    given: dict[str, Any] = {"upstream": upstream, "host": host, "port": port, "max_tokens": max_tokens, "bank": bank}
    given |= {"log_level": log_level, "log_format": log_format, "access_log": access_log, "calibration": calibration}
    given |= {"key_store": key_store, "workers": workers, "shadow": shadow, "shadow_out": shadow_out}
    given |= {"retention_time": retention_time, "retention_size": retention_size}
    settings |= {name: value for name, value in given.items() if value is not None}
    if budget is not None:
        settings["budget"] = Budget.parse(budget)
    if shadow_budget is not None:
        settings["shadow_budget"] = Budget.parse(shadow_budget)
    if cors_origin:
        settings["cors_origins"] = tuple(cors_origin)
    if drain is not None:
        if (seconds := Budget.parse(drain).seconds) is None:
            raise InputError("drain", drain, "give seconds: 60s")
        settings["drain_seconds"] = seconds
    if price is not None:
        settings["price"] = Price.parse(price)
    if key is not None:
        settings["keys"] = (*settings.get("keys", ()), given_key(key))
    if "upstream" not in settings:
        raise InputError("upstream", None, "give --upstream http://host:port/v1, or upstream in --config")
    upstream = settings["upstream"]
    upstream_key = model_key(upstream) if isinstance(upstream, str) else None
    made_config = GatewayConfig(**settings, upstream_key=upstream_key)
    if print_config:
        print(json.dumps(made_config.shown(), indent=2, default=str))
        return
    from thinktime.gateway.server import serve as serve_forever

    make_scorer = partial(_scorer, scorer, made_config.upstreams, scorer_name, scorer_price)
    if status := serve_forever(made_config, make_scorer):
        raise typer.Exit(status)


def _scorer(
    scorer: str | None, upstreams: Sequence[UpstreamConfig], name: str | None, price: str | None
) -> Scorer | None:
    if scorer is not None and is_url(scorer):
        shares = any(each.key is not None and may_share_key(scorer, each.url) for each in upstreams)
        key = scorer_key() or (model_key(scorer) if shares else None)
        return remote_scorer(scorer, key, name=name, price=price)
    only_for_endpoints("--scorer", scorer_name=name, scorer_price=price)
    if scorer is None:
        return None
    from thinktime import pocket
    from thinktime.scorers.prm import ProcessReward

    if scorer == "pocket":
        return ProcessReward(pocket.directory("reward"), dtype="float64")
    return ProcessReward(Path(scorer))
