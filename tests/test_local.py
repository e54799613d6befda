"""The local generator and the process reward model: their nodes and scores, and an exact account of the cost."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from thinktime.answers import TextAnswers
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.journal import Journal
from thinktime.core.protocols import Generator
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.transitions import Race
from thinktime.core.types import Child, Extension, Node, Problem, Sampling, Score, Until
from thinktime.core.usage import Budget, total
from thinktime.generators.local import LocalGenerator
from thinktime.generators.recorded import BankedGenerator
from thinktime.generators.text import RemoteText, Text
from thinktime.models.engine.directories import fingerprint, weights_digest
from thinktime.models.engine.engine import BLOCK_SIZE, Engine
from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.models.engine.models import LanguageModel, RewardModel
from thinktime.models.engine.rows import Job, Read, Row
from thinktime.models.engine.scheduler import Iteration, Scheduler
from thinktime.models.engine.tokenizer import ChatTokenizer
from thinktime.models.engine.worker import Worker
from thinktime.pocket.problems import read_answer
from thinktime.scorers.prm import AGGREGATES, ProcessReward
from thinktime.scorers.recorded import BankedScorer
from thinktime.strategies import make
from thinktime.strategies.sampling.first_finish import FirstFinish
from thinktime.strategies.sampling.majority import Majority
from thinktime.testing import MemoryJournal

Result = TypeVar("Result")
GREEDY = Sampling(temperature=0.0, max_length=200)
WARM = Sampling(temperature=0.8, max_length=200)


@pytest.fixture
def iterations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of decoding rows in every iteration of an engine."""
    seen: list[int] = []
    schedule = Scheduler.schedule

    def recording(scheduler: Scheduler) -> Iteration:
        iteration = schedule(scheduler)
        seen.append(sum(len(jobs) for jobs, _ in iteration.decoding))
        return iteration

    monkeypatch.setattr(Scheduler, "schedule", recording)
    return seen


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Row | Read]:
    """All tasks that engines get."""
    seen: list[Row | Read] = []
    submit = Engine.submit

    def recording(engine: Engine, task: Row | Read) -> Job:
        seen.append(task)
        return submit(engine, task)

    monkeypatch.setattr(Engine, "submit", recording)
    return seen


@pytest.fixture(scope="module")
def short_context(tmp_path_factory: pytest.TempPathFactory, solver_directory: Path) -> LocalGenerator:
    """A random model with a context of 64 tokens that never ends by itself: the end token is the least likely."""
    path = tmp_path_factory.mktemp("short")
    torch.manual_seed(0)
    model = Llama(LlamaConfig(500, 16, 16, 1, 2, 2, 8, max_position_embeddings=64, tie_word_embeddings=False))
    with torch.no_grad():
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight[1] = -1e3 * torch.ones(16)
        model.model.embed_tokens.weight.abs_()
    model.save(path, torch.float32)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(solver_directory / name, path / name)
    return LocalGenerator(path, dtype="float64")


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(coroutine)


def engine_of(generator: LocalGenerator) -> Engine:
    engine = generator._worker.engine
    assert isinstance(engine, Engine)
    return engine


def search_for(
    question: str,
    generator: LocalGenerator,
    sampling: Sampling = WARM,
    reward: ProcessReward | None = None,
    budget: Budget | None = None,
    journal: Journal | None = None,
) -> Search:
    return Search(
        Problem(question, question),
        generator,
        scorers=reward,
        answers=TextAnswers(read_answer),
        sampling=sampling,
        budget=budget,
        journal=journal,
    )


def placed(state: Text, key: str = "f" * 32) -> Node:
    return Node(key, (0,), state, finish="step")


def test_concurrent_requests_of_many_problems_run_in_one_batch(
    solver_directory: Path, iterations: list[int], questions: tuple[str, ...]
) -> None:
    generator = LocalGenerator(solver_directory)

    async def ask() -> None:
        searches = [search_for(question, generator) for question in questions[:6]]
        await asyncio.gather(*(search.extend([search.root], 2, at_most=30) for search in searches))

    run(ask())
    assert max(iterations) == 12


def test_at_most_max_rows_run_at_once(
    solver_directory: Path, iterations: list[int], questions: tuple[str, ...]
) -> None:
    search = search_for(questions[0], LocalGenerator(solver_directory, max_rows=5))
    children = run(search.extend([search.root], 12, at_most=4))
    assert max(iterations) == 5
    assert [child.path for child in children] == [(i,) for i in range(12)]


