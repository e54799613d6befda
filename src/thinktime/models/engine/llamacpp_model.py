"""A GGUF file as a language model of llama.cpp: its vocabulary, its chat template and its shape."""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinktime.core.errors import InputError, ModelError
from thinktime.files import known_sha256
from thinktime.models.engine.costs import Shape
from thinktime.models.engine.directories import digest_of
from thinktime.models.engine.llamacpp_engine import LlamaCppEngine
from thinktime.models.engine.llamacpp_library import GgufModel, library, release
from thinktime.models.engine.models import ENGINE
from thinktime.models.engine.templates import ChatTemplate, conversation

KV_BYTES = 2
"""llama.cpp keeps keys and values in float16."""
_VALUES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value in a GGUF header, by its type."""
_STRING, _ARRAY = 8, 9
_STAT = Path("/proc/stat")


class LlamaCppTokenizer:
    """The vocabulary and the chat template of a GGUF file; see `thinktime.models.engine.tokenizer.ChatTokenizer`."""

    def __init__(self, weights: GgufModel) -> None:
        self._weights = weights
        lib, vocabulary = weights.library, weights.vocabulary
        everything = range(weights.vocabulary_size)
        self._pieces = [weights.piece(token, special=False) for token in everything]
        eos = int(lib.llama_vocab_eos(vocabulary))
        ends = [token for token in everything if lib.llama_vocab_is_eog(vocabulary, token)]
        self.end_ids = tuple(dict.fromkeys([eos, *ends] if eos >= 0 else ends))
        if not self.end_ids:
            raise InputError("model", "GGUF", "its vocabulary has no end token")
        self.eos_id = self.end_ids[0]
        source, bos = weights.template(), int(lib.llama_vocab_bos(vocabulary))
        names = {"bos_token": bos, "eos_token": eos}
        tokens = {name: weights.piece(token, special=True).decode() for name, token in names.items() if token >= 0}
        self.template = ChatTemplate(source, tokens) if source else None

    @property
    def end_tokens(self) -> list[str]:
        """The tokens that end a reply, as they are written."""
        return [self._weights.piece(token, special=True).decode("utf-8", "replace") for token in self.end_ids]

    def encode_chat(self, prompt: Any, spell: bool = False) -> list[int]:
        """Ids of the prompt with the start of the assistant's turn; a string is one user message.

        Raises:
            InputError: the prompt is empty or no conversation.
        """
        messages = conversation(prompt)
        content = " ".join(str(message.get("content") or "") for message in messages)
        if not content.strip():
            raise InputError("prompt", prompt, "ask something")
        text = content if self.template is None else self.template.render(messages)
        return self._weights.tokenize(text, add_special=self.template is None)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that another model or a person wrote, without special tokens."""
        return self._weights.tokenize(text, add_special=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out."""
        return b"".join(self._pieces[token] for token in ids).decode("utf-8", "replace")

    def ids_containing(self, text: str) -> frozenset[int]:
        """Every token whose text contains ``text``; a step can end with these."""
        data = text.encode()
        return frozenset(token for token, piece in enumerate(self._pieces) if data in piece)


@dataclass(frozen=True)
class LlamaCppModel:
    """A language model in llama.cpp; its fields are those of `thinktime.models.engine.models.LanguageModel`."""

    model: GgufModel
    tokenizer: LlamaCppTokenizer
    shape: Shape
    context: int
    fingerprint: str
    weights: str
    weights_dtype: str = "llamacpp"

    def engine(self, **options: Any) -> LlamaCppEngine:
        """An engine for it; ``options`` are those of `LlamaCppEngine`."""
        return LlamaCppEngine(
            self.model,
            self.shape.kv_bytes_per_token,
            context=self.context,
            end_ids=frozenset(self.tokenizer.end_ids),
            decode=self.tokenizer.decode,
            **{"threads": idle_cores(), **options},
        )


def load_llamacpp_model(path: Path) -> LlamaCppModel:
    """Load a GGUF file into llama.cpp. Nothing is converted.

    Raises:
        InputError: it is no GGUF file, the wheel is missing, or the model writes no text.
        ModelError: the file is broken.
    """
    if path.suffix != ".gguf":
        raise InputError("engine", "llamacpp", f"it reads GGUF files, and {str(path)!r} is none; take --engine own")
    if not path.is_file():
        raise InputError("model", str(path), "there is no such file")
    library()
    weights = GgufModel(path)
    lib, handle = weights.library, weights.handle
    if lib.llama_model_has_encoder(handle):
        raise InputError("model", str(path), "it has an encoder; give a model that only continues texts")
    family, heads = weights.meta("general.architecture"), lib.llama_model_n_head(handle)
    head_dim = int(weights.meta(f"{family}.attention.key_length") or lib.llama_model_n_embd(handle) // max(1, heads))
    used, experts = (int(weights.meta(f"{family}.expert_{name}") or 1) for name in ("used_count", "count"))
    parameters = _multiplied(_tensors(path), used / max(1, experts))
    shape = Shape(
        lib.llama_model_n_layer(handle), heads, lib.llama_model_n_head_kv(handle), head_dim, parameters, KV_BYTES
    )
    sha256 = known_sha256(path)
    fingerprint = digest_of([], 8, f"{ENGINE}, llama.cpp {release()} {sha256}")
    context = lib.llama_model_n_ctx_train(handle)
    return LlamaCppModel(weights, LlamaCppTokenizer(weights), shape, context, fingerprint, sha256[:12])


def idle_cores() -> int:
    """Threads for llama.cpp: ``OMP_NUM_THREADS``, or the physical cores that are not busy now, and at least 1.

    On a busy machine its threads wait for each other, so one thread too many costs more than it gives.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    siblings = {path.read_text() for path in Path("/sys/devices/system/cpu").glob("cpu*/topology/thread_siblings_list")}
    return max(1, min(cores, len(siblings) or cores) - round(busy_cores()))


def busy_cores(seconds: float = 0.1) -> float:
    """Cores that compute now: on Linux the mean of so many seconds, elsewhere the load of the last minute.

    The load of the last minute counts what has ended, also an earlier model of this process.
    """
    if not _STAT.exists():
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    idle, total = _ticks()
    time.sleep(seconds)
    idle_then, total_then = _ticks()
    return (os.cpu_count() or 1) * (1 - (idle_then - idle) / max(total_then - total, 1))


def _ticks() -> tuple[int, int]:
    """Of all cores since the start of the machine: idle ticks, also those that wait for a disk, and all ticks."""
    _, *ticks = _STAT.read_text().split("\n", 1)[0].split()
    return int(ticks[3]) + int(ticks[4]), sum(map(int, ticks[:8]))


def _multiplied(tensors: dict[str, int], used: float) -> int:
    """Parameters a token is multiplied with: of the experts those it uses, and no embedding that is only a table."""
    experts = sum(size for name, size in tensors.items() if "_exps." in name)
    table = tensors.get("token_embd.weight", 0) if "output.weight" in tensors else 0
    return sum(tensors.values()) - table - experts + round(experts * used)


def _tensors(path: Path) -> dict[str, int]:
    """The elements of each tensor, from the header of a GGUF file.

    Raises:
        ModelError: the header is broken.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(data).tensors()
    except (struct.error, KeyError, ValueError) as error:
        raise ModelError(f"model={str(path)!r}: its header is broken ({error}); download it again") from error


class _Header:
    """Reads a GGUF header from its start: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 8

    def tensors(self) -> dict[str, int]:
        """The elements of each tensor."""
        tensors, values = self._number("Q"), self._number("Q")
        for _ in range(values):
            self._string()
            self._skip(self._number("I"))
        found = {}
        for _ in range(tensors):
            name = self._string().decode()
            found[name] = math.prod(self._number("Q") for _ in range(self._number("I")))
            self._at += 12  # the type and the offset
        return found

    def _number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self._data, self._at)
        self._at += struct.calcsize(f"<{kind}")
        return int(value)

    def _string(self) -> bytes:
        end = self._number("Q") + self._at
        text, self._at = self._data[self._at : end], end
        return text

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            of, n = self._number("I"), self._number("Q")
            if of in _VALUES:
                self._at += n * _VALUES[of]
            else:
                for _ in range(n):
                    self._skip(of)
        else:
            self._at += _VALUES[kind]
