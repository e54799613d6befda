"""Odd inputs of every kind: each gives a result or an error of one line, within a second, and never a traceback.

`make test` tries some dozen examples of each property, always the same ones. `make fuzz` tries thousands at random.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_endpoint import FakeEndpoint, written
from fuzzing import VALUES, as_bytes, bounded, grafted, mutated
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny import tiny_directory_in

from thinktime import strategies
from thinktime.answers import READERS, TextAnswers, canonical, equivalent
from thinktime.bank.store import Bank
from thinktime.bench.replay import Fields, read_recorded, replay
from thinktime.bench.tasks import load
from thinktime.config import Config, ModelSpec
from thinktime.core.errors import ThinktimeError
from thinktime.core.search import Search
from thinktime.core.types import Problem, Sampling, Score
from thinktime.core.usage import Budget, Usage
from thinktime.gateway.answers import SampleAnswers
from thinktime.gateway.app import application
from thinktime.gateway.config import GatewayConfig, read_config
from thinktime.gateway.methods import parse as parse_method
from thinktime.gateway.state import Gateway
from thinktime.generators.openai import RemoteGenerator
from thinktime.generators.text import RemoteText
from thinktime.models.engine.templates import ChatTemplate, conversation
from thinktime.models.remote import client as client_module
from thinktime.models.remote.prices import Price

often = settings(suppress_health_check=list(HealthCheck))
seldom = settings(often, max_examples=often.max_examples // 4)
"""For properties whose examples take tens of milliseconds."""


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """The block ends, or raises an error of this project in one line, within the limit of processor time."""
    said = "an error"
    with bounded(), contextlib.suppress(ThinktimeError):
        try:
            yield
        except ThinktimeError as error:
            said = str(error)
            raise
    assert said.strip() and "\n" not in said


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that all examples share."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# Files


RECORDED: list[Any] = [
    {"id": 1, "question": "3 + 4?", "ground_truth": "7", "outputs": [
        {"response": "The answer is 7", "response_answer": "7", "label": True, "reward": 0.5},
        {"response": "Eight", "response_answer": "8", "label": "0", "reward": "0.25"},
    ]},
    {"question": "3 + 4?", "reference": 7, "response_answer": ["7", "8"], "label": [1, 0], "reward": [[0.5], None]},
]  # fmt: skip
QUESTIONS: list[Any] = [
    {"question": "How many?", "answer": "so\n#### 1,234", "level": 3},
    {"question": "What?", "answer": "\\boxed{\\frac{1}{2}}"},
    {"question": "Write it.", "tests": "assert f(2) == 4", "answer": 7},
]
RESULT = json.loads((Path(__file__).parents[1] / "experiments" / "pocket" / "greedy.json").read_text())


def lines_of(documents: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[bytes]:
    """Documents as the lines of a file, in some encoding."""
    plain = documents.map(lambda rows: b"\n".join(map(as_bytes, rows)))
    return st.one_of(
        plain,
        plain.map(lambda data: b"\xef\xbb\xbf" + data),
        plain.map(lambda data: data.decode().encode("utf-16")),
        plain.map(gzip.compress),
    )


FILES = lines_of(st.lists(grafted([*RECORDED, *QUESTIONS]), max_size=3)) | mutated(
    [b"\n".join(map(as_bytes, RECORDED)), b"\n".join(map(as_bytes, QUESTIONS)), gzip.compress(as_bytes(RECORDED[0]))]
)


@often
@given(FILES, st.sampled_from([None, "reward", "label"]), st.booleans())
def test_odd_recorded_samples_are_replayed_or_refused_in_one_line(
    folder: Path, data: bytes, reward: str | None, drop: bool
) -> None:
    path = folder / "recorded.jsonl"
    path.write_bytes(data)
    with one_line():
        problems = read_recorded(path, Fields(reward=reward), drop_unjudged=drop)
        replay(problems, [1], rewards=reward is not None)


@often
@given(FILES, st.sampled_from(["", "programs:"]))
def test_odd_task_files_are_loaded_or_refused_in_one_line(folder: Path, data: bytes, prefix: str) -> None:
    path = folder / "problems.jsonl"
    path.write_bytes(data)
    with one_line():
        task = load(f"{prefix}{path}")
        assert all(isinstance(problem.prompt, str) for problem in task.problems)


# The bank


@pytest.fixture(scope="module")
def bank_bytes(folder: Path) -> bytes:
    """A small bank with every kind of row."""
    path = folder / "made.db"
    with Bank(path) as bank:
        bank.add_roles("model", {"main": "toy"})
        for number in range(30):
            state = {"text": "The answer is 7" * 5, "ids": [1, 2], "step_ends": [2], "logprob": -0.5, "raw": b"\x00"}
            sample = {"state": state, "finish": "eos", "usage": Usage().as_dict(), "passes": 2}
            bank.add_samples(Problem(f"p{number}", "?"), "toy", [(f"key{number}", sample)])
            bank.add_scores("judge", [(f"key{number}", Score(0.5, Usage(), (0.5,)))])
            bank.add_verdict(f"key{number}", "reference", True)
        bank.keep_spending("ann", Usage(generated_tokens=5), Usage())
    return path.read_bytes()


def read_bank(path: Path) -> None:
    """Read every kind of row, and write one of each."""
    with Bank(path) as bank:
        len(bank)
        for found in (bank.models(), bank.scorers(), bank.roles("model"), bank.verdicts("reference"), bank.spending()):
            repr(found)
        for number in range(30):
            bank.samples_of(f"p{number}")
            bank.find_sample(f"key{number}")
            bank.find_score(f"key{number}", "judge")
        bank.add_roles("model", {"main": "other"})
        bank.keep_spending("ann", Usage(), Usage())


@seldom
@given(st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=16)), max_size=6), st.integers(0, 10))
def test_a_bank_with_broken_pages_is_read_or_refused_in_one_line(
    folder: Path, bank_bytes: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(bank_bytes)
    for place, piece in changes:
        start = place % len(data)
        data[start : start + len(piece)] = piece
    path = folder / "broken.db"
    for name in ("broken.db", "broken.db-wal", "broken.db-shm"):
        (folder / name).unlink(missing_ok=True)
    path.write_bytes(data[: len(data) - cut * len(data) // 20])
    with one_line():
        read_bank(path)


CELLS = st.sampled_from(
    [None, 1, 0.5, "", "{", "null", "[]", "7", '{"a": 1}', "[" * 5000, b"\xff\xfe", "é\x00", *map(json.dumps, VALUES)]
)
COLUMNS = [
    *(("samples", name) for name in ("problem", "model", "finish", "state", "usage", "passes", "log_weight")),
    *(("readings", name) for name in ("value", "steps", "usage")),
    *(("verdicts", "correct"), ("roles", "name"), ("spending", "spent"), ("spending", "reserved"), ("blobs", "data")),
]


@seldom
@given(st.lists(st.tuples(st.sampled_from(COLUMNS), CELLS), min_size=1, max_size=3))
@example([(("samples", "usage"), '{"foreign": 1}'), (("samples", "state"), "[" * 5000)])
@example([(("readings", "usage"), "7"), (("readings", "steps"), "null"), (("spending", "spent"), b"\xff")])
def test_a_bank_with_foreign_values_is_read_or_refused_in_one_line(
    folder: Path, bank_bytes: bytes, changes: list[tuple[tuple[str, str], Any]]
) -> None:
    path = folder / "foreign.db"
    for name in ("foreign.db", "foreign.db-wal", "foreign.db-shm"):
        (folder / name).unlink(missing_ok=True)
    path.write_bytes(bank_bytes)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        for (table, column), value in changes:
            with contextlib.suppress(sqlite3.IntegrityError):
                db.execute(f"UPDATE {table} SET {column} = ?", (value,))
    with one_line():
        read_bank(path)


@seldom
@given(st.data())
def test_a_search_on_a_bank_with_foreign_samples_ends_or_is_refused_in_one_line(
    site: Site, folder: Path, data: st.DataObject
) -> None:
    def search(bank: Bank) -> Search:
        sampling = Sampling(max_length=64)
        return Search(Problem("sum", MESSAGES), site.generator, sampling=sampling, answers=TextAnswers(), journal=bank)

    path = folder / "search.db"
    if not path.exists():
        with Bank(path) as bank:
            asked = search(bank)
            site.run(asked.extend([asked.root], 2))
    changed = folder / "changed.db"
    for name in ("changed.db", "changed.db-wal", "changed.db-shm"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(path, changed)
    with contextlib.closing(sqlite3.connect(changed)) as db, db:
        column = data.draw(st.sampled_from(["state", "usage"]))
        before = json.loads(db.execute(f"SELECT {column} FROM samples").fetchone()[0])
        db.execute(f"UPDATE samples SET {column} = ?", (json.dumps(data.draw(grafted([before]))),))
    with one_line(), Bank(changed) as bank:
        again = search(bank)
        site.run(again.run(strategies.parse("majority:n=2")[1]))


# Replies


REPLY: dict[str, Any] = {
    "id": "x",
    "object": "chat.completion",
    "model": "words",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "The answer is 7"},
         "logprobs": {"content": [{"token": "7", "logprob": -0.5, "top_logprobs": []}]}},
        {"index": 1, "finish_reason": "length",
         "message": {"role": "assistant", "content": None, "reasoning_content": "hm"}},
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
              "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1}},
}  # fmt: skip
CALL = {"id": "c1", "index": 0, "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}
PARTS = [{"type": "text", "text": "The answer is 7"}, {"type": "thinking", "thinking": "hm"}]
ONE = {"index": 0, "finish_reason": "stop"}
REPLIES: list[Any] = [
    REPLY,
    {**REPLY, "choices": [{**ONE, "finish_reason": "tool_calls", "message": {"content": None, "tool_calls": [CALL]}}]},
    {**REPLY, "choices": [{**ONE, "message": {"role": "assistant", "content": PARTS}}]},
    {**REPLY, "choices": [{**ONE, "text": "7", "logprobs": {"tokens": ["7"], "token_logprobs": [-1]}}]},
    {"error": {"message": "busy", "code": 429, "type": "rate_limit_error"}},
    {"object": "error", "message": "bad", "code": 400},
]  # fmt: skip
EVENTS: list[Any] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "The answer "}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "is 7"}, "logprobs": {"content": [{"token": "7", "logprob": -1}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": None, "reasoning_content": "hm"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "text": "7", "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": REPLY["usage"]},
]  # fmt: skip


def stream(events: Sequence[Any]) -> bytes:
    """Events as the body of a stream."""
    return b"".join(b"data: %s\n\n" % as_bytes(event) for event in events) + b"data: [DONE]\n\n"


BODIES = st.one_of(
    grafted(REPLIES).map(as_bytes),
    st.lists(grafted(EVENTS, most=2), max_size=6).map(stream),
    mutated([*map(as_bytes, REPLIES), stream(EVENTS), stream(EVENTS[:2] + EVENTS[5:])]),
)
KINDS = st.sampled_from(["application/json", "text/event-stream", "text/html", "application/json; charset=utf-16", ""])
STATUSES = st.sampled_from([200, 200, 200, 200, 204, 301, 400, 404, 429, 500, 503, 599])
FACTS = st.sampled_from([{}, {"tools": [{"type": "function", "function": {"name": "add"}}]}, {"logprobs": True}])


class Unexpected(logging.Handler):
    """Keeps the last exception that the gateway logs."""

    error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.error = record.exc_info[1] if record.exc_info else self.error


class Site:
    """A gateway and the endpoint behind it, in one event loop. Requests reach the gateway without a socket."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.unexpected = Unexpected()
        logging.getLogger("thinktime").addHandler(self.unexpected)
        self.endpoint = FakeEndpoint()
        self._server = self._loop.run_until_complete(self.endpoint.serve())
        self.gateway = Gateway(GatewayConfig(self.endpoint.url, port=0, max_samples=6, max_tokens=64))
        self._app = application(self.gateway)
        self.generator = RemoteGenerator(self.endpoint.url, "words")
        self.run(self.generator.probe())
        plain = {"messages": MESSAGES, "model": "single/words"}
        assert self.ask("chat/completions", as_bytes(plain))[0] == 200  # probes

    def run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def ask(self, path: str, body: bytes, headers: Mapping[str, bytes] = {}) -> tuple[int, bytes]:
        """Status and body of the answer to a request."""
        answer: tuple[int, bytes] = self.run(self._ask(path, body, headers))
        return answer

    async def _ask(self, path: str, body: bytes, headers: Mapping[str, bytes]) -> tuple[int, bytes]:
        given = {"host": b"127.0.0.1", "content-type": b"application/json", **headers}
        scope = {
            "type": "http", "method": "POST" if body else "GET", "path": f"/v1/{path}", "query_string": b"",
            "http_version": "1.1", "scheme": "http", "root_path": "", "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80), "raw_path": b"",
            "headers": [(name.encode(), value) for name, value in given.items()],
        }  # fmt: skip
        waiting, sent = [{"type": "http.request", "body": body}], list[Any]()

        async def receive() -> Any:
            if waiting:
                return waiting.pop()
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        return sent[0]["status"], b"".join(message["body"] for message in sent[1:])

    def close(self) -> None:
        logging.getLogger("thinktime").removeHandler(self.unexpected)
        self.run(self.generator.close())
        self.run(self.gateway.upstreams.close())
        self._server.close()
        self._loop.close()


