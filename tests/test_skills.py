"""Prompts about generations, their replies, and the strategies that use them, worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from toy import (
    PROBLEM,
    MemoryJournal,
    Piece,
    Scores,
    ToyGenerator,
    ToyScorer,
    done,
    drawn,
    extend,
    solve,
    step,
    texts,
    toy_search,
)

from thinktime.bench.trace import draw, records
from thinktime.core.errors import CapabilityError, InputError, ModelError, TooLongError
from thinktime.core.search import Search
from thinktime.core.types import Child, Extension, Node, Problem
from thinktime.core.usage import Budget
from thinktime.generators.text import Text
from thinktime.pocket import prompts as pocket_prompts
from thinktime.pocket.problems import check_steps, problems
from thinktime.prompts.common import CHECK, JUDGE, REVISE
from thinktime.prompts.templates import overridden, with_words
from thinktime.strategies import Strategy, check, prompts
from thinktime.strategies.composition.aggregate import AGGREGATE, Aggregate
from thinktime.strategies.composition.plan_then_solve import ASSEMBLE, CHECK_FORMAT, SOLVE, PlanThenSolve
from thinktime.strategies.revision.revision import SHIFT, Revision
from thinktime.strategies.revision.self_refine import SelfRefine
from thinktime.strategies.sampling.adaptive_sampling import AdaptiveSampling
from thinktime.strategies.sampling.early_pruning import EarlyPruning
from thinktime.strategies.sampling.majority import Majority
from thinktime.strategies.search.stepwise_best_of_n import FINAL, StepwiseBestOfN
from thinktime.strategies.verification.generative_reward import GenerativeReward, decided
from thinktime.strategies.verification.solve_or_verify import GenerativeVerification, SolveOrVerify, cost
from thinktime.testing import WORD_PROMPTS

QUESTION = str(PROBLEM.prompt)


class Talker(ToyGenerator):
    """Replies by a script with the keys ``prompt#index``; the prompt is without the problem's own words."""

    def __init__(self, script: Mapping[str, str | Piece]) -> None:
        self.prompts: dict[tuple[int, ...], str] = {}
        self.script = script
        super().__init__(self._reply)

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
        state = super().root(problem, known, quotes=quotes)
        self.prompts[state.prompt] = str(problem.prompt).removeprefix(QUESTION).strip()
        return state

    def _reply(self, extension: Extension) -> Piece:
        path = "/".join(map(str, extension.node.path))
        said = self.script[f"{self.prompts[extension.node.state.prompt]}{path and '/'}{path}#{extension.index}"]
        return done(said) if isinstance(said, str) else said


class Short(Talker):
    """Has a context that no question about generations fits."""

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
        if quotes:
            raise TooLongError("prompt", 900, "shorten it")
        return super().root(problem)


def talk(script: Mapping[str, str | Piece], scores: Scores | None = None, **options: Any) -> Search:
    return toy_search(Talker(script), scores, **options)


# The search


def test_a_reply_is_below_its_own_root_and_is_no_answer() -> None:
    search = talk({"#0": "so 5", "so 5 check#0": "no 3"})
    (leaf,) = extend(search, [search.root])
    root = search.ask(CHECK, [leaf])
    assert root is not None
    (reply,) = extend(search, [root])
    assert search.read(CHECK, reply) == 0.3
    assert (search.is_answer(leaf), search.is_answer(reply)) == (True, False)
    assert search.finish(None).value == "5"
    assert search.ask(CHECK, [leaf]) is root
    traced = records(search)
    assert [(record.get("prompt"), record.get("about")) for record in traced if record["parent"] is None] == [
        (None, None),
        ("check", [leaf.key]),
    ]
    assert [str(branch.label) for branch in draw(search).children[0].children] == ["check"]


def test_a_reply_is_banked_and_found_again_under_the_same_key() -> None:
    script, journal = {"#0": "so 5", "so 5 check#0": "no 3"}, MemoryJournal()
    first = solve(GenerativeVerification(n=1, checks=1), talk(script, journal=journal))
    again = talk({}, journal=journal)
    assert solve(GenerativeVerification(n=1, checks=1), again).usage == first.usage
    assert isinstance(again.generator, Talker) and again.generator.asked == []


def test_a_prompt_that_the_model_does_not_answer_is_refused() -> None:
    search = toy_search({"0": done("so 5")}, None, prompts=None)
    with pytest.raises(CapabilityError, match="it does not answer the prompt 'check'"):
        search.ask(CHECK, extend(search, [search.root]))


def test_an_incomplete_reply_has_no_value() -> None:
    search = talk({"#0": "so 5", "so 5 check#0": Piece("a b c d e f 9 9", "length")})
    root = search.ask(CHECK, extend(search, [search.root]))
    assert root is not None
    (reply,) = extend(search, [root])
    assert search.read(CHECK, reply) is None


# Generative verification


VERIFIED = {
    "#0": "so 5",
    "#1": "is 7",
    "#2": "be 5",
    "so 5 check#0": "3",
    "so 5 check#1": "what",
    "is 7 check#0": "9",
    "is 7 check#1": "4",
    "be 5 check#0": "5",
    "be 5 check#1": "3",
}
"""Mean verdicts .3 (one is missing), .65 and .4."""


def test_best_of_n_by_mean_verdict_and_the_weighted_vote() -> None:
    assert solve(GenerativeVerification(3, 2, "best_of_n"), talk(VERIFIED)).value == "7"
    weighted = solve(GenerativeVerification(3, 2), talk(VERIFIED))
    assert (weighted.value, weighted.share) == pytest.approx(("5", 0.7 / 1.35))
    assert weighted.usage.model_calls == 3 + 6


