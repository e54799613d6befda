"""The cost of inference from the shape of the model: operations, bytes read, bytes held.

An account has two totals: operations alone, and operations plus memory traffic converted to operations ("Kinetics:
Rethinking Test-Time Scaling Laws", arXiv 2506.05333).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The dimensions that determine a model's costs.

    ``parameters`` counts the weights each token is multiplied with. It includes the head and excludes an input
    embedding that is only a table.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    parameters: int
    bytes_per_value: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_value

    @property
    def flops_per_attended(self) -> int:
        """Operations for one token to attend to one position: two products, each a multiplication and an addition."""
        return 4 * self.layers * self.heads * self.head_dim


def forward_flops(shape: Shape, tokens: int, context: int) -> float:
    """Operations to process ``tokens`` tokens after ``context`` cached ones."""
    attended = tokens * context + tokens * (tokens + 1) // 2
    return float(2 * shape.parameters * tokens + shape.flops_per_attended * attended)


@dataclass
class Account:
    """Counts of an engine's work.

    Prompt tokens are either computed or reused from the store. ``recomputed`` tokens had been computed before and were
    evicted for lack of room. The keys and values of blocks that several rows share count as read once.
    """

    shape: Shape
    iterations: int = 0
    prompt_computed: int = 0
    prompt_reused: int = 0
    recomputed: int = 0
    generated: int = 0
    """Processed tokens of running rows. Rows with the same ids count once; a row's last token is never processed."""
    tokens: int = 0
    """All tokens that went through the layers."""
    attended: int = 0
    """Pairs of a token and an attended position."""
    kv_tokens_read: int = 0
    kv_tokens_held: int = 0
    kv_tokens_held_peak: int = 0
    kv_tokens_held_sum: int = 0
    """Sum over iterations."""

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
        """Bytes of weights read: every iteration reads them once."""
        return self.iterations * self.shape.parameters * self.shape.bytes_per_value

    @property
    def kv_bytes_read(self) -> int:
        """Bytes of keys and values actually read."""
        return self.kv_tokens_read * self.shape.kv_bytes_per_token

    @property
    def kv_bytes_held_peak(self) -> int:
        """The most bytes that rows held at once."""
        return self.kv_tokens_held_peak * self.shape.kv_bytes_per_token

    @property
    def kv_bytes_held_mean(self) -> float:
        """The mean over iterations of the bytes that rows held."""
        return self.kv_tokens_held_sum * self.shape.kv_bytes_per_token / max(1, self.iterations)

    def flops(self) -> int:
        """Plain operations."""
        return self.linear_flops + self.attention_flops

    def kinetics(self, intensity: float, *, weights: bool = False) -> float:
        """Operations plus memory traffic at ``intensity`` operations per byte; with ``weights`` also for weights."""
        traffic = self.kv_bytes_read + (self.weight_bytes_read if weights else 0)
        return self.flops() + intensity * traffic
