"""Row 01: can a model tell whether another sample would be better (Manvi et al. 2024, arXiv 2410.02725)?

    python -m experiments.adaptive_self_eval.run        # 1,000 problems; a few minutes on two idle cores

Every policy is played out on the same sixteen samples of each problem, in 32 orders. Then the strategies themselves are
run, to check that they give the same as the replay.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.harness import Experiment, arm, options, reward_model, summary
from experiments.intervals import areas, as_points, difference, mean, ratio, unpaired_difference
from experiments.plot import COLOURS, bars, logarithmic, panels, save
from thinktime.bank.store import Bank
from thinktime.bench.tasks import load
from thinktime.models.engine.models import load_language_model
from thinktime.models.engine.rows import Read
from thinktime.pocket import directory
from thinktime.strategies.sampling.adaptive_consistency import lead
from training.calibrate import Evaluated, collect

HERE = Path(__file__).parent
N, ORDERS = 16, 32
FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)
GAMMAS = (*np.arange(0.05, 0.96, 0.05).round(2).tolist(), 0.97, 0.98, 0.99, 0.995)
CONFIDENCES = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
KEPT = (0.5, 0.25)
Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Stops = Callable[[Array, int], npt.NDArray[np.bool_]]
"""Of the scores so far, ``[orders, problems, drawn]``, and how many were drawn: where no more are drawn."""


@dataclass(frozen=True)
class Policy:
    """What a rule does with each problem, as means over orders: ``[problems]``."""

    right: Array
    tokens: Array
    samples: Array

    @property
    def cost(self) -> float:
        """Mean tokens of a problem."""
        return float(self.tokens.mean())

    def as_row(self) -> dict[str, Any]:
        """For the result."""
        return {"accuracy": mean(self.right), "tokens": self.cost, "samples": float(self.samples.mean())}


def orders(problems: int, seed: int, samples: int = N) -> Places:
    """Orders to draw the samples in, ``[orders, problems, samples]``; the first is as they were drawn."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(np.arange(samples), (ORDERS - 1, problems, 1)), axis=2)
    return np.concatenate([np.arange(samples)[None, None].repeat(problems, 1), shuffled])


def good_enough(gamma: float) -> Stops:
    """Stop when the best score so far reaches a threshold."""
    return lambda scores, drawn: scores.max(-1) >= gamma


def after(n: int) -> Stops:
    """Stop after so many samples."""
    return lambda scores, drawn: np.full(scores.shape[:2], drawn >= n)


def drawn_until(scores: Array, stops: Stops) -> Places:
    """How many are drawn in each order, ``[orders, problems]``; at most all samples."""
    ends = [stops(scores[..., :k], k) for k in range(1, scores.shape[-1])] + [np.ones(scores.shape[:2], bool)]
    drawn: Places = np.stack(ends, -1).argmax(-1) + 1
    return drawn


def play(found: Evaluated, order: Places, stops: Stops) -> Policy:
    """Draw until ``stops`` says so of the scores so far, answer the best-scored."""
    right, tokens, scores = (
        np.take_along_axis(a[None], order, 2) for a in (found.right, found.tokens, found.scores[1.0])
    )
    drawn = drawn_until(scores, stops)
    seen = np.arange(scores.shape[-1]) < drawn[..., None]
    best = np.where(seen, scores, -1).argmax(-1)
    chosen = np.take_along_axis(right, best[..., None], 2)[..., 0]
    return Policy(chosen.mean(0), (tokens * seen).sum(-1).mean(0), drawn.mean(0))


def consistency(found: Evaluated, order: Places, confidence: float) -> Policy:
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
    costs = [policy.cost for policy in curve]
    place = int(np.clip(np.searchsorted(costs, tokens), 1, len(costs) - 1))
    share = float(np.clip((tokens - costs[place - 1]) / (costs[place] - costs[place - 1]), 0, 1))
    return (1 - share) * curve[place - 1].right + share * curve[place].right


