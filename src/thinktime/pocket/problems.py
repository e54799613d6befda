"""Procedural multi-step word problems with an exact checker: the task the pocket models are trained on.

A problem is drawn from one of four families at one of five levels. Higher levels take more computations, carry more
distractors and larger numbers. Every quantity lies in 1..199, so an answer is hard to guess, and every step can be
checked exactly. A step repeats a sentence of the question, and puts the number that it needs beside it, such as the
price after the item. If a story is in order of time, the solution goes through it sentence by sentence. At a sentence
that changes nothing, it says that the count is still the same.

There are unlimited problems, and the splits share no structure: a question's *structure* is its text without names,
items, days and numbers, and the hash of the structure decides whether the question belongs to train, dev or test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

Split = Literal["train", "dev", "test"]

LEVELS = (1, 2, 3, 4, 5)
COMPUTATIONS = {1: 2, 2: 3, 3: 4, 4: 6, 5: 8}
DISTRACTORS = {1: (0, 1), 2: (0, 2), 3: (1, 3), 4: (1, 5), 5: (2, 6)}
MAX_VALUE = 199

NAMES = ("Ann", "Ben", "Cal", "Dora", "Eli", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Leo", "Mia", "Ned")
ITEMS = (
    "apples", "books", "cards", "coins", "figs", "hats", "keys", "maps", "nuts", "pens", "rings", "shells",
    "stamps", "toys",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OTHERS = ("Auntie", "Dad", "Grandma", "Grandpa", "Mum", "Uncle")
"""People whose actions do not change the answer."""
MAKERS = ("bakery", "farm", "mill", "shop", "studio", "workshop")
TIMES = {2: "two times", 3: "three times", 4: "four times"}


@dataclass(frozen=True)
class Step:
    """One line of a solution and the indices of the steps it builds on."""

    text: str
    needs: tuple[int, ...] = ()


@dataclass(frozen=True)
class WordProblem:
    """A question, its reference derivation and its answer."""

    question: str
    steps: tuple[Step, ...]
    answer: int
    level: int
    family: str
    structure: str
    id: str = ""

    @property
    def solution(self) -> str:
        """The reference solution in the solver's format: one step per line, then the answer."""
        return "\n".join([*(step.text for step in self.steps), f"Answer: {self.answer}"])


@dataclass
class _Draft:
    """The parts of a problem that its family fills in."""

    sentences: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    question: str = ""
    answer: int = 0

    def distract(self, rng: Random, sentences: Sequence[str], first: int = 0) -> None:
        """Insert irrelevant sentences at random positions from index ``first`` on."""
        for sentence in sentences:
            index = rng.randint(first, len(self.sentences))
            self.sentences.insert(index, sentence)


class _OutOfRangeError(Exception):
    """A drawn quantity left 1..MAX_VALUE; the problem is drawn again."""


def _in_range(value: int) -> int:
    if not 1 <= value <= MAX_VALUE:
        raise _OutOfRangeError
    return value


def _events(rng: Random, steps: int, distractors: int, size: int) -> _Draft:
    """A person's count after a chain of gains and losses, among the gains and losses of others."""
    draft = _Draft()
    hero, friend = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    value = rng.randint(10, size)
    draft.sentences.append(f"At first {hero} has {value} {item}.")
    gains = ("buys {n} {item}", "finds {n} {item}", "gets {n} {item} from {friend}")
    losses = ("loses {n} {item}", "sells {n} {item}", "gives {n} {item} to {friend}")
    happens: list[tuple[str, str, int]] = []  # who, what, and how it changes the count
    for _ in range(steps):
        sign = rng.choice((1, -1))
        amount = rng.randint(2, size)
        words = rng.choice(gains if sign > 0 else losses).format(n=amount, item=item, friend=friend)
        happens.append((hero, words, sign * amount))
    for _ in range(distractors):
        words = rng.choice(gains + losses).format(n=rng.randint(2, size), item=item, friend=friend)
        happens.insert(rng.randint(0, len(happens)), (rng.choice(OTHERS), words, 0))
    for index, (who, words, change) in enumerate(happens):
        before, value = value, _in_range(value + change)
        draft.sentences.append(f"{who} {words}.")
        result = f"{before} {'+' if change > 0 else '-'} {abs(change)} = {value}" if change else f"still {value}"
        draft.steps.append(Step(f"Then {who} {words}, {result}.", (index - 1,) if index else ()))
    draft.question = rng.choice(
        (f"How many {item} does {hero} have now?", f"How many {item} does {hero} have at the end?")
    )
    draft.answer = value
    return draft


