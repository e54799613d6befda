"""A random model small enough to check an engine against the plain forward pass, and stores of a few blocks."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thinktime.models.engine.costs import Shape
from thinktime.models.engine.engine import BLOCK_SIZE, Engine
from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.models.engine.rows import Row
from thinktime.models.engine.sampling import sample, uniform
from thinktime.pocket import directory

VOCABULARY = 40
EOS = 3
CONTEXT = 256


@cache
def tiny_model(seed: int = 0, labels: int = 0, dtype: torch.dtype = torch.float64) -> Llama:
    """Two layers, four heads over two key-value heads. Its next token depends on all earlier ones."""
    config = LlamaConfig(VOCABULARY, 32, 48, 2, 4, 2, 8, max_position_embeddings=CONTEXT, tie_word_embeddings=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Llama(config, labels).to(dtype).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "_proj" in name or "lm_head" in name:
            weight.mul_(4)
    return model


def tiny_directory_in(path: Path) -> Path:
    """A random Llama with the tokenizer of the shipped solver, as a model directory."""
    solver = directory("solver")
    vocabulary = json.loads((solver / "config.json").read_text())["vocab_size"]
    config = LlamaConfig(vocabulary, 16, 24, 2, 2, 1, 8, max_position_embeddings=128, tie_word_embeddings=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Llama(config).save(path, torch.float32)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(solver / name, path / name)
    return path


def tiny_shape(model: Llama) -> Shape:
    c = model.config
    size = model.model.embed_tokens.weight.dtype.itemsize
    parameters = sum(p.numel() for p in model.parameters())
    return Shape(c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads, c.head_dim, parameters, size)


def tiny_engine(model: Llama | None = None, *, blocks: int = 64, **options: Any) -> Engine:
    """An engine with a store of ``blocks`` blocks."""
    model = model or tiny_model()
    shape = tiny_shape(model)
    options = dict[str, Any](context=CONTEXT, end_ids=frozenset({EOS}), labels=model.labels) | options
    dtype = model.model.embed_tokens.weight.dtype
    return Engine(model, shape, dtype, kv_bytes=blocks * BLOCK_SIZE * shape.kv_bytes_per_token, **options)


def words(n: int, seed: int = 0) -> tuple[int, ...]:
    """``n`` ids without the end token."""
    return tuple(np.random.default_rng(seed).integers(EOS + 1, VOCABULARY, size=n).tolist())


@cache
def in_full(row: Row, model: Llama | None = None, eos: int = EOS) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The expected sample of a row: a full forward pass for every token, without a store and without sharing."""
    model = model or tiny_model()
    ids, logprobs = list(row.ids), list[float]()
    temperature, top_p = (torch.tensor([value], dtype=torch.float64) for value in (row.temperature, row.top_p))
    while len(logprobs) < row.max_tokens and len(ids) < CONTEXT:
        with torch.inference_mode():
            logits = model.head(model.model(torch.tensor(ids))[-1:]).double()
        noise = uniform(np.array([row.key], dtype=np.uint64), np.array([len(ids)], dtype=np.uint64))
        token = int(sample(logits, temperature, top_p, torch.tensor([row.top_k]), torch.from_numpy(noise)))
        ids.append(token)
        logprobs.append(float(logits[0].log_softmax(-1)[token]))
        if token == eos or token in row.stop_ids:
            break
    return tuple(ids[len(row.ids) :]), tuple(logprobs)
