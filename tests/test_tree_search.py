"""Searches over steps, on trees small enough to work out by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count, pairwise, product
from math import inf, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult
from toy import (
    DOLLARS,
    FakeClock,
    Piece,
    ToyGenerator,
    ToyScorer,
    done,
    drawn,
    drawn_score,
    extend,
    score,
    solve,
    step,
    texts,
    toy_search,
    unhurried,
)

from thinktime.core.allocation import shares
from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.particles import (
    POTENTIALS,
    RESAMPLERS,
    effective_size,
    log_odds,
    log_potential,
    normalised,
    systematic,
)
from thinktime.core.search import Search
from thinktime.core.selection import ranked
from thinktime.core.types import Capability, Embedding, Extension, Node
from thinktime.core.usage import Budget, Usage, total
from thinktime.scorers.embedding import HashedNgrams
from thinktime.strategies import check
from thinktime.strategies.search.a_star import AStar
from thinktime.strategies.search.beam_search import BeamSearch
from thinktime.strategies.search.best_first import BestFirst
from thinktime.strategies.search.dvts import DVTS
from thinktime.strategies.search.early_rejection import EarlyRejection
from thinktime.strategies.search.ets import ETS, at_random, clustered
from thinktime.strategies.search.ets import objective as objective_parts
from thinktime.strategies.search.ets import solve as solve_program
from thinktime.strategies.search.mcts import MCTS, TreeNode
from thinktime.strategies.search.particle_filter import ParticleFilter
from thinktime.strategies.search.rebase import Rebase
from thinktime.testing.chains import Chain

Rounds = list[list[tuple[tuple[int, ...], int]]]


def rounds(generator: ToyGenerator) -> Rounds:
    """For every requested batch: the parents and the indices of the children."""
    return [[(extension.node.path, extension.index) for extension in batch] for batch in generator.asked]


# Shares of children


@pytest.mark.parametrize(
    ("scores", "width", "expected"),
    [
        ([0.9, 0.8, 0.5, 0.1], 16, [10, 5, 1, 0]),
        ([0.9, 0.8, 0.5, 0.1], 4, [3, 1, 0, 0]),
        ([0.5] * 5, 8, [2, 2, 2, 1, 1]),
        ([0.9, 0.88, 0.3, 0.7], 16, [7, 7, 0, 2]),
        ([0.1, 0.9], 4, [0, 4]),
        ([None, 0.2], 3, [0, 3]),
        ([None, None], 3, [2, 1]),
        ([0.3], 0, [0]),
        ([], 4, []),
    ],
)
def test_children_are_shared_by_the_softmax_of_the_scores(
    scores: list[float | None], width: int, expected: list[int]
) -> None:
    assert shares(scores, width, 0.2) == expected


@unhurried
@given(st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=1, max_size=12), st.integers(0, 64))
def test_all_children_are_allocated_and_a_lower_score_never_gets_more(scores: list[float | None], width: int) -> None:
    counts = shares(scores, width, 0.2)
    assert sum(counts) == width and min(counts) >= 0
    known = sorted((s, c) for s, c in zip(scores, counts, strict=True) if s is not None)
    assert all(low <= high + 1 for (_, low), (_, high) in pairwise(known))
    assert not known or all(c == 0 for s, c in zip(scores, counts, strict=True) if s is None)


def test_scores_of_any_size_are_compared_without_overflow() -> None:
    assert shares([1e4, 1e4 - 1e-3, -1e9], 4, 0.2) == [3, 1, 0]


# Particles


@unhurried
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=20), st.integers(1, 50), st.floats(0, 0.999))
def test_a_particle_gets_its_share_of_descendants_rounded_down_or_up(
    weights: list[float], n: int, offset: float
) -> None:
    ancestors = systematic(weights, n, offset)
    assert len(ancestors) == n and ancestors == sorted(ancestors)
    for index, weight in enumerate(normalised(weights)):
        assert abs(ancestors.count(index) - n * weight) < 1 + 1e-6


def test_the_comb_is_even() -> None:
    assert systematic([log(0.5), log(0.25), log(0.25)], 4, 0.5) == [0, 0, 1, 2]
    assert systematic([log(0.1), log(0.9)], 2, 0.1) == [0, 1]
    assert systematic([log(0.1), log(0.9)], 2, 0.3) == [1, 1]


class FixedRandom(Random):
    """Returns these numbers, one after the other."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


def test_the_resamplers_by_hand() -> None:
    """Weights .5, .25, .25 end at .5, .75 and 1."""
    weights = [log(0.5), log(0.25), log(0.25)]
    assert RESAMPLERS["systematic"](weights, 4, FixedRandom(0.5)) == [0, 0, 1, 2]
    assert RESAMPLERS["stratified"](weights, 2, FixedRandom(0.9, 0.4)) == [0, 1], "at .45 and .7"
    assert RESAMPLERS["stratified"](weights, 2, FixedRandom(0.1, 0.6)) == [0, 2], "at .05 and .8"
    assert RESAMPLERS["multinomial"](weights, 3, FixedRandom(0.8, 0.1, 0.2)) == [0, 0, 2]


@pytest.mark.parametrize("resampler", sorted(RESAMPLERS))
def test_a_resampler_is_unbiased(resampler: str) -> None:
    weights, rng, runs = [log(0.6), log(0.1), log(0.3)], Random(0), 2000
    ancestors = [RESAMPLERS[resampler](weights, 5, rng) for _ in range(runs)]
    for index, weight in enumerate([0.6, 0.1, 0.3]):
        assert sum(drawn.count(index) for drawn in ancestors) / (5 * runs) == pytest.approx(weight, abs=0.02)


def test_the_effective_size_is_between_one_and_the_number_of_particles() -> None:
    assert effective_size([3.0] * 8) == pytest.approx(8)
    assert effective_size([0.0, -inf, -inf]) == 1
    assert effective_size([-1e6, -1e6 + log(3)]) == pytest.approx(1 / (1 / 16 + 9 / 16))
    assert effective_size([-inf, -inf]) == pytest.approx(2)