MESSAGES = [{"role": "user", "content": "what is 3 + 4"}]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    patch = pytest.MonkeyPatch()
    patch.setattr(client_module, "FIRST_WAIT", 0.0)
    made = Site()
    yield made
    made.close()
    patch.undo()


@often
@given(st.lists(st.tuples(BODIES, KINDS, STATUSES), min_size=1, max_size=3), FACTS, st.booleans(), st.integers(1, 2))
def test_odd_replies_of_an_endpoint_become_samples_or_errors_of_one_line(
    site: Site, replies: list[tuple[bytes, str, int]], fields: dict[str, Any], heard: bool, count: int
) -> None:
    async def on_event(event: Mapping[str, Any]) -> None:
        json.dumps(event)

    generator = site.generator.sending(fields, on_event if heard else None)
    answers = SampleAnswers(as_json=False, tools="tools" in fields)
    search = Search(Problem("sum", MESSAGES), generator, sampling=Sampling(max_length=64), answers=answers)
    site.endpoint.sent.clear()
    site.endpoint.sent.extend(written(*reply) for reply in replies)
    with one_line():
        for node in site.run(search.extend([search.root], count)):
            answers.read(node.state)
            json.dumps(generator.pack(search.root.state, node.state))
            node.state.text.encode()
    spent = search.ledger.spent
    assert spent.generated_tokens >= 0 and (spent.prompt_tokens or 0) >= 0


