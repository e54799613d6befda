"""Several models and scorers by role, text passed between models, inner searches, phases and accounts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from toy import (
    ANSWERS,
    PROBLEM,
    FakeClock,
    MemoryJournal,
    ToyGenerator,
    ToyScorer,
    done,
    drawn,
    drawn_score,
    extend,
    solve,
    step,
    texts,
)

from thinktime.core.context import Document
from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.meter import as_rows
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.transitions import Redo
from thinktime.core.types import Capability, Child, Extension, Node, Problem, Prompt, Sampling, Score
from thinktime.core.usage import Budget, Usage, total
from thinktime.environments.calculator import Calculator
from thinktime.generators.text import Text
from thinktime.strategies.sampling.best_of_n import BestOfN
from thinktime.strategies.sampling.likelihood import MostLikely
from thinktime.strategies.sampling.majority import Majority
from thinktime.strategies.search.beam_search import BeamSearch
from thinktime.strategies.verification.solve_or_verify import SolveOrVerify
from thinktime.testing import WordScorer

CHECK = Prompt("check", lambda problem, about, said: f"{about[0].text} check", lambda state, n: state.text)


def two(draft: ToyGenerator | None = None, main: ToyGenerator | None = None, **options: object) -> Search:
    models = {"main": main or ToyGenerator(drawn, name="large"), "draft": draft or ToyGenerator(drawn, name="small")}
    settings: dict[str, object] = {"answers": ANSWERS, "sampling": Sampling(max_length=8), "prompts": {"check": CHECK}}
    return Search(PROBLEM, models, **{**settings, **options})  # type: ignore[arg-type]


def test_a_node_has_the_role_that_made_it_and_the_same_model_continues_it() -> None:
    search = two(ToyGenerator({"0": step("so"), "0/0": done("7")}, name="small"))
    (begun,) = extend(search, [search.root], until="step", model="draft")
    (ended,) = extend(search, [begun])
    assert (search.root.model, begun.model, ended.model) == ("main", "draft", "draft")
    assert search.finish(search.candidates([ended])[0]).value == "7"


def test_the_main_model_continues_a_drafts_output_as_text() -> None:
    main = ToyGenerator({"0": step("well"), "0/0": done("so 7")}, name="large")
    search = two(ToyGenerator({"0": step("so so")}, name="small"), main)
    (begun,) = extend(search, [search.root], until="step", model="draft")
    (ended,) = extend(search, [begun], model="main")
    assert (ended.model, ended.parent, ended.state.text) == ("main", begun, "so so so 7")
    assert main.asked[-1][0].node.state.text == "so so" and main.asked[-1][0].node.key == begun.key


def test_children_of_two_models_from_one_root_have_different_keys() -> None:
    search = two()
    nodes = extend(search, [search.root], 2) + extend(search, [search.root], 2, model="draft")
    assert len({node.key for node in nodes}) == 4
    assert [node.path for node in nodes] == [(0,), (1,), (2,), (3,)]
    alone = extend(two(), [search.root], 2)
    assert [node.key for node in alone] == [node.key for node in nodes[:2]], "an additional role changes no key"


def test_a_bank_keeps_samples_of_several_models_apart_and_a_resume_finds_them_all() -> None:
    journal = MemoryJournal()
    search = two(journal=journal)
    first = extend(search, [search.root], 2, model="draft") + extend(search, [search.root])
    again = two(ToyGenerator({}, name="small"), ToyGenerator({}, name="large"), journal=journal)
    found = extend(again, [again.root], 2, model="draft") + extend(again, [again.root])
    assert texts(found) == texts(first) and again.ledger.spent == search.ledger.spent


def test_one_call_extends_nodes_of_several_models_each_by_its_own_model() -> None:
    search = two()
    (mine,), (theirs,) = (extend(search, [search.root], until="step", model=role) for role in ("main", "draft"))
    if "step" in (mine.finish, theirs.finish):
        grown = extend(search, [theirs, mine])
        assert [node.model for node in grown] == [n.model for n in (theirs, mine) if n.finish == "step"]


def test_another_model_can_answer_a_prompt() -> None:
    search = two(ToyGenerator({"0": done("yes")}, name="small"), ToyGenerator({"0": done("so 7")}, name="large"))
    (leaf,) = extend(search, [search.root])
    root = search.ask(CHECK, [leaf], model="draft")
    assert root is not None and root.model == "draft" and not search.is_answer(root)
    (reply,) = extend(search, [root])
    assert (search.read(CHECK, reply), reply.model) == ("yes", "draft")


class Reading(ToyGenerator):
    """Notes the states that it may share a prefix with, and whether the prompt quotes a model."""

    def __init__(self, name: str) -> None:
        super().__init__(drawn, name=name)
        self.known: list[list[Text]] = []
        self.quotes: list[bool] = []

    def root(self, problem: Problem, known: Sequence[Text] = (), *, quotes: bool = False) -> Text:
        self.known.append(list(known))
        self.quotes.append(quotes)
        return super().root(problem)


def test_a_model_that_is_asked_knows_the_states_that_it_has_read_and_no_others() -> None:
    opinion = Prompt("check", lambda problem, about, said: " ".join(["check", *(s.text for s in (*about, *said))]))
    large, small = Reading("large"), Reading("small")
    search = two(small, large, prompts={"check": opinion})
    assert search.ask(opinion) is not None
    (mine,), (theirs,) = extend(search, [search.root]), extend(search, [search.root], model="draft")
    small.known.clear()
    assert search.ask(opinion, [mine, theirs]) and search.ask(opinion, [mine, theirs], model="draft")
    assert search.ask(opinion, [theirs], [mine]) and search.ask(opinion, [theirs], [mine], model="draft")
    before: list[list[Text]] = [[], []]  # the problem itself, and a question before the first sample
    assert large.known == [*before, [search.root.state, mine.state], [search.root.state, mine.state]]
    assert small.known == [[theirs.state], [theirs.state]]
    assert large.quotes == [False, True, True, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s: s.extend([s.root], model="judge"),
            "model='judge': no model has this role; the search has draft, main",
        ),
        (lambda s: s.score([s.root], scorer="judge"), "no scorer of the role 'judge' was given; the search has main"),
        (lambda s: s.compare([s.root]), "it is not a judge that compares several candidates"),
        (lambda s: s.embed([s.root]), "the search has no embedder"),
    ],
)
def test_the_error_for_a_missing_role_lists_the_existing_ones(call: object, message: str) -> None:
    search = two(scorers=WordScorer(drawn_score))
    with pytest.raises(CapabilityError, match=message):
        asyncio.run(call(search))  # type: ignore[operator]


def test_one_of_the_models_has_to_be_main() -> None:
    with pytest.raises(InputError, match=r"models=\['draft'\]: one of them has to be the role 'main'"):
        Search(PROBLEM, {"draft": ToyGenerator(drawn)})


def test_scorers_of_two_roles_score_the_same_nodes_and_the_trace_shows_the_main_one() -> None:
    scorers = {"main": ToyScorer({"0": 0.2}), "judge": ToyScorer({"0": 0.9}, name="judge")}
    search = two(scorers=scorers)
    nodes = extend(search, [search.root])

    async def both() -> list[list[float | None]]:
        return [await search.score(nodes), await search.score(nodes, scorer="judge")]

    assert asyncio.run(both()) == [[0.2], [0.9]]
    assert search.trace[nodes[0].key].score == 0.2
    assert set(search.meter.accounts) == {("online", role) for role in ("model main", "scorer main", "scorer judge")}


KEYS = {
    **{
        "defaults": "562b1f",
        "bytes": "a431b1",
        "root": "2496da",
        "context": "ba5e83",
        "step": "8d9328",
        "sibling": "a68a34",
        "end": "a606e9",
        "cut": "a99820",
    },
    **{"greedy": "ecbf06", "changed": "8d1579", "by draft": "ad570e", "asked main": "d33bbc", "asked draft": "ba57c5"},
    **{"1 + 1": "6fc5be", "1 + 1 again": "84e63c", "2 + 2": "d62a4a"},
    **{"run": "7ff97a", "run again": "e466a9", "run by draft": "601e25"},
}
"""The first digits of the key of each kind of node, at the seed 0."""


def test_keys_stay_as_they_are_because_banks_of_earlier_versions_have_them() -> None:
    said = ToyGenerator(lambda e: step("a") if e.until == "step" else done("so 7"), name="large")
    search = two(ToyGenerator(drawn, name="small"), said, environments=Calculator())
    about = replace(PROBLEM, context=(Document("d", "text"),))
    (first,) = extend(search, [search.root], until="step")
    made: dict[str, Node | None] = {
        "root": search.root,
        "defaults": Search(PROBLEM, said).root,
        "bytes": Search(replace(PROBLEM, prompt=b"7"), said).root,
        "context": Search(about, said, sampling=search.sampling).root,
        "step": first,
        "end": extend(search, [first])[0],
        "cut": extend(search, [search.root], until="step", at_most=2)[0],
        "greedy": extend(search, [search.root], temperature=0.0)[0],
        "changed": extend(search, [search.root], transition=Redo(3))[0],
        "sibling": extend(search, [search.root], until="step")[0],
        "by draft": extend(search, [first], model="draft")[0],
        "asked main": search.ask(CHECK, [first]),
        "asked draft": search.ask(CHECK, [first], model="draft"),
    }
    for name in ("1 + 1", "1 + 1 again", "2 + 2"):
        made[name] = asyncio.run(search.act(search.root, name.removesuffix(" again")))
    for name, role in (("run", "main"), ("run again", "main"), ("run by draft", "draft")):
        before = set(search.trace)
        asyncio.run(search.run(Majority(n=1), model=role))
        made[name] = next(record.node for key, record in search.trace.items() if key not in before)
    assert {name: node and node.key[:6] for name, node in made.items()} == KEYS


# Comparing


class Ranking(ToyScorer):
    """Ranks candidates by their text, the last in the alphabet first."""

    def __init__(self) -> None:
        super().__init__(lambda node: 0.5, name="ranking")
        self.compared: list[list[str]] = []

    def worst_case_of_comparison(self, problem: Problem, nodes: Sequence[Node]) -> Usage:
        return Usage(scorer_calls=1, scorer_tokens=10)

    async def compare(self, problem: Problem, nodes: Sequence[Node]) -> Score:
        self.compared.append(texts(nodes))
        order = sorted(texts(nodes))
        usage = Usage(scorer_calls=1, scorer_tokens=7)
        return Score(None, usage, tuple(float(order.index(node.state.text)) for node in nodes))


def test_candidates_are_compared_once_and_the_cost_is_charged() -> None:
    judge, journal = Ranking(), MemoryJournal()
    script = {"0": done("a 1"), "1": done("c 3"), "2": done("b 2")}
    for times in (1, 1):
        search = two(main=ToyGenerator(script, name="large"), scorers=judge, journal=journal)
        nodes = extend(search, [search.root], 3)
        assert asyncio.run(search.compare(nodes)) == asyncio.run(search.compare(nodes)) == [0.0, 2.0, 1.0]
        assert search.ledger.spent.scorer_tokens == 7 and len(judge.compared) == times


def test_best_of_n_can_choose_by_comparison() -> None:
    script = {"0": done("a 1"), "1": done("c 3"), "2": done("b 2")}
    search = two(main=ToyGenerator(script, name="large"), scorers=Ranking())
    assert solve(BestOfN(3, by="comparison"), search).value == "3"


# Concurrent calls


@pytest.mark.parametrize("gathered", [False, True])
def test_concurrent_calls_in_one_search_wait_for_each_other_and_equal_sequential_calls(gathered: bool) -> None:
    """A child may take 8 of 12 tokens; each takes 1, so both calls get their child."""
    search = two(
        ToyGenerator({"0": done("7")}, name="small"),
        ToyGenerator({"0": done("5")}, name="large"),
        budget=Budget(tokens=12),
    )

    async def both() -> list[list[Node]]:
        calls = [search.extend([search.root], model=role) for role in ("main", "draft")]
        return list(await asyncio.gather(*calls)) if gathered else [await call for call in calls]

    assert [texts(nodes) for nodes in asyncio.run(both())] == [["5"], ["7"]]
    assert not search.exhausted and search.ledger.spent.generated_tokens == 2


def test_a_concurrent_call_that_never_fits_ends_as_exhausted_and_no_call_waits_for_ever() -> None:
    search = two(
        main=ToyGenerator({str(i): done("so so so so 5") for i in range(9)}, name="large"), budget=Budget(tokens=12)
    )

    async def all_of_them() -> list[list[Node]]:
        return list(await asyncio.wait_for(asyncio.gather(*(search.extend([search.root]) for _ in range(6))), 20))

    made = [node for nodes in asyncio.run(all_of_them()) for node in nodes]
    assert sum(node.usage.generated_tokens for node in made) <= 12 and 1 <= len(made) < 6
    assert search.exhausted


def test_a_failed_call_is_charged_its_worst_case_and_no_call_waits_for_its_reservation() -> None:
    class Failing(ToyGenerator):
        async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
            raise ModelError("the model is gone")

    search = two(Failing(drawn, name="small"), ToyGenerator({"0": done("5")}, name="large"), budget=Budget(tokens=12))

    async def both() -> list[object]:
        calls = [search.extend([search.root], model=role) for role in ("draft", "main")]
        return list(await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20))

    failed, made = asyncio.run(both())
    assert isinstance(failed, ModelError) and made == [], "8 of 12 tokens count as spent, and a child may take 8"
    spent = search.ledger.spent
    assert (spent.generated_tokens, spent.uncounted_calls, search.exhausted) == (8, 1, True)
    assert total(search.meter.accounts.values()) == spent


def test_the_trace_is_in_the_order_of_the_calls_and_not_of_their_ends() -> None:
    class Slow(ToyGenerator):
        async def extend(self, extensions):  # type: ignore[no-untyped-def]
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().extend(extensions)

    search = two(main=Slow(drawn, name="large"))

    async def both() -> None:
        await asyncio.gather(search.extend([search.root]), search.extend([search.root], model="draft"))

    asyncio.run(both())
    assert [record.node.model for record in search.records()] == ["main", "main", "draft"]
    assert [record.node.model for record in search.trace.values()] == ["main", "draft", "main"]


# A search in a search


@dataclass(frozen=True)
class BeamThenVote:
    """A beam search within a third of the tokens, then a vote with its winner."""

    needs: ClassVar[frozenset[str]] = BeamSearch.needs

    async def __call__(self, search: Search) -> Answer:
        inner = await search.run(BeamSearch(n=4), budget=Budget(tokens=30))
        leaves = await search.extend([search.root], 2)
        assert inner.node is None or inner.node.key in search.trace
        return search.finish(search.candidates([*([inner.node] if inner.node else []), *leaves])[0])


def test_an_inner_search_shares_ledger_trace_and_bank_and_keeps_its_own_limit() -> None:
    journal = MemoryJournal()
    search = two(scorers=ToyScorer(drawn_score), journal=journal, budget=Budget(tokens=100))
    answer = solve(BeamThenVote(), search)
    spent = total(record.node.usage for record in search.trace.values())
    assert spent.generated_tokens == answer.usage.generated_tokens <= 100
    inner = [r for r in search.records() if r.node.parent is not None and list(r.node.lineage())[-1] is not search.root]
    assert 0 < sum(record.node.usage.generated_tokens for record in inner) <= 30
    again = solve(
        BeamThenVote(),
        two(
            ToyGenerator({}, name="small"),
            ToyGenerator({}, name="large"),
            scorers=ToyScorer(drawn_score),
            journal=journal,
            budget=Budget(tokens=100),
        ),
    )
    assert (again.value, again.usage) == (answer.value, answer.usage)


def test_an_inner_search_has_its_own_samples() -> None:
    search = two(main=ToyGenerator({str(i): done(f"so {i}") for i in range(9)}, name="large"))

    async def twice() -> list[Answer]:
        return [await search.run(Majority(n=2)), await search.run(Majority(n=2))]

    first, second = asyncio.run(twice())
    assert first.node is not None and second.node is not None and first.node.key != second.node.key
    assert first.usage == second.usage == total([first.node.usage] * 2)
    assert search.finish(None).value == "0", "samples of an inner search are never lost"


def test_a_search_is_exhausted_by_a_search_inside_it_only_if_its_own_budget_ended() -> None:
    search = two(budget=Budget(calls=5))
    whole, limited = (asyncio.run(search.run(Majority(n=2), budget=budget)) for budget in (None, Budget(calls=1)))
    assert (whole.finish, limited.finish, search.exhausted) == ("done", "budget", False)
    last = asyncio.run(search.run(Majority(n=9)))
    assert (last.finish, last.usage.model_calls, search.exhausted) == ("budget", 2, True)


def test_an_inner_strategy_is_checked_before_it_spends() -> None:
    search = two()
    with pytest.raises(CapabilityError, match=r"strategy=BeamSearch\(n=4.*it needs process rewards"):
        asyncio.run(search.run(BeamSearch(n=4)))
    with pytest.raises(InputError, match="alpha_s"):
        asyncio.run(search.run(SolveOrVerify(n=4)))
    assert search.ledger.spent == Usage()


def test_another_model_can_be_main_in_an_inner_search() -> None:
    search = two(ToyGenerator({"0": done("so 3"), "1": done("so 3")}, name="small"))
    answer = asyncio.run(search.run(Majority(n=2), model="draft"))
    assert answer.value == "3" and answer.node is not None and answer.node.model == "draft"


def test_the_model_of_a_prompt_is_the_main_model_of_the_search_inside() -> None:
    """Only the draft has log-probabilities."""
    main = ToyGenerator(drawn, name="large")
    main.capabilities = main.capabilities - {Capability.LOGPROBS}
    search = two(ToyGenerator({"0": done("so 3")}, name="small"), main)
    root = search.ask(CHECK, extend(search, [search.root]), model="draft")
    assert root is not None
    answer = asyncio.run(search.run(MostLikely(n=1), root=root))
    assert answer.node is not None and (answer.value, answer.node.model) == ("3", "draft")
    with pytest.raises(CapabilityError, match="it needs log-probabilities"):
        asyncio.run(search.run(MostLikely(n=1)))


def test_an_inner_search_on_a_prompt_solves_that_prompt() -> None:
    search = two(main=ToyGenerator({"0": done("so 7"), "1": done("so 8")}, name="large"))
    (leaf,) = extend(search, [search.root])
    root = search.ask(CHECK, [leaf])
    assert root is not None
    answer = asyncio.run(search.run(Majority(n=2), root=root))
    assert answer.node is not None and answer.node.parent is root and not search.is_answer(answer.node)
    assert search.finish(None).node is leaf


# Phases


def test_work_in_a_named_phase_has_its_own_account() -> None:
    search = two()

    async def work() -> None:
        with search.phase("offline"):
            await search.extend([search.root], model="draft")
        await search.extend([search.root])

    asyncio.run(work())
    answer = search.finish(None)
    assert set(answer.accounts) == {("offline", "model draft"), ("online", "model main")}
    assert total(answer.accounts.values()) == answer.usage


def test_accounts_are_json_rows_in_the_order_of_phases_and_roles() -> None:
    sample, scoring = Usage(model_calls=1, generated_tokens=3), Usage(scorer_calls=2, dollars=None)
    accounts = {("online", "model main"): sample, ("offline", "scorer main"): scoring}
    rows = as_rows(accounts | {("offline", "model draft"): sample})
    assert [(row["phase"], row["role"]) for row in rows] == [
        *(("offline", "model draft"), ("offline", "scorer main"), ("online", "model main"))
    ]
    assert [row["usage"] for row in rows] == [sample.as_dict(), scoring.as_dict(), sample.as_dict()]
    assert json.loads(json.dumps(rows)) == rows


def test_phases_of_concurrent_calls_do_not_mix() -> None:
    search = two()

    async def offline() -> None:
        with search.phase("offline"):
            await asyncio.sleep(0)
            await search.extend([search.root], 2, model="draft")

    async def both() -> None:
        await asyncio.gather(offline(), search.extend([search.root], 3))

    asyncio.run(both())
    calls = {account: usage.model_calls for account, usage in search.meter.accounts.items()}
    assert calls == {("offline", "model draft"): 2, ("online", "model main"): 3}


def test_the_caller_can_give_the_clock_of_a_search() -> None:
    clock = FakeClock()
    search = two(budget=Budget(seconds=5), clock=clock.monotonic)
    assert len(extend(search, [search.root])) == 1
    clock.now += 5
    assert extend(search, [search.root]) == [] and search.exhausted