@unhurried
@given(st.sampled_from(sorted(POTENTIALS)), st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_the_log_potentials_of_a_lineage_sum_to_its_last_reward(kind: str, rewards: list[float]) -> None:
    spent = 0.0
    for index in range(len(rewards)):
        spent += log_potential(kind, rewards[: index + 1], spent, last=index == len(rewards) - 1)
    assert spent == pytest.approx(rewards[-1])


def test_the_log_potential_of_an_intermediate_reward() -> None:
    rewards = [1.0, 3.0, 2.0]
    assert {kind: log_potential(kind, rewards, 0.0, last=False) for kind in POTENTIALS} == {
        "diff": -1.0, "max": 3.0, "sum": 6.0, "rt": 2.0, "is": 0.0,
    }  # fmt: skip


def test_log_odds_of_certainty_are_finite() -> None:
    assert log_odds(0.8) == pytest.approx(log(4))
    assert log_odds(0.5) == 0
    assert -21 < log_odds(0.0) < -20 < 20 < log_odds(1.0) < 21


def two_ways(extension: Extension) -> object:
    """Half of all solutions go through ``left`` to 5, half through ``right`` to 7, with a step between."""
    path = extension.node.state.text
    if not path:
        return step(Random(extension.key).choice(["left", "right"]))
    if " " not in path:
        return step("on")
    return done("5" if path.startswith("left") else "7")


MISLEADING = {"left": 0.9, "right": 0.1, "left on": 0.3, "right on": 0.6, "left on 5": 0.5, "right on 7": 0.8}
"""Odds of the complete solutions: 1 for the 5, 4 for the 7. So the answer is 7 with 4/5 of the weight."""


@pytest.mark.parametrize("potential", sorted(POTENTIALS))
@pytest.mark.parametrize("anneal", [0, 3])
def test_particles_are_distributed_as_samples_times_the_reward_of_the_end(potential: str, anneal: int) -> None:
    search = toy_search(two_ways, lambda node: MISLEADING[node.state.text])  # type: ignore[arg-type]
    answer = solve(ParticleFilter(n=3000, potential=potential, ess=1, anneal=anneal), search)
    assert answer.value == "7"
    assert answer.share == pytest.approx(0.8, abs=0.06)


def test_particles_are_not_resampled_while_their_effective_size_is_large() -> None:
    search = toy_search(two_ways, lambda node: MISLEADING[node.state.text])  # type: ignore[arg-type]
    answer = solve(ParticleFilter(n=3000, ess=0), search)
    assert answer.share == pytest.approx(0.8, abs=0.03)
    assert not any(record.pruned for record in search.trace.values())


def test_a_particle_without_a_score_keeps_its_weight() -> None:
    search = toy_search(two_ways, lambda node: None)  # type: ignore[arg-type]
    answer = solve(ParticleFilter(n=64, ess=1), search)
    assert answer.share == pytest.approx(0.5, abs=0.2)


def test_a_particle_that_cannot_end_has_weight_0() -> None:
    tree = {"0": step("a b c d e f g h"), "1": done("is 7")}
    search = toy_search(tree, {"0": 0.9, "1": 0.2})
    answer = solve(ParticleFilter(n=2), search)
    assert (answer.value, answer.share) == ("7", 1.0)


def weights_on_the_way(strategy: ParticleFilter, scores: list[float]) -> list[float]:
    """The log-weight of a single particle after each of its steps, each with a score; none of them is the last."""
    found = []
    for rounds in range(1, len(scores) + 1):
        search = toy_search(lambda extension: step("on"), lambda node: scores[node.depth - 1])
        (particle,) = asyncio.run(replace(strategy, n=1, ess=0, max_rounds=rounds).filter(search))
        found.append(particle.log_weight)
    return found


def test_annealing_raises_the_factor_of_intermediate_rewards() -> None:
    """The log-odds of .8 are log 4; over 2 steps the factor has 1/2 of its value, then its full value."""
    scores = [0.8, 0.8, 0.8]
    halves = weights_on_the_way(ParticleFilter(anneal=2, potential="rt"), scores)
    assert halves == pytest.approx([0.5 * log(4), 1.5 * log(4), 2.5 * log(4)])
    quarters = weights_on_the_way(ParticleFilter(anneal=4, factor=2.0, potential="diff"), scores)
    assert quarters == pytest.approx([0.5 * log(4), 1.0 * log(4), 1.5 * log(4)])
    assert weights_on_the_way(ParticleFilter(anneal=0, potential="diff"), scores) == pytest.approx([log(4)] * 3)


def test_annealing_is_over_at_the_end() -> None:
    """The reward of a solution counts in full, for any factor of its steps."""
    tree = {"0": step("a"), "0/0": done("is 7")}
    search = toy_search(tree, {"0": 0.9, "0/0": 0.8})
    (particle,) = asyncio.run(ParticleFilter(n=1, ess=0, anneal=40).filter(search))
    assert particle.log_weight == pytest.approx(log(4))


@pytest.mark.parametrize(
    ("start", "every", "scored"),
    [(0, 1, [1, 2, 3, 4, 5, 6, 7]), (0, 3, [1, 4, 7]), (1, 2, [2, 4, 6, 7]), (3, 1, [4, 5, 6, 7]), (9, 1, [7])],
)
def test_steps_are_scored_from_start_on_at_every_interval_and_the_end_always(
    start: int, every: int, scored: list[int]
) -> None:
    """Six steps, then the end."""
    generator = ToyGenerator(lambda extension: done("7") if extension.node.depth == 6 else step("on"))
    search = toy_search(generator, scorer := ToyScorer(lambda node: 0.5))
    solve(ParticleFilter(n=1, start=start, every=every), search)
    assert [node.depth for batch in scorer.asked for node in batch] == scored


def test_a_population_without_a_finite_weight_gives_a_warning() -> None:
    """Both particles stop at the length limit; with a third one that ends, they would have weight 0."""
    stuck = {"0": step("a b c d e f g h i"), "1": step("a b c d e f g h i")}
    search = toy_search(stuck, dict.fromkeys(stuck, 0.9))
    assert solve(ParticleFilter(n=2), search).value is None
    assert {"warning": "step 1: no particle has a finite weight, so all of them count equally"} in search.events
    search = toy_search(stuck | {"2": done("is 7")}, dict.fromkeys([*stuck, "2"], 0.9))
    assert solve(ParticleFilter(n=3), search).value == "7"
    assert not any("finite weight" in event.get("warning", "") for event in search.events)


def test_particles_that_have_not_finished_after_the_last_round_are_counted() -> None:
    tree = {"0": step("a"), "1": step("b"), "2": done("is 7"), "0/0": step("c"), "1/0": done("is 5")}
    search = toy_search(tree, dict.fromkeys(tree, 0.5))
    solve(ParticleFilter(n=3, max_rounds=2), search)
    warning = "1 of 3 particles had not finished after max_rounds=2 steps; the answer leaves them out"
    assert [event["warning"] for event in search.events if "warning" in event] == [warning]
    search = toy_search(tree | {"0/0/0": done("is 5")}, dict.fromkeys([*tree, "0/0/0"], 0.5))
    solve(ParticleFilter(n=3, max_rounds=3), search)
    assert not any("warning" in event for event in search.events)


def test_roll_outs_value_a_step_by_the_mean_exponential_of_their_scores_that_exist() -> None:
    """The factor is 2: b has roll-outs of .8 and .5, so (4 ** 2 + 1 ** 2) / 2 = 8.5. Neither roll-out of a has a score,
    so its weight stays 1, and c has one score of .5, so its weight is 1 too."""
    tree = {str(i): step(word) for i, word in enumerate("abc")}
    tree |= {"0/0": Piece("so what", "length"), "0/1": done("is 5"), "1/0": done("is 7"), "1/1": done("so 7")}
    tree |= {"2/0": done("is 9"), "2/1": done("so 9")}
    scores = {"0/1": None, "1/0": 0.8, "1/1": 0.5, "2/0": None, "2/1": 0.5}
    search = toy_search(tree, scores)
    population = asyncio.run(ParticleFilter(n=3, factor=2.0, rollouts=2, ess=0, max_rounds=1).filter(search))
    assert [particle.log_weight for particle in population] == pytest.approx([0.0, log(8.5), 0.0])
    size = 10.5**2 / (1 + 8.5**2 + 1)
    assert search.events[0] == {"turn": 1, "ess": pytest.approx(size), "finished": 0, "roots": 3}


def test_a_redraw_drops_light_particles_and_prunes_the_unfinished_ones_among_them() -> None:
    """The odds of a are 999, those of the other two 1/999, so all three descendants are those of a."""
    tree = {"0": step("a"), "1": step("b"), "2": done("is 7"), **{f"0/{i}": done("is 5") for i in range(3)}}
    scores = {"0": 0.999, "1": 0.001, "2": 0.001, **{f"0/{i}": 0.5 for i in range(3)}}
    search = toy_search(generator := ToyGenerator(tree), scores)
    answer = solve(ParticleFilter(n=3), search)
    assert (answer.value, answer.share) == ("5", 1.0)
    assert [[e.node.path for e in batch] for batch in generator.asked] == [[()] * 3, [(0,)] * 3]
    assert texts([record.node for record in search.trace.values() if record.pruned]) == ["b"]
    warning = "one particle had all the weight at 1 of 1 redraws, so the others are lost; lower factor=1"
    assert search.events == [
        {"turn": 1, "ess": pytest.approx(1, abs=1e-3), "finished": 1, "roots": 3},
        {"turn": 2, "ess": pytest.approx(3), "finished": 3, "roots": 1},
        {"warning": warning},
    ]


def test_bon_scores_only_the_ends_never_resamples_and_answers_with_the_best() -> None:
    """Two particles answer 5 with .6 each, more weight than 7 with .7; even at ess=1 there is no resampling."""
    tree = {"0": step("a"), "1": step("b"), "2": step("c")}
    tree |= {"0/0": done("is 5"), "1/0": done("so 5"), "2/0": done("is 7")}
    scores = {"0": 0.9, "1": 0.1, "2": 0.01, "0/0": 0.6, "1/0": 0.6, "2/0": 0.7}
    search = toy_search(ToyGenerator(tree), scorer := ToyScorer(scores))
    assert solve(ParticleFilter(n=3, potential="bon", ess=1), search).value == "7"
    assert [len(batch) for batch in scorer.asked] == [3]
    assert not any(record.pruned for record in search.trace.values())
    assert not any("warning" in event for event in search.events)
    weighted = toy_search(tree, scores)
    assert solve(ParticleFilter(n=3, potential="is", ess=0), weighted).value == "5"


# Beam search with lookahead


LOOK = {
    "0": step("a"), "1": step("b"), "0/0": step("bad"), "1/0": step("good"),
    "0/1": done("is 5"), "1/1": done("is 7"), "1/2": done("is 7"), "0/2": done("is 5"),
}  # fmt: skip


def test_lookahead_judges_a_step_by_the_end_of_its_greedy_roll_out() -> None:
    """b scores below a; one step later it scores above. Roll-outs are charged, and no answer contains them."""
    scores = {"0": 0.9, "1": 0.1, "0/0": 0.2, "1/0": 0.8, "0/1": 0.5, "1/1": 0.5, "1/2": 0.5, "0/2": 0.5}
    plain = solve(BeamSearch(n=2, width=2), toy_search(LOOK | {"0/0": done("is 5")}, scores))
    assert plain.value == "5"
    generator, scorer = ToyGenerator(LOOK), ToyScorer(scores)
    search = toy_search(generator, scorer)
    ahead = solve(BeamSearch(n=2, width=2, lookahead=1), search)
    assert ahead.value == "7" and ahead.node is not None and ahead.node.path in ((1, 1), (1, 2))
    assert texts(scorer.asked[0]) == ["a bad", "b good"]
    assert [extension.sampling.temperature for extension in generator.asked[1]] == [0.0, 0.0]
    assert ahead.usage.model_calls == 6
    assert sorted(texts([r.node for r in search.trace.values() if r.pruned])) == ["a", "a bad", "b good"]


def test_a_finished_roll_out_is_the_answer_if_there_is_no_other() -> None:
    tree = {"0": step("a"), "0/0": done("is 5")}
    search = toy_search(tree, {"0": 0.5, "0/0": 0.5}, budget=Budget(calls=2))
    answer = solve(BeamSearch(n=1, width=1, lookahead=1), search)
    assert (answer.value, answer.finish) == ("5", "budget")


# Diverse verifier tree search


def test_dvts_follows_the_best_step_of_every_subtree() -> None:
    """c is better than both a and b, but a's subtree has its own slot."""
    tree = {
        "0": step("a"), "1": step("b"), "2": step("c"), "3": step("d"),
        "0/0": done("is 5"), "0/1": step("e"), "2/0": done("is 7"), "2/1": done("is 9"),
        "0/1/0": done("5"), "0/1/1": done("8"),
    }  # fmt: skip
    scores = {
        "0": 0.3, "1": 0.2, "2": 0.9, "3": 0.8,
        "0/0": 0.1, "0/1": 0.2, "2/0": 0.3, "2/1": 0.2, "0/1/0": 0.3, "0/1/1": 0.1,
    }  # fmt: skip
    generator = ToyGenerator(tree)
    search = toy_search(generator, scores)
    answer = solve(DVTS(n=4, width=2), search)
    assert rounds(generator) == [
        [((), 0), ((), 1), ((), 2), ((), 3)],
        [((0,), 0), ((2,), 0), ((0,), 1), ((2,), 1)],
        [((0, 1), 0), ((0, 1), 1)],
    ]
    assert texts([r.node for r in search.trace.values() if r.pruned]) == ["b", "d"]
    assert (answer.value, answer.share) == pytest.approx(("5", 0.4 / 1.0))


# REBASE


REBASE = {
    "0": step("a"), "1": step("b"), "2": done("is 9"), "3": step("c"),
    "0/0": done("is 7"), "0/1": done("is 7"), "0/2": done("is 5"),
}  # fmt: skip
REBASE_SCORES = {"0": 0.9, "1": 0.1, "2": 0.3, "3": 0.0, "0/0": 0.2, "0/1": 0.2, "0/2": 0.3}


def test_rebase_shares_the_remaining_slots_and_prunes_nodes_without_children() -> None:
    """One of four finishes; a gets the three remaining slots: ceil(3 * .98) = 3."""
    generator = ToyGenerator(REBASE)
    search = toy_search(generator, REBASE_SCORES)
    answer = solve(Rebase(n=4), search)
    assert rounds(generator) == [[((), 0), ((), 1), ((), 2), ((), 3)], [((0,), 0), ((0,), 1), ((0,), 2)]]
    assert texts([r.node for r in search.trace.values() if r.pruned]) == ["b", "c"]
    assert (answer.value, answer.share) == pytest.approx(("7", 0.4))


# ETS


def ets_fixture(node_price: float, coverage: float) -> tuple[list[bool], float]:
    """r over A (a1 .9, a2 .88, a3 .3) and B (b1 .7); 16 children at temperature .2; clusters {a1, a2}, {a3}, {b1}."""
    worth = [7 / 16, 7 / 16, 0, 2 / 16]
    ancestors = [["A", "r"], ["A", "r"], ["A", "r"], ["B", "r"]]
    clusters = [1, 1, 2, 3]
    kept = solve_program(worth, ancestors, clusters, node_price, coverage)
    assert kept is not None
    return kept, objective(kept, worth, ancestors, clusters, node_price, coverage)


def objective(
    kept: list[bool], worth: list[float], ancestors: list[list[str]], clusters: list[int], price: float, coverage: float
) -> float:
    leaves = [i for i, keep in enumerate(kept) if keep]
    inner = {node for i in leaves for node in ancestors[i]}
    everything = len({node for line in ancestors for node in line}) + len(kept)
    kinds = {clusters[i] for i in leaves}
    return (
        sum(worth[i] for i in leaves)
        - price / everything * (len(inner) + len(leaves))
        + coverage / len(set(clusters)) * len(kinds)
    )


def test_the_integer_program_keeps_the_leaves_of_the_card() -> None:
    kept, value = ets_fixture(0, 0)
    assert (kept[0], kept[1], kept[3]) == (True, True, True) and value == pytest.approx(1.0)
    kept, value = ets_fixture(1, 0)
    assert kept == [True, True, False, False] and value == pytest.approx(0.3036, abs=1e-4)
    kept, value = ets_fixture(1, 0.5)
    assert kept == [True, True, True, True] and value == pytest.approx(0.5)
    assert ets_fixture(3, 0.3)[0] == [True, True, False, False]


def test_the_parts_of_the_objective_by_hand() -> None:
    """Keep a1 and a2 of the fixture: 14 of 16 children, 4 of 7 nodes, 1 of 3 clusters."""
    worth, ancestors, clusters = (
        [7 / 16, 7 / 16, 0, 2 / 16],
        [["A", "r"], ["A", "r"], ["A", "r"], ["B", "r"]],
        [1, 1, 2, 3],
    )
    parts = objective_parts([True, True, False, False], worth, ancestors, clusters, 1.4, 0.6)
    assert parts == pytest.approx({"reward": 14 / 16, "price": 0.8, "coverage": 0.2})
    sizes = [3.0, 1.0, 1.0, 1.0], {"A": 2.0, "B": 1.0, "r": 0.0}
    parts = objective_parts([True, False, False, False], worth, ancestors, clusters, 1.8, 0.0, sizes)
    assert parts == pytest.approx({"reward": 7 / 16, "price": 1.0, "coverage": 0.0}), "5 tokens of 9"
    alone = [True], [1.0], [["r"]], [1], 0.6, 0.0
    assert [objective_parts(*alone, ([size], {"r": 0}))["price"] for size in (0, 1, 3)] == [0.0, 0.6, 0.6]


@unhurried
@given(st.integers(2, 7), st.floats(0, 4), st.floats(0, 3), st.integers(0, 1000))
def test_the_integer_program_finds_the_best_of_all_choices(n: int, price: float, coverage: float, seed: int) -> None:
    rng = Random(seed)
    worth = [rng.random() for _ in range(n)]
    worth = [w / sum(worth) for w in worth]
    ancestors = [[rng.choice("ABC"), "r"] for _ in range(n)]
    clusters = [rng.randint(1, 3) for _ in range(n)]
    kept = solve_program(worth, ancestors, clusters, price, coverage)
    assert kept is not None
    everything = [list(choice) for choice in product([False, True], repeat=n) if any(choice)]
    best = max(objective(choice, worth, ancestors, clusters, price, coverage) for choice in everything)
    assert objective(kept, worth, ancestors, clusters, price, coverage) == pytest.approx(best, abs=1e-6)


def test_with_token_prices_a_long_node_costs_more_than_a_short_one() -> None:
    """Two leaves of equal reward below one root: equal prices by node, but one leaf has nine of ten tokens."""
    tree = [0.5, 0.5], [["r"], ["r"]], [1, 1], 0.8, 0.0
    assert solve_program(*tree) == [True, True]
    assert solve_program(*tree, ([9, 1], {"r": 0})) == [False, True]


def test_a_round_without_a_solution_of_the_program_is_rebase_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinktime.strategies.search.ets.solve", lambda *_: None)
    tree = {str(i): step(f"leaf {i}") for i in range(4)} | {
        f"{i}/{j}": done("is 7") for i in range(4) for j in range(4)
    }
    clock = FakeClock().monotonic
    search, rebase = (toy_search(ToyGenerator(tree), dict.fromkeys(tree, 0.5), clock=clock) for _ in range(2))
    ours, theirs = solve(ETS(n=4), search), solve(Rebase(n=4), rebase)
    assert (ours.share, list(search.trace)) == (theirs.share, list(rebase.trace))
    assert ours.usage == theirs.usage + Usage(embeddings=4)
    assert {"warning": "the integer program was not solved; this round is REBASE"} in search.events


def test_a_program_that_takes_too_long_is_not_solved() -> None:
    """64 leaves with clusters across several parents: no machine solves this within a microsecond."""
    rng = Random(0)
    worth = [rng.random() / 100 for _ in range(64)]
    ancestors = [[rng.choice("ABCDEFGH"), rng.choice("STUVWXYZ"), "r"] for _ in worth]
    clusters = [rng.randint(1, 60) for _ in worth]
    assert solve_program(worth, ancestors, clusters, 1.0, 0.5, None, 1e-6) is None


def test_ets_has_a_default_depth_of_25() -> None:
    generator = ToyGenerator(lambda extension: step("on"))
    solve(ETS(n=1, coverage=0), toy_search(generator, lambda node: 0.5, cap=40))
    assert len(generator.asked) == 25


def test_a_solution_at_the_time_limit_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which solution the solver has found by then depends on the machine."""
    limits = []

    def late(gain: list[float], *, options: dict[str, float], **_: object) -> OptimizeResult:
        limits.append(options["time_limit"])
        return OptimizeResult(success=False, x=[1.0] * len(gain))

    monkeypatch.setattr("scipy.optimize.milp", late)
    assert solve_program([0.5, 0.5], [["r"], ["r"]], [1, 1], 1.0, 0.0, None, 3.0) is None
    assert limits == [3.0]


def test_scores_outside_0_to_1_give_a_warning() -> None:
    tree = {"0": step("a"), "1": step("b")} | {f"{i}/{j}": done("is 7") for i in range(2) for j in range(2)}
    search = toy_search(tree, dict.fromkeys(tree, 3.2))
    solve(ETS(n=2), search)
    assert any("scores outside 0 to 1" in event.get("warning", "") for event in search.events)
    search = toy_search(tree, dict.fromkeys(tree, 1.0) | {"0": 0.0, "1/0": None})
    solve(ETS(n=2), search)
    assert not any("warning" in event for event in search.events), "0 and 1 are inside, a missing score is no score"


@pytest.mark.parametrize(("vote", "value"), [("weighted", "5"), ("majority", "5"), ("best", "7")])
def test_finished_solutions_vote_by_the_chosen_rule(vote: str, value: str) -> None:
    tree = {"0": done("is 7"), "1": done("is 5"), "2": done("is 5")}
    assert solve(ETS(n=3, vote=vote), toy_search(tree, {"0": 0.9, "1": 0.5, "2": 0.5})).value == value


class Clusters:
    """Embeds ``one`` and ``two`` in one cluster, and every other text in its own."""

    name = "clusters"

    def worst_case(self, node: Node) -> Usage:
        return Usage(embeddings=1)

    async def embed(self, nodes: Sequence[Node]) -> list[Embedding]:
        axes = {"one": 0, "two": 0, "three": 1, "four": 2}
        indices = [axes.get(node.state.text.split()[-1], 3) for node in nodes]
        return [Embedding(tuple(float(index == axis) for axis in range(4)), Usage(embeddings=1)) for index in indices]


def ets_search(generator: ToyGenerator, scores: Mapping[str, float | None]) -> Search:
    return toy_search(generator, scores, embedder=Clusters())


def test_ets_drops_a_leaf_whose_reward_is_below_its_price() -> None:
    """REBASE gives two children to each of the first two of four leaves. A node costs a fifth of the price."""
    tree = {str(i): step(f"leaf {i}") for i in range(4)}
    tree |= {f"{i}/{j}": done("is 7") for i in range(4) for j in range(4)}
    scores = dict.fromkeys(tree, 0.5) | {"0": 0.9, "1": 0.9}
    expanded = {}
    for price in (0.0, 3.0):
        search = toy_search(generator := ToyGenerator(tree), scores)
        solve(ETS(n=4, node_price=price, coverage=0), search)
        expanded[price] = sorted({extension.node.path[0] for extension in generator.asked[1]})
        assert len(generator.asked[1]) == 4
    assert expanded[0.0] == [0, 1]
    assert expanded[3.0] in ([0], [1])


@pytest.mark.parametrize(("least", "parents"), [(0, [0, 0, 1]), (1, [0, 0, 1, 2])])
def test_a_leaf_kept_for_coverage_gets_no_children_unless_min_children_is_1(least: int, parents: list[int]) -> None:
    """``three`` has its own cluster, so it is kept; its score is so low that REBASE gives it no children."""
    tree = {"0": step("one"), "1": step("two"), "2": step("three")}
    tree |= {f"{i}/{j}": done("is 7") for i in range(3) for j in range(3)}
    scores = dict.fromkeys(tree, 0.5) | {"0": 0.9, "1": 0.88, "2": 0.0}
    generator = ToyGenerator(tree)
    search = ets_search(generator, scores)
    solve(ETS(n=3, min_children=least), search)
    (logged,) = search.events
    counts = {"leaves": 3, "merged": 0, "kept": 3, "expanded": len(set(parents))}
    counts |= {"held": 1, "ancestors": 1, "clusters": 2}
    assert logged == counts | {"reward": pytest.approx(1), "price": pytest.approx(1), "coverage": pytest.approx(1.5)}
    assert sorted(extension.node.path[0] for extension in generator.asked[1]) == parents


def test_identical_siblings_are_merged_and_the_copies_are_pruned() -> None:
    """Three of 4 siblings are a, one is b. All have equal scores, so the first a gets 3 children, and b gets 1."""
    tree = {str(i): step("b" if i == 2 else "a") for i in range(4)}
    tree |= {f"{i}/{j}": done("is 7") for i in range(4) for j in range(4)}
    generator, scorer = ToyGenerator(tree), ToyScorer(dict.fromkeys(tree, 0.5))
    search = toy_search(generator, scorer)
    solve(ETS(n=4, coverage=0, node_price=0), search)
    assert rounds(generator)[1] == [((0,), 0), ((2,), 0), ((0,), 1), ((0,), 2)]
    assert sorted(record.node.path for record in search.trace.values() if record.pruned) == [(1,), (3,)]
    assert [len(batch) for batch in scorer.asked] == [2, 4], "a copy is not scored, a finished solution is"
    assert (search.events[0]["leaves"], search.events[0]["merged"]) == (2, 2)


def test_the_same_step_below_other_parents_and_the_same_solutions_are_not_merged() -> None:
    tree = {"0": step("a"), "1": step("b"), "0/0": step("c"), "1/0": step("c"), "0/0/0": done("7"), "1/0/0": done("7")}
    search = toy_search(generator := ToyGenerator(tree), dict.fromkeys(tree, 0.5))
    assert solve(ETS(n=2, coverage=0, node_price=0), search).share == 1.0
    assert [len(batch) for batch in generator.asked] == [2, 2, 2]
    twice = toy_search({"0": done("is 7"), "1": done("is 7"), "2": done("is 5")}, {"0": 0.3, "1": 0.3, "2": 0.5})
    assert solve(ETS(n=3), twice).value == "7"


def test_a_finished_solution_keeps_one_slot_and_a_copy_keeps_none() -> None:
    """4 slots: one solution ends in each of the first two rounds, so the third has 2; a copy frees its slot."""
    tree = {"0": step("a"), "1": done("is 9"), "2": step("a"), "3": step("b")}
    tree |= {f"0/{i}": piece for i, piece in enumerate([step("c"), done("is 9"), step("d")])}
    tree |= {f"{path}/{i}": done("is 7") for path in ("0/0", "0/2") for i in range(2)}
    scores = dict.fromkeys(tree, 0.5) | {"0": 0.9, "3": -9.0}
    search = toy_search(generator := ToyGenerator(tree), scores)
    solve(ETS(n=4, coverage=0, node_price=0), search)
    assert [len(batch) for batch in generator.asked] == [4, 3, 2]


def test_random_leaves_need_no_more_nodes_than_the_chosen_ones() -> None:
    """A, B and C below the root have two leaves each: two leaves of one parent need four nodes."""
    ancestors = [[parent, "r"] for parent in "AABBCC"]
    pair = [True, True, False, False, False, False]
    found = {tuple(at_random(Random(seed), ancestors, pair)) for seed in range(40)}
    assert found == {tuple(index // 2 == parent for index in range(6)) for parent in range(3)}
    assert at_random(Random(0), ancestors, [True] * 6) == [True] * 6
    one = {tuple(at_random(Random(seed), ancestors, [True] + [False] * 5)) for seed in range(40)}
    assert one == {tuple(index == leaf for index in range(6)) for leaf in range(6)}


def test_the_random_control_of_ets_keeps_other_leaves() -> None:
    """The program keeps the first two of four leaves; the control also keeps others."""
    tree = {str(i): step(f"leaf {i}") for i in range(4)}
    tree |= {f"{i}/{j}": done("is 7") for i in range(4) for j in range(4)}
    scores = dict.fromkeys(tree, 0.5) | {"0": 0.9, "1": 0.9, "2": 0.1, "3": 0.1}
    expanded: dict[str, set[tuple[int, ...]]] = {"best": set(), "random": set()}
    for keep, seed in product(expanded, range(60)):
        search = toy_search(generator := ToyGenerator(tree), scores, seed=seed)
        solve(ETS(n=4, coverage=0, keep=keep), search)
        assert search.events[0]["kept"] == 2
        expanded[keep].add(tuple(sorted({extension.node.path[0] for extension in generator.asked[1]})))
    assert expanded["best"] == {(0, 1)}
    assert (2, 3) in expanded["random"] and len(expanded["random"]) > 2


def test_a_step_above_the_limit_is_cut_and_continues_as_the_next_step() -> None:
    tree = {"0": step("a b c d e"), "1": step("f"), "0/0": step("c d"), "0/1": step("c d e")}
    tree |= {"0/0/0": done("is 7"), "0/1/0": done("is 7")}
    search = toy_search(tree, dict.fromkeys(tree, 0.9) | {"1": 0.0})
    assert solve(ETS(n=2, coverage=0, max_step_tokens=2), search).value == "7"
    nodes = [record.node for record in search.trace.values() if record.node.depth]
    assert [(node.finish, node.state.text) for node in nodes[:4]] == [
        ("cut", "a b"), ("step", "f"), ("step", "a b c d"), ("cut", "a b c d"),
    ]  # fmt: skip


def test_ets_with_a_price_keeps_fewer_nodes_than_without() -> None:
    held = {}
    for price in (0.0, 4.0):
        generator = ToyGenerator(drawn)
        search = toy_search(generator, drawn_score, cap=20)
        solve(ETS(n=16, node_price=price, coverage=0), search)
        held[price] = sum(event["kept"] for event in search.events) / sum(event["leaves"] for event in search.events)
    assert held[4.0] < held[0.0]


def test_coverage_without_an_embedder_is_refused_before_the_first_sample() -> None:
    generator = ToyGenerator(drawn)
    search = toy_search(generator, embedder=None)
    with pytest.raises(InputError, match=r"coverage=1\.5: the term needs an embedder"):
        check("ets", ETS(), search)
    assert generator.asked == []


def test_without_coverage_no_embedder_is_needed_and_no_step_is_embedded() -> None:
    tree = {"0": step("a"), "1": step("b")} | {f"{i}/{j}": done("is 7") for i in range(2) for j in range(2)}
    for embedder in (None, HashedNgrams()):
        search = toy_search(tree, dict.fromkeys(tree, 0.5), embedder=embedder)
        check("ets", ETS(n=2, coverage=0), search)
        assert solve(ETS(n=2, coverage=0), search).usage.embeddings == 0


def test_the_seconds_of_the_solver_are_charged() -> None:
    """The clock goes on by a second whenever it is read, so the one integer program takes a second."""
    ticks = count()
    tree = {"0": step("a"), "1": step("b")} | {f"{i}/{j}": done("is 7") for i in range(2) for j in range(2)}
    search = toy_search(tree, dict.fromkeys(tree, 0.5), clock=lambda: float(next(ticks)))
    answer = solve(ETS(n=2), search)
    assert answer.accounts["online", "solver"] == Usage(seconds=1.0)
    assert answer.usage == total(answer.accounts.values())


def test_steps_are_clustered_by_their_cosine() -> None:
    near, far = [1.0, 0.01, 0.0], [0.0, 1.0, 0.0]
    first, second, third = clustered([[1.0, 0.0, 0.0], near, far], 0.05)
    assert first == second != third


def test_identical_steps_are_one_cluster() -> None:
    assert len(set(clustered([[1.0, 2.0]] * 5, 0.05))) == 1


def test_an_embedding_sees_the_newest_step_only() -> None:
    search = toy_search({"0": step("a long way to go"), "1": step("x"), "0/0": step("then 7"), "1/0": step("then 7")})
    parents = extend(search, [search.root], 2, until="step")
    children = extend(search, parents, until="step")
    first, second = asyncio.run(HashedNgrams().embed(children))
    assert first.vector == second.vector and sum(first.vector) > 0


# A*


def test_edge_costs_by_hand() -> None:
    """Rewards along a path: .5, .6, .8, .5, .9."""
    rewards = [0.5, 0.6, 0.8, 0.5, 0.9]
    found = {}
    for name in ("drop", "consistent"):
        g, row = 0.0, []
        for r, r_next in pairwise(rewards):
            g += AStar(edge_cost=name).price(1 - r, 1 - r_next)
            row.append(round(g + 1 - r_next, 6))
        found[name] = row
    assert found == {"drop": [0.4, 0.2, 0.8, 0.4], "consistent": [0.5, 0.5, 0.8, 0.8]}


def test_steps_and_tokens_have_the_given_costs() -> None:
    assert AStar(edge_cost="steps", step_cost=0.1).price(0.5, 0.9, 7) == 0.1
    assert AStar(edge_cost="tokens", token_cost=0.01).price(0.5, 0.9, 7) == pytest.approx(0.07)


A_STAR = {
    "0": step("a"), "1": step("b"),
    "0/0": step("aa"), "0/1": done("is 5"),
    "1/0": done("is 7"), "1/1": step("bb"),
}  # fmt: skip


def test_a_star_returns_to_a_better_branch_and_accepts_a_goal_when_its_f_is_smallest() -> None:
    """a (.9) is extended first; its children have .3 and .4, so b (.8) is next; ``is 7`` (.85) beats ``is 5``."""
    generator = ToyGenerator(A_STAR)
    scores = {"0": 0.9, "1": 0.8, "0/0": 0.3, "0/1": 0.4, "1/0": 0.85, "1/1": 0.2}
    search = toy_search(generator, scores)
    answer = solve(AStar(k=2), search)
    assert rounds(generator) == [[((), 0), ((), 1)], [((0,), 0), ((0,), 1)], [((1,), 0), ((1,), 1)]]
    assert (answer.value, answer.finish, answer.usage.model_calls) == ("7", "done", 6)
    expansions = [event for event in search.events if "extended" in event]
    root, a, b = (next(r.node.key for r in search.trace.values() if r.node.path == path) for path in [(), (0,), (1,)])
    assert [(event["extended"], event["depth"]) for event in expansions] == [([root], [0]), ([a], [1]), ([b], [1])]
    found = [(*event["f"], *event["g"], *event["h"]) for event in expansions]
    assert found == [pytest.approx(row) for row in [(0.5, 0, 0.5), (0.1, 0, 0.1), (0.2, 0, 0.2)]]
    assert not any("warning" in event for event in search.events)


def test_the_log_has_f_g_and_h_of_each_extended_state() -> None:
    """From .9 to .7: the drop of .2 is g, and twice h is .6."""
    tree = {"0": step("a"), "0/0": step("aa"), "0/0/0": done("is 7")}
    search = toy_search(tree, {"0": 0.9, "0/0": 0.7, "0/0/0": 0.7})
    solve(AStar(k=1, weight=2), search)
    *_, last = [event for event in search.events if "extended" in event]
    assert [*last["f"], *last["g"], *last["h"]] == pytest.approx([0.8, 0.2, 0.3])


def test_a_star_extends_several_states_at_once_and_several_goals_can_have_their_turn_together() -> None:
    """The root is alone. Then a and b are extended together, and then ``is 7`` and ``is 5`` have the smallest f."""
    scores = {"0": 0.9, "1": 0.8, "0/0": 0.3, "0/1": 0.4, "1/0": 0.85, "1/1": 0.2}
    search = toy_search(generator := ToyGenerator(A_STAR), scores)
    answer = solve(AStar(k=2, pop_width=2), search)
    assert rounds(generator) == [[((), 0), ((), 1)], [((0,), 0), ((1,), 0), ((0,), 1), ((1,), 1)]]
    assert (answer.value, answer.share) == pytest.approx(("7", 0.85 / 1.25))
    first, second = [event for event in search.events if "extended" in event]
    assert (first["depth"], second["depth"]) == ([0], [1, 1])
    assert (first["waiting"], second["waiting"]) == (0, 0)
    assert [second["f"], second["g"], second["h"]] == [pytest.approx([0.1, 0.2]), [0, 0], pytest.approx([0.1, 0.2])]


def test_several_goals_vote() -> None:
    scores = {"0": 0.9, "1": 0.8, "0/0": 0.1, "0/1": 0.7, "1/0": 0.75, "1/1": 0.2}
    one = solve(AStar(k=2, edge_cost="zero"), toy_search(A_STAR, scores))
    two = solve(AStar(k=2, edge_cost="zero", n_goals=2), toy_search(A_STAR, scores))
    assert (one.value, one.share) == ("7", 1.0)
    assert two.value == "7" and two.share == pytest.approx(0.75 / 1.45)


def test_a_smaller_h_breaks_a_tie_of_f() -> None:
    """With consistent costs all rises cancel, so f is .5 for both; the state with the smaller h is next."""
    generator = ToyGenerator(A_STAR)
    scores = {"0": 0.6, "1": 0.8, "0/0": 0.1, "0/1": 0.1, "1/0": 0.9, "1/1": 0.1}
    assert solve(AStar(k=2, edge_cost="consistent"), toy_search(generator, scores)).value == "7"
    assert rounds(generator)[1] == [((1,), 0), ((1,), 1)]


def test_a_state_reached_twice_is_scored_and_extended_once() -> None:
    tree = {"0": step("a"), "1": step("a"), "0/0": done("is 7"), "0/1": done("is 7")}
    generator, scorer = ToyGenerator(tree), ToyScorer(dict.fromkeys(tree, 0.5))
    answer = solve(AStar(k=2, n_goals=3), toy_search(generator, scorer))
    assert (answer.value, len(generator.asked)) == ("7", 2)
    assert [len(batch) for batch in scorer.asked] == [1, 1]


def endless(extension: Extension) -> Piece:
    """Endless steps of two words; a solution only on a request for a whole generation."""
    return done("is 7") if extension.until == "done" else step(f"so {extension.index}")


def test_a_star_without_budget_for_another_expansion_forces_the_best_state_to_its_end() -> None:
    """Two words per step, a budget of 12: after two expansions the reserve continues the best state."""
    search = toy_search(endless, lambda node: 0.5, budget=Budget(tokens=12), cap=8)
    answer = solve(AStar(k=2), search)
    assert (answer.value, answer.finish) == ("7", "budget")
    assert answer.usage.generated_tokens <= 12
    assert sum("forced" in event for event in search.events) == 1
    assert search.events[-1]["warning"].startswith("the search reached no solution; the answer is forced")


@pytest.mark.parametrize("wrong", [1.5, -0.1])
def test_a_star_refuses_scores_that_are_no_probabilities(wrong: float) -> None:
    with pytest.raises(InputError, match="prefix scores in"):
        solve(AStar(k=2), toy_search(A_STAR, dict.fromkeys(A_STAR, wrong)))


def test_a_star_maps_other_rewards_to_probabilities_by_score_map() -> None:
    # the log-odds of the scores above
    scores = {"0": 2.2, "1": 1.4, "0/0": -0.85, "0/1": -0.4, "1/0": 1.7, "1/1": -1.4}
    search = toy_search(A_STAR, scores)
    assert solve(AStar(k=2, score_map="sigmoid"), search).value == "7"


def test_a_star_by_segments_of_fixed_length_up_to_max_depth() -> None:
    """Each child adds two more words of ``a b c d is 7``, for any steps of the model."""
    words = ["a", "b", "c", "d", "is", "7"]

    def tell(extension: Extension) -> Piece:
        return done(" ".join(words[len(extension.node.state.ids) :]))

    generator = ToyGenerator(tell)
    answer = solve(AStar(k=1, segment_tokens=2), toy_search(generator, lambda node: 0.5))
    assert answer.value == "7" and [len(batch[0].node.state.ids) for batch in generator.asked] == [0, 2, 4]
    shallow = solve(
        AStar(k=1, segment_tokens=2, max_depth=2), toy_search(generator := ToyGenerator(tell), lambda _: 0.5)
    )
    assert (shallow.value, shallow.finish) == ("7", "done")
    assert [(batch[0].node.depth, batch[0].at_most) for batch in generator.asked] == [(0, 2), (1, 2), (2, None)]


def test_a_star_reserves_the_requested_tokens() -> None:
    """Two words per step and a budget of 20; 14 are reserved, so there is budget for only one expansion."""
    generator = ToyGenerator(endless)
    search = toy_search(generator, lambda node: 0.5, budget=Budget(tokens=20), cap=8)
    assert solve(AStar(k=2, reserve_tokens=14), search).value == "7"
    assert [len(batch) for batch in generator.asked] == [2, 1]


@pytest.mark.parametrize(
    ("budget", "expansions"),
    [
        (Budget(calls=1), 0),  # the root is continued at once
        (Budget(calls=2), 0),  # an expansion takes two calls, and the solution a third one
        (Budget(calls=3), 1),
        (Budget(calls=6), 2),  # 2 steps each; a third expansion would leave no call for the solution
        (Budget(calls=7), 3),
        (Budget(dollars=DOLLARS * 8), 0),  # a solution can be 8 words
        (
            Budget(dollars=DOLLARS * 14),
            2,
        ),  # 4 words each; the solution may need 6 more words, which a third expansion would not leave
        (Budget(flops=45.0), 1),  # 8 and 9 to score; the same again and 12 for the solution are 46
        (Budget(flops=46.0), 2),
    ],
)
def test_a_star_reserves_a_solution_of_every_limited_count(budget: Budget, expansions: int) -> None:
    search = toy_search(endless, lambda node: 0.5, budget=budget, cap=8)
    answer = solve(AStar(k=2), search)
    assert (answer.value, answer.finish) == ("7", "budget")
    assert search.ledger.check(answer.usage)
    assert sum("extended" in event for event in search.events) == expansions


@pytest.mark.parametrize("evaluations", range(4, 20))
def test_a_star_reserves_a_solution_of_evaluations(evaluations: int) -> None:
    """A walk has four levels: from 4 evaluations on, one walk always reaches its end."""
    search = Chain.drawn(0, levels=4).search(0, Budget(nfe=evaluations))
    answer = solve(AStar(k=2), search)
    assert answer.node is not None and answer.node.done
    assert answer.usage.denoiser_calls <= evaluations


FORCED = {
    "0": step("a"), "1": step("b"), "0/0": step("aa"), "0/1": step("ab"),
    "0/0/0": done("is 9"), "0/1/0": done("is 7"), "1/0": done("is 5"),
}  # fmt: skip
FORCED_SCORES = {"0": 0.6, "1": 0.5, "0/0": 0.55, "0/1": 0.9}
"""With a cost of .5 per step, f is 1.0 for b, 1.1 for ab and 1.45 for aa; h is .5, .1 and .45."""


def test_the_state_of_smallest_h_is_forced_even_if_another_has_a_smaller_f() -> None:
    search = toy_search(FORCED, FORCED_SCORES, budget=Budget(calls=5))
    assert solve(AStar(k=2, edge_cost="steps", step_cost=0.5), search).value == "7"


def test_if_forcing_fails_the_next_state_by_h_is_forced() -> None:
    tree = FORCED | {"0/1/0": Piece("c d e f g h", "length")}
    search = toy_search(tree, FORCED_SCORES, budget=Budget(calls=6))
    assert solve(AStar(k=2, edge_cost="steps", step_cost=0.5), search).value == "9"


def test_if_forcing_a_state_is_too_expensive_a_cheaper_one_is_forced() -> None:
    """5 of 10 words are left: a is nearer to a solution but may need 7; ``b c d e`` may need 4."""
    tree = {"0": step("a"), "1": step("b c d e"), "0/0": done("is 5"), "1/0": done("is 7")}
    search = toy_search(tree, {"0": 0.9, "1": 0.5}, budget=Budget(dollars=DOLLARS * 10))
    answer = solve(AStar(k=2), search)
    assert (answer.value, answer.finish) == ("7", "budget")


def test_siblings_with_almost_equal_scores_are_logged() -> None:
    search = toy_search({"0": done("is 7"), "1": done("so 7")}, {"0": 0.5, "1": 0.5})
    solve(AStar(k=2), search)
    assert {"flat": 0.0} in search.events


def test_a_full_frontier_drops_its_worst_state() -> None:
    scores = {"0": 0.9, "1": 0.8, "0/0": 0.3, "0/1": 0.4, "1/0": 0.85, "1/1": 0.2}
    search = toy_search(A_STAR, scores)
    assert solve(AStar(k=2, max_frontier=1), search).value == "5"
    assert texts([r.node for r in search.trace.values() if r.pruned]) == ["b", "a aa"]


def test_best_first_follows_the_highest_reward_without_edge_costs() -> None:
    """From .9 down to .7: A* charges the drop, so b (.6) is next; best-first continues below a."""
    tree = A_STAR | {"0/0/0": done("is 5"), "0/0/1": done("is 5")}
    scores = {"0": 0.9, "1": 0.6, "0/0": 0.7, "0/1": 0.1, "1/0": 0.85, "1/1": 0.2, "0/0/0": 0.75, "0/0/1": 0.7}
    assert solve(AStar(k=2), toy_search(tree, scores)).value == "7"
    assert solve(BestFirst(k=2), toy_search(tree, scores)).value == "5"


# Monte Carlo tree search


def test_a_batch_extends_different_leaves_and_removes_its_virtual_losses() -> None:
    search = toy_search({str(i): step(str(i)) for i in range(9)}, None)
    root = TreeNode(search.root)
    root.children = [TreeNode(node, root) for node in extend(search, [search.root], 9, until="step")]
    for index, child in enumerate(root.children):
        child.visits, child.value = 1, index / 10
    root.visits = 9
    leaves = MCTS()._select(root, 8)
    assert len(set(leaves)) == 8 and root.children[0] not in leaves
    assert [child.visits for child in root.children] == [1] * 9 and root.visits == 9
    assert not any(index.closed for index in (root, *root.children))


def test_mcts_rolls_out_the_best_step_and_returns_to_a_better_branch_when_values_fall() -> None:
    """a (.9) is rolled out to a bad end, so its mean falls to .5, below b's .6; b is expanded next."""
    tree = {
        "0": step("a"), "1": step("b"), "0/0": done("is 5"),
        "1/0": step("c"), "1/1": done("is 9"), "1/0/0": done("is 7"),
    }  # fmt: skip
    scores = {"0": 0.9, "1": 0.6, "0/0": 0.1, "1/0": 0.8, "1/1": 0.1, "1/0/0": 0.9}
    generator = ToyGenerator(tree)
    answer = solve(MCTS(n=2, width=2, batch=1, explore=0), toy_search(generator, scores))
    assert rounds(generator) == [[((), 0), ((), 1)], [((0,), 0)], [((1,), 0), ((1,), 1)], [((1, 0), 0)]]
    assert (answer.value, answer.share) == pytest.approx(("7", 0.9 / 1.1))


def test_the_upper_bound_by_hand() -> None:
    """Mean .6 after 2 of 8 visits: .6 + .5 * sqrt(log 8 / 2) = 1.1099."""
    search = toy_search({"0": step("a")}, None)
    (node,) = extend(search, [search.root], until="step")
    root = TreeNode(search.root, visits=8)
    assert TreeNode(node, root, visits=2, value=1.2).bound(0.5) == pytest.approx(1.1099, abs=1e-4)
    assert TreeNode(node, root, visits=2, value=1.2).bound(0.0) == pytest.approx(0.6)
    assert TreeNode(node, root).bound(0.0) == root.bound(0.5) == inf


@pytest.mark.parametrize(("explore", "second"), [(0.0, 0), (1.0, 1)])
def test_mcts_explores_nodes_with_fewer_visits(explore: float, second: int) -> None:
    """a was rolled out: .7 after 2 visits of 3; b has .6 after 1. sqrt(log 3 / 2) = .741, sqrt(log 3) = 1.048."""
    tree = {"0": step("a"), "1": step("b"), "0/0": done("is 5")}
    tree |= {f"{i}/{j}": done("is 7") for i in range(2) for j in range(1, 3)} | {"1/0": done("is 7")}
    scores = dict.fromkeys(tree, 0.5) | {"0": 0.7, "1": 0.6, "0/0": 0.7}
    solve(MCTS(n=2, width=2, batch=1, explore=explore), toy_search(generator := ToyGenerator(tree), scores))
    assert [batch[0].node.path for batch in generator.asked] == [(), (0,), (second,)]


def test_mcts_ends_when_all_branches_have_ended() -> None:
    generator = ToyGenerator({"0": done("is 7"), "1": done("is 7")})
    answer = solve(MCTS(n=100, width=2), toy_search(generator, {"0": 0.5, "1": 0.5}))
    assert (answer.value, answer.finish, len(generator.asked)) == ("7", "done", 1)


@unhurried
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 8), st.integers(0, 500))
def test_mcts_expands_at_most_n_leaves(n: int, width: int, batch: int, seed: int) -> None:
    generator = ToyGenerator(drawn)
    solve(MCTS(n=n, width=width, batch=batch), toy_search(generator, drawn_score, seed=seed, cap=30))
    steps = [[e for e in asked if e.until == "step"] for asked in generator.asked]
    extended = [extension.node.key for asked in steps for extension in asked]
    assert len(set(extended)) <= n
    assert all(extended.count(key) == width for key in extended)
    assert all(len({e.node.key for e in asked}) <= batch for asked in generator.asked)


