"""Products with packed float16 weights: the same numbers in one matrix and in several."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from thinktime.models.engine import products
from thinktime.models.engine.products import packed_product, packs

pytestmark = pytest.mark.skipif(
    not packs(torch.float16, torch.device("cpu")), reason="this build of torch has no packed float16 weights"
)


def layers(*rows: int, bias: bool) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(600, n, bias=bias, dtype=torch.float16) for n in rows]


def packed(*projections: nn.Linear, most: int, monkeypatch: pytest.MonkeyPatch) -> products.Product:
    monkeypatch.setattr(products, "MOST_ROWS", most)
    with ThreadPoolExecutor(2) as pool:
        return packed_product(pool, *projections)


@torch.inference_mode()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("most", [32, 64, 100])
def test_a_matrix_in_parts_has_the_numbers_of_the_whole(bias: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.cat([layer.weight.data for layer in layers(70, 41, bias=bias)]).float()
    whole = packed(*layers(70, 41, bias=bias), most=1000, monkeypatch=monkeypatch)
    parts = packed(*layers(70, 41, bias=bias), most=most, monkeypatch=monkeypatch)
    for rows in (1, 5, 64):
        x, onto = torch.randn(rows, 600), torch.randn(rows, 111)
        assert torch.equal(whole(x, None), parts(x, None))
        assert torch.equal(whole(x, onto.clone()), parts(x, onto.clone()))
        if not bias:
            torch.testing.assert_close(parts(x, None), x @ weights.t(), rtol=1e-4, atol=1e-4)


def test_the_layers_own_weights_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = layers(40, 40, bias=False)
    packed(first, second, most=64, monkeypatch=monkeypatch)
    assert not first.weight.numel() and not second.weight.numel()


def test_an_error_of_a_thread_is_raised_by_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Tensor) -> None:
        raise RuntimeError("no such product")

    monkeypatch.setattr(products, "_pack", failing)
    product = packed(*layers(40, bias=False), most=64, monkeypatch=monkeypatch)
    with pytest.raises(RuntimeError, match="no such product"):
        product(torch.randn(1, 600), None)