def test_the_log_has_every_verdict_and_the_number_of_missing_ones() -> None:
    counts, verdicts = {"checks": 6, "missing": 1}, {"verdicts": [[0.3], [0.9, 0.4], [0.5, 0.3]]}
    solve(GenerativeVerification(3, 2), search := talk(VERIFIED))
    assert search.events == [counts, verdicts]
    law: dict[str, Any] = {"alpha_s": 1.0, "a": 0.5, "alpha_v": 2 / 3, "b": 0.5}
    solve(SolveOrVerify(9, **law), search := talk(VERIFIED))
    assert search.events == [{"solutions": 3, "checks": 2}, counts, verdicts]
    solve(GenerativeVerification(3, 2), search := talk(VERIFIED | {"#1": Piece("is", "length")}))
    assert search.events == [{"checks": 4, "missing": 1}, {"verdicts": [[0.3], [], [0.5, 0.3]]}]


def checks_that_say(reply: str | Piece) -> dict[str, str | Piece]:
    return {key: reply if "check" in key else text for key, text in VERIFIED.items()}


def test_without_checks_it_is_a_vote() -> None:
    assert solve(GenerativeVerification(3, 0), talk(VERIFIED)).value == "5"


def test_if_no_check_can_be_read_an_error_quotes_three() -> None:
    says = "none of 6 checks ends with a verdict; they end 'what'; 'what'; 'what'; take a model that checks"
    with pytest.raises(ModelError, match=says):
        solve(GenerativeVerification(3, 2), talk(checks_that_say("what")))
    with pytest.raises(ModelError, match="none of 6 checks"):
        solve(SolveOrVerify(9, alpha_s=1.0, a=0.5, alpha_v=2 / 3, b=0.5), talk(checks_that_say("what")))
    with pytest.raises(InputError, match="unreadable='ignore': unknown"):
        GenerativeVerification(unreadable="ignore")


def test_if_no_check_can_be_read_the_plurality_answers_on_request_or_if_all_checks_were_cut() -> None:
    silent = checks_that_say("what")
    assert solve(GenerativeVerification(3, 2, unreadable="plurality"), talk(silent)).share == 2 / 3
    law: dict[str, Any] = {"alpha_s": 1.0, "a": 0.5, "alpha_v": 2 / 3, "b": 0.5}
    assert SolveOrVerify(9, **law).split() == (3, 2)
    assert solve(SolveOrVerify(9, **law, unreadable="plurality"), talk(silent)).share == 2 / 3
    cut = checks_that_say(Piece("who knows", "length"))
    assert solve(GenerativeVerification(3, 2), talk(cut)).share == 2 / 3


def test_missing_verdicts_beyond_the_budget_are_no_error() -> None:
    """Solution and check have 2 words at 2 FLOPs each; the probability takes one FLOP for each of 10 words."""
    script = {"#0": "so 5", "so 5 check#0": "no 3"}
    search = talk(script, lambda node: 0.5, cap=2, budget=Budget(flops=12))
    answer = solve(GenerativeVerification(1, 1, verdict="logprob"), search)
    assert (answer.value, answer.finish, answer.usage.scorer_calls) == ("5", "budget", 0)


@pytest.mark.parametrize("select", ["weighted", "best_of_n"])
def test_if_every_verdict_is_no_the_plurality_answers(select: str) -> None:
    """The first solution answers 7, the other two 5: without this rule 7 would win as the first of a tie."""
    script = {"#0": "is 7", "#1": "so 5", "#2": "be 5"}
    script |= {f"{text} check#{i}": "no 0" for text in script.values() for i in range(2)}
    answer = solve(GenerativeVerification(3, 2, select), talk(script))
    assert (answer.value, answer.share) == ("5", 2 / 3)


def test_a_verdict_is_its_probability_if_the_scorer_gives_one_and_zero_is_not_missing() -> None:
    """By text, 5 has .3 and .4 and 7 has .65; by probability, 5 has only 0."""
    sure = {"3": 0.0, "9": 0.8, "4": 0.8, "5": 0.0, "what": None}
    answer = solve(GenerativeVerification(3, 2), talk(VERIFIED, lambda node: sure[node.state.text]))
    assert (answer.value, answer.share) == ("7", 1.0)
    text = GenerativeVerification(3, 2, verdict="text")
    assert solve(text, talk(VERIFIED, lambda node: sure[node.state.text])).value == "5"


def test_without_a_probability_hybrid_reads_the_text_and_logprob_does_not() -> None:
    silent = talk(VERIFIED, lambda node: None)
    assert solve(GenerativeVerification(3, 2), silent).share == pytest.approx(0.7 / 1.35)
    search = talk(VERIFIED, lambda node: None)
    assert solve(GenerativeVerification(3, 2, verdict="logprob", unreadable="plurality"), search).share == 2 / 3
    assert {"checks": 6, "missing": 6} in search.events


def test_impossible_settings_of_checks_are_refused_before_sampling() -> None:
    law = SolveOrVerify(16)
    refusals: list[tuple[Strategy, float, type[Exception], str]] = [
        (GenerativeVerification(verdict="logprob"), 1, CapabilityError, "needs probabilities of verdicts; give"),
        (GenerativeVerification(1, 2), 0, InputError, "temperature=0: 2 samples would be the same"),
        (law, 1, InputError, r"alpha_s=0\.0: fit the allocator first, or pass alpha_s and alpha_v"),
    ]
    for strategy, temperature, error, says in refusals:
        with pytest.raises(error, match=says):
            check("it", strategy, talk(VERIFIED, temperature=temperature))
    check("it", GenerativeVerification(verdict="logprob"), talk(VERIFIED, lambda node: None))
    check("it", GenerativeVerification(1, 1), talk(VERIFIED, temperature=0))
    check("it", replace(law, crossover=17), talk(VERIFIED))


