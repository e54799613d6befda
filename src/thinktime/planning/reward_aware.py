"""The best procedure by policy, reward model, difficulty and budget (Liu et al. 2025, arXiv 2502.06703).

In a search the reward model decides what is generated, so a table that is measured with one reward model says nothing
about another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from thinktime.bench.statistics import SHARES, Estimate, mean_interval
from thinktime.core.errors import InputError
from thinktime.planning.difficulty import LEVELS
from thinktime.strategies import parse

SCHEMA = 1
SCORES: Mapping[str, Callable[[Sequence[float]], float]] = {"min": min, "last": lambda steps: steps[-1], "avg": fmean}
"""How the rewards of the steps make the score of a whole solution."""
RULES = ("majority", *(f"{score} {vote}" for score in SCORES for vote in ("max", "vote")))
"""The plurality of answers; the answer of the best score; the answer with the largest sum of scores."""


@dataclass(frozen=True, order=True)
class Cell:
    """A policy and a reward model by their names, a level of difficulty, and a number of generations."""

    policy: str
    reward: str
    level: str
    budget: int


@dataclass(frozen=True)
class CellChoice:
    """What to run in a cell, and what is known about it; ``accuracy`` is None if nothing is measured."""

    strategy: str
    rule: str
    accuracy: Estimate | None = None
    tokens: float | None = None


@dataclass(frozen=True)
class RewardTable:
    """The best strategy of every measured cell."""

    cells: Mapping[Cell, CellChoice]

    def choose(self, policy: str, reward: str, level: str, budget: int) -> CellChoice:
        """The choice of a cell.

        Raises:
            InputError: the cell is not measured.
        """
        cell = Cell(policy, reward, level, budget)
        if cell in self.cells:
            return self.cells[cell]
        for name in ("policy", "reward", "level", "budget"):
            known = sorted({getattr(each, name) for each in self.cells})
            if getattr(cell, name) not in known:
                fix = f"no measured cell has it, only {', '.join(map(str, known))}; measure it, or take the prior"
                raise InputError(name, getattr(cell, name), fix)
        raise InputError("cell", " / ".join(map(str, asdict(cell).values())), "it is not measured; take the prior")

    def text(self) -> str:
        """The table as a file that `read` reads."""
        rows = [asdict(cell) | asdict(choice) for cell, choice in sorted(self.cells.items())]
        return json.dumps({"schema": SCHEMA, "kind": "reward-aware", "cells": rows}, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> RewardTable:
        """Read a file that `text` made.

        Raises:
            InputError: it cannot be read, or it is no such table.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.get("schema") != SCHEMA or found.get("kind") != "reward-aware":
                raise ValueError(f"it has no kind 'reward-aware' of schema {SCHEMA}")
            return cls({_cell(row): _choice(row) for row in found["cells"]})
        except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError, InputError) as error:
            raise InputError("table", str(path), f"it is no reward-aware table ({error})") from None


def _cell(row: Mapping[str, Any]) -> Cell:
    if row["level"] not in LEVELS:
        raise ValueError(f"level {row['level']!r} is none of {', '.join(LEVELS)}")
    return Cell(str(row["policy"]), str(row["reward"]), row["level"], int(row["budget"]))


def _choice(row: Mapping[str, Any]) -> CellChoice:
    parse(row["strategy"])  # an unknown strategy or option fails here
    if row["rule"] not in RULES:
        raise ValueError(f"rule {row['rule']!r} is none of {', '.join(RULES)}")
    accuracy = None if row["accuracy"] is None else Estimate(**row["accuracy"])
    return CellChoice(row["strategy"], row["rule"], accuracy, row["tokens"])


def fit(right: Mapping[Cell, Mapping[tuple[str, str], Sequence[float]]], tokens: Mapping[str, float]) -> RewardTable:
    """The best strategy and rule of every cell, chosen on the first half of its problems, measured on the other one.

    Of equally good ones the cheaper counts.

    Args:
        right: by cell, and by strategy and rule, whether (or how often) each problem is solved.
        tokens: the mean of a problem, by strategy.

    Raises:
        InputError: a cell has fewer than 4 problems.
    """
    cells = {}
    for cell, arms in right.items():
        n = min(map(len, arms.values()))
        if n < 4:
            raise InputError("level", cell.level, f"{n} problems of {cell.policy} are {cell.level}; it takes 4 or more")
        seen, unseen = slice(0, n // 2), slice(n // 2, n)
        strategy, rule = min(arms, key=lambda arm: (-fmean(arms[arm][seen]), tokens[arm[0]]))
        accuracy = mean_interval(arms[strategy, rule][unseen], bounds=SHARES)
        cells[cell] = CellChoice(strategy, rule, accuracy, tokens[strategy])
    return RewardTable(cells)


def prior(parameters: float, level: str, budget: int, *, weak: bool = False, width: int = 4) -> CellChoice:
    """What the paper recommends where nothing is measured. It is never a measurement.

    Models below 7e9 parameters: best-of-n for easy problems, beam search for others. Up to 32e9: diverse trees, and
    beam search for hard problems. Larger ones: best-of-n. A weak reward model, or one that is trained on the samples of
    another policy: best-of-n with a vote.

    Args:
        parameters: of the policy.
        level: of the problem, one of `LEVELS`.
        budget: generations.
        weak: whether the reward model is weak or of another policy.
        width: children of a step in a search.

    Raises:
        InputError: the level is unknown, or the width does not divide the budget of a search.
    """
    if level not in LEVELS:
        raise InputError("level", level, f"give one of {', '.join(LEVELS)}")
    name = "beam_search" if parameters < 7e9 or level == "hard" else "dvts"
    if weak or parameters > 32e9 or (parameters < 7e9 and level == "easy"):
        return CellChoice(f"weighted_majority:n={budget}", "last vote")
    strategy = f"{name}:n={budget},width={width}"
    parse(strategy)  # a budget that the width does not divide fails here
    return CellChoice(strategy, "last vote")
