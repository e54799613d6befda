"""Train two classifiers of digits that share neither images nor architecture: one to steer by, one to judge with.

    python -m training.digit_classifiers shared/data/mnist --out runs/digits

Each is trained on its own 1,500 images (`training.digits.PARTS`), moved and turned a little, and tested on the other's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from thinktime.models.diffusion.classifier import Classifier
from training.digits import CLASSES, SIDE, digits

LABELS = tuple(map(str, range(CLASSES)))
SHAPES = {"scorer": ((16, 32, 64), 3, 64), "judge": ((24, 48), 5, 96)}
"""Widths of the convolutions, their kernel, and the features."""


def moved(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Turned by up to 15 degrees, scaled and shifted by up to a tenth."""
    n = len(pictures)
    turn, scale, right, down = (torch.rand(4, n, generator=rng) * 2 - 1) * torch.tensor([[0.26], [0.1], [0.1], [0.1]])
    cos, sin = torch.cos(turn) * (1 + scale), torch.sin(turn) * (1 + scale)
    where = torch.stack([torch.stack([cos, -sin, right], -1), torch.stack([sin, cos, down], -1)], 1)
    grid = F.affine_grid(where, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    args = parser.parse_args()
    for seed, (name, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(seed)
        rng = torch.Generator().manual_seed(seed)
        pictures, labels = digits(args.data, name)
        pictures = pictures / 2 + 0.5
        model = Classifier(SIDE, 1, *shape, LABELS).train()
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
        steps = args.epochs * (len(pictures) // 50)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
        for _ in range(steps):
            chosen = torch.randint(len(pictures), (50,), generator=rng)
            loss = F.cross_entropy(model(moved(pictures[chosen], rng)), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        model.eval().save(args.out / name)
        held_out = {}
        for part in set(SHAPES) - {name} | {"generator"}:
            pictures, labels = digits(args.data, part)
            with torch.inference_mode():
                held_out[part] = round(float((model(pictures / 2 + 0.5).argmax(-1) == labels).double().mean()), 4)
        n_parameters = sum(p.numel() for p in model.parameters())
        print(json.dumps({"model": name, "accuracy_on": held_out, "parameters": n_parameters}))


if __name__ == "__main__":
    main()
