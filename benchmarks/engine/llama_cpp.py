"""llama.cpp as a peer: the same weights as GGUF, continuous batching through its own library.

It is optional (``pip install llama-cpp-python gguf`` builds it in ten minutes). The result says if it is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.engine.measure import Timed
from benchmarks.engine.peers import Continuation
from thinktime.models.engine.llama import LlamaConfig

BATCH = 2048


def missing() -> str | None:
    """The reason why llama.cpp cannot run, or None."""
    return None if find_spec("llama_cpp") and find_spec("gguf") else "not installed"


@dataclass
class _Row:
    index: int
    sequence: int
    pending: list[int]
    length: int = 0
    new: list[int] = field(default_factory=list)


class LlamaCpp:
    """A model directory in llama.cpp, with torch's number of threads, weights in float32, and its default options."""

    def __init__(self, directory: Path) -> None:
        import llama_cpp

        self._lib: Any = llama_cpp
        self._vocabulary = LlamaConfig.read(directory).vocab_size
        with tempfile.TemporaryDirectory() as folder, _quiet():
            path = Path(folder) / "model.gguf"
            write_gguf(directory, path)
            llama_cpp.llama_backend_init()
            self._model = llama_cpp.llama_model_load_from_file(
                str(path).encode(), llama_cpp.llama_model_default_params()
            )

    def sample(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, eos_id: int, at_once: int
    ) -> tuple[Timed, list[Continuation]]:
        """Greedy continuations. The time does not include the creation of the context."""
        lib = self._lib
        rows = min(len(prompts), at_once)
        per_row = -(-(max(map(len, prompts)) + max_tokens) // 256) * 256
        options = lib.llama_context_default_params()
        options.n_ctx, options.n_seq_max = rows * per_row, rows
        options.n_batch, options.n_ubatch = BATCH, 512
        options.n_threads = options.n_threads_batch = torch.get_num_threads()
        with _quiet():
            context = lib.llama_init_from_model(self._model, options)
        batch = lib.llama_batch_init(BATCH, 0, 1)
        try:
            started = time.perf_counter()
            done = self._run(context, batch, prompts, max_tokens, eos_id, rows)
            seconds = time.perf_counter() - started
        finally:
            lib.llama_batch_free(batch)
            with _quiet():
                lib.llama_free(context)
        return Timed(sum(map(len, done)), seconds), [Continuation(tuple(ids)) for ids in done]

    def _run(
        self, context: Any, batch: Any, prompts: Sequence[Sequence[int]], max_tokens: int, eos_id: int, rows: int
    ) -> list[list[int]]:
        lib, memory = self._lib, self._lib.llama_get_memory(context)
        waiting = deque(enumerate(prompts))
        free, running = list(range(rows)), list[_Row]()
        done: list[list[int]] = [[] for _ in prompts]
        while waiting or running:
            room = BATCH - sum(len(row.pending) for row in running)
            while free and waiting and len(waiting[0][1]) <= room:
                index, prompt = waiting.popleft()
                running.append(_Row(index, free.pop(), list(prompt)))
                room -= len(prompt)
            at = 0
            for row in running:
                for place, token in enumerate(row.pending):
                    batch.token[at], batch.pos[at] = token, row.length + place
                    batch.n_seq_id[at], batch.seq_id[at][0] = 1, row.sequence
                    batch.logits[at] = place == len(row.pending) - 1
                    at += 1
                row.length += len(row.pending)
            batch.n_tokens = at
            if code := lib.llama_decode(context, batch):
                raise RuntimeError(f"llama_decode gave {code}")
            logits = np.ctypeslib.as_array(lib.llama_get_logits(context), (len(running), self._vocabulary))
            still = []
            for row, token in zip(running, logits.argmax(-1).tolist(), strict=True):
                row.new.append(token)
                row.pending = [token]
                if token == eos_id or len(row.new) == max_tokens:
                    done[row.index] = row.new
                    lib.llama_memory_seq_rm(memory, row.sequence, -1, -1)
                    free.append(row.sequence)
                else:
                    still.append(row)
            running = still
        return done


def write_gguf(directory: Path, path: Path, *, vocabulary: bool = False) -> None:
    """Write the weights of a Llama directory as GGUF. Without a vocabulary, the file supports only token ids."""
    import gguf

    config = LlamaConfig.read(directory)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    if vocabulary:
        _write_vocabulary(writer, directory)
    else:
        writer.add_tokenizer_model("no_vocab")
    names = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
    for i in range(config.num_hidden_layers):
        for theirs, ours in (
            ("attn_norm", "input_layernorm"), ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"), ("ffn_gate", "mlp.gate_proj"),
            ("ffn_norm", "post_attention_layernorm"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj"),
        ):  # fmt: skip
            names[f"model.layers.{i}.{ours}.weight"] = f"blk.{i}.{theirs}"
    for name, weight in load_file(directory / "model.safetensors").items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        turned = next((_interleaved(weight, n) for part, n in heads.items() if part in name), weight)
        writer.add_tensor(f"{names[name]}.weight", turned.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_vocabulary(writer: Any, directory: Path) -> None:
    """Write the vocabulary of a pocket model, in which every word is one token.

    It is a unigram model with equal scores, so the tokenization with the fewest tokens wins. Byte-pair encoding would
    need merges, and this vocabulary has none.
    """
    import gguf

    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    config = json.loads((directory / "tokenizer_config.json").read_text())
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    words = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("t5")
    writer.add_token_list([w if w in special else w.replace("Ġ", "▁").replace("Ċ", "\n") for w in words])
    writer.add_token_scores([-1.0] * len(words))
    writer.add_token_types([gguf.TokenType.CONTROL if w in special else gguf.TokenType.NORMAL for w in words])
    writer.add_eos_token_id(ids[config["eos_token"]])
    writer.add_pad_token_id(ids[config["pad_token"]])
    writer.add_unk_token_id(ids[config["pad_token"]])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    writer.add_chat_template(config["chat_template"])


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """The weight with rotary pairs side by side, as in llama.cpp, instead of half a head apart."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library. It writes to file descriptor 2, so replacing ``sys.stderr`` has no effect."""
    ctypes.CDLL(None).fflush(None)
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
