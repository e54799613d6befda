"""Llama and Qwen2 in plain torch. The engine runs them, and the shipped models are trained with it.

Reads and writes Hugging Face directories (``config.json``, ``model.safetensors``) with the parameter names of
``transformers``' ``LlamaForCausalLM``, ``Qwen2ForCausalLM`` and ``LlamaForTokenClassification``. A test compares the
logits with theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from thinktime.models.engine.products import Product, dense_product, packed_product

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Takes layer, q, k and v. The result is like q ``[…, tokens, heads, head_dim]``; k and v may have fewer heads."""
Tap = Callable[[int, Tensor], None]
"""Takes the index of a layer and the hidden states after it."""


def causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token attends to itself and the tokens before it in the batch; nothing is stored."""
    q, k, v = (x.transpose(-2, -3) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[-3] != k.shape[-3])
    return out.transpose(-2, -3)


@dataclass(frozen=True)
class LlamaConfig:
    """The fields of a Hugging Face ``config.json`` that determine the computation."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int = 512
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True
    qkv_bias: bool = False
    """Whether queries, keys and values have a bias (Qwen2)."""

    @classmethod
    def read(cls, directory: Path) -> LlamaConfig:
        """Read ``config.json``; missing fields have the defaults of ``transformers``.

        Raises:
            ValueError: a number is not above 0, or ``tie_word_embeddings`` is no boolean.
        """
        raw = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        theirs = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}
        raw = theirs | {"num_key_value_heads": raw["num_attention_heads"]} | raw
        raw["head_dim"] = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
        raw.setdefault("rope_theta", (raw.get("rope_parameters") or {}).get("rope_theta", 10000.0))
        raw["qkv_bias"] = raw.get("model_type") == "qwen2"
        found = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        for name, value in found.items():
            if not (isinstance(value, bool) if name in ("tie_word_embeddings", "qkv_bias") else _is_positive(value)):
                raise ValueError(f"{name}={value!r}")
        return cls(**found)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; ``attend`` decides which tokens are attended to."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=config.qkv_bias)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, layer: int) -> Tensor:
        q = self.q_proj(x).unflatten(-1, (self.heads, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        out = attend(layer, _rotate(q, cos, sin), _rotate(k, cos, sin), v)
        projected: Tensor = self.o_proj(out.flatten(-2))
        return projected


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class MLP(nn.Module):
    """The gated feed-forward layer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, index: int) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend, index)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class LlamaModel(nn.Module):
    """The backbone: token ids to hidden states."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        table = torch.empty(config.vocab_size, config.hidden_size)
        if not table.is_meta:  # on the meta device this would load torch's compiler, which takes seconds
            nn.init.normal_(table)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: Tensor, positions: Tensor | None = None, attend: Attend = causal) -> Tensor:
        """Hidden states ``[…, tokens, hidden]`` of ``ids`` ``[…, tokens]`` at ``positions``, by default 0, 1, …"""
        if positions is None:
            positions = torch.arange(ids.shape[-1], device=ids.device)
        x = self.embed_tokens(ids)
        cos, sin = self.rotations(positions, x.dtype)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, attend, index)
        hidden: Tensor = self.norm(x)
        return hidden

    def rotations(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary angles, ``[…, tokens, 1, head_dim / 2]``."""
        half = torch.arange(0, self.config.head_dim, 2, device=positions.device)
        angles = positions[..., None, None] * self.config.rope_theta ** (-half / self.config.head_dim)
        return angles.cos().to(dtype), angles.sin().to(dtype)


class _Flat:
    """The backbone for flat batches of few tokens, where every call is expensive: fewer, larger products, no modules.

    The projections of a layer with the same input are joined in one matrix; the modules keep views of it. The weights
    of norms are copies, so it has to be made after training.

    Args:
        model: the backbone.
        product: makes the products of a layer.
        dtype: of the arithmetic.
    """

    def __init__(self, model: LlamaModel, product: Callable[..., Product], dtype: torch.dtype) -> None:
        self._config, self._embedding = model.config, model.embed_tokens.weight
        device = self._embedding.device
        every = torch.arange(model.config.max_position_embeddings, device=device)
        cos, sin = model.rotations(every, dtype)
        self._cos, self._sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        root = model.config.hidden_size**0.5
        self._norm = model.norm.weight.to(dtype) * root
        least, wide = model.config.rms_norm_eps**0.5 * root, torch.promote_types(dtype, torch.float32)
        self._least = torch.tensor(least, dtype=wide, device=device)
        self._layers = []
        for layer in model.layers:
            assert isinstance(layer, Layer)
            a, m = layer.self_attn, layer.mlp
            self._layers.append(
                (
                    layer.input_layernorm.weight.to(dtype) * root,
                    product(a.q_proj, a.k_proj, a.v_proj),
                    product(a.o_proj),
                    layer.post_attention_layernorm.weight.to(dtype) * root,
                    product(m.gate_proj, m.up_proj),
                    product(m.down_proj),
                )
            )

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend, tap: Tap | None) -> Tensor:
        c = self._config
        x, cos, sin = (
            table.index_select(0, at)
            for table, at in ((self._embedding, ids), (self._cos, positions), (self._sin, positions))
        )
        x = x.to(self._norm.dtype)
        tokens, least = len(ids), self._least
        heads, kv_heads, turn = c.num_attention_heads, c.num_key_value_heads, c.head_dim // 2
        for index, (norm, qkv, o, second_norm, gate_up, down) in enumerate(self._layers):
            mixed = qkv(_scaled(x, norm, least), None).view(tokens, -1, c.head_dim)
            turned, v = mixed.split_with_sizes((heads + kv_heads, kv_heads), 1)
            turned = torch.addcmul(turned * cos, turned.roll(turn, -1), sin)
            q, k = turned.split_with_sizes((heads, kv_heads), 1)
            x = o(attend(index, q, k, v).reshape(tokens, -1), x)
            gate, up = gate_up(_scaled(x, second_norm, least), None).chunk(2, dim=-1)
            x = down(F.silu(gate).mul_(up), x)
            if tap is not None:
                tap(index, x)
        return _scaled(x, self._norm, least)


def _scaled(x: Tensor, weight: Tensor, least: Tensor) -> Tensor:
    """`RMSNorm` in half as many operations; ``weight`` and ``least`` (epsilon) include the square root of the size."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=least.dtype).hypot_(least)
    return x.div(norm).mul_(weight).to(x.dtype)


class Llama(nn.Module):
    """A backbone with a head: a language model, or a token classifier if ``labels`` is above 0."""

    def __init__(self, config: LlamaConfig, labels: int = 0) -> None:
        super().__init__()
        self.config, self.labels = config, labels
        self.model = LlamaModel(config)
        self._flat: _Flat | None = None
        self._head: Product | None = None
        if labels:
            self.score = nn.Linear(config.hidden_size, labels)
        elif not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states to logits over the vocabulary, or over the labels of a classifier."""
        if self._head is not None:
            return self._head(hidden, None)
        if self.labels:
            weight, bias = self.score.weight, self.score.bias
        else:
            weight = self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight
            bias = None
        return F.linear(hidden, weight, bias)

    def hidden(self, ids: Tensor, positions: Tensor, attend: Attend, tap: Tap | None = None) -> Tensor:
        """Hidden states of a flat batch; see `thinktime.models.engine.engine.Model`."""
        if self._flat is None:
            self._flat = _Flat(self.model, dense_product, self.model.embed_tokens.weight.dtype)
        return self._flat(ids, positions, attend, tap)

    def pack(self) -> None:
        """Multiply a language model's weights in float32 from now on. Only `hidden` and `head` work afterwards.

        They raise `RuntimeError` if this processor or build of torch has no such products, see
        `thinktime.models.engine.products.packs`.
        """
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            product = partial(packed_product, pool)
            self._flat = _Flat(self.model, product, torch.float32)
            if self.config.tie_word_embeddings:
                head = nn.Linear(self.config.hidden_size, self.config.vocab_size, bias=False, device="meta")
                head.weight = nn.Parameter(self.model.embed_tokens.weight.data, requires_grad=False)
            else:
                head = self.lm_head
            self._head = product(head)

    @classmethod
    def fits(cls, directory: Path) -> bool:
        """Whether a directory has all weights of a language model in one file, and no others."""
        path = directory / "model.safetensors"
        if not path.exists():
            return False
        with safe_open(path, "pt") as file:
            names = set(file.keys())
        with torch.device("meta"):
            return names == set(cls(LlamaConfig.read(directory)).state_dict())

    @classmethod
    def load(cls, directory: Path, dtype: torch.dtype = torch.float32) -> Llama:
        """Load a Hugging Face directory. The weights are converted to ``dtype``.

        Raises:
            OSError: a file of the directory is missing.
            RuntimeError: names or shapes of the weights do not fit the configuration.
        """
        weights = load_file(directory / "model.safetensors")
        labels = weights["score.weight"].shape[0] if "score.weight" in weights else 0
        with torch.device("meta"):  # the random first weights of a large model take seconds
            model = cls(LlamaConfig.read(directory), labels)
        model.load_state_dict(weights, assign=True)
        return model.to(dtype).eval()

    def save(self, directory: Path, dtype: torch.dtype, **extra: object) -> None:
        """Write ``config.json`` and ``model.safetensors``; ``extra`` fields are added to the configuration."""
        directory.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().to(dtype).contiguous() for name, value in self.state_dict().items()}
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        family = "Qwen2" if self.config.qkv_bias else "Llama"
        config = asdict(self.config) | {
            "model_type": family.lower(),
            "architectures": [f"{family}ForTokenClassification" if self.labels else f"{family}ForCausalLM"],
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "torch_dtype": str(dtype).removeprefix("torch."),
        }
        (directory / "config.json").write_text(json.dumps(config | extra, indent=2, sort_keys=True) + "\n")
