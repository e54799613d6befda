"""Any attention-only causal language model of ``transformers``, with the engine's attention in place of its own.

The engine supports full attention and sliding windows, any attention scale, soft caps and attention sinks. Everything
else that a family does differently shows up in `TransformersLM.verify`, which compares the logits with the family's
own forward pass before the model is used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AttentionInterface, AutoModelForCausalLM, __version__

from thinktime.core.errors import InputError, ModelError
from thinktime.models.engine.attention import KVStore, View
from thinktime.models.engine.costs import Shape
from thinktime.models.engine.directories import listed
from thinktime.models.engine.engine import Attend, Model
from thinktime.models.engine.llama import Llama, Tap

NAME = "thinktime"
VERSION = f"transformers {__version__.partition('.')[0]}"
"""The version class of the families' code; the same class gives the same samples up to rounding."""
LAYERS = {"full_attention", "sliding_attention"}
NARROW = (torch.float16, torch.bfloat16)
TOLERANCE = 1e-3
"""The largest difference of log-probabilities that rounding to float32 explains."""
OTHER_WAYS = "serve it with vLLM or llama.cpp, and give its endpoint"
_LOG = logging.getLogger(__name__)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    attend: Attend,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The hook of ``transformers``: tensors are ``[1, heads, tokens, head_dim]``."""
    size = query.shape[-1]
    if scaling is not None and scaling != size**-0.5:
        query = query * (scaling * size**0.5)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return attend(layer, q, k, v, window=sliding_window, softcap=softcap, sinks=s_aux)[None], None


AttentionInterface.register(NAME, _attention)


class TransformersLM(torch.nn.Module):
    """An ``AutoModelForCausalLM``. ``config`` is the content of its ``config.json``.

    Raises:
        InputError: this version of ``transformers`` or the engine does not support the family.
        ModelError: weights are missing.
    """

    def __init__(self, directory: Path, config: dict[str, Any], dtype: torch.dtype) -> None:
        super().__init__()
        family = str(config.get("model_type"))
        if family not in CONFIG_MAPPING:
            own = " and its own code is not run" if config.get("auto_map") else ""
            raise InputError(
                "model_type", family, f"this version of transformers has no such family{own}; {OTHER_WAYS}"
            )
        others = set(config.get("layer_types") or ()) - LAYERS
        if others:
            raise InputError("layer_types", ", ".join(sorted(others)), f"the engine has no such layers; {OTHER_WAYS}")
        try:
            self.inner, loaded = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                attn_implementation=NAME,
                output_loading_info=True,
                variant=_variant(directory),
            )
        except KeyError as error:
            if error.args != (NAME,):
                raise
            raise _refusal(family) from error  # it has its own table of attention functions
        if missing := sorted(loaded["missing_keys"]):
            raise ModelError(f"model={str(directory)!r}: its files lack {listed(missing)}; download them again")
        if surplus := sorted(loaded["unexpected_keys"]):
            _LOG.warning(
                "model=%r: its files have weights that a %s does not use: %s", str(directory), family, listed(surplus)
            )
        self.inner.eval().requires_grad_(False)
        layers = getattr(self.inner.base_model, "layers", None)
        if layers is None:
            raise _refusal(family)
        self._tap: Tap | None = None
        for index, layer in enumerate(layers):
            layer.register_forward_hook(partial(self._after, index))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Layers, heads, heads of keys and values, and the size of a head."""
        c = self.inner.config
        heads = c.num_attention_heads
        size = getattr(c, "head_dim", None) or c.hidden_size // heads
        return c.num_hidden_layers, heads, getattr(c, "num_key_value_heads", None) or heads, size

    @property
    def context(self) -> int:
        """The longest row in tokens.

        Some rotary positions change for all tokens of a row when the row becomes longer than the original context. Rows
        that share a prefix would differ in it, so the context ends there.
        """
        rope = getattr(self.inner.config, "rope_parameters", None) or {}
        longest = int(self.inner.config.max_position_embeddings)
        if rope.get("rope_type") == "longrope":
            return min(longest, int(rope.get("original_max_position_embeddings") or longest))
        return longest

    def verify(self, shape: Shape, dtype: torch.dtype) -> float:
        """Compare the logits of two short rows in one batch with those of ``transformers``' own forward pass.

        Weights of 16 bits are multiplied in float32 here: in 16 bits, two right orders of the same sums may give
        log-probabilities that differ by more than 1. In float64, some families (Mixtral) do not run.

        Returns:
            The largest difference of their log-probabilities.

        Raises:
            InputError: they differ by more than rounding, so the engine does not compute this family correctly.
        """
        family, windows = str(self.inner.config.model_type), set[int | None]()
        vocabulary = self.inner.get_input_embeddings().num_embeddings
        wide = torch.promote_types(dtype, torch.float32)
        with _multiplied_in_float32(self.inner):
            try:
                ours = _logits(self, vocabulary, shape, wide, windows)
            except (RuntimeError, TypeError, IndexError, KeyError, AttributeError) as error:
                raise _refusal(family) from error
            finally:
                self.inner.set_attn_implementation("eager")
            apart = _apart(ours, self.inner, vocabulary)
            self.inner.set_attn_implementation(NAME)
        if not apart < TOLERANCE:
            raise _refusal(family, f", its log-probabilities differ by {apart:.2g}")
        window = getattr(self.inner.config, "sliding_window", None)
        used = getattr(self.inner.config, "use_sliding_window", True) is not False
        kinds = getattr(self.inner.config, "layer_types", None) or ["sliding_attention"]
        if window and used and "sliding_attention" in kinds and window < self.context and windows == {None}:
            raise InputError("sliding_window", window, f"the engine cannot see which layers use it; {OTHER_WAYS}")
        return apart

    def _after(self, index: int, _module: torch.nn.Module, _inputs: Any, states: Tensor | tuple[Tensor, ...]) -> None:
        if self._tap is not None:
            self._tap(index, (states if isinstance(states, Tensor) else states[0])[0])

    def hidden(self, ids: Tensor, positions: Tensor, attend: Attend, tap: Tap | None = None) -> Tensor:
        """Hidden states of a flat batch; see `thinktime.models.engine.engine.Model`."""
        self._tap = tap
        out = self.inner.base_model(
            input_ids=ids[None], position_ids=positions[None], attention_mask=None, use_cache=False, attend=attend
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary, with the family's own scale and soft cap."""
        logits: Tensor = self.inner.get_output_embeddings()(hidden)
        config = self.inner.config
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if divisor := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / divisor
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = (logits / cap).tanh() * cap
        return logits


def difference(model: Llama, directory: Path, shape: Shape, dtype: torch.dtype) -> float:
    """The largest difference of our Llama's log-probabilities from ``transformers``', as in `TransformersLM.verify`."""
    theirs = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, local_files_only=True, trust_remote_code=False, attn_implementation="eager"
    ).eval()
    if dtype in NARROW:
        model, theirs, dtype = Llama.load(directory, dtype).float(), theirs.float(), torch.float32
    vocabulary = model.config.vocab_size
    return _apart(_logits(model, vocabulary, shape, dtype, set()), theirs, vocabulary)


