"""Diffusion models from directories of ``diffusers``: with classes, without, or with text like Stable Diffusion."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from thinktime.core.errors import InputError, ModelError
from thinktime.diffusion.calls import Call, Condition
from thinktime.diffusion.levels import Array, Levels
from thinktime.engine.models import digest_of


class DiffusionModel:
    """A pipeline's directory, its parts loaded but not its loop: the steps are taken by whoever searches.

    Args:
        directory: with ``model_index.json``, ``unet`` and ``scheduler``; for text also ``vae``, ``text_encoder`` and
            ``tokenizer``. A model with classes may have ``labels.json``: ``{"labels": [...], "hidden": 10}``, the class
            of pictures that nobody asked for.
        device: where the network is.

    Raises:
        InputError: the directory lacks a part, or has a sampler of another kind.
    """

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        from diffusers import DDIMScheduler

        index = _json(directory / "model_index.json")
        self.device = torch.device(device)
        sampler = _json(directory / "scheduler" / "scheduler_config.json")
        if "beta_schedule" not in sampler:
            kind = sampler.get("_class_name", "unknown")
            raise InputError(
                "scheduler", kind, "only variance-preserving samplers (DDPM, DDIM and their kin) are steered"
            )
        self._sampler: Any = DDIMScheduler.from_config(sampler)
        try:
            self._load(directory, index)
        except (OSError, ValueError) as error:
            raise InputError("model", str(directory), f"it cannot be loaded ({str(error).splitlines()[0]})") from None
        self.name = f"{directory.name}@{_fingerprint(directory)}"

    def _load(self, directory: Path, index: dict[str, Any]) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel

        self._encoded: dict[str, Tensor] = {}
        kind = index.get("unet", ["", ""])[1]
        self.text = kind == "UNet2DConditionModel"
        if self.text:
            from transformers import CLIPTextModel, CLIPTokenizer

            self._net: Any = UNet2DConditionModel.from_pretrained(directory / "unet", torch_dtype=torch.float32)
            self._vae: Any = AutoencoderKL.from_pretrained(directory / "vae", torch_dtype=torch.float32)
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(directory / "tokenizer")
            self._encoder: Any = CLIPTextModel.from_pretrained(directory / "text_encoder")
            for part in (self._vae, self._encoder):
                part.to(self.device).eval()
        elif kind == "UNet2DModel":
            self._net = UNet2DModel.from_pretrained(directory / "unet", torch_dtype=torch.float32)
        else:
            raise ValueError(f"unet={kind!r} is neither UNet2DModel nor UNet2DConditionModel")
        self._net.to(self.device).eval()
        config = self._net.config
        side = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else tuple(config.sample_size)
        self.shape: tuple[int, ...] = (config.in_channels, *side)
        described = directory / "labels.json"
        labels = _json(described) if described.exists() else {}
        classes = getattr(config, "num_class_embeds", None) or 0
        self.hidden: int | None = labels.get("hidden")
        self.labels: tuple[str, ...] = tuple(labels.get("labels") or map(str, range(classes)))

    def levels(self, steps: int) -> Levels:
        """The levels of a sampler of so many steps.

        Raises:
            InputError: the model was trained on fewer.
        """
        config = self._sampler.config
        if not 1 <= steps <= config.num_train_timesteps:
            raise InputError("steps", steps, f"give 1 to {config.num_train_timesteps}, what the model was trained on")
        self._sampler.set_timesteps(steps)
        timesteps = tuple(int(t) for t in self._sampler.timesteps)
        alphas = [float(self._sampler.alphas_cumprod[t]) for t in timesteps] + [
            float(self._sampler.final_alpha_cumprod)
        ]
        clip = float(config.clip_sample_range) if config.clip_sample else None
        return Levels(timesteps, tuple(alphas), config.prediction_type, clip)

    def condition(self, prompt: Any) -> Condition:
        """What a prompt asks of this model: the class it names, or its words.

        Raises:
            InputError: no such class.
        """
        if self.text:
            return str(prompt)
        if not self.labels:
            return None
        words = [str(prompt)] if isinstance(prompt, int) else re.findall(r"[^\s,]+", str(prompt or ""))
        named = [word for word in words if word in self.labels]
        if len(named) == 1:
            return self.labels.index(named[0])
        if not words and self.hidden is not None:
            return None
        raise InputError("prompt", prompt, f"name one class: {', '.join(self.labels)}")

    def evaluations(self, condition: Condition, guidance: float) -> int:
        """Forward passes that one call takes."""
        return 2 if guidance != 1 and condition is not None else 1

    @torch.inference_mode()
    def predict(self, calls: Sequence[Call]) -> list[Array]:
        """What the network tells of each, in one forward pass of all of them."""
        rows: list[tuple[Call, Condition]] = [(call, call.condition) for call in calls]
        guided = [place for place, call in enumerate(calls) if self.evaluations(call.condition, call.guidance) == 2]
        rows += [(calls[place], "" if self.text else None) for place in guided]
        x = torch.from_numpy(np.stack([call.x for call, _ in rows])).to(self.device)
        told = self._forward(x, [call.timestep for call, _ in rows], [condition for _, condition in rows])
        found = list(told[: len(calls)].float().cpu().numpy())
        for place, without in zip(guided, told[len(calls) :].float().cpu().numpy(), strict=True):
            found[place] = without + calls[place].guidance * (found[place] - without)
        return found

    def _forward(self, x: Tensor, timesteps: Sequence[int], conditions: Sequence[Condition]) -> Tensor:
        t = torch.tensor(timesteps, device=self.device)
        if self.text:
            hidden = torch.cat([self._encode(str(condition)) for condition in conditions])
            told: Tensor = self._net(x, t, encoder_hidden_states=hidden).sample
        elif self.labels:
            classes = [self.hidden if condition is None else condition for condition in conditions]
            told = self._net(x, t, class_labels=torch.tensor(classes, device=self.device)).sample
        else:
            told = self._net(x, t).sample
        return told

    def _encode(self, words: str) -> Tensor:
        """The encoder's states for a prompt [1, tokens, width], kept."""
        if words not in self._encoded:
            ids = self._tokenizer(
                words,
                padding="max_length",
                max_length=self._tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            self._encoded[words] = self._encoder(ids.to(self.device))[0]
        return self._encoded[words]

    @torch.inference_mode()
    def pictures(self, states: Sequence[Array]) -> list[Array]:
        """Pictures [channels, height, width] between 0 and 1 from clean states, which a text model has to decode."""
        x = np.stack(states)
        if self.text:
            latents = torch.from_numpy(x).to(self.device) / self._vae.config.scaling_factor
            x = self._vae.decode(latents).sample.float().cpu().numpy()
        return list((x / 2 + 0.5).clip(0, 1).astype(np.float32))

    @cached_property
    def flops(self) -> float:
        """Floating-point operations of one forward pass of one picture."""
        counter = FlopCounterMode(display=False)
        x = torch.zeros(1, *self.shape, device=self.device)
        with torch.inference_mode(), counter:
            self._forward(x, [0], ["" if self.text else 0 if self.labels else None])
        return float(counter.get_total_flops())


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError("model", str(path), f"no diffusers directory ({error})") from None
    return found


def _fingerprint(directory: Path) -> str:
    """Twelve hexadecimal digits that change with the weights of any part, or with the sampler."""
    paths = sorted([*directory.glob("*/*.safetensors"), directory / "scheduler" / "scheduler_config.json"])
    if len(paths) < 2:
        raise ModelError(f"model={str(directory)!r}: no weights in it (*.safetensors)")
    return digest_of(paths)
