"""Signals of difficulty that need no reference: what the samples of a problem say about it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from thinktime.core.search import Search
from thinktime.core.types import Capability, Node

SIGNALS = ("agreement", "confidence")


def signals(search: Search, samples: Sequence[Node]) -> dict[str, float]:
    """The signals of some whole samples of a problem, each from 0 (hard) to 1 (easy).

    Args:
        search: reads and compares the answers.
        samples: children of its root; those that were cut or failed count as samples without an answer.

    Returns:
        ``agreement``, the share of the samples that give the most frequent answer, and ``confidence``, the mean over
        the samples of the geometric mean of the probabilities of the tokens. A signal that answers or model do not
        give is left out. Without samples there is none.
    """
    found = {}
    if samples and search.answers is not None:
        votes = Counter(each.key for each in search.candidates(samples) if each.answer is not None)
        found["agreement"] = max(votes.values(), default=0) / len(samples)
    if Capability.LOGPROBS in search.capabilities:
        logprobs = [sample.state.logprob / sample.length for sample in samples if sample.length]
        if logprobs and not any(map(math.isnan, logprobs)):
            found["confidence"] = round(fmean(map(math.exp, logprobs)), 9)
    return found
