"""The pocket task: unlimited problems, splits without a common structure, and an exact check of steps."""

from __future__ import annotations

import operator
import re
from collections import Counter
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from thinktime.pocket.problems import (
    COMPUTATIONS,
    DAYS,
    FAMILIES,
    ITEMS,
    LEVELS,
    MAKERS,
    MAX_VALUE,
    NAMES,
    OTHERS,
    TIMES,
    Split,
    Step,
    WordProblem,
    check_steps,
    draw,
    problems,
    read_answer,
)
from thinktime.pocket.tokenizer import SPECIAL, build

PAIRS: tuple[tuple[Split, Split], ...] = (("train", "dev"), ("train", "test"), ("dev", "test"))
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
SAME_KIND = {word: kind for kind in (NAMES, ITEMS, DAYS) for word in kind}

CHAIN = WordProblem(
    question="At first Ann has 10 figs. Ann buys 5 figs. Ann loses 3 figs. How many figs does Ann have now?",
    steps=(
        Step("Then Ann buys 5 figs, 10 + 5 = 15."),
        Step("Then Ann loses 3 figs, 15 - 3 = 12.", (0,)),
    ),
    answer=12,
    level=1,
    family="events",
    structure="",
)

drawn = st.builds(
    lambda seed, level, family: draw(Random(seed), level, "test", family),
    st.integers(0, 2**32),
    st.sampled_from(LEVELS),
    st.sampled_from(sorted(FAMILIES)),
)


@pytest.fixture(scope="module")
def many() -> dict[Split, list[WordProblem]]:
    return {
        "train": list(problems("train", 12000, seed=2)),
        "dev": list(problems("dev", 800, seed=2)),
        "test": list(problems("test", 800, seed=2)),
    }


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build()


def skeleton(question: str) -> str:
    """The question without names, items, days, makers and numbers, which may differ within one structure."""
    kinds = {word: str(index) for index, kind in enumerate((NAMES, ITEMS, DAYS, OTHERS, MAKERS)) for word in kind}
    kinds |= {item.capitalize(): kinds[item] for item in ITEMS}
    seen: dict[str, str] = {}

    def blank(match: re.Match[str]) -> str:
        word = match[0]
        if word[0].isdigit() or word in TIMES.values():
            return "#" if word[0].isdigit() else "# times"
        return seen.setdefault(word.lower(), f"<{kinds[word]}.{len(seen)}>") if word in kinds else word

    return re.sub("|".join([*TIMES.values(), "[A-Za-z]+", r"\d+"]), blank, question)


def mended(right: int, lines: int) -> list[bool]:
    """The verdicts of a solution in which only the first ``right`` lines are right."""
    return [True] * right + [False] * (lines - right)


def test_the_same_seed_gives_the_same_problems_and_fewer_are_the_first_of_more() -> None:
    assert list(problems("test", 30, seed=5)) == list(problems("test", 30, seed=5))
    assert list(problems("test", 10, seed=5)) == list(problems("test", 30, seed=5))[:10]


def test_another_seed_gives_other_problems() -> None:
    first, second = ({p.question for p in problems("test", 100, seed=seed)} for seed in (5, 6))
    assert len(first & second) < 5


def test_levels_are_taken_in_turn() -> None:
    assert [p.level for p in problems("dev", 7)] == [1, 2, 3, 4, 5, 1, 2]
    assert [p.level for p in problems("dev", 3, levels=[4, 2])] == [4, 2, 4]


def test_no_structure_is_in_two_splits(many: dict[Split, list[WordProblem]]) -> None:
    structures = {split: {p.structure for p in found} for split, found in many.items()}
    assert all(len(found) > 500 for found in structures.values())
    for a, b in PAIRS:
        assert not structures[a] & structures[b]


def test_no_two_splits_have_questions_that_differ_only_in_names_items_and_numbers(
    many: dict[Split, list[WordProblem]],
) -> None:
    skeletons = {split: {skeleton(p.question) for p in found} for split, found in many.items()}
    for a, b in PAIRS:
        shared = skeletons[a] & skeletons[b]
        assert not shared, f"{len(shared)} of {len(skeletons[b])} are in {a} and {b}, such as: {min(shared)}"


