"""Writes the pages of the reference from the code, as Markdown.

    python -m docs.generated cli        # prints a page

The site has these texts where a page has a block ``{generated} NAME``.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import MISSING, fields, replace
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from thinktime import cli as command_line
from thinktime.bank.store import Bank
from thinktime.bench.runner import Bench, Entry
from thinktime.bench.tasks import Task
from thinktime.core.protocols import Generator
from thinktime.core.types import Sampling
from thinktime.core.usage import Budget, Usage
from thinktime.gateway.config import Endpoint, GatewayConfig, Key, UpstreamConfig
from thinktime.session import Session
from thinktime.strategies import BUILT_IN, Strategy
from thinktime.strategies.cards import Card, card
from thinktime.strategies.sampling.majority import Majority
from thinktime.strategies.sampling.single import Single
from thinktime.strategies.sampling.weighted_majority import WeightedMajority
from thinktime.testing import ANSWERS, PROBLEM, WordGenerator, WordScorer

ROOT = Path(__file__).parents[1]
Row = Sequence[str]


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its context, in the order of ``thinktime --help``: ``bank export`` comes after ``bank``."""
    yield from _commands(typer.main.get_command(command_line.app), "thinktime", None)


def _commands(command: Any, name: str, above: Any) -> Iterator[tuple[str, Any]]:
    context = command.context_class(command, info_name=name, parent=above, **command.context_settings)
    yield context.command_path, context
    for below, child in getattr(command, "commands", {}).items():
        yield from _commands(child, below, context)


def cli() -> str:
    """Every command with its arguments and options."""
    parts = []
    for path, context in commands():
        command = context.command
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        parts += [f"## {path}", cleandoc(command.help or ""), f"```\n{usage}\n```"]
        records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        rows = [(f"`{names}`", text) for names, text in filter(None, records)]
        parts.append(_table(("argument or option", "meaning"), rows))
        below = [
            (f"`{name}`", child.get_short_help_str(200)) for name, child in getattr(command, "commands", {}).items()
        ]
        if below:
            parts.append(_table(("command", "what it does"), below))
    return "\n\n".join(parts)


def gateway_config() -> str:
    """The settings of the file of ``thinktime serve --config``."""
    parts = ["## Top level", _settings(GatewayConfig, leave=("upstream_key",))]
    parts += ["## `[[upstream]]`", _settings(UpstreamConfig, leave=("key",))]
    parts += ["## `[keys.NAME]`", _settings(Key, leave=("name",))]
    parts += ["## `[models.ROLE]` and `[scorers.ROLE]`", _settings(Endpoint)]
    return "\n\n".join(parts)


def _settings(kind: type[Any], leave: Iterable[str] = ()) -> str:
    """The fields of a dataclass with their types, defaults and meanings."""
    about = _arguments(kind)
    rows = []
    for each in fields(kind):
        if each.name in leave:
            continue
        needed = each.default is MISSING and each.default_factory is MISSING
        default = "needed" if needed else "" if each.default in (MISSING, None, ()) else f"`{each.default!r}`"
        rows.append((f"`{each.name}`", _type(each.type), default, about.get(each.name, "")))
    return _table(("setting", "type", "default", "meaning"), rows)


def _type(written: Any) -> str:
    """A type as TOML has it."""
    text = str(written).removesuffix(" | None")
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Path": "path as text"}
    names["tuple[str, ...]"] = "list of texts"
    names["str | tuple[UpstreamConfig, ...]"] = "text, or tables"
    return {**names, "Budget": "text, as 4000tok,30s", "Price": "text, as 0.15/0.60"}.get(text, "table")


