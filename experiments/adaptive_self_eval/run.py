"""Row 01: can a model tell whether another sample would be better (Manvi et al. 2024, arXiv 2410.02725)?

    python -m experiments.adaptive_self_eval.run        # 1,000 problems; a few minutes on two idle cores

Sixteen samples of each test problem and the self-evaluation of each, whole and cut. On these samples every policy is
played out in 32 orders: sampling that stops when the best so far is good enough, against a fixed number of samples
with the same selector, against stopping as often at random, and against adaptive-consistency, which needs no
self-evaluation; and samples given up after a quarter of the median length, by self-evaluation, by likelihood and at
random. The threshold is chosen on dev problems. Then the strategies themselves are run, to see that they do what was
played out.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

from experiments.arms import Arm, models, points, run_arms, summary, write
from experiments.plot import COLOURS, save
from thinktime.bank.store import Bank
from thinktime.bench.statistics import auc, mean_interval, paired_difference
from thinktime.bench.tasks import Task, load
from thinktime.engine.models import load_language_model
from thinktime.engine.rows import Read
from thinktime.generators.local import LocalGenerator
from thinktime.pocket import directory
from thinktime.scorers.prm import ProcessReward
from thinktime.strategies import parse
from thinktime.strategies.adaptive_consistency import lead
from training.calibrate import Evaluated, collect

HERE = Path(__file__).parent
N, ORDERS = 16, 32
FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)
GAMMAS = (*np.arange(0.05, 0.96, 0.05).round(2).tolist(), 0.97, 0.98, 0.99, 0.995)
CONFIDENCES = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
KEPT = (0.5, 0.25)
Array = npt.NDArray[np.float64]
Stops = Callable[[Array, int], npt.NDArray[np.bool_]]
"""Of the scores so far, ``[orders, problems, drawn]``, and how many were drawn: where no more are drawn."""


@dataclass(frozen=True)
class Policy:
    """What a rule does with each problem, as means over orders: ``[problems]``."""

    right: Array
    tokens: Array
    samples: Array


def orders(problems: int, seed: int) -> npt.NDArray[np.int64]:
    """Orders to draw the samples in, ``[orders, problems, samples]``; the first is as they were drawn."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(np.arange(N), (ORDERS - 1, problems, 1)), axis=2)
    return np.concatenate([np.arange(N)[None, None].repeat(problems, 1), shuffled])


def good_enough(gamma: float) -> Stops:
    """Stop when the best score so far reaches a threshold."""
    return lambda scores, drawn: scores.max(-1) >= gamma


def after(n: int) -> Stops:
    """Stop after so many samples."""
    return lambda scores, drawn: np.full(scores.shape[:2], drawn >= n)


def play(found: Evaluated, order: npt.NDArray[np.int64], stops: Stops) -> Policy:
    """Draw until ``stops`` says so of the scores so far, answer the best-scored; at most all samples."""
    right, tokens, scores = (
        np.take_along_axis(a[None], order, 2) for a in (found.right, found.tokens, found.scores[1.0])
    )
    ends = np.stack([stops(scores[..., : k + 1], k + 1) for k in range(N - 1)] + [np.ones(order.shape[:2], bool)], -1)
    drawn = ends.argmax(-1)
    seen = np.arange(N) <= drawn[..., None]
    best = np.where(seen, scores, -1).argmax(-1)
    chosen = np.take_along_axis(right, best[..., None], 2)[..., 0]
    return Policy(chosen.mean(0), (tokens * seen).sum(-1).mean(0), (drawn + 1.0).mean(0))


def consistency(found: Evaluated, order: npt.NDArray[np.int64], confidence: float) -> Policy:
    """Adaptive-consistency on the same samples."""
    right, tokens, samples = (np.zeros(order.shape[:2]) for _ in range(3))
    for o, p in np.ndindex(*order.shape[:2]):
        votes: Counter[str] = Counter()
        for i in order[o, p]:
            samples[o, p] += 1
            tokens[o, p] += found.tokens[p, i]
            answer = found.answers[p][i]
            votes.update([answer] if answer is not None else [])
            first, second = [*(count for _, count in votes.most_common(2)), 0, 0][:2]
            if first and lead(first, second) >= confidence:
                break
        winner = votes.most_common(1)[0][0] if votes else None
        right[o, p] = winner is not None and found.right[p][found.answers[p].index(winner)]
    return Policy(right.mean(0), tokens.mean(0), samples.mean(0))


