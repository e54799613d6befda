"""Row 29, positive control: layers of known quality, so that the best kind of architecture is known.

    python -m experiments.archon.control      # two minutes; needs pip install 'thinktime[search]'

Four models differ in skill, and each is good at other problems. Their wrong answers agree on one attractive answer in
six of ten cases. A ranker orders candidates with a chosen AUC, which a critic raises. A fuser multiplies the odds of
the right candidates that it reads by a chosen factor. All architectures of a space within
a cap on calls are evaluated once, so the optimum is known; then each search has the same number of evaluations. Writes
``control.json`` and ``control.png``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from experiments.archon.choosing import best, compared
from experiments.archon.replay import Candidates, Floats, Replay
from experiments.constructed import shift
from experiments.intervals import as_points, difference, mean
from experiments.plot import line, panels, save
from experiments.provenance import begin, write_json
from thinktime.core.search import Search
from thinktime.core.types import Capability, Extension, Problem, Sampling
from thinktime.generators.text import Text
from thinktime.planning.architectures import Caps, SearchSpace, Sizes, enumerated
from thinktime.prompts.layers import CRITIQUE, FUSE, RANK
from thinktime.strategies.composition.archon import Archon
from thinktime.strategies.composition.layers import Component, Critique, Fuse, Generate, Layers, Rank, Vote
from thinktime.testing import ANSWERS, Piece, WordGenerator

HERE = Path(__file__).parent
SKILLS = {"main": 0.05, "b": 0.0, "c": 0.0, "d": -0.1}
"""What each model adds to the chance that a sample of a problem is right; the order is that of their skill."""
APTITUDE = 0.15
"""The deviation of what a model adds to the chance on one problem."""
EACH = 6
RARE = 8
"""Rare wrong answers."""
CRITIC = 0.3
"""A critic takes this share of the way from the ranker's AUC to 1, and adds it to the power of the fuser's lift."""
SIZES = Sizes(question=100, answer=60, critique=40, ranking=20)
CALLS = 20


@dataclass(frozen=True)
class Dials:
    """How good the layers are.

    Args:
        auc: how often the ranker prefers a right candidate to a wrong one.
        fidelity: the chance that the fuser is right if all that it reads is.
        lift: factor of the odds of right candidates; 1 copies a candidate at random.
        repair: the chance that it is right if none that it reads is.
    """

    auc: float = 0.5
    fidelity: float = 0.6
    lift: float = 1.0
    repair: float = 0.0


WORLDS = {
    "ranker": Dials(auc=0.9),
    "fuser": Dials(fidelity=0.98, lift=4.0, repair=0.05),
    "both": Dials(auc=0.7, fidelity=0.98, lift=3.0, repair=0.05),
    "neither": Dials(),
}
"""In each one kind of architecture has to win: one that ranks, one that fuses, one that does both, a vote."""


def critical(dials: Dials) -> Dials:
    """The dials of a ranker and a fuser that read critiques."""
    auc = dials.auc + CRITIC * (1 - dials.auc) if dials.auc > 0.5 else dials.auc  # a critic at chance says nothing
    return replace(dials, auc=auc, lift=dials.lift ** (1 + CRITIC))


def fused(dials: Dials, share: Any) -> Any:
    """The chance that a fuser is right that reads this share of right candidates."""
    lifted = dials.lift * share / (dials.lift * share + 1 - share)
    return np.where(share > 0, dials.fidelity * lifted, dials.repair)


class World(Replay):
    """Constructed samples, and layers that reply by the dials.

    Args:
        dials: the quality of the layers.
        problems: how many.
        seed: of all that is drawn.
        models: the first so many.
    """

    def __init__(self, dials: Dials, problems: int, seed: int, models: int = len(SKILLS)) -> None:
        self.dials, self.seed = dials, seed
        rng = np.random.default_rng([seed, 1])
        easy = rng.uniform(0.05, 0.6, problems)
        samples = {}
        for role, skill in list(SKILLS.items())[:models]:
            chance = np.clip(easy + skill + APTITUDE * rng.standard_normal(problems), 0.01, 0.99)
            right = rng.random((problems, EACH)) < chance[:, None]
            wrong = np.where(rng.random((problems, EACH)) < 0.6, 1, 2 + rng.integers(0, RARE, (problems, EACH)))
            samples[role] = self._candidates(np.where(right, 0, wrong), rng.standard_normal((problems, EACH)))
        super().__init__(samples)
        self._critical = False

    @staticmethod
    def _candidates(answers: Any, noise: Floats) -> Candidates:
        there = np.ones(answers.shape, bool)
        return Candidates(answers, answers == 0, there, {"noise": noise}, np.full(answers.shape, SIZES.answer))

    def layer(self, place: int, layer: tuple[Component, ...], state: Candidates) -> tuple[Candidates, Floats]:
        """Rankers, critics and fusers by the dials, the other layers as in a replay."""
        component, problems = layer[0], len(state.answers)
        dials = critical(self.dials) if self._critical else self.dials
        if isinstance(component, Critique):
            self._critical = True
            return state, np.full(problems, state.answers.shape[1] * SIZES.critique)
        if isinstance(component, Rank):
            order = np.argsort(-(state.scores["noise"] + shift(dials.auc) * state.right), 1, kind="stable")
            return state.take(order[:, : component.top_k]), np.full(problems, SIZES.ranking)
        if isinstance(component, Fuse):
            self._critical = False
            rng = np.random.default_rng([self.seed, 2, place])
            right = rng.random((problems, len(layer))) < fused(dials, state.right.mean(1))[:, None]
            written = self._candidates(np.where(right, 0, 1), rng.standard_normal(right.shape))
            return written, np.full(problems, len(layer) * SIZES.answer)
        return super().layer(place, layer, state)

    def __call__(self, layers: Layers) -> Any:
        """Run an architecture on all problems."""
        self._critical = False
        return super().__call__(layers)


AXES: dict[str, Sequence[Any]] = {
    "models": (1, 2, 3, 4),
    "samples": (1, 2, 4, EACH),
    "critic": (False, True),
    "rank": (0, 1, 2, 4),
    "fusers": ((), (1,), (2, 1), (4, 1)),
    "vote": (False, True),
}


def stack(models: int, samples: int, critic: bool, rank: int, fusers: tuple[int, ...], vote: bool) -> Layers | None:
    """Layers of these sizes; None if a layer would have nothing to choose from, or nothing would choose."""
    left, drawn = rank or models * samples, models * samples
    if rank >= drawn or (drawn > 1 and not (rank == 1 or fusers or vote)):
        return None
    if vote and (fusers or left == 1):
        return None
    layers: list[tuple[Component, ...]] = [tuple(Generate(role, samples) for role in list(SKILLS)[:models])]
    layers += [(Critique(),)] if critic else []
    layers += [(Rank(top_k=rank),)] if rank else []
    layers += [(Fuse(),) * width for width in fusers]
    return (*layers, (Vote(),)) if vote else tuple(layers)


def kind(layers: Layers) -> str:
    """What chooses or writes the answer of an architecture."""
    kinds = {layer[0].kind for layer in layers}
    return next((each for each in ("fuse", "rank", "vote") if each in kinds), "one call")


def measured(dials: Dials, problems: int, models: int = len(SKILLS)) -> tuple[dict[str, Any], SearchSpace, list[float]]:
    """The best architecture on one half of the problems, measured on the other, beside one call and a vote."""
    axes = AXES | {"models": AXES["models"][:models]}
    space = enumerated(axes, stack, SIZES, Caps(calls=CALLS))
    dev, test = (World(dials, problems, seed, models) for seed in (0, 1))
    scores = [float(dev(layers).right.mean()) for layers in space.layers]
    chosen = best(space, scores)
    votes = [place for place, layers in enumerate(space.layers) if kind(layers) == "vote" and len(layers) == 2]
    vote = max(votes, key=lambda place: (scores[place], -space.costs[place].calls))
    right = {
        name: test(layers).right for name, layers in (("chosen", space.layers[chosen]), ("vote", space.layers[vote]))
    }
    one = test(((Generate(),),)).right
    return (
        {
            "dials": vars(dials),
            "architectures": len(space.points),
            "chosen": {
                "values": space.values(chosen),
                "kind": kind(space.layers[chosen]),
                "cost": vars(space.costs[chosen]),
            },
            "on_dev": mean(dev(space.layers[chosen]).right),
            "held_out": mean(right["chosen"]),
            "one_call": mean(one),
            "minus_one_call": difference(right["chosen"], one),
            "best_vote": space.values(vote) | {"held_out": mean(right["vote"])},
            "minus_best_vote": difference(right["chosen"], right["vote"]),
        },
        space,
        scores,
    )


# The same layers in the real executor


def executed(layers: Layers, dials: Dials, name: str) -> bool:
    """Whether the strategy solves a constructed problem, with a model that replies by the dials."""
    rng = Random(f"{name}/easy")
    easy = rng.uniform(0.05, 0.6)

    def share(states: Sequence[Text]) -> float:
        return sum(state.text.endswith(" 0") for state in states) / len(states)

    def fuse(problem: Problem, about: Sequence[Text], said: Sequence[Text]) -> str:
        return f"fuse {float(fused(critical(dials) if said else dials, np.float64(share(about))))}"

    def rank(problem: Problem, about: Sequence[Text], said: Sequence[Text]) -> str:
        raised = shift((critical(dials) if said else dials).auc)
        keys = [Random(state.text).gauss(0, 1) + raised * state.text.endswith(" 0") for state in about]
        order = sorted(range(len(keys)), key=lambda place: -keys[place])
        return "rank " + " > ".join(f"[{place + 1}]" for place in order)

    prompts = {
        "fuse": replace(FUSE, render=fuse),
        "rank": replace(RANK, render=rank),
        "critique": replace(CRITIQUE, render=lambda problem, about, said: "critique"),
    }
    models = {role: _Words(role, easy + skill + APTITUDE * rng.gauss(0, 1)) for role, skill in SKILLS.items()}
    problem = Problem(name, "constructed")
    search_ = Search(problem, models, answers=ANSWERS, prompts=prompts, sampling=Sampling(max_length=99))
    return asyncio.run(Archon(layers=layers)(search_)).value == "0"


class _Words(WordGenerator):
    """A model that answers the question with its own skill, and prompts as they say."""

    capabilities = WordGenerator.capabilities | {Capability.CHAT}

    def __init__(self, name: str, success: float) -> None:
        self._asked: dict[Any, str] = {}

        def say(extension: Extension) -> Piece:
            asked, rng = self._asked[extension.node.state.prompt], Random(extension.key)
            mark = f"s{rng.getrandbits(40)}"
            if asked.startswith("rank"):
                return Piece(asked, "eos")
            if asked == "critique":
                return Piece("### Critique 1\nfine", "eos")
            chance = float(asked.split()[1]) if asked.startswith("fuse") else min(max(success, 0.01), 0.99)
            if rng.random() < chance:
                return Piece(f"{mark} 0", "eos")
            attractive = asked.startswith("fuse") or rng.random() < 0.6
            return Piece(f"{mark} {1 if attractive else 2 + rng.randrange(RARE)}", "eos")

        super().__init__(say, name=name)

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
        """The words, which are remembered by their ids."""
        root = super().root(problem, known, quotes=quotes)
        self._asked[root.prompt] = str(problem.prompt)
        return root


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Gain over one call against the AUC of the ranker and the number of models; and what the searches find."""
    figure, (left, middle, right) = panels(3, 15, 4.4)
    for colour, (name, rows) in enumerate(result["map"]["auc"].items(), 1):
        line(left, map(float, rows), [row["minus_one_call"] for row in rows.values()], colour, name)
    left.set(xlabel="AUC of the ranker", ylabel="points over one call, held-out problems", title="best architecture")
    for colour, (name, rows) in enumerate(result["map"]["models"].items(), 1):
        line(middle, map(int, rows), [row["minus_one_call"] for row in rows.values()], colour, name)
    middle.set(xlabel="models that may generate", title=f"at most {CALLS} calls", xticks=[1, 2, 3, 4])
    for colour, (method, row) in enumerate(result["worlds"]["both"]["searches"].items(), 1):
        line(right, map(int, row["gap"]), row["gap"].values(), colour, method)
    right.set(xlabel="evaluations", ylabel="points below the optimum", title="searches, world where both are good")
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
    save(figure, path)


