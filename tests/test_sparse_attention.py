"""Sparse attention against a reference in plain loops, and against dense decoding."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tiny import EOS, tiny_engine, tiny_model, tiny_shape

from experiments.kinetics.attention import DENSE_LAYERS, Rows, kept
from thinktime.models.engine.rows import Row
from thinktime.planning.kinetics import Sparse

PROMPTS = [[4 + (7 * i + j * j) % 30 for j in range(n)] for i, n in enumerate((40, 29, 33))]


def ends(reply: Sequence[int]) -> bool:
    return reply[-1] == EOS


def kept_by_hand(sparse: Sparse, scores: list[list[float]], position: int) -> set[int]:
    """The positions of one key head: ``scores`` are those of the queries that share it, by position."""
    n = position + 1
    if n <= sparse.budget:
        return set(range(n))
    end = n - sparse.last
    always = {*range(sparse.sink), *range(end, n)}
    means = [sum(of[place] for of in scores) / len(scores) for place in range(n)]
    if sparse.kind == "local":
        return always
    if sparse.kind == "topk":
        return always | set(sorted(range(sparse.sink, end), key=lambda place: -means[place])[: sparse.middle])
    blocks = [list(range(a, a + sparse.block)) for a in range(sparse.sink, end, sparse.block)]
    rest = set(blocks.pop()) & set(range(end)) if len(blocks[-1]) and blocks[-1][-1] >= end else set()
    best = sorted(blocks, key=lambda block: -sum(means[place] for place in block))[: sparse.middle // sparse.block]
    return always | rest | {place for block in best for place in block}


@pytest.mark.parametrize(
    "sparse",
    [
        Sparse("topk", 20, sink=2, local=5),
        Sparse("block_topk", 20, sink=2, local=5, block=4),
        Sparse("block_topk", 23, sink=0, local=3, block=5),
        Sparse("local", 12, sink=3),
    ],
)
def test_the_kept_positions_are_those_of_a_loop(sparse: Sparse) -> None:
    positions = torch.tensor([5, 19, 20, 31, 38])
    scores = torch.randn(5, 2, 3, 39, generator=torch.Generator().manual_seed(1))
    found = kept(sparse, scores, positions, torch.Generator())
    for row, position in enumerate(positions.tolist()):
        for head in range(2):
            expected = kept_by_hand(sparse, scores[row, head].tolist(), position)
            assert set(found[row, head].nonzero().flatten().tolist()) == expected


def test_random_positions_are_as_many_and_keep_the_ends() -> None:
    sparse, positions = Sparse("random", 20, sink=2, local=5), torch.tensor([38, 12])
    scores = torch.zeros(2, 2, 3, 39)
    drawn = [kept(sparse, scores, positions, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert drawn[0].sum(-1).tolist() == [[20, 20], [13, 13]]
    assert drawn[0][0, :, :2].all() and drawn[0][0, :, -5:].all()


@pytest.mark.parametrize("prompts", [PROMPTS, [[5, 9, *ids] for ids in PROMPTS], [PROMPTS[0], PROMPTS[0][:11]]])
def test_dense_decoding_is_that_of_the_engine(prompts: list[list[int]]) -> None:
    model = tiny_model()
    rows = Rows(model, tiny_shape(model), prompts, 24, torch.float64)
    expected = tiny_engine(model).run([Row(tuple(p), key=0, max_tokens=24, temperature=0.0) for p in prompts])
    assert rows.greedy(ends).replies == [list(output.ids) for output in expected]


@pytest.mark.parametrize("kind", ["topk", "block_topk", "local", "random"])
def test_a_budget_of_the_whole_context_is_dense_attention_exactly(kind: str) -> None:
    model = tiny_model()
    rows = Rows(model, tiny_shape(model), PROMPTS, 24, torch.float64)
    wide = Sparse(kind, 64 + 4, sink=2, local=4, block=2)
    found = rows.greedy(ends, wide)
    assert found.replies == rows.greedy(ends).replies
    assert found.shares[wide].mean == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["topk", "block_topk", "local"])
def test_sparse_decoding_equals_a_forward_pass_with_the_same_mask(kind: str) -> None:
    """Every token is read again with plain attention, masked by the loop above; the prompt stays dense."""
    model, prompt = tiny_model(), PROMPTS[0]
    sparse = Sparse(kind, 16, sink=2, local=4, block=4)
    (reply,) = Rows(model, tiny_shape(model), [prompt], 12, torch.float64).greedy(lambda _: False, sparse).replies
    dense = Rows(model, tiny_shape(model), [prompt], 12, torch.float64).greedy(lambda _: False).replies[0]
    assert reply != dense

    def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(q)
        for position in range(len(q)):
            for head in range(4):
                scores = [(k[: position + 1, head // 2] @ q[position, 2 * (head // 2) + i] / 8**0.5) for i in range(2)]
                places = list(range(position + 1))
                if position >= len(prompt) and layer not in DENSE_LAYERS:
                    places = sorted(kept_by_hand(sparse, [of.tolist() for of in scores], position))
                out[position, head] = scores[head % 2][places].softmax(-1) @ v[places, head // 2]
        return out

    ids = torch.tensor(prompt + reply[:-1])
    with torch.inference_mode():
        logits = model.head(model.hidden(ids, torch.arange(len(ids)), attend))
    assert logits[len(prompt) - 1 :].argmax(-1).tolist() == reply


def test_the_watched_kinds_change_nothing_and_the_best_positions_keep_the_most_attention() -> None:
    model = tiny_model()
    rows = Rows(model, tiny_shape(model), PROMPTS, 24, torch.float64)
    kinds = [Sparse(kind, 16, sink=2, local=4, block=4) for kind in ("topk", "block_topk", "local", "random")]
    found = rows.greedy(ends, watched=kinds)
    assert found.replies == rows.greedy(ends).replies
    shares = [found.shares[kind].mean for kind in kinds]
    assert 1 > shares[0] > max(shares[1:])
