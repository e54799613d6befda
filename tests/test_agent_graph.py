"""Graphs of answers: their text form, what runs in which order, several models, and bad input."""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from test_skills import Short, Talker, talk
from toy import ANSWERS, PROBLEM, ToyGenerator, drawn, solve, toy_search

from experiments.agent_reinforce.surface import TASKS, accuracy, grid, optimum, space
from thinktime.core.errors import CapabilityError, InputError, ModelError, UnknownNameError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Sampling
from thinktime.core.usage import Budget
from thinktime.models.engine.costs import Shape, forward_flops
from thinktime.planning.graph_advisors import (
    GraphAdvice,
    LanguageModelAdvisor,
    RuleBasedAdvisor,
    advisor_prompt,
    read_advice,
)
from thinktime.planning.graph_search import GraphTable, ParzenGraphs, RandomGraphs, Reinforce, search_graphs
from thinktime.planning.graph_space import GraphModel, GraphSpace
from thinktime.strategies import check, make, parse, spec
from thinktime.strategies.composition.agent_graph import FUSER, AgentGraph, Graph, GraphNode
from thinktime.testing import WORD_PROMPTS

SMALL, MEDIUM = GraphModel(1e6, 4, 128), GraphModel(3e6, 6, 192, seconds=2.0)
SPACE = GraphSpace({"small": SMALL, "medium": MEDIUM}, 200, 100, 6, "medium")


def run(nodes: str, replies: dict[str, str], **options: Any) -> tuple[str | None, Search]:
    search = talk(replies, cap=20, **options)
    return solve(AgentGraph(nodes), search).value, search


# The strategy


def test_the_last_node_reads_the_answers_of_its_parents_in_their_order() -> None:
    replies = {"#0": "so 5", "#1": "is 7", "is 7 so 5 aggregate#0": "well 9"}
    value, search = run("assistant;assistant;fuser<2+1", replies)
    assert value == "9" and search.ledger.spent.model_calls == 3


def test_an_assistant_improves_what_it_reads_and_a_chain_is_sequential() -> None:
    replies = {"#0": "so 5", "so 5 revise#0": "is 6", "is 6 revise#0": "be 7"}
    value, search = run("assistant;assistant<1;assistant<2", replies)
    assert value == "7"
    log = search.events[-1]["nodes"]
    assert [search.trace[log[n]].node.state.text for n in (1, 2, 3)] == ["so 5", "is 6", "be 7"]


def test_nodes_that_ask_the_same_get_different_replies_of_one_question() -> None:
    replies = {"#0": "so 5", "so 5 revise#0": "is 6", "so 5 revise#1": "is 7", "is 6 is 7 aggregate#0": "so 8"}
    assert run("assistant;assistant<1;assistant<1;fuser<2+3", replies)[0] == "8"


def test_nodes_that_reach_no_decision_neither_run_nor_cost() -> None:
    value, search = run("assistant;assistant<1;assistant;assistant<3", {"#0": "so 5", "so 5 revise#0": "is 6"})
    assert value == "6" and search.ledger.spent.model_calls == 2
    assert Graph.parse("assistant;assistant<1;assistant;assistant<3").used == {2, 3}


def test_a_node_before_its_parents_runs_after_them() -> None:
    graph = Graph.parse("fuser<3;assistant<1;assistant;fuser<2")
    assert graph.levels == ((2,), (0,), (1,), (3,))


def test_an_incomplete_reply_is_not_passed_on() -> None:
    """The fuser reads one answer only; an assistant that has nothing to read answers alone."""
    long = "so " * 30 + "5"
    assert run("assistant;assistant;fuser<1+2", {"#0": long, "#1": "is 7", "is 7 aggregate#0": "well 9"})[0] == "9"
    assert run("assistant;assistant<1", {"#0": long, "#1": "is 7"})[0] == "7"
    assert run("assistant;fuser<1", {"#0": long})[0] is None


def test_a_question_that_does_not_fit_is_left_out() -> None:
    search = toy_search(Short({"#0": "so 5", "#1": "is 5"}), None, cap=20)
    assert solve(AgentGraph(), search).value == "5"


def test_without_a_readable_decision_the_answers_before_it_vote() -> None:
    replies = {"#0": "so 5", "#1": "is 7", "#2": "so 7", "so 5 is 7 so 7 aggregate#0": "well ?"}
    assert run("assistant;assistant;assistant;fuser<1+2+3", replies)[0] == "7"


