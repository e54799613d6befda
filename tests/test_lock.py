"""Systems without ``fcntl`` and ``resource``: the lock of a bank, and a question to the shipped model."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from thinktime.bank import lock


def test_without_fcntl_a_byte_that_no_bank_has_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[int, int]] = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        if held:
            raise PermissionError("another process has it")
        held.append((mode, count))

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    try:
        windows = importlib.reload(lock)
        with (tmp_path / "bank.db").open("ab") as file:
            windows.lock(file)
            assert file.tell() == windows.BEYOND and held == [(2, 1)]
            with pytest.raises(BlockingIOError, match="another process has it"):
                windows.lock(file)
        assert (tmp_path / "bank.db").stat().st_size == 0
    finally:
        monkeypatch.undo()
        importlib.reload(lock)


HIDDEN = """
import asyncio, subprocess, sys, types
sys.modules["fcntl"] = sys.modules["resource"] = None
sys.modules["msvcrt"] = types.SimpleNamespace(locking=lambda *_: None, LK_NBLCK=2)
import thinktime
answer = thinktime.solve("Prices: figs 5 coins. Ben buys 7 figs. How many coins does Ben pay?", bank=sys.argv[1])
import thinktime.cli, thinktime.gateway.server, thinktime.models.engine.template_process
print(answer.value)
"""


def test_without_fcntl_and_resource_the_shipped_model_answers_and_everything_can_be_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", HIDDEN, str(tmp_path / "bank.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("35\n", "", 0)
