"""Teach the reward model to write again: steps, whether each is right, and another one where it is not.

A trace is a solution in which a wrong line ends in No, and the same step comes again. Some wrong lines are those that
the solver wrote at this place of this problem, about as often as it did, so the model errs as before and learns to see
it: the more it errs, the longer it writes. Others are right lines with a digit swapped, which it learns only to see. It
starts from the reward model, which recognises a wrong token and was made of a model that solves, so it has both skills.
Its own head goes on learning at every token whether the line is right so far, and is dropped at the end.

    torchrun --nproc-per-node 2 -m training.retry --steps 1300 --until 300 --init src/thinktime/pocket/models/reward \\
        --samples runs/retry_samples --out runs/retry
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from thinktime.generators.text import shared
from thinktime.models.engine.llama import Llama
from thinktime.pocket import prompts
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import WordProblem
from thinktime.pocket.tokenizer import ASSISTANT, END, USER
from training.loop import TrainingRun
from training.skills import CONTEXT, RowBatch, TrainingRow, batches, grown, predict, read, row_options

MARK = 4.0
"""The weight of the end of a line against that of another token."""
SWAPPED = 0.2
"""Wrong lines by a swapped digit, for every right line."""
MOST = 0.6
"""The highest risk of a step, however often the solver failed there."""


@dataclass
class Course:
    """The solver's samples of a problem, step by step, each as far as it is right, and its wrong line."""

    problem: WordProblem
    reached: list[int]
    wrong: list[list[str]] = field(default_factory=list)

    def risk(self, place: int) -> float:
        """How often this step goes wrong; one in ten times where hardly any sample reached it."""
        return min(MOST, (len(self.wrong[place]) + 0.1) / (self.reached[place] + 1))


def courses(folder: Path, count: int, seed: int, tokenizer: Tokenizer) -> list[Course]:
    """One of every problem that was sampled; samples in another order than the reference end where they leave it."""
    found = []
    for solved in read(folder, "train", count, seed, tokenizer):
        steps = [step.text for step in solved.problem.steps]
        course = Course(solved.problem, [0] * len(steps), [[] for _ in steps])
        for sample in solved.samples:
            for place, (line, step) in enumerate(zip(sample.text.splitlines(), steps, strict=False)):
                course.reached[place] += 1
                if line != step:
                    right_in_another_order = place < len(sample.lines) and sample.lines[place][1]
                    course.wrong[place] += [] if right_in_another_order else [line]
                    break
        found.append(course)
    return found


class Line(NamedTuple):
    """One line of a trace. The model learns to see a line that is not its own, but not to write it."""

    text: str
    right: bool
    own: bool = True


def slipped(line: str, rng: Random) -> str:
    """The line with one digit another."""
    place = rng.choice([at for at, letter in enumerate(line) if letter.isdigit()])
    return line[:place] + rng.choice([digit for digit in "0123456789" if digit != line[place]]) + line[place + 1 :]


def trace(course: Course, rng: Random) -> list[Line]:
    """The solution with wrong lines in between, and after each the same step again."""
    lines = []
    for place, step in enumerate(course.problem.steps):
        while (drawn := rng.random()) < course.risk(place) + SWAPPED:
            if drawn < course.risk(place) and course.wrong[place]:
                lines.append(Line(rng.choice(course.wrong[place]), right=False))
            else:
                lines.append(Line(slipped(step.text, rng), right=False, own=False))
        lines.append(Line(step.text, right=True))
    return lines


def row_of(course: Course, tokenizer: Tokenizer, rng: Random) -> TrainingRow:
    """A row that teaches one trace."""
    row = TrainingRow().add(tokenizer.encode(USER + course.problem.question + ASSISTANT).ids)
    steps = iter(course.problem.steps)
    step = next(steps)
    for line, right, own in trace(course, rng):
        ids, should = tokenizer.encode(line).ids, tokenizer.encode(step.text).ids
        common = shared(ids, should)
        row.right_so_far |= {len(row.ids) + i: float(right or i < common) for i in range(len(ids))}
        row.add(ids, in_loss=own)
        row.add(tokenizer.encode("\n" if right else f" {prompts.NO}\n").ids, in_loss=True)
        step = next(steps, step) if right else step
    return row.add(tokenizer.encode(f"Answer: {course.problem.answer}{END}").ids, in_loss=True)


def rows_of(found: Sequence[Course], tokenizer: Tokenizer, rng: Random) -> Iterator[TrainingRow]:
    """Endless rows."""
    while True:
        for course in rng.sample(found, len(found)):
            row = row_of(course, tokenizer, rng)
            if len(row.ids) <= CONTEXT:
                yield row


def losses(model: Llama, backbone: Any, label: nn.Linear, batch: RowBatch, marks: Tensor) -> dict[str, Tensor]:
    """Cross entropy of the text, where the end of a line, marked or not, counts more; and of the label."""
    logits, target, labels = predict(model, backbone, label, batch)
    weight = 1.0 + (MARK - 1) * torch.isin(target, marks)
    text = (weight * F.cross_entropy(logits, target, reduction="none")).sum() / weight.sum()
    right = F.binary_cross_entropy_with_logits(labels, batch.right_so_far[batch.has_label])
    return {"text": text, "label": right}


def main() -> None:
    parser = row_options(__doc__, 4000, muon_rate=0.006, adam_rate=0.0015)
    parser.add_argument("--until", type=int, help="stop here, the rate still high; another run goes on with its own")
    args = parser.parse_args()
    run = TrainingRun(args)
    tokenizer = pocket_tokenizer.build(prompts.WORDS)
    found = courses(args.samples, args.problems, args.sample_seed, tokenizer)
    model, label = grown(args.init, tokenizer)
    backbone = torch.compile(model.model, dynamic=True)
    risk = sum(course.risk(place) for course in found for place in range(len(course.reached)))
    print(f"{len(found)} problems, a step is wrong {risk / sum(len(c.reached) for c in found):.3f} times", flush=True)
    marks = torch.tensor(tokenizer.encode(f" {prompts.NO}\n").ids)
    drawn = batches(rows_of(found, tokenizer, Random(args.seed + 1)), run, Random(args.seed))

    def loss_of(batch: RowBatch) -> tuple[dict[str, Tensor], Tensor]:
        return losses(model, backbone, label, batch, marks), batch.ids

    run.train(model, drawn, loss_of, falling=0.8, heads=label, stop=args.until)


if __name__ == "__main__":
    main()