def test_a_budget_ends_the_graph_and_the_answers_so_far_vote() -> None:
    replies = {"#0": "so 5", "#1": "is 5", "so 5 is 5 aggregate#0": "well 9"}
    value, search = run("assistant;assistant;fuser<1+2", replies, budget=Budget(calls=2))
    assert value == "5" and search.exhausted


def test_models_are_roles_of_the_search() -> None:
    models = {
        "main": Talker({"so 5 is 7 aggregate#0": "well 9"}),
        "draft": Talker({"#0": "so 5", "#1": "is 7"}),
    }
    search = Search(PROBLEM, models, answers=ANSWERS, prompts=WORD_PROMPTS, sampling=Sampling(max_length=20))
    strategy = AgentGraph("assistant.draft;assistant.draft;fuser<1+2")
    check("agent_graph", strategy, search)
    answer = solve(strategy, search)
    assert answer.value == "9"
    calls = {role: usage.model_calls for (_, role), usage in answer.accounts.items()}
    assert calls == {"model draft": 2, "model main": 1}


def test_the_text_of_a_graph_is_read_as_the_same_graph() -> None:
    for text in ("assistant", "assistant;assistant.draft;fuser<1+2", "fuser.big<2;assistant.small;assistant<1"):
        assert str(Graph.parse(text)) == text
    strategy = parse("agent_graph:nodes=assistant;assistant.draft;fuser<1+2")[1]
    assert spec(strategy) == "agent_graph:nodes=assistant;assistant.draft;fuser<1+2"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("", "nodes='': name at least one node"),
        (" ", "name at least one node"),
        ("assistant<2;assistant<1;fuser<1+2", "there is a cycle: 1 < 2 < 1"),
        ("assistant;assistant<4;assistant<2;assistant<3;fuser<1", "there is a cycle: 2 < 4 < 3 < 2"),
        ("assistant<1", "there is a cycle: 1 < 1"),
        ("assistant;fuser<1;fuser<2;fuser<3", "node 3 is a fuser; let it read the answer of an assistant"),
        ("fuser", "node 1 is a fuser; let it read the answer of an assistant"),
        ("fuser;assistant<1", "node 1 is a fuser"),
        ("assistant;fuser<3", r"node 2 reads \[3\]; the nodes are 1 to 2"),
        ("assistant;fuser<0", r"node 2 reads \[0\]; the nodes are 1 to 2"),
        ("assistant;fuser<1+1", r"node 2 reads \[1, 1\]; name each node once"),
        ("assistant;assistant", "node 2 decides; let it read an answer"),
        ("assistant;fuser<one", r"write node 2 as role\.model<1\+2"),
        ("assistant;fuser<", r"write node 2 as role\.model<1\+2"),
        ("assistant.;fuser<1", r"write node 1 as role\.model<1\+2"),
    ],
)
def test_a_graph_that_is_none_is_refused_in_one_line(nodes: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make("agent_graph", {"nodes": nodes})


def test_an_unknown_role_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="nodes='fusor': unknown; did you mean 'fuser'"):
        AgentGraph("assistant;fusor<1")


def test_a_role_that_no_model_fills_is_refused_before_a_token() -> None:
    generator = ToyGenerator(drawn)
    with pytest.raises(CapabilityError, match="a node runs on model='judge'; the search has draft, main"):
        check("agent_graph", AgentGraph("assistant.judge;fuser<1"), toy_search(generator))
    assert generator.asked == []


def test_a_fuser_on_a_model_that_does_not_merge_is_refused() -> None:
    skilled, plain = ToyGenerator(drawn, name="skilled"), ToyGenerator(drawn, name="plain")
    skilled.capabilities = skilled.capabilities | {Capability.CHAT}
    search = Search(PROBLEM, {"main": skilled, "draft": plain}, answers=ANSWERS)
    check("agent_graph", AgentGraph("assistant.draft;fuser<1"), search)
    with pytest.raises(CapabilityError, match=r"fuser\.draft needs the prompt 'aggregate', which the model 'plain'"):
        check("agent_graph", AgentGraph("assistant;fuser.draft<1"), search)


def test_a_graph_without_fusers_needs_no_such_prompt() -> None:
    assert AgentGraph("assistant").needs == {Capability.ANSWERS}
    assert AgentGraph("assistant;assistant<1").needs == {Capability.ANSWERS, "the prompt 'revise'"}


