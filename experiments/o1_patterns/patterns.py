"""Finds reasoning patterns in traces, and hard problems (Wu et al. 2024, arXiv 2410.13639).

The paper labels six patterns by hand. This module finds them by cues, which are English phrases that accompany a
pattern. Traces in a fixed format show none, so the module only suits models that think in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from thinktime.core.errors import InputError, UnknownNameError

PATTERNS = {
    "SA": "systematic analysis: studies inputs, outputs and constraints before it chooses an approach",
    "MR": "method reuse: maps the problem to a known method",
    "DC": "divide and conquer: splits the problem, and combines the parts",
    "SR": "self-refinement: questions one of its steps, and corrects it",
    "CI": "context identification: names the parts of the input that matter",
    "EC": "emphasising constraints: repeats the requirements on the output",
}

CUES = {
    "SA": (
        r"(?:understand|look at|analy[sz]e) (?:the|this) (?:problem|question|task|structure)",
        r"what (?:is|are|we are|do we) (?:given|asked|know|need)",
        r"we are (?:given|asked)|we (?:need|have|want) to (?:find|determine|compute)",
        r"the (?:inputs?|outputs?) (?:is|are|consists?)|overall structure|before (?:choosing|deciding|i start)",
    ),
    "MR": (
        r"(?:classic|standard|well[- ]known|familiar|textbook) (?:\w+ )?(?:problem|method|result|technique|algorithm)",
        r"dynamic programming|binary search|breadth-first|two pointers|greedy (?:approach|algorithm)",
        r"recall (?:that|the)|by the \w+ (?:theorem|formula|lemma|identity)|(?:use|apply) the \w+ (?:formula|theorem)",
        r"(?:same|similar) (?:idea|method|trick|problem)",
    ),
    "DC": (
        r"(?:split|divide|break)(?: \w+){0,3} (?:into|down|up)|sub-?(?:problem|task|goal)s?",
        r"(?:combine|put together|merge) (?:the|these|both|all)|(?:each|every) part|handle (?:\w+ )+separately",
        r"(?:first|second|third|last) (?:part|half|case)|case (?:\d|one|two|a\b)",
    ),
    "SR": (
        r"\bwait\b|\bhmm+\b|on second thought|let me (?:re-?\w+|double)|\boops\b",
        r"(?:that|this) (?:is|was|seems|looks) (?:wrong|not right|off|incorrect)|(?:isn't|can't be) right",
        r"i (?:made|see) (?:a|my|the) (?:mistake|error|slip)|i (?:forgot|miscounted|misread)|should have been|go back",
    ),
    "CI": (
        r"according to (?:the|this)|the (?:\w+ )?(?:passage|context|document|paragraph|article|text) (?:\w+ )?"
        r"(?:says|mentions|states|tells|gives)",
        r"(?:relevant|important|key) (?:part|sentence|passage|fact|information|detail)s?",
        r"(?:only|what) matters? (?:here )?(?:is|are)|(?:does not|doesn't|do not|don't) matter|can be ignored",
    ),
    "EC": (
        r"must (?:not )?(?:contain|include|use|have|be|end|begin|start)|(?:is|are) (?:not allowed|forbidden)",
        r"(?:exactly|at most|at least|no more than|fewer than) \w+ (?:words?|lines?|sentences?|letters?|characters?)",
        r"(?:keep|bear) in mind|constraints?",
        r"the (?:required|requested) (?:format|form|length)|as (?:required|requested)",
    ),
}
"""Regular expressions, which ignore case."""

_FOUND = {code: re.compile("|".join(cues), re.IGNORECASE) for code, cues in CUES.items()}


def tagged(trace: str) -> frozenset[str]:
    """The codes of the patterns that a trace shows."""
    return frozenset(code for code, cues in _FOUND.items() if cues.search(trace))


def counted(traces: Iterable[str], codes: Sequence[str] = tuple(PATTERNS)) -> dict[str, int]:
    """The number of traces that show each pattern.

    Raises:
        UnknownNameError: a code is unknown.
    """
    for code in codes:
        if code not in PATTERNS:
            raise UnknownNameError("pattern", code, PATTERNS)
    found = [tagged(trace) for trace in traces]
    return {code: sum(code in tags for tags in found) for code in codes}


def hard(solved: Mapping[str, Sequence[bool]], most: int = 2) -> list[int]:
    """Indexes of the hard problems, which at most ``most`` models solve in one attempt.

    Args:
        solved: by model, whether it solved each problem.
        most: most models that solve a hard problem.

    Raises:
        InputError: there are at most ``most`` models, so every problem would be hard.
    """
    if len(solved) <= most:
        raise InputError("models", len(solved), f"give {most + 1} or more: with fewer every problem counts as hard")
    return [place for place, column in enumerate(zip(*solved.values(), strict=True)) if sum(column) <= most]
