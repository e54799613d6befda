"""Steering on chains with a known target: the particle filter and the tree converge to it, and known bugs do not."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from math import exp, log
from random import Random
from statistics import fmean

import pytest
from toy import ToyGenerator, ToyScorer, done, solve, step, texts, toy_search

from thinktime.core.errors import InputError
from thinktime.core.particles import normalised
from thinktime.core.search import Search
from thinktime.core.types import Child, Extension, Problem, Sampling
from thinktime.core.usage import Budget, Usage
from thinktime.strategies.diffusion.dts import DTS
from thinktime.strategies.diffusion.fk_steering import FKSteering
from thinktime.strategies.search.particle_filter import Particle
from thinktime.testing.chains import Chain, ChainGenerator, ChainScorer, Path, descents, total_variation

WALK = Chain(((0.3, -1.0, 0.8), (1.5, 0.2, -0.5), (-0.4, 1.2, 0.1), (0.0, 1.0, 2.0)), stay=0.8)
"""Four steps of three states; intermediate rewards say little about the last one."""


def filtered(
    strategy: FKSteering, runs: int, generator: type[ChainGenerator] = ChainGenerator, last: int = 1
) -> dict[Path, float]:
    """The weighted distribution of the ``last`` states over many runs."""
    law: Counter[Path] = Counter()

    async def run(seed: int) -> None:
        scorers = ChainScorer(WALK)
        sampling = Sampling(max_length=WALK.levels)
        search = Search(Problem("chain", "walk"), generator(WALK), scorers=scorers, sampling=sampling, seed=seed)
        population = await strategy.filter(search)
        for particle, weight in zip(population, normalised([p.log_weight for p in population]), strict=True):
            law[particle.node.state[-last:]] += weight / runs  # type: ignore[assignment]

    async def all_runs() -> None:
        for seed in range(runs):
            await run(seed)

    asyncio.run(all_runs())
    return dict(law)


def last_states(law: dict[Path, float], last: int = 1) -> dict[Path, float]:
    found: Counter[Path] = Counter()
    for path, probability in law.items():
        found[path[-last:]] += probability  # type: ignore[assignment]
    return dict(found)


def steering(potential: str, k: int) -> FKSteering:
    return FKSteering(n=k, potential=potential, factor=1.0, ess=0.9, start=0, every=1)


@pytest.mark.parametrize("potential", ["diff", "max", "is"])
def test_the_filter_converges_to_the_tilted_law_with_more_particles(potential: str) -> None:
    exact = last_states(WALK.tilted(1.0))
    few = total_variation(filtered(steering(potential, 4), 150), exact)
    many = total_variation(filtered(steering(potential, 256), 16), exact)
    assert many < 0.02
    assert many < few


@pytest.mark.parametrize("resampler", ["stratified", "multinomial"])
def test_every_resampler_gives_the_tilted_law(resampler: str) -> None:
    exact = last_states(WALK.tilted(1.0))
    assert total_variation(filtered(replace(steering("diff", 256), resampler=resampler), 16), exact) < 0.03


class Guided(ChainGenerator):
    """Draws every state with equal probability; ``log_weight`` corrects to the chain's own distribution."""

    weighs = True

    def _child(self, extension: Extension) -> Child:
        assert extension.until == "step"
        before, n = extension.node.state, self.chain.states
        state = (*before, Random(extension.key).randrange(n))
        log_weight = log(self.chain.probability(before, state[-1]) * n) if self.weighs else 0.0
        usage, done = Usage(denoiser_calls=1, model_calls=1), len(state) == self.chain.levels
        return Child(state, "eos" if done else "step", usage, 1, length=1, log_weight=log_weight)


def test_a_proposal_from_another_law_gives_the_tilted_law_by_its_weights() -> None:
    exact = last_states(WALK.tilted(1.0), 2)
    assert total_variation(filtered(steering("is", 256), 16, Guided, 2), exact) < 0.04
    assert total_variation(filtered(steering("diff", 256), 16, Guided, 2), exact) < 0.08


def test_a_proposal_without_its_weights_does_not_give_the_tilted_law() -> None:
    class Silent(Guided):
        weighs = False

    exact = last_states(WALK.tilted(1.0), 2)
    assert total_variation(filtered(steering("diff", 256), 16, Silent, 2), exact) > 0.4


def test_particles_scored_by_roll_outs_give_the_same_law() -> None:
    exact = last_states(WALK.tilted(1.0))
    strategy = replace(steering("diff", 128), rollouts=2)
    assert total_variation(filtered(strategy, 12), exact) < 0.04
    search = WALK.search(0)
    asyncio.run(strategy.filter(search))
    partial = [record for record in search.trace.values() if record.node.finish == "step"]
    assert partial and all(record.score is None for record in partial)


