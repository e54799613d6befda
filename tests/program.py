"""The program in processes of its own. One process imports it and forks the others, so that each starts at once."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from waiting import PATIENCE

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "thinktime.cli",
        "thinktime.models.engine.models",
        "thinktime.bench.bank_export",
        "thinktime.bench.runner",
        "thinktime.bench.report",
        "thinktime.generators.local",
        "thinktime.scorers.prm",
    ]
)
"""What takes seconds to import, and what a bench imports when it runs."""


@dataclass(frozen=True)
class Finished:
    """The result of a command: exit code, output, errors."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The object that a command without errors printed."""
        assert self.code == 0, self.err
        value: dict[str, Any] = json.loads(self.out)
        return value


class Program:
    """``thinktime`` with these arguments in a folder, as a shell starts it.

    Args:
        folder: the working directory.
        arguments: words of the command line after ``thinktime``.
        in_background: Ctrl-C is ignored, as in a job that a shell starts with ``&``.
        largest_file: bytes after which a write fails, as on a full disk.
    """

    def __init__(
        self, folder: Path, *arguments: str, in_background: bool = False, largest_file: int | None = None
    ) -> None:
        self._output = TemporaryDirectory()
        self._files = [Path(self._output.name) / name for name in ("out", "err")]
        settings = (dict(os.environ), list(map(str, self._files)), in_background, largest_file)
        self._process = FORKS.Process(target=_run, args=(str(folder), arguments, *settings))
        self._process.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def send(self, *kinds: signal.Signals) -> None:
        """Send signals to it."""
        for kind in kinds:
            assert self._process.pid is not None
            os.kill(self._process.pid, kind)

    def finish(self) -> Finished:
        """Wait for its end."""
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, "it does not end"
        out, err = (file.read_text() for file in self._files)
        return Finished(self._process.exitcode, out, err)


def _run(
    folder: str,
    arguments: Sequence[str],
    environment: dict[str, str],
    files: list[str],
    in_background: bool,
    largest_file: int | None,
) -> None:
    """The main function of a forked process."""
    from thinktime import cli

    os.environ.clear()
    os.environ.update(environment)
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN if in_background else signal.default_int_handler)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    os.chdir(folder)
    sys.argv = ["thinktime", *arguments]
    cli.run()