METHODS = st.sampled_from(["", "single/", "majority:n=2/", "self_refine/", "majority:n=2@90tok/"])


@often
@given(
    st.lists(st.tuples(BODIES, KINDS, STATUSES), min_size=1, max_size=3),
    METHODS,
    st.sampled_from(["chat/completions", "completions", "responses", "messages"]),
    FACTS,
    st.booleans(),
)
def test_the_gateway_answers_odd_replies_of_its_upstream_without_a_fault(
    site: Site, replies: list[tuple[bytes, str, int]], method: str, path: str, fields: dict[str, Any], streamed: bool
) -> None:
    prompt: dict[str, Any] = {"chat/completions": {"messages": MESSAGES}, "completions": {"prompt": "3 + 4"}}
    prompt["messages"] = {"messages": MESSAGES, "max_tokens": 64}
    body = {"model": f"{method}words", "stream": streamed, **fields, **prompt.get(path, {"input": "3 + 4"})}
    site.endpoint.sent.clear()
    site.endpoint.sent.extend(written(*reply) for reply in replies)
    checked(site, path, as_bytes(body), passed_on=not method)


def checked(site: Site, path: str, body: bytes, headers: Mapping[str, bytes] = {}, *, passed_on: bool = False) -> None:
    """The gateway answers JSON or a stream, and no error is unexpected."""
    site.unexpected.error = None
    with bounded():
        status, said = site.ask(path, body, headers)
    if site.unexpected.error is not None:
        raise site.unexpected.error
    assert b"the gateway failed" not in said
    if said.startswith((b"data:", b"event:", b":")):
        assert status == 200 or passed_on
    elif not passed_on:
        assert json.loads(said)
    site.endpoint.sent.clear()
    assert site.ask("chat/completions", as_bytes({"messages": MESSAGES, "model": "words"}))[0] == 200