def warnings(strategy: FKSteering | DTS, chain: Chain = WALK) -> list[str]:
    search = chain.search(0)
    asyncio.run(strategy(search))
    return [event["warning"] for event in search.events if "warning" in event]


def test_a_factor_that_collapses_the_weights_gives_a_warning() -> None:
    (warning,) = warnings(replace(steering("diff", 8), factor=1000.0))
    assert "one particle had all the weight at" in warning and "lower factor=1000" in warning
    assert warnings(steering("diff", 8)) == []


def test_a_schedule_without_a_scored_step_gives_a_warning() -> None:
    (warning,) = warnings(replace(steering("diff", 4), start=4))
    assert warning == "no step is scored before the end with start=4, every=1: this is importance sampling"
    assert warnings(replace(steering("is", 4), start=4)) == []


def test_a_tree_with_one_end_gives_a_warning() -> None:
    assert warnings(DTS(n=1, variant="sample")) == ["the tree has 1 end; every sample of it would be the same"]
    assert warnings(DTS(n=1)) == []


@dataclass(frozen=True)
class Forgetful(FKSteering):
    """Drops the weights if the population was not resampled."""

    def _weighed(self, particle: Particle, *rest: object) -> Particle:
        return super()._weighed(replace(particle, log_weight=0.0), *rest)  # type: ignore[arg-type]


@dataclass(frozen=True)
class NeverCorrects(FKSteering):
    """The last potential does not correct the product to the reward of the result."""

    def _weighed(self, particle: Particle, *rest: object) -> Particle:
        weighed = super()._weighed(particle, *rest)  # type: ignore[arg-type]
        gained = max(weighed.rewards)
        return replace(weighed, log_weight=particle.log_weight + gained)


@pytest.mark.parametrize(("wrong", "potential"), [(Forgetful, "diff"), (NeverCorrects, "max")])
def test_more_particles_do_not_correct_two_known_bugs(wrong: type[FKSteering], potential: str) -> None:
    exact = last_states(WALK.tilted(1.0))
    strategy = wrong(n=256, potential=potential, factor=1.0, ess=0.5, start=0, every=1)
    assert total_variation(filtered(strategy, 8), exact) > 0.05


def tree_error(rounds: int, backup: str, chains: int = 6) -> float:
    """Mean total variation between draws of the tree and the tilted law, over random chains."""
    strategy = DTS(n=rounds, variant="sample", factor=3.0, backup=backup)
    found = []
    for seed in range(chains):
        chain = Chain.drawn(seed, levels=3)
        tree = asyncio.run(strategy.grow(chain.search(seed)))
        found.append(total_variation(descents(tree, 3.0), chain.tilted(3.0)))
    return fmean(found)


