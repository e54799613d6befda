"""Checks for authors of packages: of strategies, scorers, generators and environments; and a generator over words.

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
    is_well_formed,
    keeps_every_sample,
    keeps_within_budget,
    leaves_pruned_alone,
    names_its_needs,
    resumes,
)
from thinktime.testing.parts import check_environment, check_generator, check_scorer
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
    "check_environment",
    "check_generator",
    "check_scorer",
    "check_strategy",
    "drawn",
    "drawn_score",
    "is_deterministic",
    "is_well_formed",
    "keeps_every_sample",
    "keeps_within_budget",
    "last_number",
    "leaves_pruned_alone",
    "names_its_needs",
    "rambling",
    "random_budget",
    "resumes",
]
