"""Row 33: is a judge better the more often it is asked (Liu et al. 2025, DeepSeek-GRM, arXiv 2504.02495)?

    python -m experiments.generative_reward.run        # 500 problems; half an hour on two idle cores

All figures of votes are computed from the same judgements: the first k of 20 random orders of them, of which five are
the seeds of the test for a trend. Then the strategy itself runs, with its costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.generative_reward import judging
from experiments.generative_reward.judging import JUDGEMENTS, ONE_ORDER, Judgements, Matrix, accuracy, disagreement
from experiments.harness import Arm, Experiment, arm, minus, options, reward_model, skilled, summary, tokens
from experiments.intervals import Estimate, areas, as_points, difference, mean
from experiments.plot import COLOURS, generated, line, lines, logarithmic, panels, save
from thinktime import pocket
from thinktime.bench.runner import Outcome
from thinktime.scorers.meta import MetaReward
from training.meta import is_right

HERE = Path(__file__).parent
KS = (1, 2, 4, 8, 16, 32)
DRAWS, SEEDS = 20, 5
VOTES = (4, 6, 8, 10, 12, 16, 20, 24, 32)
ALL_VOTE = [f"generative_reward:n=4,k={k}" for k in KS]
JUDGED = [*ALL_VOTE, *(f"generative_reward:n=4,k={k},keep={k // 2}" for k in (8, 16, 32))]

Curve = dict[str, list[float]]
"""The chance to be right, problem by problem, of each way to decide."""


def best_by(rewards: Matrix, keep: int, scores: Matrix) -> Matrix:
    """The judgements of the highest rewards, as many as may vote."""
    voting = np.flatnonzero(~np.isnan(scores).any(1))
    order = voting[np.argsort(-np.nan_to_num(rewards[voting], nan=-1.0), kind="stable")]
    return scores[order[:keep]]


def rounded(scores: Matrix) -> Matrix:
    """One judgement: the mean score of each answer, as an integer."""
    voting = judging.valid(scores)
    return np.floor(voting.mean(0, keepdims=True) + 0.5) if len(voting) else voting


def drawn(judged: Judgements, rng: np.random.Generator) -> dict[str, float]:
    """Every way to decide, on one random order of a problem's judgements."""
    right = judged.right
    order = rng.permutation(len(judged.shuffled))
    mine, rewards = judged.shuffled[order], judged.rewards[order]
    quick = judged.at_once[rng.permutation(len(judged.at_once))]
    one = judged.forward[rng.permutation(len(judged.forward))]
    found = {"greedy": fmean(accuracy(judged.greedy[place : place + 1], right) for place in (0, 1))}
    for k in KS:
        found[f"vote@{k}"] = accuracy(mine[:k], right)
        found[f"at once@{k}"] = accuracy(quick[:k], right)
        if k <= ONE_ORDER:
            found[f"one order@{k}"] = accuracy(one[:k], right)
        if k >= 2:
            found[f"meta@{k}"] = accuracy(best_by(rewards[:k], k // 2, mine[:k]), right)
            found[f"random half@{k}"] = accuracy(mine[rng.permutation(min(k, len(mine)))[: k // 2]], right)
    found["meta@32, 8 kept"] = accuracy(best_by(rewards, JUDGEMENTS // 4, mine), right)
    found["rounded@32"] = accuracy(rounded(mine), right)
    return found


def curves(found: Sequence[Judgements]) -> tuple[Curve, list[Curve]]:
    """Means over the draws, and those of the seeds one by one."""
    draws = []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        rows = [drawn(judged, rng) for judged in found]
        draws.append({name: [row[name] for row in rows] for name in rows[0]})
    return {name: np.mean([draw[name] for draw in draws], 0).tolist() for name in draws[0]}, draws[:SEEDS]


def everywhere(curve: Curve, found: Sequence[Judgements]) -> Curve:
    """The same over all problems; the judge decides only the contested ones."""
    result = {}
    for name, values in curve.items():
        mine = iter(values)
        result[name] = [next(mine) if judged.contested else float(any(judged.right)) for judged in found]
    return result


def trend(curve: Curve, seeds: Sequence[Curve]) -> dict[str, Any]:
    """Slope of the vote's accuracy over each doubling of k: of the mean, with its interval, and of every seed."""
    log_k = np.log2(KS) - np.log2(KS).mean()

    def slopes(of: Curve) -> list[float]:
        return list((np.array([of[f"vote@{k}"] for k in KS]).T @ log_k) / (log_k @ log_k))

    return mean(slopes(curve)) | {"seeds": [fmean(slopes(seed)) for seed in seeds]}


def bias(found: Sequence[Judgements]) -> dict[str, Any]:
    """How often two votes@8 disagree, by what differs between them; and how much the first place is preferred."""
    half = ONE_ORDER // 2
    pairs: dict[str, Callable[[Judgements], float]] = {
        "one order and its reverse": lambda j: disagreement(j.forward[:half], j.backward[:half]),
        "one order twice": lambda j: disagreement(j.forward[:half], j.forward[half:]),
        "shuffled twice": lambda j: fmean(disagreement(*halves(j.shuffled, half, seed)) for seed in range(DRAWS)),
        "greedy, one order and its reverse": lambda j: disagreement(j.greedy[:1], j.greedy[1:]),
    }
    rates = {name: [rate(judged) for judged in found] for name, rate in pairs.items()}
    preferred = [fmean(judged.first) - 1 / len(judged.right) for judged in found if judged.first]
    reverse, twice, shuffled = (rates[name] for name in list(pairs)[:3])
    return {
        "disagreement": {name: mean(values) for name, values in rates.items()},
        "of_the_order_alone": difference(reverse, twice),
        "one_order_minus_shuffled": difference(reverse, shuffled),
        "first_place_minus_chance": mean(preferred),
    }


def halves(scores: Matrix, n: int, seed: int) -> tuple[Matrix, Matrix]:
    """Two sets of ``n`` judgements that have none in common; those of one order lie together, so they are drawn."""
    order = np.random.default_rng(seed).permutation(len(scores))
    return scores[order[:n]], scores[order[n : 2 * n]]


def meta_quality(found: Sequence[Judgements]) -> dict[str, Any]:
    """AUC of the meta reward and of length alone: over all judgements, and the mean within problems."""
    kept = [~np.isnan(judged.shuffled).any(1) for judged in found]
    pairs = list(zip(found, kept, strict=True))
    right = [[is_right(row, judged.right) for row in judged.shuffled[some]] for judged, some in pairs]
    result: dict[str, Any] = {"right": fmean(label for mine in right for label in mine)}
    for name, field in (("meta", "rewards"), ("length", "lengths")):
        pooled, within = areas((np.array(getattr(judged, field))[some].tolist() for judged, some in pairs), right)
        result[name] = {"auc": pooled, "auc_within": mean(within) if within else None}
    return result


def versus(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Each arm of the judge against plurality, the reward model, and the least vote of no fewer tokens."""
    cost = {label: fmean(map(tokens, found)) for label, found in outcomes.items()}
    votes = [f"majority:n={n}" for n in VOTES]
    peers = {"plurality": "majority:n=4", "best of 4": "best_of_n:n=4", "weighted": "weighted_majority:n=4"}
    rows: dict[str, Any] = {}
    for label in JUDGED:
        equal = next((vote for vote in votes if cost[vote] >= cost[label]), votes[-1])
        mine = {**peers, "equal tokens": equal}
        rows[label] = {name: minus(outcomes[label], outcomes[peer]) for name, peer in mine.items()}
        rows[label]["equal_tokens"] = equal
    return rows


def main() -> None:
    experiment = Experiment(HERE, options(__doc__).parse_args(), skilled(), reward_model(dtype="float32"))
    meta = MetaReward(experiment.generator, pocket.directory("skilled") / "meta.json")
    judge = judging.Judging(experiment.task)
    experiment.run([Arm("all judgements", judge, meta)])
    labels = [*JUDGED, *(f"majority:n={n}" for n in VOTES), "best_of_n:n=4", "weighted_majority:n=4"]
    outcomes = experiment.run(arm(label, meta if "keep" in label else None) for label in labels)
    found = [judge.found[problem.id] for problem in experiment.task.problems]
    contested = [judged for judged in found if judged.contested]
    curve, seeds = curves(contested)
    result = {
        "judgements": judging.costs(found),
        "contested": {name: mean(values) for name, values in curve.items()},
        "all_problems": {name: mean(values) for name, values in everywhere(curve, found).items()},
        "differences": differences(curve),
        "trend": trend(curve, seeds),
        "position": bias(contested),
        "meta_reward": meta_quality(contested),
        "arms": {label: summary(of_arm) for label, of_arm in outcomes.items()},
        "judge_minus": versus(outcomes),
    }
    plot(result, experiment.out)
    experiment.finish(result, verdict(result))


def differences(curve: Curve) -> dict[str, Estimate]:
    """Paired, over contested problems."""
    pairs = [("vote@8", "vote@1"), ("vote@32", "vote@1"), ("vote@8", "greedy"), ("vote@32", "greedy")]
    for k in (8, 16, 32):
        pairs += [(f"meta@{k}", f"random half@{k}"), (f"meta@{k}", f"vote@{k}"), (f"vote@{k}", f"at once@{k}")]
    pairs += [("meta@32, 8 kept", "vote@32"), ("meta@32, 8 kept", "vote@8"), ("vote@32", "rounded@32")]
    pairs += [("vote@16", "one order@16")]
    return {f"{a} minus {b}": difference(curve[a], curve[b]) for a, b in pairs}


def verdict(result: Mapping[str, Any]) -> list[str]:
    """Against the card: accuracy that does not rise with k, or a meta reward no better than a random half."""
    rise, gains, position = result["trend"], result["differences"], result["position"]
    rises = rise["low"] > 0 and min(rise["seeds"]) > 0
    halves = {k: gains[f"meta@{k} minus random half@{k}"] for k in (8, 16, 32)}
    better = any(gain["low"] > 0 for gain in halves.values()) and all(gain["value"] > 0 for gain in halves.values())
    found = [
        f"accuracy {'rises with k: holds' if rises else 'does not rise with k: falsified'}: {as_points(rise)} points a "
        "doubling; of the seeds " + ", ".join(f"{100 * slope:+.1f}" for slope in rise["seeds"]),
        f"meta reward against a random half: {'holds' if better else 'falsified'}: "
        + "; ".join(f"k={k}: {as_points(gain)}" for k, gain in halves.items()),
    ]
    found += [f"{name}: {as_points(gain)}" for name, gain in gains.items() if "random half" not in name]
    apart = {name: f"{100 * rate['value']:.1f}%" for name, rate in position["disagreement"].items()}
    found.append("two votes@8 disagree: " + "; ".join(f"{name}: {rate}" for name, rate in apart.items()))
    found.append(f"first place minus chance: {as_points(position['first_place_minus_chance'])}")
    cost, meta = result["judgements"], result["meta_reward"]
    found.append(
        f"a judgement: {cost['tokens_per_judgement']:.0f} tokens, {100 * cost['invalid']:.1f}% invalid; scores spread "
        f"by {cost['spread']['mean']:.2f}, by nothing on {100 * cost['spread']['problems_without']:.0f}% of problems"
    )
    within = {name: (meta[name]["auc_within"] or {"value": math.nan})["value"] for name in ("meta", "length")}
    both = [f"{name} {meta[name]['auc']:.3f}, {value:.3f}" for name, value in within.items()]
    found.append("AUC of right judgements, over all and within problems: " + "; ".join(both))
    for label in ("generative_reward:n=4,k=8", "generative_reward:n=4,k=32", "generative_reward:n=4,k=8,keep=4"):
        row = result["judge_minus"][label]
        gains = "; ".join(f"{name}: {as_points(row[name])}" for name in row if name != "equal_tokens")
        found.append(f"{label} minus {gains} ({row['equal_tokens']})")
    return found


def plot(result: Mapping[str, Any], out: Path) -> None:
    """What votes are worth where there is something to judge, and what they cost everywhere."""
    figure, (left, right) = panels(2, 10.5, 4.4)
    names = {
        "vote": "all vote",
        "meta": "better half by meta reward",
        "random half": "random half",
        "one order": "not shuffled",
        "at once": "no checks",
    }
    contested, arms = result["contested"], result["arms"]
    for place, (name, label) in enumerate(names.items(), 1):
        ks = [k for k in KS if f"{name}@{k}" in contested]
        x = [k * 1.03 ** (place - 3) for k in ks]  # whiskers side by side
        line(left, x, [contested[f"{name}@{k}"] for k in ks], place, label)
    left.axhline(100 * contested["greedy"]["value"], ls="--", lw=1, color=COLOURS[0], label="one greedy judgement")
    logarithmic(left, "judgements")
    left.set_ylabel("right answer picked, %")
    left.set_title("problems with right and wrong answers", size=9)
    families = {
        "vote over more samples": [f"majority:n={n}" for n in VOTES],
        "judge, all vote": ALL_VOTE,
        "judge, better half": JUDGED[len(ALL_VOTE) :],
        "reward model, best of 4": ["best_of_n:n=4"],
        "reward model, weighted vote of 4": ["weighted_majority:n=4"],
    }
    lines(right, {name: [arms[label] for label in labels] for name, labels in families.items()}, generated)
    logarithmic(right, "generated tokens a problem, judgements included")
    right.set_ylabel("right answers, %")
    right.set_title("all problems", size=9)
    for axes in (left, right):
        axes.legend(fontsize=7)
    save(figure, out / "plot.png")


if __name__ == "__main__":
    main()