def _arguments(kind: type[Any]) -> dict[str, str]:
    """The section ``Args:`` of a docstring by name. Several names may share a line."""
    section = cleandoc(kind.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    parts = re.split(r"^([\w, ]+): ", cleandoc(section), flags=re.MULTILINE)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {name: _prose(text) for names, text in pairs for name in names.split(", ")}


def result() -> str:
    """The fields of ``result.json``, from a small bench of words."""
    task = Task("words", (replace(PROBLEM, metadata={"level": 1}),), ANSWERS)
    budget = Budget(10_000, 1_000, 1e12, 600.0, 1.0)
    models: Mapping[str, Generator] = {"main": WordGenerator()}
    session = Session(models, {"main": WordScorer()}, answers=ANSWERS, sampling=Sampling(max_length=20), budget=budget)
    strategies: dict[str, Strategy] = {
        "single": Single(),
        "majority": Majority(n=2),
        "weighted_majority": WeightedMajority(n=2),
    }
    entries = [Entry(name, 2, strategy) for name, strategy in strategies.items()]
    with tempfile.TemporaryDirectory() as folder, closing(Bank(Path(folder) / "bank.db")) as samples:
        bench = Bench(task, session, entries, samples)
        asyncio.run(bench.run())
        found = json.loads(json.dumps(bench.result("thinktime bench words", {})))
    kinds: dict[str, set[str]] = {}
    for path, kind in _leaves(found):
        kinds.setdefault(path, set()).add(kind)
    return _table(("field", "type"), [(f"`{path}`", " or ".join(sorted(names))) for path, names in kinds.items()])


_JSON: Mapping[type[Any], str] = {
    **{dict: "object", list: "list", str: "text", int: "number", float: "number"},
    **{bool: "true or false", type(None): "null"},
}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each value inside of a JSON value: its path, as in ``runs[].problems[].id``, and its type."""
    if isinstance(value, dict) and set(value) == {"value", "low", "high"}:
        yield path, "estimate"
    elif isinstance(value, dict) and "generated_tokens" in value and "flops" in value:
        yield path, "usage"
    elif isinstance(value, dict) and value:
        for name, inside in value.items():
            yield from _leaves(inside, f"{path}.{'K' if name.isdigit() else name}".lstrip("."))
    elif isinstance(value, list) and value:
        for inside in value:
            yield from _leaves(inside, f"{path}[]")
    else:
        yield path, _JSON[type(value)]


def usage() -> str:
    """The counts of a usage with their meanings, which stand below the fields of the class."""
    body = ast.parse(cleandoc(inspect.getsource(Usage))).body[0]
    assert isinstance(body, ast.ClassDef)
    rows = []
    for field, below in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            rows.append((f"`{ast.unparse(field.target)}`", str(below.value.value)))
    return _table(("count", "meaning"), rows)


def bank() -> str:
    """The tables of a bank and their columns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.db"
        Bank(path).close()
        with closing(sqlite3.connect(path)) as db:
            names = [
                name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            ]
            parts = []
            for name in names:
                columns = db.execute(f"PRAGMA table_info({name})").fetchall()
                rows = [(f"`{c[1]}`", c[2], "yes" if c[3] else "", "yes" if c[5] else "") for c in columns]
                parts += [f"### `{name}`", _table(("column", "type", "never null", "key"), rows)]
    return "\n\n".join(parts)


def methods() -> str:
    """Every strategy: its paper, its options, and what its experiment says about its use."""
    experiments = _experiments()
    families: dict[str, list[Card]] = {}
    for name, kind in BUILT_IN.items():
        families.setdefault(kind.__module__.split(".")[2], []).append(card(name, kind))
    parts = []
    for family, cards in families.items():
        rows = [(f"[`{found.name}`](#{found.name})", _first_sentence(found)) for found in cards]
        parts += [f"## {family.capitalize()}", _table(("strategy", "what it does"), rows)]
        parts += [_method(found, experiments.get(found.name, ())) for found in cards]
    return "\n\n".join(parts)


def _method(found: Card, folders: Iterable[str]) -> str:
    parts = [f"### {found.name}", found.about or found.method]
    if found.paper:
        parts.append(f"Source: {found.paper}.")
    if found.needs:
        parts.append(f"Needs: {', '.join(found.needs)}.")
    if found.options:
        rows = [(f"`{name}`", f"`{option.default}`", option.about or "") for name, option in found.options.items()]
        parts.append(_table(("option", "default", "meaning"), rows))
    return "\n\n".join([*parts, *(_use(ROOT / "experiments" / folder) for folder in folders)])


def _first_sentence(found: Card) -> str:
    return _prose(found.about or found.method).partition(". ")[0].rstrip(".")


def _experiments() -> Mapping[str, Sequence[str]]:
    """The folders of the experiments by strategy, from the tables of the catalogue."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "docs" / "catalogue.md").read_text().splitlines():
        cells = re.split(r"(?<!\\) \| ", line)
        folders = re.findall(r"\]\(\.\./experiments/(\w+)/README\.md\)", line)
        if line.startswith("| ") and len(cells) > 6 and folders:
            for name in re.findall(r"`(\w+)[`:]", cells[-4]):
                found.setdefault(name, []).extend(f for f in folders if f not in found.get(name, ()))
    return found


def _use(folder: Path) -> str:
    """The first picture of an experiment, and its section about when to use the method."""
    text = (folder / "README.md").read_text()
    title = text.partition("\n")[0].removeprefix("# ")
    where = f"/experiments/{folder.name}"
    section = re.search(r"^## When to use it\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    picture = re.search(r"^!\[.*?\]\([\w./-]+\)$", text, re.MULTILINE)
    parts = [f"**When to use it** (experiment: [{title}]({where}/README.md))"]
    parts += [section[1].strip()] if section else []
    parts += [picture[0]] if picture else []
    return re.sub(r"\]\((?![a-z]+:|#|/)", f"]({where}/", "\n\n".join(parts))


def _prose(text: str) -> str:
    return " ".join(text.split())


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_prose(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    print(globals()[sys.argv[1]]())
