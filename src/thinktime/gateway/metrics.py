"""Counters in Prometheus' text format."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from thinktime.core.usage import Usage

COUNTS = ("generated_tokens", "prompt_tokens", "cached_tokens", "model_calls", "uncounted_calls", "dollars")
"""Of an account; what is unknown is left out."""
KIND = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What has been answered. What was spent is read off the accounts when somebody asks."""

    def __init__(self) -> None:
        self.answered: Counter[tuple[str, str, int]] = Counter()
        """By path, strategy (empty: none) and status."""
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        """By path and strategy."""
        self.in_flight = 0
        self.left = 0
        """Clients that did not wait for their answer."""

    def text(self, spent: Iterable[tuple[str, Usage]]) -> str:
        """All counters.

        Args:
            spent: by name of a key.
        """
        lines = ["# TYPE thinktime_requests_total counter"]
        for (path, strategy, status), count in sorted(self.answered.items()):
            lines.append(f'thinktime_requests_total{{path="{path}",strategy="{strategy}",status="{status}"}} {count}')
        lines.append("# TYPE thinktime_request_seconds_total counter")
        for (path, strategy), seconds in sorted(self.seconds.items()):
            lines.append(f'thinktime_request_seconds_total{{path="{path}",strategy="{strategy}"}} {seconds:.6f}')
        lines += ["# TYPE thinktime_requests_in_flight gauge", f"thinktime_requests_in_flight {self.in_flight}"]
        lines += ["# TYPE thinktime_clients_left_total counter", f"thinktime_clients_left_total {self.left}"]
        lines.append("# TYPE thinktime_spent_total counter")
        for name, usage in spent:
            key = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            for what in COUNTS:
                if (count := getattr(usage, what)) is not None:
                    lines.append(f'thinktime_spent_total{{key="{key}",what="{what}"}} {count}')
        return "\n".join(lines) + "\n"
