"""The page `/ui`: its files, which are no secret, and what it reads, for which a key is needed where there are keys."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thinktime.core.ledger import Ledger
from thinktime.gateway.door import Door, Guest
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
"""Beside the page itself, with their kinds."""
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
    """Shows requests to whoever may see them; see `Guest.sees`.

    Args:
        door: who may come in.
        history: the requests.
        probes: what probes at models have cost.
    """

    def __init__(self, door: Door, history: History, probes: Ledger) -> None:
        self._door, self._history, self._probes = door, history, probes
        self._began = time.time()

    @property
    def routes(self) -> list[Route]:
        """Paths, and who answers them."""
        return [
            Route("/ui", self._files, methods=["GET"]),
            Route("/ui/requests", self._for_guests(self._requests), methods=["GET"]),
            Route("/ui/requests/{number:int}", self._for_guests(self._request), methods=["GET"]),
            Route("/ui/{name}", self._files, methods=["GET"]),
        ]

    async def _files(self, request: Request) -> Response:
        name = request.path_params.get("name", "ui.html")
        try:
            self._door.greet(dict(request.headers))
            if name not in {"ui.html", *FILES}:
                raise HttpError(404, f"{request.url.path}: there is no such file", code="not_found")
        except HttpError as error:
            return _refusal(error)
        return Response(page(name), media_type=FILES.get(name, "text/html"), headers=HEADERS)

    def _for_guests(self, show: Callable[[Guest, Request], bytes]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                told = show(self._door.enter(dict(request.headers)), request)
            except HttpError as error:
                return _refusal(error)
            return Response(told, media_type="application/json", headers=HEADERS)

        return answer

    def _requests(self, guest: Guest, request: Request) -> bytes:
        """What has changed since a version of the history, and what was spent."""
        since, history = _number(request, "since"), self._history
        seen = list(history.seen_by(guest))
        changed = [entry.row() for entry in seen if entry.version > since or entry.seconds is None]
        told: dict[str, Any] = {
            "began": self._began,
            "version": history.version,
            "kept": REQUESTS,
            "oldest": seen[-1].number if seen else None,
            "requests": changed,
            "keys": [_account(each.name, each.ledger) for each in self._door.guests if guest.sees(each)],
            "models": [
                {"key": who.name, "model": model, "requests": count, "usage": spent.as_dict()}
                for (who, model), (count, spent) in history.models.items()
                if guest.sees(who)
            ],
        }
        if guest.sees_all:
            told["server"] = _account("", self._door.ledger)
            told["probes"] = _account("", self._probes)
        return json.dumps(told).encode()

    def _request(self, guest: Guest, request: Request) -> bytes:
        """One request with its tree; of a search that runs, only nodes that are not known yet."""
        number = request.path_params["number"]
        entry = self._history.find(guest, number)
        if entry is None:
            raise HttpError(404, f"request {number} is not remembered", code="not_found")
        return entry.whole(_number(request, "known"))


def _account(name: str, ledger: Ledger) -> dict[str, Any]:
    return {"name": name, "usage": ledger.spent.as_dict(), "budget": limits(ledger.budget)}


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdecimal()):
        raise HttpError(400, f"{name}={text[:40]!r}: give a whole number, 0 or more", param=name)
    return int(text)


def _refusal(error: HttpError) -> Response:
    return Response(json.dumps(error.body), error.status, HEADERS, media_type="application/json")
