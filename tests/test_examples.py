"""The scripts and notebooks of examples/ run, at small sizes."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from gateway_server import Start

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS: dict[str, list[str]] = {
    "ask": ["--strategy", "majority:n=2"],
    "bench": ["--problems", "3"],
    "strategy": [],
    "plan": [],
    "gateway_client": ["--model", "words"],
}


def test_every_script_and_notebook_is_described_and_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SCRIPTS)
    page = (EXAMPLES / "README.md").read_text()
    files = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")]
    assert len(files) == 8 and [name for name in files if f"]({name})" not in page] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_a_result(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], start_gateway: Start
) -> None:
    options = SCRIPTS[name]
    if name == "gateway_client":
        options = [*options, "--url", start_gateway()[1].url]
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= (1 if name == "strategy" else 2)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_kept_without_outputs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads(path.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    asyncio.run(run(["".join(cell["source"]) for cell in cells]))


async def run(cells: list[str]) -> None:
    """Run cells as Jupyter does: one after another, inside of a running loop, with ``await`` at the top."""
    names: dict[str, Any] = {}
    for cell in cells:
        result = eval(compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(result):
            await result
