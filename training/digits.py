"""Train the shipped image model: class-conditional digits of 16 x 16, by diffusion.

    python -m training.digits shared/data/mnist --out runs/digits

The folder holds MNIST's files as they are distributed (IDX, gzip; of the training or the test half, whichever is
there). Of 10,000 images 7,000 train this model; the scorer's classifier and the judge's (`training.digit_classifiers`)
are trained on 1,500 each, so no image serves two. A digit is what a 24 x 24 window in the middle
shows, made smaller.

The model predicts v (Salimans and Ho 2022, arXiv 2202.00512) on a cosine schedule; one label in ten is replaced by an
eleventh, so it also draws digits without a label. The averaged weights are shipped, as a directory of ``diffusers``. A
killed run goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.loop import rate_scale, write_row

SIDE, CLASSES = 16, 10
HIDDEN = CLASSES
"""The label of a digit whose class is hidden."""
PARTS = {"generator": (0, 7000), "scorer": (7000, 8500), "judge": (8500, 10000)}


def digits(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images [n, 1, 16, 16] between -1 (paper) and 1 (ink), and labels [n], of one part of a fixed shuffle."""
    name = next(path.name.split("-")[0] for path in sorted(folder.glob("*-images-idx3-ubyte.gz")))
    images = _idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = _idx(folder / f"{name}-labels-idx1-ubyte.gz")
    first, last = PARTS[part]
    chosen = np.random.default_rng(0).permutation(len(images))[first:last]
    window = torch.from_numpy(images[chosen, 2:26, 2:26].copy()).float()[:, None] / 127.5 - 1
    return F.interpolate(window, size=(SIDE, SIDE), mode="area"), torch.from_numpy(labels[chosen].astype(np.int64))


def _idx(path: Path) -> NDArray[np.uint8]:
    data = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def scheduler() -> DDIMScheduler:
    """Cosine, v, the levels counted from pure noise."""
    return DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing")


def network() -> UNet2DModel:
    """About a million parameters, at 16, 8 and 4 pixels a side."""
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        norm_num_groups=8,
        attention_head_dim=32,
        num_class_embeds=CLASSES + 1,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    images, labels = digits(args.data, "generator")
    levels = scheduler().alphas_cumprod
    model = network().to(memory_format=torch.channels_last)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.AdamW(model.parameters(), args.rate, betas=(0.9, 0.99), weight_decay=0.01)
    checkpoint, step, running = args.out / "checkpoint.pt", 0, 1.0
    if checkpoint.exists():
        kept: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept["model"])
        averaged.load_state_dict(kept["averaged"])
        optimizer.load_state_dict(kept["optimizer"])
        step = kept["step"]
    compiled = torch.compile(model)
    log, start = (args.out / "log.jsonl").open("a"), time.monotonic()
    while step < args.steps:
        rng = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        chosen = torch.randint(len(images), (args.batch,), generator=rng)
        clean = images[chosen].to(memory_format=torch.channels_last)
        hidden = torch.rand(args.batch, generator=rng) < 0.1
        label = torch.where(hidden, HIDDEN, labels[chosen])
        level = torch.randint(len(levels), (args.batch,), generator=rng)
        noise = torch.randn(clean.shape, generator=rng)
        signal, noisy = levels[level].sqrt()[:, None, None, None], (1 - levels[level]).sqrt()[:, None, None, None]
        with torch.autocast("cpu", torch.bfloat16):
            predicted = compiled(signal * clean + noisy * noise, level, label).sample  # type: ignore[no-untyped-call]
        loss = F.mse_loss(predicted.float(), signal * noise - noisy * clean)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = args.rate * rate_scale(step, args.steps, falling=0.5)
        optimizer.step()
        optimizer.zero_grad()
        averaged.update_parameters(model)
        step += 1
        running = 0.99 * running + 0.01 * loss.item()
        if step % 200 == 0 or step == args.steps:
            minutes = round((time.monotonic() - start) / 60, 2)
            write_row(log, {"step": step, "images": step * args.batch, "minutes": minutes, "loss": round(running, 4)})
            states = {"model": model.state_dict(), "averaged": averaged.state_dict()}
            rest = {"optimizer": optimizer.state_dict(), "step": step}
            torch.save(states | rest, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    final = network()
    final.load_state_dict(averaged.module.state_dict())
    final.half().save_pretrained(args.out / "final" / "unet")
    scheduler().save_pretrained(args.out / "final" / "scheduler")
    index = {
        "_class_name": "DDIMPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (args.out / "final" / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