# The budget


def test_the_cost_of_a_node_is_the_formula_of_the_card() -> None:
    """Worked by hand for M = 10, L = 2, D = 3, A = 5, B = 4 and two answers read: Np = 13, Nd = 4."""
    within = GraphSpace({"m": GraphModel(10, 2, 3)}, 5, 4, 3, "m")
    by_hand = 2 * 10 * 13 + 2 * 2 * 3 * 13 * 14 + 2 * 10 * 4 + 2 * 2 * 3 * 4 * (2 * 13 + 4 + 1)
    assert within.node_flops("m", 2) == by_hand == 4012


def test_the_cost_of_a_node_is_that_of_our_engine() -> None:
    shape = Shape(4, 2, 2, 64, 1_000_000, 2)
    prompt, answer = 200 + 3 * 100, 100
    engine = forward_flops(shape, prompt, 0) + forward_flops(shape, answer, prompt)
    assert SPACE.node_flops("small", 3) == engine


def test_the_limit_is_a_graph_in_which_every_node_reads_all_earlier_ones() -> None:
    full = Graph(
        (
            *(GraphNode(model="small", parents=tuple(range(n))) for n in range(6)),
            GraphNode(FUSER, "medium", (*range(6),)),
        )
    )
    assert SPACE.cost(full) == pytest.approx(SPACE.limit)


def test_an_answer_that_is_read_costs_more_than_a_node_that_reads_nothing() -> None:
    alone, reading = (
        Graph.parse("assistant.small;assistant.small;fuser.medium<2"),
        Graph.parse("assistant.small;assistant.small<1;fuser.medium<2"),
    )
    assert SPACE.cost(alone) == SPACE.node_flops("small", 0) + SPACE.node_flops("medium", 1)
    assert SPACE.cost(reading) == SPACE.cost(alone) + SPACE.node_flops("small", 1)


def test_combinations_leave_no_room_for_another_node() -> None:
    """Each node reads one answer, and the decision all of them."""
    within = replace(SPACE, budget=4, flops=5 * SPACE.node_flops("small", 1) + SPACE.node_flops("medium", 3))
    assert SPACE.node_flops("medium", 1) == pytest.approx(3 * SPACE.node_flops("small", 1), rel=0.2)
    found = within.combinations
    assert {"small": 1, "medium": 1} in found or {"small": 2, "medium": 1} in found
    for counts in found:
        n = sum(counts.values())
        cost = sum(k * within.node_flops(name, 1) for name, k in counts.items())
        assert cost + within.node_flops("medium", n) <= within.limit
        more = cost + within.node_flops("small", 1) + within.node_flops("medium", n + 1)
        assert n == within.budget or more > within.limit


def test_the_seconds_of_a_graph_are_those_of_its_slowest_chain() -> None:
    models = {"a": replace(SMALL, seconds=1.0), "b": replace(MEDIUM, seconds=5.0)}
    within = GraphSpace(models, 200, 100, 6, "a")
    assert within.seconds(Graph.parse("assistant.a;assistant.a<1;assistant.b;fuser.a<2+3")) == 6
    assert within.seconds(Graph.parse("assistant.a;assistant.a<1;fuser.a<2")) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flops": 1e6}, "the cheapest node costs 6.*e.* and the node that decides 2.*; give their sum"),
        ({"budget": 0}, "budget=0: give 1 or more"),
        ({"budget": 33}, "budget=33: give 32 nodes or fewer"),
        ({"models": {}}, "name at least one"),
        ({"decision": "judge"}, "decision='judge': unknown"),
        ({"answer_tokens": 0}, "answer_tokens=0: give a number above 0"),
        ({"edge_temperature": 0}, "edge_temperature=0: give a number above 0"),
        ({"max_depth": 0}, "max_depth=0: give 1 or more"),
    ],
)
def test_a_space_without_graphs_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SPACE, **change)  # type: ignore[arg-type]


def test_a_model_without_sizes_or_outside_of_the_table_is_named() -> None:
    for name in ("parameters", "layers", "width"):
        with pytest.raises(InputError, match=f"{name}=0"):
            replace(SMALL, **{name: 0})
    with pytest.raises(UnknownNameError, match="model='large': unknown"):
        SPACE.cost(Graph.parse("assistant.large;fuser.medium<1"))


