"""The lock of a bank on a system without ``fcntl``."""

from __future__ import annotations

import importlib
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
