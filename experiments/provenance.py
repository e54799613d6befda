"""How a result was made, and the file that says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinktime.bench.environment import environment

FORCE = "--force"
"""The option that lets a result of another command be overwritten."""


def provenance(folder: Path, seed: int, module: str = "run") -> dict[str, Any]:
    """The command of the experiment in this folder, without folders of this machine, and where it ran."""
    words = [word for word in sys.argv[1:] if word != FORCE]
    options = [Path(word).name if Path(word).is_absolute() else word for word in words]
    command = " ".join(["python", "-m", f"experiments.{folder.name}.{module}", *options])
    return {"command": command, "environment": environment(), "seed": seed}


def refuse_another(path: Path, command: str, *, force: bool) -> None:
    """End the program with one line if a file has the result of another command, unless it may be overwritten."""
    if force or not path.exists():
        return
    made_by = json.loads(path.read_text()).get("command")
    if made_by != command:
        sys.exit(f"out={str(path)!r}: it has the result of {made_by!r}; give another --out, or {FORCE}")


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result, and make its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
