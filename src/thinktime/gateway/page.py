"""The page `/ui`: its public files, and its data, which need a key if the gateway has keys."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thinktime.core.ledger import Ledger
from thinktime.gateway.auth import ApiClient, Auth, address_of
from thinktime.gateway.errors import HttpError
from thinktime.gateway.history import REQUESTS, History, limits
from thinktime.pages import page

FILES = {
    "look.css": "text/css",
    "ui.css": "text/css",
    "parts.js": "text/javascript",
    "map.js": "text/javascript",
    "ui.js": "text/javascript",
}
"""Files beside the page itself, with their content types."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page:
    """Serves the page, and shows each client the requests that it may see (`ApiClient.sees`).

    Args:
        auth: authenticates clients.
        history: the last requests.
        probes: the ledger of model probes.
        workers: number of processes that serve; the page shows the requests of one of them.
        shadow: the ledger of measurements in the background, if there are any.
    """

    def __init__(
        self, auth: Auth, history: History, probes: Ledger, workers: int = 1, shadow: Ledger | None = None
    ) -> None:
        self._auth, self._history, self._probes, self._workers = auth, history, probes, workers
        self._began, self._shadow = time.time(), shadow

    @property
    def routes(self) -> list[Route]:
        """The routes of the page."""
        return [
            Route("/ui", self._files, methods=["GET"]),
            Route("/ui/requests", self._for_clients(self._requests), methods=["GET"]),
            Route("/ui/requests/{number}", self._for_clients(self._request), methods=["GET"]),
            Route("/ui/{name}", self._files, methods=["GET"]),
        ]

    async def _files(self, request: Request) -> Response:
        name = request.path_params.get("name", "ui.html")
        try:
            self._auth.check_host(dict(request.headers))
            if name not in {"ui.html", *FILES}:
                raise HttpError(404, f"{name[:80]}: there is no such file", code="not_found")
        except HttpError as error:
            return _refusal(error)
        return Response(page(name), media_type=FILES.get(name, "text/html"), headers=HEADERS)

    def _for_clients(self, show: Callable[[ApiClient, Request], bytes]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                body = show(await self._auth.admitted(dict(request.headers), address_of(request)), request)
            except HttpError as error:
                return _refusal(error)
            return Response(body, media_type="application/json", headers=HEADERS)

        return answer

    def _requests(self, client: ApiClient, request: Request) -> bytes:
        """Requests that changed since a version of the history, and the spending of keys and models."""
        since, history = _number(request, "since"), self._history
        seen = list(history.seen_by(client))
        changed = [entry.row() for entry in seen if entry.version > since or entry.seconds is None]
        shown: dict[str, Any] = {
            "began": self._began,
            "process": os.getpid(),
            "processes": self._workers,
            "version": history.version,
            "kept": REQUESTS,
            "oldest": seen[-1].number if seen else None,
            "requests": changed,
            "keys": [_account(each.name, each.ledger) for each in self._auth.clients if client.sees(each)],
            "models": [
                {"key": who.name, "model": model, "requests": count, "usage": spent.as_dict()}
                for (who, model), (count, spent) in history.models.items()
                if client.sees(who)
            ],
        }
        if client.sees_all:
            shown["server"] = _account("", self._auth.ledger)
            shown["probes"] = _account("", self._probes)
            if self._shadow is not None:
                shown["shadow"] = _account("", self._shadow)
        return json.dumps(shown).encode()

    def _request(self, client: ApiClient, request: Request) -> bytes:
        """One request with its tree; a running search sends only the nodes that the page does not have."""
        text = request.path_params["number"]
        number = _whole(text)
        entry = None if number is None else self._history.find(client, number)
        if entry is None:
            raise HttpError(404, f"request {text[:40]} is not kept", code="not_found")
        return entry.whole(_number(request, "known"))


def _account(name: str, ledger: Ledger) -> dict[str, Any]:
    return {"name": name, "usage": ledger.spent.as_dict(), "budget": limits(ledger.budget)}


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    number = _whole(text)
    if number is None:
        raise HttpError(400, f"{name}={text[:40]!r}: give a whole number, 0 or more", param=name)
    return number


def _whole(text: str) -> int | None:
    """The number; None if the text is none, or has more than 18 digits."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _refusal(error: HttpError) -> Response:
    return Response(json.dumps(error.body), error.status, HEADERS, media_type="application/json")
