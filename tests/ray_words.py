"""A model of words for workers of Ray. It notes its samples in a file, and can kill a worker or a node."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from thinktime.bench.tasks import Task
from thinktime.core.types import Child, Extension, Problem
from thinktime.testing import ANSWERS, WordGenerator, WordScorer

SECOND = "RAY_WORDS_SECOND_NODE"
"""An environment variable of the node that may be killed."""
WORKER, NODE = Path("worker"), Path("node")
"""If there is such a file, the first worker that draws a second sample of a problem removes it, and kills itself, or
the second node. The workers of the first node wait for it."""
DRAWN = Path("drawn")
BANK = Path("run/bank.db")


def entry_points(folder: Path) -> None:
    """Install the model and the scorer in a folder that is on the path."""
    about = folder / "ray_words-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ray-words\nVersion: 1\n")
    points = {"tasks": "sums", "generators": "noted", "scorers": "word_scores"}
    lines = [f"[thinktime.{group}]\n{name} = ray_words:{name}\n" for group, name in points.items()]
    (about / "entry_points.txt").write_text("".join(lines))


def sums(text: str) -> Task:
    """Eight sums."""
    return Task("sums", tuple(Problem(f"sum-{n}", f"what is {n} + 4", str(n + 4)) for n in range(8)), ANSWERS)


def noted(text: str) -> WordGenerator:
    """A model."""
    return NotedWords()


def word_scores(text: str) -> WordScorer:
    """Random scores."""
    return WordScorer()


def drawn() -> list[str]:
    """The keys of the samples so far, in all processes."""
    return DRAWN.read_text().split() if DRAWN.exists() else []


def banked() -> int:
    """The samples in the bank of the run."""
    with closing(sqlite3.connect(f"file:{BANK}?mode=ro", uri=True)) as bank:
        return int(bank.execute("SELECT count(*) FROM samples").fetchone()[0])


class NotedWords(WordGenerator):
    """Notes the key of each sample."""

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """The words."""
        if any(extension.index > 0 for extension in extensions):
            if WORKER.exists():
                await self._kill(WORKER, os.getpid())
            if NODE.exists() and SECOND in os.environ:
                await self._kill(NODE, os.getppid())
            while NODE.exists():
                await asyncio.sleep(0.05)
        with DRAWN.open("a") as file:
            file.write("".join(f"{extension.key}\n" for extension in extensions))
        return await super().extend(extensions)

    async def _kill(self, file: Path, process: int) -> None:
        """Kill a process, if this worker is the first one here, and what was drawn before is in the bank."""
        with suppress(FileNotFoundError):
            file.unlink()
            while banked() < len(drawn()):
                await asyncio.sleep(0.05)
            os.kill(process, signal.SIGKILL)
            await asyncio.sleep(600)
