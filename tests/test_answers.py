"""Equivalence of answers, the same for votes and checkers: answers are equal if their values are equal."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from thinktime.answers import READERS, TextAnswers, Undecided, canonical, equivalent, extract
from thinktime.answers.arithmetic import TooMuchError, UndefinedError
from thinktime.answers.kinds import key_of
from thinktime.answers.notation import plain
from thinktime.answers.reading import _last_statement

CORPUS = Path(__file__).with_name("corpus")
unhurried = settings(deadline=None)


def cases(name: str) -> list[dict[str, Any]]:
    """The lines of a file of the corpus."""
    return [json.loads(line) for line in (CORPUS / name).read_text().splitlines()]


# The corpus


@pytest.mark.parametrize("case", cases("equivalence.jsonl"), ids=lambda case: f"{case['a']} {case['b']}")
def test_two_answers_are_the_same_or_not(case: dict[str, Any]) -> None:
    assert equivalent(case["a"], case["b"]) is equivalent(case["b"], case["a"]) is case["same"]


@pytest.mark.parametrize("case", cases("reading.jsonl"), ids=lambda case: case["text"])
def test_the_answer_that_a_text_states(case: dict[str, Any]) -> None:
    found = extract(case["text"])
    assert found is None if case["answer"] is None else equivalent(found, case["answer"])


# The same value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7", "7.0"),
        ("7", "007"),
        ("7", "+7"),
        ("7", " 7. "),
        ("-3", "\u22123"),
        ("-3", "- 3"),
        ("0", "-0"),
        (".5", "0.50"),
        ("1234567", "1,234,567"),
        ("1,234.50", "1234.5"),
        ("1/2", "0.5"),
        ("2/6", "1/3"),
        ("-1/2", "1/-2"),
        ("0.5", r"\frac12"),
        ("1/2", r"\frac{1}{2}"),
        ("1/2", r"\dfrac{10}{20}"),
        ("-3/2", r"-\frac{3}{2}"),
        ("-1.5", r"\frac{-3}{2}"),
        ("$18", "18"),
        ("$18.00", "18"),
        (r"\$18", "18"),
        ("50%", "50"),
        (r"50\%", "50"),
        ("$7$", "7"),
        ("x+1", "1+x"),
        (r"\infty", r"$\infty$"),
        (r"\sqrt{2}", r"$\sqrt{2}$"),
        ("Yes", "yes "),
        ("blue whale", "blue  whale"),
        (r"\text{blue}", "blue"),
    ],
)
def test_equivalent_answers(one: str, other: str) -> None:
    assert equivalent(one, other)
    assert equivalent(other, one)
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7", "8"),
        ("7", "-7"),
        ("1/3", "0.333"),
        ("1/2", "2"),
        ("0.1", "0.10000001"),
        ("1,234", "1.234"),
        ("9007199254740993", "9007199254740992"),
        ("12", "1,2"),
        ("x+1", "x-1"),
        ("yes", "no"),
        ("7", "seven dwarfs"),
        ("(1,2)", "(2,1)"),
        ("3", r"\sqrt{3}"),
    ],
)
def test_different_answers(one: str, other: str) -> None:
    assert not equivalent(one, other)
    assert not equivalent(other, one)


@pytest.mark.parametrize(
    "text",
    ["18 dollars", "18 apples", "18 eggs", "18 cm", "18 years old", "$18 per day", r"18\text{ miles}", "18 percent"],
)
def test_words_after_a_number_do_not_count(text: str) -> None:
    assert equivalent(text, "18")


@pytest.mark.parametrize("text", [r"\$18.00", r"$\$18.00$", "**18**", "18.", r"\left(18\right)"])
def test_a_number_in_markup_is_the_number(text: str) -> None:
    assert equivalent(text, "18")


def test_a_mixed_number_is_the_sum_of_its_parts() -> None:
    assert equivalent("3 1/2", "3.5")
    assert not equivalent("3 1/2", "2")


@pytest.mark.parametrize(("expression", "value"), [("10^2", "100"), (r"\sqrt{4}", "2"), (r"2\cdot 3", "6")])
def test_a_worked_out_expression_is_its_value(expression: str, value: str) -> None:
    assert equivalent(expression, value)


# No answer


@pytest.mark.parametrize(
    "answer",
    ["3000000!", r"\binom{1000000}{500000}", r"\sum_{k=1}^{100000} \frac{1}{k}", "2^{2^{2^{2^{2^2}}}}", "9" * 5000],
)
def test_an_answer_that_takes_too_long_is_undecided_and_equals_the_same_text_alone(answer: str) -> None:
    assert isinstance(canonical(answer), Undecided)
    assert equivalent(answer, answer) and not equivalent(answer, f"{answer}!") and not equivalent(answer, answer[:-1])


@pytest.mark.parametrize("other", ["0", r"(\frac12)^{100000}", "(1/2)^{99999}"])
def test_tiny_values_are_not_equal_to_zero_or_to_each_other(other: str) -> None:
    assert not equivalent(r"(\frac56)^{100000}", other)
    assert equivalent(r"\sin(\pi)", "0") and equivalent("2^{-100}", "(1/2)^{100}")


@pytest.mark.parametrize("answer", ["five apples!", "x+1", "100!", "f(x)(y)", r"\frac12"])
def test_other_answers_are_decided(answer: str) -> None:
    assert not isinstance(canonical(answer), Undecided)


@pytest.mark.parametrize("other", [None, "", "7", "None"])
def test_a_missing_answer_equals_no_answer_and_no_missing_one(other: str | None) -> None:
    assert not equivalent(None, other)
    assert not equivalent(other, None)


@pytest.mark.parametrize(("one", "other"), [("", ""), (" ", ""), ("1/0", "2/0")])
def test_two_answers_without_a_value_are_not_equal(one: str, other: str) -> None:
    assert not equivalent(one, other)


@pytest.mark.parametrize(
    "text", ["x" * 300, "9^" * 150, "9^{9^{9^9}}", "{" * 50, "\\frac", "\\frac{}{}", "((((", "1/0", "\x00", "=", "\\"]
)
def test_any_text_has_a_key(text: str) -> None:
    assert isinstance(hash(canonical(text)), int)
    assert equivalent(text, "7") is False


LONG = 200_000


@pytest.mark.parametrize(
    "answer",
    [
        *("3000000!", "99999999!", r"\log(99999999!)", r"\Gamma(10^{10})", "9^{9^9}", "x^{x^{x^{x}}}", "1e999999"),
        *(
            r"\sum_{k=1}^{100000} \frac{1}{k}",
            r"\prod_{k=1}^{10^9} k",
            r"\sum_{i=1}^{99}\sum_{j=1}^{99}\sum_{k=1}^{99} ijk",
            r"\binom{1000000}{500000}",
            "10^{999999999}",
        ),
        *(
            r"\dfrac{7^{(7^{(7^7)})}-7}{4}",
            "1/(" * 40 + "1" + ")" * 40,
            "9" * 5000,
            "(" * 1000,
            "1," * 900,
            "x=y=" * 300,
        ),
        *("a" + " " * LONG + "b", "0.\\overline{" + "1" * 300 + "}", "\\text{" * 300, "**" * 900, "1:" * 500 + "1"),
        *("(" * 8 + "1+x" + ")^9" * 8, r"e^{e^{e^{e^e}}}", r"\lfloor 10^{300}\pi \rfloor", "|" * 300, "1 or " * 300),
        *("0.001^{1000000}", r"\tan{\pi}^{100000}", r"\sqrt[3]{\lfloor e^{10^6} \rfloor}", r"\cosh\ln-" * 30 + "2"),
        r"(1+i \cdot ((2^{-1000000})^{1000}))^{i}",
    ],
    ids=lambda answer: answer[:16],
)
def test_no_answer_takes_long(answer: str) -> None:
    """Some of these would run for hours if they were evaluated."""
    assert isinstance(hash(canonical(answer)), int)


@pytest.mark.parametrize("answer", [r"\cot(0)", r"\csc 0", r"x + \cot(x - x)", r"\{1, \cot(0)\}"])
def test_a_pole_of_a_function_has_no_value(answer: str) -> None:
    assert not equivalent(answer, answer)


@pytest.mark.parametrize(
    "text",
    [
        *("answer is a" + " " * LONG + "b", "answer" + " " * LONG, "The answer is\n\n" + " " * LONG),
        *("The answer is " + "9" * LONG, "\\boxed{1}" + " " * LONG, "answer is: " + "\n " * LONG),
        *(
            unit * (LONG // len(unit))
            for unit in ("\n", "answer\n", "\\boxed{", "\\boxed{5}", "<think>", "#### ", "\nQ1:")
        ),
        *(unit * (LONG // len(unit)) for unit in ("\nQ1:", "answer to ", "answer is not ", "the final answer ")),
    ],
    ids=lambda text: text[:16].strip(),
)
def test_no_text_takes_long_to_read(text: str) -> None:
    """A pattern that backtracks would take minutes."""
    extract(text)


NEAR_4000 = [f"{'9' * 390}e4000", f"{'9' * 390}e-4000", "1e4000" + " trillion" * 40, f"x = {'9' * 390}e4000"]


@pytest.mark.parametrize("answer", NEAR_4000, ids=lambda answer: answer[-16:])
def test_a_number_of_more_digits_than_python_writes_is_compared_as_text(answer: str) -> None:
    assert equivalent(answer, answer) and not equivalent(answer, f"9{answer}")


@pytest.mark.parametrize(
    "text",
    [
        *("[" + "\ufdfa" * 1990 + "]", "{" + "\ufdfa," * 990 + "}", "a" + " " * 1990 + "b", "a;" + " " * 1990 + "b"),
        *("The answer to" + sign * 20_000 for sign in " \t"),
    ],
    ids=["18 signs each", "18 signs in a set", "spaces", "spaces behind a sign", "spaces in a sentence", "tabs"],
)
def test_a_text_takes_a_fraction_of_a_second_on_the_event_loop(text: str) -> None:
    """Each took between 0.1 and 5 seconds of the processor."""
    began = time.process_time()
    assert not equivalent(text, "a") and extract(text) is None
    assert time.process_time() - began < 0.09


# Numbers in any spelling

VALUES = st.fractions(-10_000, 10_000, max_denominator=64)


def decimal(value: Fraction) -> str | None:
    """The value as a decimal, if its digits end."""
    for digits in range(8):
        scaled = value * 10**digits
        if scaled.denominator == 1:
            whole, sign = abs(int(scaled)), "-" if value < 0 else ""
            text = str(whole).rjust(digits + 1, "0")
            return sign + (f"{int(text[:-digits]):,}.{text[-digits:]}" if digits else f"{whole:,}")
    return None


def ways(value: Fraction, factor: int) -> list[str]:
    """Ways of writing a value."""
    top, bottom = value.numerator * factor, value.denominator * factor
    sign, size = "-" if top < 0 else "", abs(top)
    written = [f"{top}/{bottom}", f" {top} / {bottom} ", f"{sign}\\frac{{{size}}}{{{bottom}}}", f"${top}/{bottom}$"]
    if (short := decimal(value)) is not None:
        written += [short, short.replace(",", ""), f"{short}%", f"{short}{'' if '.' in short else '.'}00"]
    if bottom == factor:
        written += [str(value), f"{sign}${abs(value)}"]
    return written


@unhurried
@given(VALUES, st.integers(1, 9), st.data())
def test_a_value_has_the_same_key_in_every_spelling(value: Fraction, factor: int, data: st.DataObject) -> None:
    one, other = (data.draw(st.sampled_from(ways(value, factor))) for _ in range(2))
    assert canonical(one) == canonical(other) == canonical(f"{value.numerator}/{value.denominator}")


@unhurried
@given(VALUES, VALUES, st.integers(1, 9), st.data())
def test_two_values_never_share_a_key(one: Fraction, other: Fraction, factor: int, data: st.DataObject) -> None:
    assume(one != other)
    assert not equivalent(data.draw(st.sampled_from(ways(one, factor))), data.draw(st.sampled_from(ways(other, 1))))


@unhurried
@given(st.lists(st.sampled_from(["1/2", "0.5", r"\frac12", "x", "y", "x+0", "2", "2.0", "two", ""]), min_size=3))
def test_equivalence_is_symmetric_and_transitive(answers: list[str]) -> None:
    a, b, c = answers[:3]
    assert equivalent(a, b) == equivalent(b, a)
    assert not (equivalent(a, b) and equivalent(b, c)) or equivalent(a, c)


# Read the answer of a solution


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so it is \boxed{42}.", "42"),
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"first \boxed{1}, no: \boxed{ 2 }", "2"),
        (r"The answer is 3. \boxed{4}", "4"),
        ("She sells 9.\n#### 18", "18"),
        ("#### 18\n", "18"),
        ("The answer is 5.", "5"),
        ("the answer is: 5", "5"),
        ("Answer: 7", "7"),
        ("answer is $3.50", "$3.50"),
        ("The answer is 3.5", "3.5"),
        ("The answer is 4\nNo, wait.\nThe answer is 5", "5"),
        ("It is 4 because 2 + 2 = 4", None),
        ("", None),
        (r"truncated \boxed{4", None),
    ],
)
def test_the_last_boxed_or_marked_text_is_the_answer(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 3. No: the answer is 4.",
        "The final answer is 4. I hope it is correct.",
        "The answer is **4**.",
        "**Answer:** 4",
    ],
)
def test_the_answer_is_found_among_other_words_of_its_line(text: str) -> None:
    assert equivalent(extract(text), "4")


def test_text_answers_read_the_text_of_a_state_and_equivalent_ones_share_a_key() -> None:
    answers = TextAnswers()
    assert answers.read(SimpleNamespace(text="so #### 0.5")) == "0.5"
    assert answers.key("0.5") == answers.key("1/2") != answers.key("2")


@pytest.mark.parametrize("text", ["no idea", r"\boxed{}", "#### ", "The answer is", "#### \n"])
def test_a_text_without_an_answer_has_none(text: str) -> None:
    assert TextAnswers().read(SimpleNamespace(text=text)) is None


def test_another_reader_can_be_given() -> None:
    assert TextAnswers(lambda text: text[:1]).read(SimpleNamespace(text="7 of 9")) == "7"


@pytest.mark.parametrize("long", [True, False])
def test_a_text_is_read_once_and_a_long_one_outside_of_the_event_loop(long: bool) -> None:
    threads = []

    def read(text: str) -> str:
        threads.append(threading.current_thread())
        return text[:1]

    answers = TextAnswers(read)
    states = [SimpleNamespace(text=f"{digit}{'.' * 3000 * long}") for digit in range(3)]
    asyncio.run(answers.prepare(states))
    assert [answers.read(state) for state in states] == ["0", "1", "2"]
    assert len(threads) == 3
    assert (threading.main_thread() in threads) is not long


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mark", ["think", "thinking", "thought", "reasoning", "Think"])
def test_every_reader_cuts_thoughts_that_have_only_one_mark(reader: str, mark: str) -> None:
    said = {"statement": "The answer is {}.\n", "boxed": "\\boxed{{{}}}\n", "hashes": "#### {}\n"}[reader]
    read, three, four = READERS[reader], said.format(3), said.format(4)
    assert read(f"{three}</{mark}>{four}") == read(f"<{mark}>{three}</{mark}>{four}") == "4"
    assert read(f"{three}</{mark}>{three}</{mark}>{four}") == read(f"{four}<{mark}>{three}") == "4"
    assert read(f"{three}</{mark}>") is read(f"<{mark}>{three}") is None


@pytest.mark.parametrize(("reader", "answer"), [("statement", "4"), ("boxed", "1, 2"), ("hashes", "3 apples")])
def test_a_reader_is_chosen_by_name(reader: str, answer: str) -> None:
    text = "It is \\boxed{1} or \\boxed{2}.\n#### 3 apples\n#### \nThe answer is 4."
    assert READERS[reader](text) == answer
    assert all(read("no idea") is None for read in READERS.values())


# Formulas

SIZES = st.integers(-20, 20)


@unhurried
@given(SIZES, SIZES, SIZES, SIZES)
def test_a_product_of_sums_equals_its_expansion_and_no_other(a: int, b: int, c: int, d: int) -> None:
    product = f"({a}x + {b})({c}x + {d})"
    expanded = f"{a * c}x^2 + {a * d + b * c}x + {b * d}".replace("+ -", "- ")
    assert equivalent(product, expanded) and equivalent(rf"\left({a}x+{b}\right)\cdot ({c} x+{d})", expanded)
    assert not equivalent(product, f"{expanded} + 1")


@unhurried
@given(st.integers(1, 50), st.integers(1, 50), st.integers(2, 9))
def test_roots_and_fractions_are_equal_where_their_values_are(a: int, b: int, n: int) -> None:
    assert equivalent(rf"{a}\sqrt{{{n}}}", rf"\sqrt{{{a * a * n}}}")
    assert equivalent(rf"\frac{{{a}}}{{\sqrt{{{n}}}}}", rf"\frac{{{a}\sqrt{{{n}}}}}{{{n}}}")
    assert equivalent(rf"\sqrt{{{a}}}\sqrt{{{b}}}", rf"\sqrt{{{a * b}}}")
    assert not equivalent(rf"{a}\sqrt{{{n}}}", rf"{a + 1}\sqrt{{{n}}}")


# Anything at all

SIGNS = [
    *"0123456789.,:;=<>+-*/^_!|()[]{}\\ $%xyzabepi\n\"'`~",
    "\\frac",
    "\\sqrt",
    "\\text",
    "\\cup",
    "\\le",
    "½",
    "π",
    "inf",
]
MATHS = st.lists(st.sampled_from(SIGNS), max_size=30).map("".join)


@unhurried
@given(st.one_of(st.text(max_size=60), MATHS))
def test_any_text_can_be_read_and_compared(text: str) -> None:
    assert equivalent(text, "an answer that it is not") is False or canonical(text) == "an answer that it is not"
    assert isinstance(hash(canonical(text)), int)
    for said in (text, f"The answer is {text}", f"\\boxed{{{text}}}", f"#### {text}"):
        found = extract(said)
        assert found is None or found.strip()


PIECES = [
    "The answer is ",
    "the final answer is ",
    "So the answer is: ",
    "if ",
    "not ",
    "unless\n",
    "7",
    "-1,200.5",
    "3,",
    ".",
    "\n",
]
PIECES += [
    " ",
    "A: 3",
    "(B)",
    r"\boxed{4}",
    "#### 5",
    "<think>",
    "</think>",
    "answer",
    "Question: 2",
    "\nQuestion: 2\n",
    "apples",
    "[",
    "An\u017fwer: 4",
    "The best opt\u0131on is C",
    "RIGHT CHO\u0130CE: B",
]


@unhurried
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_the_short_way_to_read_an_answer_finds_the_same(text: str) -> None:
    for said in (text, f"{text}\nThe answer is 7.", f"{text}. So the answer is 1,200.50\n"):
        assert extract(said) == _last_statement(said)


def test_all_short_texts_have_a_key() -> None:
    for first in SIGNS:
        for second in ("", *SIGNS):
            with suppress(TooMuchError, UndefinedError):
                assert key_of(plain(first + second))
