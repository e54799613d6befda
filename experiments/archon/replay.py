"""Architectures on samples that are already drawn: every problem at once, as arrays.

It does what `thinktime.strategies.composition.archon` does with generators, scorers, votes and the final answer; a test
compares both. Layers that need new replies are not replayed here: `experiments.archon.control` constructs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thinktime.core.errors import InputError
from thinktime.strategies.composition.layers import Component, Generate, Layers, Top, Vote

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
UNREADABLE = -1


@dataclass(frozen=True)
class Candidates:
    """Candidates of every problem, ``[problem, candidate]``.

    Args:
        answers: a number for each answer; equal numbers are equal answers, and `UNREADABLE` is none.
        right: whether the answer is right.
        there: whether the sample ended by itself.
        scores: by the role of a scorer.
        tokens: of the sample.
    """

    answers: Ints
    right: Bools
    there: Bools
    scores: Mapping[str, Floats]
    tokens: Floats

    def take(self, places: Ints) -> Candidates:
        """The candidates at these places, ``[problem, candidate]``."""
        return self.by_array(lambda name, values: np.take_along_axis(values, places, 1))

    def by_array(self, change: Callable[[str, Any], Any]) -> Candidates:
        """The candidates with every array changed; a scorer's array has the name of its role."""
        scores = {name: change(name, values) for name, values in self.scores.items()}
        arrays = {name: change(name, getattr(self, name)) for name in ("answers", "right", "there", "tokens")}
        return Candidates(**arrays, scores=scores)

    def first(self, n: int) -> Candidates:
        """The first ``n`` candidates."""
        return self.take(np.broadcast_to(np.arange(n), (len(self.answers), n)))


@dataclass(frozen=True)
class Answered:
    """For every problem whether the answer is right, and the tokens that were generated for it."""

    right: Floats
    tokens: Floats


def side_by_side(parts: Sequence[Candidates]) -> Candidates:
    """All candidates, those of the first part first."""
    named = [vars(part) | dict(part.scores) for part in parts]
    return parts[0].by_array(lambda name, _: np.concatenate([part[name] for part in named], 1))


class Replay:
    """The samples of each model by role, for the same problems."""

    def __init__(self, samples: Mapping[str, Candidates]) -> None:
        self.samples = samples

    def __call__(self, layers: Layers) -> Answered:
        """Run an architecture on all problems."""
        states: list[Candidates] = []
        spent = np.zeros(len(next(iter(self.samples.values())).answers))
        for place, layer in enumerate(layers):
            if isinstance(layer[0], Generate):
                states.append(side_by_side([self._drawn(each) for each in layer if isinstance(each, Generate)]))
                spent += states[-1].tokens.sum(1)
            else:
                state, tokens = self.layer(place, layer, states[-1])
                states.append(state)
                spent += tokens
        right, found = _right(states[-1], *_first(states[-1]))
        for state in reversed(states):  # without a readable candidate, those of the newest earlier layer vote
            if found.all():
                break
            voted, readable = _right(state, *majority(state))
            right, found = np.where(found, right, voted), found | readable
        return Answered(right, spent)

    def layer(self, place: int, layer: tuple[Component, ...], state: Candidates) -> tuple[Candidates, Floats]:
        """What a layer after the first keeps or writes, and the tokens that it generates for each problem."""
        component = layer[0]
        free = np.zeros(len(state.answers))
        if isinstance(component, Top):
            return state.take(_best(state, state.scores[component.scorer])[:, : component.top_k]), free
        if isinstance(component, Vote):
            chosen, found = majority(state, state.scores[component.scorer] if component.scorer else None)
            kept = state.take(chosen[:, None])
            return replace(kept, there=kept.there & found[:, None]), free
        raise InputError(f"layer {place}", component.kind, "no replies to it are recorded; run it on a model")

    def _drawn(self, component: Generate) -> Candidates:
        samples = self.samples[component.model]
        if component.samples > samples.answers.shape[1]:
            fix = f"the bank has {samples.answers.shape[1]} of each problem"
            raise InputError(f"{component.model}.samples", component.samples, fix)
        return samples.first(component.samples)


def _best(state: Candidates, scores: Floats) -> Ints:
    """The places of candidates, the best score first; those that are not there come last."""
    return np.argsort(np.where(state.there, -scores, np.inf), axis=1, kind="stable")


def _readable(state: Candidates) -> Bools:
    return np.asarray(state.there & (state.answers != UNREADABLE))


def _right(state: Candidates, places: Ints, found: Bools) -> tuple[Floats, Bools]:
    """Whether the candidate at this place of each problem is right, and whether there is one."""
    return (np.take_along_axis(state.right, places[:, None], 1)[:, 0] & found).astype(float), found


def _first(state: Candidates) -> tuple[Ints, Bools]:
    readable = _readable(state)
    return readable.argmax(1), np.asarray(readable.any(1))


def majority(state: Candidates, weights: Floats | None = None) -> tuple[Ints, Bools]:
    """The place of the first candidate with the answer of the largest weight, and whether there is one.

    With weights it is the best-scored candidate with that answer.
    """
    readable = _readable(state)
    mine = np.where(readable, 1.0 if weights is None else weights, 0.0)
    same = (state.answers[:, :, None] == state.answers[:, None, :]) & readable[:, :, None] & readable[:, None, :]
    total = np.where(readable, np.round((same * mine[:, None, :]).sum(2), 9), -np.inf)
    place = total.argmax(1)
    if weights is not None:
        of_winner = np.take_along_axis(same, place[:, None, None], 1)[:, 0]
        place = np.where(of_winner, weights, -np.inf).argmax(1)
    return place, np.asarray(readable.any(1))
