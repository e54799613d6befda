"""Folders are layers, imports point one way, and heavy packages are imported only by modules that need them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import thinktime

SOURCE = Path(thinktime.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
ANYTHING = "anything"


def table() -> dict[str, tuple[str, ...]]:
    """The table of docs/architecture.md: the parts of the package that each layer may import, including itself."""
    found = {}
    section = PAGE.read_text().partition("## Layers\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.fullmatch(r"`?[\w.]+`?", cells[0]) and cells[0] != "layer":
            name, allowed = cells[0].strip("`"), tuple(part.strip() for part in cells[2].split(","))
            found[name] = (name, *(part for part in allowed if part != "nothing"))
    return found


MAY_IMPORT = table()


def layer(file: Path) -> str:
    """The row with the longest name that begins the file's path; if there is none, the first part of the path."""
    path = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
    rows = [name for name in MAY_IMPORT if within(path, name, package="")]
    return max(rows, key=len, default=path.partition(".")[0])


def imports(file: Path) -> Iterator[str]:
    """The full names of all imports of a file, also those in functions and those for type checkers only."""
    package = ("thinktime", *file.relative_to(SOURCE).parent.parts)
    for statement in ast.walk(ast.parse(file.read_text())):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            above = package[: len(package) - statement.level + 1] if statement.level else ()
            module = ".".join([*above, *([statement.module] if statement.module else [])])
            yield from (f"{module}.{alias.name}" for alias in statement.names)


def within(name: str, allowed: str, package: str = "thinktime.") -> bool:
    return allowed == ANYTHING or f"{name}.".startswith(f"{package}{allowed}.")


def test_every_file_belongs_to_a_known_layer() -> None:
    assert {layer(file) for file in FILES} <= set(MAY_IMPORT)


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_layer_imports_only_what_it_may(name: str) -> None:
    wrong = [
        f"{file.relative_to(SOURCE)} imports {imported}"
        for file in FILES
        if layer(file) == name
        for imported in imports(file)
        if imported.partition(".")[0] == "thinktime" and not any(within(imported, may) for may in MAY_IMPORT[name])
    ]
    assert wrong == []


def test_the_layers_have_an_order() -> None:
    """No two layers import each other, directly or through other layers."""

    def row(part: str) -> str:
        """The row of a module, or of a part of one."""
        return max((name for name in MAY_IMPORT if within(part, name, package="")), key=len, default=part)

    below = {name: {row(may) for may in allowed} - {name} for name, allowed in MAY_IMPORT.items()}
    placed: set[str] = {ANYTHING}
    while left := set(below) - placed:
        ready = {name for name in left if below[name] <= placed}
        assert ready, f"these import each other: {sorted(left)}"
        placed |= ready


def test_no_two_classes_share_a_name() -> None:
    """So a name has one meaning. Names with an underscore are known to their module alone."""
    names = Counter(
        statement.name
        for file in FILES
        for statement in ast.parse(file.read_text()).body
        if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_")
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_core_does_no_input_or_output_and_knows_no_tensor() -> None:
    banned = {"torch", "numpy", "sqlite3", "pathlib", "os", "io", "socket", "subprocess", "urllib", "http"}
    found = {name.partition(".")[0] for file in FILES if layer(file) == "core" for name in imports(file)}
    assert found & banned == set()


def test_the_checker_sees_every_way_of_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "core").mkdir()
    file = tmp_path / "core" / "a.py"
    file.write_text(
        "import thinktime.bank.store as s\n"
        "from thinktime import cli\n"
        "from ..bench import table\n"
        "from . import b\n"
        "def f():\n    from thinktime.models.engine.models import load\n"
        "if TYPE_CHECKING:\n    from thinktime.pocket import MODELS\n"
    )
    assert sorted(imports(file)) == [
        "thinktime.bank.store",
        "thinktime.bench.table",
        "thinktime.cli",
        "thinktime.core.b",
        "thinktime.models.engine.models.load",
        "thinktime.pocket.MODELS",
    ]
    assert layer(file) == "core"
    assert within("thinktime.core.b", "core") and not within("thinktime.core_two.b", "core")


HEAVY = {"aiohttp", "torch", "numpy", "transformers", "mpmath", "sympy", "rich", "typer", "pytest", "hypothesis"}
HEAVY |= {"starlette", "uvicorn"}
LIGHT = ["thinktime", *(f"thinktime.core.{f.stem}" for f in FILES if layer(f) == "core"), "thinktime.strategies"]
LIGHT += ["thinktime.bank.store", "thinktime.answers", "thinktime.generators.recorded", "thinktime.scorers.recorded"]
LIGHT += ["thinktime.testing", "thinktime.strategies.cards"]


def test_importing_the_core_and_the_strategies_loads_no_heavy_package() -> None:
    script = f"import sys\nfor name in {LIGHT}: __import__(name)\nprint(*({HEAVY} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_adapters_load_heavy_packages_only_when_a_model_is_made() -> None:
    script = (
        "import sys, thinktime.generators.local, thinktime.generators.openai, thinktime.scorers.prm\n"
        "import thinktime.scorers.judge, thinktime.scorers.pooling, thinktime.scorers.server\n"
        "print(*(name in sys.modules for name in ('torch', 'transformers', 'aiohttp', 'starlette')))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"] * 4
