"""Strategies inside strategies: their syntax, their needs, and restarts, which run another strategy."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
from toy import ANSWERS, ToyGenerator, done, drawn, drawn_score, solve, step, toy_search

from thinktime.core.errors import CapabilityError, InputError, ModelError, UnknownNameError
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Capability
from thinktime.core.usage import Budget
from thinktime.strategies import check, find, listed, make, options, parse, settings, spec, split
from thinktime.strategies.composition.restarts import Restarts
from thinktime.strategies.sampling.best_of_n import BestOfN
from thinktime.strategies.sampling.majority import Majority
from thinktime.strategies.sampling.single import Single
from thinktime.strategies.search.beam_search import BeamSearch

# Syntax


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("restarts(beam_search)", Restarts(BeamSearch())),
        ("restarts(beam_search:n=4,width=2):n=2", Restarts(BeamSearch(4, 2), 2)),
        ("restarts(restarts(single):n=3):n=2", Restarts(Restarts(Single(), 3), 2)),
        ("restarts( majority:n=2 ): n = 2, select = best", Restarts(Majority(2), 2, "best")),
        ("restarts:n=2", Restarts(Single(), 2)),
    ],
)
def test_a_strategy_in_brackets_runs_inside_another(text: str, strategy: Restarts) -> None:
    name, parsed = parse(text)
    assert parsed == strategy
    assert parse(spec(parsed))[1] == strategy, "parsing the written form gives the same strategy"
    assert name.startswith("restarts") and text.replace(" ", "").startswith(name.replace(" ", ""))


def test_the_inner_strategy_is_an_option_of_the_name_inner() -> None:
    assert split("restarts(beam_search:n=4):n=2") == ("restarts", {"inner": "beam_search:n=4", "n": "2"})
    assert make("restarts", {"inner": "beam_search:n=4", "n": 2}) == Restarts(BeamSearch(4), 2)
    assert make("restarts", {"inner": BeamSearch(4)}) == Restarts(BeamSearch(4))


def test_options_are_json_values_with_strategies_as_text() -> None:
    assert options(Restarts) == {"inner": "single", "n": 4, "select": "majority"}
    assert settings(Restarts(BeamSearch(n=8), 2)) == {"inner": "beam_search:n=8", "n": 2, "select": "majority"}
    assert json.loads(json.dumps(settings(Restarts()))) == options(Restarts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("restarts(beam_search:n=4", "close every bracket, as in restarts"),
        ("restarts((single)", "close every bracket"),
        ("restarts(single))", r"write it as name\(inner\):option=value"),
        ("restarts)", "write brackets after a name"),
        ("majority:n=(3)", "write brackets after a name"),
        ("restarts(single)(majority)", r"write it as name\(inner\):option=value"),
        ("restarts(single)n=2", r"write it as name\(inner\):option=value"),
        ("restarts()", r"write it as name\(inner\):option=value"),
        (
            "majority(single)",
            r"strategy='majority\(single\)': majority runs no other strategy; these do: delegate, restarts",
        ),
        ("restarts(beem_search)", "strategy='beem_search': unknown; did you mean 'beam_search'"),
        ("restart(single)", "strategy='restart': unknown; did you mean 'restarts'"),
        ("restarts(majority:m=2)", "majority option='m': unknown"),
        ("restarts(majority:n=0)", "n=0: give 1 or more"),
        ("restarts(single):n=0", "n=0: give 1 or more"),
        ("restarts(single):select=vote", "select='vote': unknown"),
    ],
)
def test_malformed_text_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        parse(text)
    assert "\n" not in str(refused.value)


def test_commas_in_brackets_do_not_separate_strategies() -> None:
    inner = "restarts(beam_search:n=4,width=2):n=2"
    assert listed(f"single, {inner},select=best,a_star:k=2,n_goals=4,{inner},ets") == [
        *("single", f"{inner},select=best", "a_star:k=2,n_goals=4", inner, "ets")
    ]
    assert listed("restarts(restarts(majority:n=2,),single):n=2,ets")[-1] == "ets"
    with pytest.raises(InputError, match="name at least one"):
        listed(" , ")


def test_a_built_in_name_reads_no_file_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinktime.strategies.installed", None)
    assert find("majority") is Majority and parse("restarts(majority:n=2)")[1] == Restarts(Majority(2))


# Needs


def test_the_needs_of_the_inner_strategy_are_needs_of_the_outer_one() -> None:
    assert Restarts.needs == Restarts().needs == {Capability.ANSWERS}
    assert Restarts(BestOfN()).needs == {Capability.ANSWERS, Capability.SCORES}
    assert Restarts(select="best").needs == {Capability.ANSWERS, Capability.SCORES}
    name, strategy = parse("restarts(best_of_n:n=2)")
    with pytest.raises(CapabilityError, match=r"strategy='restarts\(best_of_n:n=2\)': it needs a scorer"):
        check(name, strategy, toy_search(scorer=None))


def test_the_inner_strategy_is_validated_before_anything_is_sampled() -> None:
    generator = ToyGenerator(drawn)
    with pytest.raises(CapabilityError, match="by='ranks'"):
        check("restarts", Restarts(BestOfN(by="ranks")), toy_search(generator))
    assert generator.asked == []


# Restarts


def in_turn(*answers: str) -> ToyGenerator:
    """One answer per call, in this order."""
    left = list(answers)
    return ToyGenerator(lambda extension: done(left.pop(0)))


def test_the_winners_of_all_runs_vote() -> None:
    search = toy_search(in_turn("so 7", "so 5", "so 7"), scorer=None)
    answer = solve(Restarts(Single(), 3), search)
    assert (answer.value, answer.share, answer.finish) == ("7", 2 / 3, "done")
    assert answer.usage.model_calls == 3


def test_winners_can_be_weighted_or_ranked_by_their_scores() -> None:
    def scored(node: object) -> float:
        return 0.9 if "5" in node.state.text else 0.2  # type: ignore[attr-defined]

    for select, value in (("majority", "7"), ("weighted_majority", "5"), ("best", "5")):
        search = toy_search(in_turn("so 7", "so 5", "so 7"), scored)
        assert solve(Restarts(Single(), 3, select), search).value == value


def test_every_run_has_samples_of_its_own() -> None:
    search = toy_search(drawn)
    answer = solve(Restarts(BeamSearch(n=2, width=2), 3), search)
    roots = [record for record in search.records() if record.node.parent is None]
    assert len(roots) == 1 + 3 and answer.node is not None
    assert answer.value in {ANSWERS.read(record.node.state) for record in search.records() if record.node.done}


def test_a_budget_ends_the_runs_and_the_paid_runs_answer() -> None:
    search = toy_search(in_turn(*["so 7"] * 9), scorer=None, budget=Budget(calls=2))
    answer = solve(Restarts(Single(), 9), search)
    assert (answer.value, answer.finish, answer.usage.model_calls) == ("7", "budget", 2)
    assert sum(record.node.parent is None for record in search.records()) == 1 + 3, "the third run is the last"


@dataclass(frozen=True)
class FailsFirst:
    """Fails in its first runs."""

    failures: int
    runs: ClassVar[list[int]] = []
    needs: ClassVar[frozenset[str]] = frozenset()

    async def __call__(self, search: Search) -> Answer:
        self.runs.append(1)
        if len(self.runs) <= self.failures:
            raise ModelError(f"run {len(self.runs)} failed")
        return await Single()(search)


def test_a_run_that_fails_is_left_out_unless_all_fail() -> None:
    FailsFirst.runs.clear()
    assert solve(Restarts(FailsFirst(2), 3), toy_search(in_turn("so 7"))).value == "7"
    FailsFirst.runs.clear()
    with pytest.raises(ModelError, match="run 1 failed"):
        solve(Restarts(FailsFirst(3), 3), toy_search(in_turn()))


def test_several_runs_at_temperature_0_are_refused() -> None:
    with pytest.raises(InputError, match="temperature=0: 4 samples would be the same"):
        solve(Restarts(), toy_search(drawn, temperature=0.0))
    assert solve(Restarts(n=1), toy_search({"0": done("so 7")}, temperature=0.0)).value == "7"


def test_a_run_inside_a_run_is_a_search_of_its_own() -> None:
    generator = ToyGenerator(lambda e: step("so") if e.until == "step" and e.node.depth < 1 else done("so 7"))
    search = toy_search(generator, drawn_score)
    answer = solve(Restarts(Restarts(BeamSearch(n=2, width=2), 2), 2), search)
    assert answer.value == "7" and len({r.node.key for r in search.records() if r.node.parent is None}) == 1 + 2 + 4


def test_restarts_can_be_run_by_hand() -> None:
    async def run() -> Answer:
        return await Restarts(Majority(n=2), n=2)(toy_search(drawn))

    assert asyncio.run(run()).value is not None


def test_an_unknown_option_beside_brackets_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="restarts option='m': unknown"):
        parse("restarts(single):m=2")
