"""Hugging Face directories as language models and reward models.

A Llama or Qwen2 loads into our own module in a second; other families need ``transformers``, whose import alone takes
several seconds. A GGUF file is converted once, see `thinktime.models.engine.gguf`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from thinktime.core.errors import InputError, ModelError, ThinktimeError
from thinktime.models.engine.costs import Shape
from thinktime.models.engine.directories import digest_of, fingerprint, one_line, read_model_config, weights_digest
from thinktime.models.engine.engine import Engine, Model
from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.models.engine.products import packs
from thinktime.models.engine.tokenizer import ChatTokenizer

_ROPE = {"rope_type", "type", "rope_theta"}
"""Fields of plain rotary positions."""
ENGINE = "engine 1"
"""The version class of the engine. The number grows when the same model and seed give other samples than before."""
OWN = ("LlamaForCausalLM", "Qwen2ForCausalLM")
"""The families that our own module computes."""


@dataclass(frozen=True)
class LanguageModel:
    """A language model with its tokenizer."""

    model: Model
    tokenizer: ChatTokenizer
    shape: Shape
    weights_dtype: str
    dtype: torch.dtype
    """Of the arithmetic, and of keys and values. Packed float16 weights are multiplied in float32."""
    device: torch.device
    context: int
    fingerprint: str
    """A digest of everything that decides a sample, see `fingerprint`."""
    weights: str
    """The digest of the weights alone."""

    def engine(self, **options: Any) -> Engine:
        """An engine for it; ``options`` are those of `Engine`."""
        return Engine(
            self.model,
            self.shape,
            self.dtype,
            self.device,
            context=self.context,
            end_ids=frozenset(self.tokenizer.end_ids),
            decode=self.tokenizer.decode,
            **options,
        )


@dataclass(frozen=True)
class RewardModel:
    """A token classifier with two labels, wrong and right (the convention of Qwen2.5-Math-PRM)."""

    model: Llama
    shape: Shape
    dtype: torch.dtype
    device: torch.device
    context: int
    fingerprint: str
    """A digest of everything that decides a score, see `fingerprint`."""
    weights: str
    """The digest of the weights alone."""
    label: str
    """The meaning of the second label."""
    step_end_only: bool = False
    """Whether its configuration says that it was trained at step ends alone."""

    def engine(self, **options: Any) -> Engine:
        """An engine for it; ``options`` are those of `Engine`."""
        return Engine(
            self.model, self.shape, self.dtype, self.device, context=self.context, labels=self.model.labels, **options
        )


def load_language_model(directory: Path, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """Load a causal language model and its tokenizer.

    Args:
        directory: a Hugging Face directory, or a GGUF file.
        dtype: of the weights. On a CPU the arithmetic of float16 weights is float32. ``auto`` is float32 for a
            checkpoint in float32, else the 16-bit type that this processor multiplies fastest, or float32 without one.
        device: ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        InputError: the directory does not exist or is not a causal language model, or the device does not exist.
        ModelError: its files are broken.
    """
    with _named_errors("model", directory):
        sha256 = None
        if directory.suffix == ".gguf":
            from thinktime.models.engine.gguf import CONVERTER, converted

            directory, sha256 = converted(directory)
        config = read_model_config(directory)
        kind = _kind(config)
        if not kind.endswith("ForCausalLM"):
            raise InputError("model", str(directory), f"it holds a {kind}; give a …ForCausalLM directory")
        tokenizer = ChatTokenizer(directory)
        place, own = device_of(device), kind in OWN and _plain(config) and Llama.fits(directory)
        dtype = _fastest(config, place, own) if dtype == "auto" else dtype
        number = getattr(torch, dtype)
        model: Any
        if own:
            packed = packs(number, place)
            model, backend = Llama.load(directory, number), f"{ENGINE}, packed" if packed else ENGINE
            sizes, context = _sizes(model.config), model.config.max_position_embeddings
            number = torch.float32 if packed else number
        else:
            from thinktime.models.engine.transformers_model import VERSION, TransformersLM

            model, backend = TransformersLM(directory, config, number), f"{ENGINE}, {VERSION}"
            sizes, context, packed = model.shape, model.context, False
        if number.itemsize == 2:  # earlier versions rounded the scores, and drew other samples
            backend += ", scores in float32"
        shape = _shape(sizes, model, number)
        if packed:
            model.pack()
        if not isinstance(model, Llama):
            model.verify(shape, number)
        if sha256 is None:
            names = fingerprint(directory, backend), weights_digest(directory)
        else:
            names = digest_of([], 8, f"{backend}, {CONVERTER} {sha256}"), sha256[:12]
        return LanguageModel(model.to(place), tokenizer, shape, dtype, number, place, context, *names)


def load_reward_model(directory: Path, dtype: str = "float32", device: str = "cpu") -> RewardModel:
    """Load a process reward model: a Llama token classifier with the labels wrong and right.

    Raises:
        InputError: the directory does not exist or is not such a classifier, or the device does not exist.
        ModelError: its files are broken.
    """
    with _named_errors("reward_model", directory):
        config = read_model_config(directory, "reward_model")
        kind = _kind(config)
        if kind != "LlamaForTokenClassification":
            raise InputError("reward_model", str(directory), f"it holds a {kind}; give a LlamaForTokenClassification")
        number, place = getattr(torch, dtype), device_of(device)
        model = Llama.load(directory, number)
        if model.labels != 2:
            raise InputError("reward_model", str(directory), f"it has {model.labels} labels; a step reward needs 2")
        shape = _shape(_sizes(model.config), model, number)
        context = model.config.max_position_embeddings
        label = str((config.get("id2label") or {}).get("1", "right"))
        return RewardModel(
            model.to(place),
            shape,
            number,
            place,
            context,
            fingerprint(directory, ENGINE),
            weights_digest(directory),
            label,
            config.get("step_end_only") is True,
        )


@contextmanager
def _named_errors(field: str, directory: Path) -> Iterator[None]:
    """Turn errors into a `ModelError` that names the directory. Each library has its own errors for broken files."""
    try:
        yield
    except ThinktimeError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ModelError(f"{field}={str(directory)!r}: cannot load it ({reason}); check its files") from error


def _kind(config: dict[str, Any]) -> str:
    """The class of the model, or ``nothing``."""
    return str(next(iter(config.get("architectures") or ["nothing"])))


def _plain(config: dict[str, Any]) -> bool:
    """Whether our own Llama supports this configuration: plain rotary positions, SiLU, no window, no quantization.

    Of biases it has those of Qwen2 alone.
    """
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    plain = rope.get("rope_type", rope.get("type", "default")) == "default" and set(rope) <= _ROPE
    fields = ("attention_bias", "mlp_bias", "quantization_config", "use_sliding_window")
    others = any(config.get(field) for field in fields)
    known = config.get("model_type", "llama") in ("llama", "qwen2") and plain and not others
    return known and config.get("hidden_act", "silu") == "silu"


def _fastest(config: dict[str, Any], device: torch.device, own: bool) -> str:
    """The type for ``auto``, see `load_language_model`.

    Args:
        config: the checkpoint's configuration, which names its type.
        device: where it runs.
        own: whether our own module computes the family; packed weights need that.
    """
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    if stored not in ("float16", "bfloat16"):
        return "float32"
    if device.type != "cpu":
        return stored
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return "bfloat16"
    return "float16" if own and packs(torch.float16, device) else "float32"


def _sizes(config: LlamaConfig) -> tuple[int, int, int, int]:
    return config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, config.head_dim


def _shape(sizes: tuple[int, int, int, int], model: torch.nn.Module, dtype: torch.dtype) -> Shape:
    layers, heads, kv_heads, head_dim = sizes
    return Shape(layers, heads, kv_heads, head_dim, parameters=_multiplied(model), bytes_per_value=dtype.itemsize)


def _multiplied(model: torch.nn.Module) -> int:
    """Parameters a token is multiplied with: of the experts those it uses, and no untied input embedding (a table)."""
    config = getattr(getattr(model, "inner", None), "config", None)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1
    used = getattr(config, "num_experts_per_tok", None) or 1
    in_experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    parameters = sum(p.numel() for p in model.parameters()) - in_experts + in_experts * used // experts
    if isinstance(model, Llama) and (model.labels or not model.config.tie_word_embeddings):
        parameters -= model.model.embed_tokens.weight.numel()
    inner = getattr(model, "inner", None)
    if inner is not None and inner.get_output_embeddings().weight is not inner.get_input_embeddings().weight:
        parameters -= inner.get_input_embeddings().weight.numel()
    return parameters


def device_of(name: str) -> torch.device:
    """The device of a name such as ``cpu`` or ``cuda:1``.

    Raises:
        InputError: there is no such device.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise InputError("device", name, f"{one_line(error)}; give cpu, or cuda if there is a GPU") from error
    return device