# Draws


def test_draws_are_legal_and_within_the_limit() -> None:
    searcher = RandomGraphs(replace(SPACE, edge_temperature=4.0, max_in_degree=2, max_depth=2))
    for _ in range(60):
        graph = searcher.ask()
        assert SPACE.cost(graph) <= SPACE.limit and graph.used == set(range(len(graph.nodes)))
        assert all(len(node.parents) <= 2 for node in graph.nodes[:-1])
        assert len([level for level in graph.levels if level]) <= 3
        assert graph.nodes[-1].role == FUSER and graph.nodes[-1].model == "medium"


def test_a_node_that_reads_a_fuser_is_an_assistant() -> None:
    edges = np.triu(np.ones((3, 4), dtype=bool), 1)
    graph = SPACE.legal(["small"] * 3, edges, [True, True, True], np.random.default_rng(0))
    assert graph is not None and [node.role for node in graph.nodes] == ["assistant", "fuser", "assistant", "fuser"]


def test_over_the_limit_nodes_of_the_smallest_model_go_first() -> None:
    within = replace(
        SPACE, flops=SPACE.node_flops("medium", 0) + SPACE.node_flops("medium", 2) + SPACE.node_flops("small", 0)
    )
    edges = np.zeros((4, 5), dtype=bool)
    edges[:, -1] = True
    graph = within.legal(["small", "medium", "small", "small"], edges, [False] * 4, np.random.default_rng(0))
    assert graph is not None and within.cost(graph) <= within.limit
    assert sorted(node.model for node in graph.nodes) == ["medium", "medium", "small"]


def test_draws_without_an_edge_to_the_decision_are_dropped_and_at_last_an_error() -> None:
    table = GraphTable.of(SPACE)
    table.edges[:] = -50
    with pytest.raises(InputError, match="tries=20: no graph was legal"):
        table.draw(replace(SPACE, tries=20), np.random.default_rng(0))


def test_the_gradient_of_a_draw_is_that_of_its_log_probability() -> None:
    """Its mean over many draws is zero, and a part that was drawn pulls its logit up."""
    rng, table = np.random.default_rng(0), GraphTable.of(replace(SPACE, edge_temperature=2.0))
    drawn_tables = [table.draw(SPACE, rng)[1] for _ in range(400)]
    assert np.abs(np.mean([each.fusers for each in drawn_tables], 0)).max() < 0.15
    assert np.abs(np.mean([each.models for each in drawn_tables], 0)).max() < 0.15
    likely = 1 / (1 + np.exp(1.0))
    assert {round(float(x), 6) for each in drawn_tables[:50] for x in each.edges[0, 1:]} == {
        round(1 - likely, 6),
        round(-likely, 6),
    }


# Searches


def test_reinforce_moves_towards_what_scores_and_equal_scores_move_nothing() -> None:
    searcher = Reinforce(SPACE, lr=0.5)
    for _ in range(60):
        graph = searcher.ask()
        searcher.tell(graph, sum(node.model == "medium" for node in graph.nodes[:-1]) / len(graph.nodes))
    shares = np.exp(searcher.table.models) / np.exp(searcher.table.models).sum(1, keepdims=True)
    assert shares[:, list(SPACE.models).index("medium")].mean() > 0.6
    flat = Reinforce(SPACE)
    for _ in range(6):
        flat.tell(flat.ask(), 0.0)
    assert (flat.table.models == 0).all() and (flat.table.edges == GraphTable.of(SPACE).edges).all()


def test_a_search_returns_the_best_graph_by_a_fresh_batch_and_not_the_last_one() -> None:
    """The luckiest graph of the search is not the best of the fresh batch."""
    batches: list[int] = []

    def measure(graph: Graph, batch: int) -> float:
        batches.append(batch)
        lucky = len(graph.nodes) == 2 and batch != 12
        return 1.0 if lucky else len(graph.nodes) / 10

    found = search_graphs(RandomGraphs(SPACE), measure, 12)
    assert batches == [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 12, 12]
    fresh = found.history[-3:]
    assert found.score == max(each.score for each in fresh) and len({each.graph for each in fresh}) == 3
    assert found.graph == max(fresh, key=lambda each: each.score).graph


