"""Active parameters of open models, for FLOPs: one token costs two FLOPs for each active parameter.

Active are all parameters except the embedding table and, in a mixture of experts, the experts that a token skips. The
counts come from each model's ``config.json``. They exclude attention over the context, whose cost grows with length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_VARIANT = re.compile(r"-(?:instruct|chat|base|it|thinking|awq|gptq|fp8|gguf|int4|int8|4bit|8bit|bnb|\d{4})\b")


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder with gated layers, as in its ``config.json``; a token uses ``experts`` of ``of``."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    experts: int = 1
    of: int = 0

    @property
    def active(self) -> int:
        """Parameters of the matrices that one token is multiplied with, including the output head."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.experts * self.hidden * self.intermediate + self.of * self.hidden
        return self.layers * layer + self.hidden * self.vocabulary


LISTED: dict[str, DecoderShape] = {
    "llama-3.1-8b": DecoderShape(32, 4096, 32, 8, 128, 14336, 128256),
    "llama-3.1-70b": DecoderShape(80, 8192, 64, 8, 128, 28672, 128256),
    "llama-3.2-1b": DecoderShape(16, 2048, 32, 8, 64, 8192, 128256),
    "llama-3.2-3b": DecoderShape(28, 3072, 24, 8, 128, 8192, 128256),
    "llama-3.3-70b": DecoderShape(80, 8192, 64, 8, 128, 28672, 128256),
    "mistral-7b-v0.3": DecoderShape(32, 4096, 32, 8, 128, 14336, 32768),
    "qwen2.5-0.5b": DecoderShape(24, 896, 14, 2, 64, 4864, 151936),
    "qwen2.5-1.5b": DecoderShape(28, 1536, 12, 2, 128, 8960, 151936),
    "qwen2.5-3b": DecoderShape(36, 2048, 16, 2, 128, 11008, 151936),
    "qwen2.5-7b": DecoderShape(28, 3584, 28, 4, 128, 18944, 152064),
    "qwen2.5-14b": DecoderShape(48, 5120, 40, 8, 128, 13824, 152064),
    "qwen2.5-32b": DecoderShape(64, 5120, 40, 8, 128, 27648, 152064),
    "qwen2.5-72b": DecoderShape(80, 8192, 64, 8, 128, 29568, 152064),
    "qwen3-0.6b": DecoderShape(28, 1024, 16, 8, 128, 3072, 151936),
    "qwen3-1.7b": DecoderShape(28, 2048, 16, 8, 128, 6144, 151936),
    "qwen3-4b": DecoderShape(36, 2560, 32, 8, 128, 9728, 151936),
    "qwen3-8b": DecoderShape(36, 4096, 32, 8, 128, 12288, 151936),
    "qwen3-14b": DecoderShape(40, 5120, 40, 8, 128, 17408, 151936),
    "qwen3-32b": DecoderShape(64, 5120, 64, 8, 128, 25600, 151936),
    "qwen3-30b-a3b": DecoderShape(48, 2048, 32, 4, 128, 768, 151936, experts=8, of=128),
    "qwen3-235b-a22b": DecoderShape(94, 4096, 64, 4, 128, 1536, 151936, experts=8, of=128),
}
"""Shapes by name, without the organisation and without suffixes for tuning or quantization."""


def active_parameters(model: str) -> float | None:
    """Parameters that one token of a model is multiplied with; None if the model is not listed.

    ``Qwen/Qwen3-8B-FP8``, ``qwen3:8b`` and ``qwen3-8b`` are the same model; a name with other parts is another one.
    """
    name = model.rpartition("/")[2].lower().replace(":", "-").removeprefix("meta-")
    shape = LISTED.get(_VARIANT.sub("", name))
    return None if shape is None else float(shape.active)
