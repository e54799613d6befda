"""The training loop: its log, checkpoints, schedule and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinktime.models.engine.llama import Llama, LlamaConfig
from training.loop import PAD_ID, TrainingRun, options, rate_scale, start_as_identity

IDS = torch.tensor([[3, 4, 5, 6, 3, 4, 5, 6], [4, 5, 6, 3, 4, PAD_ID, PAD_ID, PAD_ID]])


def trained(out: Path, *, steps: int = 60, stop: int | None = None) -> tuple[Llama, nn.Linear, list[int]]:
    """A tiny model trained on the same two rows, its head, and the token count after every step."""
    words = ["--out", str(out), "--steps", str(steps)]
    run = TrainingRun(options("", muon_rate=0.02, adam_rate=0.003).parse_args(words))
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    model, head, counts = Llama(config), nn.Linear(16, 1), list[int]()
    start_as_identity(model)

    def losses(ids: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        hidden = model.model(ids[:, :-1])
        text = F.cross_entropy(model.head(hidden).flatten(0, 1), ids[:, 1:].flatten())
        return {"text": text, "label": head(hidden).square().mean()}, ids

    run.train(
        model,
        repeat(IDS),
        losses,
        falling=0.5,
        heads=head,
        stop=stop,
        log_every=20,
        evaluate=lambda: {"dev": 7},
        evaluate_every=40,
        after_step=counts.append,
    )
    return model, head, counts


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_logs_losses_by_name_counts_tokens_without_padding_and_evaluates_at_intervals(tmp_path: Path) -> None:
    _, _, counts = trained(tmp_path)
    log = rows(tmp_path)
    assert counts == [13 * step for step in range(1, 61)]
    assert [(row["step"], row["tokens"]) for row in log] == [(20, 260), (40, 520), (60, 780)]
    assert [row.get("dev") for row in log] == [None, 7, None]
    assert log[0]["text"] > log[1]["text"] > log[2]["text"] > 0 and log[0]["label"] > log[2]["label"]


def test_the_model_is_saved_without_its_heads_at_every_log_row_and_at_the_end(tmp_path: Path) -> None:
    model, head, _ = trained(tmp_path)
    final = Llama.load(tmp_path / "final")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), final.parameters(), strict=True))
    assert (tmp_path / "latest" / "model.safetensors").exists()
    start = trained(tmp_path / "short", stop=1)[1]
    assert not torch.equal(start.weight, head.weight)


def test_a_run_can_stop_before_its_schedule_ends_and_a_seed_gives_the_same_weights(tmp_path: Path) -> None:
    short, again = (trained(tmp_path / name, stop=20)[0] for name in ("one", "two"))
    assert rows(tmp_path / "one")[-1]["step"] == 20
    assert all(torch.equal(a, b) for a, b in zip(short.parameters(), again.parameters(), strict=True))


def test_processes_get_neighbouring_rows_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TrainingRun(options("", muon_rate=0.1, adam_rate=0.1).parse_args(["--out", str(tmp_path), "--steps", "1"]))
    batches: Iterator[Sequence[int]] = iter([[1, 2, 3, 4, 5]])
    run.rank, run.world = 1, 2
    assert list(map(run.share, batches)) == [[2, 4]]


def test_the_learning_rate_rises_stays_constant_and_falls_to_zero() -> None:
    scales = [rate_scale(step, 1000, falling=0.5) for step in (0, 49, 400, 500, 750, 999)]
    assert scales == pytest.approx([0.02, 1, 1, 1, 0.5, 0.002])
