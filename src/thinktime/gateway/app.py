"""The gateway as an ASGI application: its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from thinktime.gateway import messages
from thinktime.gateway.asgi import HeadCheck
from thinktime.gateway.calls import Calls
from thinktime.gateway.errors import ErrorShape, HttpError
from thinktime.gateway.handler import Answering, RouteHandler
from thinktime.gateway.page import Page
from thinktime.gateway.replies import error_event
from thinktime.gateway.state import Gateway

OPENAI = ErrorShape(lambda error: error.body, error_event)
EXPOSED = (
    *("Retry-After", "X-Request-Id"),
    *(f"X-RateLimit-{what}-{of}" for of in ("Requests", "Tokens") for what in ("Limit", "Remaining", "Reset")),
)
"""Headers of replies that pages of other origins may read."""
ANTHROPIC = ErrorShape(messages.error_body, messages.error_event)


def application(gateway: Gateway) -> Starlette:
    """The application that serves a gateway, and closes it at the end."""
    calls = Calls(gateway)

    def handled(answer: Answering, shape: ErrorShape = OPENAI) -> RouteHandler:
        return RouteHandler(gateway, answer, shape)

    async def ready(_: Request) -> Response:
        """Whether an upstream answers. Unlike ``/health``, which says that this process does."""
        answers = await gateway.upstreams.reachable()
        several = {"upstreams": answers} if len(answers) > 1 else {}
        if any(answers.values()):
            return JSONResponse({"status": "ok", **several})
        return JSONResponse({"status": "the upstream does not answer", **several}, 503)

    @asynccontextmanager
    async def living(_: Starlette) -> AsyncIterator[None]:
        working = []
        if gateway.snapshots is not None:
            working.append(asyncio.create_task(gateway.keep_metrics(gateway.snapshots)))
        if gateway.retention is not None:
            working.append(asyncio.create_task(gateway.retention.run()))
        yield
        for task in working:
            task.cancel()
        await gateway.close()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", handled(calls.ask("chat/completions")), methods=["POST"]),
            Route("/v1/completions", handled(calls.ask("completions")), methods=["POST"]),
            Route("/v1/responses", handled(calls.respond), methods=["POST"]),
            Route("/v1/messages", handled(calls.message, ANTHROPIC), methods=["POST"]),
            Route("/v1/embeddings", handled(calls.embed), methods=["POST"]),
            Route("/v1/models", handled(calls.models), methods=["GET"]),
            Route("/v1/models/{name:path}", handled(calls.model), methods=["GET"]),
            Route("/metrics", handled(calls.metrics), methods=["GET"]),
            Route("/health", _health, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
            *Page(gateway).routes,
        ],
        middleware=[Middleware(HeadCheck), *_cors(gateway.config.cors_origins)],
        exception_handlers={HTTPException: _no_such},
        lifespan=living,
    )


def _cors(origins: Sequence[str]) -> list[Middleware]:
    """What allows pages of these origins to send requests. They have no cookies; a key comes in a header."""
    if not origins:
        return []
    methods, headers = ("GET", "POST"), ("*",)
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=headers,
            expose_headers=EXPOSED,
        )
    ]


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _no_such(request: Request, error: Exception) -> Response:
    """Reply to unknown paths and methods in the shape of all other errors."""
    assert isinstance(error, HTTPException)
    called = f"{request.method} {request.scope['path'][:200]}"
    found = HttpError(error.status_code, f"{called}: {error.detail}", code="not_found")
    return JSONResponse(found.body, error.status_code, headers=error.headers)
