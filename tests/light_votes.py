"""Votes of a gateway without numpy, scipy, sympy and torch, as in an installation of ``thinktime[serve]``.

    python tests/light_votes.py     # prints the votes, two refusals, and which of these packages were loaded

A process of its own hides the packages, because other tests need them.
"""

from __future__ import annotations

import json
import sys

HEAVY = ("matplotlib", "numpy", "pandas", "scipy", "sympy", "torch", "transformers")
VOTES = ("majority:n=8", "auto")
NEEDING = ("ets:n=4,coverage=0", "auto:policy=qwen2.5-coder-0.5b-instruct-gsm8k-program")
"""Methods that need other packages."""


def main() -> None:
    """Ask the gateway for two votes, and for two methods that it has to refuse."""
    hidden: dict[str, None] = dict.fromkeys(HEAVY)
    sys.modules.update(hidden)  # type: ignore[arg-type]  # an import of them fails, as if they were not installed
    from fake_endpoint import Running
    from gateway_server import VOTE, Serving

    with Running() as endpoint, Serving(endpoint.url) as gateway:
        replies = [gateway.ask({**VOTE, "model": f"{method}/words"}) for method in (*VOTES, *NEEDING)]
    votes = [(status, reply["thinktime"]["samples"]) for status, reply, _ in replies[: len(VOTES)]]
    refusals = [(status, reply["error"]["message"]) for status, reply, _ in replies[len(VOTES) :]]
    heavy = [name for name in HEAVY if sys.modules.get(name) is not None]
    print(json.dumps({"votes": votes, "refusals": refusals, "heavy": heavy}))


if __name__ == "__main__":
    main()
