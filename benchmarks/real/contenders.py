"""The engines of `benchmarks.real.engines`, each measured in a process of its own.

python -m benchmarks.real.contenders JOB.json OUT.json
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.engine.measure import status
from benchmarks.engine.peers import Continuation

Prompts = Sequence[Sequence[int]]
SLOTS = 64
"""Requests that the server computes at once."""
ROOM = 512
"""Tokens of the longest row of the server."""


@dataclass(frozen=True)
class Ends:
    """What ends a row early.

    Args:
        reply: the ids that end a reply.
        line: the ids that end a line.
    """

    reply: tuple[int, ...]
    line: tuple[int, ...]


class Contender(Protocol):
    """An engine with a model."""

    dtype: str
    """Of the weights, or of the arithmetic where it dequantises them."""

    def sample(self, prompts: Prompts, tokens: int, temperature: float, *, line: bool = False) -> list[Continuation]:
        """One continuation of each prompt, all at once. With ``line`` they end with their first line."""
        ...


class Local:
    """Our engine, or llama.cpp in our process: both run rows."""

    def __init__(self, model: Path, engine: str, ends: Ends) -> None:
        if engine == "own":
            from thinktime.models.engine.models import load_language_model

            loaded: Any = load_language_model(model, "auto")
        else:
            from thinktime.models.engine.llamacpp_model import load_llamacpp_model

            loaded = load_llamacpp_model(model)
        self.dtype, self._ends, self._keys = loaded.weights_dtype, ends, itertools.count()
        self._engine = loaded.engine()

    def sample(self, prompts: Prompts, tokens: int, temperature: float, *, line: bool = False) -> list[Continuation]:
        """See `Contender`."""
        from thinktime.models.engine.rows import Row

        stops = frozenset(self._ends.line) if line else frozenset()
        rows = [Row(tuple(ids), next(self._keys), tokens, temperature, stop_ids=stops) for ids in prompts]
        return [Continuation(output.ids, sum(output.logprobs)) for output in self._engine.run(rows)]


class LlamaServer:
    """llama.cpp's own server in this process, asked over HTTP. It keeps the keys and values of earlier prompts."""

    dtype = "as in the file"

    def __init__(self, model: Path, ends: Ends) -> None:
        from xllamacpp import CommonParams, Server

        from thinktime.models.engine.llamacpp_model import idle_cores

        params = CommonParams()
        params.model.path, params.port, params.verbosity = str(model), 0, 1
        params.n_parallel, params.n_ctx = SLOTS, SLOTS * ROOM
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = idle_cores()
        self._server = Server(params)  # it ends with this object
        self._url, self._ends, self._seeds = f"{self._server.listening_address}/completion", ends, itertools.count()

    def sample(self, prompts: Prompts, tokens: int, temperature: float, *, line: bool = False) -> list[Continuation]:
        """See `Contender`."""
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda ids: self._one(ids, tokens, temperature, line=line), prompts))

    def _one(self, ids: Sequence[int], tokens: int, temperature: float, *, line: bool) -> Continuation:
        asked: dict[str, Any] = {"prompt": list(ids), "n_predict": tokens, "temperature": temperature}
        asked |= {"seed": next(self._seeds), "samplers": ["temperature"], "return_tokens": True}
        asked |= {"stop": ["\n"], "n_probs": 1} if line else {}
        request = urllib.request.Request(self._url, json.dumps(asked).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            reply = json.load(response)
        drawn = [each["logprob"] for each in reply.get("completion_probabilities", [])]
        end = {"word": self._ends.line[:1], "eos": self._ends.reply[:1]}.get(reply.get("stop_type"), ())
        found = (*reply["tokens"], *end)
        return Continuation(found[:tokens], sum(drawn))


class Generate:
    """``generate`` of transformers on a padded batch, in the fastest type of this processor for it."""

    def __init__(self, directory: Path, ends: Ends) -> None:
        import torch

        from benchmarks.engine.peers import Transformers

        dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
        self.dtype, self._ends, self._model = str(dtype).removeprefix("torch."), ends, Transformers(directory, dtype)

    def sample(self, prompts: Prompts, tokens: int, temperature: float, *, line: bool = False) -> list[Continuation]:
        """See `Contender`."""
        ends = self._ends.reply + (self._ends.line if line else ())
        return self._model.generate(prompts, tokens, ends, temperature, logprobs=line)


def contenders(job: Mapping[str, Any], ends: Ends) -> dict[str, Callable[[], Contender]]:
    """The engines by name."""
    model, directory = Path(job["model"]), Path(job["directory"])
    return {
        "own": lambda: Local(model, "own", ends),
        "llama.cpp in process": lambda: Local(model, "llamacpp", ends),
        "llama.cpp server": lambda: LlamaServer(model, ends),
        "transformers generate": lambda: Generate(directory, ends),
    }


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one contender.

    Args:
        job: ``contender``; ``model`` and ``directory``; ``started``, the time at which this process was started;
            ``ends`` with ``reply`` and ``line``; ``first``, a prompt; ``rows``, prompts by their number; ``tree``,
            prompts; ``tokens`` of a reply; ``line_tokens``, ``width`` and ``depth`` of the search.
    """
    from benchmarks.engine.tree import grow

    ends = Ends(tuple(job["ends"]["reply"]), tuple(job["ends"]["line"]))
    contender = contenders(job, ends)[job["contender"]]()
    (reply,) = contender.sample([job["first"]], job["tokens"], 0.0)
    first = time.time() - job["started"]
    rates = {}
    for n, prompts in job["rows"].items():
        started = time.perf_counter()
        outputs = contender.sample(prompts, job["tokens"], 1.0)
        rates[n] = sum(len(output.ids) for output in outputs) / (time.perf_counter() - started)
    memory = status("VmHWM") / 2**20
    grown = grow(
        [tuple(prompt) for prompt in job["tree"]],
        lambda prefixes: contender.sample(prefixes, job["line_tokens"], 1.0, line=True),
        ends.reply,
        job["width"],
        job["depth"],
    )
    return {
        "dtype": contender.dtype,
        "first_answer_seconds": first,
        "first_answer": list(reply.ids),
        "tokens_per_second": rates,
        "peak_memory_mb": memory,
        "tree_seconds_per_problem": grown.timed.seconds / len(job["tree"]),
        "tree_tokens_per_second": grown.timed.rate,
    }


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    if job["contender"] == "agreement":
        from benchmarks.real.agreement import agreement

        found = agreement(Path(job["model"]), job["agreement"], job["tokens"])
    else:
        found = measure(job)
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
