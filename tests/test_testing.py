"""The laws of strategies: all our strategies keep them, and each law catches a strategy that breaks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from random import random
from typing import Any, ClassVar

import pytest
from toy import configured

from thinktime.core.errors import CapabilityError
from thinktime.core.ledger import Ledger
from thinktime.core.meter import Meter
from thinktime.core.search import Search
from thinktime.core.selection import best, majority
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Extension, Node, Prompt, asks
from thinktime.core.usage import Budget
from thinktime.strategies import BUILT_IN, Strategy, parse, split
from thinktime.testing import (
    LAWS,
    WORD_PROMPTS,
    Trial,
    answers_anytime,
    check_strategy,
    is_deterministic,
    is_well_formed,
    keeps_every_sample,
    keeps_within_budget,
    leaves_pruned_alone,
    names_its_needs,
    random_budget,
    resumes,
)

Law = Callable[[Strategy, Iterable[int]], None]

SMALL = [
    "best_of_n:n=3",
    "majority:n=1",
    "weighted_majority:n=5",
    "most_likely:n=2",
    "summed_probability:n=4",
    "adaptive_consistency:n=6,batch=2",
    "length_vote:n=9,keep=0.2,least=1",
    "length_vote:n=8,keep=0.3,least=1,side=long",
    "deepconf:n=5,keep=0.3,by=lowest,window=2",
    "deepconf_online:n=7,warmup=3,keep=0.5,window=2,every=1,batch=2",
    "deepconf_online:n=5,warmup=2,keep=0.1,window=1,every=3,consensus=0.6",
    "first_finish:n=5,k=2",
    "first_finish:n=12,k=5,min_tokens=3",
    "first_finish:n=4,min_tokens=6",
    "first_finish:n=6,k=2,by=time,counts=any",
    "beam_search:n=4,width=2",
    "beam_search:n=1,width=1",
    "beam_search:n=6,width=sqrt",
    "beam_search:n=4,width=2,lookahead=3,max_rounds=3",
    "dvts:n=4,width=2",
    "rebase:n=4",
    "ets:n=4,min_children=1",
    "ets:n=6,coverage=0",
    "ets:n=4,cost_unit=token,vote=best",
    "ets:n=4,coverage=0,keep=random,max_step_tokens=2,max_rounds=3",
    "best_first:k=2,n_goals=3",
    "a_star:k=2,n_goals=2,pop_width=2,max_frontier=3",
    "a_star:k=3,edge_cost=consistent,weight=2",
    "a_star:k=2,edge_cost=tokens,segment_tokens=2,max_depth=3,reserve_tokens=5",
    "mcts:n=5,width=2,batch=2",
    "mcts:n=3,width=1,batch=1,explore=0",
    "fk_steering:n=3,start=1,every=2",
    "dts:n=6,walks=2",
    "dts:n=4,variant=sample,backup=max",
    "zero_order:n=2,rounds=2",
    "zero_order:n=2,rounds=3,on_stall=restart",
    "search_over_paths:n=2,width=2,level=0.2,forward=0.3,backward=0.5",
    "adaptive_sampling:n=6,gamma=0.8",
    "adaptive_sampling:n=5,anneal=constant,batching=doubling,select=majority",
    "early_pruning:n=4,t_check=2",
    "early_pruning:n=5,t_check=3,keep_frac=0.2,keep=random",
    "early_pruning:n=3,t_check=1,keep=likely",
    "revision:n=6,chains=2,context=2",
    "revision:n=3,chains=1,select=majority",
    "revision:n=4,chains=2,select=last",
    "aggregate:n=3",
    "aggregate:n=2,layers=2",
    "pipeline:stages=generate*2;repair*2;repair",
    "pipeline:stages=generate*3",
    "agent_graph:nodes=assistant;assistant<1;assistant<1+2",
    "agent_graph:nodes=fuser<3+4;assistant<1;assistant;assistant;assistant<3;fuser<2+5+1",
    "generative_verification:n=3,checks=2,unreadable=plurality",
    "generative_verification:n=2,checks=1,select=best_of_n,verdict=text,unreadable=plurality",
    "generative_verification:n=3,checks=2,verdict=logprob,unreadable=plurality",
    "solve_or_verify:n=8,alpha_s=0.7,alpha_v=0.6,unreadable=plurality",
    "generative_reward:n=4,k=3,keep=2,unreadable=plurality",
    "generative_reward:n=4,k=4,stop=decided,unreadable=plurality",
    "generative_reward:n=3,k=4,keep=1,by=random,unreadable=plurality",
    "pairwise_tournament:n=5,pairs=1",
    "pairwise_tournament:n=8,pairs=3,orders=one",
    "pairwise_tournament:n=6,schedule=pivot,pivots=1",
    "pairwise_tournament:n=4,schedule=pivot,pivots=5,orders=one",
    "self_refine:rounds=2",
    "stepwise_best_of_n:n=3,max_steps=4",
    "stepwise_best_of_n:n=2,max_steps=2",
    "stepwise_best_of_n:n=2,max_steps=1,min_steps=0",
    "plan_then_solve:n=2",
    "plan_then_solve:n=3,roles=two",
    "particle_filter:n=4,ess=1",
    "particle_filter:n=3,ess=0,potential=max,anneal=2",
    "particle_filter:n=4,ess=1,resampler=multinomial,max_rounds=3",
    "particle_filter:n=4,potential=bon",
    "early_rejection:n=4,width=2,tau=3",
    "early_rejection:n=4,width=2,tau=1,keep=random",
    "early_rejection:n=4,width=2,tau=auto",
    "early_rejection:n=4,width=2,tau=2,rank=partial,select=best",
    "speculative_reasoning:threshold=4",
    "speculative_reasoning:threshold=0,first_n_base=2",
    "speculative_reasoning:threshold=6.5,max_step_tokens=4",
    "cascade:n=3,threshold=0.6",
    "cascade:n=2,threshold=1",
    "delegate(majority:n=2)",
    "archon:retries=1,unreadable=plurality",
    "restarts:n=3",
    "restarts(majority:n=2):n=2,select=best",
    "restarts(beam_search:n=4,width=2):n=2,select=weighted_majority",
    "restarts(restarts(best_of_n:n=2):n=2):n=2",
]
"""Small options: many seeds are cheap, and rare events happen often."""


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_strategy_keeps_every_law_with_its_defaults(name: str) -> None:
    check_strategy(configured(name), seeds=range(3))


@pytest.mark.parametrize("text", SMALL)
def test_every_strategy_keeps_every_law_with_small_options(text: str) -> None:
    check_strategy(parse(text)[1], seeds=range(6))


def test_every_strategy_with_options_is_tested_with_small_ones() -> None:
    assert {split(text)[0] for text in SMALL} == set(BUILT_IN) - {"single"}


# Strategies that break one law each


@dataclass(frozen=True)
class Vote:
    """A vote over four samples; the broken strategies below are variants of it."""

    needs: ClassVar[frozenset[str]] = frozenset()

    async def __call__(self, search: Search) -> Answer:
        return self.chosen(search, await search.extend([search.root], 4))

    def chosen(self, search: Search, leaves: Sequence[Node]) -> Answer:
        return search.finish(majority(search.candidates(leaves)))


class Overdraws(Vote):
    """Opens its own account."""

    async def __call__(self, search: Search) -> Answer:
        search.meter = Meter(Ledger())
        return await super().__call__(search)


class CommitsTooMuch(Vote):
    """Spends little, but runs more calls at once than its budget covers."""

    async def __call__(self, search: Search) -> Answer:
        search.ledger.budget = Budget(tokens=max(60, search.ledger.budget.tokens or 0))
        return await super().__call__(search)


class WantsAllOrNothing(Vote):
    """Does not expect fewer children than it requested."""

    def chosen(self, search: Search, leaves: Sequence[Node]) -> Answer:
        _, _, _, fourth = leaves
        return super().chosen(search, [fourth])


class ForgetsItsAnswer(Vote):
    """Gives no answer if the first sample is unreadable."""

    def chosen(self, search: Search, leaves: Sequence[Node]) -> Answer:
        answer = super().chosen(search, leaves)
        readable = leaves and search.answers and search.answers.read(leaves[0].state)
        return answer if readable else replace(answer, value=None, node=None, finish="incomplete")


class AnswersFromElsewhere(Vote):
    """Its answer differs from that of its sample."""

    def chosen(self, search: Search, leaves: Sequence[Node]) -> Answer:
        answer = super().chosen(search, leaves)
        return answer if answer.value is None else replace(answer, value="42")


class HidesTheBudget(Vote):
    """Reports ``done`` even if the budget ended it."""

    def chosen(self, search: Search, leaves: Sequence[Node]) -> Answer:
        answer = super().chosen(search, leaves)
        return answer if answer.value is None else replace(answer, finish="done")


class ReturnsText(Vote):
    """Returns a text instead of an answer."""

    def chosen(self, search: Search, leaves: Sequence[Node]) -> Answer:
        return super().chosen(search, leaves).value  # type: ignore[return-value]  # the mistake


class DrawsWithoutSeed(Vote):
    """Draws a random number of samples, without a seed."""

    async def __call__(self, search: Search) -> Answer:
        return self.chosen(search, await search.extend([search.root], 1 + int(4 * random())))


class Remembers(Vote):
    """Changes its behaviour with every search that it has run."""

    seen = count()

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], 4)
        return self.chosen(search, leaves[: 1 + next(self.seen) % 4])


class SharesBetweenSearches(Vote):
    """Works alone; with other searches, one search uses state of another."""

    running: ClassVar[list[Search]] = []

    async def __call__(self, search: Search) -> Answer:
        self.running.append(search)
        leaves = await search.extend([search.root], 2)
        leaves += await search.extend([search.root], len(self.running))
        self.running.remove(search)
        return self.chosen(search, leaves)


class ClearsUp(Vote):
    """Removes the samples that it did not choose from the trace."""

    def chosen(self, search: Search, leaves: Sequence[Node]) -> Answer:
        answer = super().chosen(search, leaves)
        for leaf in leaves:
            if leaf is not answer.node:
                del search.trace[leaf.key]
        return answer


class SamplesOffTheBooks(Vote):
    """Calls the generator directly, without the search."""

    async def __call__(self, search: Search) -> Answer:
        aside = Extension(search.root, 9, "aside", "done", search.sampling, 1)
        if search.ledger.budget == Budget():
            await search.generator.extend([aside])
        return await super().__call__(search)


class UnderstatesItsCost(Vote):
    """Reports the cost of the chosen sample only."""

    def chosen(self, search: Search, leaves: Sequence[Node]) -> Answer:
        answer = super().chosen(search, leaves)
        return replace(answer, usage=answer.node.usage) if answer.node else answer


class ComesBackToThePruned(Vote):
    """Extends a node that it has pruned."""

    async def __call__(self, search: Search) -> Answer:
        begun = await search.extend([search.root], 2, until="step")
        search.prune(begun)
        return self.chosen(search, [*begun, *await search.extend(begun)])


class CountsItsBatches(Vote):
    """Decides by the number of generator calls, which is lower in a resumed run."""

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], 2)
        asked = len(search.generator.asked)  # type: ignore[attr-defined]  # of this generator
        leaves += await search.extend([search.root], 1 + asked)
        return self.chosen(search, leaves)


class KeepsNoJournal(Vote):
    """Writes no journal, so a resumed run starts again."""

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], 2)
        search._samples["main"].journal = None
        leaves += await search.extend([search.root], 2)
        return self.chosen(search, [*leaves, *await search.extend([search.root], 2)])


class NoDataclass:
    """Has options that nobody can list."""

    needs: ClassVar[frozenset[str]] = frozenset()

    async def __call__(self, search: Search) -> Answer:
        return search.finish(None)


@dataclass
class Thawed(NoDataclass):
    """Can be changed while it runs."""


@dataclass(frozen=True)
class NoNeeds:
    """Says nothing about what it needs."""

    async def __call__(self, search: Search) -> Answer:
        return search.finish(None)


@dataclass(frozen=True)
class NeedsOneText(NoNeeds):
    """Has a text in place of a set; each letter would be a need."""

    needs: ClassVar[Any] = "a scorer"


@dataclass(frozen=True)
class NeedsAreAnOption(NoNeeds):
    """Lets users change what it needs."""

    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Blocks:
    """Is not async."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, search: Search) -> Any:
        return search.finish(None)


