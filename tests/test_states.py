"""Hidden states by segment: the means equal those of a plain forward pass in any schedule of the engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import EOS, tiny_engine, tiny_model, words
from torch import Tensor

from thinktime.core.errors import InputError
from thinktime.models.engine.llama import causal
from thinktime.models.engine.rows import Read, Row
from thinktime.models.engine.states import SegmentMeans, Segments

EVERY_3 = Segments(layers=(0, 1), tokens=3)


def states_in_full(ids: tuple[int, ...], labels: int = 0) -> Tensor:
    """Hidden states ``[tokens, layers, hidden]`` after every layer of one pass over all ids."""
    model = tiny_model(labels=labels).model
    with torch.inference_mode():
        x = model.embed_tokens(torch.tensor(ids))
        cos, sin = model.rotations(torch.arange(len(ids)), x.dtype)
        layers = []
        for index, layer in enumerate(model.layers):
            x = layer(x, cos, sin, causal, index)
            layers.append(x)
    return torch.stack(layers, 1).float()


def means_of(states: Tensor, lengths: list[int]) -> Tensor:
    return torch.stack([part.mean(0) for part in torch.split(states, lengths)])


def in_threes(n: int) -> list[int]:
    return [3] * (n // 3) + ([n % 3] if n % 3 else [])


@pytest.mark.parametrize(
    "options",
    [{}, {"max_tokens": 4}, {"max_rows": 2}, {"blocks": 9}, {"chunked": False}],
    ids=["a crowd", "small chunks", "two at once", "preempted", "whole prompts"],
)
def test_the_means_of_a_rows_tokens_equal_those_of_a_plain_forward_pass(options: dict[str, Any]) -> None:
    engine = tiny_engine(end_ids=frozenset(), **options)
    rows = [Row(words(9 + i, i), i, max_tokens=34 + i, segments=EVERY_3 if i % 2 else None) for i in range(6)]
    twin = Row(rows[1].ids, rows[1].key, rows[1].max_tokens, segments=Segments((1,)))
    *outputs, of_twin = engine.run([*rows, twin])
    for row, output in zip(rows, outputs, strict=True):
        if row.segments is None:
            assert output.states is None
            continue
        said = states_in_full((*row.ids, *output.ids))[len(row.ids) : -1]
        torch.testing.assert_close(output.states, means_of(said, in_threes(len(said))), atol=1e-5, rtol=1e-5)
    said = states_in_full((*twin.ids, *of_twin.ids))[len(twin.ids) : -1]
    torch.testing.assert_close(of_twin.states, said.mean(0)[1:][None], atol=1e-5, rtol=1e-5)
    assert engine.preemptions > 0 or "blocks" not in options


def test_a_paused_row_that_loses_its_blocks_counts_every_token_once() -> None:
    engine = tiny_engine(end_ids=frozenset(), blocks=6)
    row = Row(words(20), 1, max_tokens=20, segments=EVERY_3)
    job = engine.submit(row)
    for _ in range(9):
        engine.step()
    engine.pause(job)
    engine.run([Row(words(60, 2), 2, max_tokens=8)])
    assert engine.preemptions == 1
    engine.resume(job)
    while not job.done:
        engine.step()
    assert job.output is not None
    said = states_in_full((*row.ids, *job.output.ids))[20:-1]
    torch.testing.assert_close(job.output.states, means_of(said, in_threes(19)), atol=1e-5, rtol=1e-5)


def test_a_segment_ends_after_an_end_id_and_the_last_one_can_be_short() -> None:
    ids = (*words(5), 7, *words(4, 1), 7, *words(2, 2))
    ids = tuple(8 if i == 7 and index not in (5, 10) else i for index, i in enumerate(ids))
    [output] = tiny_engine().run([Read(ids, 1, Segments((0, 1), end_ids=frozenset({7})))])
    torch.testing.assert_close(output.states, means_of(states_in_full(ids)[1:], [5, 5, 2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("labels", [0, 2], ids=["a language model", "a classifier"])
def test_a_read_gives_states_even_if_all_ids_are_stored(labels: int) -> None:
    engine = tiny_engine(tiny_model(labels=labels))
    ids = words(30)
    plain, with_states, again = (
        engine.run([Read(ids, 12, segments)])[0] for segments in (None, Segments((1,)), Segments((1,)))
    )
    expected = states_in_full(ids, labels)[12:].mean(0)[1:][None]
    for output in (with_states, again):
        torch.testing.assert_close(output.states, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.values, plain.values)


def test_a_row_of_one_token_has_no_states_because_the_token_is_not_processed() -> None:
    [output] = tiny_engine(end_ids=frozenset()).run([Row(words(5), 1, max_tokens=1, segments=EVERY_3)])
    assert output.states is not None
    assert output.states.shape == (0,)


def test_a_cancelled_row_gives_its_means_so_far() -> None:
    engine = tiny_engine(end_ids=frozenset())
    job = engine.submit(Row(words(5), 1, max_tokens=50, segments=EVERY_3))
    for _ in range(6):
        engine.step()
    engine.cancel(job)
    assert job.output is not None
    assert job.output.states is not None
    assert job.output.states.shape == (2, 2, 32)


@pytest.mark.parametrize("layers", [(), (2,), (-1,)])
def test_layers_that_the_model_lacks_are_refused_by_name(layers: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"layers.*0 to 1"):
        tiny_engine().submit(Row(words(5), 1, max_tokens=2, segments=Segments(layers)))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 5), st.integers(0, 4))
def test_the_means_do_not_depend_on_the_chunks(chunks: list[int], again: int, tokens: int) -> None:
    n = sum(chunks)
    states, ids = torch.randn(n, 4, generator=torch.Generator().manual_seed(n)), [EOS + i % 5 for i in range(n)]
    segments = Segments((3,), tokens, frozenset({EOS + 4}))
    whole, pieces = SegmentMeans(segments, 10), SegmentMeans(segments, 10)
    whole.add({3: states}, ids, 10)
    at = 0
    for chunk in chunks:
        begin = max(0, at - again)  # a part is processed a second time
        pieces.add({3: states[begin : at + chunk]}, ids[begin : at + chunk], 10 + begin)
        at += chunk
    torch.testing.assert_close(pieces.tensor(), whole.tensor())
