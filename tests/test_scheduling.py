"""A row gives the same tokens with any schedule: chunks, sharing, pauses, preemption and recomputation."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONTEXT, EOS, in_full, tiny_engine, tiny_model, words
from torch import Tensor

from thinktime.core.clock import Deadline
from thinktime.core.errors import InputError, ModelError
from thinktime.models.engine.blocks import Prefix
from thinktime.models.engine.engine import BLOCK_SIZE, Engine
from thinktime.models.engine.llama import Attend, Llama, Tap
from thinktime.models.engine.models import LanguageModel, RewardModel, load_language_model
from thinktime.models.engine.rows import Job, Output, Read, Row, RowRace
from thinktime.models.engine.states import Segments


def tokens(outputs: Sequence[Output]) -> list[tuple[int, ...]]:
    return [output.ids for output in outputs]


def expected(rows: Sequence[Row], eos: int = EOS) -> list[tuple[int, ...]]:
    return [in_full(row, eos=eos)[0] for row in rows]


def finished(engine: Engine, jobs: Sequence[Job]) -> list[Output]:
    while engine.busy:
        engine.step()
    return [job.output for job in jobs if job.output is not None]


def mixed(n: int, seed: int = 0, max_tokens: int = 12) -> list[Row]:
    """Prompts of all lengths, some of them prefixes of others, some of them equal; every kind of sampling."""
    random = Random(seed)
    rows = []
    for key in range(n):
        ids = words(random.choice((1, 2, 15, 16, 17, 33, 60, 90)), seed=random.randrange(3))
        row = Row(ids, key, random.randint(1, max_tokens), temperature=random.choice((0.0, 0.8, 1.3)))
        rows.append(replace(row, top_p=random.choice((1.0, 0.9)), top_k=random.choice((0, 5))))
    return rows


@pytest.fixture(scope="module")
def solver_rows(language_model: LanguageModel, questions: tuple[str, ...]) -> list[Row]:
    prompts = [tuple(language_model.tokenizer.encode_chat(question)) for question in questions[:5]]
    return [Row(ids, 100 + key, max_tokens=16, temperature=1.2) for key in range(2) for ids in prompts]


@pytest.fixture(scope="module")
def whole(language_model: LanguageModel, solver_rows: list[Row]) -> list[Output]:
    """The outputs if every prompt is processed whole before any row continues."""
    return language_model.engine(chunked=False).run(solver_rows)


def chunk_sizes(rows: Sequence[Row]) -> list[int]:
    return [1, 7, 32, 128, len(rows[0].ids)]


@pytest.mark.parametrize("size", range(5))
def test_prompts_in_chunks_give_the_same_tokens_as_whole_prompts(
    size: int, language_model: LanguageModel, solver_rows: list[Row], whole: list[Output]
) -> None:
    outputs = language_model.engine(max_tokens=chunk_sizes(solver_rows)[size]).run(solver_rows)
    assert tokens(outputs) == tokens(whole)
    for mine, theirs in zip(outputs, whole, strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-10)
        assert (mine.finish, mine.computed, mine.reused) == (theirs.finish, theirs.computed, theirs.reused)


@pytest.mark.parametrize("size", range(5))
def test_in_float32_the_logprobs_with_chunks_are_close_to_those_of_a_full_prefill(
    size: int, solver_directory: Any, solver_rows: list[Row]
) -> None:
    model = load_language_model(solver_directory, "float32")
    assert isinstance(model.model, Llama)
    outputs = model.engine(max_tokens=chunk_sizes(solver_rows)[size]).run(solver_rows[:5])
    for row, output in zip(solver_rows, outputs, strict=False):
        ids = torch.tensor(row.ids + output.ids)
        with torch.inference_mode():
            logprobs = model.model.head(model.model.model(ids)).double().log_softmax(-1)
        full = logprobs[len(row.ids) - 1 : -1].gather(1, ids[len(row.ids) :, None])[:, 0].tolist()
        assert output.logprobs == pytest.approx(full, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"max_tokens": 1}, {"max_tokens": 7}, {"max_rows": 3}, {"chunked": False}])
def test_a_mixed_batch_gives_the_tokens_of_a_full_forward_pass_per_token(
    options: dict[str, Any],
) -> None:
    rows = mixed(40)
    outputs = tiny_engine(**options).run(rows)
    assert tokens(outputs) == expected(rows)
    for row, output in zip(rows, outputs, strict=True):
        assert output.logprobs == pytest.approx(in_full(row)[1], abs=1e-10)
        assert output.finish == ("eos" if output.ids[-1] == EOS else "length")


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1, 2, 16, 17, 40])), min_size=1, max_size=8),
    st.sampled_from([1, 3, 16, 50]),
    st.booleans(),
)
def test_random_rows_in_chunks_of_random_size_give_the_tokens_of_each_row_alone(
    asked: list[tuple[int, int]], max_tokens: int, chunked: bool
) -> None:
    rows = [Row(words(length), key, max_tokens=5) for key, length in asked]
    assert tokens(tiny_engine(max_tokens=max_tokens, chunked=chunked).run(rows)) == expected(rows)


@pytest.mark.parametrize("blocks", [9, 12, 20])
@pytest.mark.parametrize("chunked", [True, False])
def test_preempted_rows_are_recomputed_and_give_the_same_tokens(blocks: int, chunked: bool) -> None:
    rows = [Row(words(10 + 9 * (key % 4), key % 3), key, max_tokens=60) for key in range(12)]
    engine = tiny_engine(blocks=blocks, chunked=chunked, end_ids=frozenset())
    outputs = engine.run(rows)
    assert tokens(outputs) == expected(rows, eos=-1)
    account = engine.account
    assert engine.preemptions > 0 and account.recomputed + account.prompt_reused > 0
    assert account.tokens == account.prompt_computed + account.generated + account.recomputed
    assert account.prompt_computed == sum(output.computed for output in outputs)
    assert account.generated == sum(len(output.ids) - 1 for output in outputs)
    assert [output.computed + output.reused for output in outputs] == [len(row.ids) for row in rows]
    assert account.kv_tokens_held_peak <= blocks * BLOCK_SIZE
    assert engine._pool.held == 0


def test_two_samples_of_one_prompt_finish_in_a_store_that_holds_only_one_of_them() -> None:
    rows = [Row(words(20), key, max_tokens=12) for key in (1, 2)]
    engine = tiny_engine(blocks=2)
    assert tokens(engine.run(rows)) == expected(rows)
    assert (engine.account.kv_tokens_held_peak, engine._pool.held) == (32, 0)


def test_a_paused_row_does_not_grow_and_then_continues_with_the_same_tokens() -> None:
    row, other = Row(words(20), 1, max_tokens=30), Row(words(25, 1), 2, max_tokens=30)
    engine = tiny_engine()
    job, beside = engine.submit(row), engine.submit(other)
    for _ in range(5):
        engine.step()
    engine.pause(job)
    engine.pause(job)
    held = list(job.ids)
    for _ in range(5):
        engine.step()
    assert job.ids == held and len(beside.ids) > len(other.ids) + 5
    engine.resume(job)
    engine.resume(job)
    assert tokens(finished(engine, [job, beside])) == expected([row, other])


def test_a_row_paused_before_its_prompt_is_processed_waits_and_the_engine_is_idle() -> None:
    rows = [Row(words(1), 1, max_tokens=4), Row(words(30), 2, max_tokens=4)]
    engine = tiny_engine(max_tokens=10)
    jobs = [engine.submit(row) for row in rows]
    for job in jobs:
        engine.pause(job)
    assert not engine.busy and engine.step() == []
    for job in jobs:
        engine.resume(job)
    engine.step()  # a chunk of the longer prompt
    engine.pause(jobs[1])
    engine.resume(jobs[1])
    assert tokens(finished(engine, jobs)) == expected(rows)
    assert engine.account.prompt_computed == 30  # one prompt is a prefix of the other


def test_a_paused_read_gives_the_same_values() -> None:
    ids = words(40)
    (plain,) = tiny_engine().run([Read(ids, 5)])
    engine = tiny_engine(max_tokens=10)
    engine.run([Row(ids, 1, max_tokens=1)])  # all ids are stored, and must be processed again for their probabilities
    job = engine.submit(Read(ids, 5))
    engine.step()
    engine.pause(job)
    engine.resume(job)
    (output,) = finished(engine, [job])
    assert plain.values is not None and output.values is not None
    torch.testing.assert_close(output.values, plain.values, atol=1e-10, rtol=0)


def test_paused_rows_lose_their_blocks_before_running_ones() -> None:
    rows = [Row(words(40, key), key, max_tokens=40) for key in (1, 2)]
    engine = tiny_engine(blocks=6, end_ids=frozenset())
    paused = engine.submit(rows[0])
    for _ in range(3):
        engine.step()
    engine.pause(paused)
    running = engine.submit(rows[1])
    while not running.done:
        engine.step()
    assert (engine.preemptions, paused.prefix) == (1, Prefix())
    engine.resume(paused)
    assert tokens(finished(engine, [paused, running])) == expected(rows, eos=-1)


def test_resumed_rows_do_not_exceed_max_rows() -> None:
    engine = tiny_engine(max_rows=2, end_ids=frozenset())
    jobs = [engine.submit(Row(words(5, key), key, max_tokens=20)) for key in range(4)]
    engine.step()
    for job in jobs[:2]:
        engine.pause(job)
    engine.step()
    for job in jobs[:2]:
        engine.resume(job)
    while engine.busy:
        before = engine.account.generated
        engine.step()
        assert engine.account.generated - before <= 2
    assert all(job.output and len(job.output.ids) == 20 for job in jobs)


def test_rows_that_join_a_running_prefill_do_not_exceed_max_rows() -> None:
    engine = tiny_engine(max_rows=3, max_tokens=4, end_ids=frozenset())
    jobs = [engine.submit(Row(words(12), 0, max_tokens=9))]
    engine.step()
    jobs += [engine.submit(Row(words(12), key, max_tokens=9)) for key in range(1, 6)]
    while engine.busy:
        before = engine.account.generated
        engine.step()
        assert engine.account.generated - before <= 3
    assert all(job.output and len(job.output.ids) == 9 for job in jobs)


def test_a_fork_with_the_same_key_draws_the_same_tokens_and_one_with_another_key_others() -> None:
    row = Row(words(20), 1, max_tokens=20, temperature=1.5)
    engine = tiny_engine(end_ids=frozenset())
    job = engine.submit(row)
    for _ in range(6):
        engine.step()
    read = engine.account.prompt_computed
    index = len(job.ids)
    same, other = engine.fork(job, key=1), engine.fork(job, key=2)
    finished(engine, [job, same, other])
    assert same.ids[: len(job.ids)] == job.ids
    assert other.ids[:index] == job.ids[:index] and other.ids[: len(job.ids)] != job.ids
    assert engine.account.prompt_computed == read + 1  # for both of them


def test_a_fork_of_a_running_row_runs_from_the_next_iteration_on() -> None:
    engine = tiny_engine(end_ids=frozenset())
    job = engine.submit(Row(words(20), 1, max_tokens=30))
    for _ in range(3):
        engine.step()
    fork = engine.fork(job, key=2)
    engine.step()
    assert len(fork.ids) == len(job.ids)


@pytest.mark.parametrize("length", [14, 15, 16, 17])
def test_a_fork_begins_after_the_ids_that_it_is_given(length: int) -> None:
    """This holds also if the forked row fills a block in the next iteration."""
    row = Row(words(length), 5, max_tokens=20, temperature=1.4)
    engine = tiny_engine()
    job = engine.submit(row)
    engine.step()
    fork = engine.fork(job, key=6, then=(7,))
    alone = Row((*job.ids, 7), 6, max_tokens=20, temperature=1.4)
    assert tokens(finished(engine, [job, fork])) == expected([row, alone])


def test_equal_rows_are_processed_once_until_they_diverge() -> None:
    row = Row(words(20), key=1, max_tokens=30, temperature=0.0)
    engine = tiny_engine()
    outputs = engine.run([replace(row, key=key) for key in range(6)])
    assert tokens(outputs) == expected([row]) * 6
    assert engine.account.generated == len(outputs[0].ids) - 1  # the last token is drawn and not processed

    warm = [replace(row, key=key, temperature=0.5) for key in range(6)]
    engine = tiny_engine()
    outputs = engine.run(warm)
    assert tokens(outputs) == expected(warm)
    prefixes = {output.ids[:index] for output in outputs for index in range(1, len(output.ids))}
    assert engine.account.generated == len(prefixes) < sum(len(output.ids) - 1 for output in outputs)


def test_a_cancelled_row_keeps_its_tokens_and_frees_its_blocks_at_once() -> None:
    engine = tiny_engine(end_ids=frozenset())
    job, other = engine.submit(Row(words(40), 1, max_tokens=50)), engine.submit(Row(words(20, 1), 2, max_tokens=50))
    for _ in range(4):
        engine.step()
    assert engine._pool.held == 3 + 2
    engine.cancel(job)
    assert engine._pool.held == 2
    assert job.output is not None
    assert (job.output.finish, len(job.output.ids), len(job.output.logprobs)) == ("cancelled", 4, 4)
    engine.cancel(job)
    engine.cancel(other)
    assert (engine._pool.held, engine.busy) == (0, False)


def test_a_row_can_be_cancelled_while_it_waits_is_prefilled_or_is_paused() -> None:
    engine = tiny_engine(max_tokens=10, max_rows=2)
    kept = Row(words(30, 4), 9, max_tokens=5)
    being_read, beside, waiting = (engine.submit(Row(words(35), key, max_tokens=5)) for key in range(3))
    engine.step()
    engine.cancel(waiting)
    engine.cancel(being_read)
    engine.pause(beside)
    engine.cancel(beside)
    assert engine._pool.held == 0
    assert tokens(finished(engine, [engine.submit(kept)])) == expected([kept])
    assert all(job.output and (job.output.finish, job.output.ids) == ("cancelled", ()) for job in (beside, waiting))


def test_a_stop_string_can_span_tokens(language_model: LanguageModel, questions: tuple[str, ...]) -> None:
    ids = tuple(language_model.tokenizer.encode_chat(questions[0]))
    row = Row(ids, 0, max_tokens=60, temperature=0.0)
    (whole,) = language_model.engine().run([row])
    decode = language_model.tokenizer.decode
    texts = [decode([token]) for token in whole.ids]
    index = next(i for i in range(3, 30) if len(texts[i]) > 1 and len(texts[i + 1]) > 1)
    stop = texts[index][-1] + texts[index + 1][0]
    first = next(i for i in range(len(whole.ids)) if stop in decode(whole.ids[: i + 1]))
    stopped, unharmed = language_model.engine().run([replace(row, stop_strings=("never said", stop)), row])
    assert (stopped.finish, stopped.ids) == ("stop", whole.ids[: first + 1])
    assert all(stop not in text for text in texts[: first + 1])
    assert (unharmed.finish, unharmed.ids) == (whole.finish, whole.ids)


def test_a_stop_string_in_the_prompt_does_not_stop_a_row(
    language_model: LanguageModel, questions: tuple[str, ...]
) -> None:
    row = Row(tuple(language_model.tokenizer.encode_chat(questions[0])), 0, max_tokens=5, temperature=0.0)
    prompt = language_model.tokenizer.decode(row.ids)
    plain, with_stop = language_model.engine().run([row, replace(row, stop_strings=(prompt[-12:].strip(),))])
    assert plain.ids == with_stop.ids


def test_rows_with_top_k_1_are_greedy_beside_rows_that_are_not() -> None:
    rows = [Row(words(20, key), key, max_tokens=10, temperature=1.5, top_k=key % 2) for key in range(8)]
    outputs = tiny_engine().run(rows)
    assert tokens(outputs) == expected(rows)
    assert tokens(outputs)[1::2] == expected([replace(row, temperature=0.0) for row in rows[1::2]])


def test_a_read_gives_the_log_probabilities_that_the_row_had_when_it_was_sampled() -> None:
    rows = [Row(words(20, key % 2), key, max_tokens=9) for key in range(4)]
    engine = tiny_engine()
    outputs = engine.run(rows)
    reads = [Read(row.ids + output.ids, start=len(row.ids)) for row, output in zip(rows, outputs, strict=True)]
    for again in (engine, tiny_engine(), tiny_engine(max_tokens=3)):
        for output, read in zip(outputs, again.run(reads), strict=True):
            assert read.values is not None and read.values.dtype == torch.float64
            assert read.values.tolist() == pytest.approx(output.logprobs, abs=1e-10)


@pytest.mark.parametrize("start", [1, 2, 16, 17, 39, 40])
@pytest.mark.parametrize("stored", [0, 1, 16, 20, 40])
def test_a_read_gives_a_log_probability_for_every_id_from_start_on_with_any_stored_prefix(
    start: int, stored: int
) -> None:
    ids = words(40)
    with torch.inference_mode():
        full = tiny_model().head(tiny_model().model(torch.tensor(ids))).log_softmax(-1)
    engine = tiny_engine(max_tokens=15)
    if stored:
        engine.run([Row(ids[:stored], 1, max_tokens=1)])
    (output,) = engine.run([Read(ids, start)])
    assert output.values is not None
    assert output.values.tolist() == pytest.approx([float(full[i - 1, ids[i]]) for i in range(start, 40)], abs=1e-10)
    assert (output.ids, output.finish, output.computed + output.reused) == ((), "length", 40)


def test_a_row_and_a_read_of_the_same_ids_share_one_prefill() -> None:
    ids = words(30)
    row = Row(ids, 1, max_tokens=5)
    engine = tiny_engine(max_tokens=8)
    sampled, read, early = engine.run([row, Read(ids, len(ids)), Read(ids, 3)])
    assert sampled.ids == expected([row])[0]
    assert read.values is not None and early.values is not None
    assert (len(read.values), len(early.values)) == (0, 27)


def test_a_read_may_ask_for_hidden_states_alone() -> None:
    ids, every = words(30), Segments((1,), tokens=1)
    engine = tiny_engine(max_tokens=8)
    alone, both = engine.run([Read(ids, 10, every, logprobs=False), Read(ids, 10, every)])
    assert alone.values is None and both.values is not None and len(both.values) == 20
    assert alone.states is not None and both.states is not None
    torch.testing.assert_close(alone.states, both.states)


def test_a_reward_model_processes_only_new_ids_and_equals_one_forward_pass(
    reward_model: RewardModel, language_model: LanguageModel, questions: tuple[str, ...]
) -> None:
    prompt = tuple(language_model.tokenizer.encode_chat(questions[0]))
    (solved,) = language_model.engine().run([Row(prompt, 3, max_tokens=50)])
    ids = prompt + solved.ids
    with torch.inference_mode():
        full = reward_model.model.head(reward_model.model.model(torch.tensor(ids)))
    engine = reward_model.engine()
    before = 0
    for end in (len(prompt) + 7, len(prompt) + 8, len(ids), len(ids), len(prompt) + 20):
        (output,) = engine.run([Read(ids[:end], start=len(prompt))])
        assert output.values is not None
        torch.testing.assert_close(output.values, full[len(prompt) : end], atol=1e-10, rtol=0)
        assert engine.account.prompt_computed == max(before, end)
        before = engine.account.prompt_computed


def test_branches_in_a_classifier_share_their_common_prefix() -> None:
    model = tiny_model(labels=2)
    engine = tiny_engine(model)
    stem = words(21)
    branches = [stem + words(n, seed) for seed, n in enumerate((1, 8, 20, 8))]
    with torch.inference_mode():
        full = [model.head(model.model(torch.tensor(ids))) for ids in branches]
    for again in range(2):
        for values, output in zip(full, engine.run([Read(ids, 0) for ids in branches]), strict=True):
            assert output.values is not None
            torch.testing.assert_close(output.values, values, atol=1e-10, rtol=0)
        prefixes = {ids[:n] for ids in branches for n in range(1, len(ids) + 1)}
        assert engine.account.prompt_computed == len(prefixes), again


@pytest.mark.parametrize("max_tokens", [512, 16])
def test_the_prompts_of_a_beam_search_are_processed_exactly_once(max_tokens: int) -> None:
    """Four rounds: extend every beam by three steps, keep two of them, submit their ids again."""
    engine = tiny_engine(max_tokens=max_tokens, end_ids=frozenset())
    beams, submitted = [words(37)], list[tuple[int, ...]]()
    random, key = Random(0), 0
    for _ in range(4):
        rows = [Row(beam, key + i, max_tokens=11) for i, beam in enumerate(beams * 3)]
        key += len(rows)
        submitted += beams
        ends = [row.ids + output.ids for row, output in zip(rows, engine.run(rows), strict=True)]
        beams = random.sample(ends, 2)
    assert engine.account.prompt_computed == 37 + 3 * 2  # the last token of every beam was drawn and not processed
    # then the whole tree at once, in a new engine
    distinct = {ids[:n] for ids in submitted for n in range(1, len(ids) + 1)}
    engine = tiny_engine(max_tokens=max_tokens, end_ids=frozenset())
    engine.run([Row(ids, key, max_tokens=1) for key, ids in enumerate(submitted)])
    assert (engine.account.prompt_computed, engine.account.recomputed) == (len(distinct), 0)


def test_two_engines_that_take_turns_do_not_affect_each_other() -> None:
    models = [tiny_model(seed) for seed in (0, 1)]
    engines = [tiny_engine(model) for model in models]
    rows = [Row(words(20, key), key, max_tokens=10) for key in range(4)]
    jobs = [[engine.submit(row) for row in rows] for engine in engines]
    while any(engine.busy for engine in engines):
        for engine in engines:
            engine.step()
    for model, ran in zip(models, jobs, strict=True):
        assert [tuple(job.ids[20:]) for job in ran] == [in_full(row, model)[0] for row in rows]
    assert jobs[0][0].ids != jobs[1][0].ids


class Faulty:
    """A model that fails in every iteration with a certain id, by an error or by NaN."""

    def __init__(self, bad: int, *, error: bool) -> None:
        self.inner, self.bad, self.error = deepcopy(tiny_model()), bad, error
        if not error:
            self.inner.model.embed_tokens.weight[bad] = torch.nan

    def hidden(self, ids: Tensor, positions: Tensor, attend: Attend, tap: Tap | None = None) -> Tensor:
        if self.error and bool((ids == self.bad).any()):
            raise RuntimeError("out of memory")
        return self.inner.hidden(ids, positions, attend, tap)

    def head(self, hidden: Tensor) -> Tensor:
        return self.inner.head(hidden)


def faulty_engine(*, error: bool, **options: Any) -> Engine:
    engine = tiny_engine(**options)
    engine._model = Faulty(0, error=error)
    return engine


def test_an_error_of_the_model_fails_the_rows_of_its_iteration_and_no_others() -> None:
    engine = faulty_engine(error=True, max_tokens=30)
    first = [engine.submit(Row(ids, 1, max_tokens=5)) for ids in ((*words(9), 0), words(5, 1))]
    later = Row(words(25, 2), 2, max_tokens=5)  # it does not fit beside the first rows
    last = engine.submit(later)
    failed = engine.step()
    assert set(failed) >= set(first) and all(str(job.error) == "out of memory" for job in failed)
    again = [Row(words(9), 3, max_tokens=5), Row(words(5, 1), 4, max_tokens=5), later]
    assert engine._pool.held == 0 or last not in failed
    assert tokens(engine.run(again)) == expected(again)
    assert engine._pool.held == 0


@pytest.mark.parametrize("max_tokens", [512, 5])
@pytest.mark.parametrize("index", [0, 3, 16, 19])
def test_a_row_with_nan_fails_alone(index: int, max_tokens: int) -> None:
    """Other rows share its prefix, run beside it, and get its blocks after it, and none of them is affected."""
    broken = (*words(index), 0, *words(19 - index, 7))
    rows = [
        Row(words(n), key, max_tokens=40, stop_ids=frozenset({0})) for key, n in enumerate((index + 1, 5, 19, 20, 33))
    ]
    engine = faulty_engine(error=False, max_tokens=max_tokens, blocks=14)
    for _ in range(2):
        jobs = [engine.submit(row) for row in rows[:3]]
        engine.step()
        engine.pause(jobs[0])
        bad = [engine.submit(Row(broken, 50 + key, max_tokens=5)) for key in range(2)] + [
            engine.submit(Read(broken, 1))
        ]
        jobs += [engine.submit(row) for row in rows[3:]]
        while not all(job.done for job in bad):
            engine.step()
        engine.resume(jobs[0])
        assert tokens(finished(engine, jobs)) == expected(rows)
        assert all(isinstance(job.error, ModelError) and "NaN or infinity" in str(job.error) for job in bad)
        assert engine._pool.held == 0


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("shared", [16, 19, 32])
def test_a_row_keeps_the_prefix_that_it_shares_with_a_row_with_nan(shared: int, first: int) -> None:
    """Both are submitted at the same time, and the shared prefix may be whole blocks."""
    row = Row(words(40), 1, max_tokens=20, stop_ids=frozenset({0}))
    bad = Row((*words(shared), 0, *words(3)), 2, max_tokens=5)
    engine = faulty_engine(error=False)
    jobs = {task: engine.submit(task) for task in ((row, bad), (bad, row))[first]}
    assert tokens(finished(engine, [jobs[row]])) == expected([row])
    assert isinstance(jobs[bad].error, ModelError)


def test_a_row_that_draws_the_broken_token_fails_alone() -> None:
    """It shares its prompt with the other rows, up to this token."""
    engine = faulty_engine(error=False, end_ids=frozenset())
    rows = [Row(words(20), key, max_tokens=30, temperature=2.0) for key in range(12)]
    alone = [in_full(replace(row, stop_ids=frozenset({0}))) for row in rows]
    jobs = [engine.submit(replace(row, stop_ids=frozenset({EOS}))) for row in rows]
    finished(engine, jobs)
    broken = [len(ids) < 30 and ids[-1] == 0 for ids, _ in alone]
    assert 0 < sum(broken) < len(rows)
    assert [isinstance(job.error, ModelError) for job in jobs] == broken
    assert [job.output.ids for job in jobs if job.output] == [
        ids for (ids, _), bad in zip(alone, broken, strict=True) if not bad
    ]
    assert engine._pool.held == 0


def test_run_raises_the_error_of_the_model() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        faulty_engine(error=True).run([Row((5, 0), 1, max_tokens=3)])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Row(words(CONTEXT), 1, max_tokens=1), r"ids='256 tokens': the model's context is 256"),
        (Row((), 1, max_tokens=1), r"ids=\(\): give at least one token"),
        (Row(words(5), 1, max_tokens=0), r"max_tokens=0: give at least 1"),
        (Row(words(100), 1, max_tokens=70), r"kv_bytes='room for 160 tokens': this row may grow to 170"),
        (Row(words(5), 1, max_tokens=2, stop_strings=("x",)), r"stop_strings=\('x',\).*no tokenizer"),
        (Read(words(5), 0), r"start=0: the first token has no probability; give 1 to 5"),
        (Read(words(5), 6), r"start=6: .*give 1 to 5"),
        (Read(words(CONTEXT + 1), 1), r"ids='257 tokens': the model's context is 256"),
    ],
)
def test_an_invalid_task_is_refused_in_one_line_and_affects_no_other(task: Row | Read, message: str) -> None:
    row = Row(words(20), 1, max_tokens=10)
    engine = tiny_engine(blocks=10)
    job = engine.submit(row)
    engine.step()
    with pytest.raises(InputError, match=message) as caught:
        engine.submit(task)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        engine.run([Row(words(9), 2, max_tokens=10), task])
    assert tokens(finished(engine, [job])) == expected([row])
    assert engine.account.prompt_computed == 20  # nothing of the refused run was begun


def test_a_classifier_refuses_to_sample() -> None:
    with pytest.raises(InputError, match="this model is a classifier; it can only read"):
        tiny_engine(tiny_model(labels=2)).submit(Row(words(5), 1, max_tokens=1))


def test_a_row_that_fits_the_store_up_to_the_context_length_is_accepted() -> None:
    (output,) = tiny_engine(blocks=CONTEXT // BLOCK_SIZE, end_ids=frozenset()).run(
        [Row(words(250), 1, max_tokens=1000)]
    )
    assert (len(output.ids), output.finish) == (6, "length")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, r"kv_bytes=0: 16 tokens of this model take 8192"),
        ({"max_tokens": 0}, r"max_tokens=0: give at least 1"),
        ({"max_rows": 0}, r"max_rows=0: give at least 1"),
    ],
)
def test_an_engine_without_room_for_any_task_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_engine(**options)


END = 17
"""An end id that the tiny model draws so often that races end."""


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.sampled_from([1, 15, 17])), min_size=4),
    st.integers(1, 3),
    st.sampled_from([3, 6, 64]),
    st.sampled_from([2, 9, 512]),
    st.sampled_from([1, 3, 64]),
    st.sets(st.integers(0, 30), max_size=3),
)
def test_a_racing_row_is_a_prefix_of_the_same_row_alone_and_reaches_the_end_of_its_race(
    entries: list[tuple[int, int, int]], k: int, blocks: int, max_tokens: int, max_rows: int, paused: set[int]
) -> None:
    """One batch has two races and rows outside races; in the second race only rows of odd length count."""
    races = [RowRace(k, lambda ids: True, []), RowRace(k, lambda ids: len(ids) % 2 == 1, []), None]
    rows = [Row(words(n, key % 3), key, 15, temperature=1.5, race=races[lane]) for lane, key, n in entries]
    engine = tiny_engine(blocks=blocks, end_ids=frozenset({END}), max_tokens=max_tokens, max_rows=max_rows)
    jobs = [engine.submit(row) for row in rows]
    for index in paused:
        engine.step()
        engine.pause(jobs[index % len(jobs)])
    for job in jobs:
        engine.step()
        engine.resume(job)
    finished(engine, jobs)
    for race in races:
        mine = [(job, row) for job, row in zip(jobs, rows, strict=True) if row.race is race]
        whole = {job: in_full(replace(row, race=None), eos=END)[0] for job, row in mine}
        came = sorted(len(ids) for ids in whole.values() if race and ids[-1] == END and race.counts(ids))
        limit = came[k - 1] if len(came) >= k else 15
        assert race is None or sorted(race.lengths)[:k] == came[:k]
        for job, ids in whole.items():
            assert job.output is not None
            said = job.output.ids
            assert said == ids[: len(said)] and len(said) >= min(limit, len(ids))
            assert (job.output.finish == "cancelled") == (ids != said) or len(said) == 15
    assert engine._pool.held == 0


def test_a_deadline_removes_its_row_from_a_race_and_the_others_continue() -> None:
    race = RowRace(1, lambda ids: True, [])
    rows = [Row(words(5, i), i, 200, temperature=1.5, race=race) for i in range(6)]
    first = min(len(in_full(replace(row, race=None), eos=END)[0]) for row in rows[1:])
    late = replace(rows[0], deadline=Deadline(0.0))
    outputs = tiny_engine(end_ids=frozenset({END})).run([late, *rows[1:]])
    assert (outputs[0].finish, outputs[0].ids) == ("cancelled", ())
    assert [len(output.ids) for output in outputs[1:]] == [first] * 5
    assert race.lengths == [first] * sum(output.finish == "eos" for output in outputs)


ACTIONS = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 5), st.sampled_from([1, 3, 15, 16, 17, 30])),
    st.tuples(st.just("fork"), st.integers(0, 20), st.integers(0, 2)),
    st.tuples(st.sampled_from(["pause", "resume", "cancel", "read"]), st.integers(0, 20), st.just(0)),
    st.tuples(st.just("step"), st.integers(1, 4), st.just(0)),
)


@settings(max_examples=80)
@given(
    st.lists(ACTIONS, min_size=5, max_size=40),
    st.sampled_from([3, 4, 6, 10]),
    st.sampled_from([2, 9, 40]),
    st.sampled_from([2, 5, 50]),
    st.booleans(),
)
def test_after_any_sequence_of_operations_every_row_has_the_tokens_that_it_has_alone(
    program: list[tuple[str, int, int]], blocks: int, max_tokens: int, max_rows: int, chunked: bool
) -> None:
    engine = tiny_engine(blocks=blocks, max_tokens=max_tokens, max_rows=max_rows, chunked=chunked)
    jobs: list[Job] = []
    for what, which, more in program:
        job = jobs[which % len(jobs)] if jobs else None
        if what == "submit":
            jobs.append(engine.submit(Row(words(more, which // 4), which, max_tokens=9)))
        elif what == "step":
            for _ in range(which):
                engine.step()
        elif job is None:
            continue
        elif what == "fork" and isinstance(job.task, Row) and len(job.ids) + more + 9 <= 48:
            jobs.append(engine.fork(job, which, words(more)))
        elif what == "read" and len(job.ids) <= 48:
            jobs.append(engine.submit(Read(tuple(job.ids), 1 + which % len(job.ids))))
        elif what in ("pause", "resume", "cancel"):
            getattr(engine, what)(job)
        assert engine._pool.held <= blocks
    for job in jobs:
        engine.resume(job)
    finished(engine, jobs)
    for job in jobs:
        assert job.output is not None
        if isinstance(job.task, Read):
            if job.output.values is not None:
                ids = torch.tensor(job.ids)
                with torch.inference_mode():
                    full = tiny_model().head(tiny_model().model(ids)).log_softmax(-1)[:-1].gather(1, ids[1:, None])
                torch.testing.assert_close(job.output.values, full[job.task.start - 1 :, 0], atol=1e-10, rtol=0)
        elif job.output.finish == "cancelled":
            assert in_full(job.task)[0][: len(job.output.ids)] == job.output.ids
        else:
            assert job.output.ids == in_full(job.task)[0]
    assert engine._pool.held == 0
    account = engine.account
    assert account.kv_tokens_held_peak <= blocks * BLOCK_SIZE
    assert account.tokens == account.prompt_computed + account.generated + account.recomputed
