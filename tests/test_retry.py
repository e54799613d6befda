"""The retrying model: its training traces, in which a wrong step is marked and repeated, and its own samples."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

import pytest
from tokenizers import Tokenizer

from thinktime.answers import TextAnswers
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Node, Problem, Sampling
from thinktime.generators.local import LocalGenerator
from thinktime.pocket import directory, prompts
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import check_steps, problems, read_answer
from thinktime.strategies.sampling.first_finish import FirstFinish
from training.retry import MOST, Course, row_of, slipped, trace

PROBLEMS = tuple(problems("train", 10))


def course(index: int, failing: float) -> Course:
    """A problem for which nine samples reached every step, and this share of them made the same mistake."""
    problem = PROBLEMS[index]
    wrong = [[slipped(step.text, Random(0))] * round(9 * failing) for step in problem.steps]
    return Course(problem, [9] * len(problem.steps), wrong)


@pytest.mark.parametrize("index", range(10))
def test_without_its_wrong_lines_a_trace_is_the_solution(index: int) -> None:
    lines = trace(course(index, 0.5), Random(index))
    right = [line.text for line in lines if line.right]
    assert right == [step.text for step in PROBLEMS[index].steps]
    assert all(line.text not in right for line in lines if not line.right)
    assert all(check_steps(PROBLEMS[index], "\n".join([*right, f"Answer: {PROBLEMS[index].answer}"])))


def test_the_risk_of_a_step_is_the_error_rate_of_the_solvers_up_to_a_limit() -> None:
    assert course(0, 0.0).risk(0) == pytest.approx(0.01) and course(0, 1 / 3).risk(0) == pytest.approx(0.31)
    assert course(0, 1.0).risk(0) == MOST


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return pocket_tokenizer.build(prompts.WORDS)


@pytest.mark.parametrize("index", range(4))
def test_a_row_has_the_trace_and_labels_every_token_after_the_mistake_in_its_line(
    index: int, tokenizer: Tokenizer
) -> None:
    made, lines = row_of(course(index, 0.4), tokenizer, Random(1)), trace(course(index, 0.4), Random(1))
    text = tokenizer.decode([token for token, learnt in zip(made.ids, made.in_loss, strict=True) if learnt])
    own = [f"{line.text * line.own}{'' if line.right else f' {prompts.NO}'}" for line in lines]
    assert text == "\n".join([*own, f"Answer: {PROBLEMS[index].answer}"])
    labels = made.right_so_far
    starts_wrong = [index for index, right in labels.items() if not right and labels.get(index - 1)]
    assert len(starts_wrong) == sum(not line.right for line in lines) > 0
    digits = [tokenizer.decode([made.ids[index]]).strip() for index in starts_wrong]
    assert all(digit.isdigit() for digit in digits)


def test_the_shipped_model_repeats_marked_steps_and_its_race_agrees_with_its_samples(
    questions: tuple[str, ...],
) -> None:
    generator, n = LocalGenerator(directory("retry"), dtype="float64"), 6

    def search_of(index: int) -> Search:
        answers, sampling = TextAnswers(read_answer), Sampling(max_length=400)
        return Search(Problem(str(index), questions[index]), generator, answers=answers, sampling=sampling)

    async def both(index: int) -> tuple[list[Node], Answer]:
        whole, race = search_of(index), search_of(index)
        return await whole.extend([whole.root], n), await FirstFinish(n, guard="off")(race)

    async def all_of_them() -> list[tuple[list[Node], Answer]]:
        return list(await asyncio.gather(*map(both, range(4))))

    marked = again = 0
    for leaves, answer in asyncio.run(all_of_them()):
        ended = [leaf for leaf in leaves if leaf.done and read_answer(leaf.state.text) is not None]
        shortest = [leaf.state.ids for leaf in ended if leaf.passes == min(leaf.passes for leaf in ended)]
        assert answer.node is not None and answer.node.state.ids in shortest
        for leaf in leaves:
            for line, following in pairwise(leaf.state.text.splitlines()):
                marked += line.endswith(f" {prompts.NO}")
                again += line.endswith(f" {prompts.NO}") and line.split()[:3] == following.split()[:3]
    assert marked > 10 and again > marked / 2
