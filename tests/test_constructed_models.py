"""The models of the positive controls on pictures: their laws are what the controls assume."""

from __future__ import annotations

import asyncio
from random import Random
from statistics import fmean

import numpy as np
import pytest

from experiments.dts.control import half, sampled
from experiments.mixture import MEANS, Mixture, Point, nearest
from experiments.noise_search.control import MODEL, STEPS, expected, pool, search
from thinktime.models.diffusion.calls import Call
from thinktime.strategies.diffusion.dts import DTS


def end(mixture: Mixture, rng: Random) -> Point:
    point = mixture.noise(rng)
    for position in range(mixture.steps):
        point = mixture.step(position, point, rng)
    return point


@pytest.mark.parametrize("steps", [1, 5])
def test_any_number_of_exact_steps_ends_in_the_mixture(steps: int) -> None:
    mixture, rng, n = Mixture(0.25, steps=steps), Random(0), 2500
    points = [end(mixture, rng) for _ in range(n)]
    counts = np.bincount([nearest(point) for point in points], minlength=len(MEANS))
    assert counts[0] / n == pytest.approx(0.25, abs=0.03)
    assert counts[1:] / n == pytest.approx([0.05] * 15, abs=0.015)
    spread = [x - MEANS[nearest((x, y))][0] for x, y in points]
    assert np.std(spread) == pytest.approx(0.05, abs=0.003)


def test_the_cluster_of_a_state_is_decided_before_its_mode() -> None:
    mixture, rng = Mixture(1 / 16), Random(1)
    sure = []
    for _ in range(100):
        point = mixture.noise(rng)
        for position in range(14):
            point = mixture.step(position, point, rng)
        share = mixture.posterior(14, point)
        sure.append((max(sum(share[k : k + 4]) for k in range(0, 16, 4)), max(share)))
    cluster, mode = map(fmean, zip(*sure, strict=True))
    assert cluster > 0.8 and mode < 0.6


def test_the_wanted_mode_has_half_of_the_target() -> None:
    mixture = Mixture(0.03)
    assert mixture.tilted(half(0.03))[0] == pytest.approx(0.5) and sum(mixture.tilted(2.0)) == pytest.approx(1)


def test_a_tree_over_few_exact_steps_gets_nearer_to_the_target() -> None:
    mixture = Mixture(0.1, steps=3)
    exact = mixture.tilted(half(0.1))
    few, many = (
        fmean(sum(abs(a - b) for a, b in zip(law, exact, strict=True)) / 2 for law in sampled(mixture, name, n))
        for name, n in (("tree", 3), ("tree", 25))
    )
    assert many < 0.6 * few


def test_a_branch_is_shown_without_its_tree() -> None:
    tree = asyncio.run(DTS(n=4).grow(Mixture(0.1, steps=3).search(0)))
    assert len(repr(tree)) < 1000 and "children" not in repr(tree)


def test_the_denoiser_of_the_prototypes_is_exact_and_its_pictures_are_prototypes() -> None:
    near = (np.sqrt(0.98) * MODEL.means[3]).reshape(MODEL.shape).astype(np.float32)
    (clean,) = MODEL.predict([Call(near, 90, None, 1.0)])
    assert clean.reshape(-1) == pytest.approx(MODEL.means[3], abs=0.05)
    seen = asyncio.run(pool(0, 200, 5))
    assert sum(right for _, right in seen) / 200 == pytest.approx(0.1, abs=0.06)
    here = search(0)
    (node,) = asyncio.run(here.extend([here.root], 1))
    picture = node.state.x.reshape(-1)
    assert abs(picture - MODEL.means[MODEL.nearest(picture)]).max() < 4 * 0.15 and node.usage.denoiser_calls == STEPS


def test_the_chance_of_the_winner_is_that_of_a_simulation() -> None:
    assert expected(0.8, 1, 0.1) == pytest.approx(0.1, abs=1e-4)
    assert expected(0.5, 16, 0.1) == pytest.approx(0.1, abs=1e-4)
    rng = np.random.default_rng(0)
    right = rng.random((20000, 8)) < 0.1
    scores = rng.standard_normal(right.shape) + 1.1902 * right  # an AUC of 0.8
    assert expected(0.8, 8, 0.1) == pytest.approx(right[np.arange(20000), scores.argmax(1)].mean(), abs=0.01)
