"""Every strategy on a tree small enough to work out by hand, and the registry that finds them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import log
from pathlib import Path
from typing import ClassVar

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
    solve,
    step,
    texts,
    toy_search,
    unhurried,
)

import thinktime
from thinktime.core.errors import CapabilityError, InputError, UnknownNameError
from thinktime.core.types import Capability, Node, Problem, Score, model_of
from thinktime.core.usage import Usage
from thinktime.strategies import BUILT_IN, Strategy, check, known, make, options, parse, require
from thinktime.strategies.cards import Option, card
from thinktime.strategies.sampling.best_of_n import BestOfN
from thinktime.strategies.sampling.ensemble import mean_ranks, ratings
from thinktime.strategies.sampling.likelihood import MostLikely, SummedProbability
from thinktime.strategies.sampling.majority import Majority
from thinktime.strategies.sampling.single import Single
from thinktime.strategies.sampling.weighted_majority import WeightedMajority
from thinktime.strategies.search.beam_search import BeamSearch, root
from thinktime.strategies.search.dvts import DVTS
from thinktime.strategies.search.early_rejection import EarlyRejection
from thinktime.strategies.search.particle_filter import ParticleFilter
from thinktime.testing import WORD_PROMPTS, WordGenerator, check_strategy

FIVE = {
    "0": done("so 5"),
    "1": done("so 7"),
    "2": done("thus 7"),
    "3": done("so what"),
    "4": done("hence 9"),
}
"""Five samples: 5, 7 twice, one unreadable, 9."""


# One sample


def test_single_answers_its_one_sample() -> None:
    generator = ToyGenerator(FIVE)
    answer = solve(Single(), toy_search(generator, None))
    assert (answer.value, answer.finish, answer.usage.model_calls) == ("5", "done", 1)
    assert (answer.usage.generated_tokens, answer.path_tokens, answer.passes) == (2, 2, 2)


def test_a_sample_without_an_answer_is_incomplete() -> None:
    answer = solve(Single(), toy_search({"0": done("so what")}, None))
    assert (answer.value, answer.finish, answer.node, answer.path_tokens) == (None, "incomplete", None, 0)


def test_an_incomplete_sample_has_no_answer() -> None:
    answer = solve(Single(), toy_search({"0": Piece("so 7", "length")}, None))
    assert (answer.value, answer.finish) == (None, "incomplete")


# Many samples


def test_best_of_n_answers_with_the_highest_score() -> None:
    scores = {"0": 0.3, "1": 0.2, "2": 0.4, "3": 0.99, "4": 0.8}
    answer = solve(BestOfN(n=5), toy_search(FIVE, scores))
    assert (answer.value, answer.finish) == ("9", "done")
    assert (answer.usage.model_calls, answer.usage.scorer_calls) == (5, 5)


class Parts(ToyScorer):
    """Two scores of each sample; their sum is the score. The first sample has none."""

    capabilities = ToyScorer.capabilities | {Capability.PARTS}

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        parts = {1: (2.0, 0.1), 2: (0.5, 0.6), 3: (0.5, 0.3), 4: (0.1, 0.4)}
        found = [parts.get(node.path[0], ()) for node in nodes]
        return [Score(sum(some) if some else None, Usage(scorer_calls=1), some) for some in found]


def test_best_of_n_by_ranks_takes_the_best_mean_rank_under_the_parts_of_a_score() -> None:
    """Ranks of samples 1 to 4: 1, 2.5, 2.5, 4 and 4, 1, 3, 2. The means are 2.5, 1.75, 2.75 and 3."""
    tree = {str(i): done(f"so {i}") for i in range(5)}
    search = toy_search(tree, Parts(drawn_score))
    assert solve(BestOfN(n=5, by="ranks"), search).value == "2"
    nodes = [record.node for record in search.records() if record.node.done]
    assert ratings(search, nodes, "ranks") == [None, -2.5, -1.75, -2.75, -3]
    assert ratings(search, nodes, "score") == [None, 2.1, 1.1, 0.8, 0.5], "by score, sample 1 is the best"
    assert mean_ranks([[3.0, 3.0, 3.0], [1.0, 2.0, 0.0]]) == [2.0, 1.5, 2.5]


def test_majority_gives_the_most_frequent_answer() -> None:
    answer = solve(Majority(n=5), toy_search(FIVE, None))
    assert (answer.value, answer.share, answer.finish) == ("7", 0.5, "done")
    assert answer.node is not None and answer.node.state.text == "so 7"


def test_weighted_majority_weights_each_sample_by_its_score() -> None:
    """7 has 0.25 + 0.125, 5 has 0.375, 9 has 0.75 of 1.5."""
    scores = {"0": 0.375, "1": 0.25, "2": 0.125, "3": 0.99, "4": 0.75}
    answer = solve(WeightedMajority(n=5), toy_search(FIVE, scores))
    assert (answer.value, answer.share) == ("9", 0.5)


def test_most_likely_answers_with_the_highest_probability() -> None:
    script = {"0": done("so 5", -2.0), "1": done("so 7", -0.5), "2": done("what", -0.1), "3": done("so 9", -1.0)}
    assert solve(MostLikely(n=4), toy_search(script, None)).value == "7"


def test_summed_probability_counts_a_sample_drawn_twice_once() -> None:
    """The same sample of 5 drawn twice has 0.4, not 0.8; two different samples of 7 have 0.3 each."""
    script = {
        "0": done("so 5", log(0.4)),
        "1": done("so 5", log(0.4)),
        "2": done("so 7", log(0.3)),
        "3": done("thus 7", log(0.3)),
    }
    answer = solve(SummedProbability(n=4), toy_search(script, None))
    assert answer.value == "7"
    assert answer.share == pytest.approx(0.6)


def test_summed_probability_compares_very_small_probabilities() -> None:
    """A thousand tokens have a probability below the smallest float, but e^-900 is still more than e^-1000."""
    script = {"0": done("so 5", -1000.0), "1": done("so 7", -900.0)}
    answer = solve(SummedProbability(n=2), toy_search(script, None))
    assert answer.value == "7"
    assert answer.share == pytest.approx(1.0)


# Beam search

BEAM = {
    "0": step("a"),
    "1": step("b"),
    "2": step("c"),
    "3": step("d"),
    "1/0": step("e"),
    "1/1": done("is 5"),
    "2/0": done("is 9"),
    "2/1": step("f"),
    "2/1/0": done("is 7"),
    "2/1/1": step("g"),
}
BEAM_SCORES = {
    "0": 0.2, "1": 0.9, "2": 0.8, "3": 0.1,
    "1/0": 0.3, "1/1": 0.2, "2/0": 0.7, "2/1": 0.6,
    "2/1/0": 0.5, "2/1/1": 0.4,
}  # fmt: skip
"""n=4, width=2. Round 1 keeps b and c. Round 2 has two slots: ``is 9`` keeps one, f gets the other; e is pruned, and
``is 5`` is below them but finished. Round 3 has one slot left, so two children: ``is 7`` gets the last slot."""


def test_beam_search_samples_n_then_width_children_of_each_kept_node() -> None:
    generator = ToyGenerator(BEAM)
    solve(BeamSearch(n=4, width=2), toy_search(generator, BEAM_SCORES))
    rounds = [[(extension.node.path, extension.index) for extension in batch] for batch in generator.asked]
    assert rounds == [
        [((), 0), ((), 1), ((), 2), ((), 3)],
        [((1,), 0), ((2,), 0), ((1,), 1), ((2,), 1)],
        [((2, 1), 0), ((2, 1), 1)],
    ]


def test_the_root_of_n_is_rounded_down_to_a_divisor_of_n_with_a_warning() -> None:
    assert [root(n) for n in (1, 2, 4, 8, 12, 16, 32, 7)] == [1, 1, 2, 2, 3, 4, 4, 1]
    searches = [toy_search(drawn, drawn_score) for _ in range(4)]
    solve(BeamSearch(n=4, width=2), searches[0])
    solve(BeamSearch(n=4, width="sqrt"), searches[1])
    assert list(searches[1].trace) == list(searches[0].trace) and searches[1].events == []
    solve(BeamSearch(n=8, width=2), searches[2])
    solve(BeamSearch(n=8, width="sqrt"), searches[3])
    assert list(searches[3].trace) == list(searches[2].trace)
    assert searches[3].events == [{"warning": "width=sqrt: n=8 is no square; a kept step has width=2"}]


def test_beam_search_prunes_steps_without_a_slot_and_never_a_finished_solution() -> None:
    search = toy_search(BEAM, BEAM_SCORES)
    solve(BeamSearch(n=4, width=2), search)
    pruned = [record.node for record in search.trace.values() if record.pruned]
    assert texts(pruned) == ["a", "d", "b e", "c f g"]


def test_beam_search_votes_over_all_finished_solutions_with_their_last_scores_as_weights() -> None:
    """9 has 0.7, 7 has 0.5, 5 has 0.2."""
    answer = solve(BeamSearch(n=4, width=2), toy_search(BEAM, BEAM_SCORES))
    assert (answer.value, answer.finish) == ("9", "done")
    assert answer.share == pytest.approx(0.7 / 1.4)
    assert (answer.path_tokens, answer.passes, answer.usage.model_calls) == (3, 4, 10)


def test_a_solution_that_finishes_without_a_slot_still_votes() -> None:
    """5 finishes twice without a slot, with 0.4 + 0.4; 9 finishes in a slot, with 0.7."""
    tree = BEAM | {"0": done("is 5")}
    answer = solve(BeamSearch(n=4, width=2), toy_search(tree, BEAM_SCORES | {"0": 0.4, "1/1": 0.4}))
    assert answer.value == "5"


def test_beam_search_stops_after_its_rounds() -> None:
    answer = solve(BeamSearch(n=4, width=2, max_rounds=2), toy_search(BEAM, BEAM_SCORES))
    assert answer.usage.model_calls == 8
    assert answer.value == "9"


def test_a_beam_narrower_than_its_width_is_one_greedy_path() -> None:
    tree = {"0": step("a"), "1": step("b"), "1/0": done("is 7"), "1/1": done("is 8")}
    generator = ToyGenerator(tree)
    answer = solve(BeamSearch(n=2, width=4), toy_search(generator, {"0": 0.1, "1": 0.2, "1/0": 0.9, "1/1": 0.8}))
    assert answer.value == "7"
    assert [len(batch) for batch in generator.asked] == [2, 2]


def test_a_step_with_any_score_outranks_one_without_a_score() -> None:
    """Scores can be any numbers: -3 is a score, a missing one is not."""
    tree = {"0": step("a"), "1": step("b"), "0/0": done("is 5"), "0/1": done("is 5"), "1/0": done("is 7")}
    tree |= {"1/1": done("is 7")}
    scores = dict.fromkeys(tree, 0.5) | {"1": -3.0}
    answer = solve(BeamSearch(n=2, width=2), toy_search(tree, scores | {"0": None}))
    assert answer.value == "7"


@unhurried
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_no_finished_solution_is_lost_and_no_round_exceeds_n(indices: int, width: int, seed: int) -> None:
    generator = ToyGenerator(drawn)
    search = toy_search(generator, drawn_score, seed=seed, cap=20)
    n = indices * width
    answer = solve(BeamSearch(n=n, width=width), search)
    assert len(generator.asked[0]) == n
    assert all(len(batch) <= n for batch in generator.asked)
    weights: dict[str, float] = {}
    unscored: dict[str, float] = {}
    for record in search.trace.values():
        value = ANSWERS.read(record.node.state) if record.node.done else None
        if value is not None:
            unscored[value] = unscored.get(value, 0.0) + 1
            if record.score is not None:
                weights[value] = weights.get(value, 0.0) + record.score
    votes = weights or unscored
    assert (answer.value is None) == (not votes)
    assert answer.value is None or votes[answer.value] == pytest.approx(max(votes.values()))


# What a strategy needs


ASKED = frozenset(prompt.capability for prompt in WORD_PROMPTS.values())


class Needing(Single):
    """Has needs that no search here offers together."""

    needs = frozenset({Capability.LOGPROBS, Capability.ANSWERS, Capability.CANCEL})


@pytest.mark.parametrize(
    "name", sorted(name for name in BUILT_IN if Capability.TRANSITIONS not in BUILT_IN[name].needs)
)
def test_a_strategy_runs_with_exactly_its_needs(name: str) -> None:
    """The search offers nothing beyond the needs, and the strategy still chooses a complete generation."""
    needs = BUILT_IN[name].needs
    search = toy_search(
        {str(i): done("so 7") for i in range(16)},
        (lambda node: 0.5) if needs & ToyScorer.capabilities else None,
        answers=ANSWERS if Capability.ANSWERS in needs else None,
        prompts=WORD_PROMPTS if needs & ASKED else None,
        cap=20,
    )
    check(name, configured(name), search)
    answer = solve(configured(name), search)
    assert answer.node is not None and answer.node.done
    assert answer.finish == "done"


def test_capabilities_join_those_of_generator_scorer_answers_and_prompts() -> None:
    generator = WordGenerator.capabilities | {model_of("draft")}
    assert toy_search(scorer=None, answers=None, prompts=None).capabilities == generator
    assert toy_search(scorer=None, prompts=None).capabilities == generator | {Capability.ANSWERS}
    assert toy_search(answers=None, prompts=None).capabilities == generator | ToyScorer.capabilities
    assert toy_search(scorer=None, answers=None).capabilities == generator | ASKED


def test_a_mismatch_names_missing_needs_and_strategies_that_would_work() -> None:
    with pytest.raises(CapabilityError) as refused:
        require("beam_search", BeamSearch(), frozenset({Capability.ANSWERS, Capability.SCORES}))
    assert str(refused.value) == (
        "strategy='beam_search': it needs prefix continuation, process rewards, step boundaries, which this model or "
        "scorer does not have; what would work, the nearest first: adaptive_consistency, auto, best_of_n, "
        "length_vote, majority, restarts, single, weighted_majority"
    )


def test_the_nearest_strategy_shares_most_needs() -> None:
    """The number of shared needs decides first, then the name."""
    with pytest.raises(CapabilityError, match=r"the nearest first: best_of_n, auto, most_likely, single$"):
        require("weighted_majority", WeightedMajority(), frozenset({Capability.SCORES, Capability.LOGPROBS}))
    with pytest.raises(
        CapabilityError,
        match=r"the nearest first: summed_probability, .*, majority, most_likely, restarts, auto, single$",
    ):
        require("test", Needing(), frozenset({Capability.LOGPROBS, Capability.ANSWERS}))


def test_every_suggested_strategy_passes_the_check() -> None:
    offered = frozenset({Capability.LOGPROBS, Capability.ANSWERS})
    with pytest.raises(CapabilityError) as refused:
        require("best_of_n", BestOfN(), offered)
    suggested = str(refused.value).rpartition("the nearest first: ")[2].split(", ")
    votes = ["adaptive_consistency", "auto", "length_vote", "majority"]
    assert suggested == [*votes, "most_likely", "restarts", "single", "summed_probability"], (
        "no strategy shares a need, so the order is by name"
    )
    for name in suggested:
        require(name, make(name), offered)


# The registry


def test_every_strategy_can_be_made_from_its_name_only() -> None:
    for name, kind in BUILT_IN.items():
        assert parse(name) == (name, kind())


def test_options_are_read_after_the_name() -> None:
    assert parse("beam_search:n=8,width=2") == ("beam_search", BeamSearch(n=8, width=2))
    assert parse("majority: n = 3") == ("majority", Majority(n=3))
    assert make("best_of_n", {"n": "4"}) == make("best_of_n", {"n": 4}) == BestOfN(n=4)


def test_a_word_can_replace_a_number_if_the_option_has_one() -> None:
    assert parse("beam_search:n=8,width=sqrt") == ("beam_search", BeamSearch(n=8, width="sqrt"))
    assert parse("early_rejection:tau=auto") == ("early_rejection", EarlyRejection(tau="auto"))


def test_options_lists_names_and_defaults() -> None:
    assert options(BeamSearch) == {"n": 16, "width": 4, "max_rounds": 40, "lookahead": 0}
    assert options(Single) == {}


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="strategy='beem_serch': unknown; did you mean 'beam_search'"):
        make("beem_serch")


def test_the_error_for_a_name_unlike_all_others_lists_all_names() -> None:
    with pytest.raises(UnknownNameError) as refused:
        make("xyz")
    assert "did you mean" not in str(refused.value)
    assert str(refused.value).endswith(f"there are: {', '.join(sorted(known()))}")


def test_an_unknown_option_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="beam_search option='widht': unknown; did you mean 'width'"):
        parse("beam_search:widht=2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("majority:n=x", r"majority\.n='x': give a value of type int"),
        ("majority:n=1.5", r"majority\.n='1.5': give a value of type int"),
        ("majority:n", "write majority:n=value"),
        ("majority:n=", "write majority:n=value"),
        ("majority:=3", "majority option='': unknown; there are: n"),
        ("majority:n=0", "n=0: give 1 or more"),
        ("best_of_n:n=-1", "n=-1: give 1 or more"),
        ("weighted_majority:n=0", "n=0: give 1 or more"),
        ("most_likely:n=0", "n=0: give 1 or more"),
        ("summed_probability:n=0", "n=0: give 1 or more"),
        ("beam_search:n=0", "n=0: give 1 or more"),
        ("beam_search:width=0", "width=0: give 1 or more"),
        ("beam_search:max_rounds=0", "max_rounds=0: give 1 or more"),
        ("beam_search:n=6,width=4", "n=6: give a multiple of width=4"),
        ("beam_search:width=root", r"beam_search\.width='root': give a value of type int or sqrt"),
        ("early_rejection:tau=0.5", r"early_rejection\.tau='0.5': give a value of type int or auto"),
    ],
)
def test_a_wrong_option_is_one_line_with_the_fix(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text)


def test_a_fraction_for_a_whole_number_is_refused_and_not_rounded() -> None:
    with pytest.raises(InputError, match=r"majority\.n=1.5"):
        make("majority", {"n": 1.5})


def test_strategies_are_immutable_values() -> None:
    for kind in BUILT_IN.values():
        strategy: Strategy = kind()
        assert kind() == strategy and hash(kind()) == hash(strategy)
        for field in fields(kind):
            with pytest.raises(AttributeError):
                setattr(strategy, field.name, 1)


# Cards


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_strategy_names_its_paper_and_explains_its_options(name: str) -> None:
    found = card(name, BUILT_IN[name])
    assert found.paper and re.search(r"\b(19|20)\d\d\b", found.paper)
    assert found.method and found.about and "Args:" not in found.about
    for option, described in found.options.items():
        assert described.about or f"``{option}``" in found.about, f"{option} has no description"


def test_a_card_is_made_of_docstrings_and_defaults() -> None:
    found = card("dvts", DVTS)
    assert found.paper == "Beeching, Tunstall and Rush 2024"
    assert found.method.startswith("Diverse verifier tree search: independent subtrees")
    assert found.about.startswith("``n / width`` subtrees") and found.about.endswith("finished solutions.")
    assert found.options["width"] == Option(4, "steps of one subtree in a round.")
    assert found.needs == sorted(DVTS.needs)


def test_a_card_is_also_json_values() -> None:
    found = card("dvts", DVTS)
    written = found.as_dict()
    assert json.loads(json.dumps(written)) == written
    assert (written["name"], written["paper"], written["needs"]) == ("dvts", found.paper, found.needs)
    assert written["options"]["width"] == {"default": 4, "about": "steps of one subtree in a round."}


def test_a_description_of_several_lines_is_one_text() -> None:
    potential = card("particle_filter", ParticleFilter).options["potential"]
    assert potential.default == "diff"
    assert (
        potential.about is not None
        and "the highest reward so far (``max``), the sum so far (``sum``)" in potential.about
    )


def test_a_strategy_without_docstrings_has_a_card() -> None:
    @dataclass(frozen=True)
    class Silent:
        n: int = 3
        needs: ClassVar[frozenset[str]] = frozenset()

    Silent.__module__ = "toy"
    found = card("silent", Silent)
    assert (found.paper, found.about, found.options, found.needs) == (None, "", {"n": Option(3, None)}, [])


# A strategy from another package


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed tests/first_words, built from source and offline."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    shutil.copytree(Path(__file__).with_name("first_words"), source, dirs_exist_ok=True)
    offline = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check", "--no-cache-dir")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(target), str(source)]
    ran = subprocess.run(pip, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return target


def thinktime_with(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ``thinktime`` in its own process, with the package on its path."""
    path = os.pathsep.join([str(installed), str(Path(thinktime.__file__).parents[1])])
    command = [sys.executable, "-m", "thinktime", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})


