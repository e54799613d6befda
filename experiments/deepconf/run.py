"""DeepConf on samples whose confidence is informative by construction: the effect against how informative it is.

    python -m experiments.deepconf.run            # a minute; writes result.json and plot.png

A sample has one unsure stretch of 4 tokens. Its confidence is higher in right samples: a right one exceeds a wrong
one with the probability on the dial (the AUC). All other tokens say nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from experiments.constructed import RIGHT, answer, rows, shift, solved
from experiments.plot import line, panels, save
from experiments.provenance import provenance, write_json

HERE = Path(__file__).parent
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9)
STRETCH = 4
CONTROL = "majority:n=32"
ARMS = {
    CONTROL: "vote of 32",
    "deepconf:n=32,keep=0.1,by=lowest,window=4": "keep a tenth, lowest group",
    "deepconf:n=32,keep=0.9,by=lowest,window=4": "keep nine tenths, lowest group",
    "deepconf:n=32,keep=0.1,by=mean,window=4": "keep a tenth, mean of all tokens",
    "deepconf_online:n=32,warmup=8,keep=0.1,window=4,every=4": "online, keep a tenth",
    "deepconf_online:n=32,warmup=8,keep=0.9,window=4,every=4": "online, keep nine tenths",
}


@lru_cache(maxsize=10_000)
def sample(problem: str, index: int, auc: float) -> tuple[str, tuple[float, ...]]:
    """12 to 24 words, the last of which is the answer; one stretch has a confidence of 5 plus the signal, others 9."""
    given, rng = answer(problem, index), Random(f"{problem}/{index}/text")
    length = rng.randint(12, 24)
    start = rng.randint(0, length - STRETCH)
    signal = rng.gauss(0, 1) + (shift(auc) if given == RIGHT else 0.0)
    known = [
        max(0.1, (5 + signal if start <= place < start + STRETCH else 9.0) + rng.gauss(0, 1)) for place in range(length)
    ]
    return " ".join(["so"] * (length - 1) + [given]), tuple(known)


def at(auc: float, names: Sequence[str]) -> dict[str, Any]:
    """All arms at one place of the dial."""
    return rows({arm: [solved(arm, name, lambda p, i: sample(p, i, auc)) for name in names] for arm in ARMS}, CONTROL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    names = [f"problem {i}" for i in range(args.problems)]
    by_auc = {str(auc): at(auc, names) for auc in AUCS}
    result = {**provenance(HERE, 0), "n_problems": len(names), "by_auc": by_auc}
    write_json(args.out / "result.json", result)
    plot(result, args.out / "plot.png")


def plot(result: dict[str, Any], path: Path) -> None:
    """The gain over a vote, and the tokens, against the dial."""
    figure, (gain, tokens) = panels(2, 11, 4.4)
    for colour, (arm, label) in enumerate(ARMS.items()):
        table = [result["by_auc"][str(auc)][arm] for auc in AUCS]
        if arm != CONTROL:
            line(gain, AUCS, [row["minus_control"] for row in table], colour, label)
            line(tokens, AUCS, [row["tokens_over_control"] for row in table], colour, label)
    gain.set(xlabel="AUC of the weakest stretch", ylabel="points over a vote of 32", title="right answers")
    tokens.set(xlabel="AUC of the weakest stretch", ylabel="% of the tokens of the vote", title="tokens", ylim=(0, 105))
    gain.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
