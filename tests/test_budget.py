"""Budgets are hard: they are never exceeded, and when they are used up the best answer so far is returned."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import (
    DOLLARS,
    FakeClock,
    MemoryJournal,
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
from waiting import PATIENCE

from thinktime.bench.trace import records
from thinktime.core.errors import InputError
from thinktime.core.ledger import Ledger, Reservation
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.usage import Budget, Usage, total
from thinktime.strategies import Strategy, make
from thinktime.strategies.sampling.best_of_n import BestOfN
from thinktime.strategies.sampling.majority import Majority
from thinktime.strategies.sampling.single import Single
from thinktime.strategies.search.beam_search import BeamSearch

TWO_WORDS = {str(i): done("so 7") for i in range(10)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr("thinktime.core.ledger.time", clock)
    return clock


# Parsing


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("4000tok", Budget(tokens=4000)),
        ("1 token", Budget(tokens=1)),
        ("16calls", Budget(calls=16)),
        ("2e12flops", Budget(flops=2e12)),
        ("1.5e+3flops", Budget(flops=1500.0)),
        ("30s", Budget(seconds=30.0)),
        (".5sec", Budget(seconds=0.5)),
        ("0.05usd", Budget(dollars=0.05)),
        ("3$", Budget(dollars=3.0)),
        ("4000tok, 0.05usd,30s", Budget(tokens=4000, dollars=0.05, seconds=30.0)),
    ],
)
def test_a_budget_is_numbers_with_units(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["4000", "tok", "4000 apples", "-5tok", "0calls", "0.2tok", "nans", "lots of tok"])
def test_a_part_without_a_known_unit_or_a_positive_number_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as refused:
        Budget.parse(f"9flops,{text}")
    assert str(refused.value).startswith("budget")
    assert "\n" not in str(refused.value)


def test_a_whole_number_is_at_least_one_and_is_cut_to_a_whole() -> None:
    assert Budget.parse("2.9tok,3.5calls,1nfe") == Budget(tokens=2, calls=3, nfe=1)
    for text in ("0.2tok", "0.9calls", "0.5nfe"):
        with pytest.raises(InputError, match=rf"^budget='{text}': give a limit above 0"):
            Budget.parse(text)


@pytest.mark.parametrize("text", ["1.2.3tok", "1e2e3s", "--5s", "1e999tok", "..usd"])
def test_a_malformed_number_is_refused_like_any_other_mistake(text: str) -> None:
    with pytest.raises(InputError, match="budget"):
        Budget.parse(text)


@unhurried
@given(st.builds(str.__add__, st.text("0123456789.eE+- ", max_size=6), st.sampled_from(["tok", "s", "usd", ""])))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except InputError:
        return
    assert budget != Budget() or not text, "something was written but nothing is limited"


@pytest.mark.parametrize("field", ["tokens", "calls", "flops", "seconds", "dollars"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_is_above_zero(field: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"budget\.{field}=.*above 0"):
        Budget(**{field: value})  # type: ignore[arg-type]  # any field


# The ledger


def reserve(ledger: Ledger, usage: Usage) -> Reservation | None:
    return asyncio.run(ledger.reserve(usage))


def held(ledger: Ledger, usage: Usage) -> Reservation:
    found = reserve(ledger, usage)
    assert found is not None
    return found


def test_a_reservation_counts_as_spent_until_it_is_settled() -> None:
    ledger = Ledger(Budget(tokens=10))
    six, two = Usage(generated_tokens=6), Usage(generated_tokens=2)
    reservation = held(ledger, six)
    assert not reserve(ledger, six)
    assert ledger.room_for_tokens() == 4
    ledger.settle([reservation], two)
    ledger.settle([reservation], two)
    assert ledger.spent == two, "a reservation is settled once"
    assert reserve(ledger, six)
    assert ledger.room_for_tokens() == 2


def test_a_refused_reservation_changes_nothing() -> None:
    ledger = Ledger(Budget(calls=1, tokens=5))
    assert not reserve(ledger, Usage(model_calls=1, generated_tokens=6))
    assert reserve(ledger, Usage(model_calls=1, generated_tokens=5))


def test_inner_ledgers_keep_their_own_limits_and_together_the_outer_ones() -> None:
    shared = Ledger(Budget(tokens=100))
    first, second = Ledger(Budget(tokens=70), within=shared), Ledger(within=shared)
    sixty, twenty, fifty = (Usage(generated_tokens=count, model_calls=1) for count in (60, 20, 50))
    reservation = held(first, sixty)
    assert not reserve(first, twenty) and first.fits_later(twenty)
    assert not first.fits_later(Usage(generated_tokens=71, model_calls=1)), "its own limit is 70"
    assert (first.room_for_tokens(), second.room_for_tokens()) == (10, 40)
    assert not reserve(second, fifty) and second.fits_later(fifty)
    first.settle([reservation], Usage(generated_tokens=5, model_calls=1))
    assert not second.fits_later(fifty), "no call is running, so nothing will be given back"
    assert reserve(second, fifty) and not reserve(second, fifty) and second.fits_later(fifty)
    assert shared.spent == first.spent == Usage(generated_tokens=5, model_calls=1) and second.spent == Usage()


def test_a_search_waits_for_reservations_of_others_but_not_for_their_spending() -> None:
    shared = Ledger(Budget(tokens=12))
    other = Ledger(within=shared)
    worst, spent = Usage(generated_tokens=11, model_calls=1), Usage(generated_tokens=6, model_calls=1)

    async def both() -> list[Answer]:
        reservation = await other.reserve(worst)
        assert reservation is not None
        search = toy_search(TWO_WORDS, within=shared, cap=3)
        waiting = asyncio.create_task(Majority(n=8)(search))
        await asyncio.sleep(0)
        assert not waiting.done() and search.ledger.spent == Usage()
        other.settle([reservation], spent)
        return [await waiting]

    (answer,) = asyncio.run(both())
    assert answer.finish == "budget" and answer.value == "7"
    assert shared.spent.generated_tokens == 12 and answer.usage.generated_tokens == 6


def test_a_search_waits_for_reservations_in_the_outermost_ledger_until_its_seconds_end(clock: FakeClock) -> None:
    """Another key has reserved the gateway's tokens; the ledger of this key has no reservation."""
    gateway = Ledger(Budget(tokens=10))
    key = Ledger(within=gateway)
    request = Ledger(Budget(seconds=5), within=key)
    six = Usage(generated_tokens=6, model_calls=1)
    assert not request.fits_later(six)
    assert reserve(Ledger(within=gateway), six)
    assert not reserve(request, six) and request.fits_later(six)
    clock.now += 4.9
    assert request.fits_later(six)
    clock.now += 0.1
    assert not request.fits_later(six)


