"""The verbs of a search: keyed samples, grouped children, scores, and a journal that is written first."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, fields, replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from toy import (
    PROBLEM,
    FakeClock,
    MemoryJournal,
    Piece,
    ToyGenerator,
    ToyScorer,
    done,
    drawn,
    extend,
    score,
    solve,
    step,
    texts,
    toy_search,
    unhurried,
)

from thinktime.bench.trace import draw, records
from thinktime.core.context import Document, FileTree, Image, Part, Start, Table, canonical_json, digest
from thinktime.core.environment import Observation
from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.selection import majority
from thinktime.core.transitions import Neighbour, Redo, Renoise
from thinktime.core.types import Capability, Child, Embedding, Extension, Node, Problem, Sampling, Score
from thinktime.core.usage import Budget, Usage
from thinktime.environments.key_value import KeyValueStore
from thinktime.generators.recorded import BankedGenerator
from thinktime.prompts.common import REVISE
from thinktime.scorers.recorded import BankedScorer
from thinktime.strategies.sampling.best_of_n import BestOfN
from thinktime.strategies.sampling.single import Single
from thinktime.strategies.sampling.weighted_majority import WeightedMajority
from thinktime.strategies.search.beam_search import BeamSearch


def keys(nodes: Sequence[Node]) -> list[str]:
    return [node.key for node in nodes]


# Keyed randomness


@unhurried
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_a_sample_does_not_depend_on_the_number_of_samples(few: int, many: int, seed: int) -> None:
    short, long = toy_search(drawn, seed=seed), toy_search(drawn, seed=seed)
    first, second = extend(short, [short.root], few), extend(long, [long.root], many)
    shared = min(few, many)
    assert keys(first[:shared]) == keys(second[:shared])
    assert texts(first[:shared]) == texts(second[:shared])


def test_samples_drawn_one_by_one_equal_those_drawn_together() -> None:
    together, apart = toy_search(drawn), toy_search(drawn)
    at_once = extend(together, [together.root], 4)
    one_by_one = [child for _ in range(4) for child in extend(apart, [apart.root])]
    assert keys(at_once) == keys(one_by_one)
    assert len(set(keys(at_once))) == 4


def test_after_a_rewind_the_samples_of_the_root_come_again_and_cost_nothing() -> None:
    search, straight = toy_search(drawn), toy_search(drawn)
    first = extend(search, [search.root], 2)
    spent = search.ledger.spent
    search.rewind()
    assert extend(search, [search.root])[0] is first[0] and search.ledger.spent == spent
    rest = extend(search, [search.root], 3)
    assert rest[0] is first[1] and [node.path for node in rest] == [(1,), (2,), (3,)]
    whole = extend(straight, [straight.root], 4)
    assert keys([first[0], *rest]) == keys(whole) and search.ledger.spent == straight.ledger.spent
    assert [record.node.key for record in search.records()][1:] == keys(whole)


def test_a_problem_gets_the_same_samples_alone_and_beside_others() -> None:
    problems = [replace(PROBLEM, id=f"p{i}") for i in range(20)]
    generator = ToyGenerator(drawn)

    async def crowd() -> list[Search]:
        searches = [toy_search(generator, problem=problem) for problem in problems]
        await asyncio.gather(*(BeamSearch(n=4, width=2)(search) for search in reversed(searches)))
        return searches

    for problem, crowded in zip(problems, asyncio.run(crowd()), strict=True):
        alone = toy_search(drawn, problem=problem)
        solve(BeamSearch(n=4, width=2), alone)
        assert list(alone.trace) == list(crowded.trace)
        assert records(alone) == records(crowded)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"problem": replace(PROBLEM, id="another")},
        {"problem": replace(PROBLEM, prompt="what is 3 + 5")},
        {"problem": replace(PROBLEM, prompt=[{"role": "user", "content": PROBLEM.prompt}])},
        {"generator": ToyGenerator(drawn, name="other weights")},
        {"cap": 9},
    ],
)
def test_everything_that_determines_a_sample_is_in_its_key(other: dict[str, Any]) -> None:
    mine, theirs = toy_search(), toy_search(**other)
    assert set(keys(extend(mine, [mine.root], 3))).isdisjoint(keys(extend(theirs, [theirs.root], 3)))


def test_temperature_and_top_p_are_in_the_key() -> None:
    variants = [Sampling(), Sampling(temperature=0.5), Sampling(top_p=0.5)]
    roots = {Search(PROBLEM, ToyGenerator(drawn), sampling=sampling).root.key for sampling in variants}
    assert len(roots) == 3


def test_stop_strings_are_in_the_key_only_if_there_are_any() -> None:
    def key(**options: Any) -> str:
        return Search(PROBLEM, ToyGenerator(drawn), sampling=Sampling(**options)).root.key

    asked = [ToyGenerator(drawn).name, PROBLEM.id, PROBLEM.prompt, 0, 1.0, 1.0, 512]
    assert key() == key(stop=()) == digest(canonical_json(asked))
    assert key(stop=("a", "b")) == digest(canonical_json([*asked, {"stop": ["a", "b"]}])) != key(stop=("b", "a"))


@pytest.mark.parametrize("stop", ["text", ("a", "")])
def test_stop_strings_are_a_tuple_of_texts(stop: Any) -> None:
    with pytest.raises(InputError, match=r"stop=.*: give a tuple of texts that are not empty"):
        Sampling(stop=stop)


def test_a_prompt_may_be_a_value_that_json_lacks_and_its_content_is_in_the_key() -> None:
    def key(prompt: Any) -> str:
        return toy_search(problem=Problem("p", prompt)).root.key

    prompts: list[Any] = [b"7", b"8", array("b", b"7"), array("h", [7]), Document("d", "7"), Document("d", "8")]
    prompts += [MappingProxyType({"a": 7}), MappingProxyType({"a": 8}), {"3", "4", "5"}, frozenset({"3", "4"}), "7"]
    assert len({key(prompt) for prompt in prompts}) == len(prompts)
    assert key({"3", "4", "5"}) == key(frozenset({"5", "4", "3"})) == key(["3", "4", "5"])
    assert key(MappingProxyType({"a": 7})) == key({"a": 7})
    with pytest.raises(TypeError, match="a object has no fingerprint; give JSON values, bytes, dataclasses or arrays"):
        key(object())
    with pytest.raises(TypeError, match="a type has no fingerprint"):
        key(Document)


def test_budget_and_reference_are_not_in_the_key() -> None:
    """A larger budget finds the samples of the smaller one."""
    plain, limited = toy_search(), toy_search(budget=Budget(calls=3), problem=replace(PROBLEM, reference="8"))
    assert keys(extend(plain, [plain.root], 3)) == keys(extend(limited, [limited.root], 3))


# Children

TREE = {
    "0": step("two"),
    "1": step("three"),
    "0/0": done("is 2"),
    "0/1": step("and"),
    "1/0": done("is 3"),
    "1/1": step("or"),
    "0/1/0": done("one"),
}


def test_children_are_grouped_by_parent_in_the_given_order() -> None:
    search = toy_search(TREE)
    first, second = extend(search, [search.root], 2, until="step")
    children = extend(search, [second, first], 2, until="step")
    assert texts(children) == ["three is 3", "three or", "two is 2", "two and"]
    assert [child.parent for child in children] == [second, second, first, first]
    assert [child.path for child in children] == [(1, 0), (1, 1), (0, 0), (0, 1)]


def test_the_tenth_child_comes_after_the_ninth() -> None:
    search = toy_search({str(i): done(f"{i}") for i in range(12)})
    assert texts(extend(search, [search.root], 12)) == [str(i) for i in range(12)]


def test_complete_nodes_have_no_children() -> None:
    search = toy_search(TREE)
    (first,) = extend(search, [search.root], until="step")
    complete, unfinished = extend(search, [first], 2, until="step")
    assert texts(extend(search, [complete, unfinished], until="step")) == ["two and one"]


def test_a_generation_at_its_length_limit_has_no_children() -> None:
    generator = ToyGenerator({"0": step("a b c"), "0/0": step("d"), "1": step("a b c d e")})
    search = toy_search(generator, cap=4)
    short, cut = extend(search, [search.root], 2, until="step")
    assert (cut.state.text, cut.finish, cut.done) == ("a b c d", "length", False)
    (full,) = extend(search, [short], until="step")
    assert generator.asked[-1][0].max_length == 1, "the rest of the generation's limit"
    assert extend(search, [cut, full], until="step") == []
    assert not search.exhausted, "a length limit is not a budget"
    assert len(generator.asked) == 2


def test_a_generation_with_finish_length_has_no_children_even_below_the_limit_of_the_search() -> None:
    """The context of the model may be shorter than the limit of the search."""
    search = toy_search({"0": Piece("a b", "length")}, cap=4)
    (cut,) = extend(search, [search.root], until="step")
    assert extend(search, [cut], until="step") == []


def test_a_node_can_be_extended_by_a_number_of_tokens() -> None:
    search = toy_search({"0": done("a b c d"), "0/0": done("c 7")})
    (part,) = extend(search, [search.root], at_most=2)
    (whole,) = extend(search, [part], at_most=2)
    assert (part.state.text, part.finish, part.passes) == ("a b", "cut", 2)
    assert (whole.state.text, whole.finish, whole.passes) == ("a b c 7", "eos", 4)


def test_a_number_of_tokens_beyond_the_length_limit_ends_at_the_limit() -> None:
    search = toy_search({"0": done("a b c"), "0/0": done("d e f g")}, cap=4)
    (part,) = extend(search, [search.root], at_most=2)
    (whole,) = extend(search, [part], at_most=3)
    assert (whole.state.text, whole.finish) == ("a b d e", "length")


def test_a_step_can_be_cut_and_its_end_reached_later() -> None:
    search = toy_search({"0": step("a b c"), "1": step("d"), "0/0": step("c")})
    cut, whole = extend(search, [search.root], 2, until="step", at_most=2)
    assert [(node.state.text, node.finish) for node in (cut, whole)] == [("a b", "cut"), ("d", "step")]
    (end,) = extend(search, [cut], until="step")
    assert (end.state.text, end.finish) == ("a b c", "step")


def test_every_node_can_have_its_own_number_of_children() -> None:
    search = toy_search({"0": step("a"), "1": step("b"), "0/0": done("c"), "0/1": done("d"), "0/2": done("e")})
    first, second = extend(search, [search.root], [2], until="step")
    assert texts(extend(search, [second, first], [0, 3])) == ["a c", "a d", "a e"]


def test_children_of_another_kind_do_not_change_the_usual_samples() -> None:
    """A roll-out takes a position among the children, but does not change the noise of the next sample."""
    plain, searched = toy_search(drawn), toy_search(drawn)
    extend(searched, [searched.root], at_most=3)
    extend(searched, [searched.root], temperature=0.0)
    for search in (plain, searched):
        extend(search, [search.root], 2)
    assert set(plain.trace) <= set(searched.trace)


def test_several_samples_at_temperature_0_are_refused_before_the_first() -> None:
    generator = ToyGenerator(drawn)
    search = toy_search(generator)
    with pytest.raises(InputError, match=r"temperature=0: 2 samples would be the same"):
        extend(search, [search.root], 2, temperature=0.0)
    assert generator.asked == []


def test_fewer_than_one_child_is_refused() -> None:
    search = toy_search()
    with pytest.raises(InputError, match="n=0: ask for at least 1"):
        extend(search, [search.root], 0)


def test_the_least_numbers_are_accepted_and_lower_ones_refused() -> None:
    search = toy_search({"0": step("a b"), "1": step("c d"), "0/0": step("so"), "0/1": step("so")})
    first, second = extend(search, [search.root], 2, until="step", at_most=1)
    assert texts([first, second]) == ["a", "c"]
    with pytest.raises(InputError, match="at_most=0: give 1 or more"):
        extend(search, [search.root], at_most=0)
    with pytest.raises(InputError, match="n=-1: ask for 0 children or more"):
        extend(search, [first, second], [2, -1])
    with pytest.raises(InputError, match="temperature=0: 2 samples would be the same"):
        extend(search, [first, second], [2, 1], temperature=0.0)
    assert extend(search, [first, second], [1, 0], temperature=0.0)[0].parent is first


def test_a_call_is_refused_if_the_model_lacks_what_any_of_its_nodes_needs() -> None:
    generator = ToyGenerator({"0": step("a"), "1": step("b")})
    generator.capabilities = generator.capabilities - {Capability.PREFIX, Capability.TRANSITIONS}
    search = toy_search(generator)
    (child,) = extend(search, [search.root], until="step")
    with pytest.raises(CapabilityError, match="it lacks prefix continuation"):
        extend(search, [search.root, child])
    with pytest.raises(CapabilityError, match="it lacks transitions of noise"):
        extend(search, [search.root], transition=Redo(3))
    assert len(generator.asked) == 1 and search.ledger.spent.model_calls == 1


def test_no_nodes_have_no_children_and_no_scores_and_cost_nothing() -> None:
    generator, scorer = ToyGenerator(drawn), ToyScorer(lambda node: 0.5)
    search = toy_search(generator, scorer, budget=Budget(calls=1))
    assert (extend(search, []), score(search, [])) == ([], [])
    assert (generator.asked, scorer.asked, search.ledger.spent, search.exhausted) == ([], [], Usage(), False)


# Scores


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_missing_or_not_finite_is_none_and_never_zero(nothing: float | None) -> None:
    search = toy_search({"0": done("7"), "1": done("8"), "2": done("9")}, {"0": 0.0, "1": nothing, "2": -2.0})
    children = extend(search, [search.root], 3)
    assert score(search, children) == [0.0, None, -2.0]
    assert [search.trace[child.key].score for child in children] == [0.0, None, -2.0]


def test_scores_are_in_the_order_of_the_nodes_and_a_node_is_scored_once() -> None:
    scorer = ToyScorer({"0": 0.1, "1": 0.2})
    search = toy_search({"0": done("so 7"), "1": done("8")}, scorer)
    first, second = extend(search, [search.root], 2)
    assert score(search, [second, first, second]) == [0.2, 0.1, 0.2]
    assert scorer.asked == [[second, first]]
    assert (search.ledger.spent.scorer_calls, search.ledger.spent.scorer_tokens) == (2, 5 + 3)


def test_scoring_without_a_scorer_is_an_error() -> None:
    search = toy_search(drawn, None)
    with pytest.raises(CapabilityError, match="no scorer was given"):
        score(search, extend(search, [search.root]))


class SomeFail(ToyScorer):
    """Fails at texts that end with a 5."""

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        fine = await super().score(problem, nodes, known)
        failed = [node.state.text.endswith("5") for node in nodes]
        return [
            Score(None, Usage(), reason=f"no score of {node.state.text}") if wrong else each
            for node, wrong, each in zip(nodes, failed, fine, strict=True)
        ]


def test_failed_scores_are_an_error_only_if_all_of_them_failed() -> None:
    search = toy_search({"0": done("so 5"), "1": done("so 7"), "2": done("is 5")}, SomeFail(lambda node: 0.9))
    first, second, third = extend(search, [search.root], 3)
    assert score(search, [first, third]) == [None, None]
    assert search.failed_scores() == ["no score of so 5", "no score of is 5"]
    with pytest.raises(ModelError, match="no score of so 5"):
        search.finish(None)
    assert score(search, [second]) == [0.9]
    assert (search.finish(None).value, search.finish(None).finish) == ("7", "done")


class CostlyVectors:
    """A vector costs four FLOPs."""

    name = "costly"

    def worst_case(self, node: Node) -> Usage:
        return Usage(embeddings=1, scorer_flops=4.0)

    async def embed(self, nodes: Sequence[Node]) -> list[Embedding]:
        return [Embedding((float(node.path[0]), 1.0), self.worst_case(node)) for node in nodes]


def test_a_vector_is_charged_once_and_is_none_if_the_budget_is_used_up() -> None:
    """Two samples of one word cost two FLOPs each; five are left."""
    search = toy_search({"0": done("7"), "1": done("5")}, embedder=CostlyVectors(), budget=Budget(flops=9), cap=1)
    first, second = extend(search, [search.root], 2)
    for _ in range(2):
        assert asyncio.run(search.embed([first, first])) == [(0.0, 1.0)] * 2
        assert (search.ledger.spent.embeddings, search.exhausted) == (1, False)
    assert asyncio.run(search.embed([second, first])) == [None, (0.0, 1.0)]
    assert (search.ledger.spent.scorer_flops, search.exhausted) == (4.0, True)


# The journal


class Broken(MemoryJournal):
    """A journal that cannot be written."""

    def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        raise OSError("full")


class KeepsNoScores(MemoryJournal):
    """A journal that stores samples and fails at scores."""

    def add_scores(self, scorer: str, scores: Sequence[tuple[str, Score]]) -> None:
        raise OSError("full")


class Sized(MemoryJournal):
    """A journal with a length, so it is false while it is empty."""

    def __len__(self) -> int:
        return len(self.samples)


def test_a_sample_that_cannot_be_journaled_is_not_used() -> None:
    search = toy_search(journal=Broken())
    with pytest.raises(OSError, match="full"):
        extend(search, [search.root])
    assert list(search.trace) == [search.root.key]


def test_a_score_that_cannot_be_journaled_is_not_used() -> None:
    search = toy_search(journal=KeepsNoScores())
    (child,) = extend(search, [search.root])
    with pytest.raises(OSError, match="full"):
        score(search, [child])
    assert search.trace[child.key].score is None


def test_every_sample_and_score_is_journaled_once() -> None:
    journal = MemoryJournal()
    search = toy_search(drawn, lambda node: 0.5, journal=journal)
    solve(BeamSearch(n=4, width=2), search)
    sampled = {key for key in search.trace if key != search.root.key}
    assert len(sampled) > 4
    assert set(journal.samples) == sampled
    assert len(journal.scores) == len(sampled)
    assert {(key.partition("<")[0], name) for key, name in journal.scores} == {(key, "toy-scorer") for key in sampled}


def test_an_empty_journal_is_written_like_any_other() -> None:
    journal = Sized()
    search = toy_search(drawn, lambda node: 0.5, journal=journal)
    solve(BestOfN(n=3), search)
    assert (len(journal.samples), len(journal.scores)) == (3, 3)


def test_journaled_samples_and_scores_are_not_repeated_and_cost_the_same() -> None:
    journal = MemoryJournal()
    live = toy_search(drawn, journal=journal)
    again = toy_search(BankedGenerator("toy"), BankedScorer("toy-scorer"), journal=journal)
    first, second = solve(WeightedMajority(n=6), live), solve(WeightedMajority(n=6), again)
    assert first.usage.model_calls == 6 and first.usage.scorer_calls == 6 and first.usage.seconds > 0
    assert second.usage == first.usage
    assert records(again) == records(live)
    assert (second.value, second.share, second.passes) == (first.value, first.share, first.passes)


def test_a_larger_run_samples_only_what_a_smaller_run_lacks() -> None:
    journal, generator, scorer = MemoryJournal(), ToyGenerator(drawn), ToyScorer(lambda node: 0.5)
    solve(BestOfN(n=3), toy_search(drawn, lambda node: 0.5, journal=journal))
    solve(BestOfN(n=5), toy_search(generator, scorer, journal=journal))
    assert [extension.index for batch in generator.asked for extension in batch] == [3, 4]
    assert [len(batch) for batch in scorer.asked] == [2]


def test_banked_samples_count_against_the_budget() -> None:
    journal = MemoryJournal()
    rich = toy_search(drawn, journal=journal)
    extend(rich, [rich.root], 5)
    poor = toy_search(BankedGenerator("toy"), journal=journal, budget=Budget(calls=3))
    assert len(extend(poor, [poor.root], 5)) == 3
    assert poor.exhausted


def test_scores_of_another_scorer_are_not_used() -> None:
    journal = MemoryJournal()
    solve(BestOfN(n=2), toy_search(drawn, ToyScorer(lambda node: 0.1, name="theirs"), journal=journal))
    ours = toy_search(drawn, ToyScorer(lambda node: 0.9, name="ours"), journal=journal)
    assert score(ours, extend(ours, [ours.root], 2)) == [0.9, 0.9]


def test_a_generation_cut_by_the_budget_is_not_reused_as_the_whole_sample() -> None:
    """6 tokens cover a sample of 2 words and the first 4 words of the next; a larger budget must get all 5."""
    script, journal = {"0": done("so 7"), "1": done("so so so so 5")}, MemoryJournal()
    poor = toy_search(script, journal=journal, budget=Budget(tokens=6), cap=6)
    assert texts(extend(poor, [poor.root], 2)) == ["so 7", "so so so so"]
    rich = toy_search(script, journal=journal, cap=6)
    assert texts(extend(rich, [rich.root], 2)) == ["so 7", "so so so so 5"]


class Failing(ToyGenerator):
    """Fails at the first child of every call."""

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        _, *others = await super().extend(extensions)
        before = extensions[0].node.state
        return [Child(before, "error", Usage(model_calls=1), 0, ModelError("no connection")), *others]


def test_a_failed_child_is_not_banked_and_is_sampled_again() -> None:
    journal = MemoryJournal()
    broken = toy_search(Failing(drawn), journal=journal)
    failed, fine = extend(broken, [broken.root], 2)
    assert failed.finish == "error" and list(journal.samples) == [fine.key]
    whole = toy_search(generator := ToyGenerator(drawn), journal=journal)
    again, banked = extend(whole, [whole.root], 2)
    assert (again.key, again.finish, banked.state) == (failed.key, "eos", fine.state)
    assert [len(batch) for batch in generator.asked] == [1]


def test_a_child_that_a_deadline_cut_is_not_banked_because_the_next_run_may_get_further() -> None:
    """At a word a second, the second of two samples has 3 of its 5 words when the seconds end."""
    journal, clock = MemoryJournal(), FakeClock()
    generator = ToyGenerator({"0": done("so 7"), "1": done("so so so so 5")}, clock=clock)
    search = toy_search(generator, journal=journal, budget=Budget(seconds=3), clock=clock.monotonic)
    whole, cut = extend(search, [search.root], 2)
    assert (cut.finish, cut.state.text) == ("budget", "so so so")
    assert list(journal.samples) == [whole.key]


def test_children_of_a_node_that_the_budget_cut_have_other_keys_than_those_of_the_whole_node() -> None:
    """Both nodes have the same key but different words, so the bank must keep their children apart."""
    script = {"0": done("so so so 7"), "1": step("so so so so so"), "1/0": done("is 5")}
    journal = MemoryJournal()
    poor = toy_search(script, journal=journal, budget=Budget(tokens=8), cap=8)
    _, cut = extend(poor, [poor.root], 2, until="step")
    assert (cut.finish, cut.state.text) == ("budget", "so so so so")
    poor.ledger.budget = Budget()
    assert texts(extend(poor, [cut])) == ["so so so so is 5"]
    rich = toy_search(script, journal=journal, cap=8)
    _, whole = extend(rich, [rich.root], 2, until="step")
    assert whole.key == cut.key
    assert texts(extend(rich, [whole])) == ["so so so so so is 5"]


# The account of an answer


def test_an_answer_counts_its_path_and_its_tree_separately() -> None:
    script = {"0": step("a"), "1": step("b"), "0/0": done("is 7"), "0/1": done("is not 8")}
    search = toy_search(script, {"0": 0.9, "1": 0.1, "0/0": 0.8, "0/1": 0.2})
    answer = solve(BeamSearch(n=2, width=2), search)
    assert (answer.value, answer.path_tokens) == ("7", 3)
    assert answer.usage.generated_tokens == 1 + 1 + 2 + 3
    assert answer.passes == 4, "the longest chain: a is not 8"
    assert answer.node is not None and [node.state.text for node in answer.node.lineage()] == ["a is 7", "a", ""]


def test_if_a_strategy_chooses_nothing_the_best_scored_readable_sample_answers() -> None:
    script = {"0": done("so 5"), "1": done("so 7"), "2": done("what"), "3": Piece("so 9", "length")}
    search = toy_search(script, {"0": 0.2, "1": 0.6, "2": 0.9, "3": 0.95})
    score(search, extend(search, [search.root], 4))
    answer = search.finish(None)
    assert (answer.value, answer.finish, answer.share) == ("7", "done", None)
    assert answer.node is not None and answer.node.path == (1,)


def test_if_a_strategy_chooses_nothing_and_no_sample_is_readable_there_is_no_answer() -> None:
    search = toy_search({"0": done("what"), "1": Piece("so 9", "length")})
    extend(search, [search.root], 2)
    answer = search.finish(None)
    assert (answer.value, answer.finish, answer.node) == (None, "incomplete", None)


def test_failed_samples_are_an_error_only_if_no_other_one_is_complete() -> None:
    search = toy_search(Failing({"0": done("so 5"), "1": done("so 5"), "2": done("so 7")}))
    extend(search, [search.root])
    with pytest.raises(ModelError, match="no connection"):
        search.finish(None)
    extend(search, [search.root], 2)
    assert search.finish(None).value == "7"


def test_candidates_are_the_complete_nodes_each_once() -> None:
    search = toy_search({"0": done("so 7"), "1": step("so"), "2": Piece("so 7", "length"), "3": done("so what")})
    first, second, third, fourth = extend(search, [search.root], 4, until="step")
    found = search.candidates([first, second, third, fourth, first], [0.5, 0.6, 0.7, None, 0.5])
    assert [(c.node, c.answer, c.score) for c in found] == [(first, "7", 0.5), (fourth, None, None)]


# The trace


def test_the_trace_has_the_text_score_and_pruning_of_every_node() -> None:
    script = {"0": step("a"), "1": step("b"), "0/0": done("is 7"), "0/1": step("is not")}
    search = toy_search(script, {"0": 0.9, "1": None, "0/0": 0.8123456789, "0/1": 0.2})
    solve(BeamSearch(n=2, width=2), search)
    rows = [(r["text"].strip(), r["score"], r["finish"], r["tokens"], r["pruned"]) for r in records(search)]
    assert rows == [
        ("", None, "root", 0, False),
        ("a", 0.9, "step", 1, False),
        ("b", None, "step", 1, True),
        ("is 7", 0.812346, "eos", 2, False),
        ("is not", 0.2, "step", 2, True),
    ]
    by_key = {record["key"]: record for record in records(search)}
    parents = [by_key[r["parent"]]["text"] if r["parent"] else None for r in records(search)]
    assert parents == [None, "", "", "a", "a"]
    assert [r["depth"] for r in records(search)] == [0, 1, 1, 2, 2]


def test_turns_number_the_calls_and_the_root_comes_before_the_first() -> None:
    search = toy_search(lambda e: step("a") if e.until == "step" else done("is 7"))
    search.environments = {"main": KeyValueStore()}
    parents = extend(search, [search.root], 2, until="step")
    asyncio.run(search.act(search.root, {"get": "a"}))
    leaves = extend(search, parents)
    assert search.ask(REVISE, leaves) is not None
    asyncio.run(search.run(Single()))
    found = [(record.turn, record.node.finish) for record in search.records()]
    steps = [(0, "root"), (1, "step"), (1, "step"), (2, "observed"), (3, "eos"), (3, "eos")]
    assert found == [*steps, (4, "root"), (5, "root"), (6, "eos")]


def test_nodes_are_themselves_alone_so_a_state_may_be_of_any_kind() -> None:
    """Two nodes with the same fields are two nodes. A list cannot be hashed, and is a possible state."""
    first, second = (Node("key", (0,), ["a", "list"]) for _ in range(2))
    assert first != second and {first: 1, second: 2}[first] == 1
    assert (first.passes, first.length, first.log_weight, first.finish) == (0, 0, 0.0, "root")


def test_what_a_search_takes_and_gives_cannot_be_changed() -> None:
    parts: tuple[Part, ...] = (Document("d", "text"), Table("t", ("a",), ((1,),)), FileTree("f", {"x": "y"}))
    parts += (Image("i", b"", "image/png"), Start("key_value", {"a": 5}))
    problem, clock = Problem("p", "what", context=parts), FakeClock()
    journal, budget = MemoryJournal(), Budget(seconds=9)
    search = toy_search(
        generator := ToyGenerator(drawn), problem=problem, journal=journal, budget=budget, clock=clock.monotonic
    )
    search.environments = {"main": KeyValueStore()}
    (leaf,) = extend(search, [search.root])
    score(search, [leaf])
    observed = asyncio.run(search.act(search.root, {"get": "a"}))
    question = search.ask(REVISE, [leaf])
    (candidate,) = search.candidates([leaf])
    assert observed is not None and question is not None
    answer = search.finish(candidate)
    (extension,) = generator.asked[0]
    (scored,) = journal.scores.values()
    values: list[Any] = [*parts, problem, budget, search.sampling, search.ledger.deadline, REVISE, leaf, extension]
    values += [scored, observed.state, candidate, majority([candidate]), answer, answer.usage]
    values += [Child(None, "eos", Usage(), 0), Embedding((1.0,), Usage()), Observation("", None)]
    values += [Neighbour(0.5), Renoise(0.5), Redo(1)]
    for value in values:
        for field in fields(value):
            with pytest.raises(FrozenInstanceError):
                setattr(value, field.name, None)


def test_pruning_is_recorded_and_costs_nothing() -> None:
    search = toy_search({"0": step("a"), "1": step("b")})
    first, second = extend(search, [search.root], 2, until="step")
    before = search.ledger.spent
    search.prune([second])
    assert [search.trace[node.key].pruned for node in (first, second)] == [False, True]
    assert search.ledger.spent == before


def test_the_tree_is_drawn_with_unchanged_text() -> None:
    script = {"0": step("[red]a[/red]"), "1": step("b"), "0/0": done("is 7"), "0/1": step("is not")}
    search = toy_search(script, {"0": 0.9, "1": None, "0/0": 0.8, "0/1": 0.2})
    answer = solve(BeamSearch(n=2, width=2), search)
    console = Console(width=60, color_system=None)
    with console.capture() as drawing:
        console.print(draw(search, answer.node.key if answer.node else None))
    assert [line.rstrip() for line in drawing.get().splitlines()] == [
        "question",
        "├── 0.900 [red]a[/red]  (step)",
        "│   ├── 0.800 is 7  (eos)",
        "│   └── 0.200 is not  (step)",
        "└──       b  (step)",
    ]


def test_the_drawn_tree_shows_the_returned_path_in_bold_and_pruned_nodes_dimmed() -> None:
    script = {"0": step("a"), "1": step("b"), "0/0": done("is 7"), "0/1": step("is not")}
    search = toy_search(script, {"0": 0.9, "1": 0.1, "0/0": 0.8, "0/1": 0.2})
    answer = solve(BeamSearch(n=2, width=2), search)
    console = Console(width=60, color_system="standard", force_terminal=True, no_color=False)
    with console.capture() as drawing:
        console.print(draw(search, answer.node.key if answer.node else None))
    lines = drawing.get().splitlines()
    bold, dim = "\x1b[1m", "\x1b[2m"
    assert [(bold in line, dim in line) for line in lines] == [
        (False, False),
        (True, False),
        (True, False),
        (False, True),
        (False, True),
    ]


def test_a_sample_that_was_banked_when_it_arrived_is_not_written_again() -> None:
    class Early(ToyGenerator):
        async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
            children = await super().extend(extensions)
            assert extensions[0].arrived is not None
            extensions[0].arrived(children[0])
            return children

    class Counting(MemoryJournal):
        def add_samples(self, problem: Problem, model: str, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
            written.extend(key for key, _ in samples)
            super().add_samples(problem, model, samples)

    written: list[str] = []
    search = toy_search(Early(drawn), None, journal=Counting())
    nodes = extend(search, [search.root], 3)
    assert sorted(written) == sorted(keys(nodes))


def test_children_in_flight_are_visible_before_their_siblings_arrive() -> None:
    class Watching(ToyGenerator):
        async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
            children = await super().extend(extensions)
            seen.append(dict(search.in_flight))
            for extension, child in zip(extensions[:2], children, strict=False):
                assert extension.arrived is not None
                extension.arrived(child)
            seen.append(dict(search.in_flight))
            assert list(search.trace) == [search.root.key]
            return children

    seen: list[dict[str, tuple[Extension, Child | None]]] = []
    search = toy_search(Watching(drawn), None)
    nodes = extend(search, [search.root], 3)
    before, after = seen
    assert list(before) == keys(nodes) and [child for _, child in before.values()] == [None] * 3
    assert [child and child.state for _, child in after.values()] == [nodes[0].state, nodes[1].state, None]
    assert search.in_flight == {} and list(search.trace) == [search.root.key, *keys(nodes)]


def test_the_trace_has_the_error_of_a_failed_child() -> None:
    search = toy_search(Failing(drawn), None)
    first, second = extend(search, [search.root], 2)
    assert str(search.trace[first.key].error) == "no connection" and search.trace[second.key].error is None


def test_the_worst_case_of_a_child_beyond_the_budget_is_computed_only_once() -> None:
    class Counting(ToyGenerator):
        reckoned = 0

        def worst_case(self, node: Node, max_length: int) -> Usage:
            self.reckoned += 1
            return super().worst_case(node, max_length)

    generator = Counting(drawn)
    search = toy_search(generator, budget=Budget(tokens=200), cap=8)
    made = extend(search, [search.root], 3000)
    assert search.exhausted and 20 < len(made) < 300
    assert generator.reckoned < 2 * 3000
