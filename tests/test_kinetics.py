"""The cost laws of Kinetics, sparse attention in the laws, and the plan within a budget."""

from __future__ import annotations

import pytest

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.models.engine.costs import Shape
from thinktime.planning.kinetics import (
    DEVICES,
    Sized,
    Sparse,
    architecture,
    attended_positions,
    best_within,
    intensity,
    kinetics,
    recorded,
)

QWEN3_8B = Shape(layers=36, heads=32, kv_heads=8, head_dim=128, parameters=8_190_000_000, bytes_per_value=2)
TINY = Shape(layers=6, heads=8, kv_heads=8, head_dim=32, parameters=5_000_000, bytes_per_value=2)
SMALL = Shape(layers=2, heads=4, kv_heads=2, head_dim=8, parameters=1000, bytes_per_value=2)


@pytest.mark.parametrize(
    ("shape", "prompt", "generated", "samples", "computing", "traffic"),
    [
        (QWEN3_8B, 200, 10000, 1, 1.944708e14, 4.313088e15),
        (QWEN3_8B, 200, 2000, 8, 2.734046e14, 1.360282e15),
        (TINY, 64, 256, 1, 2.861990e9, 1.698693e11),
        (TINY, 64, 256, 16, 4.579184e10, 1.868562e12),
    ],
)
def test_the_cost_of_a_problem_is_that_of_the_paper(
    shape: Shape, prompt: int, generated: int, samples: int, computing: float, traffic: float
) -> None:
    cost = kinetics(shape, samples, prompt, generated)
    assert cost.flops == cost.linear + cost.attention == pytest.approx(computing, rel=1e-6)
    assert intensity("b200") * cost.kv_bytes == pytest.approx(traffic, rel=1e-6)
    assert cost.eflops("b200", prefill=False) == pytest.approx(computing + traffic, rel=1e-6)


def test_the_prompt_and_the_weights_are_charged_apart() -> None:
    cost = kinetics(SMALL, 4, 10, 5)
    assert cost.prefill == 2 * 1000 * 10 + 2 * (2 * 2 * 8 * 2) * 10**2  # group 2, and 2 * 8 * 2 keys of a token
    assert cost.weight_bytes == 2 * 1000 * 5
    assert kinetics(SMALL, 4, 10, 5, batch=2).weight_bytes == 2 * cost.weight_bytes
    assert cost.eflops(3.0) == cost.flops + cost.prefill + 3 * cost.kv_bytes
    assert cost.eflops(3.0, weights=True) == cost.eflops(3.0) + 3 * cost.weight_bytes
    assert (cost.samples, cost.prompt, cost.generated, cost.search) == (4, 10, 5, 0)
    assert set(cost.as_dict()) >= {"linear", "attention", "kv_bytes", "prefill", "weight_bytes"}


def test_samples_that_are_decoded_apart_read_the_prompt_each() -> None:
    together, apart, one = (
        kinetics(SMALL, 8, 100, 5),
        kinetics(SMALL, 8, 100, 5, sharing=False),
        kinetics(SMALL, 1, 100, 5),
    )
    assert apart.kv_bytes == 8 * one.kv_bytes > together.kv_bytes
    assert apart.flops == together.flops == 8 * one.flops


@pytest.mark.parametrize(
    ("budget", "prompt", "generated", "expected"),
    [(1024, 100, 4000, 3_669_574), (10, 100, 7, 70), (1000, 5, 3, 6 + 7 + 8), (7, 5, 4, 6 + 7 + 7 + 7), (9, 3, 0, 0)],
)
def test_attended_positions_are_counted_exactly(budget: int, prompt: int, generated: int, expected: int) -> None:
    assert attended_positions(budget, prompt, generated) == expected
    assert expected == sum(min(budget, prompt + t) for t in range(1, generated + 1))


def test_sparse_attention_costs_what_its_budget_attends_to() -> None:
    found = kinetics(SMALL, 3, 100, 40, sparse=Sparse("topk", 32, sink=2, local=8))
    assert found.attention == 3 * 4 * (32 * 40) * 4 * 8 * 2
    assert found.kv_bytes == 3 * 4 * (32 * 40) * 2 * 8 * 2
    assert found.search == 0 and found.linear == kinetics(SMALL, 3, 100, 40).linear


