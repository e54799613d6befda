"""Votes that stop early, races, and votes by length, worked out by hand and replayed from a bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import ANSWERS, MemoryJournal, Piece, ToyGenerator, done, drawn, extend, solve, texts, toy_search, unhurried

from thinktime.bank.store import Bank
from thinktime.core.errors import InputError
from thinktime.core.transitions import Race
from thinktime.core.types import Child, Extension
from thinktime.core.usage import Budget
from thinktime.generators.recorded import BankedGenerator
from thinktime.strategies import Strategy
from thinktime.strategies.sampling.adaptive_consistency import AdaptiveConsistency, lead
from thinktime.strategies.sampling.first_finish import FirstFinish
from thinktime.strategies.sampling.length_vote import LengthVote
from thinktime.strategies.sampling.majority import Majority

RACE = {
    "0": done("a b c d 5"),
    "1": done("a b 7"),
    "2": done("a b c 9"),
    "3": done("a what"),
    "4": Piece("a b c d e f g", "length"),
}
"""Lengths 5, 3, 4, an unreadable 2, and one that never ends."""


# First finish


def test_the_first_sample_with_an_answer_wins_and_the_others_are_charged_up_to_its_length() -> None:
    search = toy_search(RACE, None)
    answer = solve(FirstFinish(n=5), search)
    assert (answer.value, answer.finish) == ("7", "done")
    finishes = {record.node.path[0]: record.node.finish for record in search.trace.values() if record.node.path}
    assert finishes == {0: "pruned", 1: "eos", 2: "pruned", 3: "eos", 4: "pruned"}
    assert answer.usage.generated_tokens == 3 + 3 + 3 + 2 + 3
    assert answer.passes == 3


def test_the_first_k_samples_vote() -> None:
    tree = RACE | {"2": done("a b c 9"), "0": done("so now then is 9")}
    answer = solve(FirstFinish(n=5, k=3), toy_search(tree, None))
    assert (answer.value, answer.share) == pytest.approx(("9", 2 / 3))


def test_the_shortest_of_answers_with_equal_votes_wins() -> None:
    assert solve(FirstFinish(n=5, k=2), toy_search(RACE, None)).value == "7"


def test_two_samples_of_the_same_length_both_vote() -> None:
    tree = {"0": done("so 5"), "1": done("thus 7"), "2": done("is 7")}
    answer = solve(FirstFinish(n=3), toy_search(tree, None))
    assert (answer.value, answer.share) == pytest.approx(("7", 2 / 3))


def test_a_sample_below_the_least_length_does_not_count() -> None:
    assert solve(FirstFinish(n=5, min_tokens=4), toy_search(RACE, None)).value == "9"


def test_a_sample_of_exactly_the_least_length_counts() -> None:
    assert solve(FirstFinish(n=5, min_tokens=3), toy_search(RACE, None)).value == "7"


def test_with_counts_any_an_unreadable_sample_can_win_the_race() -> None:
    """The unreadable sample of 2 tokens ends the race, so there is no answer."""
    answer = solve(FirstFinish(n=5, counts="any"), search := toy_search(RACE, None))
    assert (answer.value, answer.usage.generated_tokens) == (None, 5 * 2)
    assert search.events[-1] == {"lengths": [2], "given_up": 4}


def test_a_race_logs_the_lengths_of_the_winners_and_the_number_of_cancelled_samples() -> None:
    search = toy_search(RACE, None)
    solve(FirstFinish(n=5, k=2, guard="off"), search)
    assert search.events == [{"lengths": [3, 4], "given_up": 2}]


@pytest.mark.parametrize(
    ("advice", "says"),
    [("unknown", "measure first whether short samples"), ("do not use", "short samples of this model are not")],
)
def test_a_guard_warns_or_refuses_unless_the_advice_is_use(advice: str, says: str) -> None:
    search = toy_search(RACE, None)
    assert solve(FirstFinish(n=5, advice=advice), search).value == "7"
    (warning,) = [event["warning"] for event in search.events if "warning" in event]
    assert warning.startswith(f"first_finish: {says}")
    with pytest.raises(InputError, match=f"advice='{advice}': {says}.*; take majority, or guard=off"):
        FirstFinish(n=5, advice=advice, guard="refuse")
    for quiet in (FirstFinish(n=5, advice=advice, guard="off"), FirstFinish(n=5, advice="use", guard="refuse")):
        solve(quiet, search := toy_search(RACE, None))
        assert not any("warning" in event for event in search.events)


def test_a_race_without_a_winner_has_no_answer() -> None:
    tree = {"0": done("what"), "1": Piece("a b", "length")}
    answer = solve(FirstFinish(n=2), toy_search(tree, None))
    assert (answer.value, answer.finish) == (None, "incomplete")


@unhurried
@given(st.integers(1, 12), st.integers(0, 500), st.data())
def test_a_race_replayed_from_the_samples_of_a_vote_equals_the_live_race(
    n: int, seed: int, data: st.DataObject
) -> None:
    """It is the same token for token if the bank has all whole samples, some of them, or the race."""
    k = data.draw(st.integers(1, n))
    live = toy_search(drawn, None, seed=seed, journal=(bank := MemoryJournal()))
    raced = solve(FirstFinish(n=n, k=k), live)
    samples = MemoryJournal()
    solve(Majority(n=data.draw(st.integers(1, n))), toy_search(drawn, None, seed=seed, journal=samples))
    for journal in (samples, bank):
        again = toy_search(drawn, None, seed=seed, journal=journal)
        replayed = solve(FirstFinish(n=n, k=k), again)
        assert (replayed.value, replayed.usage.generated_tokens) == (raced.value, raced.usage.generated_tokens)
        assert [r.node.finish for r in again.trace.values()] == [r.node.finish for r in live.trace.values()]


def test_a_race_from_its_own_bank_samples_nothing() -> None:
    bank = MemoryJournal()
    solve(FirstFinish(n=5), toy_search(RACE, None, journal=bank))
    generator = ToyGenerator(RACE)
    solve(FirstFinish(n=5), toy_search(generator, None, journal=bank))
    assert generator.asked == []


def test_a_sample_cancelled_by_a_race_is_not_used_by_a_vote() -> None:
    bank = MemoryJournal()
    solve(FirstFinish(n=5), toy_search(RACE, None, journal=bank))
    answer = solve(Majority(n=5), search := toy_search(RACE, None, journal=bank))
    assert texts([r.node for r in search.trace.values()])[1:3] == ["a b c d 5", "a b 7"]
    assert answer.usage.generated_tokens == 5 + 3 + 4 + 2 + 7


def test_a_race_within_a_budget_runs_as_many_samples_as_it_covers() -> None:
    search = toy_search(RACE, None, budget=Budget(tokens=17))
    answer = solve(FirstFinish(n=5), search)
    assert answer.usage.generated_tokens <= 17
    assert (answer.value, answer.finish) == ("7", "budget")


def test_a_finished_race_leaves_no_reservation() -> None:
    """17 tokens cover two rows of 8; when one has ended, the other three samples need no reservation."""
    search = toy_search(RACE, None, budget=Budget(tokens=17))
    answer = solve(FirstFinish(n=5), search)
    assert search.ledger.room_for_tokens() == 17 - answer.usage.generated_tokens > 0


@pytest.mark.parametrize("first", [FirstFinish(n=8), FirstFinish(n=2), FirstFinish(n=6, k=3), Majority(n=5)])
def test_other_banked_samples_do_not_change_a_race_and_the_race_is_banked(first: Strategy, tmp_path: Path) -> None:
    """The cut samples of a shorter race are too short for a longer one, and must not hide those of the longer race."""
    for seed, race in product(range(8), (FirstFinish(n=3), FirstFinish(n=6, k=2))):
        alone = solve(race, toy_search(drawn, None, seed=seed))
        with Bank(tmp_path / f"{seed}{race.n}.db") as bank:
            solve(first, toy_search(drawn, None, seed=seed, journal=bank))
            for generator in (ToyGenerator(drawn), BankedGenerator("toy")):
                search = toy_search(generator, None, seed=seed, journal=bank)
                answer = solve(race, search)
                assert (answer.value, answer.finish, answer.usage) == (alone.value, alone.finish, alone.usage)


def test_rows_that_ran_further_are_charged_up_to_the_end_of_the_race() -> None:
    """The engine runs 0 and 1 first: 0 ends at 5, and 1 is cancelled there. Then 2 ends at 3."""

    class Staggered(ToyGenerator):
        async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
            ahead = [replace(e, race=Race(1, e.race.counts, [5])) for e in extensions[:2] if e.race]
            return [*await super().extend(ahead), *await super().extend(extensions[2:])]

    tree = {"0": done("a b c d 5"), "1": Piece("a b c d e f g", "length"), "2": done("a b 7"), "3": done("a b c 9")}
    bank = MemoryJournal()
    answer = solve(FirstFinish(n=4), search := toy_search(Staggered(tree), None, journal=bank))
    assert (answer.value, answer.finish, answer.usage.generated_tokens) == ("7", "done", 4 * 3)
    assert [record.node.finish for record in search.trace.values()][1:] == ["pruned", "pruned", "eos", "pruned"]
    again = solve(FirstFinish(n=4), toy_search(generator := ToyGenerator(tree), None, journal=bank))
    assert (again.value, again.usage, generator.asked) == ("7", answer.usage, [])


def test_a_race_can_continue_in_a_second_call() -> None:
    """The limit also holds for samples that start later; they can still be shorter."""
    search = toy_search(RACE | {"5": done("so 9")}, None)
    race = Race(1, lambda state: ANSWERS.read(state) is not None)
    assert [node.finish for node in extend(search, [search.root], 3, race=race)] == ["pruned", "eos", "pruned"]
    assert [node.finish for node in extend(search, [search.root], 3, race=race)] == ["eos", "pruned", "eos"]
    assert (race.limit, search.exhausted) == (2, False)


def test_a_race_is_over_at_the_length_of_its_kth_winner() -> None:
    race = Race(2, lambda state: True)
    assert race.limit is None and not race.at_once
    race.lengths += [9, 4]
    assert race.limit == 9
    race.lengths.append(5)
    assert race.limit == 5


# Votes


def test_tied_counts_the_answers_with_the_most_votes() -> None:
    """5 and 7 twice each, and a 9; unreadable answers do not count."""
    said = ("so 5", "is 7", "be 9", "is 7", "so 5", "what", "what", "what")
    tree = {str(i): done(text) for i, text in enumerate(said)}
    for n, tied in ((8, 2), (4, 1), (1, 1)):
        search = toy_search(tree, None)
        solve(Majority(n=n), search)
        assert search.events == [{"tied": tied}]
    solve(Majority(n=1), search := toy_search({"0": done("what")}, None))
    assert search.events == [{"tied": 0}]


# Adaptive consistency


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 0.5), (1, 0, 0.75), (2, 0, 0.875), (4, 0, 0.96875), (3, 3, 0.5), (2, 1, 0.6875)],
)
def test_the_probability_that_the_leader_is_likelier(first: int, second: int, expected: float) -> None:
    assert lead(first, second) == expected


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_probabilities_of_two_answers_sum_to_1(first: int, second: int) -> None:
    assert lead(first, second) + lead(second, first) == pytest.approx(1)


def test_a_vote_stops_once_its_leader_is_safe() -> None:
    """Four equal answers: 1 - 2**-5 is above .95, 1 - 2**-4 is not."""
    generator = ToyGenerator({str(i): done("so 7") for i in range(16)})
    answer = solve(AdaptiveConsistency(), toy_search(generator, None))
    assert (answer.value, answer.usage.model_calls, len(generator.asked)) == ("7", 4, 4)


def test_a_leader_is_safe_at_exactly_the_required_confidence() -> None:
    """Three equal answers give 1 - 2**-4 = .9375."""
    tree = {str(i): done("so 7") for i in range(16)}
    for confidence, n in ((0.9375, 3), (0.9376, 4)):
        search = toy_search(tree, None)
        assert solve(AdaptiveConsistency(confidence=confidence), search).usage.model_calls == n
        assert search.events == [{"samples": n}]


def test_unreadable_samples_are_never_leaders_even_at_low_confidence() -> None:
    generator = ToyGenerator({str(i): done("what") for i in range(3)})
    assert solve(AdaptiveConsistency(n=3, confidence=0.4), toy_search(generator, None)).usage.model_calls == 3


def test_a_vote_that_the_budget_ends_answers_with_its_samples() -> None:
    search = toy_search({str(i): done(f"so {i % 2}") for i in range(9)}, None, budget=Budget(calls=3))
    answer = solve(AdaptiveConsistency(n=9, batch=2), search)
    assert (answer.value, answer.finish, search.events) == ("0", "budget", [{"samples": 3}])


@pytest.mark.parametrize("strategy", [AdaptiveConsistency(n=2), Majority(n=2)])
def test_a_vote_at_temperature_0_is_refused(strategy: Strategy) -> None:
    generator = ToyGenerator({"0": done("so 7")})
    with pytest.raises(InputError, match=r"^temperature=0: 2 samples would be the same"):
        solve(strategy, toy_search(generator, None, temperature=0))
    assert generator.asked == []
    for alone in (AdaptiveConsistency(n=1), Majority(n=1)):
        assert solve(alone, toy_search(generator, None, temperature=0)).value == "7"


def test_a_vote_without_a_safe_leader_draws_all_samples() -> None:
    generator = ToyGenerator({str(i): done(f"so {i % 3}") for i in range(9)})
    answer = solve(AdaptiveConsistency(n=9, batch=4), toy_search(generator, None))
    assert [len(batch) for batch in generator.asked] == [4, 4, 1]
    assert answer.usage.model_calls == 9


def test_unreadable_samples_do_not_stop_a_vote() -> None:
    generator = ToyGenerator({str(i): done("what") for i in range(6)})
    answer = solve(AdaptiveConsistency(n=6), toy_search(generator, None))
    assert (answer.value, answer.usage.model_calls) == (None, 6)


@given(st.integers(1, 30), st.integers(0, 300))
def test_its_answer_is_that_of_a_vote_over_the_same_samples(n: int, seed: int) -> None:
    adaptive = solve(AdaptiveConsistency(n=n), toy_search(drawn, None, seed=seed))
    full = solve(Majority(n=adaptive.usage.model_calls), toy_search(drawn, None, seed=seed))
    assert adaptive.value == full.value
    assert adaptive.usage.generated_tokens == full.usage.generated_tokens


# Votes by length


def test_the_shortest_half_of_the_complete_samples_votes() -> None:
    """Complete samples have 2 (unreadable), 3, 4 and 5 tokens; half of 4 is 2, but at least 3 vote."""
    assert solve(LengthVote(n=5), toy_search(RACE, None)).value == "7"
    long = solve(LengthVote(n=5, side="long", least=1, keep=0.25), toy_search(RACE, None))
    assert (long.value, long.share) == ("5", 1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FirstFinish(n=2, k=3), "k=3: give 1 to n=2"),
        (lambda: FirstFinish(n=0), "n=0: give 1 or more"),
        (lambda: FirstFinish(advice="maybe"), "advice='maybe': unknown"),
        (lambda: FirstFinish(guard="loud"), "guard='loud': unknown"),
        (lambda: FirstFinish(min_tokens=-1), "min_tokens=-1: give 0 or more"),
        (lambda: solve(FirstFinish(min_tokens=8), toy_search(drawn, None, cap=8)), "min_tokens=8: give less than"),
        (lambda: AdaptiveConsistency(confidence=1), "confidence=1: give a number below 1"),
        (lambda: AdaptiveConsistency(confidence=0), "confidence=0: give a number above 0"),
        (lambda: AdaptiveConsistency(batch=0), "batch=0: give 1 or more"),
        (lambda: LengthVote(keep=0), "keep=0: give a number above 0"),
        (lambda: LengthVote(side="middle"), "side='middle': unknown"),
    ],
)
def test_a_wrong_option_is_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_lead_is_a_sum_of_binomials() -> None:
    """`lead` is the probability of at most ``first`` heads in first + second + 1 tosses."""
    assert lead(3, 1) == sum(comb(5, heads) for heads in range(4)) / 32
