"""Prices of tokens: a small snapshot of list prices, which users can override."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from thinktime.core.errors import InputError


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens. Cached prompt tokens cost ``cached``, or as much as others if that is None."""

    prompt: float
    generated: float
    cached: float | None = None

    def __post_init__(self) -> None:
        for value in (self.prompt, self.generated, self.cached):
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise InputError("price", value, "give dollars per million tokens, 0 or more")

    def __str__(self) -> str:
        return "/".join(f"{value:g}" for value in (self.prompt, self.generated, self.cached) if value is not None)

    def dollars(self, prompt: float, cached: float, generated: float) -> float:
        """The cost of these token counts in dollars; ``prompt`` does not include ``cached``."""
        reused = self.prompt if self.cached is None else self.cached
        return (self.prompt * prompt + reused * cached + self.generated * generated) / 1e6

    def most(self, prompt: int, generated: int) -> float:
        """The most that these token counts can cost in dollars, however many prompt tokens are cached."""
        return max(self.dollars(prompt - cached, cached, generated) for cached in (0, prompt))

    @classmethod
    def parse(cls, text: str) -> Price:
        """Parse ``0.15/0.60`` or, with a price for cached prompt tokens, ``0.15/0.60/0.075``.

        Raises:
            InputError: the text has another form.
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
"""Standard rates by host and model, compared in November 2026 with public tables of the vendor's page.

The list omits models whose price depends on the prompt's length (gpt-5.4 and gpt-5.5), because one rate could not keep
a budget. It also omits names with a date, because some of them have other prices. Other hosts have no listed price.
"""


def listed(url: str, model: str) -> Price | None:
    """The listed price of a model at this URL; None if it is not listed."""
    return LISTED.get(urlsplit(url).hostname or "", {}).get(model)
