"""The metrics of several processes, added up. Each process writes its own into a folder once a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

SECONDS = 1.0
"""Time between two snapshots of a process."""
GONE_SECONDS = 10.0
"""Age of the last snapshot of a process that has ended. Its counters go on counting, and its gauges do not."""
GAUGES = ("thinktime_requests_in_flight", "thinktime_bank_reachable")


class Snapshots:
    """The metrics of all processes of a gateway.

    Args:
        folder: of the snapshots, which only this user can read.
        shared: whether the accounts are the same in all processes.
    """

    def __init__(self, folder: Path, shared: bool) -> None:
        self._folder, self._shared = folder, shared
        self._own = folder / f"{os.getpid()}-{time.time_ns()}"

    def write(self, text: bytes) -> None:
        """Keep the metrics of this process."""
        new = self._own.with_suffix(".new")
        new.write_bytes(text)
        new.replace(self._own)

    def merged(self, text: bytes, keys: Collection[str]) -> bytes:
        """The metrics of this process and of all others.

        Args:
            text: the metrics of this process.
            keys: the accounts that are shown.
        """
        families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for whole, alive in ((text.decode(), True), *self._others()):
            for family in text_string_to_metric_families(whole):
                if family.name in GAUGES and not alive:
                    continue
                families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                found = values.setdefault(family.name, {})
                for sample in family.samples:
                    if "key" not in sample.labels or sample.labels["key"] in keys:
                        named = (sample.name, tuple(sorted(sample.labels.items())))
                        combine = self._way(family.name)
                        found[named] = combine(found[named], sample.value) if named in found else sample.value
        for name, metric in families.items():
            for (sample_name, labels), value in values[name].items():
                metric.add_sample(sample_name, dict(labels), value)
        return generate_latest(_Families(list(families.values())))

    def _way(self, family: str) -> Callable[[float, float], float]:
        """How the values of two processes become one."""
        if family == "thinktime_spent" and self._shared:
            return max
        if family.endswith("_created") or family == "thinktime_bank_reachable":
            return min
        return lambda one, other: one + other

    def _others(self) -> Iterator[tuple[str, bool]]:
        """The metrics of the other processes, and whether each still runs."""
        for file in self._folder.iterdir():
            if file != self._own and not file.suffix:
                with suppress(OSError):
                    yield file.read_text(), time.time() - file.stat().st_mtime < GONE_SECONDS


class _Families:
    """Families of metrics in the form that `generate_latest` reads."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        """All families."""
        return self._families