# Requests


CHAT: dict[str, Any] = {"model": "majority:n=2/words", "messages": MESSAGES, "max_tokens": 64, "temperature": 0.5}
REQUESTS: list[Any] = [
    CHAT,
    {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "stop": ["."], "seed": 7, "n": 1},
    {**CHAT, "model": "words", "thinktime": {"strategy": "majority", "n": 2, "budget": {"tokens": 400, "seconds": 9}}},
    {**CHAT, "model": "words", "thinktime": {"strategy": "self_refine", "prompts": {"critique": "Is {answer} right?"}}},
    {**CHAT, "model": "words",
     "thinktime": {"strategy": "single", "models": {"draft": "words"}, "scorers": {"j": "words"}}},
    {**CHAT, "messages": [{"role": "system", "content": "Say."}, {"role": "user", "content": PARTS[:1]},
                          {"role": "assistant", "content": None, "tool_calls": [CALL]},
                          {"role": "tool", "content": "7"}],
     "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}], "tool_choice": "auto"},
    {**CHAT, "response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 2, "user": "ann"},
    {"model": "bon-words", "optillm_approach": None, "messages": MESSAGES},
    {"model": "majority:n=2/words", "prompt": "3 + 4", "max_tokens": 9, "logprobs": 1},
    {"model": "majority:n=2/words", "input": "3 + 4", "max_output_tokens": 64, "instructions": "Say.", "store": False,
     "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}, "reasoning": {"effort": "low"}},
    {"model": "words", "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "3"}]},
                                 {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
                                 {"type": "function_call_output", "call_id": "c", "output": "7"},
                                 {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}],
     "tools": [{"type": "function", "name": "add", "parameters": {}}],
     "tool_choice": {"type": "function", "name": "add"}},
]  # fmt: skip
SPECS = [
    *("single", "majority:n=2", "best_of_n:n=2", "beam_search:n=2,width=2", "restarts(majority:n=2):n=2", "mcts:n=2"),
    *("first_finish:n=2,k=1", "self_refine", "auto", "aggregate", "early_rejection:tau=auto", "adaptive_consistency"),
]


@often
@given(
    st.sampled_from(["chat/completions", "completions", "responses", "messages", "models", "metrics"]),
    grafted(REQUESTS).map(as_bytes) | mutated([as_bytes(each) for each in REQUESTS]),
    st.fixed_dictionaries(
        {},
        optional={
            "x-thinktime": mutated([spec.encode() for spec in SPECS]),
            "content-type": mutated([b"application/json; charset=utf-8"]),
            "authorization": mutated([b"Bearer tt-1234567890123456"]),
            "host": mutated([b"localhost:8080", b"[::1]:80"]),
            "traceparent": mutated([b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]),
        },
    ),
)
@example("chat/completions", as_bytes(REQUESTS[0]), {"host": b"["})
@example("chat/completions", as_bytes({**CHAT, "model": "words"}), {"traceparent": b"\x00"})
@example("chat/completions", as_bytes({**CHAT, "messages": [{"role": "user", "tool_calls": 7}]}), {})
@example("chat/completions", as_bytes({**CHAT, "messages": [{"role": "user", "function_call": True}]}), {})
@example("chat/completions", as_bytes({**CHAT, "model": "plan_then_solve/words", "messages": [{"role": "user"}]}), {})
def test_the_gateway_answers_odd_requests_without_a_fault(
    site: Site, path: str, body: bytes, headers: dict[str, bytes]
) -> None:
    checked(site, path, body, headers, passed_on=True)


# Specs, budgets, prices


TEXTS = st.text(max_size=40) | mutated([spec.encode() for spec in SPECS]).map(
    lambda data: data.decode(errors="replace")
)


@often
@given(TEXTS)
@example(":\n")
def test_odd_strategy_specs_are_parsed_or_refused_in_one_line(text: str) -> None:
    with one_line():
        for each in strategies.listed(text):
            _, made = strategies.parse(each)
            again = strategies.spec(made)
            assert strategies.parse(again)[1] == made
    with one_line():
        parse_method(text)
    with one_line():
        Config(strategy=text)


LIMITS = [
    b"4000tok",
    b"0.1$",
    b"30s",
    b"1e6tok,5usd",
    b"2e12flops",
    b"16calls , 400nfe",
    b"20actions",
    b"0.15/0.60/0.1",
]


@often
@given(mutated(LIMITS).map(lambda data: data.decode(errors="replace")) | st.text(max_size=20))
def test_odd_budgets_and_prices_are_parsed_or_refused_in_one_line(text: str) -> None:
    with one_line():
        repr(Budget.parse(text))
    with one_line():
        Price.parse(text).dollars(1, 2, 3)


# Settings


TOML = [
    b'upstream = "http://127.0.0.1:8000/v1"\nport = 9501\nbudget = "1e6tok"\nprice = "0.1/0.2"\nmax_tokens = 400\n',
    b'[keys.ann]\nsha256 = "' + b"0" * 64 + b'"\nbudget = "9usd"\nrequests_per_minute = 60\nsees_all = true\n',
    b'[models]\ndraft = "small"\n[models.big]\nmodel = "m"\nbase_url = "http://127.0.0.1/v1"\nkey_variable = "K"\n',
    b'[scorers.main]\nmodel = "m"\nprice = "1/2"\n[prompts]\ncritique = "Is {answer} right?"\n',
    b"a = " + b"[" * 300 + b"\n",
    b"port = 99999999999999999999\nbudget = 7\nkeys = [1]\nmax_tokens = 1979-05-27T07:32:00Z\nhost = inf\n",
]


@often
@given(mutated(TOML))
@example(b"a = " + b"[" * 3000)
def test_odd_settings_of_the_gateway_are_read_or_refused_in_one_line(folder: Path, data: bytes) -> None:
    path = folder / "gateway.toml"
    path.write_bytes(data)
    with one_line():
        found = {"upstream": "http://127.0.0.1:8000/v1"} | read_config(path)
        GatewayConfig(**found)


SOURCES = st.text(max_size=20) | st.sampled_from(
    [
        "~nobody/x",
        "~",
        "/",
        ".",
        "http://[",
        "http://a b/",
        "https://u:p@h/v1",
        "http://h/v1#f",
        "a" * 5000,
        "pocket",
        "\x00",
    ]
)
NUMBERS = st.floats() | st.integers(-5, 10) | st.sampled_from([10**400, 10**30])


@often
@given(
    SOURCES,
    st.fixed_dictionaries(
        {},
        optional={
            "scorers": SOURCES,
            "temperature": NUMBERS,
            "top_p": NUMBERS,
            "max_tokens": NUMBERS,
            "budget": TEXTS,
            "environments": SOURCES,
            "prompts": st.dictionaries(st.sampled_from(["critique", "no such"]), st.text(max_size=20), max_size=1),
        },
    ),
)
def test_odd_settings_of_a_search_are_accepted_or_refused_in_one_line(source: str, options: dict[str, Any]) -> None:
    with one_line():
        Config(source, **options)
    with one_line():
        ModelSpec(source, price=options.get("budget"), parameters=options.get("top_p"))


# Templates


SOURCE = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}{{ eos_token }}"
TEMPLATES = [
    SOURCE.encode(),
    b"{{ bos_token }}{%- for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    b"[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
    b"{% macro t(m) %}{{ caller() }}{% endmacro %}{% for m in messages %}{% call t(m) %}{{ m.content }}{% endcall %}"
    b"{% endfor %}{{ messages | tojson }}{{ strftime_now('%d %b') }}{% set ns = namespace(n=0) %}{% set ns.n = 1 %}",
    b"{% for m in messages %}{% generation %}{{ m.content.split('</think>')[-1] }}{% endgeneration %}{% endfor %}",
    b"{{ messages[0].content[::-1] * 2 }}{{ range(9) | list }}{{ 7 / 2 }}{{ 'a' % 3 }}{{ dict(a=1).a }}{{ x is none }}",
]
CONVERSATIONS: list[Any] = [
    [{"role": "system", "content": "Say."}, *MESSAGES, {"role": "assistant", "content": "7", "reasoning": "hm"}],
    [*MESSAGES, *MESSAGES, {"role": "user", "content": PARTS}],
]


@often
@given(mutated(TEMPLATES).map(lambda data: data.decode(errors="replace")), grafted(CONVERSATIONS, most=1))
@example(SOURCE, [None])
@example(SOURCE, [{"content": "7"}])
@example(SOURCE, 7)
def test_odd_chat_templates_are_rendered_or_refused_in_one_line(source: str, messages: Any) -> None:
    with one_line():
        ChatTemplate(source, {"eos_token": "</s>"}).render(conversation(messages))


# Model directories


FEW = st.sampled_from([None, True, False, -1, 0, 1, 2, 3, 7, 0.5, "", "text", "llama", [], {}, [1], ["a"], {"a": 1}])


@pytest.fixture(scope="module")
def tiny_directory(folder: Path) -> Path:
    import torch

    from thinktime.models.engine.transformers_model import TransformersLM

    made = tiny_directory_in(folder / "tiny")
    TransformersLM(made, json.loads((made / "config.json").read_text()), torch.float32)  # its imports take seconds
    return made


@seldom
@given(st.data(), st.sampled_from(["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"]))
def test_odd_model_directories_are_loaded_or_refused_in_one_line(
    folder: Path, tiny_directory: Path, data: st.DataObject, name: str
) -> None:
    from thinktime.models.engine.models import load_language_model
    from thinktime.models.engine.rows import Row

    path = folder / "changed"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(tiny_directory, path)
    before = json.loads((path / name).read_text()) if (path / name).exists() else {"eos_token_id": [1, 2]}
    changed = grafted([before], most=2, odd=FEW).map(as_bytes)
    (path / name).write_bytes(data.draw(changed | mutated([as_bytes(before)]) if name != "tokenizer.json" else changed))
    with one_line():
        model = load_language_model(path)
        ids = model.tokenizer.encode_chat("Jon buys 6 keys.", spell=True)
        model.engine(kv_bytes=1 << 20).run([Row(tuple(ids), 0, max_tokens=2)])


# Answers


SIGNS = [
    *("0", "1", "7", "42", "1,234", "0.5", ".5", "1/2", "3e8", "10^{400}", "99999999", "x", "y", "e", "i", "\\pi"),
    *("\\infty", "+", "-", "*", "/", "^", "_", "!", "=", "<", "\\le", "\\in", "\\cup", "\\pm", "\\sqrt", "\\frac"),
    *("\\binom", "\\sum", "\\prod", "\\int", "\\log", "\\sin", "gcd", "max", "floor", "(", ")", "[", "]", "{", "}"),
    *("\\{", "\\}", "|", ",", ";", " ", "  ", "\n", "\\", "\\\\", "&", "$", "%", "\\%", "\xb0", "^\\circ", "\\text{"),
    *("cm", " and ", " or ", "million", "am", "\xbd", "\xb2", "\u221a", "\u0667", "\u2212", "\u200b", "\x00", "\ud83d"),
    *("\\begin{pmatrix}", "\\end{pmatrix}", "\\overline{", "...", "_8", "\\boxed{", "\\boxed", "#### ", "```"),
    *("The answer is ", "Final answer: ", "**", "</think>", "<think>", "\nQuestion: "),
]
ANSWERS = st.lists(st.sampled_from(SIGNS), max_size=14).map("".join) | st.text(max_size=30)
LONG = st.tuples(ANSWERS, st.sampled_from([1, 1, 2, 50, 2000])).map(lambda pair: pair[0] * pair[1])


@often
@given(LONG, ANSWERS)
def test_odd_answers_are_read_and_compared_in_bounded_time(one: str, other: str) -> None:
    with bounded():
        hash(canonical(one))
        assert equivalent(one, other) is equivalent(other, one)
        for reader in READERS.values():
            found = reader(f"{other} {one}")
            assert found is None or isinstance(found, str)


@often
@given(
    LONG
    | mutated([b'{"a": 7}', b'```json\n{"a": [1.0, 2e400]}\n```', b"[1, 2]"]).map(
        lambda data: data.decode(errors="replace")
    ),
    grafted([{"message": {"content": None, "tool_calls": [CALL], "function_call": CALL["function"]}}]),
    st.booleans(),
    st.booleans(),
)
@example("", {"message": {"tool_calls": True, "function_call": {}}}, False, False)
def test_odd_answers_of_the_gateway_are_read_in_bounded_time(
    text: str, choice: Any, as_json: bool, tools: bool
) -> None:
    answers = SampleAnswers(as_json=as_json, tools=tools)
    with bounded():
        answer = answers.read(RemoteText("", text=text, choice=json.dumps(choice)))
        assert answer is None or hash(answers.key(answer)) is not None


# The command line


WORDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20)
ARGUMENTS = st.one_of(
    WORDS.map(lambda word: ("strategies", "show", word)),
    st.tuples(st.sampled_from(["--k", "--samples", "--answer", "--reward", "--seed"]), WORDS).map(
        lambda pair: ("replay", "FILE", "--k=1", f"{pair[0]}={pair[1]}")
    ),
    st.tuples(
        st.sampled_from(["--strategies", "--n", "--budget", "--question-field", "--reader", "--levels", "--problems"]),
        WORDS | TEXTS.map(lambda text: text.replace("\x00", "")),
    ).map(lambda pair: ("bench", "FILE", "--model=nothing", f"{pair[0]}={pair[1]}")),
    st.tuples(
        st.sampled_from(
            [
                *("--model", "--model-name", "--price", "--scorer", "--environment", "--prompt", "--strategy"),
                *("--budget", "--temperature", "--max-tokens", "--dtype", "--parameters", "--aggregate"),
                "--thinking-tokens",
            ]
        ),
        WORDS | SOURCES.filter(lambda text: text not in ("\x00", "pocket")),
    ).map(lambda pair: ("ask", "what?", "--model=nothing", f"{pair[0]}={pair[1]}")),
    st.just(("report", "FILE")),
    st.lists(WORDS, max_size=3).map(tuple),
)


@pytest.fixture(scope="module")
def imported() -> None:
    """The imports of the commands take seconds, once."""
    for arguments in (("strategies",), ("replay", "nothing"), ("bench", "nothing"), ("report", "nothing")):
        ran(*arguments)
    ran("ask", "what?", "--model=nothing")


@pytest.mark.usefixtures("imported")
@seldom
@given(ARGUMENTS, FILES | grafted([RESULT]).map(as_bytes))
@example(("report", "FILE"), as_bytes({"schema": 1, "runs": [{"strategy": "majority"}]}))
@example(("report", "FILE"), b"[" * 10_000)
def test_odd_arguments_and_files_of_a_command_end_with_a_documented_exit_code(
    folder: Path, arguments: tuple[str, ...], data: bytes
) -> None:
    path = folder / "input"
    path.write_bytes(data)
    with contextlib.chdir(folder), bounded():
        code, _, said = ran(*(str(path) if word == "FILE" else word for word in arguments))
    assert code in (0, 1, 2)
    assert (code == 0) or said.startswith("error: ") or "\nerror: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "what?", "--model=~nobody/x"),
        ("ask", "what?", f"--model={'a' * 5000}"),
        ("ask", "what?", f"--model=draft={'a' * 5000}"),
        ("ask", "what?", "--scorer=~nobody/x"),
        ("ask", "what?", "--prompt=check=~nobody/x"),
        ("bench", "a" * 5000),
        ("bench", "programs:~nobody/x"),
        ("doctor", "~nobody/x"),
    ],
)
def test_an_impossible_path_is_an_error_of_the_user(folder: Path, arguments: tuple[str, ...]) -> None:
    with contextlib.chdir(folder):
        code, _, said = ran(*arguments)
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1
