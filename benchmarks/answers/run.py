r"""Measures reading and comparing of answers: right decisions on the corpus, answers per second, and the slowest ones.

    python -m benchmarks.answers.run        # a minute; also Math-Verify, if it is installed (pip install math-verify)

The cache is emptied before each measurement. Formulas are computed in another process, so times are wall-clock times;
run it on an idle machine. Math-Verify compares the same pairs in the same run. It writes ``result.json`` beside
this file.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from thinktime.answers import TextAnswers, Undecided, canonical, equivalent, extract
from thinktime.answers.equivalence import _known
from thinktime.bench.environment import environment
from thinktime.generators.text import RemoteText

HERE = Path(__file__).parent
CORPUS = HERE.parents[1] / "tests" / "corpus"
ANSWERS, VOTERS, ROUNDS = 16_000, 16, 5
HARD = (
    *("3000000!", "99999999!", r"\binom{1000000}{500000}", r"\sum_{k=1}^{100000} \frac{1}{k}", r"\prod_{k=1}^{10^9} k"),
    *(r"\dfrac{7^{(7^{(7^7)})}-7}{4}", "1/(" * 40 + "2" + ")" * 40, "9" * 5000, "x^{x^{x^{x}}}", "1," * 900),
    *(r"\sum_{i=1}^{99}\sum_{j=1}^{99}\sum_{k=1}^{99} ijk", "(" * 1000, r"\sqrt[99]{2}" * 24, "(x+y+z)^{200}"),
)


def cases(name: str) -> list[dict[str, Any]]:
    """The lines of a file of the corpus."""
    return [json.loads(line) for line in (CORPUS / name).read_text().splitlines()]


def seconds(run: Callable[[], Any]) -> float:
    """Seconds of a call that remembers nothing."""
    _known.cache_clear()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def math_verify(a: str, b: str) -> bool:
    """Whether Math-Verify takes these two as the same."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${a}$"), parse(f"${b}$")))


def compared(judges: Iterable[tuple[str, Callable[[str, str], bool]]]) -> dict[str, Any]:
    """Right decisions of each judge on the pairs of the corpus, and its median time for a pair."""
    pairs = cases("equivalence.jsonl")
    found: dict[str, Any] = {}
    for name, judge in judges:
        judge("1", r"\sqrt{2}")  # the first call loads imports
        right, took = 0, []
        for pair in pairs:
            _known.cache_clear()
            started = time.perf_counter()
            verdict = judge(pair["a"], pair["b"])
            took.append(time.perf_counter() - started)
            right += verdict == pair["same"]
        found[name] = {"right": right, "of": len(pairs), "median_milliseconds": round(1000 * median(took), 3)}
    return found


def votes() -> dict[str, Any]:
    """Answers per second of reading, comparing and voting, for plain numbers in short solutions."""
    drawn = random.Random(0)
    numbers = [str(drawn.randrange(10**7)) for _ in range(ANSWERS)]
    kinds = {
        "boxed": [RemoteText("", text=f"We add them.\nSo there are $\\boxed{{{number}}}$ pens.") for number in numbers],
        "in words": [RemoteText("", text=f"We add them.\nThe answer is {number}.") for number in numbers],
    }
    reader = TextAnswers()

    def vote(texts: list[RemoteText]) -> None:
        for first in range(0, len(texts), VOTERS):
            answers = [reader.read(text) for text in texts[first : first + VOTERS]]
            Counter(reader.key(answer) for answer in answers if answer is not None).most_common(1)

    return {
        kind: round(ANSWERS / median(seconds(partial(vote, texts)) for _ in range(ROUNDS)))
        for kind, texts in kinds.items()
    }


def main() -> None:
    judges: list[tuple[str, Callable[[str, str], bool]]] = [("thinktime", equivalent)]
    if importlib.util.find_spec("math_verify"):
        logging.disable(logging.ERROR)
        judges.append(("math-verify", math_verify))
    read = [extract(case["text"]) for case in cases("reading.jsonl")]
    wanted = [case["answer"] for case in cases("reading.jsonl")]
    right = sum(a == b or equivalent(a, b) for a, b in zip(read, wanted, strict=True))
    slowest = {answer[:40]: seconds(partial(canonical, answer)) for answer in HARD}
    result = {
        "command": "python -m benchmarks.answers.run",
        "environment": environment(),
        "pairs": compared(judges),
        "texts": {"right": right, "of": len(read)},
        "answers_per_second": votes(),
        "hard": {
            "n": len(HARD),
            "undecided": sum(isinstance(canonical(answer), Undecided) for answer in HARD),
            "longest_milliseconds": round(1000 * max(slowest.values()), 1),
        },
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: result[name] for name in ("pairs", "texts", "answers_per_second", "hard")}, indent=1))


if __name__ == "__main__":
    main()