def test_the_search_of_blocks_reads_a_key_for_each() -> None:
    top = kinetics(SMALL, 3, 100, 40, sparse=Sparse("topk", 32, sink=2, local=8))
    blocks = kinetics(SMALL, 3, 100, 40, sparse=Sparse("block_topk", 32, sink=2, local=8, block=16))
    assert blocks.search == 3 * (240 // 16) * 40 * 4 * 8 * 2
    assert blocks.kv_bytes - top.kv_bytes == ((200 + 120) // 16) * 40 * 2 * 8 * 2
    assert blocks.attention == top.attention


def test_a_budget_of_the_whole_context_costs_as_much_as_dense_attention() -> None:
    dense, sparse = kinetics(SMALL, 1, 100, 400), kinetics(SMALL, 1, 100, 400, sparse=Sparse("local", 500))
    assert sparse.attention == pytest.approx(dense.attention, rel=0.01)
    assert sparse.kv_bytes == pytest.approx(dense.kv_bytes, rel=0.01)


def test_the_cost_of_recorded_samples_is_that_of_each_and_not_of_the_mean_length() -> None:
    found = recorded(SMALL, [10, 10], [100, 300], 2)
    each = [kinetics(SMALL, 2, 10, n).kv_bytes for n in (100, 300)]
    assert found.kv_bytes == sum(each) / 2 > kinetics(SMALL, 2, 10, 200).kv_bytes
    with pytest.raises(InputError, match="2 prompts, 1 lengths': give one of each for a sample"):
        recorded(SMALL, [1, 2], [1])
    with pytest.raises(InputError, match="0 prompts, 0 lengths"):
        recorded(SMALL, [], [])


def test_what_a_sparse_attention_keeps() -> None:
    top, blocks, window = Sparse("topk", 100), Sparse("block_topk", 100), Sparse("local", 100)
    assert [(s.middle, s.last) for s in (top, blocks, window)] == [(32, 64), (32, 64), (0, 96)]
    assert (Sparse("block_topk", 90).middle, Sparse("block_topk", 90).last) == (16, 70)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "topk", "budget": 68}, "budget=68: topk attention with these options needs 69 or more"),
        ({"kind": "block_topk", "budget": 70}, "budget=70: block_topk attention with these options needs 84 or more"),
        ({"kind": "local", "budget": 4}, "budget=4: local attention with these options needs 5 or more"),
        ({"kind": "topk", "budget": 99, "local": 0}, "local=0: give 1 or more"),
        ({"kind": "topk", "budget": 99, "sink": -1}, "sink=-1: give 0 or more"),
        ({"kind": "block_topk", "budget": 99, "block": 0}, "block=0: give 1 or more"),
    ],
)
def test_a_sparse_attention_that_cannot_be_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sparse(**options)  # type: ignore[arg-type]


def test_there_is_one_kind_of_sparse_attention_at_once() -> None:
    with pytest.raises(UnknownNameError, match="attention='topk,local': unknown"):
        Sparse("topk,local", 100)


def test_a_device_is_a_name_or_a_number_above_0() -> None:
    assert intensity("b200") == 562.5 == 4.5e15 / 8e12 and intensity("b200-dense") == DEVICES["b200"] / 2
    assert intensity(7.5) == 7.5
    with pytest.raises(UnknownNameError, match="device='b20': unknown; did you mean 'b200'"):
        intensity("b20")
    for number in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="its FLOPs per byte are a number above 0"):
            intensity(number)


def test_an_architecture_lists_what_it_lacks() -> None:
    numbers = {"layers": 36, "heads": 32, "kv_heads": 8, "head_dim": 128, "parameters": 8.19e9}
    assert architecture(numbers) == QWEN3_8B
    with pytest.raises(InputError, match="it lacks kv_heads, parameters; give them all"):
        architecture({"layers": 36, "heads": 32, "kv_heads": None, "head_dim": 128})
    with pytest.raises(InputError, match="kv_heads=5: it has to divide the 32 heads"):
        architecture(numbers | {"kv_heads": 5})
    for value in (0, 1.5, "36", float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"layers=.*: give a whole number above 0"):
            architecture(numbers | {"layers": value})


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 1, 1, None), "samples=0: give 1 or more"),
        ((1, -1, 1, None), "prompt=-1: give 0 or more"),
        ((1, 1, -1, None), "generated=-1: give 0 or more"),
        ((1, 1, 1, 0), "batch=0: give 1 or more"),
    ],
)
def test_a_cost_of_impossible_numbers_is_refused(numbers: tuple[int, int, int, int | None], message: str) -> None:
    samples, prompt, generated, batch = numbers
    with pytest.raises(InputError, match=message):
        kinetics(SMALL, samples, prompt, generated, batch=batch)


def test_the_best_plan_within_a_budget_prefers_fewer_tokens_in_sequence_and_then_the_cheaper_one() -> None:
    plans = [
        Sized("small", 1, 64, 0.3, 10, 64),
        Sized("small", 8, 64, 0.5, 80, 64),
        Sized("large", 1, 128, 0.5, 70, 128),
        Sized("large", 1, 64, 0.5, 90, 64),
        Sized("large", 8, 64, 0.9, 500, 64),
    ]
    assert best_within(plans, 100) == plans[1]
    assert best_within(plans, 75) == plans[2]
    assert best_within(plans, 1e9) == plans[4]
    with pytest.raises(
        InputError, match=r"budget='5 eFLOPs': the smallest plan costs 10 eFLOPs \(model small, N=1, cap 64\)"
    ):
        best_within(plans, 5)
