"""llama.cpp in process as the second engine: the same tokens as ours, and the same rules for rows."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_gguf import write

from thinktime.answers import TextAnswers
from thinktime.config import ModelSpec
from thinktime.core.clock import Deadline
from thinktime.core.errors import CapabilityError, InputError, ModelError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Node, Problem, Sampling, Score
from thinktime.core.usage import Usage
from thinktime.generators.local import LocalGenerator
from thinktime.models.engine import llamacpp_model
from thinktime.models.engine.llamacpp_engine import LlamaCppEngine
from thinktime.models.engine.llamacpp_model import LlamaCppModel, busy_cores, idle_cores, load_llamacpp_model
from thinktime.models.engine.models import LanguageModel, load_language_model
from thinktime.models.engine.rows import Job, Output, Read, Row, RowRace
from thinktime.models.engine.states import Segments
from thinktime.models.engine.worker import Worker
from thinktime.strategies import parse

pytest.importorskip("xllamacpp")
PROMPTS = ("What is 2 + 2?", "in", "Say hello.", "a b c d e f", "Zürich?")
TIE = 0.02
"""Two greedy rows may differ where the two best logits are this close: llama.cpp keeps keys and values in float16."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen2 with weights in float32."""
    path = tmp_path_factory.mktemp("llamacpp") / "tiny.gguf"
    write(path, quantised=False)
    return path


@pytest.fixture(scope="module")
def theirs(path: Path) -> LlamaCppModel:
    return load_llamacpp_model(path)


@pytest.fixture(scope="module")
def ours(path: Path) -> LanguageModel:
    return load_language_model(path, "float32")


@pytest.fixture
def engine(theirs: LlamaCppModel) -> LlamaCppEngine:
    return theirs.engine()


def row(model: LlamaCppModel, prompt: str = "hello", key: int = 7, n: int = 12, **options: object) -> Row:
    return Row(tuple(model.tokenizer.encode_chat(prompt)), key, n, **options)  # type: ignore[arg-type]


def test_the_tokenizer_is_that_of_the_converted_directory(theirs: LlamaCppModel, ours: LanguageModel) -> None:
    a, b = theirs.tokenizer, ours.tokenizer
    for prompt in PROMPTS:
        assert a.encode_chat(prompt) == b.encode_chat(prompt)
        assert a.decode(a.encode(prompt)) == b.decode(b.encode(prompt)) == prompt
    assert a.eos_id == b.eos_id and a.ids_containing("\n") == b.ids_containing("\n")
    assert theirs.shape.parameters == ours.shape.parameters
    assert theirs.context == ours.context and theirs.weights == ours.weights


def test_greedy_rows_are_those_of_our_engine(theirs: LlamaCppModel, ours: LanguageModel) -> None:
    rows = [row(theirs, prompt, n=24, temperature=0.0) for prompt in PROMPTS]
    own = ours.engine(kv_bytes=1 << 22)
    for task, a, b in zip(rows, theirs.engine().run(rows), own.run(rows), strict=True):
        same = [i for i, (x, y) in enumerate(zip(a.ids, b.ids, strict=False)) if x != y]
        if not same:
            assert a.ids == b.ids and a.logprobs == pytest.approx(b.logprobs, abs=TIE)
            continue
        before = task.ids + a.ids[: same[0]]
        (x, y) = own.run([Read((*before, each[same[0]]), len(before)) for each in (a.ids, b.ids)])
        assert x.values is not None and y.values is not None
        assert abs(float(x.values[0] - y.values[0])) < TIE


def test_a_key_gives_the_same_sample_alone_and_in_a_batch(theirs: LlamaCppModel) -> None:
    rows = [row(theirs, key=1000 * key + 17) for key in range(12)]
    alone = [theirs.engine().run([task])[0] for task in rows]
    together = theirs.engine().run(rows)
    assert [output.ids for output in alone] == [output.ids for output in together]
    for a, b in zip(alone, together, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-3)
    assert len({output.ids for output in together}) > 6


def test_a_prompt_of_many_rows_is_processed_once_and_kept(engine: LlamaCppEngine, theirs: LlamaCppModel) -> None:
    rows = [row(theirs, "a long question about something", key) for key in range(8)]
    outputs = engine.run(rows)
    n = len(rows[0].ids)
    assert [output.computed for output in outputs] == [n] + [0] * 7
    assert [output.reused for output in outputs] == [0] + [n] * 7
    (again,) = engine.run([rows[3]])
    assert again.ids == outputs[3].ids and (again.computed, again.reused) == (1, n - 1)


