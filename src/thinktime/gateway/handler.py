"""What all calls have in common: authentication, the body, the end of a request, and its errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from thinktime.gateway.asgi import ClientLeftError, ResponseWriter, read_body, run_while_connected
from thinktime.gateway.auth import ApiClient, address_of
from thinktime.gateway.errors import ErrorShape, HttpError, http_error
from thinktime.gateway.history import HistoryEntry
from thinktime.gateway.limits import GRACE_SECONDS
from thinktime.gateway.logs import log_request
from thinktime.gateway.shadow import LONGEST, Read
from thinktime.gateway.state import Gateway
from thinktime.gateway.tracing import Attributes
from thinktime.models.remote.limits import Share


@dataclass
class RequestContext:
    """One request while it is answered."""

    headers: Mapping[str, str]
    writer: ResponseWriter
    address: str
    """The address of the client."""
    name: str
    """The name in the path; empty if the route has none."""
    client: ApiClient = field(init=False)
    samples: Share = field(init=False)
    """What it takes of its client's samples in progress."""
    raw: bytes = b""
    entry: HistoryEntry | None = None
    """Its entry in the history, once the body is read."""
    read: Read | None = None
    """Parses it as a request for one answer, if it is one."""
    attributes: Attributes = field(default_factory=dict)
    """The attributes of its span."""

    @property
    def strategy(self) -> str:
        """The name of the method that the request names; empty if it names none."""
        return self.entry.method.name if self.entry is not None and self.entry.method is not None else ""


Answering = Callable[[RequestContext], Coroutine[Any, Any, None]]


class RouteHandler:
    """One route: it authenticates, reads the body, answers while the client is connected, and reports errors."""

    def __init__(self, gateway: Gateway, answer: Answering, shape: ErrorShape) -> None:
        self._gateway, self._answer, self._shape = gateway, answer, shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        gateway, metrics, began = self._gateway, self._gateway.metrics, time.monotonic()
        request = Request(scope)
        name = scope["path_params"].get("name", "")
        context = RequestContext(dict(request.headers), ResponseWriter(send), address_of(request), name)
        path = scope["path"].removesuffix(name)  # the metrics count a route once, whatever the name
        counted = path != "/metrics"  # a scrape does not count itself
        metrics.in_flight.inc(counted)
        try:
            with gateway.tracing.request(scope["method"], scope["path"], context.headers) as context.attributes:
                await self._answered(context, receive)
                context.attributes["http.response.status_code"] = context.writer.status
        finally:
            metrics.in_flight.dec(counted)
            if context.entry is not None:
                gateway.history.end(context.entry, context.writer.status)
                metrics.charge(context.entry.client.name, context.entry.ledger.spent)
                gateway.auth.ended(context.entry.client, context.entry.ledger.spent)
                if gateway.shadow is not None:
                    gateway.shadow.left(context.entry.client, context.read if _is_answered(context) else None)
            log_request(scope["method"], path, context.writer.status, began, context.entry)
            metrics.answered.labels(path, context.strategy, context.writer.status).inc()
            metrics.seconds.labels(path, context.strategy).observe(time.monotonic() - began)

    async def _answered(self, context: RequestContext, receive: Receive) -> None:
        gateway = self._gateway
        try:
            context.client = await gateway.auth.admitted(context.headers, context.address)
            most, seconds = gateway.config.max_body, gateway.config.request_seconds + GRACE_SECONDS
            with Share(context.client.bodies) as body, Share(context.client.samples) as context.samples:
                context.raw = await read_body(receive, context.headers, most, body)
                await run_while_connected(self._answer(context), receive, context.writer, seconds, gateway.running)
        except ClientLeftError:
            gateway.metrics.left.inc()
            if context.entry is not None:
                context.entry.left = True
        except Exception as error:
            failed = http_error(error, gateway.roles.addresses)
            _release(error)
            if context.entry is not None:
                context.entry.error = failed.message
            await _fail(context.writer, failed, self._shape)


def _is_answered(context: RequestContext) -> bool:
    entry = context.entry
    ended = entry is not None and not entry.error and not entry.left
    return ended and context.writer.status == 200 and len(context.raw) <= LONGEST


def _release(error: BaseException) -> None:
    """Forget the functions that an error came through, and the errors behind it.

    Their variables refer to the error. Such a cycle would keep the request's body until the next garbage collection.
    """
    behind: BaseException | None = error
    while behind is not None:
        error, behind = behind, behind.__context__
        error.__traceback__ = error.__context__ = error.__cause__ = None


async def _fail(writer: ResponseWriter, error: HttpError, shape: ErrorShape) -> None:
    """Reply with an error. A proxied answer that has already begun is left incomplete, as the upstream left it."""
    if not writer.status:
        more = {"Connection": "close"} if error.status == 413 else {}
        await writer.send_json(error.status, shape.body(error), error.headers | more)
    elif writer.streaming:
        await writer.end(shape.event(shape.body(error)))
