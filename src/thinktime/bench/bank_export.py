"""Exports of banks: one gzip file of JSON lines with the independent samples of a task, which replays like the bank.

The first line is the header: format, model, provenance, task, prompt, sampling, seed, date, command and counts. Then
each line is a sample, by problem and index, or a score. A sample has its ``root``, which with the index gives its key
in the bank, ``finish``, ``text``, the number of its ``tokens``, ``logprob``, ``logprobs`` (of single tokens, as in the
bank: whole thousandths without their sign), ``passes`` and ``usage``. A sample that a race or a budget cut short has
its place among such samples as ``cut``. Counts of 0 are left out. Two things of the bank are lost: the ids of tokens,
which nobody reads without the model, and the part of ``seconds`` below a millisecond. ``result.json`` has neither.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count, groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from thinktime.answers import canonical
from thinktime.bank.store import Bank
from thinktime.bench.jsonl import EXPORT, read_jsonl
from thinktime.bench.samples import Pool, Sampled, judged, only_model
from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.journal import readable
from thinktime.core.search import sample_key
from thinktime.core.types import MAIN, Finish, Node, Problem, Sampling, Score
from thinktime.core.usage import Usage
from thinktime.files import write_whole
from thinktime.generators.recorded import BankedGenerator
from thinktime.generators.text import Text
from thinktime.session import Session

SCHEMA = 1
LONGEST = 4_000_000
"""The most characters of a line."""
_PER_TOKEN: Mapping[str, tuple[type, ...]] = {"logprobs": (int,), "confidences": (int, float)}
"""The lists of numbers that a state may have, one number a token."""
_CUT = "/cut"
_MOST_CUTS = 1000
_SQLITE = b"SQLite format 3\0"
_HEADER = {
    **dict.fromkeys(("model", "date", "command"), (str,)),
    **dict.fromkeys(("provenance", "task", "sampling", "roles", "n"), (dict,)),
}
_SAMPLE = {
    **dict.fromkeys(("problem", "root", "finish", "text"), (str,)),
    **dict.fromkeys(("index", "tokens", "passes"), (int,)),
    "logprob": (int, float, type(None)),
    "usage": (dict,),
}
_SCORE = {
    **dict.fromkeys(("score", "scorer"), (str,)),
    "value": (int, float, type(None)),
    "steps": (list,),
    "usage": (dict,),
}
"""The fields of the kinds of lines, with the types of their values."""


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
            str(bank.path),
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
    while (cut := bank.find_sample(key := key + _CUT)) is not None:
        yield key, cut


def _sample_line(key: str, row: Mapping[str, Any]) -> dict[str, Any]:
    with readable(key):
        state = row["state"]
        logprob = state["logprob"]
        return {
            **({"cut": key.count(_CUT)} if _CUT in key else {}),
            "finish": row["finish"],
            "text": state["text"],
            "tokens": len(state["ids"]) if "ids" in state else state["tokens"],
            "logprob": None if logprob is None or math.isnan(logprob) else logprob,
            **{name: state[name] for name in (*_PER_TOKEN, "thinking") if name in state},
            "passes": row["passes"],
            "usage": _brief(Usage.from_dict(row["usage"])),
        }


def _brief(usage: Usage) -> dict[str, float | None]:
    counts = usage.as_dict() | {"seconds": round(usage.seconds, 3)}
    return {name: value for name, value in counts.items() if value != 0}


def _nodes_of(key: str) -> set[str]:
    """The keys of the nodes that the key of a score names; see `thinktime.core.scores`."""
    return {part.partition("+")[0] for part in re.split("[<,]", key.removeprefix("compare:"))}


def is_export(path: Path, replay: bool) -> bool:
    """Whether a file is to be read as an export: it is not a database.

    Raises:
        InputError: it is not a database, and this is not a replay.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError:  # the bank itself says why
        return False
    if start in (b"", _SQLITE):
        return False
    if not replay:
        raise InputError("bank", str(path), "it is not a bank; if it is an export of one, add --replay")
    return True


def header_of(path: Path) -> Mapping[str, Any]:
    """The first line of an export: how its samples were made.

    Raises:
        InputError: the file is not an export of this schema.
    """
    return _header(path, next(read_jsonl(path, LONGEST))[1])


@contextmanager
def exported_bank(path: Path) -> Iterator[Bank]:
    """A temporary bank with everything that an export has.

    Raises:
        InputError: the file is not a whole export of this schema. The message names the line.
    """
    with TemporaryDirectory() as folder, Bank(Path(folder) / "bank.db") as bank:
        bank.path = path  # for messages
        _fill(bank, path)
        yield bank


def exported_pool(path: Path, task: Task, n: int) -> Pool:
    """The first ``n`` whole samples of every problem of the task that has as many in an export.

    Samples are found by the ids of their problems, so the pool does not depend on the prompts of this version.

    Raises:
        InputError: the file is not a whole export, or no problem of the task has ``n`` samples.
    """
    header, samples, _ = _read(path)
    generator = BankedGenerator(header["model"])
    leaves: dict[str, list[Node]] = {}
    for sample in samples:
        if _CUT not in sample.key:
            state = generator.unpack(Text(()), sample.row["state"])
            leaf = Node(sample.key, (sample.index,), state, finish=sample.row["finish"])
            leaves.setdefault(sample.problem, []).append(leaf)
    first = {problem: sorted(found, key=lambda leaf: leaf.path)[:n] for problem, found in leaves.items()}
    known = [problem for problem in task.problems if len(first.get(problem.id, ())) == n]
    if not known:
        raise InputError("n", n, f"{path} has no problem of {task.name} with as many samples")

    async def everything() -> tuple[Sampled, ...]:
        found = []
        for problem in known:
            lengths = [generator.length(leaf.state) for leaf in first[problem.id]]
            read = await judged(task, problem, first[problem.id], lengths)
            found.append(Sampled(problem.id, tuple(read), canonical(problem.reference or "")))
        return tuple(found)

    sampling = header["sampling"]
    setting = f"temperature {sampling['temperature']}, at most {sampling['max_length']} tokens"
    return Pool(header["model"], setting, "tokens", asyncio.run(everything()))