def test_steps_continue_with_the_same_tokens(engine: LlamaCppEngine, theirs: LlamaCppModel) -> None:
    whole = row(theirs, key=99, n=20)
    (at_once,) = theirs.engine().run([whole])
    ids, logprobs = whole.ids, list[float]()
    while len(logprobs) < len(at_once.ids):
        (part,) = engine.run([Row(ids, 99, min(5, 20 - len(logprobs)))])
        assert part.computed == (len(whole.ids) if ids == whole.ids else 1)
        ids, logprobs = ids + part.ids, logprobs + list(part.logprobs)
    assert ids == whole.ids + at_once.ids and logprobs == pytest.approx(at_once.logprobs, abs=1e-3)


def test_a_read_gives_the_log_probabilities_of_a_row(engine: LlamaCppEngine, theirs: LlamaCppModel) -> None:
    task = row(theirs, temperature=1.0)
    (output,) = theirs.engine().run([task])
    (read,) = engine.run([Read(task.ids + output.ids, len(task.ids))])
    assert read.values is not None and read.values.tolist() == pytest.approx(output.logprobs, abs=1e-3)


def test_rows_end_by_ids_strings_lengths_and_deadlines(engine: LlamaCppEngine, theirs: LlamaCppModel) -> None:
    (free,) = engine.run([row(theirs, n=8)])
    third = free.ids[2]
    first = free.ids.index(third) + 1
    (by_id,) = engine.run([row(theirs, n=8, stop_ids=frozenset({third}))])
    assert (by_id.ids, by_id.finish) == (free.ids[:first], "stop")
    text = theirs.tokenizer.decode(free.ids[:4])
    (by_text,) = engine.run([row(theirs, n=8, stop_strings=(text[-1],))])
    assert by_text.finish == "stop" and by_text.ids == free.ids[: len(by_text.ids)]
    (late,) = engine.run([row(theirs, n=8, deadline=Deadline(0.0, lambda: 1.0))])
    assert (late.ids, late.finish) == ((), "cancelled")
    (long,) = engine.run([row(theirs, n=1000, key=3)])
    assert long.finish == "eos" or len(long.ids) == theirs.context - len(row(theirs).ids)


def test_a_race_ends_the_others(engine: LlamaCppEngine, theirs: LlamaCppModel) -> None:
    race = RowRace(1, lambda ids: True, [])
    rows = [row(theirs, key=key, n=60, race=race, stop_strings=("a", "e", "1", "?")) for key in range(8)]
    outputs = engine.run(rows)
    assert race.lengths and all(len(output.ids) <= min(race.lengths) for output in outputs if output.finish != "stop")


def test_cancel_frees_the_sequence(theirs: LlamaCppModel) -> None:
    engine = theirs.engine(max_rows=2)
    first = engine.submit(row(theirs, n=60))
    waiting = engine.submit(row(theirs, "another", n=60))
    engine.step()
    for job in (first, waiting):
        engine.cancel(job)
    assert not engine.busy and first.output is not None and first.output.finish == "cancelled"
    for key in range(80):
        engine.run([row(theirs, f"question {key}", key, n=2)])
    assert engine.held <= 66


def test_rows_that_lose_their_room_continue_with_the_right_keys_and_values(theirs: LlamaCppModel) -> None:
    rows = [row(theirs, f"question {key}", key, n=60) for key in range(10)]
    small = theirs.engine(kv_bytes=256 * theirs.shape.kv_bytes_per_token)
    outputs = small.run(rows)
    reads = [Read(task.ids + output.ids, len(task.ids)) for task, output in zip(rows, outputs, strict=True)]
    for output, read in zip(outputs, theirs.engine().run(reads), strict=True):
        assert output.finish == "eos" or len(output.ids) == 60
        assert read.values is not None and output.logprobs == pytest.approx(read.values.tolist(), abs=TIE)


def test_what_does_not_work_is_refused_in_one_line(engine: LlamaCppEngine, theirs: LlamaCppModel) -> None:
    with pytest.raises(CapabilityError, match=r"llama\.cpp gives no hidden states"):
        engine.submit(row(theirs, segments=Segments((0,))))
    with pytest.raises(InputError, match="context is 128"):
        engine.submit(Row((1,) * 128, 0, 1))
    with pytest.raises(InputError, match="give at least 1"):
        engine.submit(Row((1,), 0, 0))


