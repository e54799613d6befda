"""What every result says of how it was made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from thinktime.bench.environment import environment


def facts(here: Path, seed: int) -> dict[str, Any]:
    """The command of the experiment in this folder, without folders of this machine, and where it ran."""
    options = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join(["python", "-m", f"experiments.{here.name}.run", *options])
    return {"command": command, "environment": environment(), "seed": seed}
