"""Self-evaluation whose quality is known by construction (Manvi et al. 2024, arXiv 2410.02725).

    python -m experiments.adaptive_self_eval.control        # a few seconds; writes control.json and control.png

A fifth of the problems cannot be solved; the others have success rates from 0.1 to 0.9. A sample's self-evaluation is
the probability that another sample would be no better, by Bayes' rule, of an observer who knows the success rate of the
problem and sees evidence from N(d, 1) if the sample is right and from N(0, 1) if it is wrong. So the probabilities
hold, and the AUC within a problem is the one on the dial. In the middle of a sample the evidence has an AUC of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.adaptive_self_eval.run import (
    GAMMAS,
    Array,
    N,
    Policy,
    after,
    at_tokens,
    consistency,
    drawn_until,
    good_enough,
    orders,
    play,
    prune,
)
from experiments.constructed import shift
from experiments.intervals import difference, mean, ratio, unpaired_difference
from experiments.plot import line, panels, save
from experiments.provenance import begin, write_json
from training.calibrate import Evaluated

HERE = Path(__file__).parent
AUCS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
WHOLE = 0.9
"""The AUC at the end of a sample where the dial is that of its middle."""
CUT = 25
"""Tokens after which samples are pruned; the median sample has 100."""
UNSOLVABLE = 0.2


def evaluated(problems: int, auc: float, early: float, seed: int) -> Evaluated:
    """Sixteen samples of each problem, evaluated at their end and after `CUT` tokens."""
    rng = np.random.default_rng(seed)
    solvable = rng.random(problems) >= UNSOLVABLE
    success = np.where(solvable, rng.uniform(0.1, 0.9, problems), 0.0)[:, None]
    right = (rng.random((problems, N)) < success).astype(float)
    wrong = np.where(rng.random((problems, N)) < 0.6, "1", rng.integers(2, 10, (problems, N)).astype(str))
    answers = np.where(right == 1, "0", wrong)
    tokens = rng.integers(60, 141, (problems, N)).astype(float)
    noise = {1.0: rng.normal(size=right.shape), CUT: rng.normal(size=right.shape)}
    scores = {at: _no_worse(success, right, shift(dial), noise[at]) for at, dial in ((1.0, auc), (CUT, early))}
    value = np.where(right == 1, 1.0, 1 - (right.sum(1, keepdims=True) - right) / (N - 1))
    return Evaluated([], answers.tolist(), right, tokens, value, scores)


def _no_worse(success: Array, right: Array, lead: float, noise: Array) -> Array:
    """The probability that another sample would be no better."""
    evidence = np.exp(lead * (noise + lead * right - lead / 2))
    is_right = success * evidence / (success * evidence + 1 - success)
    found: Array = is_right + (1 - is_right) * (1 - success)
    return found


def stopping(problems: int, auc: float) -> dict[str, Any]:
    """Drawing until a sample is good enough, against a fixed number; the threshold comes from other problems."""
    dev, found = evaluated(problems, auc, auc, seed=1), evaluated(problems, auc, auc, seed=0)
    order, dev_order = orders(problems, 0), orders(problems, 1)
    thresholds = {gamma: play(dev, dev_order, good_enough(gamma)).samples.mean() for gamma in GAMMAS}
    gamma = max((g for g, samples in thresholds.items() if samples <= 3), default=GAMMAS[0])
    fixed = [play(found, order, after(n)) for n in range(1, N + 1)]
    chosen = play(found, order, good_enough(gamma))
    counts = drawn_until(np.take_along_axis(found.scores[1.0][None], order, 2), good_enough(gamma))
    shuffled = np.random.default_rng(1).permuted(counts, axis=1)
    by_chance = play(found, order, lambda scores, drawn: shuffled <= drawn)
    votes = sorted((consistency(found, order[:4], c) for c in (0.6, 0.8, 0.95)), key=lambda policy: policy.cost)
    solved = found.right.mean(1)
    first, last = (fixed[place].right.mean() for place in (0, -1))
    return {
        "gamma": gamma,
        "adaptive": chosen.as_row(),
        "fixed": {str(n): fixed[n - 1].as_row() for n in (1, 2, 4, 16)},
        "minus_fixed": difference(chosen.right, at_tokens(fixed, chosen.cost)),
        "minus_stopping_at_random": difference(chosen.right, by_chance.right),
        "minus_adaptive_consistency": difference(chosen.right, at_tokens(votes, chosen.cost)),
        "share_of_the_gain_of_16": float((chosen.right.mean() - first) / (last - first)) if last > first else None,
        "samples_on_unsolvable_minus_30_to_70": unpaired_difference(
            chosen.samples[solved == 0], chosen.samples[(solved >= 0.3) & (solved <= 0.7)]
        ),
    }


def pruning(problems: int, early: float) -> dict[str, Any]:
    """Pruning to a half after a quarter of the median length, by evidence of the dial's AUC."""
    found = evaluated(problems, WHOLE, early, seed=0)
    whole: Policy = play(found, orders(problems, 0)[:1], after(N))
    at_random = np.random.default_rng(2).random(found.right.shape)
    kept, by_chance = (prune(found, CUT, worth, 0.5) for worth in (found.scores[CUT], at_random))
    return {
        "accuracy": mean(kept.right),
        "minus_all": difference(kept.right, whole.right),
        "minus_random": difference(kept.right, by_chance.right),
        "tokens_over_all": ratio(kept.tokens, whole.tokens),
    }


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=400)
    result = {
        **made,
        "n_problems": args.problems,
        "stopping": {str(auc): stopping(args.problems, auc) for auc in AUCS},
        "pruning": {str(auc): pruning(args.problems, auc) for auc in AUCS},
    }
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The gains of stopping and of pruning against the dial."""
    figure, (stop, early) = panels(2, 12, 4.4)
    names = {
        "minus_fixed": "over a fixed number, equal tokens",
        "minus_stopping_at_random": "over stopping at random",
        "minus_adaptive_consistency": "over adaptive consistency, equal tokens",
    }
    for colour, (name, label) in enumerate(names.items()):
        line(stop, AUCS, [result["stopping"][str(auc)][name] for auc in AUCS], colour, label)
    stop.set(xlabel="AUC of the self-evaluation", ylabel="points", title="stop when a sample is good enough")
    for colour, (name, label) in enumerate({"minus_all": "over all 16", "minus_random": "over random pruning"}.items()):
        line(early, AUCS, [result["pruning"][str(auc)][name] for auc in AUCS], colour, label)
    early.set(xlabel="AUC after a quarter of the sample", ylabel="points", title="prune to a half after a quarter")
    for axes in (stop, early):
        axes.axhline(0, color="#999999", lw=0.8)
        axes.legend(fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
