"""The corpus: odd replies, files and texts, each with its right value. `tests/corpus/README.md` says how to add one.

The answers of the corpus are tested in `test_answers.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Running, written

from thinktime import strategies
from thinktime.bench.tasks import load
from thinktime.core.errors import ThinktimeError
from thinktime.core.search import Search
from thinktime.core.types import Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.openai import RemoteGenerator
from thinktime.models.remote.prices import Price

CORPUS = Path(__file__).with_name("corpus")
KINDS = {".sse": "text/event-stream", ".html": "text/html", ".json": "application/json"}


def files(folder: str) -> list[Any]:
    """The files of a folder; each has a file with its right value beside it."""
    found = [path for path in sorted((CORPUS / folder).iterdir()) if path.suffix != ".right"]
    return [pytest.param(path, id=path.name) for path in found]


def right(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.with_name(f"{path.name}.right").read_text())
    return value


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with Running() as running:
        yield running


@pytest.mark.parametrize("path", files("replies"))
def test_a_reply_has_this_text_or_this_error(endpoint: FakeEndpoint, path: Path) -> None:
    async def said() -> str:
        try:
            search = Search(Problem("sum", "what is 3 + 4"), generator, sampling=Sampling(max_length=64))
            (child,) = await search.extend([search.root], 1)
        finally:
            await generator.close()
        if (error := search.trace[child.key].error) is not None:
            raise error
        return str(child.state.text)

    generator = RemoteGenerator(endpoint.url, "words")
    assert generator.traits
    endpoint.sent.extend([written(path.read_bytes(), KINDS[path.suffix])] * 2)  # garbage is tried once more
    expected = right(path)
    try:
        found = {"text": asyncio.run(said())}
    except ThinktimeError as error:
        found = {"error": str(error)}
    endpoint.sent.clear()
    assert found.keys() == expected.keys(), found
    assert found == expected if "text" in expected else expected["error"] in found["error"]


@pytest.mark.parametrize("path", files("files"))
def test_a_file_has_these_problems_or_this_error(path: Path) -> None:
    expected = right(path)
    try:
        found: dict[str, Any] = {"problems": [[each.prompt, each.reference] for each in load(str(path)).problems]}
    except ThinktimeError as error:
        found = {"error": str(error)}
    assert found.keys() == expected.keys(), found
    assert found == expected if "problems" in expected else expected["error"] in found["error"]


def read(kind: str, text: str) -> Any:
    """The value of a text in a file of ``specs``."""
    if kind == "strategies":
        return strategies.spec(strategies.parse(text)[1])
    if kind == "budgets":
        return {name: value for name, value in asdict(Budget.parse(text)).items() if value is not None}
    return asdict(Price.parse(text))


TEXTS = [
    pytest.param(path.stem, json.loads(line), id=f"{path.stem} {json.loads(line)['text']}")
    for path in sorted((CORPUS / "specs").glob("*.jsonl"))
    for line in path.read_text().splitlines()
]


@pytest.mark.parametrize(("kind", "case"), TEXTS)
def test_a_text_has_this_value_or_this_error(kind: str, case: dict[str, Any]) -> None:
    if "is" in case:
        assert read(kind, case["text"]) == case["is"]
        return
    with pytest.raises(ThinktimeError) as error:
        read(kind, case["text"])
    assert case["error"] in str(error.value)