def test_costs_and_splits_of_the_law() -> None:
    assert (cost(4, 3, 1), cost(4, 1, 2)) == (16, 12)
    law: dict[str, Any] = {"ratio": 1.0, "alpha_s": 1.0, "a": 0.5, "alpha_v": 0.75, "b": 0.5}
    assert SolveOrVerify(16, **law).split() == (4, 3)
    assert SolveOrVerify(1, **law).split() == (1, 0)
    assert SolveOrVerify(4, **{**law, "alpha_v": 0.2}).split() == (4, 0), "less than one check"
    assert SolveOrVerify(4, **{**law, "alpha_s": 0.2}).split() == (4, 0), "less than one solution"
    assert SolveOrVerify(4, **{**law, "ratio": 9.0}).split() == (4, 0), "after shrinking less than one check"
    assert SolveOrVerify(16, **law, crossover=16).split() == (4, 3)
    assert [SolveOrVerify(40, **law, integer=how).split()[1] for how in ("round", "floor")] == [5, 4]
    assert SolveOrVerify(16, **law, crossover=17).split() == (16, 0)
    assert SolveOrVerify(16, **{**law, "alpha_s": 4.0}).split() == (8, 1)  # a cost of 64 solutions, halved twice


def test_the_allocator_refuses_factors_that_are_not_fitted() -> None:
    with pytest.raises(InputError, match=r"alpha_s=0\.0: fit the allocator first, or pass alpha_s and alpha_v"):
        SolveOrVerify(16).split()
    for half in (SolveOrVerify(16, alpha_s=1.0), SolveOrVerify(16, alpha_v=1.0)):
        with pytest.raises(InputError, match="fit the allocator first"):
            half.split()
    with pytest.raises(InputError, match="n=0: give 1 or more"):
        SolveOrVerify(0)
    says = r"ratio=0: give a number above 0: lambda must be positive \(verification tokens / solution tokens\)"
    with pytest.raises(InputError, match=says):
        SolveOrVerify(16, ratio=0)


# Prompts that do not fit


@pytest.mark.parametrize("error", [TooLongError("prompt", 900, "shorten it"), InputError("prompt", "?", "no words")])
def test_a_prompt_that_does_not_fit_is_skipped_and_any_other_mistake_is_raised(error: InputError) -> None:
    class Refusing(ToyGenerator):
        def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
            if quotes:
                raise error
            return super().root(problem)

    search = toy_search(Refusing({"0": done("so 7")}))
    (leaf,) = extend(search, [search.root])
    if isinstance(error, TooLongError):
        assert search.ask(CHECK, [leaf]) is None
    else:
        with pytest.raises(InputError, match="no words"):
            search.ask(CHECK, [leaf])


# Generative reward


JUDGED = {"#0": "so 5", "#1": "is 7", "#2": "be 5"} | {
    f"{order} judge#{i}": reply for order, reply in {"so 5 is 7": "1", "is 7 so 5": "9"}.items() for i in range(9)
}
"""In the order 5, 7 the scores are .1 and .2; in the order 7, 5 they are .9 and 0: 7 is better in both."""


@pytest.mark.parametrize("seed", range(4))
def test_scores_belong_to_their_answers_in_any_order_of_showing(seed: int) -> None:
    search = talk(JUDGED, seed=seed)
    assert solve(GenerativeReward(n=3, k=6), search).value == "7"
    (event,) = [event for event in search.events if "scores" in event]
    assert {tuple(scores) for scores in event["scores"]} <= {(0.1, 0.2), (0.0, 0.9)}
    assert event["shown"] == ["5", "7"]


def test_judgements_one_by_one_end_when_the_winner_is_decided_and_agree_with_all_judgements() -> None:
    """7 gains .1 in the order 5, 7 and .9 in the order 7, 5; it is safe if it leads by .9 per judgement left."""
    asked = []
    for seed in range(6):
        all_of_them, some = talk(JUDGED, seed=seed), talk(JUDGED, seed=seed)
        answer = solve(GenerativeReward(n=3, k=9, stop="decided"), some)
        assert answer.value == solve(GenerativeReward(n=3, k=9), all_of_them).value == "7"
        (event,) = [event for event in some.events if "scores" in event]
        leads = [right - wrong for wrong, right in event["scores"]]
        assert set(some.trace) <= set(all_of_them.trace)
        safe = [i for i in range(1, 10) if sum(leads[:i]) > 0.9 * (9 - i) + 1e-9]
        assert len(leads) == safe[0], "it ends at the first judgement that decides"
        asked.append(len(leads))
    assert max(asked) < 9
    with pytest.raises(InputError, match="stop='decided': keep=1 needs all judgements; give keep=0 or stop=all"):
        GenerativeReward(keep=1, stop="decided")


def test_it_is_decided_when_the_judgements_left_cannot_change_the_winner() -> None:
    """Each judgement that is left can change the lead by at most .9: a score of 1 against .1."""
    assert decided([[0.9, 0.1], [0.9, 0.1]], 1), "1.6 ahead"
    assert not decided([[0.9, 0.1], [0.9, 0.1]], 2), "the lead is 1.6, and two judgements can change it by 1.8"
    assert not decided([[1.0, 0.1]], 1), "one judgement can make the sums equal"
    assert decided([[0.5, 0.9, 0.8]], 0) and not decided([[0.9, 0.9, 0.1]], 0)
    assert not decided([], 0)


SILENT = {key: "who knows" if "judge" in key else text for key, text in JUDGED.items()}


def test_if_no_judgement_can_be_read_an_error_quotes_two() -> None:
    search = talk(SILENT)
    says = "none of 3 judgements gives each of 2 answers a score; they end 'who knows'; 'who knows'; take a model"
    with pytest.raises(ModelError, match=says):
        solve(GenerativeReward(n=3, k=3), search)
    assert {"judgements": 3, "invalid": 3} in search.events


