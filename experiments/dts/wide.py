"""Row 35: does a wider tree sample the shipped digits better, as it does in the control?

    python -m experiments.dts.wide            # 10 minutes; goes on where it was stopped

As in `experiments.dts.run`, draws from trees that should be sevens as often as the weighted pictures of the model are.
"""

from __future__ import annotations

import argparse
import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from experiments.dts.control import MOST, Kept
from experiments.dts.run import BUDGETS, DRAWN, HERE, POPULATIONS, STEPS, TARGET
from experiments.image_bench import ImageBench
from experiments.intervals import as_percent, difference, mean
from experiments.provenance import provenance, write_json
from thinktime.core.search import Search
from thinktime.core.usage import Budget
from thinktime.strategies.diffusion.dts import DTS

WIDTHS = (1.0, 2.0)


def sevens(bench: ImageBench, widen: float, nfe: int) -> list[float]:
    """The share of sevens, for the judge, among the draws of each tree."""

    async def one(search: Search) -> float:
        tree = await DTS(n=MOST, variant="sample", widen=widen, walks=4).grow(search)
        rng = search.random("draws")
        seen = bench.judge([tree.draw(1.0, rng).node.state.x for _ in range(DRAWN)], None)
        return sum(hit for _, hit in seen) / DRAWN

    async def every() -> list[float]:
        searches = [bench.search(None, seed, Budget(nfe=nfe)) for seed in range(POPULATIONS)]
        return list(await asyncio.gather(*map(one, searches)))

    return asyncio.run(every())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=Path, default=Path("runs/experiments/dts-wide"))
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    kept, bench = Kept(args.kept), ImageBench(args.kept, STEPS, 1.0, TARGET)
    rows: dict[str, Any] = {}
    for nfe in BUDGETS:
        shares = [kept(f"{widen}-{nfe}", partial(sevens, bench, widen, nfe)) for widen in WIDTHS]
        rows[str(nfe)] = {str(widen): mean(share) for widen, share in zip(WIDTHS, shares, strict=True)}
        rows[str(nfe)]["wide_minus_default"] = difference(shares[1], shares[0])
        print(nfe, {name: as_percent(row) for name, row in rows[str(nfe)].items()}, flush=True)
    result = {**provenance(HERE, 0, "wide"), "trees": POPULATIONS, "draws_of_each": DRAWN, "sevens": rows}
    write_json(args.out / "wide.json", result)


if __name__ == "__main__":
    main()