# Early rejection


ER = {
    "0": step("a b c"), "1": step("d e f"), "2": step("g"), "3": step("h i j"),
    "1/0": step("f"), "0/0": step("c"), "3/0": step("j"),
    "1/0/0": done("is 7"), "1/0/1": done("is 9"), "2/0": done("is 5"), "2/1": done("is 4"),
}  # fmt: skip


def test_weak_steps_are_rejected_after_tau_tokens_and_only_the_others_are_finished() -> None:
    """tau = 2 cuts all steps except g, which is whole; d e and g are kept; d e is finished; both get children."""
    generator = ToyGenerator(ER)
    scores = {
        "0": 0.1, "1": 0.9, "2": 0.8, "3": 0.2, "1/0": 0.7, "1/0/0": 0.9, "1/0/1": 0.1, "2/0": 0.3, "2/1": 0.2,
    }  # fmt: skip
    search = toy_search(generator, scores)
    answer = solve(EarlyRejection(n=4, width=2, tau=2), search)
    assert rounds(generator) == [
        [((), 0), ((), 1), ((), 2), ((), 3)],
        [((1,), 0)],
        [((2,), 0), ((1, 0), 0), ((2,), 1), ((1, 0), 1)],
    ]
    assert texts([r.node for r in search.trace.values() if r.pruned]) == ["a b", "h i"]
    assert texts([r.node for r in search.trace.values() if r.node.finish == "step"]) == ["g", "d e f"]
    assert (answer.value, answer.share) == pytest.approx(("7", 0.9 / 1.5))
    assert search.events[0]["cut_short"] == 3