def main() -> None:
    args, made = begin(HERE, __doc__, "control", "control.json", problems=400)
    worlds: dict[str, Any] = {}
    for name, dials in WORLDS.items():
        row, space, scores = measured(dials, args.problems)
        print(
            f"{name}: {row['chosen']['values']} {as_points(row['minus_one_call'])} {as_points(row['minus_best_vote'])}"
        )
        layers = space.layers[best(space, scores)]
        ran = [float(executed(layers, dials, f"problem {place}")) for place in range(args.problems)]
        row["executed"] = mean(ran)
        worlds[name] = row | {"searches": compared(space, scores)}
    fusers = {"a fuser that copies at random": Dials(), "a strong fuser": WORLDS["fuser"]}
    aucs = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    by_auc = {
        name: {str(auc): measured(replace(dials, auc=auc), args.problems)[0] for auc in aucs}
        for name, dials in fusers.items()
    }
    by_models = {
        name: {str(n): measured(dials, args.problems, n)[0] for n in AXES["models"]} for name, dials in WORLDS.items()
    }
    result = made | {"n_problems": args.problems, "worlds": worlds, "map": {"auc": by_auc, "models": by_models}}
    write_json(args.out / "control.json", result)
    plot(result, args.out / "control.png")


if __name__ == "__main__":
    main()
