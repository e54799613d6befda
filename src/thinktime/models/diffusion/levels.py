"""Noise levels of a sampler and the steps between them (Song et al. 2020, arXiv 2010.02502).

A picture takes ``steps`` steps: at position 0 it is pure noise, at position ``steps`` it is clean. Callers count in
positions, not in the timesteps of a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinktime.core.errors import InputError

Array = NDArray[np.float32]
Prediction = Literal["epsilon", "v_prediction", "sample"]


class DenoisingStep(NamedTuple):
    """One denoising step: the mean and standard deviation of the next state, and the clean estimate."""

    mean: Array
    sigma: float
    clean: Array


class Threshold(NamedTuple):
    """Dynamic thresholding of clean estimates (Saharia et al. 2022, arXiv 2205.11487)."""

    ratio: float
    """A probability, 0 to 1. An estimate is clipped to this quantile of its absolute values, and divided by it."""
    most: float
    """Upper bound on this quantile; the lower bound is 1."""

    def limit(self, clean: Array) -> Array:
        """The estimate with values from -1 to 1."""
        bound = min(max(1.0, float(np.quantile(np.abs(clean), self.ratio))), self.most)
        return (clean.clip(-bound, bound) / bound).astype(np.float32)


@dataclass(frozen=True)
class Levels:
    """The levels of a variance-preserving sampler.

    Args:
        timesteps: the model's timestep at every position but the last, strictly decreasing.
        alphas: share of the signal's variance at every position; ``steps + 1`` numbers, increasing.
        prediction: the quantity that the model predicts.
        clip: bound on the absolute value of the clean estimate; None does not clip.
        threshold: dynamic thresholding, in place of ``clip``.

    Raises:
        InputError: the timesteps do not decrease strictly, or the first level is pure noise and the model predicts
            noise, which says nothing about the picture.
    """

    timesteps: tuple[int, ...]
    alphas: tuple[float, ...]
    prediction: Prediction = "epsilon"
    clip: float | None = None
    threshold: Threshold | None = None

    def __post_init__(self) -> None:
        if any(a <= b for a, b in zip(self.timesteps, self.timesteps[1:], strict=False)):
            fix = "two steps would be at the same level; take no more steps than the model was trained on"
            raise InputError("steps", len(self.timesteps), fix)
        if self.alphas[0] == 0 and self.prediction == "epsilon":
            fix = "the first level is pure noise (rescale_betas_zero_snr), where predicted noise gives no picture"
            raise InputError("scheduler.prediction_type", "epsilon", f"{fix}; use a model that predicts v")

    @property
    def steps(self) -> int:
        """Denoising steps from noise to picture."""
        return len(self.timesteps)

    def step(self, x: Array, predicted: Array, position: int, eta: float) -> DenoisingStep:
        """The step from a position to the next one, given the model's prediction at the position.

        The next state is ``mean + sigma * noise``. With ``eta`` 0, sigma is 0 and the first noise decides everything;
        with ``eta`` 1, sigma is that of the forward process (DDPM).
        """
        here, there = self.alphas[position], self.alphas[position + 1]
        clean, noise = self._parts(x, predicted, here)
        sigma = eta * sqrt(max(0.0, (1 - there) / (1 - here) * (1 - here / there)))
        mean = sqrt(there) * clean + sqrt(max(0.0, 1 - there - sigma**2)) * noise
        return DenoisingStep(mean.astype(np.float32), sigma, clean)

    def clean(self, x: Array, predicted: Array, position: int) -> Array:
        """The model's estimate of the picture that this state will become."""
        return self._parts(x, predicted, self.alphas[position])[0]

    def renoise(self, x: Array, position: int, back_to: int, noise: Array) -> Array:
        """Add noise by the forward process, which moves a state from ``position`` back to ``back_to``.

        Raises:
            InputError: ``back_to`` is not before ``position``.
        """
        if not 0 <= back_to < position:
            raise InputError("back_to", back_to, f"give a position from 0 to {position - 1}")
        kept = self.alphas[back_to] / self.alphas[position]
        return (sqrt(kept) * x + sqrt(1 - kept) * noise).astype(np.float32)

    def _parts(self, x: Array, predicted: Array, alpha: float) -> tuple[Array, Array]:
        """The picture and the noise in a state."""
        clean, noise = parts(x, predicted, sqrt(alpha), sqrt(1 - alpha), self.prediction)
        if self.threshold is not None:
            clean = self.threshold.limit(clean)
        elif self.clip is not None:
            clean = clean.clip(-self.clip, self.clip)
        return clean.astype(np.float32), noise.astype(np.float32)


def parts(x: Any, predicted: Any, signal: Any, spread: Any, prediction: Prediction) -> tuple[Any, Any]:
    """The picture and the noise in ``x = signal * picture + spread * noise``, as arrays or as tensors.

    Args:
        x: the state.
        predicted: the model's output.
        signal: factor of the picture.
        spread: factor of the noise.
        prediction: the quantity that the model predicts.
    """
    if prediction == "epsilon":
        return (x - spread * predicted) / signal, predicted
    if prediction == "sample":
        return predicted, (x - signal * predicted) / spread
    return signal * x - spread * predicted, signal * predicted + spread * x


def neighbour(noise: Array, direction: Array, cosine: float) -> Array:
    """Noise of the same norm at an angle to the given noise, so both are equally typical draws.

    Args:
        noise: the pivot.
        direction: fresh noise of the same shape; its component along the pivot is removed.
        cosine: cosine of the angle to the pivot, strictly between 0 and 1.
    """
    pivot, fresh = noise.astype(np.float64), direction.astype(np.float64)
    length = np.linalg.norm(pivot)
    unit = pivot / length
    across = fresh - (fresh * unit).sum() * unit
    across /= np.linalg.norm(across)
    near: Array = (length * (cosine * unit + sqrt(1 - cosine**2) * across)).astype(np.float32)
    return near