def test_the_skeleton_of_a_question_keeps_which_names_are_equal() -> None:
    a = f"Ann has 3 figs. Compared to Ann, Ben has {TIMES[2]} as many figs. How many figs does Ben have?"
    b = f"Leo has 14 hats. Compared to Leo, Kim has {TIMES[4]} as many hats. How many hats does Kim have?"
    c = f"Leo has 14 hats. Compared to Leo, Kim has {TIMES[4]} as many hats. How many hats does Leo have?"
    assert skeleton(a) == skeleton(b) != skeleton(c)


def test_no_id_and_no_question_is_in_two_splits(many: dict[Split, list[WordProblem]]) -> None:
    ids = [p.id for found in many.values() for p in found]
    assert len(ids) == len(set(ids))
    questions = {split: {p.question for p in found} for split, found in many.items()}
    for a, b in PAIRS:
        assert not questions[a] & questions[b]


def test_every_reference_solution_passes_its_own_check(many: dict[Split, list[WordProblem]]) -> None:
    for problem in many["train"]:
        assert check_steps(problem, problem.solution) == [True] * (len(problem.steps) + 1), problem.solution
        assert read_answer(problem.solution) == str(problem.answer)


def test_a_step_that_the_reference_takes_twice_is_right_twice() -> None:
    steps = (
        Step("Then Ann buys 5 figs, 10 + 5 = 15."),
        Step("Then Ann loses 5 figs, 15 - 5 = 10.", (0,)),
        Step("Then Ann buys 5 figs, 10 + 5 = 15.", (1,)),
    )
    problem = WordProblem("", steps, 15, 2, "events", "")
    assert check_steps(problem, problem.solution) == [True, True, True, True]


def test_every_level_of_every_family_takes_its_number_of_computations(many: dict[Split, list[WordProblem]]) -> None:
    assert {(p.level, p.family) for p in many["train"]} == {(level, family) for level in LEVELS for family in FAMILIES}
    for problem in many["train"]:
        assert sum(" = " in step.text for step in problem.steps) == COMPUTATIONS[problem.level]


def test_a_step_for_an_irrelevant_sentence_keeps_the_count() -> None:
    events = next(p for p in problems("train", 3000, seed=1) if p.family == "events" and "still" in p.solution)
    assert len(events.steps) == events.question.count(".") - 1
    before = re.findall(r"= (\d+)\.|still (\d+)\.", events.solution)
    counts = [int(a or b) for a, b in before]
    for step, now, then in zip(events.steps[1:], counts[1:], counts, strict=False):
        assert (now == then) == ("still" in step.text), events.solution


def test_every_number_of_question_and_solution_is_in_1_to_199(many: dict[Split, list[WordProblem]]) -> None:
    for problem in many["test"]:
        said = problem.question + problem.solution.replace("still 0.", "")  # nothing bought yet
        numbers = [int(number) for number in re.findall(r"\d+", said)]
        assert min(numbers) >= 1, problem
        assert max(numbers) <= MAX_VALUE == 199, problem


def test_every_equation_of_a_reference_solution_holds_and_the_last_one_gives_the_answer(
    many: dict[Split, list[WordProblem]],
) -> None:
    for problem in many["test"]:
        results = []
        for step in problem.steps:
            if ", still " in step.text:
                continue
            a, sign, b, result = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", step.text)[0]
            assert OPERATIONS[sign](int(a), int(b)) == int(result), step
            results.append(int(result))
        assert results[-1] == problem.answer


@given(drawn, st.data())
def test_one_changed_digit_makes_its_line_and_all_later_lines_wrong(problem: WordProblem, data: st.DataObject) -> None:
    lines = problem.solution.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    index = data.draw(st.sampled_from([m.start() for m in re.finditer(r"\d", lines[at])]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != lines[at][index]]))
    lines[at] = lines[at][:index] + digit + lines[at][index + 1 :]
    assert check_steps(problem, "\n".join(lines)) == mended(at, len(lines))


