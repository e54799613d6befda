"""Exports of banks: one gzip file of JSON lines with the independent samples of a task, which replays like the bank.

`thinktime.bench.bank_writer` writes them. This module reads them: as a bank to replay, as a pool, or to draw more.

The first line is the header: format, model, provenance, task, prompt, sampling, seed, date, command and counts. Then
each line is a sample, by problem and index, or a score. A sample has its ``root``, which with the index gives its key
in the bank, ``finish``, ``text``, the number of its ``tokens``, ``logprob``, ``logprobs`` (of single tokens, as in the
bank: whole thousandths without their sign), ``passes`` and ``usage``. A sample that a race or a budget cut short has
its place among such samples as ``cut``. Counts of 0 are left out. Two things of the bank are lost: the ids of tokens,
which nobody reads without the model, and the part of ``seconds`` below a millisecond. ``result.json`` has neither.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from thinktime.answers import canonical
from thinktime.bank.database import is_url
from thinktime.bank.store import Bank
from thinktime.bench.jsonl import EXPORT, read_jsonl
from thinktime.bench.samples import Pool, Sampled, judged
from thinktime.bench.tasks import Task
from thinktime.core.errors import InputError
from thinktime.core.search import sample_key
from thinktime.core.types import MAIN, Finish, Node, Problem, Score
from thinktime.core.usage import Usage
from thinktime.generators.recorded import BankedGenerator
from thinktime.generators.text import Text
from thinktime.session import Session

SCHEMA = 1
PER_TOKEN: Mapping[str, tuple[type, ...]] = {"logprobs": (int,), "confidences": (int, float)}
"""The lists of numbers that a state may have, one number a token."""
CUT = "/cut"
"""Ends the key of a sample that was cut short, once for each such sample."""
LONGEST = 4_000_000
"""The most characters of a line."""
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


def is_export(place: Path | str, replay: bool) -> bool:
    """Whether a bank is to be read as an export: it is a file, and not a database.

    Raises:
        InputError: it is not a database, and this is not a replay; or there is nothing to replay.
    """
    try:
        with open(place, "rb") as file:
            start = file.read(len(_SQLITE))
    except FileNotFoundError:
        if replay and not is_url(place):
            fix = "there is no such file to replay; give the bank of a run, or leave out --replay"
            raise InputError("bank", str(place), fix) from None
        return False
    except OSError:  # the bank itself says why
        return False
    if start in (b"", _SQLITE):
        return False
    if not replay:
        raise InputError("bank", str(place), "it is not a bank; if it is an export of one, add --replay")
    return True


def header_of(path: Path) -> Mapping[str, Any]:
    """The first line of an export: how its samples were made.

    Raises:
        InputError: the file is not an export of this schema.
    """
    return _header(path, next(read_jsonl(path, LONGEST))[1])


def import_samples(path: Path, bank: Bank) -> Mapping[str, Any]:
    """Put the samples of an export into a bank, so that a run with the same settings draws only more of them.

    Scores stay out: an export does not name the files of its scorers.

    Returns:
        The header of the export.

    Raises:
        InputError: the file is not a whole export of this schema. The message names the line.
        BankError: the bank has samples of the model with other files.
    """
    header, samples, _ = _read(path)
    if header.get("fingerprint") is not None:
        bank.bind(header["model"], header["fingerprint"])
    _add_samples(bank, header, samples)
    bank.add_roles("model", header["roles"].get("model", {}))
    bank.add_import(header)
    return header


def check_continued(bank: Bank, roots: Iterable[str], session: Session, task: Task) -> None:
    """Refuse a run that would draw all samples again beside those that were imported into its bank.

    Args:
        bank: of the run.
        roots: the keys of the roots of its searches.
        session: of the run.
        task: of the run.

    Raises:
        InputError: exports were imported, and the bank has no sample of these searches.
    """
    imports = bank.imports()
    if not imports or any(bank.find_sample(sample_key(root, 0)) is not None for root in roots):
        return
    header = imports[-1]
    theirs = {**header["task"], "model": header["model"], "seed": header["seed"], **header["sampling"]}
    ours = {"name": task.name, **task.details, "model": session.models[MAIN].name, "seed": session.seed}
    ours = json.loads(json.dumps(ours | asdict(session.sampling)))
    others = [
        f"{name} {json.dumps(theirs.get(name))[:60]} and not {json.dumps(ours.get(name))[:60]}"
        for name in {**theirs, **ours}
        if theirs.get(name) != ours.get(name)
    ]
    fix = f"its imported samples have {', '.join(others) or 'other prompts'}; give their options, or another bank"
    raise InputError("bank", bank.place, fix)


@contextmanager
def exported_bank(path: Path) -> Iterator[Bank]:
    """A temporary bank with everything that an export has.

    Raises:
        InputError: the file is not a whole export of this schema. The message names the line.
    """
    with TemporaryDirectory() as folder, Bank(Path(folder) / "bank.db") as bank:
        bank.place = str(path)
        header, samples, scores = _read(path)
        _add_samples(bank, header, samples)
        for name, found in scores.items():
            bank.add_scores(name, found)
        for kind, names in header["roles"].items():
            bank.add_roles(str(kind), names)
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
        if CUT not in sample.key:
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


def _add_samples(bank: Bank, header: Mapping[str, Any], samples: Sequence[_Sample]) -> None:
    for problem, group in groupby(samples, lambda sample: sample.problem):
        bank.add_samples(Problem(problem, ""), header["model"], [(sample.key, sample.row) for sample in group])
    if header["provenance"]:
        bank.add_provenance(header["model"], header["provenance"])


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
    for name, allowed in PER_TOKEN.items():
        numbers = row.get(name, [])
        if not isinstance(numbers, list) or not all(type(number) in allowed for number in numbers):
            raise InputError("export", where, f"{name} is not a list of such numbers")
    lines = re.finditer(r"[^\n]*\n|[^\n]+", row["text"])
    state = {"text": row["text"], "tokens": row["tokens"], "step_ends": [line.end() for line in lines]}
    state |= {name: row[name] for name in ("logprob", *PER_TOKEN, "thinking") if name in row}
    cut = row.get("cut", 0)
    if cut not in range(_MOST_CUTS):
        raise InputError("export", where, f"cut={str(cut)[:40]!r} is not a small count")
    key = sample_key(row["root"], row["index"]) + CUT * cut
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