def test_if_no_judgement_can_be_read_the_plurality_answers_on_request_or_if_the_budget_cut_all() -> None:
    assert solve(GenerativeReward(n=3, k=3, unreadable="plurality"), talk(SILENT)).value == "5"
    cut = {key: Piece("who knows", "length") if "judge" in key else text for key, text in JUDGED.items()}
    assert solve(GenerativeReward(n=3, k=3), talk(cut)).value == "5"


def test_an_unreadable_judgement_does_not_vote() -> None:
    some = {key: "what" if key.endswith(("#0", "#1")) and "judge" in key else text for key, text in JUDGED.items()}
    search = talk(some)
    assert solve(GenerativeReward(n=3, k=9), search).value == "7"
    (event,) = [event for event in search.events if "invalid" in event]
    assert event["invalid"] > 0


def test_the_meta_reward_selects_the_judgements_that_vote() -> None:
    replies = {key: ("8" if key.endswith("#0") else "1") if "judge" in key else text for key, text in JUDGED.items()}
    search = talk(replies, lambda node: float(node.state.text == "8"))
    solve(GenerativeReward(n=3, k=6, keep=1), search)
    (event,) = [event for event in search.events if "scores" in event]
    assert [sorted(scores) for scores in event["scores"]] == [[0.8, 0.9]]
    with pytest.raises(CapabilityError, match="keep=2 needs rewards of judgements; give keep=0"):
        check("generative_reward", GenerativeReward(n=3, k=6, keep=2), talk(JUDGED))
    with pytest.raises(InputError, match="keep=3: give k=2 or fewer"):
        GenerativeReward(k=2, keep=3)


def test_the_better_judgement_breaks_a_tie_of_sums() -> None:
    """Each judgement gives the second answer .2 and the first .1; over both orders the sums are equal."""
    replies = {key: "1" if "judge" in key else text for key, text in JUDGED.items()}
    level = 0
    for seed in range(8):
        for better, answer in (("so 5 is 7", "7"), ("is 7 so 5", "5")):
            talker = Talker(replies)
            asked = f"{better} judge"
            search = toy_search(talker, partial(weight_of, talker, asked), seed=seed)
            found = solve(GenerativeReward(n=3, k=2, keep=2), search)
            (event,) = [event for event in search.events if "scores" in event]
            if len({tuple(scores) for scores in event["scores"]}) == 2:
                level += 1
                assert found.value == answer
    assert level > 0


def weight_of(talker: Talker, asked: str, node: Node) -> float:
    """A higher weight for replies to this prompt."""
    return 0.9 if talker.prompts[node.state.prompt] == asked else 0.1


def test_one_answer_needs_no_judge() -> None:
    answer = solve(GenerativeReward(n=2, k=5), talk({"#0": "so 5", "#1": "be 5"}))
    assert (answer.value, answer.usage.model_calls) == ("5", 2)


# Revision


CHAINS = {
    "revise#0": "a 1",
    "revise#1": "b 2",
    "a 1 revise#0": "c 3",
    "b 2 revise#0": "d 3",
    "a 1 c 3 revise#0": "e 3",
    "b 2 d 3 revise#0": "f 2",
}


def test_each_chain_sees_its_own_answers_and_the_verifier_chooses_within_then_among_chains() -> None:
    scores = {"a 1": 0.9, "c 3": 0.5, "e 3": 0.3, "b 2": 0.6, "d 3": 0.7, "f 2": 0.3}
    search = talk(CHAINS, lambda node: scores[node.state.text])
    answer = solve(Revision(n=6, chains=2), search)
    # weights in the first chain: 1 has .9, 3 has .8, so "a 1" (.9); in the second: 2 has .9, 3 has .7, so "b 2" (.6)
    assert (answer.value, answer.share) == pytest.approx(("1", 0.9 / 1.5))
    assert {"warning": SHIFT} in search.events
    keys = {record.node.state.text: record.node.key for record in search.records()}
    assert {
        "chains": [[keys[text] for text in ("a 1", "c 3", "e 3")], [keys[text] for text in ("b 2", "d 3", "f 2")]]
    } in (search.events)


def test_the_majority_counts_all_answers_equally() -> None:
    assert solve(Revision(n=6, chains=2, select="majority"), talk(CHAINS, lambda node: 0.0)).value == "3"


def test_a_revision_sees_only_the_newest_answers() -> None:
    script = {"revise#0": "a 1", "a 1 revise#0": "b 2", "b 2 revise#0": "c 3"}
    assert solve(Revision(n=3, chains=1, context=1, select="majority"), talk(script, lambda node: 0.0)).value == "1"


def test_all_chains_have_the_same_number_of_answers() -> None:
    with pytest.raises(InputError, match="n=10: give a multiple of chains=4"):
        Revision(n=10, chains=4)


def test_the_last_answers_of_the_chains_vote_and_no_scorer_is_needed() -> None:
    assert solve(Revision(n=6, chains=2, select="last"), talk(CHAINS)).value == "3"
    silent = CHAINS | {"a 1 c 3 revise#0": "e what", "b 2 d 3 revise#0": "f 4"}
    assert solve(Revision(n=6, chains=2, select="last"), talk(silent)).value == "3", (
        "c 3 is the last readable answer of its chain"
    )
    for select in ("last", "majority"):
        check("revision", Revision(select=select), talk(CHAINS))
    with pytest.raises(CapabilityError, match="strategy='revision': it needs a scorer"):
        check("revision", Revision(), talk(CHAINS))


