"""``thinktime models`` and ``thinktime strategies``: what there is."""

from __future__ import annotations

import json
from textwrap import fill, indent
from typing import TYPE_CHECKING, Annotated

import typer

from thinktime.cli.common import Json, read_json

if TYPE_CHECKING:
    from thinktime.strategies.cards import Card

strategies = typer.Typer(help="The strategies: their papers, options and needs; `show NAME` describes one.")


def models(as_json: Json = False) -> None:
    """The shipped models, what they know, and what else --model takes."""
    from thinktime.pocket import MODELS
    from thinktime.pocket.problems import DAYS, ITEMS, MAKERS, NAMES, problems

    shipped = {
        path.parent.name: facts
        for path in sorted(MODELS.glob("*/config.json"))
        if (facts := read_json(path).get("thinktime"))
    }
    example = next(iter(problems("test", 1, seed=1))).question
    if as_json:
        print(
            json.dumps(
                {
                    "pocket": shipped,
                    "example": example,
                    "other": "any Hugging Face model directory, or the URL of an OpenAI-compatible endpoint",
                }
            )
        )
        return
    for name, facts in shipped.items():
        print(f"pocket {name}: {facts.get('description', '')}")
    print(
        f"\nThe pocket solver reads word problems in its own words, with numbers up to 199, for example:\n  {example}"
    )
    for title, words in (("names", NAMES), ("things", ITEMS), ("days", DAYS), ("places", MAKERS)):
        print(f"  {title}: {', '.join(words)}")
    print("\nAny other --model is a Hugging Face directory on this machine (Llama, Qwen, Mistral, …),")
    print("or the URL of an OpenAI-compatible endpoint (vLLM, llama.cpp, OpenAI, …): http://host:port/v1")


@strategies.callback(invoke_without_command=True)
def list_all(context: typer.Context, as_json: Json = False) -> None:
    """The strategies: their papers, options and needs; `show NAME` describes one."""
    from thinktime.strategies import known
    from thinktime.strategies.cards import card

    context.obj = as_json  # in front of `show` it means the same as behind it
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
    """One strategy: what it does, what its options mean, what it needs."""
    from thinktime.strategies import find
    from thinktime.strategies.cards import card

    found = card(name, find(name))
    if as_json or context.obj:
        print(json.dumps(found.as_dict()))
        return
    print("\n\n".join(_plain(part) for part in (found.name, found.method, found.about) if part))
    if found.options:
        print("\noptions:")
    for option, facts in found.options.items():
        print(f"    {option}={facts.default}")
        if facts.about:
            print(indent(fill(_plain(facts.about), 100), " " * 8))
    print(f"\nneeds: {', '.join(found.needs) or 'nothing'}")


def _summary(found: Card) -> dict[str, object]:
    options = {name: option.default for name, option in found.options.items()}
    return {"about": _headline(found), "paper": found.paper, "options": options, "needs": found.needs}


def _headline(found: Card) -> str:
    """The first line of what the class says of itself; else of what its module does."""
    return (found.about or found.method).partition("\n")[0]


def _plain(text: str) -> str:
    return text.replace("``", "`")
