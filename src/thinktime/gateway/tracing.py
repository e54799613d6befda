"""OpenTelemetry spans, if the standard environment variables name a collector. They contain no prompts or answers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from thinktime.core.errors import InputError
from thinktime.gateway.methods import Method
from thinktime.gateway.replies import SearchOutcome, usage
from thinktime.gateway.request import CompletionRequest
from thinktime.models.remote.client import RefusedError
from thinktime.models.remote.observers import ObservedRequest, Observer
from thinktime.models.remote.protocol import read_usage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

Attributes = dict[str, Any]
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OPERATIONS = {"chat/completions": "chat", "completions": "text_completion", "responses": "chat", "messages": "chat"}


class Tracing:
    """Makes a span for each request, and one inside it for each request to the upstream; none without a collector.

    Raises:
        InputError: a collector is configured, but the packages are missing, or the protocol is not HTTP.
    """

    def __init__(self) -> None:
        self._provider = _provider()

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[Attributes]:
        """A span around one request, in the client's trace. Attributes that the caller adds become the span's."""
        attributes: Attributes = {}
        if self._provider is None or method != "POST":
            yield attributes
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        operation = OPERATIONS.get(path.removeprefix("/v1/"), path)
        known = {"http.request.method": "POST", "url.path": path, "gen_ai.operation.name": operation}
        above = TraceContextTextMapPropagator().extract(dict(headers))
        tracer = self._provider.get_tracer("thinktime")
        with tracer.start_as_current_span(
            operation, above, SpanKind.SERVER, known, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield attributes
            finally:
                _record(span, operation, attributes)
                if (status := attributes.get("http.response.status_code", 0)) >= 400 or not status:
                    _fail(span, str(status) if status else "client_left", failed=status >= 500)

    def sampling(self, upstream: str) -> Observer:
        """Makes a span around each request to an upstream, which receives the trace context in a header."""
        at = {"server.address": urlsplit(upstream).hostname, "server.port": urlsplit(upstream).port}
        return partial(self._sampling, at)

    @contextmanager
    def _sampling(self, at: Attributes, path: str, body: Mapping[str, Any]) -> Iterator[ObservedRequest]:
        if self._provider is None:
            yield ObservedRequest()
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        operation = OPERATIONS.get(path, path)
        attributes: Attributes = {"gen_ai.operation.name": operation, "gen_ai.provider.name": "openai", **at}
        tracer = self._provider.get_tracer("thinktime")
        with tracer.start_as_current_span(
            operation, kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
        ) as span:
            headers: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(headers)
            observed = ObservedRequest(headers)
            try:
                yield observed
            except BaseException as error:
                _fail(span, str(error.status) if isinstance(error, RefusedError) else type(error).__name__, failed=True)
                raise
            finally:
                _record(span, operation, {**attributes, **_requested(body), **_replied(observed.reply)})

    def close(self) -> None:
        """Send the remaining spans; this blocks until the collector has them."""
        if self._provider is not None:
            self._provider.shutdown()


def request_attributes(request: CompletionRequest, method: Method) -> Attributes:
    """Span attributes of a request."""
    sampling = request.sampling
    attributes = {"gen_ai.request.model": request.model, "gen_ai.request.max_tokens": sampling.max_length}
    attributes |= {"gen_ai.request.temperature": sampling.temperature, "gen_ai.request.top_p": sampling.top_p}
    return {**attributes, "gen_ai.request.seed": request.seed, "thinktime.strategy": method.name}


def outcome_attributes(outcome: SearchOutcome) -> Attributes:
    """Span attributes of an answer."""
    spent = usage(outcome.search) or {}
    return {
        "gen_ai.usage.input_tokens": spent.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": spent.get("completion_tokens"),
        "thinktime.finish": outcome.answer.finish,
        "thinktime.trace": outcome.search.problem.id,
    }


def _requested(body: Mapping[str, Any]) -> Attributes:
    names = {"model": "model", "temperature": "temperature", "top_p": "top_p", "seed": "seed", "n": "choice.count"}
    names |= dict.fromkeys(("max_tokens", "max_completion_tokens", "max_output_tokens"), "max_tokens")
    values = [(attribute, body.get(name)) for name, attribute in names.items()]
    return {f"gen_ai.request.{name}": value for name, value in values if isinstance(value, str | int | float)}


def _replied(reply: Mapping[str, Any]) -> Attributes:
    reported, choices = read_usage(reply), reply.get("choices") or ()
    reasons = [choice.get("finish_reason") for choice in choices if isinstance(choice, Mapping)]
    attributes: Attributes = {
        "gen_ai.response.finish_reasons": [reason for reason in reasons if isinstance(reason, str)] or None
    }
    attributes |= {name: reply.get(name.rpartition(".")[2]) for name in ("gen_ai.response.id", "gen_ai.response.model")}
    if reported is not None:
        attributes |= {"gen_ai.usage.input_tokens": reported.prompt, "gen_ai.usage.output_tokens": reported.generated}
    return attributes


def _record(span: Span, operation: str, attributes: Attributes) -> None:
    """Set the attributes of a span, and name it by its operation and model."""
    if model := attributes.get("gen_ai.request.model"):
        span.update_name(f"{operation} {model}")
    span.set_attributes({name: value for name, value in attributes.items() if value is not None})


def _fail(span: Span, kind: str, *, failed: bool) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    if failed:
        span.set_status(Status(StatusCode.ERROR))


def _provider() -> TracerProvider | None:
    named = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if named is None or off or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    protocol = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise InputError("OTEL_EXPORTER_OTLP_PROTOCOL", protocol, "only http/protobuf works; set that, or unset it")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InputError(named, os.environ[named], "run pip install 'thinktime[otel]', or unset it") from None
    name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "thinktime"}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