@pytest.mark.parametrize("revision_first", [False, True])
def test_first_answers_of_chains_are_the_same_samples_as_those_of_a_vote(revision_first: bool) -> None:
    """Each run finds the four samples of the problem that the other one banked."""
    journal, asked = MemoryJournal(), []
    strategies: list[Strategy] = [Majority(n=4), Revision(n=8, chains=4, select="majority")]
    for strategy in reversed(strategies) if revision_first else strategies:
        generator = ToyGenerator(drawn)
        solve(strategy, toy_search(generator, None, prompts={"revise": REVISE}, journal=journal))
        asked.append([len(batch) for batch in generator.asked])
    assert asked == ([[4, 4], []] if revision_first else [[4], [4]])


def test_chains_whose_prompt_does_not_fit_the_context_have_no_answer() -> None:
    search = toy_search(Short(CHAINS))
    assert solve(Revision(n=4, chains=2, select="majority"), search).finish == "incomplete"
    assert search.ledger.spent.model_calls == 0


# Aggregate


PROPOSALS = {"#0": "so 5", "#1": "is 7", "#2": "be 5", "so 5 is 7 be 5 aggregate#0": "well 9"}


def test_one_answer_is_written_from_all_proposals() -> None:
    search = talk(PROPOSALS)
    answer = solve(Aggregate(n=3), search)
    assert (answer.value, answer.usage.model_calls, answer.finish) == ("9", 4, "done")
    assert answer.node is not None and search.is_answer(answer.node)


def test_each_layer_writes_n_answers_and_the_last_one_writes_one() -> None:
    layers = {"so 5 is 7 be 5 aggregate#1": "oh 8", "so 5 is 7 be 5 aggregate#2": "ah 8"}
    script = PROPOSALS | layers | {"well 9 oh 8 ah 8 aggregate#0": "now 1"}
    answer = solve(Aggregate(n=3, layers=2), talk(script))
    assert (answer.value, answer.usage.model_calls) == ("1", 7)


@pytest.mark.parametrize("last", [done("well what"), Piece("well 9 9 9 9 9 9 9", "length")])
def test_proposals_vote_if_the_written_answer_is_unreadable(last: Piece) -> None:
    assert solve(Aggregate(n=3), talk(PROPOSALS | {"so 5 is 7 be 5 aggregate#0": last})).value == "5"


def test_proposals_vote_if_they_do_not_fit_the_context_or_the_budget_is_used_up() -> None:
    assert solve(Aggregate(n=3), toy_search(Short(PROPOSALS))).value == "5"
    assert solve(Aggregate(n=3), talk(PROPOSALS, budget=Budget(calls=3))).value == "5"
    silent = {"#0": Piece("so", "length"), "#1": Piece("is", "length"), "#2": Piece("be", "length")}
    assert solve(Aggregate(n=3), talk(silent)).value is None


# Self-refine, step-wise best-of-n, plan-then-solve


def test_the_last_draft_answers_and_each_draft_sees_the_check_of_the_previous_one() -> None:
    script = {
        "#0": "so 5",
        "so 5 check#0": "no 2",
        "so 5 no 2 revise#0": "be 6",
        "be 6 check#0": "no 4",
        "be 6 no 4 revise#0": "is 7",
    }
    assert solve(SelfRefine(rounds=2), talk(script)).value == "7"
    assert solve(SelfRefine(rounds=0), talk(script)).value == "5"


def test_an_unreadable_draft_is_not_the_answer() -> None:
    script = {"#0": "so 5", "so 5 check#0": "no 2", "so 5 no 2 revise#0": "be what"}
    assert solve(SelfRefine(rounds=1), talk(script)).value == "5"


def test_the_judge_chooses_at_every_step() -> None:
    script: dict[str, str | Piece] = {
        "#0": step("oh"),
        "#1": step("ah"),
        **{f"{order} judge#0": reply for order, reply in {"oh ah": "1", "ah oh": "9"}.items()},
        "/1#0": "so 5",
        "/1#1": "so 5",
    }
    search = talk(script)
    assert solve(StepwiseBestOfN(n=2), search).value == "5"
    assert [r.node.state.text for r in search.trace.values() if r.pruned] == ["oh", "ah so 5"]


DISAGREED: dict[str, str | Piece] = {"#0": "so 5", "#1": "is 7", "#2": "is 7"}


def test_after_two_unreadable_judgements_the_most_frequent_step_is_taken() -> None:
    silent = {f"{order} judge#{i}": done("what") for order in ("so 5 is 7", "is 7 so 5") for i in range(2)}
    assert solve(StepwiseBestOfN(n=3), talk(DISAGREED | silent)).value == "7"


@pytest.mark.parametrize("seed", range(4))
def test_the_second_judgement_chooses_if_the_first_is_unreadable(seed: int) -> None:
    """It scores the rarer step .9 or .2, and the other 0 or .1; without it the more frequent step would be taken."""
    second = {"so 5 is 7 judge#1": "9", "is 7 so 5 judge#1": "1"}
    first = {key.replace("#1", "#0"): "what" for key in second}
    search = talk(DISAGREED | first | second, seed=seed)
    assert solve(StepwiseBestOfN(n=3), search).value == "5"
    assert [event["invalid"] for event in search.events] == [1, 0]


class EndlessSteps(dict[str, str | Piece]):
    """Every node has two steps; a judgement prefers the step that is shown second."""

    def __missing__(self, key: str) -> str | Piece:
        return "5" if "judge" in key else step("left" if key.endswith("#0") else "right")


def test_candidates_are_shuffled_again_at_every_step() -> None:
    search = talk(EndlessSteps(), cap=40)
    solve(StepwiseBestOfN(n=2, max_steps=12), search)
    path = max((record.node.path for record in search.trace.values() if not record.pruned), key=len)
    assert len(path) == 12 and set(path) == {0, 1}


