"""Pipelines of stages, the cost of their allocations, and the searches over allocations."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from test_skills import Talker
from toy import ANSWERS, PROBLEM, ToyGenerator, drawn, solve, toy_search

from experiments.agenttts.surface import BUDGETS, SUBTASKS, accuracy, every, last_stage, optimum, uniform
from experiments.agenttts.surface import space as constructed
from thinktime.core.context import Document
from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.text import Text
from thinktime.planning.pipeline_advisors import BuiltInRules, LanguageModelSearcher, first_trials
from thinktime.planning.pipeline_search import (
    AllocationSearcher,
    Archive,
    Evolution,
    ParzenAllocations,
    RandomAllocations,
    ResultTable,
    refuse_shared,
    search_allocations,
)
from thinktime.planning.pipeline_space import Allocation, PipelineSpace, Reference, StageChoice, Subtask
from thinktime.strategies import check, make, parse, spec
from thinktime.strategies.composition.pipeline import ANSWER_FROM, REPAIR, RETRIEVE, Pipeline, merged
from thinktime.testing import WORD_PROMPTS, WordScorer


def passes(*right: str) -> WordScorer:
    """A scorer that tests answers."""
    return WordScorer(lambda node: float(ANSWERS.read(node.state) in right))


def run(
    stages: str, replies: Mapping[str, str], tests: WordScorer | None, budget: Budget | None = None
) -> tuple[str | None, Search]:
    search = toy_search(Talker(replies), tests, cap=20, budget=budget)
    return solve(Pipeline(stages), search).value, search


# The strategy


def test_a_failing_answer_is_repaired_and_a_passing_repair_wins() -> None:
    replies = {"#0": "so 5", "#1": "is 6", "so 5 repair#0": "be 4", "so 5 repair#1": "be 7"}
    value, search = run("generate*2;repair*2", replies, passes("7"))
    assert (value, search.ledger.spent.model_calls) == ("7", 4)


def test_an_answer_that_passes_is_not_repaired() -> None:
    value, search = run("generate*2;repair*2", {"#0": "so 5", "#1": "is 7"}, passes("7"))
    assert (value, search.ledger.spent.model_calls) == ("7", 2)


def test_without_a_passing_answer_the_first_one_stays() -> None:
    replies = {"#0": "so 5", "so 5 repair#0": "be 4", "be 4 repair#0": "be 3", "so 5 repair#1": "be 3"}
    assert run("generate;repair", replies, passes("7"))[0] == "5"
    assert run("generate;repair;repair", replies, passes("7"))[1].ledger.spent.model_calls == 3


def test_without_tests_nothing_is_repaired() -> None:
    """The scorer gives no score, for example because the prompt has no examples."""
    value, search = run("generate*2;repair", {"#0": "so 5", "#1": "is 6"}, WordScorer(lambda node: None))
    assert (value, search.ledger.spent.model_calls) == ("5", 2)


def test_a_budget_keeps_the_best_answer_so_far() -> None:
    value, search = run("generate*2;repair*2", {"#0": "so 5", "#1": "is 6"}, passes("7"), Budget(calls=2))
    assert value == "5" and search.exhausted


def test_generated_answers_vote_if_there_is_no_repair() -> None:
    assert run("generate*3", {"#0": "so 5", "#1": "is 7", "#2": "so 7"}, None)[0] == "7"


def text(words: str) -> Text:
    return Text((), text=words)


READING = Problem(
    "q", "who?", "7", context=(Document("a", "It was 1.", "One"), Document("b", "It was 2."), Document("c", "x"))
)


def test_the_most_frequent_documents_are_shown_as_many_as_most_lists_have() -> None:
    assert merged([[3, 1], [1], [2, 1]]) == [1, 3]
    assert merged([[1, 1], [2, 2], [2, 3]]) == [2, 1], "a number counts once in a list"
    assert merged([]) == []


def test_a_retrieval_shows_all_documents_and_an_answer_only_those_that_were_chosen() -> None:
    asked = RETRIEVE.render(READING, [], [])[-1]["content"]
    assert "### Document 1: One\nIt was 1." in asked and "### Document 3: " in asked
    replies = [text("First.\nDocuments: [2]"), text("documents: [2, 9]"), text("none"), text("Documents: [2]")]
    shown = ANSWER_FROM.render(READING, [], replies)[-1]["content"]
    assert "It was 2." in shown and "It was 1." not in shown
    nothing = ANSWER_FROM.render(READING, [], [text("none")])[-1]["content"]
    assert "It was 1." in nothing and "It was 2." in nothing


@pytest.mark.parametrize(
    ("reply", "numbers"),
    [("Documents: [1, 3]", [1, 3]), ("Documents: []", None), ("Documents: [one]", None), ("Documents: 1", None)],
)
def test_numbers_of_documents_are_read_from_the_last_line(reply: str, numbers: list[int] | None) -> None:
    assert RETRIEVE.read(text(f"Documents: [7]\n{reply}" if numbers else reply), 0) == numbers


def test_a_repair_shows_the_answer_and_says_that_it_fails() -> None:
    *_, shown, asked = REPAIR.render(PROBLEM, [text("so 5")], [])
    assert shown["content"] == "so 5" and "fails the tests" in asked["content"]


def test_a_pipeline_with_documents_runs_over_two_models() -> None:
    generator, draft = ToyGenerator(drawn, name="large"), ToyGenerator(drawn, name="small")
    search = Search(
        READING,
        {"main": generator, "draft": draft},
        answers=ANSWERS,
        prompts=WORD_PROMPTS,
        sampling=Sampling(max_length=20),
    )
    strategy = Pipeline("retrieve.draft*3;answer*4")
    check("pipeline", strategy, search)
    answer = solve(strategy, search)
    calls = {role: usage.model_calls for (_, role), usage in answer.accounts.items()}
    assert calls == {"model draft": 3, "model main": 4}


def test_the_text_of_a_pipeline_is_read_as_the_same_pipeline() -> None:
    strategy = parse("pipeline:stages=generate.draft*3;repair*2;repair")[1]
    assert spec(strategy) == "pipeline:stages=generate.draft*3;repair*2;repair"
    assert Pipeline("generate*3").needs == {Capability.ANSWERS}
    assert Pipeline().needs == {Capability.ANSWERS, Capability.SCORES, "the prompt 'repair'"}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("", "begin with generate, retrieve or answer"),
        ("repair", "begin with generate, retrieve or answer"),
        ("generate;answer", "answer cannot follow generate"),
        ("generate;generate", "generate cannot follow generate"),
        ("retrieve;repair", "repair cannot follow retrieve"),
        ("retrieve", "let an answer follow"),
        ("generate*0", "samples=0: give 1 or more"),
        ("generate*many", r"write stage 1 as kind\.model\*samples"),
        ("generate.*2", r"write stage 1 as kind\.model\*samples"),
        ("generate*", r"write stage 1 as kind\.model\*samples"),
        ("generate*2;repear", "stages='repear': unknown; did you mean 'repair'"),
    ],
)
def test_stages_that_make_no_sense_are_refused_in_one_line(stages: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make("pipeline", {"stages": stages})


def test_a_stage_without_its_model_prompt_or_documents_is_refused_before_a_token() -> None:
    generator = ToyGenerator(drawn)
    with pytest.raises(CapabilityError, match=r"generate\.large\*1 has model='large'; the search has draft, main"):
        check("pipeline", Pipeline("generate.large"), toy_search(generator))
    with pytest.raises(InputError, match="retrieve needs documents in the problem's context"):
        check("pipeline", Pipeline("retrieve;answer"), toy_search(generator))
    models = {"main": generator, "draft": ToyGenerator(drawn, name="small")}
    scorer = WordScorer(lambda node: 0.0)
    search = Search(PROBLEM, models, scorers=scorer, answers=ANSWERS)
    with pytest.raises(CapabilityError, match=r"repair\.draft\*1 needs the prompt 'repair', which the model 'small'"):
        check("pipeline", Pipeline("generate;repair.draft"), search)
    assert generator.asked == []


# The cost


def two(budget: float = 1000.0) -> PipelineSpace:
    retrieval = Subtask("retrieval", {"3B": 3e9, "72B": 72e9}, 2048, 128)
    answering = Subtask("answering", {"3B": 3e9, "70B": 70e9}, 256, 64)
    return PipelineSpace((retrieval, answering), budget)


def test_the_cost_has_the_check_values_of_the_card() -> None:
    retrieval, answering = two().subtasks
    assert two().units(retrieval, StageChoice("72B", 1)) == pytest.approx(814)
    assert two().units(answering, StageChoice("70B", 1)) == pytest.approx(114.67, abs=0.01)
    assert two().cost((StageChoice("72B", 1), StageChoice("70B", 1))) == pytest.approx(928.67, abs=0.01)


def test_the_cost_is_the_long_formula_of_the_paper() -> None:
    """beta2 * (alpha * beta3 / beta1 * (beta1 + S) - 1), of 3B parameters, 128 prompt tokens and 64 generated ones."""
    for subtask, model, n in [(two().subtasks[0], "72B", 3), (two().subtasks[1], "3B", 9)]:
        alpha, beta1 = subtask.models[model] / 3e9, subtask.prompt_tokens / subtask.answer_tokens
        beta2, beta3 = 128 / 64, subtask.prompt_tokens / 128
        assert two().units(subtask, StageChoice(model, n)) == pytest.approx(
            beta2 * (alpha * beta3 / beta1 * (beta1 + n) - 1)
        )


def test_samples_are_the_inverse_of_the_cost() -> None:
    for shares in (True, False):
        within = replace(two(1e5), shares_prompt=shares)
        for subtask in within.subtasks:
            for n in (2, 7, 60):
                model = within.sizes(subtask)[-1]
                assert within.most_samples(
                    subtask, model, within.units(subtask, StageChoice(model, n))
                ) == pytest.approx(n)


def test_a_tiny_call_costs_nothing_but_has_flops() -> None:
    tiny = PipelineSpace((Subtask("t", {"s": 1e6}, 10, 10),), 1.0)
    assert tiny.cost((StageChoice("s", 1),)) == 0 and tiny.flops((StageChoice("s", 2),)) == 2 * 1e6 * 30


def test_without_a_shared_prompt_each_sample_pays_it() -> None:
    own = replace(two(1e5), shares_prompt=False)
    assert own.flops((StageChoice("3B", 4), StageChoice("3B", 1))) == 2 * 3e9 * (4 * 2176 + 320)
    assert own.units(own.subtasks[0], StageChoice("3B", 4)) == 4 * 2176 / 64 - 2


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Subtask("retrieval", {}, 1, 1), "retrieval.models={}: name at least one model"),
        (lambda: Subtask("retrieval", {"3B": 0}, 1, 1), "retrieval.models.3B=0: give a number above 0"),
        (lambda: Subtask("retrieval", {"3B": 1}, 0, 1), "retrieval.prompt_tokens=0"),
        (lambda: Subtask("retrieval", {"3B": 1}, 1, -1), "retrieval.answer_tokens=-1"),
        (lambda: PipelineSpace((), 1), r"subtasks=\(\): name at least one"),
        (lambda: two(0), "budget=0: give a number above 0"),
        (lambda: two(34), r"budget=34: the cheapest is retrieval: 3B\*1, answering: 3B\*1, which costs 35"),
        (lambda: replace(two(), samples=(0, 5)), "samples=0: give 1 or more"),
        (lambda: replace(two(), samples=(6, 5)), "samples=5: give 6 or more"),
        (lambda: Reference(answer_tokens=0), "answer_tokens=0: give a number above 0"),
        (lambda: Archive(two(), lambda allocation: {}, 0), "evaluations=0: give 1 or more"),
        (lambda: Evolution(two(), first=1), "first=1: give 2 or more"),
        (lambda: Evolution(two(), crossover=1.5), "crossover=1.5: give a number from 0 to 1"),
        (lambda: Evolution(two(), step=0), "step=0: give 1 or more"),
        (lambda: BuiltInRules(two(), tolerance=0), "tolerance=0: give a number above 0"),
        (lambda: LanguageModelSearcher(two(), str, batch=0), "batch=0: give 1 or more"),
        (lambda: refuse_shared(["a", "b"], ["b", "c"]), "problems='b': 1 problems of the report are also"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(make_it: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_it()  # type: ignore[operator]


# The archive

SMALL: Allocation = (StageChoice("3B", 1), StageChoice("3B", 1))


def test_an_allocation_is_evaluated_once_and_the_best_is_kept_with_its_trace() -> None:
    calls: list[Allocation] = []

    def measure(allocation: Allocation) -> Mapping[str, float]:
        calls.append(allocation)
        return {"accuracy": allocation[1].samples / 10, "seconds": 1.0}

    archive = Archive(two(), measure, 3)
    for n in (2, 1, 2, 4, 9):
        archive.evaluate((StageChoice("3B", 1), StageChoice("3B", n)))
    assert [one[1].samples for one in calls] == [2, 1, 4], "a known one is no new evaluation, and there are only three"
    assert archive.full and archive.best is not None and archive.best.score == 0.4
    assert [(number, trial.score) for number, trial in archive.improvements] == [(1, 0.2), (3, 0.4)]


def test_a_failed_evaluation_is_kept_with_its_reason() -> None:
    def measure(allocation: Allocation) -> Mapping[str, float]:
        raise ModelError("the endpoint is down")

    archive = Archive(two(), measure, 1)
    trial = archive.evaluate(SMALL)
    assert trial is not None and (trial.score, trial.reason) == (None, "the endpoint is down")
    assert archive.best is None
    with pytest.raises(ModelError, match="no allocation has a score: the endpoint is down"):
        search_allocations(RandomAllocations(two()), Archive(two(), measure, 3))


@pytest.mark.parametrize(
    ("allocation", "reason"),
    [
        ((StageChoice("3B", 1),), "give a choice for each of 2 subtasks"),
        ((StageChoice("9B", 1), StageChoice("3B", 1)), "retrieval.model='9B': unknown"),
        ((StageChoice("3B", 0), StageChoice("3B", 1)), "retrieval.samples=0: give 1 to 100"),
        ((StageChoice("3B", 101), StageChoice("3B", 1)), "retrieval.samples=101: give 1 to 100"),
        ((StageChoice("72B", 90), StageChoice("3B", 1)), "the budget is 1000"),
    ],
)
def test_a_proposal_that_cannot_be_evaluated_is_refused_with_a_reason(allocation: Allocation, reason: str) -> None:
    archive = Archive(two(), lambda allocation: {"accuracy": 1.0}, 5)
    assert archive.evaluate(allocation) is None and archive.known(allocation)
    ((_, found),) = archive.rejected
    assert reason in found and not archive.trials


def test_a_missing_main_metric_lists_those_that_there_are() -> None:
    archive = Archive(two(), lambda allocation: {"f1": 0.5, "em": 0.4}, 5)
    with pytest.raises(InputError, match="main='accuracy': the results have em, f1"):
        archive.evaluate(SMALL)


def test_a_table_gives_the_nearest_result_in_the_budget_and_its_own_allocation() -> None:
    rows: dict[Allocation, dict[str, float]] = {
        (StageChoice("3B", a), StageChoice("3B", b)): {"accuracy": a + b / 100} for a in (1, 8) for b in (1, 8, 64)
    }
    archive = Archive(two(), ResultTable(rows), 9)
    trial = archive.evaluate((StageChoice("3B", 2), StageChoice("3B", 9)))
    assert trial is not None and trial.allocation == (StageChoice("3B", 8), StageChoice("3B", 8))
    assert trial.score == trial.metrics["accuracy"] == rows[trial.allocation]["accuracy"]
    again = archive.evaluate(trial.allocation)
    assert again is trial and len(archive.trials) == 1
    assert archive.evaluate((StageChoice("72B", 1), StageChoice("3B", 1))) is None
    assert "the table has no result of these models in the budget" in archive.rejected[0][1]


# The searches


def run_on(searcher: AllocationSearcher, task: str = "solver", budget: float = BUDGETS[0], n: int = 20) -> Archive:
    table = ResultTable({one: {"accuracy": accuracy(task, one)} for one in every(budget)})
    archive = Archive(constructed(budget), table, n)
    search_allocations(searcher, archive)
    return archive


def test_the_first_trials_compare_the_models_of_a_subtask_at_equal_cost() -> None:
    within = two(2000.0)
    trials = list(first_trials(within))
    assert [place for place, _ in trials] == [0, 0, 1, 1]
    short = PipelineSpace((Subtask("a", {"s": 3e9, "l": 3e10}, 128, 64),), 100)
    small, large = (short.cost(trial) for _, trial in first_trials(short))
    assert large - 1 < small <= large, "equal up to one sample of the small model"
    assert trials[0][1] == (StageChoice("3B", 60), StageChoice("70B", 1)), (
        "at most 60 samples, beside the largest model"
    )
    poor = list(first_trials(two(900.0)))
    assert all(within.cost(trial) <= 900 for _, trial in poor)
    assert {trial[1].model for place, trial in poor if place == 0} == {"3B"}, "the others get their smallest model"


@pytest.mark.parametrize("kind", [RandomAllocations, Evolution, BuiltInRules])
def test_a_search_is_within_the_budget_and_repeats_itself(kind: type[RandomAllocations]) -> None:
    archives = [run_on(kind(constructed(BUDGETS[0]), 3)) for _ in range(2)]
    assert [t.allocation for t in archives[0].trials] == [t.allocation for t in archives[1].trials]
    assert len({t.allocation for t in archives[0].trials}) == len(archives[0].trials) == 20
    assert all(trial.cost <= BUDGETS[0] for trial in archives[0].trials)


def test_the_rules_come_near_the_optimum_of_a_constructed_pipeline() -> None:
    for task in ("solver", "chooser"):
        best = run_on(BuiltInRules(constructed(BUDGETS[0])), task, n=40).best
        assert best is not None and best.score is not None
        assert best.score > accuracy(task, optimum(task, BUDGETS[0])) - 0.05
        assert best.score > accuracy(task, uniform(task, BUDGETS[0]))
        assert best.score > accuracy(task, last_stage(BUDGETS[0]))


def test_the_rules_stop_doubling_at_the_knee() -> None:
    """A doubling of the first subtask from 4 to 8 samples gained nothing, so it is not doubled again."""
    within = PipelineSpace(two().subtasks, 1e4)
    rules = BuiltInRules(within)

    def measure(allocation: Allocation) -> Mapping[str, float]:
        return {"accuracy": min(allocation[0].samples, 4) / 10 + min(allocation[1].samples, 2) / 100}

    archive = Archive(within, measure, 40)
    for a in (2, 4, 8):
        archive.evaluate((StageChoice("3B", a), StageChoice("3B", 1)))
    rules._started = True
    best = (StageChoice("3B", 4), StageChoice("3B", 1))
    near = list(rules._near(archive, best))
    assert near[0] == (StageChoice("3B", 4), StageChoice("3B", 2)), "the other subtask is doubled first"
    assert (StageChoice("3B", 8), StageChoice("3B", 1)) not in near[:3]
    assert archive.best is not None and archive.best.allocation == best, "of equal scores the cheaper one"


def test_better_parents_have_more_children_and_the_archive_is_not_edited() -> None:
    within = constructed(BUDGETS[0])
    evolution = Evolution(within, mutation=0.0, crossover=0.0)
    parents = [tuple(StageChoice("1M", n) for _ in SUBTASKS) for n in (1, 2, 4)]
    children = Counter(evolution.child(parents)[0].samples for _ in range(600))
    assert children[1] < children[2] < children[4]
    before = list(parents)
    mutants = {Evolution(within, seed, mutation=1.0).child(parents) for seed in range(30)}
    assert parents == before and len(mutants) > 10
    assert all(1 <= choice.samples <= 32 for one in mutants for choice in one)


def test_tpe_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModelError, match=r"TPE needs optuna: pip install 'thinktime\[search\]'"):
        ParzenAllocations(two())


def test_tpe_proposes_within_the_budget() -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'thinktime[search]'")
    archive = run_on(ParzenAllocations(constructed(BUDGETS[0])), n=12)
    assert len(archive.trials) == 12 and archive.best is not None


# The language model as the searcher


def proposal(*pairs: tuple[str, int, str, int]) -> str:
    names = ("retrieval", "answering")
    rows = [{names[0]: {"model": a, "samples": n}, names[1]: {"model": b, "samples": m}} for a, n, b, m in pairs]
    return f"Here they are:\n```json\n{json.dumps(rows)}\n```"


def test_a_language_model_writes_guidelines_and_proposes() -> None:
    prompts: list[str] = []
    replies = [
        "the small model",
        proposal(("3B", 2, "3B", 2), ("3B", 3, "3B", 1)),
        "more samples",
        proposal(("3B", 5, "3B", 5)),
    ]

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return replies[len(prompts) - 1]

    searcher = LanguageModelSearcher(two(), reply, batch=2)
    archive = Archive(two(), lambda allocation: {"accuracy": 0.1 * allocation[0].samples ** 0.5}, 6)
    search_allocations(searcher, archive)
    assert len(archive.trials) == 6 and archive.trials[-1].allocation == (StageChoice("3B", 5), StageChoice("3B", 5))
    assert searcher.guidelines == ["the small model", "more samples"] and len(searcher.replies) == 4
    assert "the small model" in prompts[3] and '"retrieval": {"model": "3B", "samples": 2}' in prompts[3]
    assert "budget of 1000" in prompts[0] and "What was learned:\nnothing yet" in prompts[0]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("no list", "the reply has no JSON list"),
        ("[1, 2", "the reply has no JSON list"),
        ("[3]", "allocation=3: give an object of subtasks"),
        ('[{"retrieval": {"model": "3B", "samples": 1}}]', "it lacks the subtask answering"),
        ('[{"ranking": {"model": "3B", "samples": 1}}]', "subtask='ranking': unknown"),
        (proposal(("9B", 1, "3B", 1)), "retrieval.model='9B': unknown"),
        (proposal(("3B", 1, "3B", 500)), "answering.samples=500: give 1 to 100"),
        (proposal(("3B", 1, "3B", 1)).replace("1}", '"1"}'), "retrieval.samples='1': give 1 to 100"),
    ],
)
def test_proposals_that_cannot_be_used_are_noted_and_two_in_turn_stop_the_search(reply: str, reason: str) -> None:
    searcher = LanguageModelSearcher(two(), lambda prompt: reply)
    archive = Archive(two(), lambda allocation: {"accuracy": 0.5}, 20)
    with pytest.raises(ModelError, match="two proposals in turn had nothing new and valid"):
        search_allocations(searcher, archive)
    assert any(reason in found for found in searcher.refused)
    assert len(archive.trials) == 3, "the first trials"


def test_one_valid_proposal_of_several_is_used() -> None:
    searcher = LanguageModelSearcher(two(), lambda prompt: proposal(("9B", 1, "3B", 1), ("3B", 7, "3B", 1)))
    archive = Archive(two(), lambda allocation: {"accuracy": 0.5}, 4)
    search_allocations(searcher, archive)
    assert archive.trials[-1].allocation == (StageChoice("3B", 7), StageChoice("3B", 1))


# The constructed pipeline


def test_more_samples_of_a_stage_flatten_and_the_knee_moves_with_the_stage_before() -> None:
    def solver(first: int) -> list[float]:
        return [
            accuracy("solver", (StageChoice("1M", first), StageChoice("3M", n), StageChoice("3M", 8)))
            for n in (1, 2, 4, 8, 16)
        ]

    gains = [b - a for a, b in pairwise(solver(1))]
    assert gains[0] > gains[-1] > 0
    assert pairwise_last(solver(32)) < pairwise_last(solver(1)), "good decompositions need fewer solutions"


def pairwise_last(values: list[float]) -> float:
    return values[-1] - values[-2]
