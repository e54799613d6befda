"""Spans of the gateway at an OTLP collector: one per request, an inner one per upstream request, without any text."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fake_endpoint import Running
from gateway_server import PLAIN, VOTE, Serving, probe_first

from thinktime.core.errors import InputError
from thinktime.gateway.tracing import Tracing
from thinktime.models.remote import client

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
CLIENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SERVER, CLIENT = 2, 3
"""OTLP's numbers of the kinds of spans, and below of the status of a failed one."""
ERROR = 2


@dataclass
class Span:
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    status: int
    attributes: dict[str, Any]


@dataclass
class Collector:
    """A server that receives spans by OTLP over HTTP."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    raw: bytes = b""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    taken = Collector()

    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        found = getattr(value, kind)
        return [plain(each) for each in found.values] if kind == "array_value" else found

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.raw += body
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {each.key: plain(each.value) for each in resource.resource.attributes}
                taken.services.add(names["service.name"])
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    attributes = {each.key: plain(each.value) for each in span.attributes}
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    taken.spans.append(Span(span.name, span.kind, *ids, span.status.code, attributes))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    taken.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", taken.url)
    yield taken
    server.shutdown()
    server.server_close()


def of_kind(collector: Collector, kind: int) -> list[Span]:
    return [span for span in collector.spans if span.kind == kind]


def test_a_vote_is_a_span_with_a_span_for_each_request_upstream(collector: Collector) -> None:
    with Running(n="ignored") as endpoint, Serving(endpoint.url) as gateway:
        probe_first(endpoint, gateway)
        status, answer, _ = gateway.ask({**VOTE, "model": "majority:n=3/words", "seed": 5}, traceparent=CLIENTS)
        assert status == 200 and len(endpoint.requests) == 3
        received = [headers["traceparent"].split("-") for headers in endpoint.headers[-3:]]
    (request,) = [span for span in of_kind(collector, SERVER) if span.trace == CLIENTS.split("-")[1]]
    samples = [span for span in of_kind(collector, CLIENT) if span.parent == request.id]
    assert (request.name, request.parent, request.status) == ("chat words", CLIENTS.split("-")[2], 0)
    assert {span.trace for span in samples} == {request.trace} and len(samples) == 3
    assert sorted((trace, parent) for _, trace, parent, _ in received) == sorted((s.trace, s.id) for s in samples)
    usage = answer["usage"]
    assert request.attributes == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "words",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 5,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "thinktime.strategy": "majority",
        "thinktime.finish": "done",
        "thinktime.trace": answer["thinktime"]["trace"],
    }
    assert sum(span.attributes["gen_ai.usage.output_tokens"] for span in samples) == usage["completion_tokens"]
    for span in samples:
        assert span.name == "chat words" and span.attributes["gen_ai.response.finish_reasons"] == ["stop"]
        assert span.attributes["server.address"] == "127.0.0.1" and span.attributes["server.port"] == endpoint.port
    assert collector.services == {"thinktime"}


def test_no_word_of_question_or_answer_is_in_a_span(collector: Collector) -> None:
    with Running(says=["zebra"]) as endpoint, Serving(endpoint.url) as gateway:
        asked = [{"role": "user", "content": "quagga"}]
        for model in ("single/words", "words", "single/words"):
            assert b"zebra" in gateway.read({**PLAIN, "model": model, "messages": asked})
    assert len(of_kind(collector, SERVER)) == 3
    assert b"quagga" not in collector.raw and b"zebra" not in collector.raw


@pytest.mark.parametrize("stream", [False, True])
def test_forwarded_and_streamed_requests_have_spans(collector: Collector, stream: bool) -> None:
    with Running() as endpoint, Serving(endpoint.url) as gateway:
        probe_first(endpoint, gateway)
        for model in ("words", "single/words"):
            body = {**PLAIN, "model": model, "stream": stream}
            body |= {"stream_options": {"include_usage": True}} if stream else {}
            gateway.read(body)
        spent = endpoint.generated_tokens
    requests = of_kind(collector, SERVER)[-2:]
    for request in requests:
        assert (
            request.attributes["gen_ai.request.model"] == "words"
            and request.attributes["http.response.status_code"] == 200
        )
    samples = [span for span in of_kind(collector, CLIENT) if span.parent in {request.id for request in requests}]
    assert len(samples) == 2 and sum(span.attributes["gen_ai.usage.output_tokens"] for span in samples) == spent


def test_errors_have_a_type_and_only_server_errors_are_failures(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    with Running() as endpoint, Serving(endpoint.url) as gateway:
        probe_first(endpoint, gateway)
        assert gateway.ask({**PLAIN, "model": "majorty/words"})[0] == 400
        endpoint.faults.extend(["500"] * 5)
        assert gateway.ask({**PLAIN, "model": "single/words"})[0] == 500
    mistake, failure = of_kind(collector, SERVER)[-2:]
    assert (mistake.status, mistake.attributes["error.type"]) == (0, "400")
    assert (failure.status, failure.attributes["error.type"]) == (ERROR, "500")
    (sample,) = [span for span in of_kind(collector, CLIENT) if span.parent == failure.id]
    assert (sample.status, sample.attributes["error.type"]) == (ERROR, "500")


def test_without_a_collector_opentelemetry_is_not_imported() -> None:
    script = "import sys, thinktime.gateway.tracing\nthinktime.gateway.tracing.Tracing()\n"
    script += "print(any(name.startswith('opentelemetry') for name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_an_unreachable_collector_or_a_disabled_one_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    for disabled in ("false", "true"):
        monkeypatch.setenv("OTEL_SDK_DISABLED", disabled)
        with Running() as endpoint, Serving(endpoint.url) as gateway:
            assert gateway.ask({**PLAIN, "model": "single/words"})[0] == 200


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InputError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL='grpc': only http/protobuf works"):
        Tracing()


def test_missing_packages_are_reported_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InputError, match=r"pip install 'thinktime\[otel\]'"):
        Tracing()
