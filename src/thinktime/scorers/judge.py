"""A judge by prompt: a model behind HTTP chooses a grade from a closed set (Zheng et al. 2023, arXiv 2306.05685).

The score is the mean of several sampled grades, as in G-Eval (Liu et al. 2023, arXiv 2303.16634), which also weights
them by probability.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from thinktime.core.errors import InputError, TooLongError
from thinktime.core.protocols import Generator
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Sampling, Score
from thinktime.core.usage import Usage
from thinktime.generators.text import question_of
from thinktime.scorers.replies import as_score

TEMPLATE = """\
Grade a solution of a problem.

Problem:
{question}

Solution:
{solution}

Is the final answer right, and every step towards it? Say in a sentence what is wrong, if anything is. \
Then write the grade, one of {grades} (the last is the best), on a line of its own."""

GRADES = tuple(str(grade) for grade in range(1, 11))
RETRY_TEMPERATURE = 1.0
"""Temperature of a retry: a greedy reply would repeat the first one."""


class JudgingModel(Generator, Protocol):
    """A generator of text whose cost of reading has a bound."""

    def most_read(self, state: Any) -> int:
        """Upper bound of a prefix's tokens."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Judge:
    """Asks a model to grade texts; a score is the mean position of the grades, 0 for the first and 1 for the last.

    The last grade in a reply counts. A reply without a grade, or cut off, is sampled again, at most ``retries`` times.
    Replies that still have no grade are left out of the mean; if no reply has a grade, the score is missing.

    Args:
        generator: the model that judges.
        template: contains ``{question}`` and ``{solution}``, and optionally ``{grades}``.
        grades: the allowed grades, from the worst to the best.
        samples: replies per score.
        retries: how often missing grades are sampled again.
        temperature: of the replies; by default 0 for one sample and 1 for several.
        max_tokens: length limit of a reply.

    Raises:
        InputError: the template lacks a field or has an unknown one, or a value is out of range.
    """

    capabilities = frozenset({Capability.SCORES})

    def __init__(
        self,
        generator: JudgingModel,
        *,
        template: str = TEMPLATE,
        grades: Sequence[str] = GRADES,
        samples: int = 1,
        retries: int = 1,
        temperature: float | None = None,
        max_tokens: int = 256,
    ) -> None:
        different = {grade.casefold() for grade in grades}
        if len(different) < 2 or len(different) != len(grades) or not all(grade.strip() for grade in grades):
            raise InputError("grades", tuple(grades), "give two or more, each once, from the worst to the best")
        for field, value, least in (("samples", samples, 1), ("retries", retries, 0), ("max_tokens", max_tokens, 1)):
            if value < least:
                raise InputError(field, value, f"give {least} or more")
        if samples > 1 and temperature == 0:
            raise InputError("temperature", 0, f"{samples} replies would be the same; give more than 0, or samples=1")
        chosen = temperature if temperature is not None else 0.0 if samples == 1 else 1.0
        self._generator, self._template = generator, template
        self._grades, self._samples, self._retries = tuple(grades), samples, retries
        self._sampling = Sampling(chosen, max_length=max_tokens)
        self._values = {grade.casefold(): index / (len(grades) - 1) for index, grade in enumerate(grades)}
        alternatives = "|".join(map(re.escape, sorted(self._values, key=len, reverse=True)))
        self._pattern = re.compile(rf"(?<![\w./-])(?<!of )(?:{alternatives})(?!\w|\.\d)")  # the grade of 8/10 is 8
        self._filled("", "")
        settings = json.dumps([template, self._grades, samples, retries, chosen, max_tokens])
        self.name = f"judge:{generator.name}/{hashlib.blake2b(settings.encode(), digest_size=6).hexdigest()}"

    def worst_case(self, problem: Problem, node: Node, known: Node | None = None) -> Usage:
        """Every reply at its length limit, and all retries."""
        root = self._root(problem, node)
        one = self._generator.worst_case(root, self._sampling.max_length)
        return self._usage(root, [one] * (self._samples * (1 + self._retries)))

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None] = ()) -> list[Score]:
        """One score per node.

        Raises:
            InputError: the endpoint refuses the key, or has no such model.
        """
        return list(await asyncio.gather(*(self._read(problem, node) for node in nodes)))

    async def close(self) -> None:
        """Close all connections; the next score opens new ones."""
        await self._generator.close()

    def place(self, reply: Child) -> float | None:
        """The grade of a reply, between 0 and 1; None if it has no grade or was cut off."""
        return self.grade(reply.state.text) if reply.finish == "eos" else None

    def grade(self, reply: str) -> float | None:
        """The position of the last grade in a reply among all grades, 0 to 1; None if it has no grade."""
        found = self._pattern.findall(reply.casefold())
        return self._values[found[-1]] if found else None

    async def _read(self, problem: Problem, node: Node) -> Score:
        root = self._root(problem, node)
        values: list[float] = []
        costs: list[Usage] = []
        reason = ""
        for turn in range(1 + self._retries):
            sampling = replace(self._sampling, temperature=RETRY_TEMPERATURE) if turn else self._sampling
            wanted = range(self._samples - len(values))
            try:
                replies = await self._generator.extend([self._extension(root, f"{turn}/{i}", sampling) for i in wanted])
            except TooLongError as error:
                reason = str(error)  # this solution does not fit the judge's context; others may fit
                break
            for reply in replies:
                costs.append(reply.usage)
                value = self.place(reply)
                if value is not None:
                    values.append(value)
                reason = reason or str(reply.error or "")
            if len(values) == self._samples:
                break
        usage = self._usage(root, costs)
        return Score(sum(values) / len(values) if values else None, usage, reason="" if values else reason)

    def _extension(self, root: Node, name: str, sampling: Sampling) -> Extension:
        key = hashlib.blake2b(f"{root.key}/{name}".encode(), digest_size=16).hexdigest()
        return Extension(root, 0, key, "done", sampling, sampling.max_length)

    def _root(self, problem: Problem, node: Node) -> Node:
        """The judge's prompt about a node, as the root of its own generation."""
        prompt = self._filled(question_of(problem), node.state.text)
        key = hashlib.blake2b(f"{node.key}/{self.name}".encode(), digest_size=16).hexdigest()
        return Node(key, (), self._generator.root(Problem(key, prompt)))

    def _filled(self, question: str, solution: str) -> str:
        fields = {"question": question, "solution": solution, "grades": ", ".join(self._grades)}
        try:
            if not all(f"{{{name}}}" in self._template for name in ("question", "solution")):
                raise KeyError("question and solution")
            return self._template.format(**fields)
        except (KeyError, IndexError, ValueError) as error:
            fix = f"it needs {{question}} and {{solution}}, may have {{grades}}, and doubles other braces ({error})"
            raise InputError("template", self._template, fix) from None

    def _usage(self, root: Node, costs: Sequence[Usage]) -> Usage:
        return as_score(costs, self._generator.most_read(root.state))
