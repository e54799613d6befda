"""Diffusion models from ``diffusers`` directories: unconditional, by class, or by text like Stable Diffusion."""

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
from thinktime.models.diffusion.calls import Call, Condition
from thinktime.models.diffusion.gradient import Pull
from thinktime.models.diffusion.levels import Array, Levels, parts
from thinktime.models.engine.models import digest_of


class DiffusionModel:
    """The networks and noise schedule of a pipeline. Callers take the denoising steps.

    Args:
        directory: has ``model_index.json``, ``unet`` and ``scheduler``; for text also ``vae``, ``text_encoder`` and
            ``tokenizer``. A model with classes may have ``labels.json``: ``{"labels": [...], "hidden": 10}``, where
            ``hidden`` is the class of unconditional pictures.
        device: the device of the networks.

    Raises:
        InputError: the directory lacks a part, or its sampler is not variance-preserving.
    """

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        from diffusers import DDIMScheduler

        index = _json(directory / "model_index.json")
        self.device = torch.device(device)
        sampler = _json(directory / "scheduler" / "scheduler_config.json")
        if "beta_schedule" not in sampler:
            kind = sampler.get("_class_name", "unknown")
            raise InputError(
                "scheduler", kind, "only variance-preserving samplers (DDPM, DDIM and similar) are supported"
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
                part.to(self.device).eval().requires_grad_(False)
        elif kind == "UNet2DModel":
            self._net = UNet2DModel.from_pretrained(directory / "unet", torch_dtype=torch.float32)
        else:
            raise ValueError(f"unet={kind!r} is neither UNet2DModel nor UNet2DConditionModel")
        self._net.to(self.device).eval().requires_grad_(False)
        config = self._net.config
        side = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else tuple(config.sample_size)
        self.shape: tuple[int, ...] = (config.in_channels, *side)
        if config.out_channels != config.in_channels:
            found = f"it predicts {config.out_channels} channels for states of {config.in_channels}"
            raise InputError("model", str(directory), f"{found}; use a model that predicts no variances")
        if self.text and self._vae.config.latent_channels != config.in_channels:
            channels = self._vae.config.latent_channels
            found = f"its decoder takes {channels} channels, its states have {config.in_channels}"
            raise InputError("model", str(directory), f"{found}; use the parts of one pipeline")
        described = directory / "labels.json"
        labels = _json(described) if described.exists() else {}
        classes = getattr(config, "num_class_embeds", None) or 0
        self.hidden: int | None = labels.get("hidden")
        self.labels: tuple[str, ...] = tuple(labels.get("labels") or map(str, range(classes)))

    def levels(self, steps: int) -> Levels:
        """The noise levels of a sampler with this number of steps.

        Raises:
            InputError: the number is below 1, or above the timesteps of the training.
        """
        config = self._sampler.config
        if not 1 <= steps <= config.num_train_timesteps:
            raise InputError("steps", steps, f"give 1 to {config.num_train_timesteps}, the timesteps of the training")
        self._sampler.set_timesteps(steps)
        timesteps = tuple(int(t) for t in self._sampler.timesteps)
        alphas = [float(self._sampler.alphas_cumprod[t]) for t in timesteps] + [
            float(self._sampler.final_alpha_cumprod)
        ]
        return Levels(timesteps, tuple(alphas), config.prediction_type, self.clip)

    @property
    def clip(self) -> float | None:
        """Bound on the absolute value of clean estimates; None does not clip."""
        config = self._sampler.config
        return float(config.clip_sample_range) if config.clip_sample else None

    def condition(self, prompt: Any) -> Condition:
        """The condition of a prompt: the index of the class that it names, or its text.

        Raises:
            InputError: the prompt does not name exactly one class.
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
        """Number of forward passes of one call."""
        return 2 if guidance != 1 and condition is not None else 1

    def predict(self, calls: Sequence[Call], pull: Pull | None = None) -> list[Array]:
        """The network's predictions for all calls, in one forward pass.

        Args:
            calls: states with their timesteps and conditions.
            pull: shifts the predictions by the gradient of a measure, which takes a backward pass.

        Returns:
            One array [1, channels, height, width] per call; with ``pull`` [2, …]: the shifted and the original.
        """
        x = torch.from_numpy(np.stack([call.x for call in calls])).to(self.device)
        with torch.inference_mode(pull is None):
            predicted = (self._predicted(x, calls),) if pull is None else self._pulled(x, calls, pull)
        return list(torch.stack(predicted, 1).float().cpu().numpy())

    def _predicted(self, x: Tensor, calls: Sequence[Call]) -> Tensor:
        conditions = [call.condition for call in calls]
        guided = [index for index, call in enumerate(calls) if self.evaluations(call.condition, call.guidance) == 2]
        conditions += ["" if self.text else None] * len(guided)
        rows = [*range(len(calls)), *guided]
        predicted = self._forward(x[rows] if guided else x, [calls[row].timestep for row in rows], conditions)
        if not guided:
            return predicted
        given, without = predicted[: len(calls)], predicted[len(calls) :]
        strength = torch.tensor([calls[index].guidance for index in guided], device=self.device).view(-1, 1, 1, 1)
        moved = given.clone()
        moved[guided] = without + strength * (given[guided] - without)
        return moved

    def _pulled(self, x: Tensor, calls: Sequence[Call], pull: Pull) -> tuple[Tensor, Tensor]:
        """The predictions, shifted along the gradient of the measures (`Pull`), and as they are."""
        x = x.requires_grad_()
        predicted = self._predicted(x, calls)
        alphas = self._sampler.alphas_cumprod[[call.timestep for call in calls]].view(-1, 1, 1, 1).to(self.device)
        signal, spread = alphas.sqrt(), (1 - alphas).sqrt()
        kind = self._sampler.config.prediction_type
        clean, _ = parts(x, predicted, signal, spread, kind)
        if self.clip is not None:
            clean = clean.clip(-self.clip, self.clip)
        (slope,) = torch.autograd.grad(pull.of(self._shown(clean).cpu(), [call.condition for call in calls]), x)
        shift = spread * pull.scale * slope
        in_its_terms = {"epsilon": shift, "sample": -spread / signal * shift, "v_prediction": shift / signal}
        return (predicted - in_its_terms[kind]).detach(), predicted.detach()

    def _forward(self, x: Tensor, timesteps: Sequence[int], conditions: Sequence[Condition]) -> Tensor:
        t = torch.tensor(timesteps, device=self.device)
        if self.text:
            hidden = torch.cat([self._encode(str(condition)) for condition in conditions])
            predicted: Tensor = self._net(x, t, encoder_hidden_states=hidden).sample
        elif self.labels:
            classes = [self.hidden if condition is None else condition for condition in conditions]
            predicted = self._net(x, t, class_labels=torch.tensor(classes, device=self.device)).sample
        else:
            predicted = self._net(x, t).sample
        return predicted

    def _encode(self, words: str) -> Tensor:
        """The text encoder's states for a prompt [1, tokens, width], cached."""
        if words not in self._encoded:
            ids = self._tokenizer(
                words,
                padding="max_length",
                max_length=self._tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            with torch.inference_mode(False), torch.no_grad():  # passes with gradients use the cache, too
                self._encoded[words] = self._encoder(ids.to(self.device))[0]
        return self._encoded[words]

    @torch.inference_mode()
    def pictures(self, states: Sequence[Array]) -> list[Array]:
        """Pictures [channels, height, width] between 0 and 1 of clean states, which a text model decodes."""
        return list(self._shown(torch.from_numpy(np.stack(states)).to(self.device)).float().cpu().numpy())

    def _shown(self, clean: Tensor) -> Tensor:
        """Pictures [n, channels, height, width] between 0 and 1 of clean states."""
        decoded: Tensor = self._vae.decode(clean / self._vae.config.scaling_factor).sample if self.text else clean
        return (decoded / 2 + 0.5).clip(0, 1)

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
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("model", str(path), f"no diffusers directory ({error})") from None
    return found


def _fingerprint(directory: Path) -> str:
    """Twelve hexadecimal digits that change with the weights of any part, or with the sampler."""
    paths = sorted([*directory.glob("*/*.safetensors"), directory / "scheduler" / "scheduler_config.json"])
    if len(paths) < 2:
        raise ModelError(f"model={str(directory)!r}: no weights in it (*.safetensors)")
    return digest_of(paths)
