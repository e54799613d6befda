"""Tree search without a reward model: a step is a line, and the likeliest nodes are kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.engine.measure import Timed, alternate, ratio, spread
from benchmarks.engine.peers import Continuation, Transformers
from thinktime.models.engine.costs import Account
from thinktime.models.engine.models import LanguageModel
from thinktime.models.engine.rows import Row
from thinktime.pocket import TEMPERATURE
from thinktime.pocket.problems import problems

LINE = 40
KEPT = 4
Ids = tuple[int, ...]
Extend = Callable[[Sequence[Ids]], list[Continuation]]


@dataclass
class Grown:
    """The record of a search: every submitted prefix, and every returned text."""

    timed: Timed = field(default_factory=lambda: Timed(0, 0.0))
    submitted: list[Ids] = field(default_factory=list)
    texts: list[Ids] = field(default_factory=list)
    account: Account | None = None


def grow(roots: Sequence[Ids], extend: Extend, ends: Collection[int], width: int, depth: int) -> Grown:
    """Beam search over lines: ``width`` children per problem and level; `KEPT` of the unfinished ones continue."""
    grown = Grown()
    started, tokens = time.perf_counter(), 0
    beams: list[list[tuple[Ids, float]]] = [[(root, 0.0)] for root in roots]
    for _ in range(depth):
        parents = [
            (index, *node) for index, beam in enumerate(beams) for node in beam for _ in range(width // len(beam))
        ]
        if not parents:
            break
        children = extend([ids for _, ids, _ in parents])
        grown.submitted += [ids for _, ids, _ in parents]
        tokens += sum(len(child.ids) for child in children)
        beams = [[] for _ in roots]
        for (index, ids, logprob), child in zip(parents, children, strict=True):
            grown.texts.append(ids + child.ids)
            if child.ids[-1] not in ends:
                beams[index].append((ids + child.ids, logprob + child.logprob))
        beams = [sorted(beam, key=lambda node: -node[1])[:KEPT] for beam in beams]
    grown.timed = Timed(tokens, time.perf_counter() - started)
    return grown


def measure(
    solver: LanguageModel, peer: Transformers, n_problems: int, width: int, depth: int, rounds: int
) -> dict[str, Any]:
    """Measure time and tokens of the same search on both engines."""
    questions = [problem.question for problem in problems("test", n_problems, seed=6)]
    roots = [tuple(solver.tokenizer.encode_chat(question)) for question in questions]
    eos = solver.tokenizer.eos_id
    newlines = solver.tokenizer.ids_containing("\n")
    seeds = itertools.count()

    def ours() -> Grown:
        engine, keys = solver.engine(max_rows=n_problems * width), itertools.count(next(seeds) << 32)

        def extend(prefixes: Sequence[Ids]) -> list[Continuation]:
            rows = [Row(ids, next(keys), LINE, TEMPERATURE, stop_ids=newlines) for ids in prefixes]
            return [Continuation(output.ids, sum(output.logprobs)) for output in engine.run(rows)]

        grown = grow(roots, extend, [eos], width, depth)
        grown.account = engine.account
        return grown

    def theirs() -> Grown:
        def extend(prefixes: Sequence[Ids]) -> list[Continuation]:
            return peer.generate(prefixes, LINE, [eos, *newlines], TEMPERATURE, logprobs=True)

        return grow(roots, extend, [eos], width, depth)

    results = alternate({"ours": ours, "generate": theirs}, rounds)
    seconds = {name: [grown.timed.seconds for grown in runs] for name, runs in results.items()}
    per_token = {name: [1 / grown.timed.rate for grown in runs] for name, runs in results.items()}
    return {
        "rounds": rounds,
        "problems": n_problems,
        "width": width,
        "depth": depth,
        "kept": KEPT,
        "generated_tokens": {name: spread([g.timed.tokens for g in runs], 6) for name, runs in results.items()},
        "prompt_tokens_submitted": {
            name: spread([sum(map(len, g.submitted)) for g in runs], 6) for name, runs in results.items()
        },
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "time_ratio": ratio(seconds["generate"], seconds["ours"]),
        "time_ratio_per_token": ratio(per_token["generate"], per_token["ours"]),
        "reading": _computed(results["ours"]),
    }


def _computed(runs: Sequence[Grown]) -> dict[str, Any]:
    """The share of submitted tokens that were computed; a row's drawn and processed tokens count as its own."""
    prompt, everything = [], []
    for grown in runs:
        assert grown.account is not None
        prompt.append(grown.account.prompt_computed / distinct(grown.submitted))
        texts = itertools.chain(grown.submitted, (text[:-1] for text in grown.texts))
        everything.append(grown.account.tokens / distinct(texts))
    return {
        "prompt_computed_per_distinct_prompt_token": spread(prompt),
        "tokens_computed_per_distinct_token": spread(everything),
    }


def distinct(texts: Iterable[Ids]) -> int:
    """Edges of the trie of all texts."""
    nodes: dict[tuple[int, int], int] = {}
    for text in texts:
        node = 0
        for token in text:
            node = nodes.setdefault((node, token), len(nodes) + 1)
    return len(nodes)
