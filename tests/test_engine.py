"""The engine: a row's samples depend only on its key, and they have exactly the model's distribution."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import in_full, tiny_engine, words
from torch import Tensor

from thinktime.core.clock import Deadline
from thinktime.core.errors import InputError, ModelError
from thinktime.models.engine.costs import Account, Shape, forward_flops
from thinktime.models.engine.models import LanguageModel
from thinktime.models.engine.rows import Output, Row
from thinktime.models.engine.sampling import sample, uniform
from thinktime.models.engine.worker import Worker

PROBABILITIES = (0.0, 0.45, 0.0, 0.25, 0.15, 0.1, 0.05, 0.0)


@pytest.fixture(scope="module")
def crowd(language_model: LanguageModel, questions: tuple[str, ...]) -> list[Row]:
    """40 rows of mixed length and kind: four rows for each of ten prompts, with different keys and settings."""
    step = language_model.tokenizer.ids_containing("\n")
    rows = []
    for index in range(40):
        ids = tuple(language_model.tokenizer.encode_chat(questions[index % 10]))
        row = Row(ids, key=1000 + index, max_tokens=8 + 6 * (index % 5), temperature=(0.8, 1.0, 1.5)[index % 3])
        if index % 4 == 1:
            row = replace(row, top_p=0.9)
        if index % 4 == 2:
            row = replace(row, stop_ids=step, max_tokens=60)
        if index % 4 == 3:
            row = replace(row, temperature=0.0)
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def alone(language_model: LanguageModel, crowd: list[Row]) -> list[Output]:
    return [language_model.engine().run([row])[0] for row in crowd]


def essence(outputs: Sequence[Output]) -> list[tuple[tuple[int, ...], str]]:
    return [(output.ids, output.finish) for output in outputs]


def chi_square(counts: Sequence[int], probabilities: Sequence[float]) -> float:
    """Pearson's statistic over the possible outcomes; its mean is the number of outcomes minus 1."""
    n = sum(counts)
    return sum((seen - n * p) ** 2 / (n * p) for seen, p in zip(counts, probabilities, strict=True) if p > 0)


def noise(n: int) -> Tensor:
    return torch.from_numpy(uniform(np.arange(n, dtype=np.uint64), np.zeros(n, dtype=np.uint64)))


def draw(
    probabilities: Sequence[float], noise: Tensor, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0
) -> list[int]:
    logits = torch.tensor(probabilities, dtype=torch.float64).log().expand(len(noise), -1)
    same = torch.ones(len(noise), dtype=torch.float64)
    ids: list[int] = sample(logits, same * temperature, same * top_p, (same * top_k).long(), noise).tolist()
    return ids


