"""Products with the weights of linear layers: dense, or float32 with packed float16 weights.

On a CPU, weights in float16 stay in float16 and the arithmetic is float32: half the memory traffic, and no rounding of
activations. FBGEMM has these products for processors with AVX2 (https://github.com/pytorch/FBGEMM). It needs the
weights in an order of its own. torch cannot save weights in this order, so each start packs them again, at about 15 ns
a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor, nn

Product = Callable[[Tensor, Tensor | None], Tensor]
"""Multiplies ``[tokens, in]`` with a weight matrix, and adds the product to the second tensor if it is given."""
MOST_ROWS = 10240
"""Of a packed matrix. With more, the processor's caches do not hold what packing and multiplying read repeatedly."""
EVEN = 32
"""Matrices are cut at multiples of it, so that FBGEMM's blocks of columns stay whole."""


def packs(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether weights of this type stay packed as float16 and are multiplied in float32."""
    return dtype == torch.float16 and device.type == "cpu" and "fbgemm" in torch.backends.quantized.supported_engines


def dense_product(*projections: nn.Linear) -> Product:
    """One product with the weights of all projections; their own weights become views of its matrix."""
    joined = torch.cat([p.weight.data for p in projections])
    for p, part in zip(projections, torch.split(joined, [p.out_features for p in projections]), strict=True):
        p.weight.data = part
    weight, bias = joined.t(), _bias(projections)

    def product(x: Tensor, onto: Tensor | None) -> Tensor:
        onto = bias if onto is None else onto
        return torch.mm(x, weight) if onto is None else torch.addmm(onto, x, weight)

    return product


def packed_product(pool: Executor, *projections: nn.Linear) -> Product:
    """One product of float32 with the float16 weights of all projections, whose own weights are dropped.

    The pool packs the weights. The product waits for it, and raises its `RuntimeError` if this processor or build of
    torch has no such products, see `packs`.
    """
    weights, bias = [p.weight.data for p in projections], _bias(projections)
    rows = sum(map(len, weights))
    parts = -(-rows // MOST_ROWS)
    size = -(-rows // (parts * EVEN)) * EVEN
    packed = [pool.submit(_pack, weights, bias, first, min(first + size, rows)) for first in range(0, rows, size)]
    for p in projections:
        p.weight.data = torch.empty(0)

    def product(x: Tensor, onto: Tensor | None) -> Tensor:
        out: Tensor
        if len(packed) == 1:
            out = torch.ops.quantized.linear_dynamic_fp16(x, packed[0].result())
        else:
            out = torch.empty(len(x), rows)
            for columns, part in zip(torch.split(out, size, 1), packed, strict=True):
                columns.copy_(torch.ops.quantized.linear_dynamic_fp16(x, part.result()))
        return out if onto is None else out.add_(onto)

    return product


def _pack(weights: Sequence[Tensor], bias: Tensor | None, first: int, end: int) -> Any:
    """The rows from ``first`` to ``end`` of the joined weights, in FBGEMM's order."""
    joined = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    part = None if bias is None else bias[first:end].float()
    return torch.ops.quantized.linear_prepack_fp16(joined[first:end].float(), part)


def _bias(projections: Sequence[nn.Linear]) -> Tensor | None:
    parts = [p.bias.data for p in projections if p.bias is not None]
    return torch.cat(parts) if parts else None
