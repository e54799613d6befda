"""What a forward pass costs, from the shape of the model alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thinktime.engine.llama import LlamaConfig


def forward_flops(shape: LlamaConfig, parameters: int, tokens: int, context: int) -> float:
    """Operations to read ``tokens`` after ``context`` cached ones.

    ``2 * parameters`` per token for the linear layers (``parameters`` counts the head, not the input embedding)
    and ``4 * heads * head_dim`` per layer, token and position attended to.
    """
    attended = tokens * context + tokens * (tokens + 1) / 2
    attention = 4.0 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * attended
    return 2.0 * parameters * tokens + attention


def kv_bytes_per_token(shape: LlamaConfig, bytes_per_value: int) -> int:
    """Bytes of keys and values that one token leaves behind in all layers."""
    return 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * bytes_per_value
