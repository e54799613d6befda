"""Checks of the laws that every strategy keeps, and a generator over words to run them with.

``check_strategy(MyMethod(n=4))`` raises an `AssertionError` of one line for the first broken law. It needs no model and
no test framework. A sample is a function of its key, so a run takes milliseconds and can be repeated, run beside other
searches, limited by a budget, and killed. Each law is also a separate function with the same arguments.
"""

from thinktime.testing.doubles import (
    ANSWERS,
    DOLLARS,
    FLOPS,
    PROBLEM,
    SECONDS,
    WORD_PROMPTS,
    MemoryJournal,
    Piece,
    WordGenerator,
    WordJudge,
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
    "MemoryJournal",
    "Piece",
    "Trial",
    "WordGenerator",
    "WordJudge",
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
