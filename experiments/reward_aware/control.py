"""Which procedure is best by policy, reward model, difficulty and budget, where all of them are known (2502.06703).

    python -m experiments.reward_aware.control      # a minute or two; writes control.json and control.png

Three policies of rising skill solve the same problems step by step (`experiments.reward_aware.chains`). The reward
models: one with an AUC of 0.8; the same, but fooled by the attractive mistake of half of the problems, as if it was
trained on another policy; one that takes 30 % of the prefixes for the opposite; one that prefers long steps; and others
for the map. An arm is a procedure with one of the seven rules for the answer. Arms are chosen on one half of the
problems and measured on the other, both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations, product
from pathlib import Path
from typing import Any

import numpy as np

from experiments.intervals import as_points, difference, mean
from experiments.plot import line, panels, save
from experiments.provenance import begin, write_json
from experiments.reward_aware.chains import PROCEDURES, STEPS, Floats, Reward, measured
from thinktime.planning.difficulty import LEVELS, absolute_bins
from thinktime.planning.reward_aware import RULES

HERE = Path(__file__).parent
SKILLS, SPREAD = {"S": 0.5, "M": 1.4, "L": 2.2}, 1.5
"""Logits of a right step on the middle problem, and the deviation of problems."""
PARAMETERS = {"S": 0.5e9, "M": 1.5e9, "L": 7e9}
BUDGETS = (4, 16, 64)
GRID = {
    "own policy": Reward(0.8),
    "other policy": Reward(0.8, fooled=0.5),
    "wrong labels": Reward(0.8, flipped=0.3),
    "long steps": Reward(0.8, length=1.0),
}
DIALS = (0.5, 0.6, 0.7, 0.8, 0.9)
FOOLED = (0.0, 0.25, 0.5, 0.75, 1.0)
REWARDS = {
    **GRID,
    **{f"AUC {auc}": Reward(auc) for auc in DIALS},
    **{f"fooled {share}": Reward(0.8, fooled=share) for share in FOOLED},
    "oracle": Reward(1.0),
}
ARMS = tuple(product(PROCEDURES, RULES))
AWARE, POOLED = "reward-aware", "one table for all rewards"
LEAST = 60
Arm = tuple[str, str]
Right = Mapping[tuple[str, str, int], Mapping[Arm, Floats]]
"""The success of each arm on all problems, by policy, reward and budget."""


def cross_fitted(
    choose: Callable[[np.ndarray[Any, Any], Sequence[Arm]], Arm],
    right: Mapping[Arm, Floats],
    members: np.ndarray[Any, Any],
    arms: Sequence[Arm] = ARMS,
) -> Floats:
    """The success on the members of a bin of arms that are chosen on the other half of them.

    Args:
        choose: the arm, by members and the arms there are.
        right: what is measured.
        members: places of problems.
        arms: to choose from.
    """
    found = np.empty(len(members))
    for fold in (0, 1):
        pick = choose(members[1 - fold :: 2], arms)
        found[fold::2] = right[pick][members[fold::2]]
    return found


def best(right: Mapping[Arm, Floats]) -> Callable[[np.ndarray[Any, Any], Sequence[Arm]], Arm]:
    """The arm that solves most of the members."""
    return lambda members, arms: max(arms, key=lambda arm: float(right[arm][members].mean()))


def tables(
    right: Right, bins: Mapping[str, list[np.ndarray[Any, Any]]], n: int, rewards: Sequence[str]
) -> dict[str, dict[str, Floats]]:
    """Held-out success on each problem, as the mean over policies and budgets, by reward model and way to choose.

    The ways are the reward-aware table, one table for all these rewards, the best arm for everything, and two fixed
    arms.
    """
    share = 1 / len(SKILLS) / len(BUDGETS)
    found: dict[str, dict[str, Floats]] = {reward: {} for reward in rewards}
    for budget in BUDGETS:
        cells = list(product(SKILLS, rewards))
        whole = {arm: np.mean([right[p, r, budget][arm] for p, r in cells], axis=0) for arm in ARMS}
        for policy, reward in cells:
            of = right[policy, reward, budget]
            pooled = {arm: np.mean([right[policy, r, budget][arm] for r in rewards], axis=0) for arm in ARMS}
            rows = {
                AWARE: np.empty(n),
                POOLED: np.empty(n),
                "best arm for all": cross_fitted(best(whole), of, np.arange(n)),
                "vote of best of n": of["best of n", "last vote"],
                "plurality": of["best of n", "majority"],
            }
            for members in bins[policy]:
                rows[AWARE][members] = cross_fitted(best(of), of, members)
                rows[POOLED][members] = cross_fitted(best(pooled), of, members)
            for name, values in rows.items():
                found[reward][name] = found[reward].get(name, np.zeros(n)) + share * values
    return found


def aware_minus(of: Mapping[str, Floats]) -> dict[str, Any]:
    """Success by each way to choose, and that of the reward-aware table minus it."""
    return {
        name: {"accuracy": mean(values), "reward_aware_minus": difference(of[AWARE], values)}
        for name, values in of.items()
    }


def over_rewards(found: Mapping[str, Mapping[str, Floats]]) -> dict[str, Floats]:
    """The means over reward models."""
    first, *_ = found.values()
    return {name: np.mean([of[name] for of in found.values()], axis=0) for name in first}


def winners(right: Right, bins: Mapping[str, list[np.ndarray[Any, Any]]]) -> dict[str, Any]:
    """The best procedure of every cell, and the share of cells in which it changes with the reward model.

    It changes surely if one procedure is better than another with one reward and worse with another reward, both with
    an interval that excludes 0.
    """
    cells, changed, surely = {}, 0, 0
    for policy, place, budget in product(SKILLS, range(len(LEVELS)), BUDGETS):
        members = bins[policy][place]
        solved = {
            reward: {p: cross_fitted(best(of), of, members, [arm for arm in ARMS if arm[0] == p]) for p in PROCEDURES}
            for reward in GRID
            for of in (right[policy, reward, budget],)
        }
        won = {reward: max(PROCEDURES, key=lambda p: float(of[p].mean())) for reward, of in solved.items()}
        changed += len(set(won.values())) > 1
        gaps = {
            (reward, a, b): _gap(of[a], of[b]) for reward, of in solved.items() for a, b in combinations(PROCEDURES, 2)
        }
        surely += any(
            gaps[r, a, b] > 0 > gaps[s, a, b] for a, b in combinations(PROCEDURES, 2) for r, s in permutations(GRID, 2)
        )
        cells[f"{policy}, {LEVELS[place]}, {budget}"] = won
    return {"cells": cells, "changed": changed / len(cells), "surely_changed": surely / len(cells)}


def _gap(a: Floats, b: Floats) -> int:
    """The sign of the mean difference, 0 if two standard errors reach 0."""
    values = a - b
    error = values.std(ddof=1) / len(values) ** 0.5
    return int(np.sign(values.mean())) if abs(values.mean()) > 1.96 * error else 0


def search_minus_samples(right: Right, bins: Mapping[str, list[np.ndarray[Any, Any]]], budget: int) -> dict[str, Any]:
    """The best search minus best-of-n, each with its best rule, by policy and reward; and by level for the policies."""

    def gap(of: Mapping[Arm, Floats], members: np.ndarray[Any, Any]) -> dict[str, float]:
        searches = [arm for arm in ARMS if arm[0] != PROCEDURES[0]]
        samples = [arm for arm in ARMS if arm[0] == PROCEDURES[0]]
        ours, theirs = (cross_fitted(best(of), of, members, arms) for arms in (searches, samples))
        return difference(ours, theirs)

    every = {policy: np.concatenate(bins[policy]) for policy in SKILLS}
    return {
        policy: {reward: gap(right[policy, reward, budget], every[policy]) for reward in REWARDS}
        | {
            f"{level}, AUC 0.8": gap(right[policy, "AUC 0.8", budget], bins[policy][place])
            for place, level in enumerate(LEVELS)
        }
        for policy in SKILLS
    }


def against_larger(right: Right, tokens: Mapping[tuple[str, str, str, int], float], alone: Floats) -> dict[str, Any]:
    """The small policy with each procedure and reward minus one sample of the large policy, and their FLOPs.

    A step that is generated is scored once, by a reward model of the small policy's size or of 7e9 parameters.
    """
    single = 2 * PARAMETERS["L"] * STEPS * 16
    found: dict[str, Any] = {}
    for reward, procedure, budget in product(("own policy", "other policy", "oracle"), PROCEDURES, BUDGETS):
        values = right["S", reward, budget][procedure, "last vote"]
        spent = tokens["S", reward, procedure, budget]
        found[f"{reward}, {procedure}, {budget}"] = {
            "minus_large": difference(values, alone),
            "flops_over_large": {
                "policy": 2 * PARAMETERS["S"] * spent / single,
                "with a reward model of its size": 4 * PARAMETERS["S"] * spent / single,
                "with a reward model of 7e9": 2 * (PARAMETERS["S"] + 7e9) * spent / single,
            },
        }
    return found


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Search minus samples against the AUC and the fooled problems, and the gains of the reward-aware table."""
    figure, (left, middle, right) = panels(3, 16, 4.6)
    gaps = result["search_minus_samples"]["16"]
    for colour, policy in enumerate(SKILLS):
        line(left, DIALS, [gaps[policy][f"AUC {auc}"] for auc in DIALS], colour, f"policy {policy}")
        line(middle, FOOLED, [gaps[policy][f"fooled {share}"] for share in FOOLED], colour, f"policy {policy}")
    left.set(xlabel="AUC of the reward model", ylabel="points over best of 16", title="best search minus best of 16")
    middle.set(xlabel="problems whose attractive mistake fools the reward model", title="AUC of 0.8 otherwise")
    rows = result["pairs"].values()
    for colour, name in enumerate((POOLED, "best arm for all")):
        line(right, FOOLED, [of[name]["reward_aware_minus"] for of in rows], colour, name)
    right.set(xlabel="the same of the second of two reward models", ylabel="points", title="reward-aware table minus")
    for axes in (left, middle, right):
        axes.axhline(0, color="#555555", lw=0.8)
        axes.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=600)
    hardness = np.random.default_rng(0).normal(0, SPREAD, args.problems)
    rates = {policy: 1 / (1 + np.exp(-(skill - hardness))) for policy, skill in SKILLS.items()}
    bins: dict[str, list[np.ndarray[Any, Any]]] = {}
    right: dict[tuple[str, str, int], dict[Arm, Floats]] = {}
    tokens: dict[tuple[str, str, str, int], float] = {}
    lengths: dict[str, float] = {}
    for policy, rate in rates.items():
        levels = np.array(absolute_bins((rate**STEPS).tolist(), least=LEAST))
        bins[policy] = [np.flatnonzero(levels == level) for level in LEVELS]
        for reward, model in REWARDS.items():
            seed = list(SKILLS).index(policy)
            for (procedure, budget), row in measured(rate, model, BUDGETS, seed).items():
                arms = right.setdefault((policy, reward, budget), {})
                arms.update({(procedure, rule): values for rule, values in row["right"].items()})
                tokens[policy, reward, procedure, budget] = row["tokens"]
                lengths[f"{policy}, {reward}, {procedure}, {budget}"] = row["length"]
        print(policy, [len(members) for members in bins[policy]], flush=True)
    won, found = winners(right, bins), tables(right, bins, args.problems, list(GRID))
    pairs = {
        share: over_rewards(tables(right, bins, args.problems, ["own policy", f"fooled {share}"])) for share in FOOLED
    }
    result = made | {
        "n_problems": args.problems,
        "levels": {policy: dict(zip(LEVELS, map(len, of), strict=True)) for policy, of in bins.items()},
        "one_sample": {policy: mean(rate**STEPS) for policy, rate in rates.items()},
        "winners": won,
        "tables": {
            "all": aware_minus(over_rewards(found)),
            "by_reward": {reward: aware_minus(of) for reward, of in found.items()},
        },
        "pairs": {str(share): aware_minus(of) for share, of in pairs.items()},
        "search_minus_samples": {str(n): search_minus_samples(right, bins, n) for n in (16, 64)},
        "against_larger": against_larger(right, tokens, rates["L"] ** STEPS),
        "tokens": {", ".join(map(str, key)): value for key, value in tokens.items() if key[1] in GRID},
        "solution_tokens": lengths,
    }
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")
    print("winner changes", won["changed"], "surely", won["surely_changed"])
    for name, row in result["tables"]["all"].items():
        print(name, as_points(row["accuracy"]), as_points(row["reward_aware_minus"]))
    for share, of in result["pairs"].items():
        print("fooled", share, {name: as_points(row["reward_aware_minus"]) for name, row in of.items()})
    for policy, of in result["search_minus_samples"]["16"].items():
        print(policy, {name: as_points(value) for name, value in of.items()})


if __name__ == "__main__":
    main()
