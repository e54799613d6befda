"""How a result was made, and the file that says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinktime.bench.environment import environment


def provenance(folder: Path, seed: int, module: str = "run") -> dict[str, Any]:
    """The command of the experiment in this folder, without folders of this machine, and where it ran."""
    options = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join(["python", "-m", f"experiments.{folder.name}.{module}", *options])
    return {"command": command, "environment": environment(), "seed": seed}


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result, and make its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
