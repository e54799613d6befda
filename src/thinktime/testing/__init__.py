"""The laws every strategy keeps, as checks to put any strategy to, and a generator over words to do it with.

``check_strategy(MyMethod(n=4))`` raises an `AssertionError` of one line for the first law that is broken. No model and
no test framework is needed: what is sampled is a function of the sample's key, so a run takes milliseconds and can be
repeated, crowded, cut short and killed. Each law is also a function of its own, with the same arguments.
"""

from thinktime.testing.doubles import (
    ANSWERS,
    DOLLARS,
    FLOPS,
    PROBLEM,
    SECONDS,
    WORD_PROMPTS,
    Notebook,
    Piece,
    WordGenerator,
    WordScorer,
    drawn,
    drawn_score,
    last_number,
    rambling,
)
from thinktime.testing.laws import (
    LAWS,
    answers_anytime,
    check_strategy,
    is_deterministic,
    keeps_every_sample,
    keeps_within_budget,
    leaves_pruned_alone,
    resumes,
)
from thinktime.testing.trial import Trial, random_budget

__all__ = [
    "ANSWERS",
    "DOLLARS",
    "FLOPS",
    "LAWS",
    "PROBLEM",
    "SECONDS",
    "WORD_PROMPTS",
    "Notebook",
    "Piece",
    "Trial",
    "WordGenerator",
    "WordScorer",
    "answers_anytime",
    "check_strategy",
    "drawn",
    "drawn_score",
    "is_deterministic",
    "keeps_every_sample",
    "keeps_within_budget",
    "last_number",
    "leaves_pruned_alone",
    "rambling",
    "random_budget",
    "resumes",
]
