"""What inference costs, from the shape of the model: operations, bytes read, bytes held.

Two prices of the same account: plain operations, and those plus memory traffic in operations ("Kinetics: Rethinking
Test-Time Scaling Laws", arXiv 2506.05333).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What decides the costs of a model.

    ``parameters`` counts what a token is multiplied with: the head, but not an input embedding that is only looked up.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    parameters: int
    bytes_per_value: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token leaves behind in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_value

    @property
    def flops_per_attended(self) -> int:
        """Operations for one token to attend to one position: two products of a multiplication and an addition."""
        return 4 * self.layers * self.heads * self.head_dim


def forward_flops(shape: Shape, tokens: int, context: int) -> float:
    """Operations to read ``tokens`` after ``context`` cached ones."""
    attended = tokens * context + tokens * (tokens + 1) // 2
    return float(2 * shape.parameters * tokens + shape.flops_per_attended * attended)


@dataclass
class Account:
    """What an engine has done. Tokens of a prompt are computed, or reused from the store; ``recomputed`` ones were
    given up for want of room. Keys and values of a run of blocks that several rows share are read once for them."""

    shape: Shape
    iterations: int = 0
    prompt_computed: int = 0
    prompt_reused: int = 0
    recomputed: int = 0
    generated: int = 0
    """Tokens of running rows that were read; what several rows have drawn alike is read once, the last never."""
    tokens: int = 0
    """All tokens that went through the layers."""
    attended: int = 0
    """Pairs of a token and a position it attended to."""
    kv_tokens_read: int = 0
    kv_tokens_held: int = 0
    kv_tokens_held_peak: int = 0
    kv_tokens_held_sum: int = 0
    """Over iterations."""

    def iteration(self, tokens: int, attended: int, read: int, held: int) -> None:
        """One forward pass."""
        self.iterations += 1
        self.tokens += tokens
        self.attended += attended
        self.kv_tokens_read += read
        self.kv_tokens_held = held
        self.kv_tokens_held_peak = max(self.kv_tokens_held_peak, held)
        self.kv_tokens_held_sum += held

    @property
    def linear_flops(self) -> int:
        """Operations of the linear layers."""
        return 2 * self.shape.parameters * self.tokens

    @property
    def attention_flops(self) -> int:
        """Operations of attention."""
        return self.shape.flops_per_attended * self.attended

    @property
    def weight_bytes_read(self) -> int:
        """Every iteration reads the weights once."""
        return self.iterations * self.shape.parameters * self.shape.bytes_per_value

    @property
    def kv_bytes_read(self) -> int:
        """Bytes of keys and values read, as actually done."""
        return self.kv_tokens_read * self.shape.kv_bytes_per_token

    @property
    def kv_bytes_held_peak(self) -> int:
        """The most bytes that rows held at once."""
        return self.kv_tokens_held_peak * self.shape.kv_bytes_per_token

    @property
    def kv_bytes_held_mean(self) -> float:
        """The mean over iterations."""
        return self.kv_tokens_held_sum * self.shape.kv_bytes_per_token / max(1, self.iterations)

    def flops(self) -> int:
        """Plain operations."""
        return self.linear_flops + self.attention_flops

    def kinetics(self, intensity: float, *, weights: bool = False) -> float:
        """Operations plus memory traffic at ``intensity`` operations to the byte, reading the weights or not."""
        traffic = self.kv_bytes_read + (self.weight_bytes_read if weights else 0)
        return self.flops() + intensity * traffic


@dataclass(frozen=True)
class KineticsCost:
    """The terms of one problem's cost before it is run, all in operations."""

    linear: float
    attention: float
    kv_traffic: float
    prefill: float

    @property
    def decoding(self) -> float:
        """What the paper charges: everything but the prefill."""
        return self.linear + self.attention + self.kv_traffic


def kinetics(shape: Shape, samples: int, prompt: int, generated: int, intensity: float) -> KineticsCost:
    """Cost of ``samples`` answers of ``generated`` tokens that share one prompt (arXiv 2506.05333).

    The mean context of a token is ``prompt + generated / 2``. The prompt's keys and values are read once for all
    samples, each sample's own separately. ``intensity`` is the device's operations per byte.
    """
    elements = 2 * shape.kv_heads * shape.head_dim * shape.layers
    ratio = shape.heads / shape.kv_heads
    size = shape.bytes_per_value
    return KineticsCost(
        linear=2.0 * samples * shape.parameters * generated,
        attention=ratio * samples * elements * (2 * prompt * generated + generated**2),
        kv_traffic=intensity * size * elements * (prompt * generated + samples * generated**2 / 2),
        prefill=2.0 * shape.parameters * prompt + ratio * elements * prompt**2,
    )
