"""Sampling with keyed noise: a row's draws depend on its key and position, never on other rows of its batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TOP = 20
"""Tokens in a confidence, as in the published code of the paper."""


def uniform(keys: npt.NDArray[np.uint64], position: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each key and position: the SplitMix64 counter generator, 53 bits."""
    with np.errstate(over="ignore"):
        z = keys + (position + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit: npt.NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return unit


def sample(logits: Tensor, temperature: Tensor, top_p: Tensor, top_k: Tensor, noise: Tensor) -> Tensor:
    """Draw one id per row by inverting the cumulative distribution at ``noise``; temperature 0 is argmax.

    Shapes: logits ``[rows, vocab]`` in float64, the others ``[rows]``. ``top_p`` 1 and ``top_k`` 0 keep all tokens.
    ``top_p`` applies to the distribution at the temperature, also together with ``top_k``; ties with the k-th token are
    kept.
    """
    probs = (logits / temperature.clamp(min=1e-6)[:, None]).softmax(-1)
    if bool((top_k > 0).any()) or bool((top_p < 1).any()):
        order = probs.sort(dim=-1, descending=True, stable=True)
        kept = order.values.cumsum(-1) - order.values < top_p.clamp(min=1e-12)[:, None]
        rank = torch.where(top_k > 0, top_k, probs.shape[-1]).clamp(max=probs.shape[-1]) - 1
        kept &= order.values >= order.values.gather(1, rank[:, None])
        probs = torch.zeros_like(probs).scatter(1, order.indices, order.values * kept)
    cumulative = probs.cumsum(-1)
    drawn = torch.searchsorted(cumulative, (noise * cumulative[:, -1])[:, None], right=True)[:, 0]
    if bool((drawn == probs.shape[-1]).any()):  # the noise rounded up to the whole sum: take the last possible id
        drawn = torch.minimum(drawn, (probs > 0).int().cumsum(-1).argmax(-1))
    return torch.where(temperature > 0, drawn, logits.argmax(-1))


def confidences(logprobs: Tensor) -> Tensor:
    """Minus the mean of the 20 highest log-probabilities of each row: large if one token has nearly all probability.

    Fu et al. 2025, arXiv 2508.15260. Shapes: ``[rows, vocab]`` gives ``[rows]``; a smaller vocabulary counts in full.
    """
    return -logprobs.topk(min(TOP, logprobs.shape[-1]), sorted=False).values.mean(-1)