@dataclass(frozen=True)
class _Sample:
    """A sample of an export, with its row in the bank."""

    problem: str
    index: int
    key: str
    row: dict[str, Any]


def _fill(bank: Bank, path: Path) -> None:
    header, samples, scores = _read(path)
    for problem, group in groupby(samples, lambda sample: sample.problem):
        bank.add_samples(Problem(problem, ""), header["model"], [(sample.key, sample.row) for sample in group])
    for name, found in scores.items():
        bank.add_scores(name, found)
    if header["provenance"]:
        bank.add_provenance(header["model"], header["provenance"])
    for kind, names in header["roles"].items():
        bank.add_roles(str(kind), names)


def _read(path: Path) -> tuple[Mapping[str, Any], list[_Sample], dict[str, list[tuple[str, Score]]]]:
    """The header, the samples, and the scores by scorer."""
    rows = read_jsonl(path, LONGEST)
    header = _header(path, next(rows)[1])
    samples: list[_Sample] = []
    scores: dict[str, list[tuple[str, Score]]] = {}
    seen: set[tuple[str, ...]] = set()
    for number, row in rows:
        where = f"{path}, line {number}"
        if "score" in row:
            name, key, score = _score(row, where)
            named: tuple[str, ...] = name, key
            scores.setdefault(name, []).append((key, score))
        else:
            samples.append(_sample(row, where))
            named = (samples[-1].key,)
        if named in seen:
            raise InputError(
                "export", where, f"the key {named[-1]!r} is there twice; take the export as it was written"
            )
        seen.add(named)
    counted = {"samples": len(samples), "scores": sum(map(len, scores.values()))}
    if any(header["n"].get(kind) != number for kind, number in counted.items()):
        wanted = {kind: header["n"].get(kind) for kind in counted}
        raise InputError("export", str(path), f"it has {counted} and not {wanted}; take a whole copy")
    return header, samples, scores


def _header(path: Path, row: Mapping[str, Any]) -> Mapping[str, Any]:
    if row.get("format") != EXPORT:
        raise InputError("export", str(path), f"its first line does not say that its format is {EXPORT!r}")
    if row.get("schema") != SCHEMA:
        fix = f"it has schema {str(row.get('schema'))[:20]}, and this version reads schema {SCHEMA}"
        raise InputError("export", str(path), fix)
    _check(row, _HEADER, f"{path}, line 1")
    for kind, names in row["roles"].items():
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise InputError("export", f"{path}, line 1", f"the roles of {str(kind)[:20]!r} are not names")
    return row


def _sample(row: Mapping[str, Any], where: str) -> _Sample:
    _check(row, _SAMPLE, where)
    if row["finish"] not in get_args(Finish):
        raise InputError("export", where, f"no sample can finish with {row['finish'][:20]!r}")
    for name, allowed in _PER_TOKEN.items():
        numbers = row.get(name, [])
        if not isinstance(numbers, list) or not all(type(number) in allowed for number in numbers):
            raise InputError("export", where, f"{name} is not a list of such numbers")
    lines = re.finditer(r"[^\n]*\n|[^\n]+", row["text"])
    state = {"text": row["text"], "tokens": row["tokens"], "step_ends": [line.end() for line in lines]}
    state |= {name: row[name] for name in ("logprob", *_PER_TOKEN, "thinking") if name in row}
    cut = row.get("cut", 0)
    if cut not in range(_MOST_CUTS):
        raise InputError("export", where, f"cut={str(cut)[:40]!r} is not a small count")
    key = sample_key(row["root"], row["index"]) + _CUT * cut
    counts = {"usage": _usage(row["usage"], where).as_dict(), "passes": row["passes"]}
    return _Sample(row["problem"], row["index"], key, {"state": state, "finish": row["finish"], **counts})


def _score(row: Mapping[str, Any], where: str) -> tuple[str, str, Score]:
    """The scorer, the key and the score."""
    _check(row, _SCORE, where)
    if not all(type(step) in (int, float) for step in row["steps"]):
        raise InputError("export", where, "steps is not a list of numbers")
    return row["scorer"], row["score"], Score(row["value"], _usage(row["usage"], where), tuple(row["steps"]))


def _usage(counts: Mapping[str, Any], where: str) -> Usage:
    try:
        return Usage.from_dict(counts)
    except TypeError as error:
        raise InputError("export", where, str(error)) from None


def _check(row: Mapping[str, Any], kinds: Mapping[str, tuple[type, ...]], where: str) -> None:
    for name, allowed in kinds.items():
        value = row.get(name)
        if name not in row or type(value) not in allowed or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError("export", where, f"{name}={str(value)[:40]!r} is missing or of another kind")
