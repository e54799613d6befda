"""llama.cpp's own server, from a wheel, on a pocket model. It prints its address and serves until it is stopped.

python tests/llama_server.py MODEL.gguf
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from waiting import PATIENCE

if TYPE_CHECKING:
    from thinktime.generators.openai import RemoteGenerator


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The server in its own process, for the duration of a ``with`` block; yields the root of its API."""
    for needed in ("gguf", "xllamacpp"):
        pytest.importorskip(needed)
    from benchmarks.engine.llama_cpp import write_gguf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{directory.name}.gguf"
        write_gguf(directory, path, vocabulary=True)  # here, because the server needs no torch
        settings = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        server = subprocess.Popen(
            [sys.executable, __file__, str(path)], env=settings, stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip() + "/v1"
        finally:
            server.kill()
            server.wait(PATIENCE)


def remote(url: str) -> RemoteGenerator:
    """A generator on the server's only model.

    Its name lacks the server's port and folder, which differ from run to run. So the seeds, which depend on the name,
    are the same in every run.
    """
    from thinktime.generators.openai import RemoteGenerator
    from thinktime.models.remote.refusals import only_model

    generator = RemoteGenerator(url, only_model(url))
    generator.name = "llama.cpp"
    return generator


def main(path: Path) -> None:
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path, params.port, params.warmup = str(path), 0, False
    params.n_parallel, params.n_ctx = 8, 8 * 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity, params.endpoint_metrics = 1, True
    server = Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