def test_draws_of_the_tree_converge_to_the_tilted_law_except_with_sums() -> None:
    errors = [tree_error(rounds, "mean") for rounds in (10, 100, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.16
    assert tree_error(1000, "sum") > errors[-1] + 0.08


def test_a_draw_follows_the_values_of_the_tree() -> None:
    chain = Chain.drawn(1, levels=3)
    tree = asyncio.run(DTS(n=50, variant="sample", factor=3.0).grow(chain.search(1)))
    rng = Random(0)
    drawn = Counter(tree.draw(3.0, rng).node.state for _ in range(4000))
    assert total_variation({path: n / 4000 for path, n in drawn.items()}, descents(tree, 3.0)) < 0.05


def test_a_value_is_the_soft_mean_of_its_children() -> None:
    tree = DTS(factor=2.0)
    assert tree._value([1.0, 1.0, 1.0]) == pytest.approx(1.0)
    assert tree._value([0.0, 1.0]) == pytest.approx(0.7168, abs=1e-4)  # log((1 + e^2) / 2) / 2
    assert replace(tree, backup="sum")._value([1.0, 1.0]) == pytest.approx(1 + 0.3466, abs=1e-4)
    assert replace(tree, backup="max")._value([0.0, -3.0]) == 0.0


def test_a_tree_widens_and_descends_by_the_bounds_of_the_paper() -> None:
    """A node with N visits has at most sqrt(N) children, rounded up.

    1. The root gets a, and the end of a has .2.
    2. The root and a have one visit and one child each, so the walk ends at the end of a.
    3. The root has two visits, so it gets b. The end of b has .6.
    4. The bounds are .2 + sqrt(log 3 / 2) = .94 for a and .6 + sqrt(log 3) = 1.65 for b: the walk ends at the end of b.
    5. The bounds are .2 + sqrt(log 4 / 2) and .6 + sqrt(log 4 / 2). b has two visits, so it gets another end, with .1.
    """
    tree = {"0": step("a"), "0/0": done("is 5"), "1": step("b"), "1/0": done("is 7"), "1/1": done("is 9")}
    scores = {"0/0": 0.2, "1/0": 0.6, "1/1": 0.1}
    search = toy_search(generator := ToyGenerator(tree), scorer := ToyScorer(scores))
    answer = solve(DTS(n=5), search)
    assert [[extension.node.path for extension in batch] for batch in generator.asked] == [
        *([()], [(0,)], [()], [(1,)], [(1,)])
    ]
    assert [texts(batch) for batch in scorer.asked] == [["a is 5"], ["b is 7"], ["b is 9"]]
    b = (exp(0.6) + exp(0.1)) / 2
    assert search.events == [
        {"ends": 3, "best": (1, 0), "greedy": (1, 0), "root": pytest.approx(log((exp(0.2) + b) / 2))}
    ]
    assert (answer.value, answer.finish) == ("7", "done")


def test_a_tree_explores_by_the_given_weight() -> None:
    """After three rounds a has .6 and two visits, b has .2 and one visit. The bounds are .6 + .74 w and .2 + 1.05 w, so
    the fourth round goes to b if w is above 1.3. There it ends; in a it samples another end."""
    tree = {"0": step("a"), "1": step("b"), **{f"{i}/{j}": done("is 7") for i in range(2) for j in range(2)}}
    for explore, visits, calls in ((1.2, [4, 3, 1], 5), (1.4, [4, 2, 2], 4)):
        search = toy_search(generator := ToyGenerator(tree), dict.fromkeys(tree, 0.6) | {"1/0": 0.2})
        grown = asyncio.run(DTS(n=4, explore=explore).grow(search))
        assert [branch.visits for branch in (grown, *grown.children)] == visits
        assert len(generator.asked) == calls


def test_an_end_without_a_reward_is_logged_and_has_no_value() -> None:
    tree = {"0": step("a"), "0/0": done("is 5"), "1": done("is 7")}
    search = toy_search(tree, {"0/0": None, "1": 0.3})
    assert solve(DTS(n=2), search).value == "7"
    assert search.events == [{"missing": (0, 0)}, {"ends": 1, "best": (1,), "greedy": (1,), "root": pytest.approx(0.3)}]


def test_the_greedy_tree_answers_with_its_best_end() -> None:
    chain = Chain.drawn(3, levels=4)
    search = chain.search(0)
    answer = asyncio.run(DTS(n=30)(search))
    assert answer.node is not None
    seen = [record.score for record in search.trace.values() if record.score is not None]
    assert search.trace[answer.node.key].score == max(seen)


@pytest.mark.parametrize("walks", [1, 4])
def test_a_tree_pays_for_its_nodes_and_stops_with_its_budget(walks: int) -> None:
    chain = Chain.drawn(5, levels=5)
    search = chain.search(0, Budget(nfe=42))
    tree = asyncio.run(DTS(n=100, walks=walks).grow(search))
    grown = [record.node for record in search.trace.values() if record.node.parent is not None]
    assert search.ledger.spent.denoiser_calls == len(grown) <= 42
    assert search.exhausted
    assert len(list(tree.leaves())) >= 8


def test_a_round_that_ends_at_a_finished_picture_costs_nothing() -> None:
    chain = Chain(((0.0,), (1.0,)), stay=1.0)
    search = chain.search(0)
    tree = asyncio.run(DTS(n=6, widen=0.1, alpha=0.1).grow(search))
    assert search.ledger.spent.denoiser_calls == 2
    assert tree.visits == 6


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (lambda: DTS(alpha=1.0), "alpha"),
        (lambda: DTS(alpha=0.0), "alpha"),
        (lambda: DTS(factor=0), "factor"),
        (lambda: DTS(explore=-1), "explore"),
        (lambda: DTS(n=0), "n"),
        (lambda: DTS(variant="dts"), "variant"),
        (lambda: FKSteering(n=1), "n"),
        (lambda: FKSteering(every=0), "every"),
        (lambda: FKSteering(factor=-1), "factor"),
        (lambda: FKSteering(potential="min"), "potential"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(wrong: object, field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}="):
        wrong()  # type: ignore[operator]
