"""Search for an inference-time architecture (Saad-Falcon et al. 2024, arXiv 2409.15254).

The space is enumerated once. Orders that are refused, and architectures that cost too much, are dropped before any is
evaluated. Then a search proposes one architecture after the other, and none twice:

- ``gp``: the largest expected improvement under a Gaussian process, over the enumerated architectures, as in the paper.
- ``tpe``: Parzen estimators of Optuna. It proposes points of the whole box, so a proposal moves to the nearest
  architecture that is valid and new.
- ``greedy``: from a random start, the best value along one axis after the other.
- ``random`` and ``grid``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from math import ceil
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.stats import norm

from thinktime.bench.samples import Pool
from thinktime.core.errors import InputError, check_number
from thinktime.strategies.composition.archon import MOST_INPUTS, check_layers
from thinktime.strategies.composition.layers import LayerCalls, Layers, calls
from thinktime.strategies.options import above, at_least, not_below, one_of

Floats = npt.NDArray[np.float64]
Proposals = Generator[int, float, None]
"""Yields the place of an architecture to evaluate, and is sent its score."""


@dataclass(frozen=True)
class Sizes:
    """Mean tokens of a question, and of each kind of reply; ``critique`` is that of one candidate."""

    question: float
    answer: float
    critique: float = 0.0
    ranking: float = 0.0
    argument: float = 0.0
    verdict: float = 0.0
    tests: float = 0.0
    marks: float = 0.0

    def of(self, call: LayerCalls) -> tuple[float, float]:
        """Prompt tokens and generated tokens of one call; the words of the prompts are not counted."""
        read = self.question + call.candidates * (self.answer + (self.critique if call.critiques else 0))
        return {
            "generate": (read, self.answer),
            "fuse": (read, self.answer),
            "rank": (read, self.ranking),
            "critique": (read, call.candidates * self.critique),
            "argue": (read, self.argument),
            "verdict": (read + self.argument, self.verdict),
            "write_tests": (read, self.tests),
            "evaluate": (read + self.tests, self.marks),
        }[call.prompt]


@dataclass(frozen=True)
class Cost:
    """What an architecture takes for a question, at most and without retries; ``flops`` is None if it is unknown."""

    calls: int
    in_tokens: float
    out_tokens: float
    flops: float | None = None


@dataclass(frozen=True)
class Caps:
    """The most that an architecture may take for a question; None is no limit.

    Raises:
        InputError: a limit is no number above 0.
    """

    calls: float | None = None
    in_tokens: float | None = None
    out_tokens: float | None = None
    flops: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if (limit := getattr(self, field.name)) is not None:
                above(f"max_{field.name}", limit, 0)

    def allow(self, cost: Cost) -> bool:
        """Whether no limit is exceeded. A cost that is unknown exceeds a limit."""
        limits = {name: limit for name, limit in asdict(self).items() if limit is not None}
        spent = asdict(cost)
        return all(spent[name] is not None and spent[name] <= limit for name, limit in limits.items())


def expected_cost(layers: Layers, sizes: Sizes, parameters: Mapping[str, float] | None = None) -> Cost:
    """The cost of a dry run of the layers.

    Args:
        layers: the architecture.
        sizes: of prompts and replies.
        parameters: of each model by role; a token takes two operations for each of them.
    """
    spent = [(call, *sizes.of(call)) for call in calls(layers)]
    flops = None
    if parameters is not None:
        flops = sum(2 * parameters[call.model] * call.count * (read + made) for call, read, made in spent)
    return Cost(
        sum(call.count for call, _, _ in spent),
        sum(call.count * read for call, read, _ in spent),
        sum(call.count * made for call, _, made in spent),
        flops,
    )


@dataclass(frozen=True)
class SearchSpace:
    """The architectures of a space: ``points`` are their places along the ``axes``, in the order of ``layers``."""

    axes: Mapping[str, Sequence[Any]]
    points: tuple[tuple[int, ...], ...]
    layers: tuple[Layers, ...]
    costs: tuple[Cost, ...]

    def values(self, place: int) -> dict[str, Any]:
        """An architecture as the values of its axes."""
        return {name: self.axes[name][at] for name, at in zip(self.axes, self.points[place], strict=True)}

    def along(self, place: int, axis: int) -> list[int]:
        """The other architectures that differ from this one in one axis alone."""
        mine = self.points[place]
        return [
            other
            for other, point in enumerate(self.points)
            if point[axis] != mine[axis] and point[:axis] + point[axis + 1 :] == mine[:axis] + mine[axis + 1 :]
        ]


def enumerated(
    axes: Mapping[str, Sequence[Any]],
    build: Callable[..., Layers | None],
    sizes: Sizes,
    caps: Caps | None = None,
    parameters: Mapping[str, float] | None = None,
    max_fuser_inputs: int = MOST_INPUTS,
) -> SearchSpace:
    """All architectures of a space within the caps; of points that build the same one, the first.

    Args:
        axes: the values of every axis by name.
        build: the layers of one value for each axis; None if the values do not fit together.
        sizes: as in `expected_cost`.
        caps: architectures above are dropped.
        parameters: as in `expected_cost`.
        max_fuser_inputs: the most candidates that one fuser reads.

    Raises:
        InputError: an axis is empty, no point is valid, or none is within the caps.
    """
    if empty := [name for name, values in axes.items() if not values]:
        raise InputError(f"axes.{empty[0]}", [], "give it a value or more")
    found: dict[Layers, tuple[int, ...]] = {}
    for point in product(*(range(len(values)) for values in axes.values())):
        layers = build(**{name: axes[name][at] for name, at in zip(axes, point, strict=True)})
        try:
            if layers is not None and layers not in found:
                check_layers(layers, max_fuser_inputs)
                found[layers] = point
        except InputError:
            continue
    if not found:
        raise InputError("axes", list(axes), "no point is a valid architecture")
    costs = {layers: expected_cost(layers, sizes, parameters) for layers in found}
    kept = [layers for layers in found if caps is None or caps.allow(costs[layers])]
    if not kept:
        cheapest = min(found, key=lambda layers: (costs[layers].out_tokens, costs[layers].calls))
        said = {name: axes[name][at] for name, at in zip(axes, found[cheapest], strict=True)}
        raise InputError("caps", caps, f"none is that cheap; the cheapest is {said} with {costs[cheapest]}")
    return SearchSpace(axes, tuple(found[each] for each in kept), tuple(kept), tuple(costs[each] for each in kept))


@dataclass(frozen=True)
class Evaluation:
    """The score of the architecture at this place of a space."""

    place: int
    score: float


def search(
    space: SearchSpace,
    evaluate: Callable[[Layers], float],
    method: str = "gp",
    *,
    n_init: int | None = None,
    n_iter: int = 30,
    seed: int = 0,
    penalty: float = 0.0,
    patience: int | None = None,
    least_gain: float = 0.0,
    most_calls: float | None = None,
) -> list[Evaluation]:
    """Evaluate one architecture after the other, each at most once.

    Args:
        space: of the architectures.
        evaluate: the performance of an architecture on the development problems.
        method: ``gp``, ``tpe`` (needs Optuna), ``greedy``, ``random`` or ``grid``.
        n_init: random architectures before ``gp`` and ``tpe`` propose; 5 or a fortieth of the space unless given.
        n_iter: evaluations after these; other methods have as many in all.
        seed: of the search.
        penalty: what each call of a model takes from the performance (lambda).
        patience: stop after so many evaluations without a gain above ``least_gain``.
        least_gain: the smallest gain that counts for ``patience``.
        most_calls: stop when the architectures so far take so many calls for a question together.

    Raises:
        InputError: a number is out of range, or Optuna is not installed.
    """
    one_of("method", method, METHODS)
    n_init = max(5, ceil(len(space.points) / 40)) if n_init is None else n_init
    at_least("n_init", n_init, 2)
    at_least("n_iter", n_iter, 0)
    not_below("penalty", penalty, 0)
    proposals = METHODS[method](space, Random(f"{method}/{seed}"), n_init)
    trials: list[Evaluation] = []
    newest, best, gained, spent = next(proposals), -float("inf"), 0, 0
    while True:
        cost = space.costs[newest].calls
        trials.append(Evaluation(newest, evaluate(space.layers[newest]) - penalty * cost))
        if trials[-1].score > best + least_gain:
            best, gained = trials[-1].score, len(trials)
        spent += cost
        ended = len(trials) >= n_init + n_iter or (patience is not None and len(trials) - gained >= patience)
        if ended or (most_calls is not None and spent >= most_calls):
            return trials
        try:
            newest = proposals.send(trials[-1].score)
        except StopIteration:
            return trials


def finalists(trials: Sequence[Evaluation], k: int) -> list[Evaluation]:
    """The best ``k`` trials, to be evaluated again on more problems; ties go to the one evaluated first."""
    return sorted(trials, key=lambda trial: -trial.score)[:k]


def split(pool: Pool, fraction: float = 0.2, seed: int = 0) -> tuple[Pool, Pool]:
    """The development problems, which choose an architecture, and the others, which measure it.

    Raises:
        InputError: the fraction is not from 0.05 to 0.9, one of the parts is empty, or a problem has no ground truth.
    """
    check_number("dev_fraction", fraction)
    if not 0.05 <= fraction <= 0.9:
        raise InputError("dev_fraction", fraction, "give 0.05 to 0.9")
    order = Random(f"split/{seed}").sample(pool.problems, len(pool.problems))
    first = round(fraction * len(order))
    return replace(pool, problems=tuple(order[:first])), replace(pool, problems=tuple(order[first:]))


def _grid(space: SearchSpace, rng: Random, n_init: int) -> Proposals:
    for place in range(len(space.points)):  # noqa: UP028  # a range takes no score
        yield place


def _at_random(space: SearchSpace, rng: Random, n_init: int) -> Proposals:
    for place in rng.sample(range(len(space.points)), len(space.points)):  # noqa: UP028  # a list takes no score
        yield place


def _greedy(space: SearchSpace, rng: Random, n_init: int) -> Proposals:
    """From a random start, the best value of one axis after the other; from a new start when no axis gains."""
    scores: dict[int, float] = {}
    while left := [place for place in range(len(space.points)) if place not in scores]:
        here = rng.choice(left)
        scores[here] = yield here
        moved = True
        while moved:
            moved = False
            for axis in range(len(space.axes)):
                others = space.along(here, axis)
                for other in others:
                    if other not in scores:
                        scores[other] = yield other
                best = max([here, *others], key=lambda place: scores[place])
                moved |= best != here
                here = best


def _gp(space: SearchSpace, rng: Random, n_init: int) -> Proposals:
    """Random architectures, then the new one with the largest expected improvement under a Gaussian process."""
    sizes = np.array([max(len(values) - 1, 1) for values in space.axes.values()])
    points = np.array(space.points) / sizes
    scores: dict[int, float] = {}
    for place in rng.sample(range(len(points)), min(n_init, len(points))):
        scores[place] = yield place
    while left := [place for place in range(len(points)) if place not in scores]:
        gains = expected_improvement(points[list(scores)], np.array(list(scores.values())), points[left])
        place = left[int(gains.argmax())]
        scores[place] = yield place


def expected_improvement(seen: Floats, scores: Floats, new: Floats) -> Floats:
    """The expected improvement over the best score at new points, in standard deviations of the scores.

    The kernel is Matern 5/2 with a length for every axis. Lengths and noise have the largest likelihood under wide
    log-normal priors.

    Args:
        seen: evaluated points, ``[point, axis]``, from 0 to 1.
        scores: of these points.
        new: other points.
    """
    spread = scores.std()
    y = (scores - scores.mean()) / spread if spread > 0 else np.zeros(len(scores))
    start = np.array([0.0] * seen.shape[1] + [-4.0])
    bounds = [(-3, 3)] * seen.shape[1] + [(-12, 0)]
    options = {"maxiter": 10}
    logs = minimize(surprise, start, (seen, y, start), "L-BFGS-B", jac=True, bounds=bounds, options=options).x
    lower = np.linalg.cholesky(_kernel(seen, seen, logs)[0] + _noise(logs) * np.eye(len(y)))
    across = _kernel(new, seen, logs)[0]
    deviation = np.sqrt(np.maximum(1 - (solve_triangular(lower, across.T, lower=True) ** 2).sum(0), 1e-12))
    better = (across @ cho_solve((lower, True), y) - y.max()) / deviation
    return np.asarray(deviation * (better * norm.cdf(better) + norm.pdf(better)))


def surprise(logs: Floats, seen: Floats, y: Floats, prior: Floats) -> tuple[float, Floats]:
    """Minus the log-likelihood of scores and hyperparameters, up to a constant, and its gradient.

    Args:
        logs: logarithms of the lengths and of the noise.
        seen: evaluated points.
        y: their scores, standardised.
        prior: the means of the logarithms, which have deviation 1.
    """
    kernel, slopes = _kernel(seen, seen, logs)
    lower = np.linalg.cholesky(kernel + _noise(logs) * np.eye(len(y)))
    solved, inverse = cho_solve((lower, True), y), cho_solve((lower, True), np.eye(len(y)))
    loss = y @ solved / 2 + np.log(np.diag(lower)).sum() + ((logs - prior) ** 2).sum() / 2
    outer = inverse - np.outer(solved, solved)
    lengths = (outer[..., None] * slopes).sum((0, 1)) / 2
    return float(loss), np.append(lengths, np.trace(outer) * np.exp(logs[-1]) / 2) + logs - prior


def _kernel(a: Floats, b: Floats, logs: Floats) -> tuple[Floats, Floats]:
    """Matern 5/2 of all pairs, and its derivatives by the logarithms of the lengths, ``[point, point, axis]``."""
    squares = 5 * ((a[:, None] - b[None]) / np.exp(logs[:-1])) ** 2
    far = np.sqrt(squares.sum(-1))
    falling = np.exp(-far)
    return (1 + far + far**2 / 3) * falling, squares * ((1 + far) * falling / 3)[..., None]


def _noise(logs: Floats) -> float:
    return float(np.exp(logs[-1])) + 1e-6


def _tpe(space: SearchSpace, rng: Random, n_init: int) -> Proposals:
    """Random architectures, then the nearest new ones to what Optuna proposes."""
    try:
        import optuna
    except ImportError:
        raise InputError("method", "tpe", "run pip install 'thinktime[search]', or take gp") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    last = {name: len(values) - 1 for name, values in space.axes.items() if len(values) > 1}
    axes = {name: optuna.distributions.IntDistribution(0, most) for name, most in last.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=rng.randrange(2**32), n_startup_trials=0, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    left = dict(enumerate(dict(zip(space.axes, point, strict=True)) for point in space.points))
    start = rng.sample(range(len(left)), min(n_init, len(left)))
    while left:
        if start:
            place = start.pop()
        else:
            trial = study.ask(axes)
            wish = trial.params
            study.tell(trial, state=optuna.trial.TrialState.FAIL)  # the nearest one takes its place
            place = min(left, key=lambda at: sum(abs(left[at][name] - wish[name]) / last[name] for name in last))
        point = left.pop(place)
        score = yield place
        params = {name: point[name] for name in axes}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=axes, value=score))


METHODS: dict[str, Callable[[SearchSpace, Random, int], Proposals]] = {
    "gp": _gp,
    "tpe": _tpe,
    "greedy": _greedy,
    "random": _at_random,
    "grid": _grid,
}
