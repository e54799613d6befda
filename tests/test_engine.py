"""The engine: what a row samples depends on its key alone, and the draws have exactly the model's distribution."""

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
from thinktime.engine.batcher import Batcher
from thinktime.engine.generate import Output, Row, sample, uniform
from torch import Tensor

from thinktime.engine.costs import forward_flops, kv_bytes_per_token
from thinktime.engine.llama import LlamaConfig
from thinktime.engine.models import LanguageModel

PROBABILITIES = (0.0, 0.45, 0.0, 0.25, 0.15, 0.1, 0.05, 0.0)


@pytest.fixture(scope="module")
def crowd(language_model: LanguageModel, questions: tuple[str, ...]) -> list[Row]:
    """40 rows of mixed length and kind: ten prompts, from each four rows that differ in key and settings."""
    step = language_model.tokenizer.ids_containing("\n")
    rows = []
    for index in range(40):
        ids = tuple(language_model.tokenizer.encode_chat(questions[index % 10]))
        row = Row(ids, key=1000 + index, max_tokens=8 + 6 * (index % 5), temperature=(0.8, 1.0, 1.5)[index % 3])
        if index % 4 == 1:
            row = replace(row, top_p=0.9)
        if index % 4 == 2:
            row = replace(row, step_ids=step, max_tokens=60)
        if index % 4 == 3:
            row = replace(row, temperature=0.0)
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def alone(language_model: LanguageModel, crowd: list[Row]) -> list[Output]:
    return [language_model.generate([row])[0] for row in crowd]


def essence(outputs: Sequence[Output]) -> list[tuple[tuple[int, ...], str]]:
    return [(output.ids, output.finish) for output in outputs]


def chi_square(counts: Sequence[int], probabilities: Sequence[float]) -> float:
    """Pearson's statistic over the possible outcomes; its mean is their number minus 1."""
    n = sum(counts)
    return sum((seen - n * p) ** 2 / (n * p) for seen, p in zip(counts, probabilities, strict=True) if p > 0)


def noise(n: int) -> Tensor:
    return torch.from_numpy(uniform(np.arange(n, dtype=np.uint64), np.zeros(n, dtype=np.uint64)))


