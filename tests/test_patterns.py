"""Patterns in traces whose labels are known, and the filter of hard problems."""

from __future__ import annotations

from random import Random

import pytest

from experiments.o1_patterns.patterns import PATTERNS, counted, hard, tagged
from thinktime.core.errors import InputError, UnknownNameError

SAYS = {
    "SA": (
        "Let me first understand the problem as a whole.",
        "We are given a list of prices and asked for a total.",
        "The input is a grid, and the output is one number.",
        "So what do we know at the start?",
        "We want to determine how many boats are left.",
    ),
    "MR": (
        "This is a classic knapsack problem.",
        "Dynamic programming over the amounts will do.",
        "By the binomial theorem the middle term is 20.",
        "Recall that the sum of the first n odd numbers is n squared.",
        "The same trick works as for coins.",
    ),
    "DC": (
        "I split the journey into three legs.",
        "The subproblems are independent of each other.",
        "For the first half the speed is 20.",
        "Now combine the two counts.",
        "Case 1: the number is even.",
    ),
    "SR": (
        "Wait, 7 times 8 is not 54.",
        "Hmm, I forgot the second box.",
        "On second thought the sign has to change.",
        "Let me recheck the subtraction.",
        "That is wrong, so back to line two.",
    ),
    "CI": (
        "According to the second paragraph he left in May.",
        "The relevant sentence is the one about the harbour.",
        "The article states that she was born in Bergen.",
        "Only what matters here is the date of the treaty.",
        "The colour of the car can be ignored.",
    ),
    "EC": (
        "The sentence must not contain the letter e.",
        "I still have to use exactly five words.",
        "Keep in mind that a list is wanted.",
        "The word blue is forbidden.",
        "I write it in the requested format.",
    ),
}
"""Sentences in which a reader sees the pattern."""
MORE = {
    "SA": "What sort of thing would an answer be?",
    "MR": "One does this with Euclid.",
    "DC": "Weekdays on their own, then weekends on their own, then both added.",
    "SR": "No: nine, because the zero counts too.",
    "CI": "Of all these tables I need the third.",
    "EC": "Five words, and I have four.",
}
"""One more sentence for each pattern; no cue matches it."""
PLAIN = (
    "3 + 4 is 7.",
    "Ann has 12 books left.",
    "So the train needs 40 minutes.",
    "That gives 6 boxes of 8 pens.",
    "Half of 18 is 9.",
    "The answer is 15.",
)


def traces(n: int) -> list[tuple[str, frozenset[str]]]:
    """Plain steps with sentences of zero to three patterns; no cue matches one in six of these sentences."""
    rng = Random(0)
    found = []
    for _ in range(n):
        labels = rng.sample(sorted(SAYS), rng.randint(0, 3))
        shown = [rng.choice((*SAYS[code], MORE[code])) for code in labels]
        sentences = [*shown, *rng.sample(PLAIN, 4)]
        rng.shuffle(sentences)
        found.append((" ".join(sentences), frozenset(labels)))
    return found


def test_cues_find_the_patterns_of_sixty_labelled_traces() -> None:
    pairs = [(tagged(text), labels) for text, labels in traces(60)]
    both = sum(len(tags & labels) for tags, labels in pairs)
    f1 = 2 * both / sum(len(tags) + len(labels) for tags, labels in pairs)
    assert f1 >= 0.8
    assert all(not tagged(sentence) for sentence in PLAIN)


@pytest.mark.parametrize("code", PATTERNS)
def test_every_pattern_is_found_and_counted_by_itself(code: str) -> None:
    assert [tagged(sentence) for sentence in SAYS[code]] == [frozenset({code})] * 5
    assert counted([*SAYS[code], *PLAIN]) == dict.fromkeys(PATTERNS, 0) | {code: 5}


def test_an_unknown_code_names_the_six() -> None:
    with pytest.raises(UnknownNameError, match=r"pattern='SX': unknown; .*there are: CI, DC, EC, MR, SA, SR"):
        counted([], ["SA", "SX"])


def test_a_problem_that_more_than_two_of_four_models_solve_is_not_hard() -> None:
    solved = {"a": [True, True, False], "b": [True, True, False], "c": [True, False, False], "d": [False] * 3}
    assert hard(solved) == [1, 2]


def test_a_filter_of_too_few_models_is_refused() -> None:
    with pytest.raises(InputError, match="models=2: give 3 or more: with fewer every problem counts as hard"):
        hard({"a": [True], "b": [True]})