def test_a_solution_that_ends_within_tau_is_never_lost() -> None:
    tree = {"0": done("7"), "1": step("b"), "1/0": done("5"), "1/1": done("5")}
    scores = {"0": 0.9, "1": 1.0, "1/0": 0.2, "1/1": 0.3}
    answer = solve(EarlyRejection(n=2, width=2, tau=2), toy_search(tree, scores))
    assert answer.value == "7"


def test_the_random_control_keeps_the_same_number() -> None:
    kept = {}
    for keep in ("best", "random"):
        search = toy_search(drawn, drawn_score, cap=20)
        solve(EarlyRejection(n=8, width=4, tau=2, keep=keep), search)
        kept[keep] = search.events[0]["kept"]
    assert len(kept["best"]) == len(kept["random"]) == 2
    assert kept["best"] != kept["random"]


def test_a_reward_model_of_step_ends_is_refused_unless_cuts_is_any() -> None:
    generator, scorer = ToyGenerator(ER), ToyScorer(dict.fromkeys(ER, 0.5) | {"0": 0.1, "3": 0.1})
    scorer.capabilities = scorer.capabilities - {Capability.PARTIAL_REWARD}
    with pytest.raises(CapabilityError, match=r"trained at step ends alone; .* give cuts=any to use it"):
        check("early_rejection", EarlyRejection(n=4, width=2, tau=2), toy_search(generator, scorer))
    assert generator.asked == []
    assert solve(EarlyRejection(n=4, width=2, tau=2, cuts="any"), toy_search(generator, scorer)).value is not None


