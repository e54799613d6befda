"""Any attention-only causal language model of ``transformers``, with the engine's attention in place of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM

from thinktime.core.errors import ModelError
from thinktime.models.engine.llama import Attend, Tap

NAME = "thinktime"


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    attend: Attend,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The hook of ``transformers``: tensors are ``[1, heads, tokens, head_dim]``."""
    if abs(scaling - query.shape[-1] ** -0.5) > 1e-9:
        raise ModelError("this model has its own attention scale; the engine does not support its family")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(int(module.layer_idx), q, k, v)[None], None  # type: ignore[arg-type]


AttentionInterface.register(NAME, _attention)


class TransformersLM(torch.nn.Module):
    """An ``AutoModelForCausalLM``.

    Raises:
        ModelError: its layers attend to a window shorter than its context.
    """

    def __init__(self, directory: Path, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, local_files_only=True, attn_implementation=NAME
        ).eval()
        config = self.inner.config
        window = getattr(config, "sliding_window", None)
        if window and getattr(config, "use_sliding_window", True) and window < config.max_position_embeddings:
            raise ModelError(
                f"model={str(directory)!r}: layers with a sliding window of {window} tokens are not supported"
            )

        self._tap: Tap | None = None
        for index, layer in enumerate(self.inner.base_model.layers):
            layer.register_forward_hook(partial(self._after, index))

    def _after(self, index: int, _module: torch.nn.Module, _inputs: Any, states: Tensor) -> None:
        if self._tap is not None:
            self._tap(index, states[0])

    def hidden(self, ids: Tensor, positions: Tensor, attend: Attend, tap: Tap | None = None) -> Tensor:
        """Hidden states of a flat batch; see `thinktime.models.engine.engine.Model`."""
        self._tap = tap
        out = self.inner.base_model(
            input_ids=ids[None], position_ids=positions[None], attention_mask=None, use_cache=False, attend=attend
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary."""
        logits: Tensor = self.inner.get_output_embeddings()(hidden)
        return logits