def test_the_program_lists_and_describes_the_strategy_of_an_installed_package(installed: Path) -> None:
    listed = json.loads(thinktime_with(installed, "strategies", "--json").stdout)
    assert listed["first_words"] == {
        "about": "Begin ``n`` solutions and finish the most promising one.",
        "paper": None,
        "options": {"n": 4, "words": 3},
        "needs": ["a scorer", "prefix continuation"],
    }
    assert set(listed) >= set(BUILT_IN)
    shown = thinktime_with(installed, "strategies", "show", "first_words").stdout
    assert "words=3\n        tokens of each beginning." in shown


def test_the_strategy_of_an_installed_package_is_found_by_name_and_keeps_every_law(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "first_words" not in known()
    monkeypatch.syspath_prepend(installed)
    name, strategy = parse("first_words:words=2")
    assert name in known()
    check_strategy(strategy, seeds=range(10))
    with pytest.raises(CapabilityError, match="strategy='first_words': it needs a scorer"):
        require(name, strategy, frozenset({Capability.PREFIX}))
    assert "first_words" in refusal_of("majority", Majority(), frozenset({Capability.PREFIX, Capability.SCORES}))


def refusal_of(name: str, strategy: Strategy, offered: frozenset[str]) -> str:
    with pytest.raises(CapabilityError) as refused:
        require(name, strategy, offered)
    return str(refused.value)