def _relate(rng: Random, value: int, size: int) -> tuple[str, str, int]:
    """A relation to another quantity: its words, the right side of the equation, and the new value."""
    kind = rng.choice(("more", "fewer", "times"))
    if kind == "times":
        factor = rng.choice((2, 3, 4))
        return f"{TIMES[factor]} as many", f"* {factor}", _in_range(value * factor)
    amount = rng.randint(2, size)
    sign = "+" if kind == "more" else "-"
    return f"{amount} {kind}", f"{sign} {amount}", _in_range(value + (amount if sign == "+" else -amount))


def _compare(rng: Random, steps: int, distractors: int, size: int) -> _Draft:
    """Counts given relative to one another, in shuffled order; sometimes the last two are summed."""
    draft = _Draft()
    item = rng.choice(ITEMS)
    together = rng.choice((False, False, True))
    names = rng.sample(NAMES, min(steps + 1 - together + distractors, len(NAMES)))
    chain, extras = names[: steps + 1 - together], names[steps + 1 - together :]
    values = [rng.randint(5, size)]
    pairs = []
    for index, (name, base) in enumerate(zip(chain[1:], chain, strict=False)):
        words, operation, value = _relate(rng, values[-1], size)
        pairs.append(f"{base} {name} {words}")
        equation = f"{values[-1]} {operation} = {value}"
        step = f"With {base} {values[-1]}: {pairs[-1]}, {equation}."
        draft.steps.append(Step(step, (index - 1,) if index else ()))
        values.append(value)
    base, value = chain[-1], values[-1]
    for name in extras:  # they continue from the last person that is asked about, and never lead to that person
        words, _, value = _relate(rng, value, size)
        pairs.append(f"{base} {name} {words}")
        base = name
    rng.shuffle(pairs)
    draft.sentences = [
        f"Of every two the second has so many {item} against the first: {', '.join(pairs)}.",
        f"Here {chain[0]} has {values[0]} {item}.",
    ]
    if together:
        draft.answer = _in_range(values[-2] + values[-1])
        equation = f"{values[-2]} + {values[-1]} = {draft.answer}"
        draft.steps.append(Step(f"Together {chain[-2]} and {chain[-1]} have {equation}.", (len(draft.steps) - 1,)))
        draft.question = f"How many {item} do {chain[-2]} and {chain[-1]} have together?"
    else:
        draft.answer = values[-1]
        draft.question = f"How many {item} does {chain[-1]} have?"
    return draft


def _shopping(rng: Random, steps: int, distractors: int, size: int) -> _Draft:
    """Quantities times prices, a running total, sometimes the change; other people buy, too."""
    draft = _Draft()
    change = steps % 2 == 0
    kinds = (steps + 1) // 2
    buyer, other = rng.choice(NAMES), rng.choice(OTHERS)
    items = rng.sample([item for item in ITEMS if item != "coins"], kinds + distractors)
    prices = [rng.randint(2, 19) for _ in items]
    counts = [rng.randint(2, 9) for _ in items]
    order = list(range(len(items)))
    rng.shuffle(order)
    opening = rng.choice(("Prices", "Today", "For sale"))
    draft.sentences = [f"{opening}: " + ", ".join(f"{items[i]} {prices[i]} coins" for i in order) + "."]
    bought = [(buyer, i) for i in range(kinds)]
    for i in range(kinds, kinds + distractors):
        bought.insert(rng.randint(0, len(bought)), (other, i))
    total, last_total = 0, -1
    for who, i in bought:
        claim = f"{who} buys {counts[i]} {items[i]}"
        draft.sentences.append(f"{claim}.")
        needs = (last_total,) if last_total >= 0 else ()
        if who == other:
            draft.steps.append(Step(f"Then {claim}, still {total}.", needs))
        else:
            cost = _in_range(counts[i] * prices[i])
            equation = f"{counts[i]} * {prices[i]} = {cost}"
            draft.steps.append(Step(f"Then {claim}, {items[i]} {prices[i]} coins, {equation}.", needs))
            if total:
                before, total = total, _in_range(total + cost)
                step = f"With the {items[i]} it is {before} + {cost} = {total}."
                draft.steps.append(Step(step, (len(draft.steps) - 1, *needs)))
            else:
                total = cost
        last_total = len(draft.steps) - 1
    if change:
        paid = _in_range(total + rng.randint(1, size))
        last = rng.choice((f"{buyer} pays with {paid} coins", f"{buyer} has {paid} coins"))
        draft.sentences.append(f"{last}.")
        draft.answer = paid - total
        draft.steps.append(Step(f"Then {last}, {paid} - {total} = {draft.answer}.", (len(draft.steps) - 1,)))
        draft.question = rng.choice(
            (f"How many coins does {buyer} have left?", f"How many coins does {buyer} get back?")
        )
    else:
        draft.answer = total
        draft.question = rng.choice((f"How many coins does {buyer} pay?", f"What does {buyer} pay in all?"))
    return draft