def test_a_call_beyond_its_own_limits_never_fits_later() -> None:
    shared = Ledger(Budget(tokens=10))
    mine = Ledger(Budget(tokens=5), within=shared)
    assert reserve(Ledger(within=shared), Usage(generated_tokens=9, model_calls=1))
    assert mine.fits_later(Usage(generated_tokens=5, model_calls=1))
    assert not mine.fits_later(Usage(generated_tokens=6, model_calls=1))


def test_a_wait_for_others_ends_with_the_seconds_and_cleans_up() -> None:
    shared = Ledger(Budget(tokens=10))
    assert reserve(Ledger(within=shared), Usage(generated_tokens=9, model_calls=1))
    mine = Ledger(Budget(seconds=0.05), within=shared)
    asyncio.run(asyncio.wait_for(mine.freed(), PATIENCE))
    assert mine.deadline is not None and mine.deadline.passed
    assert shared._waiting == set()


def test_every_limit_can_be_reached_but_not_exceeded() -> None:
    limits: list[tuple[Budget, Usage, Usage]] = [
        (Budget(tokens=4), Usage(generated_tokens=4), Usage(generated_tokens=1)),
        (Budget(calls=4), Usage(model_calls=4), Usage(model_calls=1)),
        (Budget(nfe=4), Usage(denoiser_calls=4), Usage(denoiser_calls=1)),
        (Budget(flops=4), Usage(flops=3.0, scorer_flops=1.0), Usage(flops=1.0)),
        (Budget(dollars=4), Usage(dollars=4.0), Usage(dollars=0.5)),
    ]
    for budget, exact, more in limits:
        ledger = Ledger(budget)
        assert ledger.check(exact) and not ledger.check(exact + more)
        assert reserve(ledger, exact) and not reserve(ledger, more)