@contextmanager
def _multiplied_in_float32(model: Any) -> Iterator[None]:
    """Inside, weights of 16 bits are float32. Those of a layer only while it computes, so a large model fits too."""
    layers = list(model.base_model.layers)
    in_layers = {id(each) for layer in layers for each in _tensors(layer)}
    kept = _widened(each for each in _tensors(model) if id(each) not in in_layers)
    kept_of: dict[torch.nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def before(layer: torch.nn.Module, *_: Any) -> None:
        kept_of[layer] = _widened(_tensors(layer))

    def after(layer: torch.nn.Module, *_: Any) -> None:
        _restore(kept_of.pop(layer, ()))

    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    hooks += [layer.register_forward_hook(after, always_call=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        _restore(kept)


def _tensors(module: torch.nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _widened(tensors: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Convert those of 16 bits to float32; return them with their values from before."""
    with torch.inference_mode(False):
        kept = [(each, each.data) for each in tensors if each.dtype in NARROW]
        for each, values in kept:
            each.data = values.float()
    return kept


def _restore(kept: Iterable[tuple[Tensor, Tensor]]) -> None:
    for each, values in kept:
        each.data = values


def _rows(vocabulary: int) -> list[list[int]]:
    """Two short rows of ids."""
    return [[(7919 * place + 13 * row + 1) % vocabulary for place in range(20 - row)] for row in range(2)]


def _logits(model: Model, vocabulary: int, shape: Shape, dtype: torch.dtype, windows: set[int | None]) -> list[Tensor]:
    """The engine's logits of both rows in one batch; the last token of each row is decoded from the store.

    Args:
        windows: the window of every layer is added to it.
    """
    store = KVStore(shape.layers, shape.heads, shape.kv_heads, shape.head_dim, 4, 16, dtype, torch.device("cpu"))
    rows, blocks = _rows(vocabulary), [[0, 1], [2, 3]]

    def forward(ends: list[tuple[int, int]]) -> Tensor:
        """Logits of the tokens from each row's first to its second number."""
        views, ids, places, slots = list[View](), list[int](), list[int](), list[int]()
        for row, (first, end) in enumerate(ends):
            views.append(View(len(ids), end - first, end, blocks[row]))
            ids += rows[row][first:end]
            places += range(first, end)
            slots += [blocks[row][place // 16] * 16 + place % 16 for place in range(first, end)]

        plan = store.plan(views, slots)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, **how: Any) -> Tensor:
            windows.add(window)
            return store.attend(store.windowed(plan, views, slots, window), layer, q, k, v, **how)

        return model.head(model.hidden(torch.tensor(ids), torch.tensor(places), attend))

    with torch.inference_mode():
        ends = [len(row) - 1 for row in rows]
        chunks = torch.split(forward([(0, end) for end in ends]), ends)
        last = forward([(end, end + 1) for end in ends])
        return [torch.cat([chunk, step[None]]) for chunk, step in zip(chunks, last, strict=True)]


def _apart(ours: list[Tensor], theirs: Any, vocabulary: int) -> float:
    """The largest difference of log-probabilities from a model of ``transformers``."""
    with torch.inference_mode():
        logits = [theirs(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in _rows(vocabulary)]
    return max(
        float((a.double().log_softmax(-1) - b.double().log_softmax(-1)).abs().max())
        for a, b in zip(ours, logits, strict=True)
    )


def _refusal(family: str, why: str = "") -> InputError:
    return InputError("model_type", family, f"the engine does not support this family{why}; {OTHER_WAYS}")


def _variant(directory: Path) -> str | None:
    """The variant of a directory that has its weights as a variant only, such as ``model.fp16.safetensors``."""
    if (directory / "model.safetensors").exists() or (directory / "model.safetensors.index.json").exists():
        return None
    others = sorted(path.name.split(".")[1] for path in directory.glob("model.*.safetensors"))
    return others[0] if others else None
