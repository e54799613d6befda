"""Counters in Prometheus' text format."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from thinktime.core.usage import Usage

COUNTS = ("generated_tokens", "prompt_tokens", "cached_tokens", "model_calls", "uncounted_calls", "dollars")
"""Fields of an account that are exported; unknown values are left out."""
KIND = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts requests. Spending is read from the ledgers on demand."""

    def __init__(self) -> None:
        self.answered: Counter[tuple[str, str, int]] = Counter()
        """Number of requests by path, strategy (empty: none) and status."""
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        """Total duration by path and strategy."""
        self.in_flight = 0
        self.left = 0
        """Clients that disconnected before their answer."""

    def text(self, spent: Iterable[tuple[str, Usage]], reachable: bool | None = None) -> str:
        """All counters as text.

        Args:
            spent: pairs of a key's name and its spending.
            reachable: whether a bank of several gateways answers; None if there is none.
        """
        lines = ["# TYPE thinktime_requests_total counter"]
        for (path, strategy, status), count in sorted(self.answered.items()):
            lines.append(f'thinktime_requests_total{{path="{path}",strategy="{strategy}",status="{status}"}} {count}')
        lines.append("# TYPE thinktime_request_seconds_total counter")
        for (path, strategy), seconds in sorted(self.seconds.items()):
            lines.append(f'thinktime_request_seconds_total{{path="{path}",strategy="{strategy}"}} {seconds:.6f}')
        lines += ["# TYPE thinktime_requests_in_flight gauge", f"thinktime_requests_in_flight {self.in_flight}"]
        lines += ["# TYPE thinktime_clients_left_total counter", f"thinktime_clients_left_total {self.left}"]
        if reachable is not None:
            lines += ["# TYPE thinktime_bank_reachable gauge", f"thinktime_bank_reachable {int(reachable)}"]
        lines.append("# TYPE thinktime_spent_total counter")
        for name, usage in spent:
            key = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            for what in COUNTS:
                if (count := getattr(usage, what)) is not None:
                    lines.append(f'thinktime_spent_total{{key="{key}",what="{what}"}} {count}')
        return "\n".join(lines) + "\n"