def test_usage_is_added_and_subtracted_count_by_count_and_unknown_stays_unknown() -> None:
    names = list(Usage().as_dict())
    primes = dict(zip(names, (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59), strict=True))
    one, two = Usage(**primes), Usage(**{name: 2 * count for name, count in primes.items()})
    assert one.as_dict() == primes and one + one == two and two - one == one and total([one, one]) == two
    assert one - one == Usage()
    unknown = Usage(dollars=None, generated_tokens=4)
    for known in (Usage(dollars=1.0, generated_tokens=3), Usage(generated_tokens=3)):
        assert known + unknown == unknown + known == Usage(dollars=None, generated_tokens=7)
        assert unknown - known == Usage(dollars=None, generated_tokens=1)


def test_work_that_names_no_count_costs_nothing() -> None:
    assert set(Usage().as_dict().values()) == {0}


def test_a_forfeited_reservation_is_spent_in_all_ledgers_and_marked_as_uncounted() -> None:
    shared = Ledger()
    ledger = Ledger(Budget(tokens=100), within=shared)
    reservation, _ = (held(ledger, Usage(generated_tokens=40, model_calls=1)) for _ in range(2))
    ledger.settle([reservation], Usage(generated_tokens=30, model_calls=1))
    ledger.forfeit()
    ledger.forfeit()
    assert ledger.spent == shared.spent == Usage(generated_tokens=70, model_calls=2, uncounted_calls=1)
    assert ledger.room_for_tokens() == 30


def test_flops_of_generator_and_scorer_share_one_limit() -> None:
    ledger = Ledger(Budget(flops=10))
    assert reserve(ledger, Usage(flops=6.0, scorer_flops=4.0))
    assert not reserve(ledger, Usage(scorer_flops=1.0))


def test_an_unknown_count_makes_only_its_own_sum_unknown() -> None:
    known, unknown = Usage(generated_tokens=1, flops=2.0), Usage(generated_tokens=3, flops=None)
    assert total([known, unknown, known]) == Usage(generated_tokens=5, flops=None)
    assert total([]) == Usage()


# Running out

STRATEGIES = st.one_of(
    st.builds(
        lambda name, n: make(name, {"n": n}),
        st.sampled_from(["best_of_n", "majority", "weighted_majority", "most_likely", "summed_probability"]),
        st.integers(1, 12),
    ),
    st.builds(lambda indices, width: BeamSearch(n=indices * width, width=width), st.integers(1, 3), st.integers(1, 4)),
    st.just(Single()),
)
BUDGETS = st.builds(
    Budget,
    tokens=st.none() | st.integers(1, 60),
    calls=st.none() | st.integers(1, 15),
    flops=st.none() | st.integers(1, 200).map(float),
    dollars=st.none() | st.integers(1, 60).map(lambda tokens: tokens * DOLLARS),
)


def outcome_of(search: Search, answer: Answer) -> tuple[Any, ...]:
    """The answer, account and trace of a run."""
    return (*(vars(answer) | {"node": answer.node and answer.node.key}).values(), records(search))


@unhurried
@given(STRATEGIES, BUDGETS, st.integers(0, 1000), st.data())
def test_a_run_killed_at_any_point_and_resumed_equals_an_uninterrupted_run(
    strategy: Strategy, budget: Budget, seed: int, data: st.DataObject
) -> None:
    """A killed run leaves the beginning of the journal of the whole run."""
    journal = MemoryJournal()
    whole = toy_search(drawn, budget=budget, seed=seed, journal=journal)
    expected = outcome_of(whole, solve(strategy, whole))
    samples = data.draw(st.integers(0, len(journal.samples)))
    scores = data.draw(st.integers(0, len(journal.scores)))
    left = MemoryJournal(dict([*journal.samples.items()][:samples]), dict([*journal.scores.items()][:scores]))
    resumed = toy_search(drawn, budget=budget, seed=seed, journal=left)
    assert outcome_of(resumed, solve(strategy, resumed)) == expected


