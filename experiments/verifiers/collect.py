"""Score the samples of an export by a model, and keep its hidden states, in steps that can be interrupted.

    python -m experiments.verifiers.collect EXPORT --data FOLDER --model NAME --out scores.jsonl

The export has been judged (`experiments.banks.judge`). Its problems that have right and wrong samples come first, in
their order, because a selection can be wrong on these
alone; then the others. Samples of a problem with the same text are scored once. ``--out`` gets a line for each
problem: the P(Yes) of each sample, asked at its end and after half of its lines, the verdicts of its checks, and what
all that cost. ``--states`` is a folder that gets the hidden states at the ends of lines, for
``experiments.verifiers.train``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from experiments.banks.judge import judged_pool
from thinktime.bench.bank_export import LONGEST, header_of
from thinktime.bench.jsonl import read_jsonl
from thinktime.bench.samples import Sample, Sampled
from thinktime.bench.tasks import load
from thinktime.core.types import Extension, Node, Problem, Sampling
from thinktime.core.usage import total
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import RemoteText, messages_of, steps_of, with_context
from thinktime.prompts.common import CHECK
from thinktime.prompts.turns import assistant, user
from thinktime.scorers.head import in_ids
from thinktime.scorers.p_yes import YesProbability
from thinktime.session import model_path

LAYERS = (5, 11, 15, 19, 23)
"""The layers whose hidden states are kept, of the 24 of the 0.5B."""


CHECKS, CHECK_TOKENS = 4, 48
CHECK_WORDS = """Is this solution right? Write one short sentence that says why or why not. \
Then end with one line, either "Verdict: Yes" or "Verdict: No"."""


@dataclass(frozen=True)
class Todo:
    """A problem and its different samples, by text: the places of those that have it."""

    problem: Problem
    sampled: Sampled
    places: dict[str, list[int]]

    @property
    def mixed(self) -> bool:
        """Whether the samples with an answer are right and wrong."""
        return len({sample.correct for sample in self.sampled.samples if sample.answered}) == 2


def todo(problem: Problem, sampled: Sampled, few: int | None) -> Todo:
    """The different answered samples of a problem; with ``few``, the first so many right and wrong ones."""
    kept: dict[str, list[int]] = {}
    for place, sample in enumerate(sampled.samples):
        if sample.answered:
            kept.setdefault(sample.text, []).append(place)
    if few is not None:
        right = [text for text, places in kept.items() if sampled.samples[places[0]].correct]
        wrong = [text for text in kept if text not in right]
        kept = {text: places for text, places in kept.items() if text in (*right[:few], *wrong[:few])}
    return Todo(problem, sampled, kept)


def with_texts(path: Path, n: int) -> list[Sampled]:
    """The judged samples of an export with their texts, which the judgements leave out."""
    rows = (row for _, row in read_jsonl(path, LONGEST) if "index" in row and "cut" not in row)
    texts = {(row["problem"], row["index"]): row["text"] for row in rows}
    return [
        replace(
            problem,
            samples=tuple(replace(each, text=texts[problem.id, i]) for i, each in enumerate(problem.samples)),
        )
        for problem in judged_pool(path, n).problems
    ]


def half(text: str) -> str:
    """The first half of the lines."""
    lines = steps_of(RemoteText("", text, step_ends=tuple(_line_ends(text))))
    return "".join(lines[: max(1, len(lines) // 2)])


def _line_ends(text: str) -> Iterable[int]:
    place = 0
    for line in text.splitlines(keepends=True):
        place += len(line)
        yield place


def node(text: str, *, done: bool) -> Node:
    """A node with this text."""
    state = RemoteText("", text, step_ends=tuple(_line_ends(text)))
    return Node(text, (0,), state, finish="eos" if done else "step")


class Meter:
    """What is computed from one moment to another: seconds of the processor, and tokens if the engine counts them."""

    def __init__(self, generator: LocalGenerator) -> None:
        self._account = getattr(generator.engine, "account", None)
        self._begun = self._tokens(), time.process_time()

    def read(self, scores: int) -> dict[str, float]:
        """The cost since the start; a prefix that the engine has stored costs nothing."""
        tokens, seconds = self._begun
        counted = {} if self._account is None else {"computed": self._tokens() - tokens}
        return {**counted, "seconds": round(time.process_time() - seconds, 3), "scores": scores}

    def _tokens(self) -> int:
        return 0 if self._account is None else int(self._account.prompt_computed)


def ask(
    scorer: YesProbability, generator: LocalGenerator, one: Todo, texts: Sequence[str], *, done: bool
) -> tuple[list[float | None], dict[str, float]]:
    """P(Yes) of texts, and the cost of all. ``tokens`` are charged: the first pays for the prompt."""
    nodes = [node(text, done=done) for text in texts]
    known = [None, *[nodes[0]] * (len(nodes) - 1)]
    meter = Meter(generator)
    scores = asyncio.run(scorer.score(one.problem, nodes, known))
    cost = {"tokens": total(score.usage for score in scores).scorer_tokens, **meter.read(len(nodes))}
    return [score.value for score in scores], cost


def check(
    generator: LocalGenerator, one: Todo, texts: Sequence[str]
) -> tuple[list[list[float | None]], dict[str, float]]:
    """The verdicts of short written checks of texts, 1 for yes and 0 for no, and the cost of all."""
    meter = Meter(generator)
    turns = messages_of(with_context(one.problem))
    sampling = Sampling(0.7, max_length=CHECK_TOKENS)
    roots = []
    for text in texts:
        prompt = Problem(one.problem.id, [*turns, assistant(text.strip()), user(CHECK_WORDS)])
        roots.append(Node(f"{one.problem.id}/{text}/check", (), generator.root(prompt)))
    asked = [
        Extension(root, i, hashlib.blake2b(f"{root.key}/{i}".encode()).hexdigest(), "done", sampling, CHECK_TOKENS)
        for root in roots
        for i in range(CHECKS)
    ]
    replies = asyncio.run(generator.extend(asked))
    verdicts = [CHECK.read(reply.state, 1) if reply.finish == "eos" else None for reply in replies]
    cost = {"generated": sum(reply.length for reply in replies), **meter.read(len(replies))}
    return [verdicts[place : place + CHECKS] for place in range(0, len(verdicts), CHECKS)], cost


def states(generator: LocalGenerator, one: Todo) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, float]]:
    """The hidden states at the ends of the lines of every answered sample, ``[lines, layers, hidden]``; their cost."""
    meter = Meter(generator)
    every = [in_ids(generator, one.problem, node(text, done=True)) for text in one.places]
    found = asyncio.run(generator.step_states(every, LAYERS))
    arrays = [each.numpy().astype(np.float16) for each in found]
    pairs = zip(one.places.values(), arrays, strict=True)
    return {str(place): each for places, each in pairs for place in places}, meter.read(len(every))


def labels(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """What the file says of each sample beside the scores."""
    return [{"right": sample.correct, "answered": sample.answered, "tokens": sample.length} for sample in samples]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--data", type=Path, help="a folder with the benchmark's files")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--engine", choices=("own", "llamacpp"), default="own")
    parser.add_argument("--samples", type=int, default=8, help="of each problem")
    parser.add_argument("--problems", type=int, help="how many; all unless given")
    parser.add_argument("--few", type=int, help="score so many right and so many wrong samples of a problem")
    parser.add_argument("--mixed", action="store_true", help="only problems with right and wrong samples")
    parser.add_argument("--ask", choices=("end", "both", "none"), default="both", help="where P(Yes) is asked")
    parser.add_argument("--check", action="store_true", help="sample short written checks")
    parser.add_argument("--states", type=Path, help="keep hidden states in this folder")
    parser.add_argument("--seconds", type=float, default=560.0, help="stop after so long; the next run goes on")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    started = time.monotonic()
    header = header_of(args.export)
    task = load(header["task"]["name"], data=args.data, split=header["task"].get("split", "test"))
    problems = {problem.id: problem for problem in task.problems}
    every = [todo(problems[sampled.id], sampled, args.few) for sampled in with_texts(args.export, args.samples)]
    ordered = sorted((one for one in every if one.places), key=lambda one: not one.mixed)
    if args.mixed:
        ordered = [one for one in ordered if one.mixed]
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    known = {json.loads(line)["problem"] for line in lines}
    generator = LocalGenerator(model_path(args.model), dtype="float16", engine=args.engine)
    scorer = YesProbability(generator)
    print(f"{len(ordered)} problems, {len(known)} of them are done", flush=True)
    for one in ordered[: args.problems]:
        if one.sampled.id in known:
            continue
        if time.monotonic() - started > args.seconds:
            break
        row: dict[str, Any] = {"problem": one.sampled.id, "mixed": one.mixed, "samples": labels(one.sampled.samples)}
        if args.states is not None:
            args.states.mkdir(parents=True, exist_ok=True)
            arrays, row["states_cost"] = states(generator, one)
            save_file(arrays, args.states / f"{one.sampled.id}.safetensors")
        parts = {"end": list(one.places)} if args.ask != "none" else {}
        if args.ask == "both":
            parts["half"] = list(map(half, one.places))
        for name, texts in parts.items():
            values, cost = ask(scorer, generator, one, texts, done=name == "end")
            row[f"{name}_cost"] = cost
            for value, places in zip(values, one.places.values(), strict=True):
                for place in places:
                    row["samples"][place][name] = value
        if args.check:
            verdicts, row["check_cost"] = check(generator, one, list(one.places))
            for mine, places in zip(verdicts, one.places.values(), strict=True):
                for place in places:
                    row["samples"][place]["check"] = mine
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