def draw(probabilities: Sequence[float], noise: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
    logits = torch.tensor(probabilities, dtype=torch.float64).log().expand(len(noise), -1)
    same = torch.ones(len(noise), dtype=torch.float64)
    ids: list[int] = sample(logits, same * temperature, same * top_p, noise).tolist()
    return ids


def test_a_row_samples_the_same_tokens_alone_and_in_a_crowd(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    together = language_model.generate(crowd)
    assert essence(together) == essence(alone)
    for mine, theirs in zip(together, alone, strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-9)
    assert len(set(essence(alone))) > 10
    assert {output.finish for output in alone} >= {"step", "length"}


def test_a_row_samples_the_same_tokens_in_any_order(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    order = list(range(len(crowd)))
    Random(0).shuffle(order)
    shuffled = language_model.generate([crowd[i] for i in order])
    assert essence(shuffled) == [essence(alone)[i] for i in order]


def test_a_row_samples_the_same_tokens_split_over_waves(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    waves = [language_model.generate(crowd[start : start + 7]) for start in range(0, len(crowd), 7)]
    assert essence([output for wave in waves for output in wave]) == essence(alone)


def test_the_same_row_twice_in_a_batch_gives_the_same_tokens_and_another_key_gives_others(
    language_model: LanguageModel, crowd: list[Row]
) -> None:
    row = replace(crowd[0], temperature=2.0, max_tokens=30)
    first, again, other = language_model.generate([row, row, replace(row, key=row.key + 1)])
    assert first.ids == again.ids != other.ids


def test_a_generation_that_is_cut_and_resumed_with_its_key_samples_the_same_tokens(
    language_model: LanguageModel, crowd: list[Row]
) -> None:
    row = replace(crowd[0], temperature=1.0, max_tokens=20)
    (whole,) = language_model.generate([row])
    cut = len(whole.ids) // 2
    (rest,) = language_model.generate([replace(row, ids=row.ids + whole.ids[:cut], max_tokens=20 - cut)])
    assert rest.ids == whole.ids[cut:]


def test_temperature_0_is_the_argmax_of_transformers(
    language_model: LanguageModel, transformers_solver: Any, questions: tuple[str, ...]
) -> None:
    prompts = [language_model.tokenizer.encode_chat(question) for question in questions[::2]]
    outputs = language_model.generate([Row(tuple(ids), key=0, max_tokens=40, temperature=0.0) for ids in prompts])
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
    (output,) = language_model.generate([row])
    with torch.inference_mode():
        logits = transformers_solver(torch.tensor([row.ids + output.ids])).logits[0].double()
    expected = [float(logits[len(row.ids) + i - 1].log_softmax(-1)[token]) for i, token in enumerate(output.ids)]
    assert output.logprobs == pytest.approx(expected, abs=1e-3)


def test_a_tiny_top_p_is_greedy(language_model: LanguageModel, crowd: list[Row]) -> None:
    hot = [replace(row, temperature=2.0, top_p=1e-6, step_ids=frozenset()) for row in crowd[:10]]
    assert essence(language_model.generate(hot)) == essence(
        language_model.generate([replace(row, temperature=0.0) for row in hot])
    )


def test_a_step_ends_with_the_first_step_token(language_model: LanguageModel, crowd: list[Row]) -> None:
    step = language_model.tokenizer.ids_containing("\n")
    rows = [replace(row, temperature=0.0, max_tokens=60) for row in crowd[:10]]
    whole = language_model.generate([replace(row, step_ids=frozenset()) for row in rows])
    stepped = language_model.generate([replace(row, step_ids=step) for row in rows])
    for w, s in zip(whole, stepped, strict=True):
        first = next(place for place, token in enumerate(w.ids) if token in step)
        assert s.finish == "step"
        assert s.ids == w.ids[: first + 1]


def test_max_tokens_is_kept_exactly(language_model: LanguageModel, crowd: list[Row]) -> None:
    outputs = language_model.generate([replace(crowd[0], max_tokens=n, step_ids=frozenset()) for n in (1, 2, 5)])
    assert [(len(output.ids), output.finish) for output in outputs] == [(1, "length"), (2, "length"), (5, "length")]


def test_the_end_token_ends_a_row_even_at_the_last_place_and_is_its_last_id(
    language_model: LanguageModel, crowd: list[Row]
) -> None:
    row = replace(crowd[0], temperature=0.0, max_tokens=200, step_ids=frozenset())
    (output,) = language_model.generate([row])
    assert output.finish == "eos"
    assert output.ids.index(language_model.tokenizer.eos_id) == len(output.ids) - 1
    exact, short = language_model.generate([replace(row, max_tokens=len(output.ids) - k) for k in (0, 1)])
    assert exact == replace(output, seconds=exact.seconds, logprobs=exact.logprobs)
    assert short.finish == "length" and short.ids == output.ids[:-1]


def test_a_deadline_ends_its_own_row_and_no_other(
    language_model: LanguageModel, crowd: list[Row], alone: list[Output]
) -> None:
    late = replace(crowd[0], deadline=time.monotonic() - 1)
    early = replace(crowd[5], deadline=time.monotonic() + 3600)
    stopped, unhurried, untouched = language_model.generate([late, early, crowd[10]])
    assert (stopped.finish, stopped.ids) == ("budget", alone[0].ids[:1])
    assert essence([unhurried, untouched]) == essence([alone[5], alone[10]])


def test_the_seconds_of_the_rows_add_up_to_the_wall_time_of_the_wave(
    language_model: LanguageModel, crowd: list[Row]
) -> None:
    started = time.perf_counter()
    outputs = language_model.generate(crowd[:8])
    wall = time.perf_counter() - started
    assert 0.5 * wall < sum(output.seconds for output in outputs) <= wall
    per_token = [output.seconds / len(output.ids) for output in outputs]
    assert per_token == pytest.approx([per_token[0]] * len(outputs))


def test_uniform_is_splitmix64() -> None:
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)  # seed 0
    got = uniform(np.zeros(3, dtype=np.uint64), np.arange(3, dtype=np.uint64))
    assert got.tolist() == [(value >> 11) * 2.0**-53 for value in published]


def test_uniform_is_uniform_over_keys_and_over_positions() -> None:
    zeros, counted = np.zeros(16000, dtype=np.uint64), np.arange(16000, dtype=np.uint64)
    for unit in (uniform(counted, zeros), uniform(zeros, counted)):
        assert unit.min() >= 0 and unit.max() < 1
        counts = np.bincount((unit * 16).astype(int), minlength=16).tolist()
        assert chi_square(counts, [1 / 16] * 16) < 45  # of 15 degrees of freedom: exceeded once in 10,000


def test_neighbouring_keys_and_positions_are_uncorrelated() -> None:
    zeros, counted = np.zeros(16000, dtype=np.uint64), np.arange(16000, dtype=np.uint64)
    for unit in (uniform(counted, zeros), uniform(zeros, counted)):
        assert abs(np.corrcoef(unit[:-1], unit[1:])[0, 1]) < 0.03


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    counts = Counter(draw(PROBABILITIES, noise(20000), temperature))
    raised = [p ** (1 / temperature) for p in PROBABILITIES]
    expected = [p / sum(raised) for p in raised]
    assert chi_square([counts[i] for i in range(8)], expected) < 25  # of 4 degrees: exceeded once in 20,000


def test_top_p_keeps_the_fewest_likeliest_ids_that_reach_it_in_their_proportions() -> None:
    counts = Counter(draw(PROBABILITIES, noise(20000), top_p=0.75))  # 0.45 + 0.25 < 0.75 <= 0.45 + 0.25 + 0.15
    assert set(counts) == {1, 3, 4}
    assert chi_square([counts[1], counts[3], counts[4]], [0.45 / 0.85, 0.25 / 0.85, 0.15 / 0.85]) < 20


def test_top_p_of_one_row_does_not_touch_another() -> None:
    logits = torch.tensor(PROBABILITIES, dtype=torch.float64).log().expand(2, -1)
    ones = torch.ones(2, dtype=torch.float64)
    last = torch.tensor([0.999, 0.999], dtype=torch.float64)
    assert sample(logits, ones, torch.tensor([0.4, 1.0]).double(), last).tolist() == [1, 6]


def test_temperature_0_is_the_argmax_whatever_the_noise() -> None:
    assert draw(PROBABILITIES, noise(50), temperature=0.0) == [1] * 50


def test_a_top_p_of_0_leaves_the_likeliest_id() -> None:
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
        counts.update(output.ids[0] for output in language_model.generate(rows))
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


def test_the_cost_of_a_forward_pass_is_two_operations_a_parameter_and_four_a_head_place_attended_to() -> None:
    shape = LlamaConfig(10, 12, 16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=5)
    attention = sum(4 * 3 * 2 * 5 * (7 + own) for own in (1, 2, 3, 4))  # 7 cached, then itself and those before it
    assert forward_flops(shape, parameters=1000, tokens=4, context=7) == 2 * 1000 * 4 + attention
    assert kv_bytes_per_token(shape, bytes_per_value=8) == 2 * 3 * 1 * 5 * 8


def test_a_batcher_runs_what_many_coroutines_ask_for_at_once_and_answers_each_in_order() -> None:
    batches: list[list[int]] = []

    def double(items: list[int]) -> list[int]:
        batches.append(items)
        return [2 * item for item in items]

    async def ask() -> list[list[int]]:
        batcher = Batcher(double, max_items=5)
        return list(await asyncio.gather(*(batcher.submit([10 * i, 10 * i + 1, 10 * i + 2]) for i in range(4))))

    assert asyncio.run(ask()) == [[20 * i, 20 * i + 2, 20 * i + 4] for i in range(4)]
    assert [len(batch) for batch in batches] == [5, 5, 2]


def test_a_batcher_passes_an_error_to_every_caller_of_its_batch_and_goes_on() -> None:
    def run(items: list[int]) -> list[int]:
        if 0 in items:
            raise RuntimeError("broken")
        return items

    async def ask() -> list[Any]:
        batcher = Batcher(run, max_items=2)
        return list(await asyncio.gather(*(batcher.submit([i]) for i in (0, 1, 2)), return_exceptions=True))

    first, second, third = asyncio.run(ask())
    assert isinstance(first, RuntimeError) and isinstance(second, RuntimeError)
    assert third == [2]


def test_a_batcher_skips_what_was_cancelled_while_it_waited() -> None:
    batches: list[list[int]] = []

    def run(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    async def ask() -> list[int]:
        batcher = Batcher(run, max_items=8)
        given_up = asyncio.ensure_future(batcher.submit([1]))
        kept = asyncio.ensure_future(batcher.submit([2]))
        await asyncio.sleep(0)
        given_up.cancel()
        return await kept

    assert asyncio.run(ask()) == [2]
    assert batches == [[2]]
