"""llama.cpp's own server on a pocket model, out of a wheel; prints its address and serves until it is ended.

python tests/llama_server.py MODEL_DIRECTORY
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

from xllamacpp import CommonParams, Server

from benchmarks.engine.llama_cpp import write_gguf


def main(directory: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{directory.name}.gguf"
        write_gguf(directory, path, vocabulary=True)
        params = CommonParams()
        params.model.path, params.port, params.warmup = str(path), 0, False
        params.n_parallel, params.n_ctx = 8, 8 * 512
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.verbosity = 1
        server = Server(params)
        print(server.listening_address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