def calibration(found: Evaluated) -> dict[str, Any]:
    """How well the score tells right from wrong, by how much was read, and whether its probabilities hold."""
    by_cut: dict[str, Any] = {}
    for cut, scores in found.scores.items():
        if isinstance(cut, int):
            continue
        pooled, within = areas(scores.tolist(), (found.right > 0).tolist())
        by_cut[str(cut)] = {
            "auc_within_problem": mean(within) | {"n": len(within)},
            "auc": pooled,
            "ece": expected_error(scores.ravel(), found.value.ravel()),
        }
    return by_cut


def expected_error(scores: Array, values: Array, bins: int = 10) -> float:
    """Expected calibration error in ten bins of equal width."""
    which = np.minimum((scores * bins).astype(int), bins - 1)
    inside = [which == number for number in set(which.tolist())]
    return float(sum(abs(scores[b].mean() - values[b].mean()) * b.mean() for b in inside))


def prune(found: Evaluated, cut: int, worth: Array, keep: float) -> Policy:
    """Finish the best share by ``worth`` after ``cut`` tokens, answer the best of those."""
    places = int(np.ceil(keep * found.right.shape[1]))
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
    parser = options(__doc__, problems=1000)
    parser.add_argument("--dev", type=int, default=300)
    args = parser.parse_args()
    evaluation = reward_model("self_evaluation")
    experiment = Experiment(HERE, args, scorer=evaluation)
    generator = experiment.generator
    args.bank.parent.mkdir(parents=True, exist_ok=True)
    with Bank(args.bank) as bank:
        dev = asyncio.run(collect(load("pocket", args.dev, split="dev"), generator, evaluation, N, [1.0], bank))
        cut = round(0.25 * median(dev.tokens.ravel().tolist()))
        found = asyncio.run(collect(experiment.task, generator, evaluation, N, [*FRACTIONS, cut], bank))

    def sweep(of: Evaluated, order: npt.NDArray[np.int64]) -> dict[float, Policy]:
        return {gamma: play(of, order, good_enough(gamma)) for gamma in GAMMAS}

    dev_sweep = sweep(dev, orders(args.dev, 0))
    gamma = max((g for g, policy in dev_sweep.items() if policy.samples.mean() <= 3), default=GAMMAS[0])
    order = orders(args.problems, 0)
    fixed = [play(found, order, after(n)) for n in range(1, N + 1)]
    adaptive = sweep(found, order)
    chosen = adaptive[gamma]
    counts = drawn_until(np.take_along_axis(found.scores[1.0][None], order, 2), good_enough(gamma))
    shuffled = np.random.default_rng(1).permuted(counts, axis=1)
    by_chance = play(found, order, lambda scores, drawn: shuffled <= drawn)
    votes = {confidence: consistency(found, order[:8], confidence) for confidence in CONFIDENCES}
    vote_curve = sorted(votes.values(), key=lambda policy: policy.cost)
    matched = {str(g): difference(p.right, at_tokens(fixed, p.cost)) for g, p in adaptive.items()}
    pruning = pruned(found, cut, fixed[-1])
    solved = found.right.mean(1)
    groups = {
        "0 of 16": solved == 0,
        "above 0, below 30%": (solved > 0) & (solved < 0.3),
        "30-70%": (solved >= 0.3) & (solved <= 0.7),
        "above 70%": solved > 0.7,
    }
    used = {name: mean(chosen.samples[which]) | {"n": int(which.sum())} for name, which in groups.items()}
    fewer = unpaired_difference(*(chosen.samples[groups[name]] for name in ("0 of 16", "30-70%")))
    gain = ratio(chosen.right - fixed[0].right, fixed[-1].right - fixed[0].right)
    versus_fixed, by_cut = matched[str(gamma)], calibration(found)
    verdict = {
        "auc_and_calibration": by_cut["1.0"]["auc_within_problem"]["value"] >= 0.75 and by_cut["1.0"]["ece"] < 0.08,
        "most_of_the_gain": gain["value"] >= 0.7 and float(chosen.samples.mean()) <= 3,
        "pruning": pruning["0.5"]["self_evaluation"]["tokens_saved"] >= 0.3
        and pruning["0.5"]["self_evaluation"]["minus_all"]["value"] >= -0.01,
        "capability_aware": fewer["high"] < 0,
        "falsified": versus_fixed["low"] <= 0 or fewer["high"] >= 0,
    }
    result = {
        "n_samples": N,
        "orders": ORDERS,
        "gamma": gamma,
        "cut": cut,
        "by_cut": by_cut,
        "fixed": {str(n): policy.as_row() for n, policy in enumerate(fixed, 1)},
        "adaptive": {str(g): p.as_row() | {"minus_fixed_at_tokens": matched[str(g)]} for g, p in adaptive.items()},
        "share_of_gain": gain,
        "random_stopping": by_chance.as_row() | {"adaptive_minus": difference(chosen.right, by_chance.right)},
        "adaptive_consistency": {str(confidence): policy.as_row() for confidence, policy in votes.items()},
        "minus_adaptive_consistency_at_tokens": difference(chosen.right, at_tokens(vote_curve, chosen.cost)),
        "samples_used": used,
        "hopeless_minus_hard": fewer,
        "pruning": pruning,
        "live": live(experiment, gamma, cut),
        "verdict": verdict,
    }
    plot(result, experiment.out)
    experiment.finish(result)
    print(f"gamma {gamma}: gain {gain}; minus fixed at its tokens {as_points(versus_fixed)}; {verdict}")


