"""``thinktime strategies``: lists the strategies, and describes one."""

from __future__ import annotations

import json
from textwrap import fill, indent
from typing import TYPE_CHECKING, Annotated

import typer

from thinktime.cli.common import Json

if TYPE_CHECKING:
    from thinktime.strategies.cards import Card

strategies = typer.Typer(help="List the strategies; `show NAME` describes one.")


@strategies.callback(invoke_without_command=True)
def list_all(context: typer.Context, as_json: Json = False) -> None:
    """List the strategies; `show NAME` describes one.

    A strategy has a paper, options and needs.
    """
    from thinktime.strategies import known
    from thinktime.strategies.cards import card

    context.obj = as_json  # `--json` before `show` means the same as after it
    if context.invoked_subcommand is not None:
        return
    cards = [card(name, kind) for name, kind in sorted(known().items())]
    if as_json:
        print(json.dumps({found.name: _summary(found) for found in cards}))
        return
    for found in cards:
        settings = ",".join(f"{name}={option.default}" for name, option in found.options.items())
        print(f"{found.name}{':' if settings else ''}{settings}\n    {_plain(_headline(found))}")
        print(f"    paper: {found.paper or 'not named'}\n    needs: {', '.join(found.needs) or 'nothing'}")


@strategies.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name from `thinktime strategies`.")],
    as_json: Json = False,
) -> None:
    """One strategy: its method, its options and its needs."""
    from thinktime.strategies import find
    from thinktime.strategies.cards import card

    found = card(name, find(name))
    if as_json or context.obj:
        print(json.dumps(found.as_dict()))
        return
    print("\n\n".join(_plain(part) for part in (found.name, found.method, found.about) if part))
    if found.options:
        print("\noptions:")
    for name, option in found.options.items():
        print(f"    {name}={option.default}")
        if option.about:
            print(indent(fill(_plain(option.about), 100), " " * 8))
    print(f"\nneeds: {', '.join(found.needs) or 'nothing'}")


def _summary(found: Card) -> dict[str, object]:
    options = {name: option.default for name, option in found.options.items()}
    return {"about": _headline(found), "paper": found.paper, "options": options, "needs": found.needs}


def _headline(found: Card) -> str:
    """The first line of the class's docstring, or of its module's if the class has none."""
    return (found.about or found.method).partition("\n")[0]


def _plain(text: str) -> str:
    return text.replace("``", "`")
