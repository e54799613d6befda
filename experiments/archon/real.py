"""Row 29 on samples of real models: architectures that a replay allows, chosen on one half, measured on the other.

    python -m experiments.archon.real      # two minutes; needs pip install 'thinktime[search]', and no model

The pool has every model whose samples are in the repository, at temperature 0.7 and at temperature 0; those that are
missing are named in the result. Layers generate from one or more of them, keep the best by confidence or likelihood,
for functions also by the examples of the prompt, and vote. For every cap on tokens the best architecture of one half of
the problems answers the other half, and the other way round. Votes, best-of-n and one sample at temperature 0 stand
beside it. Writes ``real.json`` and ``real.png``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from experiments.archon.choosing import best, compared
from experiments.archon.replay import UNREADABLE, Candidates, Floats, Replay
from experiments.banks.judge import HERE as BANKS
from experiments.banks.judge import SUFFIX, judged_pool
from experiments.intervals import as_percent, as_points, difference, mean
from experiments.plot import COLOURS, bars, legend_below, line, logarithmic, panels, save
from experiments.pools import confidence, likelihood
from experiments.provenance import begin, write_json
from experiments.verifiers.scores import covered, verified
from thinktime.bench.samples import Pool, Sample, Sampled
from thinktime.planning.architectures import Caps, SearchSpace, Sizes, enumerated, split
from thinktime.strategies.composition.layers import Component, Generate, Layers, Top, Vote

HERE = Path(__file__).parent
MODELS = {
    "main": "qwen2.5-coder-0.5b-instruct",
    "large": "qwen2.5-coder-1.5b-instruct",
    "small": "smollm2-135m-instruct",
}
TASKS = ("gsm8k-program", "humaneval")
P_YES = "p_yes_0.5b"
ORDERS = 20
"""Random orders of the samples of each problem, over which a replay is averaged."""
QUESTION = 200.0
"""Tokens of a prompt, for the record; no cap here counts them."""
CAPS = (1, 2, 4, 8, 12)
"""The most tokens, in samples of the main model."""
MISSING = -1e9
"""Stands for a score that is missing, so that it comes last."""
SEARCHED = 8
"""The cap of the space in which searches are compared."""


@dataclass(frozen=True)
class Task:
    """Problems with the samples of each role, and the scorers that judge them; ``votes`` if answers can be counted."""

    name: str
    pools: Mapping[str, Sequence[Sampled]]
    scorers: tuple[str, ...]
    votes: bool

    @property
    def main(self) -> Pool:
        """The problems with the samples of the main model."""
        return Pool(MODELS["main"], "temperature 0.7", "tokens", tuple(self.pools["main"]))

    def of(self, ids: Sequence[str]) -> Task:
        """The task with these problems alone, in this order."""
        by_id = {role: {problem.id: problem for problem in pool} for role, pool in self.pools.items()}
        return replace(self, pools={role: [found[id] for id in ids] for role, found in by_id.items()})


def tasks() -> tuple[list[Task], list[str]]:
    """The tasks of the committed samples, and the models of which there are none."""
    found, used = [], set()
    for name in TASKS:
        pools: dict[str, Sequence[Sampled]] = {}
        for role, model in MODELS.items():
            for suffix in ("", "-greedy"):
                path = BANKS / model / f"{name}{suffix}{SUFFIX}"
                if path.exists():
                    pools[role + suffix] = judged_pool(path).problems
                    used.add(role)
        ids = [p.id for p in pools["main"] if all(p.id in {q.id for q in pool} for pool in pools.values())]
        functions = name == "humaneval"
        scorers = ("confidence", "likelihood", *(["examples"] if functions else []))
        found.append(Task(name, pools, scorers, votes=not functions).of(ids))
    judged = covered(verified(), P_YES)
    rewarded = [each.scored(P_YES) for each in judged]
    found.append(Task("gsm8k-program, P(yes)", {"main": rewarded}, ("confidence", "likelihood", "p_yes"), votes=True))
    return found, [model for role, model in MODELS.items() if role not in used]


def score(name: str, sample: Sample) -> float:
    """The score of a sample by this scorer."""
    values = {"confidence": confidence, "likelihood": likelihood, "examples": _reward, "p_yes": _reward}
    value = values[name](sample)
    return MISSING if value is None or not np.isfinite(value) else float(value)


def _reward(sample: Sample) -> float | None:
    return sample.reward


def replayed(task: Task, seed: int) -> Replay:
    """The task as arrays, with every problem in `ORDERS` random orders of its samples."""
    rng = np.random.default_rng(seed)
    codes: dict[tuple[str, Any], int] = {}
    samples = {}
    for role, pool in task.pools.items():
        fewest = min(len(problem.samples) for problem in pool)
        rows = []
        for problem in pool:
            for _ in range(ORDERS):
                chosen = [problem.samples[at] for at in rng.permutation(len(problem.samples))[:fewest]]
                rows.append([(problem.id, sample) for sample in chosen])

        def array(of: Any, rows: Any = rows) -> Any:
            return np.array([[of(id, sample) for id, sample in row] for row in rows])

        samples[role] = Candidates(
            array(lambda id, s: UNREADABLE if s.key is None else codes.setdefault((id, s.key), len(codes))),
            array(lambda id, s: s.correct),
            array(lambda id, s: s.ended),
            {name: array(lambda id, s, name=name: score(name, s)) for name in task.scorers},
            array(lambda id, s: float(s.length)),
        )
    return Replay(samples)


def by_problem(values: Floats) -> Floats:
    """The mean of every problem over its orders."""
    return np.asarray(values.reshape(-1, ORDERS).mean(1))


def axes(task: Task) -> dict[str, Sequence[Any]]:
    """The values of every axis: samples of each role, what is kept, and how the answer is chosen."""
    most = {role: min(len(problem.samples) for problem in pool) for role, pool in task.pools.items()}
    kept = [("", 0), *((name, k) for name in task.scorers for k in (1, 2, 4))]
    kept += [("confidence, examples", 1)] if "examples" in task.scorers else []
    counts = {role: (0, 1, 2, 3, 4, 6, 8) if role == "main" else (0, 1, 4) for role in task.pools}
    samples = {role: [n for n in counts[role] if n <= most[role]] for role in task.pools}
    return {**samples, "keep": kept, "vote": ("", "plain", *task.scorers[:1]) if task.votes else ("",)}


def stack(keep: tuple[str, int], vote: str, **samples: int) -> Layers | None:
    """Layers of these values; None if a layer would have nothing to choose from, or nothing would choose."""
    names, k = keep
    drawn = sum(samples.values())
    left = k or drawn
    if drawn == 0 or (k and k >= drawn) or (left == 1) == bool(vote):
        return None
    layers: list[tuple[Component, ...]] = [tuple(Generate(role, n) for role, n in samples.items() if n)]
    *earlier, last = names.split(", ")
    layers += [(Top(name, drawn),) for name in earlier]  # an order for the ties of the last scorer
    layers += [(Top(last, k),)] if last else []
    layers += [(Vote("" if vote == "plain" else vote),)] if vote else []
    return tuple(layers)


def is_baseline(layers: Layers) -> bool:
    """Whether it is one sample, a vote or best-of-n of the main model."""
    first = layers[0]
    plain = len(first) == 1 and isinstance(first[0], Generate) and first[0].model == "main"
    best_of_n = len(layers) == 2 and isinstance(layers[1][0], Top) and layers[1][0].top_k == 1
    vote = len(layers) == 2 and isinstance(layers[1][0], Vote) and not layers[1][0].scorer
    return plain and (len(layers) == 1 or best_of_n or vote)


def measure(task: Task, seed: int) -> dict[str, Any]:
    """Architectures of every cap on both halves, and what searches find."""
    halves = [[problem.id for problem in part.problems] for part in split(task.main, 0.5, seed)]
    parts = [task.of(ids) for ids in halves]
    replays = [replayed(part, seed) for part in parts]
    tokens = fmean(sample.length for problem in task.main.problems for sample in problem.samples)
    sizes = Sizes(QUESTION, tokens)
    everything = enumerated(axes(task), stack, sizes)
    ran_once = [{layers: replay(layers) for layers in everything.layers} for replay in replays]
    rows, searches = {}, {}
    for cap in CAPS:
        space = enumerated(axes(task), stack, sizes, Caps(out_tokens=cap * tokens * 1.001))
        ran = [[of[layers] for layers in space.layers] for of in ran_once]
        right = [[by_problem(each.right) for each in of] for of in ran]
        scores = [[float(each.mean()) for each in of] for of in right]
        rows[str(cap)] = _row(space, ran, right, scores)
        if cap == SEARCHED:
            searches = compared(space, scores[0])
    both = np.concatenate([_one(replay, "main") for replay in replays])
    result = {
        "n_problems": len(task.main.problems),
        "roles": {role: len(pool[0].samples) for role, pool in task.pools.items()},
        "cut": {role: sum(not s.ended for p in pool for s in p.samples) for role, pool in task.pools.items()},
        "unreadable": {role: sum(s.key is None for p in pool for s in p.samples) for role, pool in task.pools.items()},
        "tokens_of_a_sample": tokens,
        "one_sample": mean(both),
        "caps": rows,
        "searches": searches,
    }
    greedy = [role for role in task.pools if role.endswith("-greedy")]
    return result | {role: mean(np.concatenate([_one(replay, role) for replay in replays])) for role in greedy}


def _one(replay: Replay, role: str) -> Floats:
    return by_problem(replay(((Generate(role),),)).right)


def _row(space: SearchSpace, ran: Any, right: Any, scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What is chosen on each half, measured on the other one; values over all problems."""
    simple = [place for place, layers in enumerate(space.layers) if is_baseline(layers)]
    votes = [place for place in simple if isinstance(space.layers[place][-1][0], Vote)]
    greedy = [place for place in range(len(space.layers)) if _is_greedy(space.layers[place])]
    chosen = [best(space, of) for of in scores]
    fixed = [max(simple, key=lambda place: (round(of[place], 9), -space.costs[place].calls)) for of in scores]
    places = {"chosen": chosen, "best_simple": fixed}
    places |= {"largest_vote": [max(votes, key=lambda place: space.costs[place].calls)] * 2} if votes else {}
    places |= {"greedy": greedy * 2} if greedy else {}

    def held_out(name: str) -> Floats:
        return np.concatenate([right[1][places[name][0]], right[0][places[name][1]]])

    def spent(name: str) -> float:
        return float(np.concatenate([ran[1][places[name][0]].tokens, ran[0][places[name][1]].tokens]).mean())

    return {
        "architectures": len(space.points),
        **{
            name: {
                "values": [space.values(place) for place in at],
                "held_out": mean(held_out(name)),
                "tokens": spent(name),
                "chosen_minus_this": difference(held_out("chosen"), held_out(name)),
            }
            for name, at in places.items()
        },
        "chosen_on_dev": mean(np.concatenate([right[0][chosen[0]], right[1][chosen[1]]])),
    }