@given(drawn, st.data())
def test_one_changed_name_makes_its_line_and_all_later_lines_wrong(problem: WordProblem, data: st.DataObject) -> None:
    lines = problem.solution.splitlines()
    named = [
        (at, match) for at, line in enumerate(lines) for match in re.finditer(r"\w+", line) if match[0] in SAME_KIND
    ]
    at, match = data.draw(st.sampled_from(named))
    other = data.draw(st.sampled_from([word for word in SAME_KIND[match[0]] if word != match[0]]))
    lines[at] = lines[at][: match.start()] + other + lines[at][match.end() :]
    assert check_steps(problem, "\n".join(lines)) == mended(at, len(lines))


@given(drawn, st.randoms(use_true_random=False))
def test_independent_steps_may_come_in_any_order(problem: WordProblem, random: Random) -> None:
    order: list[int] = []
    while len(order) < len(problem.steps):
        ready = [i for i, s in enumerate(problem.steps) if i not in order and all(need in order for need in s.needs)]
        order.append(random.choice(ready))
    solution = "\n".join([*(problem.steps[i].text for i in order), f"Answer: {problem.answer}"])
    assert check_steps(problem, solution) == [True] * (len(order) + 1)


def test_some_problems_have_independent_steps() -> None:
    days = next(p for p in (draw(Random(i), 3, "test", "ledger") for i in range(99)) if p.steps[2].needs == ())
    tuesday, total, wednesday, *rest = (step.text for step in days.steps)
    assert check_steps(days, "\n".join([wednesday, tuesday, total, *rest])) == [True] * len(days.steps)


def test_a_step_before_the_one_it_builds_on_is_wrong_and_so_are_all_later_lines() -> None:
    first, second = (step.text for step in CHAIN.steps)
    assert check_steps(CHAIN, f"{second}\n{first}\nAnswer: 12") == [False, False, False]


def test_a_step_written_twice_is_wrong_the_second_time() -> None:
    first, second = (step.text for step in CHAIN.steps)
    assert check_steps(CHAIN, f"{first}\n{first}\n{second}\nAnswer: 12") == [True, False, False, False]


def test_the_right_answer_without_all_steps_is_wrong() -> None:
    assert check_steps(CHAIN, f"{CHAIN.steps[0].text}\nAnswer: 12") == [True, False]
    assert check_steps(CHAIN, "Answer: 12") == [False]


def test_the_answer_is_read_from_the_last_line_only() -> None:
    assert read_answer("Ann has 3 + 4 = 7.\nAnswer: 7\n") == "7"
    assert read_answer("Answer: 7\nAnn has 3 + 4 = 7.") is None
    assert read_answer("Answer: 7 figs") is None
    assert read_answer("") is None


@pytest.mark.parametrize("level", LEVELS)
def test_guessing_the_most_common_answer_of_a_level_is_nearly_always_wrong(
    level: int, many: dict[Split, list[WordProblem]]
) -> None:
    answers = Counter(problem.answer for problem in many["train"] if problem.level == level)
    assert answers.total() > 2000
    assert answers.most_common(1)[0][1] / answers.total() < 0.05
    assert len(answers) > 100


@pytest.mark.parametrize("levels", [[0], [1, 6], []])
def test_levels_that_do_not_exist_are_refused_by_name(levels: list[int]) -> None:
    with pytest.raises(ValueError, match="levels"):
        list(problems("test", 5, levels=levels))


def test_a_negative_number_of_problems_is_refused_and_none_is_fine() -> None:
    with pytest.raises(ValueError, match="n=-1"):
        list(problems("test", -1))
    assert list(problems("test", 0)) == []


def test_every_word_of_the_task_is_one_token(many: dict[Split, list[WordProblem]], tokenizer: Tokenizer) -> None:
    for problem in islice(many["train"], 0, None, 4):
        text = problem.question + "\n" + problem.solution
        tokens = [tokenizer.decode([i]).strip(" ") for i in tokenizer.encode(text).ids]
        assert [t for t in tokens if t.isalpha()] == re.findall(r"[A-Za-z]+", text)
        assert [t for t in tokens if not t.isalpha()] == re.findall(r"[^A-Za-z ]", text)


@given(text=st.text() | st.lists(st.sampled_from([*SPECIAL, " ", "Ann", "\n", "12", "é"])).map("".join))
def test_decoding_returns_the_encoded_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
