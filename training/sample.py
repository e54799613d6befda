"""Sample the shipped solver: the reward model's data.

Problems are drawn from the train split under a seed of their own; none is in dev or test, whose structures differ.
Every line of the output is one problem with its samples, checked step by step, and in the first wrong step to the token
that makes it wrong. Every process writes its own file.

    torchrun --nproc-per-node 2 -m training.sample --problems 20000 --samples 8 --out runs/samples
    python -m training.sample --split dev --problems 300 --samples 8 --out runs/dev
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from thinktime import pocket
from thinktime.generators.text import shared
from thinktime.models.engine.models import load_language_model
from thinktime.models.engine.rows import Row
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import WordProblem, check_steps, problems, read_answer
from thinktime.pocket.tokenizer import END, STEP

CHUNK = 64


def sampled(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of all files of a folder: a problem each, with its samples."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from map(json.loads, path.read_text().splitlines())


def row_of(ids: list[int], name: str) -> Row:
    """A row of the solver at the serving temperature, its noise fixed by the name."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    return Row(tuple(ids), key, pocket.MAX_TOKENS, pocket.TEMPERATURE)


def first_wrong(problem: WordProblem, tokenizer: Tokenizer, ids: Sequence[int], verdicts: Sequence[bool]) -> int:
    """Place of the first token that no right solution has there; ``len(ids)`` if all is right.

    In the first wrong line it is the token at which the line leaves every step that is possible there.
    """
    if all(verdicts):
        return len(ids)
    step_id = tokenizer.encode(STEP).ids[0]
    wrong = verdicts.index(False)
    starts = [0, *(place + 1 for place, token in enumerate(ids) if token == step_id)]
    right = [tokenizer.decode(list(ids[start : end - 1])) for start, end in pairwise(starts[: wrong + 1])]
    able = [text + (END if text.startswith("Answer") else STEP) for text in able_lines(problem, right)]
    line_ids = ids[starts[wrong] :]
    return starts[wrong] + max(shared(line_ids, tokenizer.encode(text).ids) for text in able)


def able_lines(problem: WordProblem, right: Sequence[str]) -> list[str]:
    """Every line that is right behind these right ones."""
    left = dict(enumerate(problem.steps))
    for line in right:
        del left[next(index for index, step in left.items() if step.text == line)]
    return [step.text for step in left.values() if not set(step.needs) & set(left)] or [f"Answer: {problem.answer}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=pocket.MODELS / "solver")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=40000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--split", default="train")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    model = load_language_model(args.model)
    engine, tokenizer = model.engine(max_rows=CHUNK * args.samples), pocket_tokenizer.build()
    args.out.mkdir(parents=True, exist_ok=True)
    start, done, right = time.time(), 0, 0
    drawn = tuple(problems(args.split, args.problems, seed=args.seed))
    with (args.out / f"{rank}.jsonl").open("w") as out:
        for first in range(CHUNK * rank, len(drawn), CHUNK * world):
            pairs = [(p, model.tokenizer.encode_chat(p.question)) for p in drawn[first : first + CHUNK]]
            outputs = iter(engine.run([row_of(ids, f"{p.id}/{i}") for p, ids in pairs for i in range(args.samples)]))
            for p, prompt in pairs:
                samples = []
                for output in islice(outputs, args.samples):
                    text = model.tokenizer.decode(output.ids)
                    correct = output.finish == "eos" and read_answer(text) == str(p.answer)
                    steps = check_steps(p, text)
                    wrong_at = first_wrong(p, tokenizer, output.ids, steps)
                    samples.append({"ids": output.ids, "steps": steps, "wrong_at": wrong_at, "correct": correct})
                    right += correct
                    done += 1
                line = {"id": p.id, "level": p.level, "family": p.family, "prompt": prompt, "samples": samples}
                out.write(json.dumps(line) + "\n")
            if not rank and done // (CHUNK * args.samples) % 20 == 0:
                rate = done / (time.time() - start)
                print(f"{done} samples, {right / done:.3f} right, {rate:.0f} a second", flush=True)


if __name__ == "__main__":
    main()
