"""The replay of architectures in experiments.archon gives what the strategy gives on the same samples."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from experiments.archon.control import SKILLS, WORLDS, World, critical, fused
from experiments.archon.control import stack as constructed
from experiments.archon.real import stack, tasks
from experiments.archon.replay import UNREADABLE, Candidates, Replay
from thinktime.core.errors import InputError
from thinktime.core.search import Search
from thinktime.core.types import Extension, Node, Problem, Sampling
from thinktime.planning.architectures import Sizes, enumerated
from thinktime.strategies.composition.archon import Archon
from thinktime.strategies.composition.layers import Critique, Fuse, Generate, Layers, Top, Vote
from thinktime.testing import ANSWERS, Piece, WordGenerator, WordScorer

PROBLEMS, EACH = 20, 4
ROLES = ("main", "small")


def samples(seed: int) -> dict[str, Candidates]:
    """Random samples of two models, some of them cut or unreadable, with scores that tie."""
    rng = np.random.default_rng(seed)
    shape = (PROBLEMS, EACH)
    found = {}
    for role in ROLES:
        answers = rng.integers(-1, 4, shape)
        scores = {"main": rng.integers(0, 3, shape) / 2, "other": rng.random(shape)}
        found[role] = Candidates(answers, answers == 0, rng.random(shape) < 0.8, scores, np.full(shape, 2.0))
    return found


def by_strategy(layers: Layers, pool: dict[str, Candidates], problem: int) -> bool:
    """Whether the strategy solves a problem, with models that say what was sampled."""

    def model(role: str) -> WordGenerator:
        mine = pool[role]

        def say(extension: Extension) -> Piece:
            at = problem, extension.index
            answer = "?" if mine.answers[at] == UNREADABLE else str(mine.answers[at])
            return Piece(f"{role}{extension.index} {answer}", "eos" if mine.there[at] else "length")

        return WordGenerator(say, name=role)

    def scorer(name: str) -> WordScorer:
        def judge(node: Node) -> float:
            word = node.state.text.split()[0]
            return float(pool[word[:-1]].scores[name][problem, int(word[-1])])

        return WordScorer(judge, name=name)

    search = Search(
        Problem(str(problem), "recorded"),
        {role: model(role) for role in ROLES},
        scorers={name: scorer(name) for name in ("main", "other")},
        answers=ANSWERS,
        sampling=Sampling(max_length=9),
    )
    return asyncio.run(Archon(layers=layers)(search)).value == "0"


@pytest.mark.parametrize(
    "layers",
    [
        ((Generate(),),),
        ((Generate(samples=4), Generate("small", 2)), (Vote(),)),
        ((Generate(samples=3),), (Vote("other"),)),
        ((Generate(samples=4),), (Top("main", 2),), (Vote(),)),
        ((Generate(samples=2), Generate("small", 4)), (Top("other", 6),), (Top("main", 1),)),
    ],
)
def test_a_replay_answers_as_the_strategy_does(layers: Layers) -> None:
    pool = samples(1)
    replayed = Replay(pool)(layers)
    assert replayed.right.tolist() == [by_strategy(layers, pool, problem) for problem in range(PROBLEMS)]
    drawn = sum(each.samples for each in layers[0] if isinstance(each, Generate))
    assert set(replayed.tokens) == {2.0 * drawn}


def test_layers_and_samples_that_are_not_recorded_are_refused() -> None:
    replay = Replay(samples(0))
    with pytest.raises(InputError, match="layer 1='critique': no replies to it are recorded"):
        replay(((Generate(samples=2),), (Critique(),), (Fuse(),)))
    with pytest.raises(InputError, match=r"main\.samples=5: the bank has 4 of each problem"):
        replay(((Generate(samples=5),), (Vote(),)))


# The constructed world


def test_the_dials_of_a_fuser_by_hand() -> None:
    strong = WORLDS["fuser"]
    # odds of 1 to 3 become 4 to 3, times the fidelity
    assert fused(strong, np.array([0.0, 0.25, 1.0])) == pytest.approx([0.05, 0.98 * 4 / 7, 0.98])
    assert critical(WORLDS["ranker"]).auc == pytest.approx(0.93) and critical(WORLDS["neither"]).auc == 0.5


def test_the_constructed_samples_have_the_skills_of_their_models() -> None:
    world = World(WORLDS["neither"], 4000, 0)
    rates = [world(((Generate(role),),)).right.mean() for role in SKILLS]
    assert rates[0] > rates[1] > rates[3] and rates[0] == pytest.approx(0.375, abs=0.03)


def test_in_each_world_the_kind_of_layer_that_is_good_there_wins() -> None:
    vote, rank, fuse = (
        constructed(4, 4, critic=bool(rank or fusers), rank=rank, fusers=fusers, vote=not (rank or fusers))
        for rank, fusers in ((0, ()), (1, ()), (0, (4, 1)))
    )
    for name, best in (("ranker", rank), ("fuser", fuse), ("neither", vote)):
        world = World(WORLDS[name], 300, 0)
        right = {layers: world(layers).right.mean() for layers in (vote, rank, fuse) if layers is not None}
        assert max(right, key=lambda layers: right[layers]) == best


def test_architectures_that_leave_no_choice_are_no_points() -> None:
    assert constructed(1, 1, False, 1, (), False) is None and constructed(1, 4, False, 0, (), False) is None
    assert constructed(1, 1, False, 0, (), False) == ((Generate("main", 1),),)
    assert stack(("", 0), "plain", main=1) is None and stack(("confidence", 4), "", main=4) is None
    assert stack(("confidence, examples", 1), "", main=3) == (
        (Generate("main", 3),),
        (Top("confidence", 3),),
        (Top("examples", 1),),
    )


def test_the_committed_samples_make_three_tasks() -> None:
    found, _ = tasks()
    assert [task.name for task in found] == ["gsm8k-program", "humaneval", "gsm8k-program, P(yes)"]
    for task in found:
        assert len({len(pool) for pool in task.pools.values()}) == 1
    few = enumerated({"main": (0, 1, 2), "keep": (("", 0),), "vote": ("", "plain")}, stack, Sizes(9, 9))
    assert [space[0] for space in few.layers] == [(Generate(samples=1),), (Generate(samples=2),)]
