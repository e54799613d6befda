"""Keeps the results of endpoint probes in a file between runs."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from thinktime.files import write_whole
from thinktime.models.remote.probe import Traits
from thinktime.models.remote.protocol import ReportedUsage
from thinktime.models.remote.thoughts import Cap

Result = TypeVar("Result", Traits, Cap)
LASTS = timedelta(days=1)
"""Older results expire, because another server may listen at the address by now."""


class ProbeCache:
    """Probe results by endpoint and model, with their dates, in a JSON file.

    An unreadable file counts as empty, and a failed write is ignored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str, kind: type[Result]) -> Result | None:
        """The result of this kind for this endpoint; None if there is none or it has expired."""
        entry: Any = self._read().get(f"{kind.__name__} {name}")
        try:
            fields = dict(entry["traits"])
            fresh = timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(entry["seen"]) < LASTS
            return kind(**fields | {"spent": ReportedUsage(**fields["spent"])}) if fresh else None
        except (KeyError, TypeError, ValueError):  # there is no entry, or another version wrote it
            return None

    def keep(self, name: str, result: Traits | Cap) -> None:
        """Store a new result."""
        name = f"{type(result).__name__} {name}"
        entry = {"seen": datetime.now(UTC).isoformat(timespec="seconds"), "traits": asdict(result)}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps({**self._read(), name: entry}, indent=1))

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}
