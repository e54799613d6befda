"""The generative reward model as a scorer: judgements of doubles worked out by hand, and an endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from fake_endpoint import Running
from toy import DOLLARS, FLOPS, PROBLEM, MemoryJournal, Piece, ToyGenerator, done, extend, score, solve, toy_search

from thinktime.core.errors import InputError, ModelError, TooLongError
from thinktime.core.types import Capability, Extension, Node, Problem, Prompt, Score
from thinktime.core.usage import Budget
from thinktime.generators.openai import RemoteGenerator
from thinktime.generators.text import Text
from thinktime.scorers.generative_reward import GenerativeRewardModel
from thinktime.strategies import check
from thinktime.strategies.sampling.best_of_n import BestOfN
from thinktime.strategies.sampling.weighted_majority import WeightedMajority


def _read(state: Text, n: int) -> list[float] | None:
    words = state.text.split()
    return [int(word) / 10 for word in words] if len(words) == n and all(map(str.isdecimal, words)) else None


SIDE_BY_SIDE = Prompt("judge", lambda problem, about, said: " | ".join(state.text for state in about), _read)
"""A prompt of the texts alone; a reply gives each text a grade from 1 to 10."""


class Grader(ToyGenerator):
    """Gives each text its grade, and adds ``bias`` to the text that is shown first."""

    def __init__(
        self, grades: Mapping[str, int], bias: int = 0, reply: Callable[[Extension, str], Piece] | None = None
    ):
        super().__init__(self._graded, name="grader")
        self.shown: dict[tuple[int, ...], list[str]] = {}
        self._grades, self._bias, self._reply = grades, bias, reply

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
        assert quotes, "a judge quotes what a model wrote"
        state = super().root(problem)
        self.shown[state.prompt] = str(problem.prompt).split(" | ")
        return state

    def _graded(self, extension: Extension) -> Piece:
        shown = self.shown[extension.node.state.prompt]
        grades = [self._grades[text] + (0 if index else self._bias) for index, text in enumerate(shown)]
        reply = " ".join(map(str, grades))
        return done(reply) if self._reply is None else self._reply(extension, reply)


def model(grader: Grader, **options: Any) -> GenerativeRewardModel:
    settings: dict[str, Any] = {"prompt": SIDE_BY_SIDE, "k": 3, "max_tokens": 4}
    return GenerativeRewardModel(grader, **(settings | options))


def nodes(*said: str) -> list[Node]:
    return [Node(f"key of {i}", (i,), Text((), text=text), finish="eos") for i, text in enumerate(said)]


def compare(scorer: GenerativeRewardModel, *said: str) -> Score:
    return asyncio.run(scorer.compare(PROBLEM, nodes(*said)))


GRADES = {"a 1": 3, "b 2": 9, "c 3": 6}
SAMPLES = {"0": done("a 1"), "1": done("b 2"), "2": done("c 3")}


def test_scores_belong_to_their_candidates_in_any_order_of_showing() -> None:
    grader = Grader(GRADES)
    found = compare(model(grader, k=12), "a 1", "b 2", "c 3")
    assert (found.steps, found.value, found.reason) == ((0.3, 0.9, 0.6), 0.9, "")
    assert len(grader.shown) > 1, "the judgements use several orders"


def test_a_comparison_costs_the_judges_tokens_as_scorer_tokens() -> None:
    """A prompt has 5 words, a reply 2 of at most 4; there are three judgements."""
    scorer = model(Grader(GRADES))
    usage = compare(scorer, "a 1", "b 2").usage
    assert (usage.scorer_tokens, usage.scorer_calls, usage.scorer_flops) == (3 * (5 + 2), 1, 3 * 2 * FLOPS)
    assert (usage.generated_tokens, usage.model_calls, usage.flops, usage.dollars) == (0, 0, 0, 3 * 2 * DOLLARS)
    worst = scorer.worst_case_of_comparison(PROBLEM, nodes("a 1", "b 2"))
    assert (worst.scorer_tokens, worst.scorer_flops, worst.dollars) == (3 * (5 + 4), 3 * 4 * FLOPS, 3 * 4 * DOLLARS)
    assert scorer.worst_case(PROBLEM, *nodes("a 1")).scorer_tokens == 3 * (2 + 4)


def test_the_bias_of_one_order_is_shared_out_and_orders_are_keyed() -> None:
    """m of 8 judgements show the first candidate first: it gets .5 + .2 m / 8, the other .5 + .2 (8 - m) / 8."""
    equal = {"a 1": 5, "b 2": 5}
    grader = Grader(equal, bias=2)
    found = compare(model(grader, k=8), "a 1", "b 2")
    (asked,) = grader.asked
    m = sum(grader.shown[extension.node.state.prompt][0] == "a 1" for extension in asked)
    assert 0 < m < 8
    assert found.steps == pytest.approx((0.5 + 0.2 * m / 8, 0.5 + 0.2 * (8 - m) / 8))
    assert len({extension.key for extension in asked}) == 8
    assert compare(model(Grader(equal, bias=2), k=8), "a 1", "b 2") == found
    per_order = [sum(e.node is root for e in asked) for root in {e.node for e in asked}]
    assert sorted(per_order) == sorted((m, 8 - m)), "judgements in the same order are samples of the same question"


def test_a_judgement_counts_for_all_candidates_or_for_none() -> None:
    def second_fails(extension: Extension, reply: str) -> Piece:
        return done("9") if extension.index else done(reply)

    found = compare(model(Grader(GRADES, bias=1, reply=second_fails), k=6), "a 1", "b 2")
    assert found.steps == pytest.approx((0.35, 0.95)), "one readable judgement in each order"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            done("what"),
            "none of 2 judgements gives each of 2 answers a score; they end 'what'; 'what'; take a model",
        ),
        (Piece("so so so so so", "eos"), "no judgement ends within 4 tokens; raise max_tokens"),
    ],
)
def test_without_a_readable_judgement_the_score_is_missing_and_has_a_reason(reply: Piece, reason: str) -> None:
    scorer, journal = model(Grader(GRADES, reply=lambda extension, said: reply), k=2), MemoryJournal()
    found = compare(scorer, "a 1", "b 2")
    assert found.value is None and found.steps == () and found.reason.startswith(reason)
    assert found.usage.scorer_tokens == 2 * (5 + len(reply.words.split()[:4]))
    search = toy_search({"0": done("a 1"), "1": done("b 2")}, scorer, journal=journal)
    with pytest.raises(ModelError, match=reason):
        solve(BestOfN(2, by="comparison"), search)
    assert journal.scores == {} and search.ledger.spent.scorer_calls == 1


def test_an_incomplete_judgement_is_not_read() -> None:
    grader = Grader(GRADES, reply=lambda extension, reply: done(f"{reply} no wait"))
    assert compare(model(grader, max_tokens=2), "a 1", "b 2").reason.startswith("no judgement ends within 2 tokens")


def test_a_search_with_one_comparison_that_succeeds_answers() -> None:
    def unsure_of_the_first(extension: Extension, reply: str) -> Piece:
        return done(reply if "3" not in reply else "what")

    search = toy_search(SAMPLES, model(Grader(GRADES, reply=unsure_of_the_first)))
    first, second, third = extend(search, [search.root], 3)

    async def compared() -> list[list[float | None]]:
        return [await search.compare([first, second]), await search.compare([second, third])]

    assert asyncio.run(compared()) == [[None, None], [0.9, 0.6]]
    assert len(search.failed_scores()) == 1 and search.finish(None).value == "1"


def test_candidates_that_do_not_fit_the_context_have_no_score_and_cost_nothing() -> None:
    class Short(Grader):
        def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
            raise TooLongError("prompt", 900, "shorten it")

    scorer = model(Short(GRADES))
    assert compare(scorer, "a 1", "b 2").reason == "prompt=900: shorten it"
    assert scorer.worst_case_of_comparison(PROBLEM, nodes("a 1")).scorer_tokens == 0


def test_candidates_with_the_same_text_are_judged_once_and_share_the_score() -> None:
    grader = Grader(GRADES)
    assert compare(model(grader, candidates=2), "a 1", "b 2", "a 1").steps == (0.3, 0.9, 0.3)
    assert {len(shown) for shown in grader.shown.values()} == {2}


def test_more_candidates_than_the_limit_and_none_are_refused() -> None:
    scorer = model(Grader(GRADES), candidates=2)
    for ask in (scorer.worst_case_of_comparison, lambda *given: asyncio.run(scorer.compare(*given))):
        with pytest.raises(InputError, match="candidates=3: this judge compares 2 at most"):
            ask(PROBLEM, nodes("a 1", "b 2", "c 3"))
        with pytest.raises(InputError, match="candidates=0: give one or more to judge"):
            ask(PROBLEM, [])
    search = toy_search({}, scorer)
    with pytest.raises(InputError, match="n=3: the judge compares 2 candidates at most; give n=2 or fewer"):
        check("best_of_n", BestOfN(3, by="comparison"), search)
    check("best_of_n", BestOfN(2, by="comparison"), search)
    check("best_of_n", BestOfN(3), search)


@pytest.mark.parametrize("field", ["k", "candidates", "max_tokens"])
def test_numbers_below_one_are_refused(field: str) -> None:
    with pytest.raises(InputError, match=f"{field}=0: give 1 or more"):
        model(Grader(GRADES), **{field: 0})


def test_identical_judgements_are_made_once_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    grader = Grader(GRADES)
    with caplog.at_level(logging.WARNING, "thinktime"):
        scorer = model(grader, k=8, temperature=0)
        assert [record.message for record in caplog.records] == [
            "k=8: judgements at temperature 0 would be identical; one is made"
        ]
        model(grader, k=1, temperature=0)
    assert compare(scorer, "a 1", "b 2").steps == (0.3, 0.9) and len(grader.asked[0]) == 1 and len(caplog.records) == 1


def test_judges_with_different_scores_have_different_names() -> None:
    grader = Grader(GRADES)
    other = Prompt("judge", lambda problem, about, said: "other words", _read)
    variants: list[dict[str, Any]] = [{}, {"k": 4}, {"temperature": 1.0}, {"max_tokens": 5}, {"prompt": other}]
    names = [model(grader, **options).name for options in variants]
    assert len(set(names)) == len(variants) and model(grader).name == names[0]


# In a search


def test_best_of_n_takes_the_best_of_a_comparison_and_a_bank_keeps_it() -> None:
    journal = MemoryJournal()
    for batches in (1, 0):
        grader = Grader(GRADES)
        search = toy_search(SAMPLES, model(grader), journal=journal)
        answer = solve(BestOfN(3, by="comparison"), search)
        assert (answer.value, answer.usage.scorer_calls, len(grader.asked)) == ("2", 1, batches)
        assert answer.usage.scorer_tokens == 3 * (8 + 3)


def test_one_readable_candidate_needs_no_comparison() -> None:
    grader = Grader(GRADES)
    answer = solve(BestOfN(2, by="comparison"), toy_search({"0": done("so"), "1": done("b 2")}, model(grader)))
    assert answer.value == "2" and grader.asked == []


def test_a_single_candidate_is_scored_like_a_comparison_of_one() -> None:
    grader = Grader(GRADES, bias=1)
    search = toy_search(SAMPLES, model(grader))
    assert {Capability.SCORES, Capability.COMPARE} <= search.capabilities
    assert score(search, extend(search, [search.root], 3)) == [0.4, 1.0, 0.7]
    assert [len(batch) for batch in grader.asked] == [3, 3, 3]
    assert solve(WeightedMajority(3), toy_search(SAMPLES, model(Grader(GRADES)))).value == "2"


def test_a_comparison_that_the_budget_does_not_cover_is_not_made() -> None:
    """The samples cost 12 FLOPs, the comparison 24 at most."""
    grader = Grader(GRADES)
    search = toy_search(SAMPLES, model(grader), budget=Budget(flops=30))
    answer = solve(BestOfN(3, by="comparison"), search)
    assert (answer.value, answer.finish, answer.usage.scorer_calls) == ("1", "budget", 0)
    assert grader.asked == []


# Behind HTTP


def test_an_endpoint_judges_by_the_chat_prompt_and_counts_its_tokens() -> None:
    """Each reply gives .3 to the candidate that is shown first and .9 to the other, so the two scores sum to 1.2."""
    with Running() as endpoint:
        generator = RemoteGenerator(endpoint.url, "words")
        assert generator.traits
        endpoint.requests.clear()
        endpoint.prompt_tokens = endpoint.generated_tokens = 0
        endpoint.replies.extend(["Scores: [3, 9]"] * 4)
        scorer = GenerativeRewardModel(generator, k=4, max_tokens=60)

        async def judged() -> Score:
            found = await scorer.compare(PROBLEM, nodes("is 5", "is 7"))
            await scorer.close()
            return found

        found = asyncio.run(judged())
        assert sum(found.steps) == pytest.approx(1.2)
        assert found.usage.scorer_tokens == endpoint.prompt_tokens + endpoint.generated_tokens > 0
        assert "### Answer 2" in str(endpoint.requests[0]["messages"])
        worst = scorer.worst_case_of_comparison(PROBLEM, nodes("is 5", "is 7"))
        assert worst.scorer_tokens >= found.usage.scorer_tokens