@pytest.mark.parametrize("until", ["done", "step"])
@pytest.mark.parametrize("lines", [1, 2])
def test_a_stop_string_ends_a_sample_and_is_paid_but_not_in_its_text(
    generator: LocalGenerator, questions: tuple[str, ...], until: Until, lines: int
) -> None:
    def sample(model: Generator, journal: Journal, *stop: str) -> Node:
        problem, sampling = Problem("p", questions[0]), replace(GREEDY, stop=stop)
        search = Search(problem, model, sampling=sampling, journal=journal)
        node = search.root
        while node.finish in ("root", "step"):
            (node,) = run(search.extend([node], until=until))
        assert search.ledger.spent.generated_tokens == len(node.state.ids)
        return node

    bank = MemoryJournal()
    whole = sample(generator, bank).state.text
    line = whole.index("\n") + 1
    stop = whole[line - 5 : line + 5] if lines == 2 else whole[line + 5 : line + 10]
    node = sample(generator, bank, "nowhere", stop)
    kept = line if until == "step" and lines == 2 else whole.index(stop)  # an earlier step stays whole
    assert node.done and node.state.text == whole[:kept]
    assert stop in generator.model.tokenizer.decode(node.state.ids) != whole
    again = sample(BankedGenerator(generator.name), bank, "nowhere", stop).state
    assert (again.ids, again.text) == (node.state.ids, node.state.text)


def test_a_race_ends_with_the_first_samples_that_reach_a_stop_string(
    generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[0], generator, replace(WARM, stop=("\n",)))
    children = run(search.extend([search.root], 4, race=Race(1, lambda state: True)))
    lengths = {child.length for child in children if child.done}
    assert len(lengths) == 1 and all(child.length == min(lengths) for child in children)
    assert all("\n" not in child.state.text for child in children)


