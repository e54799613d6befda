"""What `/metrics` shows, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from thinktime.core.usage import Usage

COUNTS = ("generated_tokens", "prompt_tokens", "cached_tokens", "model_calls", "uncounted_calls", "dollars")
"""Fields of an account that are exported."""
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the histogram of durations, in seconds."""
BANK = "thinktime_bank_reachable", "Whether the bank that several gateways share answers."
KIND = CONTENT_TYPE_LATEST


class Metrics:
    """Counts requests and what they spent. What accounts have spent is read from their ledgers on demand."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.answered = self._made(Counter, "requests", "Requests that were answered.", "path", "strategy", "status")
        self.seconds = self._made(
            Histogram, "request_seconds", "Time to the end of an answer.", "path", "strategy", buckets=BUCKETS
        )
        self.in_flight = self._made(Gauge, "requests_in_flight", "Requests that are being answered.")
        self.left = self._made(Counter, "clients_left", "Clients that left before their answer.")
        self._shadowed = self._made(
            Counter, "shadow", "Requests that were chosen to be measured in the background.", "outcome"
        )
        self._known: dict[tuple[str, str], float] = {}
        self._unknown: dict[tuple[str, str], float] = {}

    def charge(self, key: str, spent: Usage) -> None:
        """Add what a finished request of a key has spent: known counts to their sums, unknown ones to their number."""
        for what in COUNTS:
            count = getattr(spent, what)
            sums, count = (self._unknown, 1) if count is None else (self._known, count)
            sums[key, what] = sums.get((key, what), 0) + count

    def shadowed(self, outcome: str) -> None:
        """Count a request that was chosen to be measured in the background."""
        self._shadowed.labels(outcome).inc()

    def value(self, name: str, **labels: str) -> float:
        """The value of a sample; 0 if there is none."""
        return self._registry.get_sample_value(f"thinktime_{name}", labels) or 0.0

    def text(self, spent: Mapping[str, Usage], reachable: bool | None = None) -> bytes:
        """All metrics as text.

        Args:
            spent: what the ledgers of the shown accounts have spent, by name.
            reachable: whether a bank of several gateways answers; None if there is none.
        """
        bank = [] if reachable is None else [GaugeMetricFamily(*BANK, value=reachable)]
        return generate_latest(_Together([self._registry.collect, lambda: self._spending(spent), lambda: bank]))

    def _spending(self, accounts: Mapping[str, Usage]) -> Iterator[Metric]:
        kept = CounterMetricFamily(
            "thinktime_spent", "Spending of an account; missing if a part of it is unknown.", labels=("key", "what")
        )
        known = CounterMetricFamily(
            "thinktime_request_spent", "Known spending of finished requests.", labels=("key", "what")
        )
        unknown = CounterMetricFamily(
            "thinktime_request_unknown", "Finished requests whose spending is unknown.", labels=("key", "what")
        )
        for key, usage in accounts.items():
            for what in COUNTS:
                if (count := getattr(usage, what)) is not None:
                    kept.add_metric((key, what), count)
                for family, sums in ((known, self._known), (unknown, self._unknown)):
                    if (key, what) in sums:
                        family.add_metric((key, what), sums[key, what])
        yield from (kept, known, unknown)

    def _made(self, kind: Any, name: str, text: str, *labels: str, **more: Any) -> Any:
        return kind(f"thinktime_{name}", text, labels, registry=self._registry, **more)


class _Together:
    """Several sources of metrics as one, in the form that `generate_latest` reads."""

    def __init__(self, sources: Iterable[Callable[[], Iterable[Metric]]]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        for source in self._sources:
            yield from source()
