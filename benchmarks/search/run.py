"""Measures a search without a model: nodes per second, and the growth of its time with the size of the tree.

    python -m benchmarks.search.run              # a minute; also TreeQuest, if it is installed (pip install treequest)

The generator and the scorer answer at once, so only keys, budget, trace and strategy are timed. TreeQuest's Monte
Carlo tree search runs in place and makes the same number of nodes. It writes ``result.json`` beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thinktime.bench.environment import environment
from thinktime.core.search import Search
from thinktime.core.types import Child, Extension, Node, Problem, Sampling, Score
from thinktime.core.usage import Usage
from thinktime.strategies.search.mcts import MCTS
from thinktime.testing import PROBLEM, WordGenerator, WordScorer

HERE = Path(__file__).parent
SIZES = (1_000, 10_000, 100_000)
WIDTH = 4
ONE, READ = Usage(generated_tokens=1, model_calls=1, flops=2.0), Usage(scorer_tokens=1, scorer_calls=1)
SLOW = 10_000
"""Most nodes of TreeQuest's tree; ten times more would take a hundred times longer."""


class Instant(WordGenerator):
    """A generator whose state is its number of steps. It answers at once, at a constant cost."""

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> int:  # type: ignore[override]
        """Zero steps."""
        return 0

    def length(self, state: int) -> int:  # type: ignore[override]  # of a state that is no text
        """Steps taken."""
        return state

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """The cost of every step."""
        return ONE

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """One step for each extension."""
        return [Child(e.node.state + 1, "eos" if e.until == "done" else "step", ONE, 1) for e in extensions]


class InstantScorer(WordScorer):
    """Scores each node by a number, at once."""

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        """The cost of every score."""
        return READ

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        """A number between 0 and 1 by the node's key."""
        return [Score(int(node.key[:8], 16) / 2**32, READ) for node in nodes]


def search() -> Search:
    """A search that never ends by itself."""
    return Search(PROBLEM, Instant(), scorers=InstantScorer(), sampling=Sampling(max_length=10**9))


def levels(nodes: int) -> float:
    """Seconds for a tree of this many nodes that grows level by level and keeps 256 nodes per level."""
    grown = search()

    async def grow() -> None:
        frontier = [grown.root]
        while len(grown.trace) < nodes:
            children = await grown.extend(frontier, WIDTH, until="step")
            await grown.score(children)
            frontier = children[:256]
            grown.prune(children[256:])

    started = time.perf_counter()
    asyncio.run(grow())
    return (time.perf_counter() - started) * nodes / len(grown.trace)


def ours(nodes: int) -> float:
    """Seconds for this many nodes by our Monte Carlo tree search: one leaf at a time, its children and a roll-out."""
    grown = search()
    strategy = MCTS(n=min(65_536, nodes // (WIDTH + 1)), width=WIDTH, batch=1)
    started = time.perf_counter()
    asyncio.run(strategy(grown))
    return (time.perf_counter() - started) * nodes / len(grown.trace)


def treequest(nodes: int) -> float:
    """Seconds for this many nodes by TreeQuest's Monte Carlo tree search."""
    import treequest as tq

    algorithm = tq.StandardMCTS(samples_per_action=WIDTH)
    state, rng = algorithm.init_tree(), np.random.default_rng(0)
    generate = {"step": lambda parent: ((parent or 0) + 1, float(rng.random()))}
    started = time.perf_counter()
    for _ in range(nodes):
        state = algorithm.step(state, generate, inplace=True)
    return time.perf_counter() - started


def slope(seconds: dict[int, float]) -> float:
    """The exponent of seconds as a power of nodes, by a fit in logarithms; 1 is linear."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    sizes = parser.parse_args().sizes
    contenders: dict[str, Callable[[int], float]] = {"levels": levels, "mcts": ours}
    if importlib.util.find_spec("treequest"):
        contenders["treequest"] = treequest
    result: dict[str, Any] = {"command": "python -m benchmarks.search.run", "environment": environment(), "seconds": {}}
    for run in contenders.values():
        run(1_000)  # the first run loads imports and caches
    for name, run in contenders.items():
        mine = sizes if name != "treequest" else [size for size in sizes if size <= SLOW]
        seconds = {size: min(run(size) for _ in range(3 if size <= 10_000 else 1)) for size in mine}
        result["seconds"][name] = {str(size): round(s, 4) for size, s in seconds.items()} | {
            "slope": round(slope(seconds), 3)
        }
        print(name, result["seconds"][name], flush=True)
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
