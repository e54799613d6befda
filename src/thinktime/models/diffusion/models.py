"""Diffusion models from ``diffusers`` directories: unconditional, by class, or by text like Stable Diffusion."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from thinktime.core.errors import InputError, ModelError, TooLongError
from thinktime.models.diffusion.calls import Call, Condition
from thinktime.models.diffusion.folder import (
    TEXT,
    check_fields,
    class_of,
    fields,
    fingerprint,
    parts_of,
    read_fields,
    require,
    weights_digest,
    weights_of,
)
from thinktime.models.diffusion.gradient import Pull
from thinktime.models.diffusion.levels import Array, Levels, Threshold, parts
from thinktime.models.diffusion.schedule import sampler_of
from thinktime.models.engine.directories import listed, one_line
from thinktime.models.engine.models import device_of

_LOG = logging.getLogger(__name__)


class DiffusionModel:
    """The networks and noise schedule of a pipeline. Callers take the denoising steps.

    Args:
        directory: has ``model_index.json``, ``unet`` and ``scheduler``; for text also ``vae``, ``text_encoder`` and
            ``tokenizer``. A model with classes may have ``labels.json``: ``{"labels": [...], "hidden": 10}``, where
            ``hidden`` is the class of unconditional pictures.
        device: the device of the networks.

    Raises:
        InputError: the directory lacks a part, or something in its configuration is not supported.
        ModelError: weights are missing in its files.
    """

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        index = read_fields(directory / "model_index.json")
        self.device = device_of(device)
        require(directory, "scheduler/scheduler_config.json")
        self.text = index.get("_class_name") == TEXT
        sampler = read_fields(directory / "scheduler" / "scheduler_config.json")
        self._sampler: Any = sampler_of(sampler, latent=self.text, named=class_of(index, "scheduler"))
        names = parts_of(directory, index)
        self._encoded: dict[str, Tensor] = {}
        try:
            self._load(directory)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError) as error:
            reason = one_line(error).split(". ")[0]
            raise InputError("model", str(directory), f"it cannot be loaded ({reason}); check its files") from None
        self._check_shapes(directory)
        self.hidden, self.labels = self._classes(directory)
        try:
            _ = self.flops
        except (ValueError, TypeError, RuntimeError) as error:
            fix = f"its network does not take these inputs ({one_line(error)}); use the parts of one pipeline"
            raise InputError("model", str(directory), fix) from None
        if (kind := sampler["_class_name"]) != "DDIMScheduler":
            _LOG.warning("model=%r: the levels are those of its %s, the steps are those of DDIM", str(directory), kind)
        self.name = f"{directory.resolve().name}@{weights_digest(directory, names)}"
        self.fingerprint = fingerprint(directory, names)

    def _load(self, directory: Path) -> None:
        from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel

        self._net: Any = self._part(directory / "unet", UNet2DConditionModel if self.text else UNet2DModel)
        if self.text:
            from transformers import CLIPTextModel, CLIPTokenizer

            self._vae: Any = self._part(directory / "vae", AutoencoderKL)
            self._encoder: Any = self._part(directory / "text_encoder", CLIPTextModel)
            self._tokenizer: Any = CLIPTokenizer.from_pretrained(directory / "tokenizer", local_files_only=True)

    def _part(self, folder: Path, kind: Any) -> Any:
        """A network of this class, ready for use.

        Raises:
            InputError: a field of its configuration is not supported.
            ModelError: its files lack weights.
        """
        config, of_diffusers = read_fields(folder / "config.json"), folder.name != "text_encoder"
        check_fields(folder.name, config, fields(kind) if of_diffusers else None)
        field, wanted = ("_class_name", kind.__name__) if of_diffusers else ("model_type", kind.config_class.model_type)
        if config.get(field, wanted) != wanted:
            fix = f"it has to be {wanted}; use the parts of one pipeline"
            raise InputError(f"{folder.name}.{field}", config[field], fix)
        options = weights_of(folder).options | {"local_files_only": True, "output_loading_info": True}
        if of_diffusers:
            net, loaded = kind.from_pretrained(folder, torch_dtype=torch.float32, **options)
        else:
            net, loaded = kind.from_pretrained(folder, dtype=torch.float32, ignore_mismatched_sizes=True, **options)
        if wrong := sorted(str(key[0]) for key in loaded["mismatched_keys"]):
            raise ModelError(f"model={str(folder)!r}: other sizes than config.json says: {listed(wrong)}; check both")
        if missing := sorted(loaded["missing_keys"]):
            raise ModelError(f"model={str(folder)!r}: its files lack {listed(missing)}; download them again")
        if surplus := sorted(loaded["unexpected_keys"]):
            _LOG.warning("model=%r: its files have weights that are not used: %s", str(folder), listed(surplus))
        return net.to(self.device).eval().requires_grad_(False)

    def _check_shapes(self, directory: Path) -> None:
        """Set the shape of a state.

        Raises:
            InputError: the parts do not fit each other.
        """
        config = self._net.config
        if config.sample_size is None:
            raise InputError("unet.sample_size", None, "write the side of a state in unet/config.json")
        side = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else tuple(config.sample_size)
        self.shape: tuple[int, ...] = (config.in_channels, *side)
        if config.out_channels != config.in_channels:
            found = f"it predicts {config.out_channels} channels for states of {config.in_channels}"
            more = "takes no further pictures" if config.in_channels > config.out_channels else "predicts no variances"
            raise InputError("model", str(directory), f"{found}; use a model that {more}")
        if not self.text:
            return
        if config.num_class_embeds is not None:
            raise InputError(
                "unet.num_class_embeds", config.num_class_embeds, "a text model with classes is not supported"
            )
        if self._vae.config.latent_channels != config.in_channels:
            channels = self._vae.config.latent_channels
            found = f"its decoder takes {channels} channels, its states have {config.in_channels}"
            raise InputError("model", str(directory), f"{found}; use the parts of one pipeline")
        factor = self._vae.config.scaling_factor
        if not (isinstance(factor, (int, float)) and factor > 0):
            raise InputError("vae.scaling_factor", factor, "give a number above 0, such as 0.18215")
        width = self._encoder.config.hidden_size
        if isinstance(config.cross_attention_dim, int) and config.cross_attention_dim != width:
            fix = f"its text encoder gives {width} numbers a token; use the parts of one pipeline"
            raise InputError("unet.cross_attention_dim", config.cross_attention_dim, fix)
        longest = self._encoder.config.max_position_embeddings
        if self._tokenizer.model_max_length > longest:
            fix = f"the text encoder reads {longest} tokens; write that in tokenizer/tokenizer_config.json"
            raise InputError("tokenizer.model_max_length", self._tokenizer.model_max_length, fix)

    def _classes(self, directory: Path) -> tuple[int | None, tuple[str, ...]]:
        """The class of unconditional pictures, and the names of the classes.

        Raises:
            InputError: ``labels.json`` does not fit the network.
        """
        described = directory / "labels.json"
        labels = read_fields(described) if described.exists() else {}
        classes = (0 if self.text else self._net.config.num_class_embeds) or 0
        hidden, names = labels.get("hidden"), tuple(labels.get("labels") or map(str, range(classes)))
        if len(names) > classes or not (hidden is None or (type(hidden) is int and 0 <= hidden < classes)):
            fix = f"the network has {classes} classes; name no more, and hide one of them"
            raise InputError("model", str(described), fix)
        return hidden, names

    def levels(self, steps: int) -> Levels:
        """The noise levels of a sampler with this number of steps.

        Raises:
            InputError: the number is below 1, or it needs timesteps that the training did not have.
        """
        config = self._sampler.config
        if not 1 <= steps <= config.num_train_timesteps:
            raise InputError("steps", steps, f"give 1 to {config.num_train_timesteps}, the timesteps of the training")
        self._sampler.set_timesteps(steps)
        timesteps = tuple(int(t) for t in self._sampler.timesteps)
        if timesteps[0] >= config.num_train_timesteps or timesteps[-1] < 0:
            fix = f"with steps_offset {config.steps_offset} this needs timesteps outside of the training; take fewer"
            raise InputError("steps", steps, fix)
        alphas = [*self._sampler.alphas_cumprod[list(timesteps)].tolist(), float(self._sampler.final_alpha_cumprod)]
        ratio = (config.dynamic_thresholding_ratio, config.sample_max_value)
        threshold = Threshold(*ratio) if config.thresholding else None
        return Levels(timesteps, tuple(alphas), config.prediction_type, self.clip, threshold)

    @property
    def clip(self) -> float | None:
        """Bound on the absolute value of clean estimates; None does not clip."""
        config = self._sampler.config
        return float(config.clip_sample_range) if config.clip_sample else None

    def condition(self, prompt: Any) -> Condition:
        """The condition of a prompt: the index of the class that it names, or its text.

        Raises:
            InputError: the prompt does not name exactly one class.
            TooLongError: the text encoder does not read all of it.
        """
        if self.text:
            text = "" if prompt is None else str(prompt)
            tokens, most = len(self._tokenizer(text, verbose=False).input_ids), self._tokenizer.model_max_length
            if tokens > most:
                raise TooLongError("prompt", f"{tokens} tokens", f"the text encoder reads {most}; shorten it")
            return text
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
                return_tensors="pt",
            ).input_ids
            with torch.inference_mode(False), torch.no_grad():  # passes with gradients use the cache, too
                self._encoded[words] = self._encoder(ids.to(self.device))[0]
        return self._encoded[words]

    @torch.inference_mode()
    def pictures(self, states: Sequence[Array]) -> list[Array]:
        """Pictures [channels, height, width] between 0 and 1 of clean states, which a text model decodes.

        A value is NaN if the decoder gives NaN or infinity for it.
        """
        return list(self._shown(torch.from_numpy(np.stack(states)).to(self.device)).float().cpu().numpy())

    def _shown(self, clean: Tensor) -> Tensor:
        """Pictures [n, channels, height, width] between 0 and 1 of clean states."""
        decoded: Tensor = self._vae.decode(clean / self._vae.config.scaling_factor).sample if self.text else clean
        return (decoded / 2 + 0.5).clip(0, 1).where(decoded.isfinite(), torch.nan)

    @cached_property
    def flops(self) -> float:
        """Floating-point operations of one forward pass of one picture."""
        counter = FlopCounterMode(display=False)
        x = torch.zeros(1, *self.shape, device=self.device)
        with torch.inference_mode(), counter:
            self._forward(x, [0], ["" if self.text else 0 if self.labels else None])
        return float(counter.get_total_flops())
