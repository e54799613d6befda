"""How a result was made, and the file that says so."""

from __future__ import annotations

import argparse
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


def begin(
    folder: Path, doc: str | None, module: str, file: str, problems: int | None = None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Read the options of a script, and refuse to overwrite the result of another command.

    Args:
        folder: of the script; the result goes there unless ``--out`` is given.
        doc: the description of the command.
        module: the script, without ``.py``.
        file: the name of its result.
        problems: the usual number of problems; without it the script has ``--seed`` in place of ``--problems``.

    Returns:
        The options, and the provenance of the result.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if problems is None:
        parser.add_argument("--seed", type=int, default=0)
    else:
        parser.add_argument("--problems", type=int, default=problems)
    parser.add_argument("--out", type=Path, default=folder)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(folder, args.seed if problems is None else 0, module)
    refuse_another(args.out / file, made["command"], force=args.force)
    return args, made


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result, and make its folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
