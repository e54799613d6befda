"""Hugging Face directories as language models and reward models.

A Llama loads into our own module in a second; other families need ``transformers``, whose import alone takes several
seconds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors import SafetensorError
from tokenizers import Tokenizer

from thinktime.core.errors import InputError, ModelError
from thinktime.models.engine.costs import Shape
from thinktime.models.engine.engine import Engine, Model
from thinktime.models.engine.llama import Llama, LlamaConfig


class ChatTokenizer:
    """``tokenizer.json`` and the chat template of a model directory.

    Raises:
        InputError: ``tokenizer.json`` is missing.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        if not path.exists():
            raise InputError("model", str(directory), "there is no tokenizer.json; give a Hugging Face model directory")
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise ModelError(f"{path}: not a tokenizer ({_first_line(error)}); the file is broken") from error
        config = _read_json(directory / "tokenizer_config.json")
        template_file = directory / "chat_template.jinja"
        template = template_file.read_text() if template_file.exists() else config.get("chat_template")
        self._template = ImmutableSandboxedEnvironment().from_string(template) if template else None
        self._bos = _token_text(config.get("bos_token"))
        eos = _token_text(config.get("eos_token"))
        eos_id = self._tokenizer.token_to_id(eos) if eos else None
        if eos_id is None:
            raise InputError("model", str(directory), "tokenizer_config.json names no eos_token of the vocabulary")
        self.eos_id: int = eos_id
        self._closed = bool(config.get("closed_vocabulary"))

    def encode_chat(self, prompt: Any, spell: bool = False) -> list[int]:
        """Ids of the prompt with the start of the assistant's turn; a string is one user message.

        Raises:
            InputError: the prompt is empty, or it has words outside a closed vocabulary and ``spell`` is false.
        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        content = " ".join(str(message.get("content") or "") for message in messages)
        if not content.strip():
            raise InputError("prompt", prompt, "ask something")
        if self._closed and not spell and (unknown := self._unknown_words(content)):
            raise InputError(
                "prompt",
                ", ".join(unknown),
                "this model knows only the words of its own task (see `thinktime models`); give another --model",
            )
        if self._template is None:
            text = content
        else:
            text = self._template.render(messages=messages, add_generation_prompt=True, bos_token=self._bos)
        return list(self._tokenizer.encode(text, add_special_tokens=self._template is None).ids)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that another model or a person wrote, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def ids_containing(self, text: str) -> frozenset[int]:
        """Every token whose text contains ``text``; a step can end with these."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=False).values()
        return frozenset(i for i in vocabulary if text in self._tokenizer.decode([i], skip_special_tokens=False))

    def _unknown_words(self, content: str) -> list[str]:
        vocabulary = self._tokenizer.get_vocab()
        words = dict.fromkeys(re.findall(r"[^\W\d_]+", content))
        return [word for word in words if word not in vocabulary and f"Ġ{word}" not in vocabulary]


@dataclass(frozen=True)
class LanguageModel:
    """A language model with its tokenizer."""

    model: Model
    tokenizer: ChatTokenizer
    shape: Shape
    dtype: torch.dtype
    device: torch.device
    context: int
    fingerprint: str

    def engine(self, **options: Any) -> Engine:
        """An engine for it; ``options`` are those of `Engine`."""
        return Engine(
            self.model,
            self.shape,
            self.dtype,
            self.device,
            context=self.context,
            eos_id=self.tokenizer.eos_id,
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

    Raises:
        InputError: the directory does not exist or is not a causal language model, or the device does not exist.
        ModelError: its files are broken.
    """
    config = _read_model_config(directory)
    kind = (config.get("architectures") or ["nothing"])[0]
    if not kind.endswith("ForCausalLM"):
        raise InputError("model", str(directory), f"it holds a {kind}; give a …ForCausalLM directory")
    tokenizer = ChatTokenizer(directory)
    number, place = getattr(torch, dtype), _device(device)
    try:
        model: Any
        if kind == "LlamaForCausalLM" and (directory / "model.safetensors").exists() and _plain(config):
            model = Llama.load(directory, number)
        else:
            from thinktime.models.engine.transformers_model import TransformersLM

            model = TransformersLM(directory, number)
    except (OSError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"model={str(directory)!r}: cannot load it ({_first_line(error)}); check its files") from error
    llama = LlamaConfig.read(directory)
    shape = _shape(llama, model, number)
    context = llama.max_position_embeddings
    return LanguageModel(model.to(place), tokenizer, shape, number, place, context, fingerprint(directory))


def load_reward_model(directory: Path, dtype: str = "float32", device: str = "cpu") -> RewardModel:
    """Load a process reward model: a Llama token classifier with the labels wrong and right.

    Raises:
        InputError: the directory does not exist or is not such a classifier, or the device does not exist.
        ModelError: its files are broken.
    """
    config = _read_model_config(directory, "reward_model")
    kind = (config.get("architectures") or ["nothing"])[0]
    if kind != "LlamaForTokenClassification":
        raise InputError("reward_model", str(directory), f"it holds a {kind}; give a LlamaForTokenClassification")
    number, place = getattr(torch, dtype), _device(device)
    try:
        model = Llama.load(directory, number)
    except (OSError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"reward_model={str(directory)!r}: cannot load it ({_first_line(error)})") from error
    if model.labels != 2:
        raise InputError("reward_model", str(directory), f"it has {model.labels} labels; a step reward needs 2")
    shape = _shape(model.config, model, number)
    context = model.config.max_position_embeddings
    label = str((config.get("id2label") or {}).get("1", "right"))
    return RewardModel(
        model.to(place),
        shape,
        number,
        place,
        context,
        fingerprint(directory),
        label,
        config.get("step_end_only") is True,
    )


def fingerprint(directory: Path) -> str:
    """Twelve hexadecimal digits that change with the weights."""
    return digest_of(sorted(directory.glob("*.safetensors")))


def digest_of(paths: Iterable[Path]) -> str:
    """A digest of the content of these files, in twelve hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=6)
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _plain(config: dict[str, Any]) -> bool:
    """Whether our own Llama supports this configuration: no scaled rotary positions, no biases, SiLU."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
    biases = config.get("attention_bias") or config.get("mlp_bias")
    return not scaled and not biases and config.get("hidden_act", "silu") == "silu"


def _shape(config: LlamaConfig, model: torch.nn.Module, dtype: torch.dtype) -> Shape:
    return Shape(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        parameters=_multiplied(model),
        bytes_per_value=dtype.itemsize,
    )


def _multiplied(model: torch.nn.Module) -> int:
    """Parameters a token is multiplied with: all but an untied input embedding, which is only a table."""
    parameters = sum(p.numel() for p in model.parameters())
    if isinstance(model, Llama) and (model.labels or not model.config.tie_word_embeddings):
        parameters -= model.model.embed_tokens.weight.numel()
    inner = getattr(model, "inner", None)
    if inner is not None and inner.get_output_embeddings().weight is not inner.get_input_embeddings().weight:
        parameters -= inner.get_input_embeddings().weight.numel()
    return parameters


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise InputError("device", name, f"{_first_line(error)}; give cpu, or cuda if there is a GPU") from error
    return device


def _read_model_config(directory: Path, field: str = "model") -> dict[str, Any]:
    if not directory.is_dir():
        raise InputError(field, str(directory), "there is no such directory; give a Hugging Face model directory")
    if not (directory / "config.json").exists():
        raise InputError(field, str(directory), "there is no config.json in it; give a Hugging Face model directory")
    return _read_json(directory / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}); the file is broken") from error
    return value if isinstance(value, dict) else {}


def _token_text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
