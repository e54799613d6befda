"""Finds strategies, models and other things that installed packages add. A package declares each as an entry point.

====================== ================================================================
group                  the entry point is
====================== ================================================================
thinktime.strategies   a strategy class
thinktime.generators   a function from the text of ``--model`` to a generator
thinktime.scorers      a function from the text of ``--scorer`` to a scorer
thinktime.environments a function from the text of an environment's name to an environment
thinktime.prompts      a `Prompt`
thinktime.tasks        a function from the name of a task to a task
thinktime.planners     a function from the name of a planner to a planner
====================== ================================================================

A text may continue after a colon, as in ``name:anything``. The function gets the whole text.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

GROUPS = ("strategies", "generators", "scorers", "environments", "prompts", "tasks", "planners")


def installed(group: str, name: str | None = None) -> dict[str, Any]:
    """The entry points of a group, or the one of this name.

    Args:
        group: one of `GROUPS`.
        name: which one; by default all are loaded.
    """
    points = _declared(f"thinktime.{group}", tuple(sys.path))
    return {point.name: point.load() for point in points if name in (None, point.name)}


@lru_cache
def _declared(group: str, path: tuple[str, ...]) -> tuple[Any, ...]:
    """The entry points of a group, of the packages on a path. The search takes tens of milliseconds."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))


def made(group: str, text: str) -> Any | None:
    """Call the function of an installed package with a text. The part of the text before a colon is its name."""
    name = text.partition(":")[0]
    factory = installed(group, name).get(name)
    return None if factory is None else factory(text)