def pruned(found: Evaluated, cut: int, everything: Policy) -> dict[str, Any]:
    """Pruning after ``cut`` tokens by self-evaluation, by likelihood and at random, at every share that is kept."""
    likely, rng = likelihood(found, cut), np.random.default_rng(2)
    rows: dict[str, Any] = {}
    for keep in KEPT:
        arms = {
            "self_evaluation": prune(found, cut, found.scores[cut], keep),
            "likely": prune(found, cut, likely, keep),
            "random": mean_policy([prune(found, cut, rng.random(likely.shape), keep) for _ in range(ORDERS)]),
        }
        rows[str(keep)] = {
            name: policy.as_row()
            | {
                "minus_all": difference(policy.right, everything.right),
                "tokens_saved": 1 - float(policy.tokens.sum() / everything.tokens.sum()),
                "minus_random": difference(policy.right, arms["random"].right),
            }
            for name, policy in arms.items()
        }
    return rows


def mean_policy(policies: Sequence[Policy]) -> Policy:
    """Their mean, problem by problem."""
    return Policy(*(np.mean([getattr(p, name) for p in policies], 0) for name in ("right", "tokens", "samples")))


def live(experiment: Experiment, gamma: float, cut: int) -> dict[str, Any]:
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
    arms = [replace(arm(text), label=name) for name, text in texts.items()]
    arms.append(replace(arm("best_of_n:n=16", reward_model()), label="best_of_n by the reward model"))
    return {name: summary(found) for name, found in experiment.run(arms).items()}


def plot(result: dict[str, Any], out: Path) -> None:
    """Accuracy against tokens, AUC against how much was read, and samples used by how often a problem is solved."""
    figure, (left, middle, right) = panels(3, 13, 4, width_ratios=(2, 1, 1))
    names = {
        "fixed": "fixed number, best by itself",
        "adaptive": "stops by itself",
        "adaptive_consistency": "adaptive-consistency",
    }
    for colour, (curve, name) in zip(COLOURS, names.items(), strict=False):
        rows = sorted(result[curve].values(), key=lambda row: row["tokens"])
        x, y = [row["tokens"] for row in rows], [100 * row["accuracy"]["value"] for row in rows]
        left.plot(x, y, "o-", ms=3, color=colour, label=name)
    logarithmic(left, "generated tokens per problem")
    left.set_ylabel("right answers, %")
    left.legend()
    by_cut, used = result["by_cut"], result["samples_used"]
    areas = [row["auc_within_problem"]["value"] for row in by_cut.values()]
    middle.plot([100 * float(cut) for cut in by_cut], areas, "o-", color=COLOURS[1])
    middle.set(xlabel="read of a sample, %", ylabel="AUC within a problem")
    heights, whiskers = bars(used.values(), 1)
    right.bar(range(len(used)), heights, yerr=whiskers, color=COLOURS[2])
    right.set_xticks(range(len(used)), list(used), rotation=20, ha="right")
    right.set(xlabel="problems by right samples", ylabel="samples used")
    save(figure, out / "plot.png")


if __name__ == "__main__":
    main()
