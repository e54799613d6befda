"""Small random models of any family, as ``transformers`` writes them, with the shipped tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from thinktime.pocket import directory

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "vocab_size": 500, "max_position_embeddings": 256, "pad_token_id": 0}
FIELDS: dict[str, Any] = SIZES | {"eos_token_id": 1, "bos_token_id": None, "initializer_range": 0.3}
TEXT_PARTS = ("Gemma3", "Gemma3n", "Llama4")
"""Families whose text model has a configuration of its own."""


def write_random_model(family: str, folder: Path, **fields: Any) -> Path:
    """Write a model and its tokenizer to a folder; return the folder.

    Args:
        family: the beginning of the names of its classes in ``transformers``.
        folder: it may exist.
        fields: of its configuration, in place of `FIELDS` or beyond them.
    """
    import transformers

    torch.manual_seed(0)
    text, head = "Text" if family in TEXT_PARTS else "", "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    config = getattr(transformers, f"{family}{text}Config")(**FIELDS | {"tie_word_embeddings": False} | fields)
    model = getattr(transformers, family + head)(config)
    for name, weight in model.named_parameters():
        if "sinks" in name:
            torch.nn.init.normal_(weight)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(directory("solver") / file, folder / file)
    return folder
