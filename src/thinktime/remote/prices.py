"""What tokens cost, where somebody says so: a small snapshot of list prices, and your own in their place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from thinktime.core.errors import InputError


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens. Prompt tokens that were reused cost ``cached``, or as much as others."""

    prompt: float
    generated: float
    cached: float | None = None

    def __post_init__(self) -> None:
        for value in (self.prompt, self.generated, self.cached):
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise InputError("price", value, "give dollars per million tokens, 0 or more")

    def dollars(self, prompt: int, cached: int, generated: int) -> float:
        """What so many tokens cost; ``prompt`` does not include ``cached``."""
        reused = self.prompt if self.cached is None else self.cached
        return (self.prompt * prompt + reused * cached + self.generated * generated) / 1e6

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read ``0.15/0.60`` or, with a price for reused prompt tokens, ``0.15/0.60/0.075``.

        Raises:
            InputError: it is neither.
        """
        try:
            return cls(*[float(part) for part in text.split("/")])
        except (TypeError, ValueError):
            raise InputError(
                "price", text, "write dollars per million tokens, prompt/generated[/reused]: 0.15/0.60"
            ) from None


LISTED: dict[str, dict[str, Price]] = {
    "api.openai.com": {
        "gpt-5": Price(1.25, 10.00, 0.125),
        "gpt-5-mini": Price(0.25, 2.00, 0.025),
        "gpt-5-nano": Price(0.05, 0.40, 0.005),
        "gpt-5.1": Price(1.25, 10.00, 0.125),
        "gpt-5.2": Price(1.75, 14.00, 0.175),
        "gpt-4o": Price(2.50, 10.00, 1.25),
        "gpt-4o-mini": Price(0.15, 0.60, 0.075),
        "gpt-4.1": Price(2.00, 8.00, 0.50),
        "gpt-4.1-mini": Price(0.40, 1.60, 0.10),
        "gpt-4.1-nano": Price(0.10, 0.40, 0.025),
        "o4-mini": Price(1.10, 4.40, 0.275),
    },
}
"""By host and model; standard rates, compared in November 2026 with tables that others keep of the vendor's page.

Left out is what costs more beyond some length of prompt (gpt-5.4 and gpt-5.5), for a budget could not be kept with one
rate, and names with a date, some of which have prices of their own. A host of your own has no price but the one you
give.
"""


def listed(url: str, model: str) -> Price | None:
    """The price of a model at this URL; None where nobody said."""
    return LISTED.get(urlsplit(url).hostname or "", {}).get(model)
