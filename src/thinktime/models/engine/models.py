"""Hugging Face directories as language models and reward models.

A Llama or Qwen2 loads into our own module in a second; other families need ``transformers``, whose import alone takes
several seconds. A GGUF file is converted once, see `thinktime.models.engine.gguf`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from thinktime.core.errors import InputError, ModelError, ThinktimeError
from thinktime.models.engine.costs import Shape
from thinktime.models.engine.engine import Engine, Model
from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.models.engine.products import packs
from thinktime.models.engine.templates import ChatTemplate, conversation

_ROPE = {"rope_type", "type", "rope_theta"}
"""Fields of plain rotary positions."""
ENGINE = "engine 1"
"""The version class of the engine. The number grows when the same model and seed give other samples than before."""
OWN = ("LlamaForCausalLM", "Qwen2ForCausalLM")
"""The families that our own module computes."""
READ = ("*.safetensors", "*.bin", "*.json", "*.jinja")
"""The files that decide a sample: weights and adapters, configurations, the tokenizer and the chat template."""


class ChatTokenizer:
    """``tokenizer.json`` and the chat template of a model directory. Without one, ``template`` is None.

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
            raise ModelError(f"{path}: not a tokenizer ({one_line(error)}); the file is broken") from error
        config = _read_json(directory / "tokenizer_config.json")
        self.template = _chat_template(directory, config)
        self.end_ids = self._ends(directory, config)
        self.eos_id = self.end_ids[0]
        self._closed = bool(config.get("closed_vocabulary"))

    def _ends(self, directory: Path, config: dict[str, Any]) -> tuple[int, ...]:
        """Ids that end a reply: the tokenizer's end token, then those of the two configurations."""
        special = _read_json(directory / "special_tokens_map.json")
        texts = [_token_text(each.get("eos_token")) for each in (config, special)]
        ends = [self._tokenizer.token_to_id(text) for text in texts if text]
        for name in ("generation_config.json", "config.json"):
            listed = _read_json(directory / name).get("eos_token_id")
            ends += listed if isinstance(listed, list) else [listed]
        known = tuple(dict.fromkeys(end for end in ends if isinstance(end, int)))
        if not known:
            fix = "no file names an end token; add eos_token to tokenizer_config.json"
            raise InputError("model", str(directory), fix)
        return known

    @property
    def end_tokens(self) -> list[str]:
        """The tokens that end a reply, as they are written."""
        return [self._tokenizer.id_to_token(token) or str(token) for token in self.end_ids]

    def encode_chat(self, prompt: Any, spell: bool = False) -> list[int]:
        """Ids of the prompt with the start of the assistant's turn; a string is one user message.

        Raises:
            InputError: the prompt is empty or no conversation, or it has words outside a closed vocabulary and
                ``spell`` is false.
        """
        messages = conversation(prompt)
        content = " ".join(str(message.get("content") or "") for message in messages)
        if not content.strip():
            raise InputError("prompt", prompt, "ask something")
        if self._closed and not spell and (unknown := self._unknown_words(content)):
            raise InputError(
                "prompt",
                ", ".join(unknown),
                "this model knows only the words of its own task (see `thinktime models`); give another --model",
            )
        text = content if self.template is None else self.template.render(messages)
        return list(self._tokenizer.encode(text, add_special_tokens=self.template is None).ids)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that another model or a person wrote, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def ids_containing(self, text: str) -> frozenset[int]:
        """Every token whose text contains ``text``; a step can end with these."""
        ids = list(self._tokenizer.get_vocab(with_added_tokens=False).values())
        texts = self._tokenizer.decode_batch([[i] for i in ids], skip_special_tokens=False)
        return frozenset(i for i, written in zip(ids, texts, strict=True) if text in written)

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
        config = _read_model_config(directory)
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
        config = _read_model_config(directory, "reward_model")
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


def fingerprint(directory: Path, backend: str) -> str:
    """Sixteen hexadecimal digits that change with everything that decides a sample: the files and the backend."""
    paths = sorted(path for pattern in READ for path in directory.glob(pattern))
    names = [f"{path.name}: {path.stat().st_size}" for path in paths]
    return digest_of(paths, 8, "\n".join([backend, *names]))


def weights_digest(directory: Path) -> str:
    """Twelve hexadecimal digits that change with the weights."""
    return digest_of(sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin")))


def digest_of(paths: Iterable[Path], size: int = 6, start: str = "") -> str:
    """A digest of a text and of the content of files, as hexadecimal digits.

    Args:
        paths: the files, in order.
        size: bytes of the digest; each is two digits.
        start: the text.
    """
    digest = hashlib.blake2b(start.encode(), digest_size=size)
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _chat_template(directory: Path, config: dict[str, Any]) -> ChatTemplate | None:
    """The template for a conversation without tools; None if the directory has none.

    Raises:
        InputError: it has several by name, and none is the default.
    """
    file = directory / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if isinstance(source, list):
        named = {each["name"]: each["template"] for each in source}
        if "default" not in named:
            raise InputError("chat_template", ", ".join(named), "name one of them default in tokenizer_config.json")
        source = named["default"]
    if not source:
        return None
    special = _read_json(directory / "special_tokens_map.json") | config
    tokens = {name: _token_text(value) for name, value in special.items() if name.endswith("_token")}
    return ChatTemplate(source, {name: text for name, text in tokens.items() if isinstance(text, str)})


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
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error}); the file is broken") from error
    return value if isinstance(value, dict) else {}


def _token_text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def one_line(error: BaseException) -> str:
    """An error's text on one line, or the name of its type."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def listed(names: list[str]) -> str:
    """The first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