def _ledger(rng: Random, steps: int, distractors: int, size: int) -> _Draft:
    """Production by day, each day relative to an earlier one; then the total, sometimes minus the amount sold."""
    draft = _Draft()
    sold = steps % 2 == 1
    n_days = (steps - sold) // 2 + 1
    start = rng.randrange(len(DAYS))
    days = [DAYS[(start + i) % len(DAYS)] for i in range(n_days)]
    item, wrong_item = rng.sample(ITEMS, 2)
    maker = rng.choice(MAKERS)
    values = [rng.randint(5, size // 2)]
    draft.sentences.append(f"The {maker} makes {item}, on {days[0]} {values[0]}.")
    total, last_total = values[0], -1
    for i in range(1, n_days):
        base = rng.choice(range(i))
        words, operation, value = _relate(rng, values[base], size // 2)
        claim = f"On {days[i]} it makes {words} {'as' if 'times' in words else 'than'} on {days[base]}"
        draft.sentences.append(f"{claim}.")
        needs = (2 * (base - 1),) if base else ()
        draft.steps.append(Step(f"{claim}, {days[base]} {values[base]}: {values[base]} {operation} = {value}.", needs))
        before, total = total, _in_range(total + value)
        needs = (len(draft.steps) - 1, *((last_total,) if last_total >= 0 else ()))
        draft.steps.append(Step(f"With {days[i]} {value} it is {before} + {value} = {total}.", needs))
        last_total = len(draft.steps) - 1
        values.append(value)
    noise = (
        f"The {maker} also makes {{n}} {wrong_item}.",
        f"The {maker} sells {{n}} {wrong_item}.",
        f"{rng.choice(NAMES)} has {{n}} {item}.",
    )
    draft.distract(rng, [rng.choice(noise).format(n=rng.randint(2, size)) for _ in range(distractors)], 1)
    if sold:
        amount = rng.randint(2, size)
        draft.answer = _in_range(total - amount)
        draft.sentences.append(f"The {maker} sells {amount} {item}.")
        left = f"The {maker} sells {amount} {item}: {total} - {amount} = {draft.answer}."
        draft.steps.append(Step(left, (last_total,)))
        draft.question = f"How many {item} are left?"
    else:
        draft.answer = total
        draft.question = rng.choice((f"How many {item} does it make in all?", f"How many {item} are there in all?"))
    return draft


FAMILIES: dict[str, Callable[[Random, int, int, int], _Draft]] = {
    "events": _events,
    "compare": _compare,
    "shopping": _shopping,
    "ledger": _ledger,
}


_KINDS = {w: k for k, words in zip("nidom", (NAMES, ITEMS, DAYS, OTHERS, MAKERS), strict=True) for w in words}
_BLANKED = re.compile("|".join([*TIMES.values(), "[A-Za-z]+", r"\d+"]))


def skeleton(question: str) -> str:
    """A question's structure: names, items, days and makers are numbered as they appear; numbers are dropped."""
    seen: dict[str, str] = {}

    def blank(match: re.Match[str]) -> str:
        word = match[0]
        if word[0].isdigit():
            return "#"
        if word in TIMES.values():
            return "# times"
        return seen.setdefault(word, f"{_KINDS[word]}{len(seen)}") if word in _KINDS else word

    return _BLANKED.sub(blank, question)


def split_of(structure: str) -> Split:
    """The split of a structure, by its hash: 80% train, 10% dev, 10% test."""
    bucket = hashlib.blake2b(structure.encode(), digest_size=2).digest()[0] % 10
    return "dev" if bucket == 8 else "test" if bucket == 9 else "train"


def draw(rng: Random, level: int, split: Split, family: str | None = None) -> WordProblem:
    """Draw one problem of this level, with a structure of this split."""
    steps, (fewest, most) = COMPUTATIONS[level], DISTRACTORS[level]
    name = family or rng.choice(tuple(FAMILIES))
    while True:
        distractors = rng.randint(fewest, most)
        try:
            draft = FAMILIES[name](rng, steps, distractors, 30 + 10 * level)
        except _OutOfRangeError:
            continue
        question = " ".join([*draft.sentences, draft.question])
        structure = skeleton(question)
        if split_of(structure) == split:
            return WordProblem(question, tuple(draft.steps), draft.answer, level, name, structure)


def problems(split: Split, n: int, seed: int = 0, levels: Sequence[int] = LEVELS) -> Iterator[WordProblem]:
    """The first ``n`` problems of a split, with the levels in turn; the same in every run with this seed.

    Raises:
        ValueError: a level is not one of ``LEVELS``, or ``n`` is negative.
    """
    if unknown := [level for level in levels if level not in LEVELS]:
        raise ValueError(f"levels={unknown}: the pocket task has levels {list(LEVELS)}")
    if not levels:
        raise ValueError("levels=[]: give at least one")
    if n < 0:
        raise ValueError(f"n={n}: ask for 0 or more problems")
    for index in range(n):
        level = levels[index % len(levels)]
        problem = draw(Random(f"{split}/{seed}/{level}/{index}"), level, split)
        yield WordProblem(**{**problem.__dict__, "id": f"pocket-{split}-{seed}-{index:05d}"})


_ANSWER = re.compile(r"^Answer: (\d+)$")


def read_answer(solution: str) -> str | None:
    """The final answer of a solution, or None if its last line is not an answer line."""
    lines = solution.strip().splitlines()
    match = _ANSWER.match(lines[-1]) if lines else None
    return match[1] if match else None


def check_steps(problem: WordProblem, solution: str) -> list[bool]:
    """Whether each line of a solution is right, the answer line included.

    A step is right if it is a reference step that was not used before, and all steps that it builds on come
    before it. So independent steps may come in any order. After the first wrong step, every line counts as
    wrong.
    """
    open_steps: dict[str, list[int]] = {}
    for index, step in enumerate(problem.steps):
        open_steps.setdefault(step.text, []).append(index)
    done: set[int] = set()
    verdicts: list[bool] = []
    for line in solution.strip().splitlines():
        if indices := open_steps.get(line):
            index = indices.pop(0)
            right = all(need in done for need in problem.steps[index].needs)
            done.add(index)
        else:
            right = line == f"Answer: {problem.answer}" and len(done) == len(problem.steps)
        verdicts.append(right and all(verdicts))
    return verdicts


def right_so_far(problem: WordProblem, text: str) -> bool:
    """Whether a solution can be right: all whole lines are, and an unfinished last line begins one that would be."""
    whole, _, begun = text.rpartition("\n")
    right = all(check_steps(problem, whole))
    if not begun or not right:
        return right
    lines = (*(step.text for step in problem.steps), f"Answer: {problem.answer}")
    return any(line.startswith(begun) and all(check_steps(problem, f"{whole}\n{line}")) for line in lines)


def vocabulary() -> list[str]:
    """Every word the generator can write, without punctuation and digits, sorted."""
    words: set[str] = {"Answer"}
    for problem in problems("train", 4000, seed=1):
        words.update(re.findall(r"[A-Za-z]+", problem.question + " " + problem.solution))
    for word in (*NAMES, *ITEMS, *DAYS, *OTHERS, *MAKERS):
        words.add(word)
    return sorted(words)