def _is_greedy(layers: Layers) -> bool:
    return layers == ((Generate("main-greedy"),),)


def plot(result: Mapping[str, Any], path: Path) -> None:
    """A panel a task: held-out accuracy against tokens."""
    figure, each = panels(len(result["tasks"]), 5.2 * len(result["tasks"]), 4.6)
    names = {"chosen": "chosen architecture", "best_simple": "best vote or best-of-n", "largest_vote": "vote"}
    for axes_, (task, of) in zip(each, result["tasks"].items(), strict=True):
        for colour, (name, label) in enumerate(names.items(), 1):
            rows = [row[name] for row in of["caps"].values() if name in row]
            if rows:
                line(axes_, [row["tokens"] for row in rows], [row["held_out"] for row in rows], colour, label)
        if "main-greedy" in of:
            y, whiskers = bars([of["main-greedy"]])
            label = "one sample, temperature 0"
            axes_.errorbar([of["tokens_of_a_sample"]], y, whiskers, fmt="*", ms=11, color=COLOURS[4], label=label)
        logarithmic(axes_, "generated tokens a problem")
        axes_.set_title(f"{task}: {of['n_problems']} problems")
    each[0].set_ylabel("right on problems that did not choose, %")
    legend_below(figure, each[0], 4)
    save(figure, path, (0, 0.08, 1, 1))


def main() -> None:
    args, made = begin(HERE, __doc__, "real", "real.json")
    found, missing = tasks()
    measured = {}
    for task in found:
        measured[task.name] = of = measure(task, args.seed)
        print(f"{task.name}: {of['n_problems']} problems, one sample {as_percent(of['one_sample'])}")
        for cap, row in of["caps"].items():
            gain = as_points(row["best_simple"]["chosen_minus_this"])
            print(f"  {cap}: {as_percent(row['chosen']['held_out'])}, minus the best simple one {gain}")
            print(f"    {row['chosen']['values']}")
    result = made | {"without_samples": missing, "orders": ORDERS, "tasks": measured}
    write_json(args.out / "real.json", result)
    plot(result, args.out / "real.png")


if __name__ == "__main__":
    main()
