"""Train the solver; one run gives both products.

An early checkpoint of the run becomes the shipped solver, the end of it the backbone of the reward model.
Two processes of one thread each do more than one process of two; they average their gradients. The same command on the
same kind of processor gives the same weights.

    torchrun --nproc-per-node 2 -m training.solver --compile --steps 4600 --out runs/solver
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import LEVELS, MAX_VALUE, Step, WordProblem, draw, problems
from training.loop import TrainingRun, options, padded, start_as_identity

Backbone = Callable[[Tensor], Tensor]


def drill(rng: Random) -> WordProblem:
    """One sum, difference or product within the task's range: arithmetic before reading."""
    while True:
        sign = rng.choice("+-*")
        a, b = (rng.randint(1, 70), rng.randint(2, 9)) if sign == "*" else (rng.randint(1, 199), rng.randint(1, 110))
        value = {"+": a + b, "-": a - b, "*": a * b}[sign]
        if 1 <= value <= MAX_VALUE:
            step = Step(f"It is {a} {sign} {b} = {value}.")
            return WordProblem(f"What is {a} {sign} {b}?", (step,), value, 0, "drill", "drill")


def encode(tokenizer: Tokenizer, batch: Sequence[WordProblem], multiple: int = 16) -> tuple[Tensor, Tensor]:
    """Ids ``[batch, tokens]`` and the mask of the solution's tokens, right-padded to ``multiple`` + 1 tokens."""
    prompts = tokenizer.encode_batch_fast([pocket_tokenizer.prompt(p.question) for p in batch])
    solutions = tokenizer.encode_batch_fast([p.solution + pocket_tokenizer.END for p in batch])
    pairs = [(p.ids, s.ids) for p, s in zip(prompts, solutions, strict=True)]
    mask = [[False] * len(prompt) + [True] * len(solution) for prompt, solution in pairs]
    return padded([p + s for p, s in pairs], multiple, beyond=1), padded(mask, multiple, beyond=1, dtype=torch.bool)


def loss_of(model: Llama, backbone: Backbone, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross entropy over solution tokens, and whether each row is exact when teacher-forced."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = backbone(ids[:, :-1])
        logits = model.head(hidden[mask[:, 1:]]).float()
    target = ids[:, 1:][mask[:, 1:]]
    wrong = torch.zeros_like(mask[:, 1:])
    wrong[mask[:, 1:]] = logits.argmax(-1) != target
    return F.cross_entropy(logits, target), ~wrong.any(1)


def batches(seed: int, size: int, warm: int) -> Iterator[list[WordProblem]]:
    """Endless batches of fresh problems, sorted into buckets of similar length; easy ones first."""
    rng = Random(f"solver/{seed}")
    step = 0
    while True:
        top = LEVELS[-1] if step >= warm else max(1, math.ceil(step / warm * LEVELS[-1]))
        share = 0.25 if step < 4 * warm else 0.03
        pool = [
            drill(rng) if rng.random() < share else draw(rng, rng.randint(1, top), "train") for _ in range(8 * size)
        ]
        pool.sort(key=lambda p: len(p.question) + len(p.solution))
        chunks = [pool[i : i + size] for i in range(0, len(pool), size)]
        rng.shuffle(chunks)
        for chunk in chunks:
            yield chunk
            step += 1


def main() -> None:
    parser = options(__doc__, muon_rate=0.02, adam_rate=0.003)
    parser.add_argument("--falling", type=float, default=0.8, help="over which share of the steps the rate falls")
    parser.add_argument("--batch", type=int, default=32, help="problems a batch and process")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--warm", type=int, default=1000, help="steps until all levels are drawn")
    parser.add_argument("--init", type=Path, help="a checkpoint to go on from, with --warm 0 and another --seed")
    parser.add_argument("--save-every", type=float, default=2e6, help="tokens")
    parser.add_argument("--compile", action="store_true", help="a minute of warm-up, then 1.3 times the speed")
    args = parser.parse_args()
    run = TrainingRun(args)
    tokenizer = pocket_tokenizer.build()
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 11 // 4,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.heads,
        head_dim=args.hidden // args.heads,
    )
    model = Llama.load(args.init) if args.init else Llama(config)
    if not args.init:
        start_as_identity(model)
    backbone: Backbone = torch.compile(model.model, dynamic=True) if args.compile else model.model
    dev = [encode(tokenizer, list(problems("dev", 200, seed=9, levels=[level]))) for level in LEVELS]
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f"{n_parameters:,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    saved = 0

    def losses(batch: Sequence[WordProblem]) -> tuple[dict[str, Tensor], Tensor]:
        ids, mask = encode(tokenizer, batch)
        return {"loss": loss_of(model, backbone, ids, mask)[0]}, ids

    @torch.no_grad()
    def evaluate() -> dict[str, object]:
        scores = [loss_of(model, model.model, *data) for data in dev]
        return {
            "dev_loss": [round(loss.item(), 4) for loss, _ in scores],
            "dev_exact": [round(exact.float().mean().item(), 3) for _, exact in scores],
        }

    def save(tokens: int) -> None:
        nonlocal saved
        if tokens - saved >= args.save_every:
            saved = tokens
            model.save(args.out / f"{tokens / 1e6:05.1f}M", torch.float32)

    drawn = map(run.share, batches(args.seed, args.batch * run.world, args.warm))
    run.train(model, drawn, losses, falling=args.falling, log_every=100, evaluate=evaluate, after_step=save)


if __name__ == "__main__":
    main()