def test_a_candidate_that_ends_before_min_steps_is_not_chosen_if_another_continues() -> None:
    script: dict[str, str | Piece] = {"#0": "so 5", "#1": step("ah"), "/1#0": "is 7", "/1#1": "is 7"}
    judged = {"so 5 ah judge#0": "9", "ah so 5 judge#0": "1"}
    search = talk(script)
    assert solve(StepwiseBestOfN(n=2), search).value == "7", "at step 2 both candidates end, so one of them is chosen"
    assert [r.node.state.text for r in search.trace.values() if r.pruned] == ["so 5", "ah is 7"]
    assert solve(StepwiseBestOfN(n=2, min_steps=2), talk(script)).value == "7"
    assert solve(StepwiseBestOfN(n=2, min_steps=1), talk(script | judged)).value == "5"


@pytest.mark.parametrize("last", [step("ah"), done("ah"), Piece("ah", "length")])
def test_after_a_path_without_a_readable_answer_one_call_asks_for_the_final_answer(last: Piece) -> None:
    script: dict[str, str | Piece] = {"#0": last, "ah final#0": "is 7"}
    search = talk(script)
    answer = solve(StepwiseBestOfN(n=1, max_steps=1), search)
    assert (answer.value, answer.finish, answer.usage.model_calls) == ("7", "done", 2)
    silent = talk({"#0": last}, prompts={"judge": WORD_PROMPTS["judge"]})
    assert solve(StepwiseBestOfN(n=1, max_steps=1), silent).finish == "incomplete"
    assert solve(StepwiseBestOfN(n=1, max_steps=1), talk(script, budget=Budget(calls=1))).value is None


def test_a_failed_candidate_is_not_chosen() -> None:
    class Failing(Talker):
        async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
            error = ModelError("no answer")
            children = await super().extend(extensions)
            return [
                replace(child, finish="error", error=error) if e.index else child
                for e, child in zip(extensions, children, strict=True)
            ]

    assert solve(StepwiseBestOfN(n=2), toy_search(Failing({"#0": "so 5", "#1": "is 7"}))).value == "5"


def test_if_all_candidates_fail_the_path_ends_and_is_not_sampled_again() -> None:
    class Broken(Talker):
        async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
            children = await super().extend(extensions)
            return [replace(child, finish="error", error=ModelError("no connection")) for child in children]

    generator = Broken({"#0": "so 5", "#1": "is 7"})
    with pytest.raises(ModelError, match="no connection"):
        solve(StepwiseBestOfN(n=2), toy_search(generator))
    assert len(generator.asked) == 1


PLANNED: dict[str, str | Piece] = {
    "plan#0": "first 1",
    "first 1 solve#0": "so 5",
    "so 5 first 1 assemble#0": "is 6",
    "is 6 first 1 check_format#0": "be 7",
}


def test_a_chain_plans_solves_assembles_and_checks_the_format() -> None:
    for roles in ("four", "auto"):
        search = talk(PLANNED)
        answer = solve(PlanThenSolve(roles=roles), search)
        assert (answer.value, answer.usage.model_calls) == ("7", 4)
    assert [r.prompt for r in search.records() if r.prompt] == ["plan", "solve", "assemble", "check_format"]
    assert solve(PlanThenSolve(roles="two"), talk(PLANNED)).value == "5"


def test_roles_that_the_model_does_not_answer_are_left_out_or_refused() -> None:
    few = {name: WORD_PROMPTS[name] for name in ("plan", "solve")}
    assert solve(PlanThenSolve(), talk(PLANNED, prompts=few)).value == "5"
    more = {name: WORD_PROMPTS[name] for name in ("plan", "solve", "check_format")}
    assert solve(PlanThenSolve(), talk(PLANNED | {"so 5 first 1 check_format#0": "be 8"}, prompts=more)).value == "8"
    for roles in ("auto", "two"):
        check("plan_then_solve", PlanThenSolve(roles=roles), talk({}, prompts=few))
    says = "roles='four' needs the prompt 'assemble', the prompt 'check_format'; give roles=two"
    with pytest.raises(CapabilityError, match=says):
        check("plan_then_solve", PlanThenSolve(roles="four"), talk({}, prompts=few))
    with pytest.raises(InputError, match="roles='three': unknown"):
        PlanThenSolve(roles="three")


def test_the_newest_readable_reply_of_a_chain_is_its_answer() -> None:
    assert solve(PlanThenSolve(), talk(PLANNED | {"is 6 first 1 check_format#0": "be what"})).value == "6"
    unended = talk(PLANNED | {"so 5 first 1 assemble#0": Piece("is 6", "length")})
    assert solve(PlanThenSolve(), unended).value == "5"
    assert "check_format" not in {record.prompt for record in unended.records()}


def test_chains_vote_and_a_plan_is_no_answer() -> None:
    script: dict[str, str | Piece] = {"plan#0": "first 1", "plan#1": "then 2", "plan#2": "last 1"}
    script |= {"first 1 solve#0": "so 5", "then 2 solve#0": "is 7", "last 1 solve#0": "be 7"}
    assert solve(PlanThenSolve(n=3, roles="two"), talk(script)).value == "7"


def test_an_incomplete_plan_is_not_used() -> None:
    """With this plan, the first of two tied answers would come from its chain."""
    script: dict[str, str | Piece] = {"plan#0": Piece("first 1", "length"), "plan#1": "then 2"}
    script |= {"first 1 solve#0": "so 5", "then 2 solve#0": "is 7"}
    search = talk(script)
    assert solve(PlanThenSolve(n=2, roles="two"), search).value == "7"
    assert search.ledger.spent.model_calls == 3


# Self-evaluation