def test_pretests_share_a_batch() -> None:
    advisor, batches = RuleBasedAdvisor(SPACE, variants=3), list[int]()

    def measure(graph: Graph, batch: int) -> float:
        batches.append(batch)
        return 0.5

    search_graphs(advisor, measure, 20)
    assert batches[:8] == [0] * 8 and batches[8:17] == list(range(1, 10))


@pytest.mark.parametrize(("evaluations", "message"), [(3, "evaluations=3: give more than top=3"), (0, "evaluations=0")])
def test_too_few_evaluations_are_refused(evaluations: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search_graphs(RandomGraphs(SPACE), lambda graph, batch: 0.0, evaluations)


def test_the_rules_score_models_alone_and_spend_on_the_better_ones() -> None:
    for best in ("small", "large"):
        advisor = RuleBasedAdvisor(space(8))
        for name in ("small", "medium", "large"):
            graph = advisor.ask()
            assert {node.model for node in graph.nodes[:-1]} == {name}
            advisor.tell(graph, 0.9 if name == best else 0.1)
        first, _ = advisor.chosen()
        assert max(first, key=lambda name: first[name] * advisor.space.node_flops(name, 1)) == best


def test_the_rules_can_start_from_a_known_combination() -> None:
    advisor = RuleBasedAdvisor(SPACE, combination={"small": 2, "medium": 1})
    assert advisor.pretests == 1
    assert sorted(node.model for node in advisor.ask().nodes) == ["medium", "medium", "small", "small"]


def test_the_rules_use_every_node_and_let_small_models_read_two_answers() -> None:
    advisor = RuleBasedAdvisor(replace(SPACE, edge_temperature=4.0))
    advice = GraphAdvice(["small"] * 4 + ["medium"], np.full((5, 6), 0.7), np.full(5, 0.5))
    wide = replace(SPACE, budget=12)
    advisor.space = wide
    for _ in range(50):
        graph = advisor._draw(advice)
        assert sorted(node.model for node in graph.nodes[:-1]) == sorted(advice.models)
        assert all(len(node.parents) <= 2 for node in graph.nodes[:-1] if node.model == "small")


def test_tpe_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ModelError, match=r"TPE needs optuna: pip install 'thinktime\[search\]'"):
        ParzenGraphs(SPACE)


def test_tpe_finds_what_scores() -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'thinktime[search]'")
    within = replace(SPACE, budget=2)

    def measure(graph: Graph, batch: int) -> float:
        return len(graph.nodes) / 10

    assert len(search_graphs(ParzenGraphs(within), measure, 15).graph.nodes) == 3


# The language model as the advisor

GOOD = """I look at the graph.
Graph:
1 assistant <
2 fuser < 1
decision < 1 2
Edges:
1 > 2 0.25
1 > decision 1.0
2 > decision 0.5
"""


