"""The cost of a score: the tokens that are new to the search, each once, whatever is stored elsewhere.

The prompt of the toy has five words.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_budget import BUDGETS, outcome_of
from toy import (
    MemoryJournal,
    ToyScorer,
    done,
    drawn,
    drawn_score,
    extend,
    score,
    solve,
    step,
    toy_search,
    unhurried,
)

from thinktime.core.scores import score_key
from thinktime.core.search import Search
from thinktime.core.types import Node
from thinktime.core.usage import Budget
from thinktime.generators.recorded import BankedGenerator
from thinktime.prompts.common import REVISE
from thinktime.scorers.recorded import BankedScorer
from thinktime.strategies import Strategy, parse

PROMPT = 5
TREE = {
    "0": step("well then"),
    "0/0": step("so so so"),
    "0/0/0": done("7"),
    "0/0/1": done("is 8"),
    "1": done("so 7"),
}
SEARCHES = [
    "best_of_n:n=6",
    "beam_search:n=8,width=2",
    "dvts:n=8,width=4",
    "rebase:n=6",
    "particle_filter:n=6",
    "early_rejection:n=8,tau=2",
    "a_star:k=3",
    "mcts:n=4",
]


def parsed(label: str) -> Strategy:
    return parse(label)[1]


def grown(search: Search) -> tuple[Node, Node, Node, Node, Node]:
    """A step, a second step after it, two ends after that, and another end from the root."""
    first, other = extend(search, [search.root], 2, until="step")
    (second,) = extend(search, [first], until="step")
    left, right = extend(search, [second], 2)
    return first, second, left, right, other


def charged(search: Search, *calls: list[Node]) -> list[int]:
    """The tokens that each call of `Search.score` is charged."""
    costs = []
    for nodes in calls:
        before = search.ledger.spent.scorer_tokens
        score(search, nodes)
        costs.append(search.ledger.spent.scorer_tokens - before)
    return costs


def test_the_first_score_pays_for_the_prompt_and_each_score_for_its_new_tokens() -> None:
    search = toy_search(TREE, lambda node: 0.5)
    first, second, left, right, other = grown(search)
    assert charged(search, [first], [other], [second], [left], [right]) == [PROMPT + 2, 2, 3, 1, 2]
    assert search.ledger.spent.scorer_flops == PROMPT + 10


def test_nodes_of_one_call_do_not_pay_for_tokens_of_an_earlier_node() -> None:
    search = toy_search(TREE, lambda node: 0.5)
    first, second, left, right, other = grown(search)
    assert charged(search, [first, second, left, right, other]) == [PROMPT + 2 + 3 + 1 + 2 + 2]


def test_an_end_pays_for_the_unscored_steps_before_it_and_later_nodes_do_not() -> None:
    search = toy_search(TREE, lambda node: 0.5)
    first, second, left, right, _ = grown(search)
    assert charged(search, [left], [right], [second, first]) == [PROMPT + 2 + 3 + 1, 2, 0]
    assert search.ledger.spent.scorer_calls == 4


def test_a_scored_root_has_paid_for_the_prompt() -> None:
    search = toy_search(TREE, lambda node: 0.5)
    first, *_ = grown(search)
    assert charged(search, [search.root], [first]) == [PROMPT, 2]


def test_below_another_root_a_node_is_charged_for_what_differs_from_the_first_scored_node() -> None:
    """A revision has the prompt "what is 3 + 4", a leaf of two words and "revise", and writes one word."""
    search = toy_search(lambda e: done("8" if len(e.node.state.prompt) > PROMPT else ("so 7", "well 7")[e.index]))
    leaves = extend(search, [search.root], 2)
    roots = [search.ask(REVISE, [leaf]) for leaf in leaves]
    revised = extend(search, [root for root in roots if root])
    assert charged(search, [revised[1]], [leaves[0]], [leaves[1]], [revised[0]]) == [PROMPT + 3 + 1, 2, 2, 3 + 1]


def test_a_score_that_the_budget_refuses_pays_for_no_other_node() -> None:
    """Five words cost 10 of 16 FLOPs; the long step needs 9 more, and the prompt and the short step 6."""
    script = {"0": step("so so so so"), "1": step("so")}
    search = toy_search(script, lambda node: 0.5, budget=Budget(flops=16), cap=4)
    assert score(search, extend(search, [search.root], 2, until="step")) == [None, 0.5]
    assert (search.ledger.spent.scorer_tokens, search.exhausted) == (PROMPT + 1, True)


def test_a_node_is_scored_once_in_a_search_and_keeps_its_score_when_the_budget_is_used_up() -> None:
    scorer = ToyScorer({"0": 0.3, "1": 0.9})
    search = toy_search(TREE, scorer, budget=Budget(flops=2 * 4 + PROMPT + 2), cap=2)
    first, other = extend(search, [search.root], 2, until="step")
    assert score(search, [first]) == [0.3]
    assert score(search, [first, other]) == [0.3, None]
    assert search.exhausted
    assert [search.trace[node.key].score for node in (first, other)] == [0.3, None]
    assert [len(batch) for batch in scorer.asked] == [1]


@unhurried
@given(st.sampled_from(SEARCHES).map(parsed), BUDGETS, st.integers(0, 1000))
def test_every_token_on_a_scored_path_is_charged_once(strategy: Strategy, budget: Budget, seed: int) -> None:
    search = toy_search(drawn, budget=budget, seed=seed, cap=20)
    usage = solve(strategy, search).usage
    read = [record.node for record in search.trace.values() if record.steps]
    paths = {above for node in read for above in node.lineage()}
    assert usage.scorer_tokens == sum(node.usage.generated_tokens for node in paths) + (PROMPT if read else 0)
    assert usage.scorer_calls == len(read)
    if budget.flops is not None:
        assert (usage.flops or 0) + (usage.scorer_flops or 0) <= budget.flops


@pytest.mark.parametrize("label", ["beam_search:n=8,width=2", "rebase:n=6", "particle_filter:n=6"])
def test_if_every_node_is_scored_the_charge_is_the_prompt_and_all_generated_tokens(label: str) -> None:
    for seed in range(20):
        usage = solve(parsed(label), toy_search(drawn, drawn_score, seed=seed, cap=20)).usage
        assert usage.scorer_tokens == PROMPT + usage.generated_tokens


@unhurried
@given(st.sampled_from([*SEARCHES, "revision:n=6,chains=2"]).map(parsed), st.integers(1, 60), st.integers(0, 1000))
def test_a_replay_is_charged_as_the_live_run(strategy: Strategy, tokens: int, seed: int) -> None:
    journal, budget = MemoryJournal(), Budget(tokens=tokens)
    live = toy_search(drawn, seed=seed, journal=journal, budget=budget)
    replay = toy_search(BankedGenerator("toy"), BankedScorer("toy-scorer"), seed=seed, journal=journal, budget=budget)
    assert outcome_of(live, solve(strategy, live)) == outcome_of(replay, solve(strategy, replay))


@unhurried
@given(st.permutations(SEARCHES[:4]), st.integers(0, 1000))
def test_scores_of_other_searches_in_the_journal_change_no_account(labels: list[str], seed: int) -> None:
    journal = MemoryJournal()
    for label in labels:
        alone, shared = toy_search(drawn, seed=seed), toy_search(drawn, seed=seed, journal=journal)
        assert outcome_of(shared, solve(parsed(label), shared)) == outcome_of(alone, solve(parsed(label), alone))


def test_a_score_is_banked_under_its_node_and_the_known_node() -> None:
    journal = MemoryJournal()
    search = toy_search(TREE, lambda node: 0.5, journal=journal)
    first, _, left, right, _ = grown(search)
    score(search, [first, left, right])
    second = left.parent
    keys = [score_key(first, None), score_key(left, first), score_key(right, second)]
    assert [key for key, _ in journal.scores] == keys
    assert [score.usage.scorer_tokens for score in journal.scores.values()] == [PROMPT + 2, 3 + 1, 2]


def test_a_generation_that_the_budget_cut_does_not_get_the_score_of_the_whole_sample() -> None:
    """6 tokens cover a sample of 2 words and the first 4 of the 5 words of the next one."""
    script, journal = {"0": done("so 7"), "1": done("so so so so 5")}, MemoryJournal()
    poor, rich = (
        toy_search(script, lambda node: float(len(node.state.ids)), budget=budget, journal=journal, cap=6)
        for budget in (Budget(tokens=6), None)
    )
    assert score(poor, extend(poor, [poor.root], 2)) == [2.0, 4.0]
    assert score(rich, extend(rich, [rich.root], 2)) == [2.0, 5.0]
