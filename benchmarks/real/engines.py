"""Our engine, llama.cpp (in process and its server) and ``generate`` of transformers on the same GGUF file.

    thinktime models pull qwen2.5-coder-0.5b-instruct
    python -m benchmarks.real.engines            # about ten minutes on two idle cores
    python -m benchmarks.real.engines --quick    # every part at a tiny size, to see that it works

It measures tokens per second at 1, 4, 16 and 64 rows with distinct prompts, a tree search, the time from the start of a
process to its first answer, the peak memory, and whether our engine and llama.cpp draw the same greedy tokens. Each
contender runs in a process of its own; the contenders take turns, so a ratio compares the same minutes on the same
machine. transformers has the weights dequantised, as our engine has. It searches fewer problems, because it reads every
prefix again. The result is ``result.json`` beside this file; with ``--quick`` it is only printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine.measure import ratio, spread
from benchmarks.real.contenders import ROOM
from thinktime.bench.environment import environment
from thinktime.files import known_sha256, write_whole
from thinktime.models.engine.gguf import converted
from thinktime.models.engine.tokenizer import ChatTokenizer
from thinktime.pocket.problems import problems
from thinktime.session import model_path

HERE = Path(__file__).parent
NAMES = ("own", "llama.cpp in process", "llama.cpp server", "transformers generate")
ASKED = "Solve this problem. Explain every step in a full sentence. "
WIDTH, TREE_PROBLEMS, TREE_PROBLEMS_OF_TRANSFORMERS = 16, 8, 1


def jobs(model: Path, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What each process measures, by contender."""
    directory, _ = converted(model)
    tokenizer = ChatTokenizer(directory)
    trees = 1 if given.quick else TREE_PROBLEMS
    count = 1 + sum(given.rows) + trees + given.prompts
    asked = [tokenizer.encode_chat(ASKED + problem.question) for problem in problems("test", count, seed=7)]
    assert max(map(len, asked)) + given.tokens + given.line_tokens * given.depth < ROOM
    prompts = iter(asked)
    job: dict[str, Any] = {
        "model": str(model),
        "directory": str(directory),
        "ends": {"reply": list(tokenizer.end_ids), "line": sorted(tokenizer.ids_containing("\n"))},
        "tokens": given.tokens,
        "line_tokens": given.line_tokens,
        "width": 2 if given.quick else WIDTH,
        "depth": given.depth,
        "first": next(prompts),
        "rows": {str(n): [next(prompts) for _ in range(n)] for n in given.rows},
        "tree": [next(prompts) for _ in range(trees)],
        "agreement": list(prompts),
    }
    found = {name: {**job, "contender": name} for name in (*NAMES, "agreement")}
    found["transformers generate"]["tree"] = job["tree"][:TREE_PROBLEMS_OF_TRANSFORMERS]
    return found


def measured(job: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """What a process of its own finds with so many threads."""
    with tempfile.TemporaryDirectory() as folder:
        asked, found = Path(folder) / "job.json", Path(folder) / "found.json"
        asked.write_text(json.dumps({**job, "started": time.time()}))
        command = [sys.executable, "-m", "benchmarks.real.contenders", str(asked), str(found)]
        environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
        result: dict[str, Any] = json.loads(found.read_text())
        return result


def summary(runs: Mapping[str, Sequence[Mapping[str, Any]]], work: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The spread over rounds of each contender's figures."""
    return {
        name: {
            "dtype": rounds[0]["dtype"],
            "first_answer_seconds": spread([each["first_answer_seconds"] for each in rounds]),
            "peak_memory_mb": spread([each["peak_memory_mb"] for each in rounds]),
            "tokens_per_second": {
                n: spread([each["tokens_per_second"][n] for each in rounds]) for n in rounds[0]["tokens_per_second"]
            },
            "tree": {
                "problems": len(work[name]["tree"]),
                "seconds_per_problem": spread([each["tree_seconds_per_problem"] for each in rounds]),
                "tokens_per_second": spread([each["tree_tokens_per_second"] for each in rounds]),
            },
        }
        for name, rounds in runs.items()
    }


def ratios(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """How many times as fast our engine is as each other one, within each round; above 1 ours is faster."""
    own = runs["own"]
    found: dict[str, Any] = {}
    for name, theirs in runs.items():
        if name == "own":
            continue
        best = [max(each["tokens_per_second"].values()) for each in theirs]
        of = {n: [each["tokens_per_second"][n] for each in own] for n in own[0]["tokens_per_second"]}
        found[name] = {
            "tokens_per_second": {
                n: ratio(ours, [each["tokens_per_second"][n] for each in theirs]) for n, ours in of.items()
            },
            "tokens_per_second_over_its_best": {n: ratio(ours, best) for n, ours in of.items()},
            **{
                figure: ratio([each[figure] for each in theirs], [each[figure] for each in own])
                for figure in ("tree_seconds_per_problem", "first_answer_seconds", "peak_memory_mb")
            },
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="qwen2.5-coder-0.5b-instruct", help="a name, or a GGUF file")
    parser.add_argument("--quick", action="store_true", help="every part at a tiny size; no result is written")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, default=24, help="of a reply")
    parser.add_argument("--line-tokens", type=int, default=16, help="of a step of the search")
    parser.add_argument("--depth", type=int, default=2, help="steps of the search")
    parser.add_argument("--prompts", type=int, default=50, help="whose greedy replies are compared")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every engine; all cores unless given")
    given = parser.parse_args()
    if given.quick:
        given.rows, given.tokens, given.line_tokens, given.prompts = [1, 2], 4, 3, 2
    model, started = model_path(given.model), time.perf_counter()
    work = jobs(model, given)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for round_ in range(given.rounds):
        for name in NAMES[:: 1 if round_ % 2 == 0 else -1]:
            runs[name].append(measured(work[name], given.threads))
            print(f"round {round_ + 1}, {name}: {json.dumps(runs[name][-1])}", flush=True)
    result = {
        "command": "python -m benchmarks.real.engines " + " ".join(sys.argv[1:]),
        "environment": environment(),
        "cores": os.cpu_count(),
        "model": {"file": model.name, "sha256": known_sha256(model)},
        "settings": {name: value for name, value in vars(given).items() if name not in ("model", "quick")},
        "width": work["own"]["width"],
        "contenders": summary(runs, work),
        "own_is_faster_by": ratios(runs),
        "greedy_agreement_with_llama.cpp": measured(work["agreement"], given.threads),
        "seconds": round(time.perf_counter() - started),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if not given.quick:
        write_whole(HERE / "result.json", text + "\n")


if __name__ == "__main__":
    main()