@unhurried
@given(st.integers(1, 60), st.integers(0, 1000))
def test_a_budget_buys_the_same_from_a_full_bank_as_from_an_empty_one(tokens: int, seed: int) -> None:
    journal, budget = MemoryJournal(), Budget(tokens=tokens)
    solve(Majority(n=16), toy_search(drawn, seed=seed, journal=journal))
    fresh = toy_search(drawn, budget=budget, seed=seed)
    banked = toy_search(drawn, budget=budget, seed=seed, journal=journal)
    assert outcome_of(banked, solve(Majority(n=16), banked)) == outcome_of(fresh, solve(Majority(n=16), fresh))


def test_a_budget_that_is_just_enough_does_not_mark_the_answer() -> None:
    answer = solve(Majority(n=3), toy_search(TWO_WORDS, budget=Budget(calls=3)))
    assert (answer.value, answer.finish) == ("7", "done")


def test_at_the_end_of_the_budget_the_best_answer_so_far_is_returned_and_marked() -> None:
    script = {"0": done("so 3"), "1": done("so 7"), "2": done("so 5")}
    scores = {"0": 0.2, "1": 0.6, "2": 0.9}
    answer = solve(BestOfN(n=3), toy_search(script, scores, budget=Budget(calls=2)))
    assert (answer.value, answer.finish) == ("7", "budget")
    assert answer.usage.model_calls == 2


def test_at_the_end_of_the_budget_a_tree_search_answers_with_its_finished_solutions() -> None:
    script = {"0": done("so 7"), "1": step("well then"), "2": step("well"), "3": step("then")}
    scores = {"0": 0.5, "1": 0.9, "2": 0.2, "3": 0.1}
    answer = solve(BeamSearch(n=4, width=2), toy_search(script, scores, budget=Budget(calls=4)))
    assert (answer.value, answer.finish) == ("7", "budget")


def test_a_budget_that_covers_no_sample_gives_no_answer_and_spends_nothing() -> None:
    answer = solve(Majority(n=3), toy_search(TWO_WORDS, budget=Budget(tokens=1)))
    assert (answer.value, answer.finish, answer.usage) == (None, "incomplete", Usage())


def test_a_budget_that_covers_the_samples_but_not_their_scores_still_answers() -> None:
    """Two samples of two words at 2 FLOPs per word; a score of two words would cost 2 more."""
    search = toy_search(TWO_WORDS, lambda node: 0.5, budget=Budget(flops=9), cap=2)
    answer = solve(BestOfN(n=2), search)
    assert (answer.value, answer.finish) == ("7", "budget")
    assert (answer.usage.model_calls, answer.usage.scorer_calls) == (2, 0)


def test_unused_parts_of_reservations_pay_for_further_samples() -> None:
    """20 tokens cover two reservations of 8 tokens, but ten samples of 2: all ten are drawn."""
    search = toy_search(TWO_WORDS, budget=Budget(tokens=20))
    assert len(extend(search, [search.root], 10)) == 10
    assert search.ledger.spent.generated_tokens == 20
    assert not search.exhausted


def test_every_parent_gets_a_first_child_before_any_gets_a_second() -> None:
    script = {f"{i}": step("and") for i in range(3)} | {f"{i}/{j}": step("so") for i in range(3) for j in range(3)}
    search = toy_search(script, budget=Budget(calls=3 + 4))
    parents = extend(search, [search.root], 3, until="step")
    children = extend(search, parents, 3, until="step")
    assert [child.path for child in children] == [(0, 0), (0, 1), (1, 0), (2, 0)]
    assert search.exhausted


def test_a_sample_that_does_not_fit_also_stops_the_samples_after_it() -> None:
    """7 of 11 words are spent. Below a 7 more words are possible, below b only 2."""
    script = {"0": step("a"), "1": step("b c d e f g"), "1/1": done("7")}
    search = toy_search(script, budget=Budget(dollars=11 * DOLLARS), cap=8)
    a, b = extend(search, [search.root], 2, until="step")
    assert extend(search, [a, b]) == [] and search.exhausted
    assert texts(extend(search, [b, a])) == ["b c d e f g 7"]