def test_sampling_ends_when_no_other_sample_would_be_better() -> None:
    scores = {"0": 0.2, "1": 0.5, "2": 0.95, "3": 0.1}
    search = toy_search({str(i): done(f"so {i}") for i in range(4)}, ToyScorer(scores))
    answer = solve(AdaptiveSampling(n=4), search)
    assert (answer.value, answer.usage.model_calls) == ("2", 3)
    assert search.events[-1] == {"samples": 3, "scores": [0.2, 0.5, 0.95], "stop": "gamma"}
    assert isinstance(search.generator, ToyGenerator)
    drawn_at = [extension.sampling.temperature for batch in search.generator.asked for extension in batch]
    assert drawn_at == [0, 0.5, 0.75]


@pytest.mark.parametrize(
    ("anneal", "temperatures"),
    [("power2", [0, 0.4, 0.6, 0.7]), ("linear", [0, 0.8 / 3, 1.6 / 3, 0.8]), ("constant", [0.8] * 4)],
)
def test_the_temperature_of_later_samples_approaches_that_of_the_search(anneal: str, temperatures: list[float]) -> None:
    """Shares of .8: 0, 1/2, 3/4 and 7/8; or 0, 1/3, 2/3 and 1; also if several are drawn before an evaluation."""
    for batching in ("one", "doubling"):
        generator = ToyGenerator({str(i): done(f"so {i}") for i in range(4)})
        search = toy_search(generator, ToyScorer(lambda node: 0.5), temperature=0.8)
        solve(AdaptiveSampling(n=4, anneal=anneal, batching=batching), search)
        drawn_at = [extension.sampling.temperature for batch in generator.asked for extension in batch]
        assert drawn_at == pytest.approx(temperatures)


def test_batches_double_and_other_selections_vote() -> None:
    scores = {str(i): 0.1 * i for i in range(8)}
    tree = {str(i): done(f"so {min(i, 6)}") for i in range(8)}
    search = toy_search(tree, ToyScorer(scores))
    answer = solve(AdaptiveSampling(n=7, gamma=0.2, batching="doubling", select="majority"), search)
    assert (answer.value, answer.usage.model_calls) == ("0", 4)  # batches of 1, 1 and 2; the third sample reaches .2


def test_adaptive_sampling_at_temperature_0_is_refused() -> None:
    search = toy_search({"0": done("so 5")}, ToyScorer({"0": 0.5}), temperature=0)
    with pytest.raises(InputError, match="16 samples would be the same"):
        solve(AdaptiveSampling(), search)


def test_samples_with_low_early_scores_are_not_finished() -> None:
    tree = {
        "0": Piece("a b c 5", "eos"),
        "1": Piece("d e f 7", "eos"),
        "2": Piece("g 9", "eos"),
        "0/0": done("c 5"),
        "1/0": done("f 7"),
    }
    scores = {"0": 0.1, "1": 0.8, "2": 0.3, "1/0": 0.2}
    search = toy_search(tree, ToyScorer(scores))
    answer = solve(EarlyPruning(n=3, t_check=2, keep_frac=0.6), search)
    assert (answer.value, answer.usage.generated_tokens) == ("9", 3 * 2 + 2)
    assert texts([record.node for record in search.trace.values() if record.pruned]) == ["a b"]
    assert search.events == [{"begun": 3, "finished": 2}]


def test_the_controls_of_early_pruning_keep_likely_or_random_samples() -> None:
    tree = {"0": Piece("a b 5", "eos", -1.0), "1": Piece("d e 7", "eos", -8.0), "2": Piece("g 9", "eos", -2.0)}
    tree |= {"0/0": done("5"), "1/0": done("7")}
    left_out: dict[str, set[str]] = {"likely": set(), "random": set()}
    for keep, found in left_out.items():
        for seed in range(20):
            search = toy_search(tree, lambda node: 0.5, seed=seed)
            solve(EarlyPruning(n=3, t_check=2, keep_frac=0.6, keep=keep), search)
            found |= set(texts([record.node for record in search.trace.values() if record.pruned]))
    assert left_out == {"likely": {"d e"}, "random": {"a b", "d e", "g 9"}}


def test_early_checks_without_effect_are_refused() -> None:
    with pytest.raises(InputError, match=r"keep_frac=0\.1: with n=4 it keeps no sample"):
        EarlyPruning(n=4, keep_frac=0.1)
    with pytest.raises(InputError, match="t_check=8: the early check would never run: a sample has 8 at most"):
        solve(EarlyPruning(t_check=8), toy_search({}, ToyScorer({})))
    with pytest.raises(InputError, match="gamma=1"):
        AdaptiveSampling(gamma=1)


# Prompts and replies of the pocket model


def test_a_check_of_a_reference_solution_reads_as_right_and_stops_at_the_first_error() -> None:
    for problem in problems("dev", 20):
        lines = list(zip(problem.solution.splitlines(), check_steps(problem, problem.solution), strict=True))
        assert pocket_prompts.verdict(pocket_prompts.checked(lines)) is True
        assert pocket_prompts.verdict(pocket_prompts.checked([*lines[:-1], (lines[-1][0], False)])) is False
    assert pocket_prompts.verdict("Then Ann buys 3 figs, 3 + 4 = 7. Yes") is None


def test_a_judgement_gives_all_solutions_a_score_or_is_unreadable() -> None:
    reply = pocket_prompts.judged([(1, 0, "Answer: 7", False)], [9, 1])
    assert reply == "B 1: Answer: 7 No\nScores: [9, 1]"
    assert (
        pocket_prompts.scores(reply, 2),
        pocket_prompts.scores(reply, 3),
        pocket_prompts.scores("Scores: [11]", 1),
    ) == ([9, 1], None, None)
    with pytest.raises(ValueError, match="solutions=5: judge 1 to 4 at a time"):
        pocket_prompts.judge("what", ["a"] * 5)


def test_a_plan_contains_no_results() -> None:
    for problem in problems("dev", 40):
        plan = pocket_prompts.planned([step.text for step in problem.steps])
        assert "=" not in plan and len(plan.splitlines()) == len(problem.steps)


