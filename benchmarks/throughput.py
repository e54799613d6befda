"""Sampling speed of the shipped solver: our batched loop against ``transformers.generate``, in one run.

    make bench        # or: python -m benchmarks.throughput

Both sample the same prompts at the same temperature to the end of the solution, on all cores, in float32. A figure is
useful tokens a second, counting no padding; the ratio is what to quote, the seconds belong to this machine.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from thinktime import pocket
from thinktime.bench.environment import environment
from thinktime.engine.models import load_language_model
from thinktime.engine.rows import Row
from thinktime.pocket.problems import problems

ROUNDS = 3


def main() -> None:
    directory = pocket.directory("solver")
    ours = load_language_model(directory, "float32")
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    questions = [problem.question for problem in problems("test", 256, seed=5)]
    prompts = [ours.tokenizer.encode_chat(question) for question in questions]
    eos, pad = ours.tokenizer.eos_id, tokenizer.pad_token_id

    def sample_ours(first: int, size: int) -> int:
        rows = [
            Row(tuple(ids), key, pocket.MAX_TOKENS, pocket.TEMPERATURE)
            for key, ids in enumerate(prompts[first : first + size])
        ]
        return sum(len(output.ids) for output in ours.engine().run(rows))

    @torch.inference_mode()
    def sample_theirs(first: int, size: int) -> int:
        batch = tokenizer.pad({"input_ids": prompts[first : first + size]}, return_tensors="pt")
        out = theirs.generate(
            **batch,
            do_sample=True,
            temperature=pocket.TEMPERATURE,
            top_k=0,
            max_new_tokens=pocket.MAX_TOKENS,
            eos_token_id=eos,
            pad_token_id=pad,
        )
        return int((out[:, batch["input_ids"].shape[1] :] != pad).sum())

    table = {}
    for size in (1, 16, 64, 128):
        rates: dict[str, list[float]] = {"ours": [], "transformers": []}
        for round_ in range(ROUNDS + 1):  # alternating, the first round warms up
            for name, sample in (("ours", sample_ours), ("transformers", sample_theirs)):
                rate = _rate(sample, (round_ * size) % 128, size)
                if round_:
                    rates[name].append(rate)
        mine, peer = median(rates["ours"]), median(rates["transformers"])
        table[str(size)] = {"ours": round(mine), "transformers": round(peer), "ratio": round(mine / peer, 2)}
        print(f"{size:4d} rows: {mine:7.0f} tokens/s, transformers.generate {peer:7.0f}, ratio {mine / peer:.2f}")
    result = {"command": " ".join(sys.argv), "environment": environment(), "rounds": ROUNDS, "tokens_per_second": table}
    (Path(__file__).parent / "throughput.json").write_text(json.dumps(result, indent=1) + "\n")


def _rate(sample: Callable[[int, int], int], first: int, size: int) -> float:
    start = time.perf_counter()
    tokens = sample(first, size)
    return tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
