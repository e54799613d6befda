"""Any causal language model of ``transformers`` behind the interface of our own Llama."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache


class _Cache:
    """A `DynamicCache` under the name that the sampling loop uses."""

    def __init__(self) -> None:
        self.inner = DynamicCache()

    def select(self, rows: Tensor) -> None:
        self.inner.batch_select_indices(rows)


class TransformersLM(torch.nn.Module):
    """An ``AutoModelForCausalLM``."""

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True).eval()

    def new_cache(self) -> _Cache:
        """An empty cache."""
        return _Cache()

    def next_logits(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: _Cache) -> Tensor:
        """Logits after the last of ``ids``, ``[batch, vocab]``; the cache then holds ``ids`` too."""
        out = self.inner(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask.expand(ids.shape[0], 1, ids.shape[1], mask.shape[-1]),
            past_key_values=cache.inner,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1]
        return logits
