"""``thinktime keys``: adds, lists and revokes the keys of clients of ``thinktime serve``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from thinktime.cli.common import Json
from thinktime.core.errors import InputError
from thinktime.core.printable import printable

keys = typer.Typer(no_args_is_help=True, help="Add, list and revoke the keys of a gateway's clients.")

Store = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="THINKTIME_KEY_STORE",
        help="Where the keys are: a file, or postgresql://USER@HOST/DATABASE; as `thinktime serve --key-store`.",
    ),
]
Name = Annotated[str, typer.Argument(help="The name of the key's account.")]


@keys.command("add")
def add_key(
    name: Name,
    store: Store,
    budget: Annotated[str | None, typer.Option(help="For all its requests: 1e6tok, 5usd.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Most requests in any 60 seconds.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Most tokens in any 60 seconds.")] = None,
    sees_all: Annotated[bool, typer.Option("--sees-all", help="Its page shows the requests of all keys.")] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="`thinktime serve --shadow` may measure its requests.")
    ] = False,
) -> None:
    """Make a key, and print it once.

    The store keeps only its hash. All gateways on the store accept it at once.
    """
    from thinktime.bank.keys import KeyStore
    from thinktime.gateway.config import digest, new_key, stored_key

    given: dict[str, Any] = {"budget": budget, "requests_per_minute": requests_per_minute}
    given |= {"tokens_per_minute": tokens_per_minute, "sees_all": sees_all or None, "shadow": shadow or None}
    settings = {setting: value for setting, value in given.items() if value is not None}
    made = new_key()
    stored_key(name, digest(made), settings)  # refuses wrong settings
    opened = KeyStore(store, "store")
    opened.add(name, digest(made), settings)
    opened.close()
    print(made)


@keys.command("ls")
def list_keys(store: Store, as_json: Json = False) -> None:
    """List the keys with their limits."""
    from thinktime.bank.keys import KeyStore

    _refuse_missing(store)
    opened = KeyStore(store, "store")
    found = opened.all()
    opened.close()
    if as_json:
        whole = [{**vars(key), "sha256": key.sha256[:8]} for key in found]
        print(json.dumps(whole))
        return
    for key in found:
        limits = " ".join(f"{setting}={value}" for setting, value in key.settings.items())
        state = f"revoked {_day(key.revoked)}" if key.revoked is not None else f"since {_day(key.created)}"
        print(f"{printable(key.name)}  {state}  {printable(limits) or 'no limits'}")


@keys.command("revoke")
def revoke_key(name: Name, store: Store) -> None:
    """Make a key invalid for all gateways at once."""
    from thinktime.bank.keys import KeyStore

    _refuse_missing(store)
    opened = KeyStore(store, "store")
    opened.revoke(name)
    opened.close()
    print(f"{printable(name)} is revoked")


def _refuse_missing(store: str) -> None:
    """Refuse a file that does not exist, which only `add` makes."""
    from thinktime.bank.database import is_url

    if not is_url(store, "store") and not Path(store).exists():
        raise InputError("store", store, "there is no such file; `thinktime keys add` makes it")


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
