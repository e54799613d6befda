"""Inference-time compute: spend a budget on sampling, search and verification, and say exactly what it cost.

generator = LocalGenerator("models/qwen3")
search = Search(Problem("1", "How many …?"), generator, answers=TextAnswers(), budget=Budget(tokens=4000))
answer = await Majority(n=8)(search)
"""

from thinktime.core.errors import BankError, CapabilityError, InputError, ModelError, ThinktimeError, UnknownNameError
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Answers, Generator, Scorer
from thinktime.core.search import Search
from thinktime.core.selection import Candidate, best, majority, weighted_majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Sampling, Score
from thinktime.core.usage import Budget, Usage

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Answers",
    "BankError",
    "Budget",
    "Candidate",
    "Capability",
    "CapabilityError",
    "Child",
    "Extension",
    "Generator",
    "InputError",
    "Ledger",
    "ModelError",
    "Node",
    "Problem",
    "Sampling",
    "Score",
    "Scorer",
    "Search",
    "ThinktimeError",
    "UnknownNameError",
    "Usage",
    "best",
    "majority",
    "weighted_majority",
]
