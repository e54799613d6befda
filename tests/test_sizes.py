"""Sizes of open models: the parameters that one token is multiplied with, and models without a known size."""

from __future__ import annotations

import pytest

from thinktime.models.remote.sizes import LISTED, DecoderShape, active_parameters

BEHIND_THE_TABLE = {
    "llama-3.1-8b": 7.0,
    "qwen2.5-0.5b": 0.36,
    "qwen2.5-1.5b": 1.31,
    "qwen2.5-3b": 2.77,
    "qwen2.5-7b": 6.53,
    "qwen2.5-32b": 31.0,
    "qwen2.5-72b": 70.0,
    "qwen3-0.6b": 0.44,
    "qwen3-1.7b": 1.4,
    "qwen3-4b": 3.6,
    "qwen3-8b": 6.95,
    "qwen3-14b": 13.2,
    "qwen3-32b": 31.2,
}
"""Billions of parameters without embeddings, rounded as in the model cards."""


def test_a_shape_counts_every_matrix_a_token_goes_through() -> None:
    one = DecoderShape(layers=2, hidden=4, heads=2, kv_heads=1, head_dim=3, intermediate=5, vocabulary=7)
    attention = 4 * 6 + 4 * 3 + 4 * 3 + 6 * 4  # queries, keys, values, output
    assert one.active == 2 * (attention + 3 * 4 * 5) + 4 * 7
    mixture = DecoderShape(2, 4, 2, 1, 3, 5, 7, experts=2, of=8)
    assert mixture.active == 2 * (attention + 2 * 3 * 4 * 5 + 4 * 8) + 4 * 7


@pytest.mark.parametrize("name", BEHIND_THE_TABLE)
def test_shapes_give_the_sizes_of_the_model_cards(name: str) -> None:
    shape = LISTED[name]
    inner = (shape.active - shape.hidden * shape.vocabulary) / 1e9
    assert inner == pytest.approx(BEHIND_THE_TABLE[name], rel=0.015)


def test_a_mixture_of_experts_counts_only_the_experts_of_one_token() -> None:
    assert 3.0e9 < LISTED["qwen3-30b-a3b"].active < 3.35e9
    assert 21e9 < LISTED["qwen3-235b-a22b"].active < 22.5e9


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-8B", "qwen3:8b", "qwen3-8b", "Qwen/Qwen3-8B-FP8", "/models/Qwen3-8B-AWQ", "Qwen/Qwen3-8B-Base"]
)
def test_other_spellings_of_a_model_have_the_same_size(name: str) -> None:
    assert active_parameters(name) == LISTED["qwen3-8b"].active


@pytest.mark.parametrize("name", ["", "words", "my-qwen3-8b", "qwen3-8b-draft", "qwen3-9b", "gpt-5", "qwen3"])
def test_a_model_that_is_not_listed_has_no_size(name: str) -> None:
    assert active_parameters(name) is None


def test_suffixes_for_version_and_tuning_are_ignored() -> None:
    assert active_parameters("mistralai/Mistral-7B-Instruct-v0.3") == LISTED["mistral-7b-v0.3"].active
    assert active_parameters("mistralai/Mistral-7B-Instruct-v0.1") is None
    assert active_parameters("meta-llama/Meta-Llama-3.1-8B-Instruct") == LISTED["llama-3.1-8b"].active
