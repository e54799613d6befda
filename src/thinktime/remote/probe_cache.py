"""What endpoints were seen to do, kept in a file between runs."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

from thinktime.remote.probe import Traits
from thinktime.remote.protocol import ReportedUsage
from thinktime.remote.thoughts import Cap

Seen = TypeVar("Seen", Traits, Cap)
LASTS = timedelta(days=1)
"""An older look is taken again: another server may listen there by now."""


class ProbeCache:
    """ProbeCache by endpoint and model, each with its date, in a JSON file.

    It is a cache: what cannot be read counts as not there, and what cannot be written is forgotten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str, kind: type[Seen]) -> Seen | None:
        """What was seen of this kind of this endpoint, if that was not too long ago."""
        entry: Any = self._read().get(f"{kind.__name__} {name}")
        try:
            fields = dict(entry["traits"])
            fresh = timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(entry["seen"]) < LASTS
            return kind(**fields | {"spent": ReportedUsage(**fields["spent"])}) if fresh else None
        except (KeyError, TypeError, ValueError):  # none, or of another version
            return None

    def keep(self, name: str, seen: Traits | Cap) -> None:
        """Write down what was seen just now."""
        name = f"{type(seen).__name__} {name}"
        entry = {"seen": datetime.now(UTC).isoformat(timespec="seconds"), "traits": asdict(seen)}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
                json.dump({**self._read(), name: entry}, file, indent=1)
            os.replace(file.name, self.path)

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(self.path.read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}
