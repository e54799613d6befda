"""Parts of a long experiment that are computed once, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Kept:
    """A folder with a file for each part.

    Args:
        folder: is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, compute: Callable[[], Any]) -> Any:
        """The part of this name, which is JSON."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            started, found = time.perf_counter(), compute()
            path.write_text(json.dumps(found))
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        return json.loads(path.read_text())