@dataclass(frozen=True)
class OwnNeedsAreText(Vote):
    """Sets needs of its instances that are no capabilities."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", {1})


@dataclass(frozen=True)
class PromptsByName(Vote):
    """Lists names of prompts in place of prompts."""

    prompts: ClassVar[Any] = ("check",)


class HidesItsScorer(Vote):
    """Scores without a need of a scorer."""

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], 4)
        return search.finish(best(search.candidates(leaves, await search.score(leaves))))


class HidesItsSteps(Vote):
    """Extends by steps without a need of them."""

    async def __call__(self, search: Search) -> Answer:
        return self.chosen(search, await search.extend([search.root], 4, until="step"))


class HidesItsDraft(Vote):
    """Uses a second model without a need of one."""

    async def __call__(self, search: Search) -> Answer:
        return self.chosen(search, await search.extend([search.root], 4, model="draft"))


@dataclass(frozen=True)
class HidesItsPrompt(Vote):
    """Asks a question that no need names."""

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], 4)
        search.ask(WORD_PROMPTS["check"], leaves[:1])
        return self.chosen(search, leaves)


@dataclass(frozen=True)
class JudgesSteps(Vote):
    """Needs a scorer of whole samples, and scores steps."""

    needs: ClassVar[frozenset[str]] = frozenset({Capability.SCORES, Capability.STEPS, Capability.PREFIX})

    async def __call__(self, search: Search) -> Answer:
        begun = await search.extend([search.root], 4, until="step")
        await search.score(begun)
        return self.chosen(search, [*begun, *await search.extend(begun)])


@dataclass(frozen=True)
class RefusesFirst(Vote):
    """Uses a scorer, and its ``validate`` refuses searches without one: a user loses nothing."""

    def validate(self, search: Search) -> None:
        if search.scorer is None:
            raise CapabilityError("it needs a scorer")

    async def __call__(self, search: Search) -> Answer:
        leaves = await search.extend([search.root], 4)
        return search.finish(best(search.candidates(leaves, await search.score(leaves))))


BROKEN: list[tuple[Strategy, Law, str]] = [
    (NoDataclass(), is_well_formed, "it is no frozen dataclass"),
    (Thawed(), is_well_formed, "it is no frozen dataclass"),
    (NoNeeds(), is_well_formed, "it has no needs"),  # type: ignore[list-item]  # the mistake
    (NeedsOneText(), is_well_formed, "it has no needs"),
    (NeedsAreAnOption(), is_well_formed, "its needs are an option"),  # type: ignore[list-item]  # the mistake
    (Blocks(), is_well_formed, "it has no method: async def __call__"),
    (OwnNeedsAreText(), is_well_formed, "its needs are no frozenset"),
    (PromptsByName(), is_well_formed, "its prompts are no tuple of Prompt"),
    (HidesItsScorer(), names_its_needs, "it raised CapabilityError: this strategy scores nodes, but no scorer"),
    (HidesItsSteps(), names_its_needs, "it raised CapabilityError: .* lacks step boundaries"),
    (HidesItsDraft(), names_its_needs, "it raised CapabilityError: model='draft'"),
    (HidesItsPrompt(), names_its_needs, "it raised CapabilityError: .* does not answer the prompt 'check'"),
    (JudgesSteps(), names_its_needs, "it scores unfinished steps, but does not need process rewards"),
    (Overdraws(), keeps_within_budget, "the budget was exceeded"),
    (CommitsTooMuch(), keeps_within_budget, "were spent or running"),
    (WantsAllOrNothing(), answers_anytime, "it raised ValueError: not enough values to unpack"),
    (ForgetsItsAnswer(), answers_anytime, "no answer, though 1 of its samples have one"),
    (AnswersFromElsewhere(), answers_anytime, "the answer '42' is not that of its node"),
    (HidesTheBudget(), answers_anytime, "finish is 'done', expected 'budget'"),
    (ReturnsText(), answers_anytime, "it returned '.' instead of an Answer"),
    (DrawsWithoutSeed(), is_deterministic, "run .* differs"),
    (Remembers(), is_deterministic, "a second run with the same seed differs"),
    (SharesBetweenSearches(), is_deterministic, "a run beside others, its calls and batches in another order, differs"),
    (ClearsUp(), keeps_every_sample, "a paid sample is missing in the trace"),
    (SamplesOffTheBooks(), keeps_every_sample, "a paid sample is missing in the trace"),
    (UnderstatesItsCost(), keeps_every_sample, "the answer does not add up to the cost: prompt_tokens is"),
    (ComesBackToThePruned(), leaves_pruned_alone, "a node was extended after it had been pruned"),
    (CountsItsBatches(), resumes, "a run killed at call 1 and resumed differs"),
    (KeepsNoJournal(), resumes, "killed at call 2 and resumed, it sampled 2 children twice"),
]


@pytest.mark.parametrize(("strategy", "law", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_strategy_that_breaks_a_law_is_caught_by_it_in_one_line(strategy: Strategy, law: Law, message: str) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        law(strategy, range(30))
    assert "\n" not in str(caught.value)
    with pytest.raises(AssertionError):
        check_strategy(strategy, range(30))


def test_every_law_fails_for_a_broken_strategy_and_none_fails_for_the_base() -> None:
    assert {law for _, law, _ in BROKEN} == set(LAWS)
    check_strategy(Vote(), range(30))


def test_a_strategy_whose_validate_refuses_a_search_need_not_name_the_need() -> None:
    names_its_needs(RefusesFirst())


def test_a_strategy_with_a_prompt_of_its_own_can_be_checked() -> None:
    @dataclass(frozen=True)
    class Asks(Vote):
        prompts: ClassVar[tuple[Prompt, ...]] = (Prompt("my_own", lambda problem, about, said: "mine"),)
        needs: ClassVar[frozenset[str]] = frozenset({asks("my_own")})

        async def __call__(self, search: Search) -> Answer:
            leaves = await search.extend([search.root], 3)
            question = search.ask(self.prompts[0], leaves[:1])
            assert question is not None
            await search.extend([question], 2)
            return self.chosen(search, leaves)

    check_strategy(Asks())


def test_a_broken_law_names_the_strategy_the_seed_and_the_budget() -> None:
    with pytest.raises(AssertionError, match=r"^ForgetsItsAnswer\(\), seed \d+, budget (none|\d.*): no answer, though"):
        answers_anytime(ForgetsItsAnswer())


# Trials


def test_the_count_of_a_trial_agrees_with_the_ledger_of_a_correct_search() -> None:
    trial = asyncio.run(Trial(BUILT_IN["beam_search"](n=4, width=2), seed=1).run())
    assert trial.spent == trial.search.ledger.spent
    assert trial.calls == len(trial.moments) > 2


def test_trials_cover_every_finish_of_a_child() -> None:
    seen = set()
    for text in ("early_rejection:n=4,width=2,tau=3", "first_finish"):
        for seed in range(12):
            trial = asyncio.run(Trial(parse(text)[1], seed, random_budget(seed)).run())
            seen |= {child.finish for _, child in trial.sampled}
    assert seen == {"step", "eos", "cut", "length", "pruned", "budget"}


def test_random_budgets_range_from_almost_nothing_to_more_than_enough_and_limit_all_counts_except_seconds() -> None:
    budgets = [random_budget(seed) for seed in range(60)]
    limits = {name: [v for b in budgets if (v := getattr(b, name)) is not None] for name in vars(Budget())}
    assert {name for name, values in limits.items() if values} == {"tokens", "calls", "flops", "dollars"}
    assert min(limits["tokens"]) < 4 and max(limits["tokens"]) > 100
    assert min(limits["calls"]) < 3 and max(limits["calls"]) > 30
