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

A package that cannot be used is left out with one warning, so it never stops the others.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from thinktime.core.errors import InputError, ThinktimeError

GROUPS = ("strategies", "generators", "scorers", "environments", "prompts", "tasks", "planners")

_log = logging.getLogger("thinktime")


def installed(group: str, name: str | None = None, fault: Callable[[Any], str] = lambda found: "") -> dict[str, Any]:
    """The entry points of a group, or the one of this name.

    Args:
        group: one of `GROUPS`.
        name: which one; by default all are loaded, and a warning names each one that cannot be used.
        fault: says in a few words what is wrong with an entry; empty if it can be used.

    Raises:
        InputError: the one of this name cannot be used.
    """
    found: dict[str, Any] = {}
    path = tuple(sys.path)
    for point in _declared(f"thinktime.{group}", path):
        if name not in (None, point.name):
            continue
        loaded, wrong = _loaded(point, path)
        wrong = wrong or fault(loaded)
        package = "an unnamed package" if point.dist is None else f"the package {point.dist.name}"
        if not wrong:
            found[point.name] = loaded
        elif name is None:
            _warn(f"{point.group}: {point.name!r} of {package} is left out: {wrong}")
        else:
            raise InputError(point.group, point.name, f"it is of {package}, and cannot be used: {wrong}")
    return found


@lru_cache
def _declared(group: str, path: tuple[str, ...]) -> tuple[Any, ...]:
    """The entry points of a group, of the packages on a path. The search takes tens of milliseconds."""
    from importlib.metadata import entry_points

    return tuple(entry_points(group=group))


@lru_cache
def _loaded(point: Any, path: tuple[str, ...]) -> tuple[Any, str]:
    """What an entry point is, and why it does not load; a module that failed is not tried again on the same path."""
    try:
        return point.load(), ""
    except (Exception, SystemExit) as error:  # the code of a package may fail in any way
        return None, _one_line(error)


@lru_cache
def _warn(text: str) -> None:
    """Warn once."""
    _log.warning(text)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def made(group: str, text: str) -> Any | None:
    """Call the function of an installed package with a text. The part of the text before a colon is its name.

    Returns None if no package has this name.

    Raises:
        InputError: the entry point cannot be loaded or called, or its function fails.
        ThinktimeError: as the function raises.
    """
    name = text.partition(":")[0]
    factory = installed(group, name, lambda found: "" if callable(found) else "it is no function").get(name)
    if factory is None:
        return None
    try:
        return factory(text)
    except ThinktimeError:
        raise
    except Exception as error:
        raise InputError(f"thinktime.{group}", text, f"its function fails: {_one_line(error)}") from error
