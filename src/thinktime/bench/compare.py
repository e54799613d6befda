"""Compares two results problem by problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinktime.bench.statistics import DIFFERENCES, SHARES, mean_interval, paired_difference
from thinktime.core.errors import InputError


def compare(
    a: Mapping[str, Any], b: Mapping[str, Any], of_a: str | None = None, of_b: str | None = None
) -> list[dict[str, Any]]:
    """The differences of the accuracies of two results, b minus a, over the problems that both answered.

    Args:
        a: a result of a bench.
        b: another one.
        of_a: the run of the first, as ``majority@8``; by default every run that both have, or the only runs.
        of_b: likewise; by default the same as ``of_a``.

    Raises:
        InputError: the results are of other tasks, splits or problems, or there is no such run.
    """
    for name in ("name", "split", "data", "package"):
        mine, theirs = (result["task"].get(name) for result in (a, b))
        if mine != theirs:
            raise InputError(f"task.{name}", f"{_short(mine)} and {_short(theirs)}", "compare results of the same task")
    first, second = _runs(a), _runs(b)
    if of_a is not None:
        pairs = [(of_a, of_b or of_a)]
    elif of_b is not None:
        pairs = [(of_b, of_b)]
    else:
        pairs = [(label, label) for label in first if label in second]
        if not pairs and len(first) == len(second) == 1:
            pairs = [(next(iter(first)), next(iter(second)))]
    if not pairs:
        fix = f"no run is in both; choose with --a and --b: {', '.join(first)}; {', '.join(second)}"
        raise InputError("runs", None, fix)
    return [_compared(mine, theirs, _chosen(first, mine, "a"), _chosen(second, theirs, "b")) for mine, theirs in pairs]


def _compared(mine: str, theirs: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    first, second = ({problem["id"]: problem for problem in run["problems"]} for run in (a, b))
    shared = [id_ for id_ in first if id_ in second]
    if not shared:
        raise InputError("problems", f"{mine} and {theirs}", "they have no problem in common")
    for id_ in shared:
        if first[id_]["reference"] != second[id_]["reference"]:
            raise InputError("problem", id_, "the results have other references; compare results of the same task")
    right_a, right_b = ([float(problems[id_]["correct"]) for id_ in shared] for problems in (first, second))
    return {
        "a": mine,
        "b": theirs,
        "n_problems": len(shared),
        "only_a": len(first) - len(shared),
        "only_b": len(second) - len(shared),
        "accuracy_a": mean_interval(right_a, bounds=SHARES).as_dict(),
        "accuracy_b": mean_interval(right_b, bounds=SHARES).as_dict(),
        "difference": paired_difference(right_b, right_a, bounds=DIFFERENCES).as_dict(),
        "better": sum(y > x for x, y in zip(right_a, right_b, strict=True)),
        "worse": sum(y < x for x, y in zip(right_a, right_b, strict=True)),
    }


def _runs(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {f"{run['strategy']}@{run['n']}": run for run in result["runs"]}


def _chosen(runs: Mapping[str, Mapping[str, Any]], label: str, name: str) -> Mapping[str, Any]:
    if label not in runs:
        raise InputError(name, label, f"there are: {', '.join(runs)}")
    return runs[label]


def _short(value: Any) -> str:
    """A value of a task in few words; data are named by their file."""
    return str(value.get("name")) if isinstance(value, Mapping) else str(value)
