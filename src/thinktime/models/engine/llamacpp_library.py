"""The C interface of llama.cpp, in the library that the wheel ``xllamacpp`` carries.

The two structures of options differ between versions of llama.cpp. So they are taken as bytes from the library itself,
and the few options that are set are found in these bytes and checked.
Source: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thinktime.core.errors import InputError, ModelError

MAX_SEQUENCES = 256
"""The most sequences of a context; a constant of llama.cpp."""
NO_ROOM = 1
"""The code of `Context.decode` if the keys and values do not fit; nothing has changed then."""
_HEAD = struct.Struct("<4I")
"""The first options of a context: n_ctx, n_batch, n_ubatch, n_seq_max."""
_FLAGS = bytes([0, 1, 1, 1, 1, 0])
"""The last options of a context: embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified."""


class _Options(ctypes.Structure):
    """More bytes than any version needs. Structures of this size are passed by their address or on the stack."""

    _fields_ = [("bytes", ctypes.c_uint8 * 512)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [_LOG, c_void_p]),
    "llama_model_default_params": (_Options, []),
    "llama_context_default_params": (_Options, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, _Options]),
    "llama_model_free": (None, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, _Options]),
    "llama_free": (None, [c_void_p]),
    "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
    "llama_n_ctx": (c_uint32, [c_void_p]),
    "llama_n_ctx_seq": (c_uint32, [c_void_p]),
    "llama_n_seq_max": (c_uint32, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_memory_seq_cp": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_decode": (c_int32, [c_void_p, _Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_model_n_embd": (c_int32, [c_void_p]),
    "llama_model_n_layer": (c_int32, [c_void_p]),
    "llama_model_n_head": (c_int32, [c_void_p]),
    "llama_model_n_head_kv": (c_int32, [c_void_p]),
    "llama_model_n_params": (c_uint64, [c_void_p]),
    "llama_model_has_encoder": (c_bool, [c_void_p]),
    "llama_model_is_recurrent": (c_bool, [c_void_p]),
    "llama_model_is_hybrid": (c_bool, [c_void_p]),
    "llama_model_meta_val_str": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "llama_model_chat_template": (c_char_p, [c_void_p, c_char_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_vocab_bos": (c_int32, [c_void_p]),
    "llama_vocab_eos": (c_int32, [c_void_p]),
    "llama_vocab_is_eog": (c_bool, [c_void_p, c_int32]),
    "llama_token_to_piece": (c_int32, [c_void_p, c_int32, c_char_p, c_int32, c_int32, c_bool]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
}


_SILENT = _LOG(lambda level, text, data: None)
"""Drops the messages of llama.cpp; a failure has its own error."""


@cache
def library() -> Any:
    """The library, with the types of its functions.

    Raises:
        InputError: the wheel is not installed, or its llama.cpp has another interface.
    """
    try:
        from xllamacpp import xllamacpp as wheel
    except ImportError:
        fix = "it needs llama.cpp; pip install 'thinktime[llamacpp]'"
        raise InputError("engine", "llamacpp", fix) from None
    loaded = ctypes.CDLL(str(wheel.__file__))
    try:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise _other_version(str(error)) from None
    loaded.llama_log_set(_SILENT, None)
    loaded.llama_backend_init()
    return loaded


def installed() -> bool:
    """Whether the wheel is here."""
    with suppress(InputError):
        library()
        return True
    return False


def release() -> str:
    """The version of the wheel."""
    return version("xllamacpp")


def _other_version(what: str) -> InputError:
    fix = f"its llama.cpp has another interface ({what}); pip install -U 'thinktime[llamacpp]'"
    return InputError("xllamacpp", release(), fix)


class GgufModel:
    """The model of a GGUF file. The weights are mapped into memory.

    Raises:
        InputError: the wheel is missing.
        ModelError: llama.cpp cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        self.library = library()
        self.handle = self.library.llama_model_load_from_file(
            os.fsencode(path), self.library.llama_model_default_params()
        )
        if not self.handle:
            raise ModelError(f"model={str(path)!r}: llama.cpp cannot load it; check the file")
        self.vocabulary = self.library.llama_model_get_vocab(self.handle)
        self.vocabulary_size: int = self.library.llama_vocab_n_tokens(self.vocabulary)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.llama_model_free(self.handle)

    @property
    def whole_only(self) -> bool:
        """Whether the memory of a sequence cannot be cut: that of a recurrent layer is at the end of its tokens."""
        handle = self.handle
        return bool(self.library.llama_model_is_recurrent(handle) or self.library.llama_model_is_hybrid(handle))

    def meta(self, key: str) -> str | None:
        """A value of the file's header as text; None if there is none."""
        size = self.library.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        self.library.llama_model_meta_val_str(self.handle, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    def template(self) -> str | None:
        """The chat template, or None."""
        found = self.library.llama_model_chat_template(self.handle, None)
        return None if found is None else str(found.decode("utf-8", "replace"))

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes of a token. Without ``special``, control tokens have none."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = self.library.llama_token_to_piece(self.vocabulary, token, buffer, size, 0, special)
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """The ids of a text, in which special tokens are recognised."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        ids = (c_int32 * size)()
        count = self.library.llama_tokenize(self.vocabulary, data, len(data), ids, size, add_special, True)
        if count < 0:
            raise ModelError("llama.cpp cannot read this text as tokens")
        return list(ids[:count])


class Context:
    """The keys and values of sequences, which can share cells, and the forward pass.

    Args:
        weights: the model.
        cells: positions of all sequences together.
        sequences: the most sequences.
        tokens: the most tokens of one batch.
        threads: of the processor.

    Raises:
        InputError: this version of llama.cpp has other options.
        ModelError: there is not enough memory.
    """

    def __init__(self, weights: GgufModel, *, cells: int, sequences: int, tokens: int, threads: int) -> None:
        self._weights, self._library = weights, weights.library
        options = self._library.llama_context_default_params()
        raw = bytes(options.bytes)
        at = raw.find(_FLAGS, _HEAD.size, 256)
        if _HEAD.unpack_from(raw)[1:] != (2048, 512, 1) or at < 0:
            raise _other_version("options of a context")
        _HEAD.pack_into(options.bytes, 0, cells, tokens, tokens, sequences)
        options.bytes[at + len(_FLAGS) - 1] = 1  # kv_unified: sequences share cells
        self.handle = self._library.llama_init_from_model(weights.handle, options)
        if not self.handle:
            raise ModelError(f"llama.cpp has no memory for {cells} positions; give a smaller concurrency")
        self.cells: int = self._library.llama_n_ctx(self.handle)
        same = self._library.llama_n_ctx_seq(self.handle) == self.cells >= cells
        if not same or self._library.llama_n_seq_max(self.handle) != sequences:
            raise _other_version("options of a context")
        self._library.llama_set_n_threads(self.handle, threads, threads)
        self._memory = self._library.llama_get_memory(self.handle)
        self._tokens, self._positions, self._counts = ((c_int32 * tokens)() for _ in range(3))
        self._sequences = (c_int32 * tokens)()
        self._wanted = (c_int8 * tokens)()
        address, size = ctypes.addressof(self._sequences), ctypes.sizeof(c_int32)
        self._pointers = (POINTER(c_int32) * tokens)(
            *(ctypes.cast(address + i * size, POINTER(c_int32)) for i in range(tokens))
        )
        self._counts[:] = [1] * tokens

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.llama_free(self.handle)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the target, which is empty, share the first ``length`` positions of the source."""
        start, end = (-1, -1) if self._weights.whole_only else (0, length)
        self._library.llama_memory_seq_cp(self._memory, source, target, start, end)

    def clear(self, sequence: int) -> None:
        """Free the cells of a sequence that no other sequence shares."""
        self._library.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[bool]
    ) -> int:
        """Process tokens of sequences; ``wanted`` are those whose logits are kept. The result is 0, or a code."""
        n = len(tokens)
        self._tokens[:n], self._positions[:n], self._sequences[:n] = list(tokens), list(positions), list(sequences)
        self._wanted[:n] = list(wanted)
        batch = _Batch(n, self._tokens, None, self._positions, self._counts, self._pointers, self._wanted)
        return int(self._library.llama_decode(self.handle, batch))

    def logits(self, place: int) -> npt.NDArray[np.float32]:
        """The logits of the token at a place of the last batch, ``[vocabulary]``; valid until the next batch."""
        found = self._library.llama_get_logits_ith(self.handle, place)
        if not found:
            raise ModelError("llama.cpp has no logits for a token")
        return np.ctypeslib.as_array(found, (self._weights.vocabulary_size,))