def test_the_advice_of_a_language_model_is_read() -> None:
    edges, table, fusers = read_advice(GOOD, 2)
    assert edges.tolist() == [[False, True, True], [False, False, True]]
    assert (table[0].tolist(), table[1].tolist(), fusers.tolist()) == ([0, 0.25, 1.0], [0, 0, 0.5], [False, True])
    assert read_advice(GOOD.replace("Graph:", "**Graph:**").replace("Edges:", "### Edges"), 2)[2].tolist() == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Edges:", "Weights:", "reply='edges': this section is missing"),
        ("Graph:", "", "reply='graph': this section is missing"),
        ("2 fuser < 1\n", "", "write 3 lines in the section Graph"),
        ("2 fuser < 1", "3 fuser < 1", "this line has to be about node 2"),
        ("2 fuser < 1", "2 fuser < 2", "node 2 reads only nodes 1 to 1"),
        ("decision < 1 2", "decision < 1 9", "node decision reads only nodes 1 to 2"),
        ("2 fuser < 1", "2 fuser < one", "node 2 reads only nodes 1 to 1"),
        ("1 > 2 0.25\n", "", "write 3 lines in the section Edges"),
        ("1 > 2 0.25", "2 > 1 0.25", "write 1 > 2 and a probability"),
        ("1 > 2 0.25", "1 > 2 1.25", "write 1 > 2 and a probability"),
        ("1 > 2 0.25", "1 > 2 0.2.5", "write 1 > 2 and a probability"),
        ("1 > 2 0.25", "1 > 2 likely", "write 1 > 2 and a probability"),
    ],
)
def test_advice_that_cannot_be_used_says_why(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_advice(GOOD.replace(old, new), 2)


def advised(replies: list[str], budget: int = 2) -> tuple[LanguageModelAdvisor, list[str]]:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return replies[min(len(prompts), len(replies)) - 1]

    return LanguageModelAdvisor(replace(SPACE, budget=budget), reply), prompts


def test_a_language_model_proposes_graphs_after_the_pretests() -> None:
    advisor, prompts = advised([GOOD])
    advisor.advice = GraphAdvice(["small", "small"], np.full((2, 3), 0.1), np.full(2, 0.5))
    advisor.history = [(Graph.parse("assistant.small;fuser.medium<1"), 0.375)]
    graph = advisor.next_graph(advisor.advice)
    assert str(graph) == "assistant.small;fuser.small<1;fuser.medium<1+2"
    assert "Its score: 0.375" in prompts[0] and "2 > decision 0.100" in prompts[0]
    assert "decision fuser medium < 1" in prompts[0]
    assert advisor.advice.edges[0, 2] == 0.999, "probabilities stay within 0.001 and 0.999"


def test_an_unusable_reply_is_asked_for_again_and_then_raised_with_the_reply() -> None:
    advisor, prompts = advised(["no idea", GOOD])
    advice = GraphAdvice(["small", "small"], np.full((2, 3), 0.1), np.full(2, 0.5))
    advisor.history = [(Graph.parse("assistant.small;fuser.medium<1"), 0.375)]
    assert advisor.next_graph(advice) and "Your last reply cannot be used: reply='graph'" in prompts[1]
    assert len(advisor.unusable) == 1
    stubborn, prompts = advised(["no idea"])
    stubborn.history = advisor.history
    with pytest.raises(ModelError, match="no usable reply in 3 attempts; the last one: no idea"):
        stubborn.next_graph(advice)
    assert len(prompts) == 3
    unread, _ = advised([GOOD.replace("decision < 1 2", "decision <")])
    unread.history = advisor.history
    with pytest.raises(ModelError, match="no usable reply"):
        unread.next_graph(advice)


def test_the_prompt_shows_its_own_format() -> None:
    example = advisor_prompt(
        SPACE,
        GraphAdvice(["small"] * 2, np.zeros((2, 3)), np.zeros(2)),
        Graph.parse("assistant.small;fuser.medium<1"),
        0.5,
    )
    assert read_advice(example[example.rindex("Graph:") :], 2)[0].tolist() == [
        [False, True, False],
        [False, False, True],
    ]


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Reinforce(SPACE, lr=0), "lr=0: give a number above 0"),
        (lambda: Reinforce(SPACE, batch=0), "batch=0: give 1 or more"),
        (lambda: RuleBasedAdvisor(SPACE, step=1.0), "step=1.0: give a number between 0 and 1"),
        (lambda: RuleBasedAdvisor(SPACE, variants=0), "variants=0: give 1 or more"),
        (lambda: LanguageModelAdvisor(SPACE, str, attempts=0), "attempts=0: give 1 or more"),
        (lambda: GraphModel(inf, 1, 1), "parameters=inf"),
    ],
)
def test_options_of_searches_out_of_range_are_refused(make_it: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        make_it()  # type: ignore[operator]


# The constructed tasks


def test_the_optimum_of_a_constructed_task_is_above_all_drawn_graphs() -> None:
    for task in TASKS:
        within = space(3)
        value, graph = optimum(task, within)
        searcher = RandomGraphs(replace(within, edge_temperature=4.0))
        assert value == accuracy(task, graph)
        assert max(accuracy(task, searcher.ask()) for _ in range(60)) <= value + 1e-12


def test_more_is_better_only_up_to_a_point_on_a_constructed_task() -> None:
    widths = [grid("many", "small", width, 1) for width in range(1, 8)]
    depths = [grid("many", "small", 1, depth) for depth in range(1, 6)]
    assert 0 < int(np.argmax(widths)) < 6 and 0 < int(np.argmax(depths)) < 4


def test_a_hand_worked_graph_of_a_constructed_task() -> None:
    """Two small answers of 0.4, read by the medium decision: the errors of one model are alike."""
    missed = 0.6 ** (2 / 2**0.5)
    expected = 0.4 + 0.7 * (1 - missed - 0.4)
    assert accuracy("many", Graph.parse("assistant.small;assistant.small;fuser.medium<1+2")) == pytest.approx(expected)
