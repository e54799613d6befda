"""Which procedure is best by policy, reward model, difficulty and budget, where all of them are known (2502.06703).

    python -m experiments.reward_aware.control      # a minute or two; writes control.json and control.png

Three policies of rising skill solve the same problems step by step (`experiments.reward_aware.chains`). The reward
models: one with an AUC of 0.8, one of 0.65 as if it was trained on another policy, one that takes 30 % of the prefixes
for the opposite, one that prefers long steps; and dials and an oracle for the map. An arm is a procedure with one of
the seven rules for the answer. Arms are chosen on one half of the problems and measured on the other, both ways.
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
    "other policy": Reward(0.65),
    "wrong labels": Reward(0.8, flipped=0.3),
    "long steps": Reward(0.8, length=1.0),
}
DIALS = (0.5, 0.6, 0.7, 0.8, 0.9)
REWARDS = {**GRID, **{f"AUC {auc}": Reward(auc) for auc in DIALS}, "oracle": Reward(1.0)}
ARMS = tuple(product(PROCEDURES, RULES))
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


def tables(right: Right, bins: Mapping[str, list[np.ndarray[Any, Any]]], n: int) -> dict[str, Any]:
    """Held-out success by the reward-aware table, by one for all rewards, and with the best arm for everything."""
    total: dict[str, Floats] = {}
    by_reward: dict[str, dict[str, Floats]] = {reward: {} for reward in GRID}
    for budget in BUDGETS:
        mine = {key: of for key, of in right.items() if key[2] == budget and key[1] in GRID}
        whole = {arm: np.mean([of[arm] for of in mine.values()], axis=0) for arm in ARMS}
        for (policy, reward, _), of in mine.items():
            pooled = {arm: np.mean([mine[policy, r, budget][arm] for r in GRID], axis=0) for arm in ARMS}
            rows = {
                "reward-aware": np.empty(n),
                "one table for all rewards": np.empty(n),
                "best arm for all": cross_fitted(best(whole), of, np.arange(n)),
                "vote of best of n": of["best of n", "last vote"],
                "plurality": of["best of n", "majority"],
            }
            for members in bins[policy]:
                rows["reward-aware"][members] = cross_fitted(best(of), of, members)
                rows["one table for all rewards"][members] = cross_fitted(best(pooled), of, members)
            for name, values in rows.items():
                total[name] = total.get(name, np.zeros(n)) + values / len(GRID) / len(SKILLS) / len(BUDGETS)
                part = values / len(SKILLS) / len(BUDGETS)
                by_reward[reward][name] = by_reward[reward].get(name, np.zeros(n)) + part

    def row(of: Mapping[str, Floats]) -> dict[str, Any]:
        aware = of["reward-aware"]
        return {
            name: {"accuracy": mean(values), "reward_aware_minus": difference(aware, values)}
            for name, values in of.items()
        }

    return {"all": row(total), "by_reward": {reward: row(of) for reward, of in by_reward.items()}}


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
    """Search minus samples against the AUC, by policy; by level; and the gains of the reward-aware table."""
    figure, (left, middle, right) = panels(3, 16, 4.6)
    gaps = result["search_minus_samples"]["16"]
    for colour, policy in enumerate(SKILLS):
        line(left, DIALS, [gaps[policy][f"AUC {auc}"] for auc in DIALS], colour, f"policy {policy}")
        rows = [gaps[policy][f"{level}, AUC 0.8"] for level in LEVELS]
        line(middle, np.arange(3) + 0.08 * (colour - 1), rows, colour, f"policy {policy}")
    left.set(xlabel="AUC of the reward model", ylabel="points over best of 16", title="best search minus best of 16")
    middle.set_xticks(range(3), LEVELS)
    middle.set(title="by level, AUC 0.8")
    by_reward = result["tables"]["by_reward"]
    for colour, name in enumerate(("one table for all rewards", "best arm for all", "vote of best of n")):
        rows = [of[name]["reward_aware_minus"] for of in by_reward.values()]
        line(right, np.arange(len(rows)) + 0.1 * (colour - 1), rows, colour, name, "o")
    right.set_xticks(range(len(by_reward)), list(by_reward))
    right.set(ylabel="points", title="reward-aware table minus")
    for axes in (left, middle, right):
        axes.axhline(0, color="#555555", lw=0.8)
        axes.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=600)
    hardness = np.random.default_rng(0).normal(0, SPREAD, args.problems)
    rates = {policy: 1 / (1 + np.exp(-(skill - hardness))) for policy, skill in SKILLS.items()}
    bins, right, tokens = {}, {}, {}
    for policy, rate in rates.items():
        levels = np.array(absolute_bins((rate**STEPS).tolist(), least=LEAST))
        bins[policy] = [np.flatnonzero(levels == level) for level in LEVELS]
        for reward, model in REWARDS.items():
            seed = list(SKILLS).index(policy)
            for (procedure, budget), row in measured(rate, model, BUDGETS, 1, [seed]).items():
                arms = right.setdefault((policy, reward, budget), {})
                arms.update({(procedure, rule): values for rule, values in row["right"].items()})
                tokens[policy, reward, procedure, budget] = float(row["tokens"].mean())
        print(policy, [len(members) for members in bins[policy]], flush=True)
    won = winners(right, bins)
    result = made | {
        "n_problems": args.problems,
        "levels": {policy: dict(zip(LEVELS, map(len, of), strict=True)) for policy, of in bins.items()},
        "one_sample": {policy: mean(rate**STEPS) for policy, rate in rates.items()},
        "winners": won,
        "tables": tables(right, bins, args.problems),
        "search_minus_samples": {str(n): search_minus_samples(right, bins, n) for n in (16, 64)},
        "against_larger": against_larger(right, tokens, rates["L"] ** STEPS),
        "tokens": {" / ".join(map(str, key)): value for key, value in tokens.items() if key[1] in GRID},
    }
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")
    print("winner changes", won["changed"], "surely", won["surely_changed"])
    for name, row in result["tables"]["all"].items():
        print(name, as_points(row["accuracy"]), as_points(row["reward_aware_minus"]))
    for policy, of in result["search_minus_samples"]["16"].items():
        print(policy, {name: as_points(value) for name, value in of.items()})


if __name__ == "__main__":
    main()