def test_a_sample_arrives_when_it_is_complete_even_if_the_call_is_cancelled_before_the_others_are(
    generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    root = Node("root", (), generator.root(Problem("q", questions[0])))
    arrived: list[int] = []

    async def cancelled_after(n: int) -> None:
        def keep(child: Child) -> None:
            arrived.append(child.length)
            if len(arrived) == n:
                whole.cancel()

        limits = range(1, 17)  # each row ends in its own iteration
        extensions = [
            Extension(root, i, f"{i:064x}", "done", WARM, most, arrived=keep) for i, most in enumerate(limits)
        ]
        whole = asyncio.ensure_future(generator.extend(extensions))
        await asyncio.gather(whole, return_exceptions=True)
        assert whole.cancelled()

    asyncio.run(cancelled_after(3))
    assert arrived == [1, 2, 3]


def test_children_do_not_depend_on_the_number_of_siblings(
    generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    def sampled(counts: Sequence[int]) -> list[tuple[int, ...]]:
        search = search_for(questions[3], generator)
        return [child.state.ids for n in counts for child in run(search.extend([search.root], n))]

    together = sampled([6])
    assert together == sampled([1, 2, 3])
    assert len(set(together)) > 1


def test_a_resumed_step_keeps_its_ids_and_continues_to_the_end(
    generator: LocalGenerator, language_model: LanguageModel, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[4], generator)
    (step,) = run(search.extend([search.root], until="step"))
    assert step.finish == "step" and step.state.text.endswith("\n") and step.state.text.count("\n") == 1
    ends = run(search.extend([step], 4))
    for end in ends:
        assert end.state.prompt == search.root.state.prompt
        assert end.state.ids[: len(step.state.ids)] == step.state.ids
        assert end.state.text.startswith(step.state.text)
        assert end.state.text == language_model.tokenizer.decode(end.state.ids)
        assert end.state.step_ends[0] == len(step.state.ids)
        assert end.path == (0, end.path[1])


@pytest.mark.parametrize("how", [{"until": "step"}, {"at_most": 1}, {"at_most": 7}, {"until": "step", "at_most": 7}])
def test_greedy_pieces_add_up_to_the_greedy_whole(
    how: dict[str, Any], generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[1], generator, GREEDY)
    (whole,) = run(search.extend([search.root]))
    node = search.root
    while node.finish in ("root", "step", "cut"):
        (node,) = run(search.extend([node], **how))
    assert node.finish == whole.finish == "eos"
    assert (node.state.ids, node.state.text, node.state.step_ends) == (
        whole.state.ids,
        whole.state.text,
        whole.state.step_ends,
    )
    assert node.state.logprob == pytest.approx(whole.state.logprob, abs=1e-9)
    assert node.passes == whole.passes == len(whole.state.ids)


def test_a_child_of_at_most_k_tokens_is_cut_and_can_be_continued(
    generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[2], generator)
    (five,) = run(search.extend([search.root], at_most=5))
    assert (five.finish, len(five.state.ids), five.state.step_ends) == ("cut", 5, (5,))
    (eight,) = run(search.extend([five], at_most=3))
    assert (eight.finish, len(eight.state.ids)) == ("cut", 8)
    assert eight.state.ids[:5] == five.state.ids


def test_step_ends_are_just_past_every_newline_and_at_the_end(
    generator: LocalGenerator, language_model: LanguageModel, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[8], generator)
    for node in run(search.extend([search.root], 4)):
        pieces = [
            language_model.tokenizer.decode(node.state.ids[start:end])
            for start, end in zip((0, *node.state.step_ends), node.state.step_ends, strict=False)
        ]
        assert pieces == node.state.text.splitlines(keepends=True)


def test_ids_of_a_prefix_are_never_decoded_and_encoded_again(
    generator: LocalGenerator, tasks: list[Row | Read], solver_directory: Path, questions: tuple[str, ...]
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(solver_directory / "tokenizer.json"))
    spelled = tuple(tokenizer.encode(letter).ids[0] for letter in "Ann")
    assert tuple(tokenizer.encode("Ann").ids) != spelled
    prompt = generator.root(Problem("", questions[0])).prompt
    extension = Extension(placed(Text(prompt, spelled, "Ann", (3,))), 0, "0" * 32, "done", WARM, 4, 4)
    (child,) = run(generator.extend([extension]))
    assert tasks[0].ids == prompt + spelled
    assert child.state.ids[:3] == spelled
    assert child.state.text.startswith("Ann")


def test_the_first_child_is_charged_for_the_new_tokens_of_its_prefix_and_the_rest_is_cached(
    generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[0], generator)
    prompt = len(search.root.state.prompt)
    first, second = run(search.extend([search.root], 2, until="step"))
    (third,) = run(search.extend([search.root], 1, until="step"))
    below, beside = run(search.extend([second], 2))
    charged = [(node.usage.prompt_tokens, node.usage.cached_tokens) for node in (first, second, third, below, beside)]
    there = prompt + len(second.state.ids)
    assert charged == [(prompt, 0), (0, prompt), (0, prompt), (1, there - 1), (0, there)]


def test_charged_prompt_tokens_equal_those_that_the_engine_computes(
    solver_directory: Path, tasks: list[Row | Read], questions: tuple[str, ...]
) -> None:
    generator = LocalGenerator(solver_directory, dtype="float64")
    search = search_for(questions[0], generator)
    steps = run(search.extend([search.root], 3, until="step"))
    ends = run(search.extend([node for node in steps if node.finish == "step"], 2))
    assert len(ends) == 6
    charged = total(node.usage for node in [*steps, *ends]).prompt_tokens or 0
    distinct = {node.state.ids for node in steps}  # equal steps are one node to the engine, and two to the search
    account = engine_of(generator).account
    assert charged - (len(steps) - len(distinct)) == account.prompt_computed
    assert account.recomputed == 0


TraceRows = list[tuple[tuple[int, ...], tuple[int, ...], str, dict[str, float | None]]]


def trace_rows(search: Search) -> TraceRows:
    """Every node of a trace: its path, ids, finish and usage, without seconds."""
    return [
        (node.path, node.state.ids, node.finish, replace(node.usage, seconds=0.0).as_dict())
        for node in (record.node for record in search.trace.values())
    ]


RACERS = 8


@pytest.fixture(scope="module")
def samples(generator: LocalGenerator, questions: tuple[str, ...]) -> MemoryJournal:
    """Whole samples of two questions, banked."""
    bank = MemoryJournal()
    for question in questions[2:4]:
        run(Majority(n=RACERS)(search_for(question, generator, journal=bank)))
    return bank


@pytest.fixture(scope="module")
def lone_vote(generator: LocalGenerator, questions: tuple[str, ...]) -> TraceRows:
    """A vote on a third question, with no other search beside it."""
    search = search_for(questions[5], generator)
    run(Majority(n=2)(search))
    return trace_rows(search)


def test_races_from_banked_samples_differ(
    generator: LocalGenerator, samples: MemoryJournal, questions: tuple[str, ...], tasks: list[Row | Read]
) -> None:
    """The next test needs this: races have a winner, and it is not always the first or the last sample."""
    search = search_for(questions[2], generator, journal=samples)
    answer = run(FirstFinish(n=RACERS)(search))
    assert answer.node is not None and 0 < answer.node.path[0] < RACERS - 1
    assert [record.node.finish for record in search.trace.values()].count("pruned") > RACERS // 2
    assert tasks == []


@pytest.mark.parametrize(
    ("options", "k"),
    [
        *(({}, k) for k in (1, 3)),
        ({"max_rows": 1}, 3),
        ({"max_rows": 3}, 1),
        *(({"max_tokens": 5}, k) for k in (1, 3)),
        ({"chunked": False}, 3),
        *(({"blocks": 24}, k) for k in (1, 3)),
    ],
    ids=str,
)
def test_a_race_equals_its_replay_from_whole_samples_token_for_token_in_any_schedule(
    options: dict[str, Any],
    k: int,
    generator: LocalGenerator,
    samples: MemoryJournal,
    lone_vote: TraceRows,
    solver_directory: Path,
    questions: tuple[str, ...],
) -> None:
    """Few rows at once, prompts in chunks, preempted rows, and other searches in the same batch."""
    options = dict(options)
    if blocks := options.pop("blocks", 0):
        options["kv_bytes"] = blocks * BLOCK_SIZE * generator.model.shape.kv_bytes_per_token
    crowded = LocalGenerator(solver_directory, dtype="float64")
    crowded._worker = Worker(engine := crowded.model.engine(**options))
    races = [search_for(question, crowded) for question in questions[2:4]]
    vote = search_for(questions[5], crowded)

    async def all_at_once() -> list[Answer]:
        found = (FirstFinish(n=RACERS, k=k)(race) for race in races)
        return list(await asyncio.gather(*found, Majority(n=2)(vote)))[:2]

    for live, race, question in zip(run(all_at_once()), races, questions[2:4], strict=True):
        search = search_for(question, generator, journal=samples)
        replayed = run(FirstFinish(n=RACERS, k=k)(search))
        assert trace_rows(race) == trace_rows(search)
        assert (live.value, live.finish, live.share) == (replayed.value, replayed.finish, replayed.share)
        assert live.finish == "done"
    assert trace_rows(vote) == lone_vote
    assert isinstance(engine, Engine) and bool(blocks) == (engine.preemptions > 0)


def test_a_race_keeps_its_token_budget_and_can_be_replayed_from_its_bank(
    generator: LocalGenerator, questions: tuple[str, ...], tasks: list[Row | Read]
) -> None:
    for tokens in (230, 420, 700):
        bank = MemoryJournal()
        search = search_for(questions[2], generator, budget=Budget(tokens=tokens), journal=bank)
        answer = run(FirstFinish(n=RACERS, k=2)(search))
        assert 0 < answer.usage.generated_tokens <= tokens
        asked = len(tasks)
        again = search_for(questions[2], generator, budget=Budget(tokens=tokens), journal=bank)
        run(FirstFinish(n=RACERS, k=2)(again))
        assert trace_rows(again) == trace_rows(search) and len(tasks) == asked


def test_a_race_among_children_of_several_nodes_passes_each_whole_state_to_counts(
    generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[2], generator)
    steps = run(search.extend([search.root], 4, until="step"))
    seen: list[Text] = []

    def counts(state: Text) -> bool:
        seen.append(state)
        return True

    ends = run(search.extend(steps, race=Race(3, counts)))
    assert len({step.state.ids for step in steps}) > 1
    assert {(state.ids, state.text) for state in seen} == {(end.state.ids, end.state.text) for end in ends if end.done}


def test_generated_tokens_are_the_new_ids_of_each_node(generator: LocalGenerator, questions: tuple[str, ...]) -> None:
    search = search_for(questions[6], generator)
    steps = run(search.extend([search.root], 3, until="step"))
    ends = run(search.extend([node for node in steps if node.finish == "step"], 2))
    for node in [*steps, *ends]:
        before = len(node.parent.state.ids) if node.parent else 0
        assert node.usage.generated_tokens == len(node.state.ids) - before > 0
        assert (node.usage.model_calls, node.usage.scorer_tokens, node.usage.dollars) == (1, 0, 0.0)
        assert node.usage.seconds > 0
    assert search.ledger.spent.generated_tokens == sum(node.usage.generated_tokens for node in [*steps, *ends])


def test_flops_and_kv_bytes_equal_a_count_by_hand(
    generator: LocalGenerator, solver_directory: Path, questions: tuple[str, ...]
) -> None:
    config: dict[str, int] = json.loads((solver_directory / "config.json").read_text())
    h, f, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    layer = 2 * h * heads * dim + 2 * h * kv_heads * dim + 3 * h * f + 2 * h
    assert config["tie_word_embeddings"]  # so the embedding is also the output matrix
    parameters = config["vocab_size"] * h + layers * layer + h

    def read(indices: range) -> int:
        """FLOPs of a token at each position: every parameter once, and attention to all positions up to its own."""
        return sum(2 * parameters + 4 * layers * heads * dim * (index + 1) for index in indices)

    search = search_for(questions[0], generator)
    prompt = len(search.root.state.prompt)
    first, second = run(search.extend([search.root], 2))
    (step,) = run(search.extend([search.root], 1, at_most=5))
    (below,) = run(search.extend([step]))
    end = prompt + len(first.state.ids)
    assert first.usage.flops == pytest.approx(read(range(end)), rel=1e-12)
    assert second.usage.flops == pytest.approx(read(range(prompt, prompt + len(second.state.ids))), rel=1e-12)
    start = prompt + len(step.state.ids)  # its last token is processed now, then the drawn ones
    assert below.usage.flops == pytest.approx(read(range(start - 1, start + below.usage.generated_tokens)), rel=1e-12)
    one_token = 2 * layers * kv_heads * dim * 8  # keys and values in float64
    assert first.usage.kv_bytes == one_token * sum(range(prompt, end))


def test_no_child_costs_more_than_its_worst_case(generator: LocalGenerator, questions: tuple[str, ...]) -> None:
    search = search_for(questions[5], generator, Sampling(0.8, max_length=30))
    worst = generator.worst_case(search.root, 30).as_dict()
    for child in run(search.extend([search.root], 8)):
        for name, value in child.usage.as_dict().items():
            limit = worst[name]
            assert name in ("seconds", "cached_tokens") or (value is not None and limit is not None and value <= limit)


@pytest.mark.parametrize("strategy", ["majority", "best_of_n", "beam_search"])
@pytest.mark.parametrize("tokens", [1, 45, 150, 333])
def test_a_token_budget_is_never_exceeded_and_every_token_is_counted(
    strategy: str, tokens: int, generator: LocalGenerator, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[2], generator, Sampling(0.8, max_length=60), reward, Budget(tokens=tokens))
    answer = run(make(strategy, {"n": 16})(search))
    sampled = [record.node for record in search.trace.values() if record.node.depth]
    assert answer.usage.generated_tokens == sum(node.usage.generated_tokens for node in sampled) <= tokens
    assert search.exhausted
    assert answer.finish == ("budget" if answer.node else "incomplete")
    assert (answer.usage.generated_tokens > 0) == (tokens >= 60)  # the worst case of one sample


@pytest.mark.parametrize("strategy", ["best_of_n", "beam_search"])
@pytest.mark.parametrize("share", [0.3, 1.5, 4.0])
def test_a_flops_budget_bounds_generator_and_scorer_together(
    strategy: str, share: float, generator: LocalGenerator, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    free = search_for(questions[2], generator, Sampling(0.8, max_length=60), reward)
    one_sample = generator.worst_case(free.root, 60).flops
    assert one_sample is not None
    limited = search_for(
        questions[2], generator, Sampling(0.8, max_length=60), reward, Budget(flops=share * one_sample)
    )
    usage = run(make(strategy, {"n": 16})(limited)).usage
    assert usage.flops is not None and usage.scorer_flops is not None
    assert usage.flops + usage.scorer_flops <= share * one_sample
    assert (usage.model_calls > 0) == (share >= 1)
    assert limited.exhausted


def test_a_budget_of_seconds_ends_the_search_with_the_nodes_it_has(
    generator: LocalGenerator, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[2], generator, budget=Budget(seconds=1e-4))
    children = run(search.extend([search.root], 4))
    more = run(search.extend([search.root], 4))
    assert search.exhausted and more == []
    assert {child.finish for child in children} <= {"budget"}


def test_a_generation_that_fills_the_context_ends_there_as_at_its_length(short_context: LocalGenerator) -> None:
    search = search_for("Ann has 5 books.", short_context, Sampling(1.0, max_length=1000))
    room = 64 - len(search.root.state.prompt)
    (full,) = run(search.extend([search.root]))
    assert len(full.state.ids) == room
    assert full.finish == "length"
    assert run(search.extend([full])) == []


def test_a_node_at_the_end_of_the_context_cannot_be_continued(short_context: LocalGenerator) -> None:
    search = search_for("Ann has 5 books.", short_context, Sampling(1.0, max_length=1000))
    room = 64 - len(search.root.state.prompt)
    (piece,) = run(search.extend([search.root], at_most=room - 3))
    assert piece.finish == "cut"
    (full,) = run(search.extend([piece], at_most=10))
    assert len(full.state.ids) == room
    assert run(search.extend([full], at_most=10)) == []


def test_the_worst_case_of_a_generation_ends_where_the_context_ends(short_context: LocalGenerator) -> None:
    search = search_for("Ann has 5 books.", short_context)
    assert short_context.worst_case(search.root, 1000) == short_context.worst_case(
        search.root, 64 - len(search.root.state.prompt)
    )


def test_a_question_longer_than_the_context_is_refused_by_its_length(short_context: LocalGenerator) -> None:
    with pytest.raises(InputError, match=r"prompt=.*tokens.*64"):
        search_for("Ann has 5 books. " * 20, short_context)


@pytest.mark.parametrize(
    ("question", "unknown"),
    [("Ann has 5 zebras.", "zebras"), ("Bob has 5 zebras, Bob.", "Bob, zebras"), ("Ann has 5 ǆungla.", "ǆungla")],
)
def test_words_outside_the_closed_vocabulary_are_refused_by_name(
    question: str, unknown: str, generator: LocalGenerator
) -> None:
    with pytest.raises(InputError) as caught:
        generator.root(Problem("", question))
    assert (caught.value.field, caught.value.value) == ("prompt", unknown)


def test_pack_and_unpack_return_the_same_state(generator: LocalGenerator, questions: tuple[str, ...]) -> None:
    search = search_for(questions[0], generator)
    (step,) = run(search.extend([search.root], until="step"))
    (end,) = run(search.extend([step]))
    packed = json.loads(json.dumps(generator.pack(step.state, end.state)))
    assert packed["ids"] == list(end.state.ids[len(step.state.ids) :])
    assert generator.unpack(step.state, packed) == end.state


@pytest.mark.parametrize("missing", [0, 2, -2])
def test_a_state_of_an_export_gets_the_ids_of_its_text_and_as_many_as_were_drawn(
    generator: LocalGenerator, missing: int
) -> None:
    text, tokenizer = "Step 1: 3 + 4 = 7.\nAnswer: 7.", generator.model.tokenizer
    ids = tokenizer.encode(text)
    exported = {"text": text, "tokens": len(ids) + missing, "step_ends": [19, 29], "logprob": None, "logprobs": [1]}
    state = generator.unpack(Text((1, 2)), exported)
    assert state.text == text and state.prompt == (1, 2) and generator.length(state) == len(ids) + missing
    assert state.ids[: len(ids)] == tuple(ids[: len(state.ids)])
    assert set(state.ids[len(ids) :]) <= set(tokenizer.end_ids)
    assert state.step_ends[-1] == len(state.ids) and tokenizer.decode(state.ids[: state.step_ends[0]]).endswith("\n")
    assert math.isnan(state.logprob) and state.logprobs == (-0.001,)


def test_the_name_of_a_generator_changes_with_its_weights_and_its_number_format(
    generator: LocalGenerator, short_context: LocalGenerator, solver_directory: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "solver"
    shutil.copytree(solver_directory, copy)
    assert LocalGenerator(copy, dtype="float64").name == generator.name
    assert LocalGenerator(copy, dtype="float32").name != generator.name
    model = Llama.load(copy)
    with torch.no_grad():
        model.model.norm.weight[0] += 0.5
    model.save(copy, torch.float16)
    assert LocalGenerator(copy, dtype="float64").name != generator.name


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("tokenizer.json", "chat_template.jinja", "adapter_config.json", "adapter_model.bin", "pytorch_model.bin"),
    ],
)
def test_the_fingerprint_changes_with_every_file_that_decides_a_sample(
    solver_directory: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "solver"
    shutil.copytree(solver_directory, copy)
    before = fingerprint(copy, "engine 1"), weights_digest(copy)
    (copy / "README.md").write_text("words for people")
    assert (fingerprint(copy, "engine 1"), weights_digest(copy)) == before
    with (copy / name).open("a") as file:
        file.write(" ")
    after = fingerprint(copy, "engine 1"), weights_digest(copy)
    assert after[0] != before[0] and after[1] == before[1]
    assert fingerprint(copy, "engine 2") != after[0]


def test_two_folders_of_one_name_with_other_bin_weights_have_two_names(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"one")
    before = weights_digest(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"two")
    assert weights_digest(tmp_path) != before


def test_a_name_has_the_step_if_it_is_another_one(solver_directory: Path, generator: LocalGenerator) -> None:
    assert LocalGenerator(solver_directory, dtype="float64", step=".").name == f"{generator.name} step='.'"


Solution = tuple[Problem, Node]


@pytest.fixture(scope="module")
def solutions(generator: LocalGenerator, questions: tuple[str, ...]) -> list[Solution]:
    """Complete and unfinished solutions, some cut in the middle of a step, each with its problem."""

    async def sampled() -> list[Solution]:
        found: list[Solution] = []
        hows: list[dict[str, Any]] = [{}, {"until": "step"}, {"at_most": 7}, {"at_most": 25}, {}]
        for question, how in zip(questions, hows * 2, strict=True):
            search = search_for(question, generator)
            found += [(search.problem, node) for node in await search.extend([search.root], 2, **how)]
        return found

    return run(sampled())


def scored(reward: ProcessReward, solutions: Sequence[Solution]) -> list[Score]:
    """The scores of solutions of several problems, computed in one batch."""

    async def together() -> list[Score]:
        calls = (reward.score(problem, [node], [None]) for problem, node in solutions)
        return [score for scores in await asyncio.gather(*calls) for score in scores]

    return run(together())


def scores(
    directory: Path, solutions: Sequence[Solution], aggregate: str = "last"
) -> list[tuple[float | None, tuple[float, ...]]]:
    scorer = ProcessReward(directory, aggregate=aggregate, dtype="float64")
    return [(score.value, score.steps) for score in scored(scorer, solutions)]


def test_step_rewards_are_read_at_the_last_token_of_each_step_and_of_an_unfinished_one(
    reward: ProcessReward, reward_model: RewardModel, language_model: LanguageModel, solutions: list[Solution]
) -> None:
    newline = language_model.tokenizer.ids_containing("\n")
    kinds = set()
    for (_, node), score in zip(solutions, scored(reward, solutions), strict=True):
        ids = node.state.ids
        indices = [index for index, token in enumerate(ids) if token in newline or index == len(ids) - 1]
        with torch.inference_mode():
            read = reward_model.model.head(reward_model.model.model(torch.tensor(node.state.prompt + ids)))
        right = read.softmax(-1)[:, 1]
        expected = [float(right[len(node.state.prompt) + index]) for index in indices]
        assert score.steps == pytest.approx(expected, abs=1e-9)
        assert all(0 < step < 1 for step in score.steps)
        kinds.add((node.finish, ids[-1] in newline))
    assert kinds >= {("eos", False), ("step", True), ("cut", False)}


@pytest.mark.parametrize("aggregate", sorted(AGGREGATES))
def test_the_score_is_the_aggregate_of_the_step_rewards(
    aggregate: str, reward_directory: Path, solutions: list[Solution]
) -> None:
    by_hand: dict[str, Any] = {
        "last": lambda steps: steps[-1],
        "min": lambda steps: sorted(steps)[0],
        "mean": lambda steps: sum(steps) / len(steps),
        "product": lambda steps: torch.tensor(steps, dtype=torch.float64).prod().item(),
    }
    read = scores(reward_directory, solutions, aggregate)
    assert any(len(steps) > 2 for _, steps in read)
    for value, steps in read:
        assert value == pytest.approx(by_hand[aggregate](steps), abs=1e-12)


def test_an_unknown_aggregate_is_refused_with_the_nearest_name(reward_directory: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"aggregate='men'.*did you mean 'mean'"):
        ProcessReward(reward_directory, aggregate="men")


def test_a_score_does_not_depend_on_the_rest_of_the_batch(reward_directory: Path, solutions: list[Solution]) -> None:
    together = scores(reward_directory, solutions)
    alone = [score for solution in solutions[::4] for score in scores(reward_directory, [solution])]
    backwards = scores(reward_directory, solutions[::-1])[::-1]
    for (_, a), (_, b) in [*zip(together[::4], alone, strict=True), *zip(together, backwards, strict=True)]:
        assert a == pytest.approx(b, abs=1e-9)


def test_the_rewards_of_finished_steps_do_not_change_when_the_solution_continues(
    generator: LocalGenerator, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[3], generator, reward=reward)
    (step,) = run(search.extend([search.root], until="step"))
    (end,) = run(search.extend([step]))
    before, after = run(reward.score(search.problem, [step, end], [None, step]))
    assert len(after.steps) > len(before.steps) == 1
    assert after.steps[0] == pytest.approx(before.steps[0], abs=1e-9)


def test_a_node_without_a_generated_token_has_no_score(
    generator: LocalGenerator, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    search = search_for(questions[0], generator)
    (score,) = run(reward.score(search.problem, [search.root], [None]))
    assert (score.value, score.steps) == (None, ())


def test_a_node_with_unknown_tokens_or_too_many_tokens_has_no_score_and_others_are_unaffected(
    reward: ProcessReward, reward_directory: Path, solutions: list[Solution]
) -> None:
    config = json.loads((reward_directory / "config.json").read_text())
    (problem, node), (_, other) = solutions[:2]
    ids = node.state.ids
    unknown, endless = (*ids[:-1], config["vocab_size"]), ids * config["max_position_embeddings"]
    bad = [replace(node, state=replace(node.state, ids=ids)) for ids in (unknown, endless)]
    (*nothing, some) = run(reward.score(problem, [*bad, other], [None] * 3))
    (alone,) = run(reward.score(problem, [other], [None]))
    assert [(score.value, score.usage.scorer_tokens) for score in nothing] == [(None, 0), (None, 0)]
    assert some.value == pytest.approx(alone.value, abs=1e-9)


def test_a_score_is_charged_to_the_scorer_alone_and_never_above_its_worst_case(
    reward: ProcessReward, reward_directory: Path, solutions: list[Solution]
) -> None:
    config = json.loads((reward_directory / "config.json").read_text())
    h, f, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    layer = 2 * h * heads * dim + 2 * h * kv_heads * dim + 3 * h * f + 2 * h
    parameters = layers * layer + h + 2 * h + 2  # the input embedding is only a table
    for (problem, node), score in zip(solutions, scored(reward, solutions), strict=True):
        tokens = len(node.state.prompt) + len(node.state.ids)
        attention = sum(4 * layers * heads * dim * (index + 1) for index in range(tokens))
        usage = score.usage
        assert usage.scorer_flops == pytest.approx(2 * parameters * tokens + attention, rel=1e-12)
        assert (usage.scorer_tokens, usage.scorer_calls) == (tokens, 1)
        assert (usage.generated_tokens, usage.prompt_tokens, usage.model_calls, usage.flops) == (0, 0, 0, 0.0)
        assert usage.scorer_flops == reward.worst_case(problem, node, None).scorer_flops
    assert total(score.usage for score in scored(reward, solutions[:2])).scorer_calls == 2


def test_scoring_every_step_costs_as_much_as_scoring_the_last_one(
    generator: LocalGenerator, reward_directory: Path, questions: tuple[str, ...]
) -> None:
    reward = ProcessReward(reward_directory, dtype="float64")
    search = search_for(questions[3], generator, GREEDY, reward)

    async def walk() -> Node:
        node = search.root
        while not node.done:
            (node,) = await search.extend([node], until="step")
            await search.score([node])
        return node

    end = run(walk())
    whole, spent, engine = (
        reward.worst_case(search.problem, end, None),
        search.ledger.spent,
        reward._worker.engine.account,
    )
    assert spent.scorer_calls == end.depth > 2
    assert spent.scorer_tokens == whole.scorer_tokens == engine.tokens
    assert spent.scorer_flops == whole.scorer_flops == engine.flops()


def test_a_search_is_charged_no_less_than_the_reward_model_computes(
    generator: LocalGenerator, reward_directory: Path, questions: tuple[str, ...]
) -> None:
    """It computes less if siblings begin with the same tokens, because its store matches single tokens."""
    for strategy in ("beam_search", "best_of_n"):
        reward = ProcessReward(reward_directory, dtype="float64")
        search = search_for(questions[3], generator, WARM, reward)
        usage, account = run(make(strategy, {"n": 8})(search)).usage, reward._worker.engine.account
        assert usage.scorer_tokens == len(search.root.state.prompt) + usage.generated_tokens
        assert account.tokens <= usage.scorer_tokens
        assert usage.scorer_flops is not None and account.flops() <= usage.scorer_flops


def test_the_reward_does_not_depend_on_the_known_node_and_the_cost_is_the_worst_case(
    reward: ProcessReward, solutions: list[Solution]
) -> None:
    for problem, node in solutions[::3]:
        alone, after, again = run(reward.score(problem, [node] * 3, [None, node.parent, node]))
        assert (alone.value, alone.steps) == (after.value, after.steps) == (again.value, again.steps)
        assert [score.usage.scorer_tokens for score in (after, again)] == [len(node.state.ids), 0]
        for known, score in ((None, alone), (node.parent, after), (node, again)):
            assert replace(score.usage, seconds=0.0) == reward.worst_case(problem, node, known)


def test_a_longer_text_with_another_encoding_is_charged_from_the_first_changed_token(
    reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    """The first of the three tokens of "Then B" is also the first of the three of "Then Ben buys"."""
    problem, root = Problem("q", questions[0]), Node("r", (), RemoteText(questions[0]))
    cut = Node("c", (0,), RemoteText(questions[0], "Then B", 3, (6,)), root)
    step = Node("s", (0, 0), RemoteText(questions[0], "Then Ben buys", 3, (13,)), cut)
    assert reward.worst_case(problem, cut, root).scorer_tokens == 3
    assert reward.worst_case(problem, step, root).scorer_tokens == 3
    assert reward.worst_case(problem, step, cut).scorer_tokens == 2


def test_a_replay_without_the_models_is_charged_as_the_live_search(
    generator: LocalGenerator, reward: ProcessReward, questions: tuple[str, ...]
) -> None:
    bank = MemoryJournal()
    live = run(make("beam_search", {"n": 8})(search_for(questions[3], generator, reward=reward, journal=bank)))
    banked = BankedGenerator(generator.name)
    search = Search(
        Problem(questions[3], questions[3]),
        banked,
        scorers=BankedScorer(reward.name),
        answers=TextAnswers(read_answer),
        sampling=WARM,
        journal=bank,
    )
    replayed = run(make("beam_search", {"n": 8})(search)).usage
    # live scores end in any order, and the last bit of a sum of seconds depends on the order
    assert replayed.seconds == pytest.approx(live.usage.seconds)
    assert replace(replayed, seconds=0.0) == replace(live.usage, seconds=0.0)


def test_a_template_is_rendered_around_chat_messages(solver_directory: Path, questions: tuple[str, ...]) -> None:
    generator = LocalGenerator(solver_directory)
    messages = [{"role": "user", "content": questions[0]}]
    assert generator.root(Problem("", messages)) == generator.root(Problem("", questions[0]))
    assert generator.root(Problem("", questions[0])).prompt == tuple(
        ChatTokenizer(solver_directory).encode_chat(questions[0])
    )


def test_a_sample_with_confidences_is_the_same_sample(short_context: LocalGenerator) -> None:
    """Drawn in two parts, it has the confidences of both."""
    sampling = Sampling(temperature=0.8, max_length=12)
    plain, whole, parts = (search_for("Ann has 5 books.", short_context, sampling) for _ in range(3))

    async def drawn() -> list[Text]:
        (first,) = await plain.extend([plain.root])
        (second,) = await whole.extend([whole.root], confidences=True)
        (half,) = await parts.extend([parts.root], at_most=5, confidences=True)
        (third,) = await parts.extend([half], confidences=True)
        assert third.state.confidences[:5] == half.state.confidences
        return [first.state, second.state, third.state]

    first, second, third = run(drawn())
    assert first == second and first.logprob == second.logprob and first.confidences == ()
    assert len(second.confidences) == len(third.confidences) == 12
    assert all(confidence > 0 for confidence in (*second.confidences, *third.confidences))
    node = Node("", (), Text(second.prompt), None, "root")
    extension = Extension(node, 0, "0" * 16, "done", sampling, 12, confidences=True)
    child = Child(second, "length", short_context.worst_case(node, 12), 12, length=12)
    assert short_context.cut(extension, child, 4).state.confidences == second.confidences[:4]
