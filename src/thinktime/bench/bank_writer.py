"""Writes exports of banks; see `thinktime.bench.bank_export` for their form."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from thinktime.bank.store import Bank
from thinktime.bench.bank_export import CUT, PER_TOKEN, SCHEMA
from thinktime.bench.jsonl import EXPORT
from thinktime.bench.samples import only_model
from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.journal import readable
from thinktime.core.search import sample_key
from thinktime.core.types import MAIN, Sampling
from thinktime.core.usage import Usage
from thinktime.files import write_whole
from thinktime.generators.recorded import BankedGenerator
from thinktime.session import Session


def export(
    bank: Bank,
    path: Path,
    task: Task,
    sampling: Sampling,
    *,
    seed: int = 0,
    model: str | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Write the independent samples of a task with one setting, and their scores. Return the header.

    Of a problem these are the samples from index 0 on, up to the first that is missing. The key of a sample depends on
    model, prompt, sampling and seed, so the settings in the header are those of the samples.

    Args:
        bank: may be open for reading only.
        path: of the export; there is no such file yet.
        task: its problems.
        sampling: of the samples.
        seed: of the run.
        model: the model's name in the bank; not needed if it has one.
        command: what the header names as the command.

    Raises:
        InputError: the file exists or cannot be written, or the bank has no such sample or several models.
        BankError: the bank cannot be read, or has samples that are not texts.
    """
    if path.exists():
        raise InputError("out", str(path), "it exists; remove it, or give another name")
    name = only_model(bank, model)
    session = Session({MAIN: BankedGenerator(name)}, sampling=sampling, seed=seed)
    lines: list[dict[str, Any]] = []
    keys: set[str] = set()
    for problem in task.problems:
        root = session.search(problem).root.key
        keys.add(root)
        for index in count():
            found = list(_with_cuts(bank, sample_key(root, index)))
            if not found:
                break
            keys |= {key for key, _ in found}
            place = {"problem": problem.id, "root": root, "index": index}
            lines += [place | _sample_line(key, row) for key, row in found]
    if not lines:
        settings = f"temperature {sampling.temperature:g}, {sampling.max_length} tokens, stop {list(sampling.stop)}"
        raise InputError(
            "bank",
            bank.place,
            f"it has no samples of {task.name} with {settings} and seed {seed}; give the options of the bench",
        )
    scores = [
        {"score": key, "scorer": scorer, "value": score.value, "steps": score.steps, "usage": _brief(score.usage)}
        for scorer in bank.scorers()
        for key, score in bank.scores(scorer)
        if _nodes_of(key) <= keys
    ]
    scorers = {line["scorer"] for line in scores}
    roles = {
        kind: {role: only for role, names in bank.roles(kind).items() for only in names if only in kept}
        for kind, kept in (("model", {name}), ("scorer", scorers))
    }
    header = {
        "format": EXPORT,
        "schema": SCHEMA,
        "model": name,
        "provenance": bank.provenance().get(name, {}),
        "fingerprint": bank.fingerprint(name),
        "task": {"name": task.name, **task.details},
        "sampling": asdict(sampling),
        "seed": seed,
        "date": bank.last_day(name),
        "command": command,
        "roles": roles,
        "n": {
            "problems": len({line["problem"] for line in lines}),
            "samples": len(lines),
            "tokens": sum(line["tokens"] for line in lines),
            "scores": len(scores),
        },
    }
    text = "".join(
        json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in (header, *lines, *scores)
    )
    try:
        write_whole(path, gzip.compress(text.encode("utf-8", "surrogatepass"), 9, mtime=0))
    except OSError as error:
        raise InputError("out", str(path), f"cannot write it ({error})") from None
    return header


def _with_cuts(bank: Bank, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The sample of a key, and those that a race or a budget cut short, with their keys."""
    whole = bank.find_sample(key)
    if whole is not None:
        yield key, whole
    while (cut := bank.find_sample(key := key + CUT)) is not None:
        yield key, cut


def _sample_line(key: str, row: Mapping[str, Any]) -> dict[str, Any]:
    with readable(key):
        state = row["state"]
        logprob = state["logprob"]
        return {
            **({"cut": key.count(CUT)} if CUT in key else {}),
            "finish": row["finish"],
            "text": state["text"],
            "tokens": len(state["ids"]) if "ids" in state else state["tokens"],
            "logprob": None if logprob is None or math.isnan(logprob) else logprob,
            **{name: state[name] for name in (*PER_TOKEN, "thinking") if name in state},
            "passes": row["passes"],
            "usage": _brief(Usage.from_dict(row["usage"])),
        }


def _brief(usage: Usage) -> dict[str, float | None]:
    counts = usage.as_dict() | {"seconds": round(usage.seconds, 3)}
    return {name: value for name, value in counts.items() if value != 0}


def _nodes_of(key: str) -> set[str]:
    """The keys of the nodes that the key of a score names; see `thinktime.core.scores`."""
    return {part.partition("+")[0] for part in re.split("[<,]", key.removeprefix("compare:"))}