def test_survivors_ranked_by_their_partial_reward_are_not_scored_again() -> None:
    scores = {"0": 0.1, "1": 0.9, "2": 0.8, "3": 0.2, "1/0": 0.1, "1/0/0": 0.9, "1/0/1": 0.1, "2/0": 0.3, "2/1": 0.2}
    generator, scorer = ToyGenerator(ER), ToyScorer(scores)
    solve(EarlyRejection(n=4, width=2, tau=2, rank="partial"), toy_search(generator, scorer))
    assert [len(batch) for batch in scorer.asked] == [4, 4]
    assert rounds(generator)[2][0] == ((1, 0), 0)


def test_early_rejection_can_answer_with_the_best_solution() -> None:
    tree = {"0": done("7"), "1": done("5"), "2": done("5"), "3": done("5")}
    scores = {"0": 0.9, "1": 0.5, "2": 0.5, "3": 0.5}
    assert solve(EarlyRejection(n=4, width=1, tau=2), toy_search(tree, scores)).value == "5"
    assert solve(EarlyRejection(n=4, width=1, tau=2, select="best"), toy_search(tree, scores)).value == "7"


def test_without_a_tau_the_first_round_is_whole_and_half_of_its_median_step_is_the_later_tau() -> None:
    """Steps of 1, 2, 4 and 4 tokens: the lower median is 2, so tau is 1."""
    tree = {"0": step("a"), "1": step("b c"), "2": step("d e f g"), "3": step("h i j k")}
    tree |= {f"{i}/{j}": step("so 7") for i in range(4) for j in range(4)}
    tree |= {f"{i}/{j}/0": done("7") for i in range(4) for j in range(4)}
    search = toy_search(generator := ToyGenerator(tree), dict.fromkeys(tree, 0.5))
    assert solve(EarlyRejection(n=4, width=2, tau="auto"), search).value == "7"
    assert [event["tau"] for event in search.events[:2]] == [None, 1]
    assert [batch[0].at_most for batch in generator.asked[:2]] == [None, 1]
    assert [event["cut_short"] for event in search.events[:2]] == [0, 4]


