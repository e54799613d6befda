"""Bad input to every strategy: it is refused in one line before a token is spent, or no answer is lost by it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from math import inf, nan
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import (
    ANSWERS,
    Piece,
    ToyGenerator,
    ToyScorer,
    configured,
    done,
    drawn,
    drawn_score,
    extend,
    solve,
    step,
    texts,
    toy_search,
    unhurried,
)

from thinktime.core.allocation import shares
from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.transitions import Race
from thinktime.core.types import Capability, Extension, Node, Problem, Sampling, Score, model_of
from thinktime.core.usage import Budget
from thinktime.strategies import BUILT_IN, check, make, options, parse, prompts, require
from thinktime.strategies.search.a_star import AStar
from thinktime.strategies.search.early_rejection import EarlyRejection
from thinktime.strategies.search.ets import ETS
from thinktime.strategies.search.mcts import MCTS
from thinktime.strategies.search.rebase import Rebase

CAP = 20
SCORED = {Capability.SCORES, Capability.PROCESS_REWARD, Capability.SELF_EVALUATION}
REPLIES = {"generative_reward", "generative_verification", "solve_or_verify"}
"""Strategies that may score judgements and checks."""
SCORING = [name for name, kind in BUILT_IN.items() if kind.needs & SCORED or name in REPLIES]
TREE = [name for name in SCORING if {Capability.PROCESS_REWARD, Capability.STEPS} <= BUILT_IN[name].needs]
JUDGED = {"generative_reward": {"keep": 2, "unreadable": "plurality"}}
"""Strategies whose judgements are scored."""
PROBABILITIES = ["a_star", "best_first", "speculative_reasoning"]
"""Strategies that refuse scores outside 0..1."""


def two_steps_to_7(extension: Extension) -> Piece:
    """A whole solution answers 7; a solution of two steps does, too."""
    depth = len(extension.node.path)
    return done(f"so {extension.index} is 7") if extension.until == "done" or depth else step(f"so {extension.index}")


def readable(search: Search) -> set[str]:
    """The answers of the complete samples of a search."""
    complete = (record.node for record in search.trace.values() if record.node.done)
    return {answer for node in complete if (answer := ANSWERS.read(node.state)) is not None}


def some(nothing: float | None) -> Callable[[Node], float | None]:
    """Every second node has no score."""
    return lambda node: nothing if crc32(node.key.encode()) % 2 else 0.5


# Scores


@pytest.mark.parametrize("nothing", [None, nan, inf, -inf])
@pytest.mark.parametrize("name", SCORING)
def test_without_any_score_there_is_still_an_answer(name: str, nothing: float | None) -> None:
    answer = solve(configured(name, **JUDGED.get(name, {})), toy_search(two_steps_to_7, lambda node: nothing, cap=CAP))
    assert (answer.value, answer.finish) == ("7", "done")


@pytest.mark.parametrize("nothing", [None, nan, inf])
@pytest.mark.parametrize("name", SCORING)
def test_if_some_scores_are_missing_the_answer_is_a_sampled_one(name: str, nothing: float | None) -> None:
    for seed in range(5):
        search = toy_search(drawn, some(nothing), cap=CAP, seed=seed)
        answer = solve(configured(name, **JUDGED.get(name, {})), search)
        assert (answer.value in readable(search)) if readable(search) else (answer.finish == "incomplete")
        assert all(record.score in (None, 0.5) for record in search.trace.values())


@pytest.mark.parametrize("text", ["best_of_n:n=2", "weighted_majority:n=2"])
def test_a_missing_score_is_not_a_score_of_zero(text: str) -> None:
    answer = solve(parse(text)[1], toy_search({"0": done("is 5"), "1": done("is 7")}, {"0": None, "1": -3.0}))
    assert answer.value == "7"


@pytest.mark.parametrize(
    "text",
    [
        "beam_search:n=2,width=2",
        "dvts:n=2,width=2",
        "rebase:n=2",
        "ets:n=2",
        "mcts:n=1,width=2",
        "early_rejection:n=2,width=2,tau=3",
    ],
)
def test_a_step_without_a_score_is_not_treated_as_a_score_of_zero(text: str) -> None:
    """The other step has a score below zero, and it is chosen."""
    tree = {"0": step("a"), "1": step("b")}
    tree |= {f"{i}/{j}": done("is 5" if i == 0 else "is 7") for i in range(2) for j in range(2)}
    generator = ToyGenerator(tree)
    scores = dict.fromkeys(tree, 0.5) | {"0": None, "1": -3.0}
    assert solve(parse(text)[1], toy_search(generator, scores)).value == "7"
    assert {extension.node.path for batch in generator.asked[1:] for extension in batch} == {(1,)}


def test_a_star_gives_a_state_without_a_score_the_distance_of_its_parent() -> None:
    """a (.9) has children without scores: they come before b (.6), and their goal has no vote."""
    tree = {
        "0": step("a"), "1": step("b"), "0/0": step("c"), "0/1": step("d"),
        "0/0/0": done("is 5"), "0/0/1": step("e"), "1/0": done("is 7"), "1/1": done("is 7"),
    }  # fmt: skip
    scores = {"0": 0.9, "1": 0.6, "0/0": None, "0/1": 0.1, "0/0/0": None, "0/0/1": 0.1, "1/0": 0.5, "1/1": 0.5}
    generator = ToyGenerator(tree)
    assert solve(AStar(k=2), toy_search(generator, scores)).value == "5"
    assert [batch[0].node.path for batch in generator.asked] == [(), (0,), (0, 0)]
    both = solve(AStar(k=2, n_goals=2, edge_cost="zero"), toy_search(tree, scores))
    assert (both.value, both.share) == ("7", 1.0)


@pytest.mark.parametrize("score", [-3.0, 3.2])
@pytest.mark.parametrize("name", SCORING)
def test_scores_that_are_no_probabilities_are_used_or_refused_in_one_line(name: str, score: float) -> None:
    search = toy_search(two_steps_to_7, lambda node: score, cap=CAP)
    if name in PROBABILITIES:
        with pytest.raises(InputError, match=rf"score={score}: .* needs prefix scores in \[0, 1\]; take a scorer"):
            solve(configured(name, **JUDGED.get(name, {})), search)
    else:
        assert solve(configured(name, **JUDGED.get(name, {})), search).value == "7"


class Misfit(ToyScorer):
    """A reward model that returns the wrong number of step rewards for the nodes that ``some`` selects."""

    reason = "the endpoint gave 3 rewards for 4 steps"

    def __init__(self, some: Callable[[Node], bool]) -> None:
        super().__init__(lambda node: 0.5)
        self._some = some

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        scores = await super().score(problem, nodes, known)
        pairs = zip(nodes, scores, strict=True)
        return [Score(None, r.usage, reason=self.reason) if self._some(node) else r for node, r in pairs]


@pytest.mark.parametrize("name", SCORING)
def test_rewards_that_do_not_fit_the_steps_are_missing_and_if_all_are_missing_the_reason_is_raised(
    name: str,
) -> None:
    for seed in range(3):
        search = toy_search(drawn, Misfit(lambda node: some(None)(node) is None), cap=CAP, seed=seed)
        try:
            answer = solve(configured(name, **JUDGED.get(name, {})), search)
            assert (answer.value in readable(search)) if readable(search) else (answer.finish == "incomplete")
        except ModelError:
            assert all(record.score is None for record in search.trace.values())
        search = toy_search(drawn, Misfit(lambda node: True), cap=CAP, seed=seed)
        reads_nothing_here = name == "search_over_paths"
        with nullcontext() if reads_nothing_here else pytest.raises(ModelError, match=Misfit.reason):
            solve(configured(name, **JUDGED.get(name, {})), search)


# Temperature 0


ONE_SAMPLE = {"single", "delegate", "self_refine", "plan_then_solve", "speculative_reasoning"}
FITTED = "solve_or_verify:alpha_s=0.7,alpha_v=0.6"
OF_NOISE = {"zero_order", "search_over_paths"}
"""Strategies whose samples do not depend on the temperature."""
SEVERAL = [*(BUILT_IN.keys() - ONE_SAMPLE - OF_NOISE - {"solve_or_verify"}), FITTED, "mcts:width=1", "mcts:n=1"]
SEVERAL += ["delegate(majority:n=2)"]


@pytest.mark.parametrize("text", sorted(SEVERAL))
def test_more_than_one_sample_at_temperature_0_is_refused_before_the_first(text: str) -> None:
    generator = ToyGenerator(drawn)
    with pytest.raises(InputError, match=r"^temperature=0: \d+ samples would be the same; give more than 0, or n=1$"):
        solve(parse(text)[1], toy_search(generator, cap=CAP, temperature=0.0))
    assert generator.asked == []


@pytest.mark.parametrize(
    "text",
    ["single", "majority:n=1", "adaptive_consistency:n=1", "first_finish:n=1", "beam_search:n=1", "mcts:n=1,width=1"],
)
def test_one_sample_at_temperature_0_is_drawn(text: str) -> None:
    answer = solve(parse(text)[1], toy_search(two_steps_to_7, cap=CAP, temperature=0.0))
    assert (answer.value, answer.finish) == ("7", "done")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.5}, r"temperature=-0\.5: give 0 \(greedy\)"),
        ({"temperature": nan}, "temperature=nan: give 0"),
        ({"temperature": inf}, "temperature=inf: give 0"),
        ({"top_p": 0.0}, r"top_p=0\.0: give a number above 0"),
        ({"top_p": 1.5}, r"top_p=1\.5: give a number above 0"),
        ({"max_length": 0}, "max_length=0: give 1 or more"),
    ],
)
def test_impossible_sampling_settings_are_refused_in_one_line(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**values)  # type: ignore[arg-type]


def test_the_temperature_of_a_call_is_checked_like_that_of_the_search() -> None:
    generator = ToyGenerator(drawn)
    search = toy_search(generator)
    with pytest.raises(InputError, match="temperature=-1"):
        extend(search, [search.root], temperature=-1.0)
    assert generator.asked == []


# Numbers


NUMBERS = [(name, field, type(value)) for name in BUILT_IN for field, value in options(BUILT_IN[name]).items()]
WHOLE = [(name, field) for name, field, kind in NUMBERS if kind is int]
REAL = [(name, field) for name, field, kind in NUMBERS if kind is float]
EXPONENTS = {("solve_or_verify", "a"), ("solve_or_verify", "b")}
"""The exponents of a fitted law may be negative."""


@pytest.mark.parametrize("value", [-1, 10**6])
@pytest.mark.parametrize(("name", "field"), WHOLE)
def test_a_number_that_is_too_small_or_too_large_is_refused(name: str, field: str, value: int) -> None:
    with pytest.raises(InputError, match=rf"^{field}={value}: give \d+ or (more|fewer)$"):
        make(name, {field: value})


@pytest.mark.parametrize(("name", "field"), [pair for pair in WHOLE if pair[1] in ("n", "k", "width", "n_goals")])
def test_zero_is_refused(name: str, field: str) -> None:
    with pytest.raises(InputError, match=rf"^{field}=0: give \d or more$"):
        make(name, {field: 0})


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [(*pair, value) for pair in REAL for value in (-1.0, nan, inf) if value != -1 or pair not in EXPONENTS],
)
def test_a_negative_weight_and_nan_are_refused(name: str, field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^{field}={value}: give "):
        BUILT_IN[name](**{field: value})


def test_a_negative_number_of_children_is_refused() -> None:
    search = toy_search()
    with pytest.raises(InputError, match="n=-1: ask for 0 children or more"):
        extend(search, [search.root], [-1])


def test_a_race_without_a_winner_is_refused() -> None:
    with pytest.raises(InputError, match="k=0: give 1 or more; the race ends when k children have ended"):
        Race(0, lambda state: True)


# Nothing to choose from


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_budget_smaller_than_one_sample_gives_no_answer_and_no_error(name: str) -> None:
    generator = ToyGenerator(drawn)
    answer = solve(configured(name), toy_search(generator, cap=CAP, budget=Budget(tokens=1)))
    assert (answer.value, answer.node, answer.finish, answer.usage.generated_tokens) == (None, None, "incomplete", 0)
    assert generator.asked == []


@pytest.mark.parametrize("piece", [done("so what"), Piece("and so on", "length")])
@pytest.mark.parametrize("name", BUILT_IN)
def test_unreadable_samples_give_no_answer_and_no_error(name: str, piece: Piece) -> None:
    answer = solve(configured(name), toy_search(lambda extension: piece, cap=CAP))
    assert (answer.value, answer.finish) == (None, "incomplete")
    assert answer.usage.generated_tokens > 0


@pytest.mark.parametrize("name", TREE)
def test_steps_that_never_end_give_no_answer_and_no_error(name: str) -> None:
    answer = solve(configured(name), toy_search(lambda e: step(f"so {e.index} 7"), cap=CAP))
    assert (answer.value, answer.finish) == (None, "incomplete")


# Capabilities


@pytest.mark.parametrize(("name", "need"), [(name, need) for name in BUILT_IN for need in sorted(BUILT_IN[name].needs)])
def test_a_strategy_is_refused_if_one_of_its_needs_is_missing(name: str, need: str) -> None:
    without_chat = frozenset(Capability) - {Capability.CHAT}  # a chat model answers any prompt
    offered = without_chat.union({model_of("draft")}, (prompt.capability for prompt in prompts().values())) - {need}
    with pytest.raises(CapabilityError, match=re.escape(f"strategy='{name}': it needs {need}, which this model or")):
        require(name, make(name), offered)
    require(name, make(name), frozenset(Capability) | {model_of("draft")})


@pytest.mark.parametrize("name", TREE)
def test_a_search_over_steps_refuses_a_scorer_of_outcomes(name: str) -> None:
    scorer = ToyScorer(drawn_score)
    scorer.capabilities = frozenset({Capability.SCORES})
    with pytest.raises(CapabilityError, match="it needs process rewards"):
        check(name, make(name), toy_search(scorer=scorer))


def lacking(capability: Capability) -> ToyGenerator:
    generator = ToyGenerator(two_steps_to_7)
    generator.capabilities = generator.capabilities - {capability}
    return generator


@pytest.mark.parametrize("name", TREE)
def test_without_the_check_the_search_refuses_before_the_first_step(name: str) -> None:
    generator = lacking(Capability.STEPS)
    with pytest.raises(CapabilityError, match=r"generator='toy': it lacks step boundaries; take a strategy of whole"):
        solve(configured(name), toy_search(generator, cap=CAP))
    assert generator.asked == []


def test_a_race_is_refused_if_the_model_cannot_cancel_rows() -> None:
    generator = lacking(Capability.CANCEL)
    with pytest.raises(CapabilityError, match="it lacks cancelling a sample at once"):
        solve(make("first_finish"), toy_search(generator))
    assert generator.asked == []


def test_a_prefix_that_cannot_be_continued_is_refused_and_not_sampled_again() -> None:
    generator = lacking(Capability.PREFIX)
    search = toy_search(generator)
    steps = extend(search, [search.root], until="step")
    with pytest.raises(CapabilityError, match="it lacks prefix continuation"):
        extend(search, steps)
    assert len(generator.asked) == 1


# REBASE and ETS


@unhurried
@given(st.integers(1, 40), st.integers(0, 40), st.floats(-5, 5), st.floats(0.01, 3))
def test_equal_scores_get_equal_shares_and_rounding_adds_no_child(n: int, each: int, score: float, heat: float) -> None:
    assert shares([score] * n, n * each, heat) == [each] * n


@pytest.mark.parametrize("strategy", [Rebase(n=4), ETS(n=4)])
def test_a_path_cut_at_the_length_limit_keeps_its_slot_but_is_no_answer(strategy: Rebase | ETS) -> None:
    """One of four is too long; the other step gets the three remaining slots."""
    tree = {"0": step("a b c d e f g h i"), "1": step("b"), "2": done("what"), "3": done("what")}
    tree |= {"1/0": done("is 7"), "1/1": done("is 7"), "1/2": done("is 7")}
    generator = ToyGenerator(tree)
    answer = solve(strategy, toy_search(generator, lambda node: 0.9 if node.path == (0,) else 0.5, cap=8))
    assert [len(batch) for batch in generator.asked] == [4, 1]
    assert answer.value == "7"


def test_identical_siblings_count_as_one_kind_of_step_for_ets() -> None:
    """Three steps are identical; with the largest weight on coverage, one of them and the fourth step are kept."""
    tree = {"0": step("so on"), "1": step("so on"), "2": step("so on"), "3": step("but then why")}
    tree |= {f"{i}/{j}": done("is 7") for i in range(4) for j in range(4)}
    search = toy_search(tree, lambda node: 0.5)
    solve(ETS(n=4, node_price=4.0, coverage=100.0), search)
    assert search.events[0]["kept"] == 2


# Early rejection


def test_an_unfinished_step_is_scored_and_continues_from_its_own_ids() -> None:
    tree = {"0": step("a b c"), "1": step("d e f"), "0/0": step("c"), "0/0/0": done("is 7"), "0/0/1": done("is 7")}
    scorer = ToyScorer(dict.fromkeys(tree, 0.5) | {"1": 0.1})
    search = toy_search(tree, scorer)
    assert solve(EarlyRejection(n=2, width=2, tau=2), search).value == "7"
    assert [texts(batch) for batch in scorer.asked[:2]] == [["a b", "d e"], ["a b c"]]
    (begun,), (ended,) = ([r.node for r in search.trace.values() if r.node.path == path] for path in [(0,), (0, 0)])
    assert ended.state.ids[:2] == begun.state.ids


def test_identical_steps_keep_their_own_scores_and_continuations() -> None:
    tree = {"0": step("a b c"), "1": step("a b c"), "0/0": step("c"), "1/0": step("c")}
    tree |= {f"{i}/0/0": done(f"is {5 + 2 * i}") for i in range(2)}
    scores = {"0": 0.5, "1": 0.6, "0/0": 0.2, "1/0": 0.3, "0/0/0": 0.1, "1/0/0": 0.9}
    search = toy_search(tree, scores)
    answer = solve(EarlyRejection(n=2, width=1, tau=2), search)
    assert (answer.value, answer.share) == pytest.approx(("7", 0.9))
    assert {record.node.path: record.score for record in search.trace.values() if record.node.path} == {
        tuple(map(int, index.split("/"))): value for index, value in scores.items()
    }


def test_a_solution_of_an_earlier_round_votes_at_the_end() -> None:
    """5 ends at once with .9 and takes a slot; the other step has two children with .3 each."""
    tree = {"0": done("is 5"), "1": step("b c"), "2": step("c"), "3": step("d"), "1/0": done("7"), "1/1": done("7")}
    scores = {"0": 0.9, "1": 0.8, "2": 0.1, "3": 0.1, "1/0": 0.3, "1/1": 0.3}
    answer = solve(EarlyRejection(n=4, width=2, tau=4), toy_search(tree, scores))
    assert (answer.value, answer.share) == pytest.approx(("5", 0.9 / 1.5))


# MCTS


def test_a_batch_larger_than_the_number_of_leaves_extends_all_leaves() -> None:
    generator = ToyGenerator({"0": step("a"), "1": step("b"), "0/0": done("is 7"), "1/0": done("is 7")} | {
        f"{i}/{j}": done("is 7") for i in range(2) for j in range(1, 4)
    })  # fmt: skip
    answer = solve(MCTS(n=64, width=2, batch=64), toy_search(generator, lambda node: 0.5))
    assert [len(batch) for batch in generator.asked] == [2, 1, 4]
    assert (answer.value, answer.finish) == ("7", "done")
