"""Write a trained checkpoint as a shipped model: fp16 weights, tokenizer, chat template, and a line about it.

python -m training.ship solver runs/solver/final
python -m training.ship reward runs/reward/final
python -m training.ship skilled runs/skills/run/final
python -m training.ship retry runs/retry/final
python -m training.ship self_evaluation runs/skills/self/final --scale 0.9
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from thinktime.models.engine.directories import weights_digest
from thinktime.models.engine.llama import Llama
from thinktime.pocket import MAX_TOKENS, MODELS, TEMPERATURE, prompts
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.scorers.prm import NO_WORSE

DESCRIPTION = {
    "solver": "writes multi-step solutions to word problems, one step a line, and errs",
    "reward": "process reward model: the probability, at every token, that the solution is right so far",
    "self_evaluation": "the solver's own layers and two more: the probability, at every token, that no other sample "
    "would be better",
    "skilled": "solves, checks, judges, revises and plans",
    "retry": "solves, says of every step whether it is right, and writes it again where it is not",
}
MORE_WORDS = ("skilled", "retry")
LABELS = {"reward": ("wrong", "right"), "self_evaluation": ("worse", NO_WORSE)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(DESCRIPTION))
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, help="default: the package's own folder")
    parser.add_argument("--scale", type=float, default=1.0, help="of a judge's logits, from training.calibrate")
    args = parser.parse_args()
    out = args.out or MODELS / args.kind
    model = Llama.load(args.checkpoint)
    parameters = sum(p.numel() for p in model.parameters())
    extra: dict[str, object] = {"thinktime": {"description": f"{parameters:,} parameters; {DESCRIPTION[args.kind]}"}}
    tokenizer = pocket_tokenizer.build(prompts.WORDS if args.kind in MORE_WORDS else ())
    eos, pad = tokenizer.token_to_id(pocket_tokenizer.END), tokenizer.token_to_id(pocket_tokenizer.PAD)
    extra |= {"eos_token_id": eos, "pad_token_id": pad, "bos_token_id": None}
    if args.kind in LABELS:
        model.score.weight.data *= args.scale
        model.score.bias.data *= args.scale
        labels = LABELS[args.kind]
        label_ids = {label: place for place, label in enumerate(labels)}
        extra |= {"id2label": dict(enumerate(labels)), "label2id": label_ids, "num_labels": 2}
    model.save(out, torch.float16, **extra)
    pocket_tokenizer.save(tokenizer, out, model.config.max_position_embeddings)
    if args.kind not in LABELS:
        generation: dict[str, object] = {"do_sample": True, "temperature": TEMPERATURE, "max_new_tokens": MAX_TOKENS}
        generation |= {"eos_token_id": eos, "pad_token_id": pad}
        (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {parameters:,} parameters, {size / 2**20:.2f} MiB, fingerprint {weights_digest(out)}")


if __name__ == "__main__":
    main()
