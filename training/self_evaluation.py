"""Teach the solver to say at every token whether another sample would be better (Manvi et al. 2024, arXiv 2410.02725).

The solver's own layers stay as they are; on top of them are two that have learnt to compare (`training.compare`, with
the solver for a backbone). The label of a sample is the share of the solver's other samples of the problem that are no
better, and it is the label of each of its tokens: in the middle of a sample that is the value of going on. As for the
reward model, problems whose samples disagree are set against each other in pairs. A second head learns at which token
a sample goes wrong, for one number a sample is too little to learn from; it is thrown away.

    torchrun --nproc-per-node 2 -m training.self_evaluation --steps 700 --init runs/skills/compare/final \
        --samples runs/skills/samples --dev runs/skills/dev --out runs/self
"""

from __future__ import annotations

import json
import time
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktime.engine.llama import Llama
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.tokenizer import STEP
from training.common import MuonAdam, average_gradients, rate_scale, start_processes, write_row
from training.compare import freeze
from training.reward import Batch, Solution, collate, endless, evaluate, loss_of, options, read


def value_loss(margin: Tensor, values: Tensor, batch: Batch) -> Tensor:
    """Cross entropy against the values of whole samples at every token, step ends and the last token most."""
    every = F.binary_cross_entropy_with_logits(margin, values[:, None].expand_as(margin), reduction="none")
    rows = torch.arange(len(batch.last))
    final = margin[rows, batch.last]
    pairs = batch.right[:, None] & ~batch.right[None, :] & (batch.problem[:, None] == batch.problem[None, :])
    against = F.softplus(-(final[:, None] - final[None, :])[pairs]).mean() if pairs.any() else final.sum() * 0
    asked = (batch.weight > 0).float()
    return (every * asked).sum() / asked.sum() + every[rows, batch.last].mean() + 0.3 * against


def main() -> None:
    args = options(__doc__).parse_args()
    rank, world = start_processes(args.seed)
    step_id = pocket_tokenizer.build().encode(STEP).ids[0]
    args.out.mkdir(parents=True, exist_ok=True)
    model = Llama.load(args.init).train()
    freeze(model, model.config.num_hidden_layers - args.layers)
    where = nn.Linear(model.config.hidden_size, 1)
    where.weight.data[0] = model.score.weight.data[1] - model.score.weight.data[0]
    nn.init.zeros_(where.bias)
    both = nn.ModuleDict({"model": model, "where": where})
    backbone = torch.compile(model.model, dynamic=True)
    optimizer = MuonAdam(both, args.muon_rate, args.adam_rate, args.weight_decay)
    problems, dev = read(args.samples, step_id), read(args.dev, step_id)
    log = (args.out / "log.jsonl").open("a")
    rng = Random(args.seed)
    start, step, running = time.time(), 0, 0.0
    for groups in endless(problems, rng, args.batch * world):
        mine: list[list[Solution]] = groups[rank::world]
        batch = collate(mine)
        values = torch.tensor([solution.value for group in mine for solution in group])
        with torch.autocast("cpu", torch.bfloat16):
            hidden = backbone(batch.ids)
            logits, places = model.head(hidden).float(), where(hidden).float()[..., 0]
        loss = value_loss(logits[..., 1] - logits[..., 0], values, batch) + loss_of(places, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(both, world, 0)
        optimizer.step(rate_scale(step, args.steps, falling=0.6))
        step += 1
        if step == args.steps:
            break
        if rank:
            continue
        running = 0.98 * running + 0.02 * loss.item() if step > 1 else loss.item()
        if step % 50 == 0:
            row: dict[str, object] = {"step": step, "minutes": round((time.time() - start) / 60, 2), "loss": running}
            write_row(log, row | (evaluate(model, dev[:150]) if step % 100 == 0 else {}))
    if not rank:
        model.save(args.out / "final", torch.float32)
        print(json.dumps(evaluate(model, dev)), flush=True)


if __name__ == "__main__":
    main()