def test_a_row_samples_the_same_tokens_alone_and_in_a_crowd(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    together = language_model.engine().run(crowd)
    assert essence(together) == essence(alone)
    for mine, theirs in zip(together, alone, strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-9)
    assert len(set(essence(alone))) > 10
    assert {output.finish for output in alone} >= {"stop", "length"}


def test_a_row_samples_the_same_tokens_in_any_order(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    order = list(range(len(crowd)))
    Random(0).shuffle(order)
    shuffled = language_model.engine().run([crowd[i] for i in order])
    assert essence(shuffled) == [essence(alone)[i] for i in order]


def test_a_row_samples_the_same_tokens_when_only_a_few_rows_run_at_once(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    assert essence(language_model.engine(max_rows=7).run(crowd)) == essence(alone)


def test_a_row_samples_the_same_tokens_from_an_engine_that_has_run_before(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    engine = language_model.engine()
    parts = [engine.run(crowd[start : start + 7]) for start in range(0, len(crowd), 7)]
    assert essence([output for part in parts for output in part]) == essence(alone)


def test_the_same_row_twice_in_a_batch_gives_the_same_tokens_and_another_key_gives_others(
    language_model: LanguageModel, crowd: list[Row]
) -> None:
    row = replace(crowd[0], temperature=2.0, max_tokens=30)
    first, again, other = language_model.engine().run([row, row, replace(row, key=row.key + 1)])
    assert first.ids == again.ids != other.ids


def test_a_generation_that_is_cut_and_resumed_with_its_key_samples_the_same_tokens(
    language_model: LanguageModel, crowd: list[Row]
) -> None:
    row = replace(crowd[0], temperature=1.0, max_tokens=20)
    (whole,) = language_model.engine().run([row])
    cut = len(whole.ids) // 2
    (rest,) = language_model.engine().run([replace(row, ids=row.ids + whole.ids[:cut], max_tokens=20 - cut)])
    assert rest.ids == whole.ids[cut:]


def test_temperature_0_is_the_argmax_of_transformers(
    language_model: LanguageModel, transformers_solver: Any, questions: tuple[str, ...]
) -> None:
    prompts = [language_model.tokenizer.encode_chat(question) for question in questions[::2]]
    outputs = language_model.engine().run([Row(tuple(ids), key=0, max_tokens=40, temperature=0.0) for ids in prompts])
    for ids, output in zip(prompts, outputs, strict=True):
        prompt = torch.tensor([ids])
        theirs = transformers_solver.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40
        )
        assert list(output.ids) == theirs[0, len(ids) :].tolist()


def test_logprobs_are_those_of_the_model_at_temperature_1(
    language_model: LanguageModel, transformers_solver: Any, crowd: list[Row]
) -> None:
    row = replace(crowd[0], temperature=1.5, top_p=0.8, max_tokens=12)
    (output,) = language_model.engine().run([row])
    with torch.inference_mode():
        logits = transformers_solver(torch.tensor([row.ids + output.ids])).logits[0].double()
    expected = [float(logits[len(row.ids) + i - 1].log_softmax(-1)[token]) for i, token in enumerate(output.ids)]
    assert output.logprobs == pytest.approx(expected, abs=1e-3)


def test_a_tiny_top_p_is_greedy(language_model: LanguageModel, crowd: list[Row]) -> None:
    hot = [replace(row, temperature=2.0, top_p=1e-6, stop_ids=frozenset()) for row in crowd[:10]]
    assert essence(language_model.engine().run(hot)) == essence(
        language_model.engine().run([replace(row, temperature=0.0) for row in hot])
    )


def test_a_step_ends_with_the_first_step_token(language_model: LanguageModel, crowd: list[Row]) -> None:
    step = language_model.tokenizer.ids_containing("\n")
    rows = [replace(row, temperature=0.0, max_tokens=60) for row in crowd[:10]]
    whole = language_model.engine().run([replace(row, stop_ids=frozenset()) for row in rows])
    stepped = language_model.engine().run([replace(row, stop_ids=step) for row in rows])
    for w, s in zip(whole, stepped, strict=True):
        first = next(index for index, token in enumerate(w.ids) if token in step)
        assert s.finish == "stop"
        assert s.ids == w.ids[: first + 1]


def test_max_tokens_is_kept_exactly(language_model: LanguageModel, crowd: list[Row]) -> None:
    outputs = language_model.engine().run([replace(crowd[0], max_tokens=n, stop_ids=frozenset()) for n in (1, 2, 5)])
    assert [(len(output.ids), output.finish) for output in outputs] == [(1, "length"), (2, "length"), (5, "length")]


def test_the_end_token_ends_a_row_even_at_the_length_limit_and_is_its_last_id(
    language_model: LanguageModel, crowd: list[Row]
) -> None:
    row = replace(crowd[0], temperature=0.0, max_tokens=200, stop_ids=frozenset())
    (output,) = language_model.engine().run([row])
    assert output.finish == "eos"
    assert output.ids.index(language_model.tokenizer.eos_id) == len(output.ids) - 1
    exact, short = language_model.engine().run([replace(row, max_tokens=len(output.ids) - k) for k in (0, 1)])
    assert exact == replace(output, seconds=exact.seconds, logprobs=exact.logprobs)
    assert short.finish == "length" and short.ids == output.ids[:-1]


def test_a_deadline_ends_its_own_row_and_no_other(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    late = replace(crowd[0], deadline=Deadline(time.monotonic() - 1))
    early = replace(crowd[5], deadline=Deadline(time.monotonic() + 3600))
    stopped, unhurried, untouched = language_model.engine().run([late, early, crowd[10]])
    assert (stopped.finish, stopped.ids) == ("cancelled", ())
    assert essence([unhurried, untouched]) == essence([alone[5], alone[10]])


def test_a_deadline_ends_running_paused_and_waiting_rows() -> None:
    now = 0.0
    engine = tiny_engine(end_ids=frozenset(), max_rows=2)
    tasks = [Row(words(5, i), i, max_tokens=50, deadline=Deadline(10.0, lambda: now)) for i in range(3)]
    running, paused, waiting = jobs = [engine.submit(task) for task in tasks]
    for _ in range(4):
        engine.step()
    engine.pause(paused)
    assert not any(job.done for job in jobs)
    now += 10
    assert set(engine.step()) == set(jobs)
    assert not engine.busy
    outputs = [job.output for job in (running, paused, waiting)]
    assert [(o.finish, len(o.ids)) for o in outputs if o] == [("cancelled", 4), ("cancelled", 4), ("cancelled", 0)]


def test_the_seconds_of_the_rows_add_up_to_no_more_than_the_wall_time(
    language_model: LanguageModel, crowd: list[Row]
) -> None:
    engine = language_model.engine()
    started = time.perf_counter()
    outputs = engine.run(crowd[:8])
    wall = time.perf_counter() - started
    assert 0 < sum(output.seconds for output in outputs) <= wall
    assert all(output.seconds > 0 for output in outputs)


def test_uniform_is_splitmix64() -> None:
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)  # seed 0
    got = uniform(np.zeros(3, dtype=np.uint64), np.arange(3, dtype=np.uint64))
    assert got.tolist() == [(value >> 11) * 2.0**-53 for value in published]


def test_uniform_is_uniform_over_keys_and_over_positions() -> None:
    zeros, counted = np.zeros(16000, dtype=np.uint64), np.arange(16000, dtype=np.uint64)
    for unit in (uniform(counted, zeros), uniform(zeros, counted)):
        assert unit.min() >= 0 and unit.max() < 1
        counts = np.bincount((unit * 16).astype(int), minlength=16).tolist()
        assert chi_square(counts, [1 / 16] * 16) < 45  # 15 degrees of freedom: exceeded once in 10,000 times


def test_neighbouring_keys_and_positions_are_uncorrelated() -> None:
    zeros, counted = np.zeros(16000, dtype=np.uint64), np.arange(16000, dtype=np.uint64)
    for unit in (uniform(counted, zeros), uniform(zeros, counted)):
        assert abs(np.corrcoef(unit[:-1], unit[1:])[0, 1]) < 0.03


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    counts = Counter(draw(PROBABILITIES, noise(20000), temperature))
    raised = [p ** (1 / temperature) for p in PROBABILITIES]
    expected = [p / sum(raised) for p in raised]
    # 4 degrees of freedom: exceeded once in 20,000 times
    assert chi_square([counts[i] for i in range(8)], expected) < 25


def test_top_p_keeps_the_fewest_likeliest_ids_that_reach_it_in_their_proportions() -> None:
    counts = Counter(draw(PROBABILITIES, noise(20000), top_p=0.75))  # 0.45 + 0.25 < 0.75 <= 0.45 + 0.25 + 0.15
    assert set(counts) == {1, 3, 4}
    assert chi_square([counts[1], counts[3], counts[4]], [0.45 / 0.85, 0.25 / 0.85, 0.15 / 0.85]) < 20


def test_top_p_of_one_row_does_not_touch_another() -> None:
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log().expand(2, -1)
    ones = torch.ones(2, dtype=torch.float64)
    last = torch.tensor([0.999, 0.999], dtype=torch.float64)
    none = torch.zeros(2, dtype=torch.int64)
    assert sample(logits, ones, torch.tensor([0.4, 1.0]).double(), none, last).tolist() == [1, 6]


def test_top_k_keeps_the_k_likeliest_ids_in_their_proportions() -> None:
    counts = Counter(draw(PROBABILITIES, noise(20000), top_k=3))
    assert set(counts) == {1, 3, 4}
    assert chi_square([counts[1], counts[3], counts[4]], [0.45 / 0.85, 0.25 / 0.85, 0.15 / 0.85]) < 20
    assert set(draw(PROBABILITIES, noise(500), top_k=1)) == {1}
    assert set(draw(PROBABILITIES, noise(20000), top_k=100)) == {1, 3, 4, 5, 6}


def test_the_narrower_of_top_k_and_top_p_decides() -> None:
    assert set(draw(PROBABILITIES, noise(2000), top_p=0.75, top_k=2)) == {1, 3}
    assert set(draw(PROBABILITIES, noise(2000), top_p=0.4, top_k=3)) == {1}


def test_top_k_keeps_all_ids_that_tie_with_the_last_one() -> None:
    assert set(draw((0.4, 0.2, 0.2, 0.2), noise(2000), top_k=2)) == {0, 1, 2, 3}


def test_top_k_of_one_row_does_not_touch_another() -> None:
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log().expand(2, -1)
    ones, last = torch.ones(2, dtype=torch.float64), torch.tensor([0.999, 0.999], dtype=torch.float64)
    assert sample(logits, ones, ones, torch.tensor([1, 0]), last).tolist() == [1, 6]


def test_temperature_0_is_the_argmax_for_any_noise() -> None:
    assert draw(PROBABILITIES, noise(50), temperature=0.0) == [1] * 50


def test_a_top_p_of_0_keeps_the_likeliest_id() -> None:
    assert draw((0.2, 0.5, 0.3), noise(50), top_p=0.0) == [1] * 50


@given(
    st.lists(st.sampled_from([0.0, 0.0, 1e-300, 1e-12, 0.1, 0.5, 1.0, 7.0]), min_size=1, max_size=12).filter(any),
    st.sampled_from([0.0, 2.0**-53, 0.25, 0.5, 0.999, 1 - 2.0**-53]),
    st.sampled_from([0.1, 1.0, 3.0]),
    st.sampled_from([1e-9, 0.5, 0.95, 1.0]),
)
def test_an_id_of_probability_0_is_never_drawn(
    weights: list[float], unit: float, temperature: float, top_p: float
) -> None:
    (drawn,) = draw(weights, torch.tensor([unit], dtype=torch.float64), temperature, top_p)
    assert weights[drawn] > 0


def test_the_first_token_of_a_question_is_drawn_with_the_probability_that_transformers_gives_it(
    language_model: LanguageModel, transformers_solver: Any, questions: tuple[str, ...]
) -> None:
    n, ids = 4000, tuple(language_model.tokenizer.encode_chat(questions[0]))
    keys = np.random.default_rng(0).integers(2**62, size=n).tolist()
    counts: Counter[int] = Counter()
    for start in range(0, n, 500):
        rows = [Row(ids, key=key, max_tokens=1, temperature=2.5) for key in keys[start : start + 500]]
        counts.update(output.ids[0] for output in language_model.engine().run(rows))
    with torch.inference_mode():
        logits = transformers_solver(torch.tensor([ids])).logits[0, -1].double()
    probabilities = (logits / 2.5).softmax(-1).tolist()
    common = [i for i, p in enumerate(probabilities) if n * p >= 8]
    assert len(common) > 2
    seen = [counts[i] for i in common]
    expected = [probabilities[i] for i in common]
    degrees = len(common)
    statistic = chi_square([*seen, n - sum(seen)], [*expected, 1 - sum(expected)])
    assert statistic < degrees + 5 * (2 * degrees) ** 0.5


def test_a_forward_pass_costs_two_operations_per_parameter_and_four_per_attended_position_and_head_dimension() -> None:
    shape = Shape(layers=3, heads=2, kv_heads=1, head_dim=5, parameters=1000, bytes_per_value=8)
    attention = sum(4 * 3 * 2 * 5 * (7 + own) for own in (1, 2, 3, 4))  # 7 cached, then itself and those before it
    assert forward_flops(shape, tokens=4, context=7) == 2 * 1000 * 4 + attention
    assert shape.kv_bytes_per_token == 2 * 3 * 1 * 5 * 8


TINY = Shape(layers=6, heads=8, kv_heads=8, head_dim=32, parameters=5_000_000, bytes_per_value=2)


def test_the_account_of_a_small_run_equals_a_count_by_hand() -> None:
    engine = tiny_engine(max_tokens=20, end_ids=frozenset())
    outputs = engine.run([Row(words(36), key, max_tokens=4) for key in (5, 6)])
    assert [len(output.ids) for output in outputs] == [4, 4]
    account = engine.account
    # the prompt of 36 in chunks of 20 and 16; then twice three tokens: the last token that is drawn is not processed
    assert account.iterations == 2 + 3
    assert (account.prompt_computed, account.prompt_reused, account.recomputed) == (36, 0, 0)
    assert (account.generated, account.tokens) == (6, 42)
    assert account.attended == sum(range(1, 37)) + 2 * (37 + 38 + 39)
    # the second chunk reads the first; the 32 tokens in full blocks are read once for both rows, the rest once per row
    assert account.kv_tokens_read == 20 + 36 + sum(32 + 2 * own for own in (5, 6, 7))
    assert account.kv_tokens_held_peak == 4 * 16  # three blocks of the prompt, the last of them in a copy
    assert account.kv_tokens_held_sum == (2 + 3 + 4 + 4 + 4) * 16
    shape = account.shape
    assert (shape.kv_bytes_per_token, shape.flops_per_attended) == (2 * 2 * 2 * 8 * 8, 4 * 2 * 4 * 8)
    assert account.flops() == 2 * shape.parameters * 42 + 256 * account.attended
    assert account.weight_bytes_read == 5 * 8 * shape.parameters
    assert account.kinetics(10.0) == account.flops() + 10 * account.kv_tokens_read * 512
    assert account.kinetics(10.0, weights=True) == account.kinetics(10.0) + 10 * account.weight_bytes_read
    assert account.kv_bytes_held_mean == account.kv_tokens_held_sum * 512 / 5
    assert [(output.computed, output.reused) for output in outputs] == [(36, 0), (0, 36)]


def test_an_account_of_nothing_is_all_zeros() -> None:
    assert (Account(TINY).flops(), Account(TINY).kinetics(562.5, weights=True), Account(TINY).kv_bytes_held_mean) == (
        0,
        0.0,
        0.0,
    )


def some_rows(n: int, max_tokens: int = 6) -> list[Row]:
    """Their first ids differ, so no row waits for another one to process a shared prefix."""
    return [Row((10 + i, *words(4 + 7 * i % 23, i)), key=i, max_tokens=max_tokens) for i in range(n)]


def test_a_worker_runs_the_tasks_of_many_coroutines_in_one_batch_and_returns_each_in_order() -> None:
    rows = some_rows(12)
    worker = Worker(tiny_engine())

    async def ask() -> list[list[Output]]:
        return list(await asyncio.gather(*(worker.run(rows[i : i + 3]) for i in range(0, 12, 3))))

    answers = [output.ids for outputs in asyncio.run(ask()) for output in outputs]
    assert answers == [in_full(row)[0] for row in rows]
    assert worker.engine.account.iterations <= 7  # all prompts in one, then a token of every row in each


def test_a_coroutine_that_comes_later_joins_the_running_batch() -> None:
    early, late = Row(words(9), 1, max_tokens=40), Row(words(9, 1), 2, max_tokens=3)
    worker = Worker(tiny_engine(end_ids=frozenset()))
    ended: list[int] = []

    async def one(row: Row) -> None:
        await worker.run([row])
        ended.append(row.key)

    async def ask() -> None:
        first = asyncio.create_task(one(early))
        while not worker.engine.account.generated:
            await asyncio.sleep(0)
        await one(late)
        assert worker.engine.account.generated < 39 + 2
        await first

    asyncio.run(ask())
    assert ended == [2, 1]


def test_the_rows_of_a_cancelled_coroutine_leave_the_batch_and_others_finish() -> None:
    engine = tiny_engine(end_ids=frozenset())
    worker = Worker(engine)
    kept = Row(words(8, 1), 3, max_tokens=60)

    async def ask() -> list[Output]:
        leaving = asyncio.create_task(worker.run([Row(words(8), key, max_tokens=240) for key in (1, 2)]))
        staying = asyncio.create_task(worker.run([kept]))
        while not engine.account.generated:
            await asyncio.sleep(0)
        leaving.cancel()
        outputs = await staying
        with pytest.raises(asyncio.CancelledError):
            await leaving
        return outputs

    (output,) = asyncio.run(ask())
    assert output.ids == in_full(kept, eos=-1)[0]
    assert engine.account.generated < 3 * 239
    assert (engine.busy, engine._pool.held) == (False, 0)


def test_a_coroutine_that_is_cancelled_before_its_rows_have_begun_costs_nothing() -> None:
    worker = Worker(tiny_engine())

    async def ask() -> list[Output]:
        given_up = asyncio.ensure_future(worker.run([Row(words(50, 9), 1, max_tokens=3)]))
        kept = asyncio.ensure_future(worker.run([Row(words(20), 2, max_tokens=3)]))
        await asyncio.sleep(0)
        given_up.cancel()
        return await kept

    assert len(asyncio.run(ask())) == 1
    assert worker.engine.account.prompt_computed == 20


def test_a_task_that_cannot_work_is_refused_to_its_caller_only() -> None:
    rows = some_rows(2)
    worker = Worker(tiny_engine())

    async def ask() -> list[Any]:
        bad = worker.run([rows[1], replace(rows[1], max_tokens=0)])
        return list(await asyncio.gather(worker.run(rows[:1]), bad, worker.run(rows[1:]), return_exceptions=True))

    first, refused, second = asyncio.run(ask())
    assert isinstance(refused, InputError) and "max_tokens=0" in str(refused)
    assert [output.ids for output in first + second] == [in_full(row)[0] for row in rows]
    assert worker.engine._pool.held == 0


def test_a_worker_serves_one_event_loop_after_another() -> None:
    rows = some_rows(3)
    worker = Worker(tiny_engine())
    answers = [asyncio.run(worker.run([row]))[0].ids for row in rows]
    assert answers == [in_full(row)[0] for row in rows]


def test_an_event_loop_that_ends_with_running_rows_does_not_affect_the_next() -> None:
    engine = tiny_engine(end_ids=frozenset())
    worker = Worker(engine)
    row = some_rows(1)[0]

    async def leave() -> None:
        left = asyncio.create_task(worker.run([Row(words(8), 1, max_tokens=240)]))
        while not engine.account.generated:
            await asyncio.sleep(0)
        assert not left.done()

    asyncio.run(leave())
    (output,) = asyncio.run(worker.run([row]))
    assert output.ids == in_full(row, eos=-1)[0]
    assert engine.account.generated < 239
    assert (engine.busy, engine._pool.held) == (False, 0)


def test_an_error_of_the_engine_reaches_every_caller_and_the_worker_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some_rows(2)
    worker = Worker(tiny_engine())

    def broken() -> Any:
        raise ModelError("broken")

    async def ask() -> list[Any]:
        return list(await asyncio.gather(*(worker.run([row]) for row in rows), return_exceptions=True))

    with monkeypatch.context() as patch:
        patch.setattr(worker.engine, "step", broken)
        assert [str(error) for error in asyncio.run(ask())] == ["broken", "broken"]
    assert [outputs[0].ids for outputs in asyncio.run(ask())] == [in_full(row)[0] for row in rows]
