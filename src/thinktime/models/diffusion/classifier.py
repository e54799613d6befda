"""A small classifier of small pictures, for scores and for features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from thinktime.core.errors import InputError
from thinktime.models.diffusion.levels import Array


class Classifier(nn.Module):
    """Convolutions that each halve the picture, then two linear layers; the first of these gives the features.

    Args:
        side: side of the picture in pixels.
        channels: channels of the picture.
        widths: output channels of each convolution.
        kernel: side of the kernels in pixels.
        features: width of the first linear layer.
        labels: names of the classes.
    """

    def __init__(
        self, side: int, channels: int, widths: Sequence[int], kernel: int, features: int, labels: Sequence[str]
    ) -> None:
        super().__init__()
        sizes = {"side": side, "channels": channels, "widths": list(widths), "kernel": kernel, "features": features}
        self.config: dict[str, Any] = {**sizes, "labels": list(labels)}
        self.labels = tuple(labels)
        layers: list[nn.Module] = []
        for before, width in zip((channels, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, width, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*layers)
        self.inner = nn.Linear(widths[-1] * (side >> len(widths)) ** 2, features)
        self.outer = nn.Linear(features, len(labels))

    def features(self, pictures: Tensor) -> Tensor:
        """Features [n, features] of pictures [n, channels, side, side] between 0 and 1."""
        return F.relu(self.inner(self.convolutions(pictures * 2 - 1).flatten(1)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [n, classes]."""
        return self.outer(F.dropout(self.features(pictures), 0.3, self.training))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def log_probabilities(self, pictures: Sequence[Array]) -> NDArray[np.float64]:
        """Log-probabilities [n, classes]."""
        logits = self(torch.from_numpy(np.stack(pictures)))
        return logits.double().log_softmax(-1).numpy()  # type: ignore[no-any-return]

    def save(self, directory: Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, weights in float16."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        save_file({name: value.half() for name, value in self.state_dict().items()}, directory / "model.safetensors")

    @classmethod
    def load(cls, directory: Path) -> Classifier:
        """Load a directory that `save` wrote.

        Raises:
            InputError: the directory cannot be loaded.
        """
        try:
            model = cls(**json.loads((directory / "config.json").read_text(encoding="utf-8")))
            weights = load_file(directory / "model.safetensors")
            model.load_state_dict({name: value.float() for name, value in weights.items()})
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise InputError("classifier", str(directory), f"cannot be loaded ({str(error).splitlines()[0]})") from None
        return model.eval().requires_grad_(False)
