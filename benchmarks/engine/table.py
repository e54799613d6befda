"""Prints a result as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Section = Mapping[str, Any]


def lines(name: str, section: Section) -> list[str]:
    """The lines of one section."""
    return [f"  {line}" for line in SECTIONS[name](section)]


def spread(values: Mapping[str, float], form: str = ".2f") -> str:
    """Median, with minimum and maximum."""
    return f"{values['median']:{form}} [{values['min']:{form}}, {values['max']:{form}}]"


def _sampling(section: Section) -> Iterator[str]:
    for rows, run in section["by_rows"].items():
        rates = run["tokens_per_second"]
        figures = ", ".join(f"{name} {rate['median']:.0f}" for name, rate in rates.items())
        ratios = ", ".join(f"{name} {spread(value)}" for name, value in run["ratio"].items())
        yield f"{rows:>4} rows: tokens/s {figures}; ours over {ratios}"
    for name, trial in section["rows_at_once"].items():
        yield f"{name}: {trial['chosen']} rows at once, the fastest that was tried"


def _tree(section: Section) -> Iterator[str]:
    yield (
        f"{section['problems']} problems, width {section['width']}, depth {section['depth']}: "
        f"generate with re-prefill over ours {spread(section['time_ratio'])} in time, "
        f"{spread(section['time_ratio_per_token'])} per token"
    )
    for name, value in section["reading"].items():
        yield f"{name.replace('_', ' ')}: {spread(value, '.3f')}"


def _prefill(section: Section) -> Iterator[str]:
    for budget, run in section["by_budget"].items():
        yield (
            f"{budget:>5}: worst gap {spread(run['worst_gap_ms'], '.0f')} ms, p99 {spread(run['p99_gap_ms'], '.0f')}, "
            f"whole over this {spread(run['worst_gap_whole_over_this'])}; "
            f"throughput over whole {spread(run['throughput_this_over_whole'])}"
        )
    yield f"outputs identical in float64: {section['outputs_identical_in_float64']}"


def _early_stop(section: Section) -> Iterator[str]:
    for name in ("batch", "queue"):
        run = section[name]
        yield (
            f"{name}, {run['rows']} rows through {section['places']} places: time saved {spread(run['time_saving'])} "
            f"of ideally {run['ideal_saving']:.2f}, that is {spread(run['saved_of_ideal'])}"
        )


def _iterations(section: Section) -> Iterator[str]:
    for rows, run in section["by_rows"].items():
        shares = ", ".join(f"{name} {100 * value['median']:.0f}%" for name, value in run["share"].items())
        yield f"{rows:>4} rows: {spread(run['milliseconds'])} ms; {shares}"


def _tree_growth(section: Section) -> Iterator[str]:
    yield ", ".join(f"{int(size):,} nodes {spent:.2f} s" for size, spent in section["seconds"].items())
    yield f"log-log slope {section['log_log_slope']:.3f}"


def _memory(section: Section) -> Iterator[str]:
    for cap, run in section.get("by_kv_bytes", {}).items():
        yield (
            f"cap {int(cap) / 2**20:5.0f} MiB: process grew by {run['grown'] / 2**20:.0f} MiB, rows held "
            f"{run['kv_held_peak'] / 2**20:.0f} MiB, {run['preemptions']} preemptions"
        )


SECTIONS: dict[str, Callable[[Section], Iterator[str]]] = {
    "sampling": _sampling,
    "tree": _tree,
    "prefill": _prefill,
    "early_stop": _early_stop,
    "iterations": _iterations,
    "tree_growth": _tree_growth,
    "memory": _memory,
}