def test_an_error_of_llama_cpp_fails_only_its_jobs(theirs: LlamaCppModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = theirs.engine()
    worker = Worker(engine)
    task = row(theirs)

    async def one() -> tuple[int, ...]:
        return (await worker.run([task]))[0].ids

    expected = asyncio.run(one())
    with monkeypatch.context() as broken:
        broken.setattr(engine, "_decode_batch", lambda batch: -3)
        with pytest.raises(ModelError, match=r"llama\.cpp failed with code -3"):
            asyncio.run(one())
    assert not engine.busy and asyncio.run(one()) == expected


class Shortest:
    """Prefers texts of few tokens; it costs nothing."""

    name = "shortest"
    capabilities = frozenset({Capability.SCORES, Capability.PROCESS_REWARD, Capability.PARTIAL_REWARD})

    def worst_case(self, problem: Problem, node: Node, known: Node | None) -> Usage:
        return Usage()

    async def score(self, problem: Problem, nodes: Sequence[Node], known: Sequence[Node | None]) -> list[Score]:
        return [Score(1 / (1 + len(node.state.ids)), Usage()) for node in nodes]


@pytest.mark.parametrize("strategy", ["beam_search:n=4,width=2", "best_first:k=8,n_goals=20"])
def test_a_search_processes_every_token_of_its_tree_once(path: Path, strategy: str) -> None:
    sampling = Sampling(max_length=100)

    def run(generator: LocalGenerator) -> tuple[dict[str, tuple[int, ...]], list[Output]]:
        outputs: list[Output] = []
        engine: Any = generator._worker.engine
        taken = engine._take

        def taking(*given: object) -> list[Job]:
            jobs: list[Job] = taken(*given)
            outputs.extend(job.output for job in jobs if job.output is not None)
            return jobs

        engine._take = taking
        search = Search(
            Problem("p", "hello"),
            generator,
            scorers=Shortest(),
            answers=TextAnswers(lambda text: text or None),
            sampling=sampling,
        )
        asyncio.run(parse(strategy)[1](search))
        return {key: record.node.state.ids for key, record in search.trace.items()}, outputs

    tree, outputs = run(LocalGenerator(path, engine="llamacpp", step="a"))
    assert tree == run(LocalGenerator(path, engine="llamacpp", step="a"))[0]
    assert len(tree) > 4
    prompt = max(output.computed for output in outputs)
    assert all(output.computed <= 1 for output in outputs if output.computed != prompt)
    assert [output.computed for output in outputs].count(prompt) == 1


def test_the_engine_is_a_choice_and_part_of_the_name(path: Path, tmp_path: Path) -> None:
    name = LocalGenerator(path, engine="llamacpp").name
    assert name.startswith("tiny@") and name.endswith("/llamacpp")
    assert LocalGenerator(path, dtype="float32").name.endswith("/float32")
    with pytest.raises(InputError, match="engine='fast': give auto, own or llamacpp"):
        ModelSpec("pocket", engine="fast")
    with pytest.raises(InputError, match="it reads GGUF files"):
        LocalGenerator(tmp_path, engine="llamacpp")


def test_without_the_extra_the_refusal_names_it(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thinktime.models.engine import llamacpp_library

    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    llamacpp_library.library.cache_clear()
    try:
        with pytest.raises(InputError, match=r"pip install 'thinktime\[llamacpp\]'") as missing:
            LocalGenerator(path, engine="llamacpp")
        assert "\n" not in str(missing.value)
        write(tmp_path / "strange.gguf", family="rwkv6")
        with pytest.raises(InputError, match=r"rwkv6.*pip install 'thinktime\[llamacpp\]'"):
            LocalGenerator(tmp_path / "strange.gguf")
    finally:
        llamacpp_library.library.cache_clear()


def test_threads_are_the_idle_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert idle_cores() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(llamacpp_model, "busy_cores", lambda: 1000.0)
    assert idle_cores() == 1
    monkeypatch.setattr(llamacpp_model, "busy_cores", lambda: 0.0)
    assert 1 <= idle_cores() <= (os.cpu_count() or 1)


def test_busy_cores_come_from_the_times_of_the_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(llamacpp_model, "_STAT", stat)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    stat.write_text("cpu 10 0 10 100 20 0 0 0 0 0\ncpu0 ...\n")
    later = "cpu 40 0 20 140 40 0 0 0 0 0\n"  # 40 of 100 ticks are busy
    monkeypatch.setattr(time, "sleep", lambda seconds: stat.write_text(later))
    assert busy_cores() == pytest.approx(1.6)
    stat.unlink()
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5, 0.0, 0.0))
    assert busy_cores() == 2.5
