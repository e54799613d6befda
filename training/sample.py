"""Sample the shipped solver on fresh training problems: the reward model's data.

Problems are drawn from the train split under a seed of their own, so none was in the solver's training stream
by design of the draw, and none is in dev or test by structure. Every line of the output is one problem with its
samples, checked step by step.

    python -m training.sample --model runs/shipped --problems 40000 --samples 4 --out runs/samples.jsonl
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch

from thinktime.engine.generate import Row
from thinktime.engine.models import load_language_model
from thinktime.pocket.problems import check_steps, problems, read_answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=40000)
    parser.add_argument("--first", type=int, default=0, help="skip this many problems")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--split", default="train")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_language_model(args.model)
    start, done, right = time.time(), 0, 0
    with args.out.open("a") as out:
        pool = list(problems(args.split, args.problems, seed=args.seed))[args.first :]
        for at in range(0, len(pool), 64):
            # a chunk of similar lengths wastes little padding
            chunk = sorted(pool[at : at + 64], key=lambda p: len(p.question))
            for part in (chunk[:32], chunk[32:]):
                rows = [
                    Row(
                        tuple(model.tokenizer.encode_chat(problem.question)),
                        int.from_bytes(hashlib.blake2b(f"{problem.id}/{i}".encode(), digest_size=8).digest(), "big"),
                        max_tokens=200,
                        temperature=args.temperature,
                    )
                    for problem in part
                    for i in range(args.samples)
                ]
                if not rows:
                    continue
                outputs = model.generate(rows)
                for place, problem in enumerate(part):
                    mine = outputs[place * args.samples : (place + 1) * args.samples]
                    samples = []
                    for output in mine:
                        text = model.tokenizer.decode(output.ids)
                        correct = output.finish == "eos" and read_answer(text) == str(problem.answer)
                        samples.append(
                            {"ids": output.ids, "steps": check_steps(problem, text), "correct": correct,
                             "logprob": sum(output.logprobs)}
                        )  # fmt: skip
                        right += correct
                        done += 1
                    ids = rows[place * args.samples].ids
                    line = {"id": problem.id, "level": problem.level, "family": problem.family,
                            "prompt": ids, "answer": problem.answer, "samples": samples}  # fmt: skip
                    out.write(json.dumps(line) + "\n")
            if at // 64 % 10 == 9:
                rate = done / (time.time() - start)
                print(f"{done} samples, {right / done:.3f} right, {rate:.0f} a second", flush=True)
            if time.time() - start > 60 * args.minutes:
                break


if __name__ == "__main__":
    main()
