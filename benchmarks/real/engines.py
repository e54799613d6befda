"""Our engine and llama.cpp in process on the same GGUF file: do their greedy tokens agree, and what does a token cost?

python -m benchmarks.real.engines MODEL.gguf --output result.json

The cost is processor time of the whole process, so only the ratio of the two engines counts on a machine that does
other work too. Rounds alternate between the engines.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from thinktime.files import write_whole
from thinktime.models.engine.llamacpp_model import LlamaCppModel, load_llamacpp_model
from thinktime.models.engine.models import LanguageModel, load_language_model
from thinktime.models.engine.rows import Read, Row

SUBJECTS = ("the sum of 17 and 25", "a prime above 50", "the capital of France", "how to sort a list", "why ice floats")
ASKED = ("Say in one line: {}", "Explain {}.", "Write Python code about {}.")
Loaded = LanguageModel | LlamaCppModel


def prompts(n: int) -> list[str]:
    """Distinct short prompts."""
    every = [text.format(subject) for text in ASKED for subject in SUBJECTS]
    return [every[i % len(every)] + (f" ({i})" if i >= len(every) else "") for i in range(n)]


def agreement(own: LanguageModel, other: LlamaCppModel, n: int, tokens: int) -> list[dict[str, Any]]:
    """For each prompt, the first position at which the greedy tokens differ, and how far apart the two tokens are.

    The gap is a difference of log-probabilities in our engine, so of logits too.
    """
    rows = [Row(tuple(own.tokenizer.encode_chat(prompt)), 0, tokens, 0.0) for prompt in prompts(n)]
    engine = own.engine()
    found: list[dict[str, Any]] = []
    for task, a, b in zip(rows, engine.run(rows), other.engine().run(rows), strict=True):
        place = next((i for i, (x, y) in enumerate(zip(a.ids, b.ids, strict=False)) if x != y), None)
        gap = None
        if place is not None:
            before = task.ids + a.ids[:place]
            ours, theirs = engine.run([Read((*before, each.ids[place]), len(before)) for each in (a, b)])
            assert ours.values is not None and theirs.values is not None
            gap = round(float(ours.values[0] - theirs.values[0]), 4)
        same_prompt = list(task.ids) == other.tokenizer.encode_chat(prompts(n)[len(found)])
        found.append({"same_prompt_ids": same_prompt, "tokens": len(a.ids), "first_difference": place, "gap": gap})
    return found


def cost(model: Loaded, rows: int, tokens: int, seed: int) -> float:
    """Processor seconds per token of distinct prompts, with their processing, at temperature 1."""
    asked = [model.tokenizer.encode_chat(prompt) for prompt in prompts(rows)]
    engine = model.engine()
    started = time.process_time()
    outputs = engine.run([Row(tuple(ids), seed + i, tokens) for i, ids in enumerate(asked)])
    return (time.process_time() - started) / sum(len(output.ids) for output in outputs)


def costs(own: Loaded, other: Loaded, rows: Sequence[int], tokens: int, rounds: int) -> list[dict[str, Any]]:
    """The costs of both engines for each number of rows, and their ratio within each round."""
    found = []
    for n in rows:
        pairs = [(cost(own, n, tokens, seed), cost(other, n, tokens, seed)) for seed in range(rounds)]
        ours, theirs = (median(each) for each in zip(*pairs, strict=True))
        ratios = [round(b / a, 3) for a, b in pairs]
        found.append({"rows": n, "own": round(ours, 5), "llamacpp": round(theirs, 5), "llamacpp_over_own": ratios})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    own, other = load_language_model(given.model, given.dtype), load_llamacpp_model(given.model)
    result = {
        "model": other.weights,
        "dtype": own.weights_dtype,
        "agreement": agreement(own, other, given.prompts, given.tokens),
        "processor_seconds_per_token": costs(own, other, given.rows, given.tokens, given.rounds),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if given.output is not None:
        write_whole(given.output, text + "\n")


if __name__ == "__main__":
    main()