def test_a_tau_that_rejects_nothing_is_refused_before_the_first_sample() -> None:
    generator = ToyGenerator(drawn)
    with pytest.raises(InputError, match=r"tau=8: nothing is rejected before 8 tokens"):
        check("early_rejection", EarlyRejection(tau=8), toy_search(generator, drawn_score, cap=8))
    assert generator.asked == []


# Options


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BeamSearch(lookahead=-1), "lookahead=-1: give 0 or more"),
        (lambda: DVTS(n=10, width=4), "n=10: give a multiple of width=4"),
        (lambda: Rebase(balance=0), "balance=0: give a number above 0"),
        (lambda: Rebase(n=0), "n=0: give 1 or more"),
        (lambda: Rebase(n=10**6), "n=1000000: give 65536 or fewer"),
        (lambda: ETS(n=0), "n=0: give 1 or more"),
        (lambda: ETS(balance=-1), "balance=-1: give a number above 0"),
        (lambda: ETS(node_price=-1), "node_price=-1: give 0 or more"),
        (lambda: ETS(coverage=-0.5), r"coverage=-0\.5: give 0 or more"),
        (lambda: ETS(coverage=float("nan")), "coverage=nan: give 0 or more"),
        (lambda: AStar(k=0), "k=0: give 1 or more"),
        (lambda: AStar(edge_cost="dorp"), "edge_cost='dorp': unknown; did you mean 'drop'"),
        (lambda: AStar(weight=0), "weight=0: give a number above 0"),
        (lambda: BestFirst(k=0), "k=0: give 1 or more"),
        (lambda: MCTS(n=0), "n=0: give 1 or more"),
        (lambda: MCTS(batch=0), "batch=0: give 1 or more"),
        (lambda: ParticleFilter(potential="maximum"), "potential='maximum': unknown"),
        (lambda: ParticleFilter(resampler="wheel"), "resampler='wheel': unknown"),
        (lambda: ParticleFilter(factor=0), "factor=0: give a number above 0"),
        (lambda: EarlyRejection(n=6, width=4), "n=6: give a multiple of width=4"),
        (lambda: EarlyRejection(n=2, width=4), "n=2: give a multiple of width=4"),
        (lambda: EarlyRejection(tau=0), "tau=0: give 1 or more"),
        (lambda: EarlyRejection(tau="half"), "tau='half': unknown; there are: auto"),  # type: ignore[arg-type]
        (lambda: BeamSearch(width="root"), "width='root': unknown; there are: sqrt"),  # type: ignore[arg-type]
        (lambda: ETS(max_step_tokens=-1), "max_step_tokens=-1: give 0 or more"),
        (lambda: ETS(keep="worst"), "keep='worst': unknown"),
        (lambda: ETS(solver_seconds=0), "solver_seconds=0: give a number above 0"),
        (lambda: EarlyRejection(keep="worst"), "keep='worst': unknown"),
    ],
)
def test_a_wrong_option_is_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_ranked_puts_missing_scores_last_and_keeps_ties_in_order() -> None:
    search = toy_search({"0": step("a"), "1": step("b"), "2": step("c")}, {"0": None, "1": 0.2, "2": 0.2})
    nodes = extend(search, [search.root], 3, until="step")
    assert texts([node for node, _ in ranked(nodes, score(search, nodes))]) == ["b", "c", "a"]
