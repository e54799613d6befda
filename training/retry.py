"""Teach the reward model to write again: steps, whether each is right, and another one where it is not.

A trace is a solution in which a wrong line ends in No, and the same step comes again. Some wrong lines are those that
the solver wrote at this place of this problem, about as often as it did, so the model errs as before and learns to see
it: the more it errs, the longer it writes. Others are right lines with a digit swapped, which it learns to see only. It
starts from the reward model, which can tell a wrong token and was made of a model that solves; what it needs of either
is still there. Its own head goes on learning at every token whether the line is right so far, and is thrown away.

    torchrun --nproc-per-node 2 -m training.retry --steps 1300 --until 300 --init src/thinktime/pocket/models/reward \\
        --samples runs/retry_samples --out runs/retry
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from thinktime.engine.llama import Llama
from thinktime.generators.text import shared
from thinktime.pocket import prompts
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import WordProblem
from thinktime.pocket.tokenizer import ASSISTANT, END, USER
from training.common import MuonAdam, average_gradients, rate_scale, start_processes, write_row
from training.skills import CONTEXT, PAD_ID, Batch, Row, batches, collate, grown, read

MARK = 4.0
"""The weight of the end of a line against that of another token."""
SWAPPED = 0.2
"""Wrong lines that nobody wrote, for every right one."""
MOST = 0.6
"""The highest risk of a step, however often the solver failed there."""


@dataclass
class Course:
    """What the solver's samples did at every step of a problem, as long as all before it was right."""

    problem: WordProblem
    reached: list[int]
    wrong: list[list[str]] = field(default_factory=list)

    def risk(self, place: int) -> float:
        """How often this step goes wrong; where hardly any sample came so far, one in ten times."""
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
    """One line of a trace. What is not the model's own it learns to see, but not to write."""

    text: str
    right: bool
    own: bool = True


def slipped(line: str, rng: Random) -> str:
    """The line with one digit another."""
    place = rng.choice([at for at, letter in enumerate(line) if letter.isdigit()])
    return line[:place] + rng.choice([digit for digit in "0123456789" if digit != line[place]]) + line[place + 1 :]


def trace(course: Course, rng: Random) -> list[Line]:
    """The solution with wrong lines in between, behind each the same step again: the solver's, and digits swapped."""
    lines = []
    for place, step in enumerate(course.problem.steps):
        while (dice := rng.random()) < course.risk(place) + SWAPPED:
            if dice < course.risk(place) and course.wrong[place]:
                lines.append(Line(rng.choice(course.wrong[place]), right=False))
            else:
                lines.append(Line(slipped(step.text, rng), right=False, own=False))
        lines.append(Line(step.text, right=True))
    return lines


def row_of(course: Course, tokenizer: Tokenizer, rng: Random) -> Row:
    """A row that teaches one trace."""
    row = Row().add(tokenizer.encode(USER + course.problem.question + ASSISTANT).ids)
    steps = iter(course.problem.steps)
    step = next(steps)
    for line, right, own in trace(course, rng):
        ids, should = tokenizer.encode(line).ids, tokenizer.encode(step.text).ids
        common = shared(ids, should)
        row.judged |= {len(row.ids) + i: float(right or i < common) for i in range(len(ids))}
        row.add(ids, said=own)
        row.add(tokenizer.encode("\n" if right else f" {prompts.NO}\n").ids, said=True)
        step = next(steps, step) if right else step
    return row.add(tokenizer.encode(f"Answer: {course.problem.answer}{END}").ids, said=True)


def rows_of(found: Sequence[Course], tokenizer: Tokenizer, rng: Random) -> Iterator[Row]:
    """Endless rows."""
    while True:
        for course in rng.sample(found, len(found)):
            row = row_of(course, tokenizer, rng)
            if len(row.ids) <= CONTEXT:
                yield row


def losses(model: Llama, backbone: Any, label: nn.Linear, batch: Batch, marks: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of what is said, where the end of a line, marked or not, counts more; and of the label."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = backbone(batch.ids)
        said = batch.said[:, 1:]
        logits = model.head(hidden[:, :-1][said]).float()
        judged = label(hidden[batch.has_label]).float()[..., 0]
    target = batch.ids[:, 1:][said]
    weight = 1.0 + (MARK - 1) * torch.isin(target, marks)
    speech = (weight * F.cross_entropy(logits, target, reduction="none")).sum() / weight.sum()
    return speech, F.binary_cross_entropy_with_logits(judged, batch.judged[batch.has_label])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True, help="of the solver, by training.sample")
    parser.add_argument("--problems", type=int, default=4000)
    parser.add_argument("--sample-seed", type=int, default=17)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--until", type=int, help="stop here, the rate still high; another run goes on with its own")
    parser.add_argument("--tokens", type=int, default=4096, help="padded tokens a batch and process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--muon-rate", type=float, default=0.006)
    parser.add_argument("--adam-rate", type=float, default=0.0015)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    args = parser.parse_args()
    rank, world = start_processes(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = pocket_tokenizer.build(prompts.WORDS)
    found = courses(args.samples, args.problems, args.sample_seed, tokenizer)
    model, label = grown(args.init, tokenizer)
    both = nn.ModuleDict({"model": model, "label": label}).train()
    backbone = torch.compile(model.model, dynamic=True)
    optimizer = MuonAdam(both, args.muon_rate, args.adam_rate, args.weight_decay)
    risk = sum(course.risk(place) for course in found for place in range(len(course.reached)))
    print(f"{len(found)} problems, a step is wrong {risk / sum(len(c.reached) for c in found):.3f} times", flush=True)
    marks = torch.tensor(tokenizer.encode(f" {prompts.NO}\n").ids)
    log = (args.out / "log.jsonl").open("a")
    rng, start, tokens, running = Random(args.seed), time.time(), 0, [0.0, 0.0]
    for step, chunk in enumerate(batches(rows_of(found, tokenizer, Random(args.seed + 1)), args.tokens, world, rng)):
        batch = collate(chunk[rank::world])
        speech, marked = losses(model, backbone, label, batch, marks)
        (speech + marked).backward()  # type: ignore[no-untyped-call]
        tokens += average_gradients(both, world, int((batch.ids != PAD_ID).sum()))
        optimizer.step(rate_scale(step, args.steps, falling=0.8))
        if step + 1 == (args.until or args.steps):
            break
        new = [speech.item(), marked.item()]
        running = [0.95 * old + 0.05 * now for old, now in zip(running, new, strict=True)] if step else new
        if not rank and step % 50 == 49:
            minutes = round((time.time() - start) / 60, 2)
            losses_now = {"speech": round(running[0], 4), "label": round(running[1], 4)}
            write_row(log, {"step": step + 1, "tokens": tokens, "minutes": minutes, **losses_now})
        if not rank and step % 100 == 99:
            model.save(args.out / "latest", torch.float32)
    if not rank:
        model.save(args.out / "final", torch.float32)
        print(json.dumps({"minutes": round((time.time() - start) / 60, 2)}), flush=True)


if __name__ == "__main__":
    main()