# Prompts of any chat model


def test_a_chat_model_sees_answers_without_their_thoughts() -> None:
    state = Text((), text="<think>hm 8</think>\nThe answer is 7.")
    (question, answer, check) = CHECK.render(PROBLEM, [state], [])
    assert (question["content"], answer["content"]) == (QUESTION, "The answer is 7.")
    assert "Verdict: Yes" in check["content"]
    judged = JUDGE.render(PROBLEM, [state, state], [])[-1]["content"]
    assert "### Answer 2\nThe answer is 7." in judged and '"Scores: [S1, S2]"' in judged
    revised = REVISE.render(PROBLEM, [state], [Text((), text="Verdict: No")])
    assert [message["role"] for message in revised] == ["user", "assistant", "user", "assistant", "user"]


def test_a_chat_model_sees_all_proposals_and_the_question() -> None:
    (question, proposals) = AGGREGATE.render(PROBLEM, [Text((), text="is 7"), Text((), text="5")], [])
    assert question["content"] == QUESTION
    assert "2 proposed answers" in proposals["content"] and "### Answer 2\n5" in proposals["content"]


def test_a_prompt_without_additions_equals_the_problems_own_so_first_answers_are_shared() -> None:
    search = toy_search(drawn, None, prompts={"revise": REVISE})
    assert search.ask(REVISE) is search.root
    ((leaf,), again) = extend(search, [search.root]), search.ask(REVISE, [])
    assert again is search.root and leaf.parent is search.root


def test_solutions_and_revisions_answer_the_problem_and_plans_and_judgements_do_not() -> None:
    answers = {"solve", "assemble", "check_format", "aggregate", "final", "revise", "fuse", "repair", "answer_from"}
    assert {name for name, prompt in prompts().items() if prompt.is_answer} == answers
    assert prompts().keys() == answers | {
        *("plan", "check", "judge", "retrieve"),
        *("rank", "critique", "argue", "verdict", "write_tests", "evaluate"),
    }


def test_the_last_calls_of_a_chain_repeat_the_question() -> None:
    plan, path = Text((), text="Add them."), Text((), text="3 + 4 = 7")
    *_, final = FINAL.render(PROBLEM, [path], [])
    *_, formatted = CHECK_FORMAT.render(PROBLEM, [path], [plan])
    assert final["content"].endswith(f"The question was:\n\n{QUESTION}")
    assert formatted["content"].endswith(f"The question was:\n\n{QUESTION}")


def test_a_chat_model_assembles_after_the_plan_and_the_solution_of_its_parts() -> None:
    plan, solution = Text((), text="Add them."), Text((), text="3 + 4 = 7")
    turns = ASSEMBLE.render(PROBLEM, [solution], [plan])
    assert turns[:-2] == SOLVE.render(PROBLEM, [], [plan])
    assert [turn["role"] for turn in turns] == ["user", "user", "assistant", "user", "assistant", "user"]
    assert (turns[2]["content"], turns[4]["content"]) == ("Add them.", "3 + 4 = 7")
    assert all(turn["content"] != "Add them." for turn in CHECK_FORMAT.render(PROBLEM, [solution], [plan]))


def test_a_users_template_replaces_a_prompt_and_replies_are_read_as_before() -> None:
    mine = overridden(prompts(), {"judge": "Units decide in {question}.\n{answers}\nEnd with Scores: [{example}]"})
    (turn,) = mine["judge"].render(PROBLEM, [Text((), text="is 7"), Text((), text="is 5")], [])
    listed = "### Answer 1\nis 7\n\n### Answer 2\nis 5"
    assert turn["content"] == f"Units decide in {QUESTION}.\n{listed}\nEnd with Scores: [S1, S2]"
    assert mine["judge"].read(Text((), text="Scores: [3, 9]"), 2) == [0.3, 0.9]


def test_another_wording_is_another_prompt_with_its_own_samples() -> None:
    keys = set()
    for words in (None, "Is {answer} right?", "Is {answer} wrong?"):
        mine = {"check": CHECK if words is None else with_words(CHECK, words)}
        search = toy_search({"0": done("so 5")}, None, prompts=mine)
        root = search.ask(CHECK, extend(search, [search.root]))
        assert root is not None
        keys.add(root.key)
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{answers} by {principles}", "prompt.check field='principles': unknown; "),
        ("{answers} {}", "prompt.check field='': unknown; "),
        ("{answers", "prompt.check='{answers': double braces that are no field"),
        ("{answers.all}", "prompt.check field='answers.all': unknown; did you mean 'answers'"),
    ],
)
def test_invalid_templates_are_refused_by_field(words: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        overridden(prompts(), {"check": words})
    assert str(refusal.value).startswith(message)


def test_a_template_for_an_unknown_prompt_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="prompt='chek': unknown; did you mean 'check'"):
        overridden(prompts(), {"chek": "{answer}"})


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Step 1 is right. Verdict: Yes", 1.0),
        ("Verdict: Yes? No, wait.\n**Verdict:** no", 0.0),
        ("This is incorrect.", 0.0),
        ("All steps are correct.", 1.0),
        ("I cannot say.", None),
    ],
)
def test_the_last_verdict_counts(reply: str, verdict: float | None) -> None:
    assert CHECK.read(Text((), text=reply), 1) == verdict


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("Scores: [3, 4]\nNo: Scores: [9, 1]", [0.9, 0.1]),
        ("Scores: [9]", None),
        ("Scores: [9, 11]", None),
        ("9 and 1", None),
    ],
)
def test_a_judgement_has_one_score_per_answer_or_is_unreadable(reply: str, scores: list[float] | None) -> None:
    assert JUDGE.read(Text((), text=reply), 2) == scores