@unhurried
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 16), st.integers(0, 100))
def test_children_are_shared_evenly_under_any_budget(parents: int, n: int, calls: int, seed: int) -> None:
    script = {f"{i}": step("and") for i in range(parents)}
    script |= {f"{i}/{j}": step("so " * (1 + (seed + i * j) % 3)) for i in range(parents) for j in range(n)}
    search = toy_search(script, budget=Budget(calls=parents + calls))
    nodes = extend(search, [search.root], parents, until="step")
    children = extend(search, nodes, n, until="step")
    counts = [sum(child.parent is node for child in children) for node in nodes]
    assert sum(counts) == min(calls, parents * n)
    assert max(counts) - min(counts) <= 1
    assert counts == sorted(counts, reverse=True)


def test_an_answer_cut_short_by_the_token_budget_marks_the_result() -> None:
    """After 2 of 6 tokens a sample of the usual length still fits, but the second needs 5 and gets 4."""
    search = toy_search({"0": done("so 7"), "1": done("so so so so 5")}, budget=Budget(tokens=6), cap=6)
    answer = solve(Majority(n=2), search)
    assert [record.node.finish for record in search.trace.values()] == ["root", "eos", "budget"]
    assert answer.usage.generated_tokens == 6
    assert (answer.value, answer.finish) == ("7", "budget")


# Seconds


def test_after_its_seconds_a_search_makes_no_more_calls(clock: FakeClock) -> None:
    generator, scorer = ToyGenerator(TWO_WORDS), ToyScorer(lambda node: 0.5)
    search = toy_search(generator, scorer, budget=Budget(seconds=10))
    clock.now += 9.9
    (child,) = extend(search, [search.root])
    clock.now += 0.1
    assert extend(search, [search.root]) == []
    assert score(search, [child]) == [None]
    assert (len(generator.asked), len(scorer.asked), search.exhausted) == (1, 0, True)


def test_seconds_count_from_the_beginning_of_the_search(clock: FakeClock) -> None:
    first = toy_search(TWO_WORDS, budget=Budget(seconds=10))
    clock.now += 10
    second = toy_search(TWO_WORDS, budget=Budget(seconds=10))
    assert extend(first, [first.root]) == []
    assert len(extend(second, [second.root])) == 1


def test_a_generation_gets_its_deadline_and_samples_that_end_in_time_answer(clock: FakeClock) -> None:
    """At a word a second, two of three samples finish within three seconds."""
    script = {"0": done("so 7"), "1": done("so so so so 5"), "2": done("and so 7")}
    search = toy_search(ToyGenerator(script, clock=clock), budget=Budget(seconds=3))
    answer = solve(Majority(n=3), search)
    assert [record.node.finish for record in search.trace.values()] == ["root", "eos", "budget", "eos"]
    assert answer.usage.generated_tokens == 2 + 3 + 3
    assert (answer.value, answer.finish) == ("7", "budget")


def test_best_of_n_answers_even_if_its_time_ends_before_scoring(clock: FakeClock) -> None:
    script = {"0": done("so 7"), "1": done("and so 5")}
    search = toy_search(ToyGenerator(script, clock=clock), lambda node: 0.5, budget=Budget(seconds=3))
    answer = solve(BestOfN(n=2), search)
    assert (answer.value, answer.finish) == ("7", "budget")


# Unknown prices


def test_a_dollar_budget_on_a_model_of_unknown_price_is_refused_before_the_first_call() -> None:
    generator = ToyGenerator(TWO_WORDS, price=None)
    with pytest.raises(InputError) as refused:
        solve(Single(), toy_search(generator, budget=Budget(dollars=0.05)))
    assert str(refused.value) == "budget.dollars=0.05: this model's dollars are unknown; limit tokens or calls"
    assert generator.asked == []


def test_a_dollar_budget_on_a_scorer_of_unknown_price_is_refused_before_anything_is_spent() -> None:
    generator = ToyGenerator(TWO_WORDS)
    scorer = ToyScorer(lambda node: 0.5, price=None)
    with pytest.raises(InputError, match=r"budget\.dollars=0\.5: .* unknown"):
        solve(BestOfN(n=2), toy_search(generator, scorer, budget=Budget(dollars=0.5)))
    assert generator.asked == []


def test_an_unknown_price_matters_only_to_a_dollar_budget() -> None:
    answer = solve(Single(), toy_search(ToyGenerator(TWO_WORDS, price=None), budget=Budget(tokens=20, calls=2)))
    assert (answer.value, answer.finish) == ("7", "done")
    assert answer.usage.dollars is None
