"""Pipeline: stages of a task, each with its model and its number of samples (Wang et al. 2025, arXiv 2508.00890).

The samples of a stage are drawn side by side and merged; the next stage gets the merged output.
`thinktime.planning.pipeline_search` searches for the models and numbers of samples within a budget.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from thinktime.core.context import Document
from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.selection import Candidate, best, majority
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, Capability, Node, Problem, Prompt, missing
from thinktime.prompts.turns import Message, assistant, conversation, shown, user
from thinktime.strategies.composition.roles import named_generator, offered_by
from thinktime.strategies.options import at_least, one_of

REPAIR_WORDS = """This answer fails the tests. Find the mistake, then write the complete corrected answer, in the \
format the question asks for."""
RETRIEVE_WORDS = """Do not answer yet. Which of these documents help to answer the question above?

{documents}

End with one line that has their numbers, the most helpful first: "Documents: [2, 5]"."""
ANSWER_WORDS = """Answer the question above with the help of these documents:

{documents}"""

_DOCUMENTS = re.compile(r"documents\W*\[([^\]]*)\]", re.IGNORECASE)


def _repair(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    return [*conversation(problem), *(assistant(shown(state)) for state in about), user(REPAIR_WORDS)]


def _retrieve(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    listed = _listed(problem, range(1, len(documents(problem)) + 1))
    return [*conversation(problem), user(RETRIEVE_WORDS.format(documents=listed))]


def _numbers(state: Any, n: int = 0) -> list[int] | None:
    found = _DOCUMENTS.findall(shown(state))
    parts = [part.strip() for part in found[-1].split(",")] if found else []
    return [int(part) for part in parts] if parts and all(part.isdecimal() for part in parts) else None


def _answer(problem: Problem, about: Sequence[Any], said: Sequence[Any]) -> list[Message]:
    n = len(documents(problem))
    read = [_numbers(state) for state in said]
    chosen = merged([[one for one in some if 1 <= one <= n] for some in read if some is not None])
    return [*conversation(problem), user(ANSWER_WORDS.format(documents=_listed(problem, chosen or range(1, n + 1))))]


def _listed(problem: Problem, numbers: Sequence[int]) -> str:
    found = documents(problem)
    return "\n\n".join(f"### Document {one}: {found[one - 1].title}\n{found[one - 1].text}" for one in numbers)


def documents(problem: Problem) -> list[Document]:
    """The documents in the context of a problem."""
    return [part for part in problem.context if isinstance(part, Document)]


def merged(lists: Sequence[Sequence[int]]) -> list[int]:
    """The most frequent numbers of several lists, as many as the most frequent length; ties go to what came first."""
    if not lists:
        return []
    size = Counter(map(len, lists)).most_common(1)[0][0]
    return [number for number, _ in Counter(one for some in lists for one in dict.fromkeys(some)).most_common(size)]


REPAIR = Prompt("repair", _repair, is_answer=True)
"""About an answer that fails its tests."""
RETRIEVE = Prompt("retrieve", _retrieve, _numbers)
"""A reply gives the numbers of documents."""
ANSWER_FROM = Prompt("answer_from", _answer, is_answer=True)
"""The earlier replies are those to `RETRIEVE`, whose numbers are merged; if there are none, all documents are shown."""

GENERATE = "generate"
PROMPTS = {"repair": REPAIR, "retrieve": RETRIEVE, "answer": ANSWER_FROM}
"""What a stage asks; the stage ``generate`` asks the problem itself."""
PASSED = 1.0
"""The score of an answer that passes all tests."""


@dataclass(frozen=True)
class Stage:
    """One stage: its kind, the role of its model, and its number of samples."""

    kind: str
    model: str = MAIN
    samples: int = 1

    def __post_init__(self) -> None:
        one_of("stages", self.kind, [GENERATE, *PROMPTS])
        at_least("samples", self.samples, 1)

    def __str__(self) -> str:
        """The text that `stages_of` reads."""
        return self.kind + (f".{self.model}" if self.model != MAIN else "") + f"*{self.samples}"


def stages_of(text: str) -> tuple[Stage, ...]:
    """Read stages separated by semicolons, each ``kind.model*samples``.

    Raises:
        InputError: the text has another form, or the order of the stages makes no sense.
        UnknownNameError: there is no such kind of stage.
    """
    found = []
    for number, part in enumerate(text.split(";") if isinstance(text, str) and text.strip() else [], 1):
        words, sign, samples = (word.strip() for word in part.partition("*"))
        kind, dot, model = words.partition(".")
        if (dot and not model) or (sign and not samples.isdecimal()):
            raise InputError("stages", text, f"write stage {number} as kind.model*samples")
        found.append(Stage(kind, model or MAIN, int(samples or 1)))
    kinds = [stage.kind for stage in found]
    begun, *later = kinds or [""]
    if begun not in (GENERATE, "retrieve", "answer"):
        raise InputError("stages", text, "begin with generate, retrieve or answer")
    for before, kind in zip(kinds, later, strict=False):
        if (kind == "answer") != (before == "retrieve") or kind in (GENERATE, "retrieve"):
            raise InputError("stages", text, f"{kind} cannot follow {before}; write generate;repair or retrieve;answer")
    if kinds[-1] == "retrieve":
        raise InputError("stages", text, "let an answer follow: retrieve;answer")
    return tuple(found)


@dataclass(frozen=True)
class Pipeline:
    """Run the stages one after the other.

    ``generate`` draws answers, and ``repair`` corrects the best one if it fails the scorer's tests (a score below 1);
    the answer with the best score wins, the earliest of equal ones. ``retrieve`` lists documents of the problem's
    context, and ``answer`` answers with the most frequent of them. Without a repair, the answers of the last stage
    vote.

    Args:
        stages: separated by semicolons, each ``kind.model*samples``; the model is a role of the search, ``main`` if
            left out, and one sample is drawn if no number is given: ``generate*4;repair``, ``retrieve.draft*3;answer``.
    """

    stages: str = "generate*4;repair*4"
    prompts: ClassVar[tuple[Prompt, ...]] = (REPAIR, RETRIEVE, ANSWER_FROM)
    needs: ClassVar[frozenset[str]] = frozenset({REPAIR.capability, Capability.SCORES, Capability.ANSWERS})

    def __post_init__(self) -> None:
        prompts = {PROMPTS[s.kind].capability for s in self._stages if s.kind in PROMPTS and s.model == MAIN}
        scores = {Capability.SCORES} if self._tested else set()
        object.__setattr__(self, "needs", frozenset({*prompts, *scores, Capability.ANSWERS}))  # those of these stages

    def validate(self, search: Search) -> None:
        """Refuse a model that is missing or does not answer a stage's prompt, and a retrieval without documents."""
        for stage in self._stages:
            model = named_generator(search, stage.model, f"pipeline: {stage} has model={stage.model!r}")
            needs = {PROMPTS[stage.kind].capability} if stage.kind in PROMPTS else frozenset[str]()
            if lacking := missing(needs, offered_by(search, model)):
                raise CapabilityError(
                    f"pipeline: {stage} needs {', '.join(lacking)}, which the model {model.name!r} does not answer"
                )
        if self._stages[0].kind != GENERATE and not documents(search.problem):
            raise InputError("context", [], f"{self._stages[0].kind} needs documents in the problem's context")

    async def __call__(self, search: Search) -> Answer:
        replies: list[Node] = []
        tested: list[Candidate] = []
        for stage in self._stages:
            root: Node | None = search.root
            if stage.kind == "repair":
                chosen = best(tested)
                if chosen is None or chosen.score is None or chosen.score >= PASSED:
                    break
                root = search.ask(REPAIR, [chosen.node], model=stage.model)
            elif stage.kind != GENERATE:
                known = [reply for reply in replies if reply.done]
                root = search.ask(PROMPTS[stage.kind], said=known, model=stage.model)
            if root is None:
                break
            replies = await search.extend([root], stage.samples, model=stage.model)
            if self._tested:
                tested += search.candidates(replies, await search.score(replies))
        return search.finish(best(tested) if self._tested else majority(search.candidates(replies)))

    @cached_property
    def _stages(self) -> tuple[Stage, ...]:
        return stages_of(self.stages)

    @property
    def _tested(self) -> bool:
        return any(stage.kind == "repair" for stage in self._stages)