def at_tokens(curve: Sequence[Policy], tokens: float) -> Array:
    """Right answers a problem of the mix of two neighbours on a curve that costs so many tokens."""
    costs = [float(policy.tokens.mean()) for policy in curve]
    place = int(np.clip(np.searchsorted(costs, tokens), 1, len(costs) - 1))
    share = np.clip((tokens - costs[place - 1]) / (costs[place] - costs[place - 1]), 0, 1)
    mixed: Array = (1 - share) * curve[place - 1].right + share * curve[place].right
    return mixed


def told(policy: Policy) -> dict[str, Any]:
    """A policy in the result file."""
    return {
        "accuracy": mean_interval(policy.right.tolist()).as_dict(),
        "tokens": float(policy.tokens.mean()),
        "samples": float(policy.samples.mean()),
    }


def share_of_gain(policy: Policy, single: Policy, most: Policy, seed: int) -> dict[str, float]:
    """How much of the gain of all samples over one a policy has, resampling problems."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(single.right), (10_000, len(single.right)))
    low, high = np.percentile(
        (policy.right - single.right)[picks].sum(1) / (most.right - single.right)[picks].sum(1), [2.5, 97.5]
    )
    value = (policy.right - single.right).sum() / (most.right - single.right).sum()
    return {"value": float(value), "low": float(low), "high": float(high)}


def calibration(found: Evaluated) -> dict[str, Any]:
    """How well the score tells right from wrong, by how much was read, and whether its probabilities hold."""
    by_cut: dict[str, Any] = {}
    for cut, scores in found.scores.items():
        if isinstance(cut, int):
            continue
        within = [auc(s.tolist(), [bool(r) for r in row]) for s, row in zip(scores, found.right, strict=True)]
        known = [value for value in within if value is not None]
        by_cut[str(cut)] = {
            "auc_within_problem": mean_interval(known).as_dict() | {"n": len(known)},
            "auc": auc(scores.ravel().tolist(), [bool(r) for r in found.right.ravel()]),
            "ece": expected_error(scores.ravel(), found.value.ravel()),
        }
    return by_cut


def expected_error(scores: Array, values: Array, bins: int = 10) -> float:
    """Expected calibration error in ten bins of equal width."""
    which = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [
        abs(scores[which == b].mean() - values[which == b].mean()) * (which == b).mean() for b in set(which.tolist())
    ]
    return float(sum(gaps))


def prune(found: Evaluated, cut: int, worth: Array, keep: float) -> Policy:
    """Finish the best share by ``worth`` after ``cut`` tokens, answer the best of those."""
    places = int(np.ceil(keep * N))
    kept = np.zeros_like(found.right, bool)
    np.put_along_axis(kept, np.argsort(-worth, 1, kind="stable")[:, :places], True, 1)
    tokens = np.where(kept, found.tokens, np.minimum(found.tokens, cut)).sum(1)
    best = np.where(kept, found.scores[1.0], -1).argmax(1)
    return Policy(np.take_along_axis(found.right, best[:, None], 1)[:, 0], tokens, np.full(len(best), float(places)))


def likelihood(found: Evaluated, cut: int) -> Array:
    """Mean log-probability of each sample's first tokens."""
    rows = [node.state for group in found.nodes for node in group]
    engine = load_language_model(directory("solver")).engine()
    outputs = engine.run([Read(s.prompt + s.ids[:cut], len(s.prompt)) for s in rows])
    means = [float(o.values.double().mean()) for o in outputs if o.values is not None]
    return np.array(means).reshape(found.right.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--dev", type=int, default=300)
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/bank.db"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    task, dev = load("pocket", args.problems), load("pocket", args.dev, split="dev")
    generator, reward = models()
    evaluation = ProcessReward(directory("self_evaluation"), dtype="float64")
    args.bank.parent.mkdir(parents=True, exist_ok=True)
    with Bank(args.bank) as bank:
        dev_found = asyncio.run(collect(dev, generator, evaluation, N, [1.0], bank))
        cut = round(0.25 * median(dev_found.tokens.ravel().tolist()))
        found = asyncio.run(collect(task, generator, evaluation, N, [*FRACTIONS, cut], bank))

    def sweep(of: Evaluated, order: npt.NDArray[np.int64]) -> dict[float, Policy]:
        return {gamma: play(of, order, good_enough(gamma)) for gamma in GAMMAS}

    dev_sweep = sweep(dev_found, orders(args.dev, args.seed))
    gamma = max((g for g, policy in dev_sweep.items() if policy.samples.mean() <= 3), default=GAMMAS[0])
    order = orders(args.problems, args.seed)
    fixed = [play(found, order, after(n)) for n in range(1, N + 1)]
    adaptive = sweep(found, order)
    main_policy = adaptive[gamma]
    counts = play_counts(found, order, gamma)
    rng = np.random.default_rng(args.seed + 1)
    shuffled = rng.permuted(counts, axis=1)
    by_chance = play(found, order, lambda scores, k: shuffled <= k)
    votes = {c: consistency(found, order[:8], c) for c in CONFIDENCES}
    vote_curve = sorted(votes.values(), key=lambda policy: float(policy.tokens.mean()))
    matched = {
        str(g): paired_difference(p.right.tolist(), at_tokens(fixed, float(p.tokens.mean())).tolist()).as_dict()
        for g, p in adaptive.items()
    }
    likely = likelihood(found, cut)
    dice = np.random.default_rng(args.seed + 2)
    pruning: dict[str, Any] = {}
    for keep in KEPT:
        arms = {
            "self_evaluation": prune(found, cut, found.scores[cut], keep),
            "likely": prune(found, cut, likely, keep),
            "random": mean_policy([prune(found, cut, dice.random(likely.shape), keep) for _ in range(ORDERS)]),
        }
        pruning[str(keep)] = {
            name: told(policy)
            | {
                "minus_all": paired_difference(policy.right.tolist(), fixed[-1].right.tolist()).as_dict(),
                "tokens_saved": 1 - float(policy.tokens.sum() / fixed[-1].tokens.sum()),
                "minus_random": paired_difference(policy.right.tolist(), arms["random"].right.tolist()).as_dict(),
            }
            for name, policy in arms.items()
        }
    solved = found.right.mean(1)
    groups = {
        "0 of 16": solved == 0,
        "above 0, below 30%": (solved > 0) & (solved < 0.3),
        "30-70%": (solved >= 0.3) & (solved <= 0.7),
        "above 70%": solved > 0.7,
    }
    samples_used = {
        name: mean_interval(main_policy.samples[which].tolist()).as_dict() | {"n": int(which.sum())}
        for name, which in groups.items()
    }
    hopeless, hard = (main_policy.samples[groups[name]] for name in ("0 of 16", "30-70%"))
    fewer = unpaired(hopeless, hard, args.seed)
    live = live_runs(task, generator, evaluation, reward, gamma, cut, args.bank, args.seed)
    gain = share_of_gain(main_policy, fixed[0], fixed[-1], args.seed)
    versus_fixed, by_cut = matched[str(gamma)], calibration(found)
    verdict = {
        "auc_and_calibration": by_cut["1.0"]["auc_within_problem"]["value"] >= 0.75 and by_cut["1.0"]["ece"] < 0.08,
        "most_of_the_gain": gain["value"] >= 0.7 and float(main_policy.samples.mean()) <= 3,
        "pruning": pruning["0.5"]["self_evaluation"]["tokens_saved"] >= 0.3
        and pruning["0.5"]["self_evaluation"]["minus_all"]["value"] >= -0.01,
        "capability_aware": fewer["high"] < 0,
        "falsified": versus_fixed["low"] <= 0 or fewer["high"] >= 0,
    }
    write(
        HERE,
        args.seed,
        task,
        {
            "n_samples": N,
            "orders": ORDERS,
            "gamma": gamma,
            "cut": cut,
            "by_cut": by_cut,
            "fixed": {str(n): told(policy) for n, policy in enumerate(fixed, 1)},
            "adaptive": {
                str(g): told(policy) | {"minus_fixed_at_tokens": matched[str(g)]} for g, policy in adaptive.items()
            },
            "share_of_gain": gain,
            "random_stopping": told(by_chance)
            | {"adaptive_minus": paired_difference(main_policy.right.tolist(), by_chance.right.tolist()).as_dict()},
            "adaptive_consistency": {str(c): told(policy) for c, policy in votes.items()},
            "minus_adaptive_consistency_at_tokens": paired_difference(
                main_policy.right.tolist(), at_tokens(vote_curve, float(main_policy.tokens.mean())).tolist()
            ).as_dict(),
            "samples_used": samples_used,
            "hopeless_minus_hard": fewer,
            "pruning": pruning,
            "live": live,
            "verdict": verdict,
        },
    )
    draw(fixed, adaptive, vote_curve, by_cut, samples_used, HERE / "plot.png")
    print(
        f"gamma {gamma}: {told(main_policy)}; gain {gain}; minus fixed at its tokens {points(versus_fixed)}; {verdict}"
    )


def play_counts(found: Evaluated, order: npt.NDArray[np.int64], gamma: float) -> npt.NDArray[np.int64]:
    """Samples drawn until the threshold, ``[orders, problems]``."""
    scores = np.take_along_axis(found.scores[1.0][None], order, 2)
    reached = scores >= gamma
    return np.where(reached.any(-1), reached.argmax(-1) + 1, N)


def mean_policy(policies: Sequence[Policy]) -> Policy:
    """Their mean, problem by problem."""
    return Policy(*(np.mean([getattr(p, name) for p in policies], 0) for name in ("right", "tokens", "samples")))


def unpaired(a: Array, b: Array, seed: int) -> dict[str, float]:
    """Difference of means of two groups of problems, each resampled by itself."""
    rng = np.random.default_rng(seed)
    means = [x[rng.integers(0, len(x), (10_000, len(x)))].mean(1) for x in (a, b)]
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return {"value": float(a.mean() - b.mean()), "low": float(low), "high": float(high)}


def live_runs(
    task: Task,
    generator: LocalGenerator,
    evaluation: ProcessReward,
    reward: ProcessReward,
    gamma: float,
    cut: int,
    bank: Path,
    seed: int,
) -> dict[str, Any]:
    """The strategies on the same problems: what was played out in the order of drawing, and temperature rising."""
    texts = {
        "best_of_n": "best_of_n:n=16",
        "constant": f"adaptive_sampling:n=16,gamma={gamma},anneal=constant",
        "annealed": f"adaptive_sampling:n=16,gamma={gamma}",
        "annealed, majority": f"adaptive_sampling:n=16,gamma={gamma},select=majority",
        "pruned to a half": f"early_pruning:n=16,t_check={cut}",
        "pruned at random": f"early_pruning:n=16,t_check={cut},keep=random",
        "adaptive_consistency": "adaptive_consistency:n=16",
        "majority": "majority:n=16",
    }
    arms = [Arm(name, parse(text)[1]) for name, text in texts.items()]
    outcomes = run_arms(arms, task, generator, evaluation, bank, seed)
    outcomes |= run_arms(
        [Arm("best_of_n by the reward model", parse("best_of_n:n=16")[1])], task, generator, reward, bank, seed
    )
    return {name: summary(found, seed) for name, found in outcomes.items()}


def draw(
    fixed: Sequence[Policy],
    adaptive: dict[float, Policy],
    votes: Sequence[Policy],
    by_cut: dict[str, Any],
    used: dict[str, Any],
    path: Path,
) -> None:
    """Accuracy against tokens, AUC against how much was read, and samples used by how often a problem is solved."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), dpi=150, width_ratios=(2, 1, 1))
    curves = {
        "fixed number, best by itself": fixed,
        "stops by itself": list(adaptive.values()),
        "adaptive-consistency": votes,
    }
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        ordered = sorted(curve, key=lambda policy: float(policy.tokens.mean()))
        x, y = [fmean(p.tokens) for p in ordered], [100 * fmean(p.right) for p in ordered]
        left.plot(x, y, "o-", ms=3, color=colour, label=name)
    left.set_xscale("log", base=2)
    left.set_xlabel("generated tokens per problem")
    left.set_ylabel("right answers, %")
    left.legend(frameon=False)
    cuts = list(by_cut)
    middle.plot(
        [100 * float(c) for c in cuts], [by_cut[c]["auc_within_problem"]["value"] for c in cuts], "o-", color=COLOURS[1]
    )
    middle.set_xlabel("read of a sample, %")
    middle.set_ylabel("AUC within a problem")
    names = list(used)
    low = [used[n]["value"] - used[n]["low"] for n in names]
    high = [used[n]["high"] - used[n]["value"] for n in names]
    right.bar(range(len(names)), [used[n]["value"] for n in names], yerr=[low, high], color=COLOURS[2])
    right.set_xticks(range(len(names)), names, rotation=20, ha="right")
    right.set_xlabel("problems by right samples")
    right.set_ylabel("samples used")
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


if __name__ == "__main__":
    main()
