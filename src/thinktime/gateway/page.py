"""The page `/ui`: its public files, and its data, which need a key if the gateway has keys."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from thinktime.core.ledger import Ledger
from thinktime.gateway.auth import ApiClient, address_of
from thinktime.gateway.errors import HttpError
from thinktime.gateway.history import REQUESTS, limits
from thinktime.gateway.siblings import TIMED_OUT
from thinktime.gateway.state import Gateway
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
    """Serves the page, and shows each client the requests that it may see (`ApiClient.sees`), of all processes."""

    def __init__(self, gateway: Gateway) -> None:
        self._auth, self._history, self._probes = gateway.auth, gateway.history, gateway.probes
        self._siblings, self._workers = gateway.siblings, gateway.config.workers
        self._shared = gateway.keeper is not None
        self._shadow = None if gateway.shadow is None else gateway.shadow.ledger
        self._began = time.time()

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

    def _for_clients(
        self, show: Callable[[ApiClient, Request], Awaitable[bytes]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                body = await show(await self._auth.admitted(dict(request.headers), address_of(request)), request)
            except HttpError as error:
                return _refusal(error)
            return Response(body, media_type="application/json", headers=HEADERS)

        return answer

    async def _requests(self, client: ApiClient, request: Request) -> bytes:
        """Requests that changed since a version of the histories, and the spending of keys and models."""
        own = self._own(client, _since(request))
        if self._siblings is None or "own" in request.query_params:
            return json.dumps(own).encode()
        path = f"ui/requests?own=1&since={request.query_params.get('since', '0')}"
        parts = [own, *await self._siblings.ask_all(path, dict(request.headers))]
        silent = max(0, self._workers - len(parts))
        together = merged(parts, shared=self._shared)
        return json.dumps({**together, "began": self._siblings.name, "silent": silent}).encode()

    def _own(self, client: ApiClient, since: int) -> dict[str, Any]:
        """The requests of this process."""
        history = self._history
        seen = list(history.seen_by(client))
        changed = [entry.row() for entry in seen if entry.version > since or entry.seconds is None]
        shown: dict[str, Any] = {
            "began": self._began,
            "process": os.getpid(),
            "processes": self._workers,
            "version": history.version,
            "kept": REQUESTS,
            "numbers": [entry.name for entry in seen],
            "silent": 0,
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
        return shown

    async def _request(self, client: ApiClient, request: Request) -> bytes:
        """One request with its tree; a running search sends only the nodes that the page does not have."""
        text, known = request.path_params["number"], _number(request, "known")
        process, number = _place(text)
        if self._siblings is not None and process not in (None, os.getpid()):
            assert process is not None
            reply = await self._siblings.ask(process, f"ui/requests/{text}?known={known}", dict(request.headers))
            if reply == TIMED_OUT:
                raise HttpError(503, f"request {text[:40]}: its process does not answer")
            if reply is not None and reply[0] == 200:
                return reply[1]
            number = None
        entry = None if number is None else self._history.find(client, number)
        if entry is None:
            raise HttpError(404, f"request {text[:40]} is not kept", code="not_found")
        return entry.whole(known)


def _account(name: str, ledger: Ledger) -> dict[str, Any]:
    return {"name": name, "usage": ledger.spent.as_dict(), "budget": limits(ledger.budget)}


def merged(parts: Sequence[Mapping[str, Any]], *, shared: bool) -> dict[str, Any]:
    """What several processes show, as one: the newest requests first, and the sums of their spending.

    Args:
        parts: what each shows.
        shared: whether the accounts are the same in all processes.
    """
    together = {
        **parts[0],
        "version": ",".join(f"{part['process']}:{part['version']}" for part in parts),
        "numbers": [number for part in parts for number in part["numbers"]],
        "requests": sorted((row for part in parts for row in part["requests"]), key=lambda row: -row["at"]),
        "keys": _sums((row for part in parts for row in part["keys"]), ("name",), shared),
        "models": _sums((row for part in parts for row in part["models"]), ("key", "model"), shared=False),
    }
    for name in ("server", "probes"):
        if name in together:
            (together[name],) = _sums((part[name] for part in parts if name in part), ("name",), shared)
    return together


def _sums(rows: Iterable[Mapping[str, Any]], names: Sequence[str], shared: bool) -> list[Mapping[str, Any]]:
    """Rows with the same names as one, with the sum of their usage; if they are ``shared``, only the first of them."""
    found: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for row in rows:
        first = found.setdefault(place := tuple(row[name] for name in names), row)
        if first is not row and not shared:
            usage = {
                name: None if None in (one, other := row["usage"][name]) else one + other
                for name, one in first["usage"].items()
            }
            counts = {"requests": first["requests"] + row["requests"]} if "requests" in row else {}
            found[place] = {**first, "usage": usage, **counts}
    return list(found.values())


def _since(request: Request) -> int:
    """The version that a client has of this process: a number, or one for each process as ``PROCESS:NUMBER,…``."""
    text = request.query_params.get("since", "0")
    if re.fullmatch(r"[0-9]{1,10}:[0-9]{1,18}(,[0-9]{1,10}:[0-9]{1,18}){0,999}", text) is None:
        return _number(request, "since")
    versions = dict(part.split(":") for part in text.split(","))
    return int(versions.get(str(os.getpid()), 0))


def _place(text: str) -> tuple[int | None, int | None]:
    """The process and the number in the name of a request."""
    found = re.fullmatch(r"(?:([0-9]{1,10})-)?([0-9]{1,18})", text)
    if found is None:
        return None, None
    return None if found[1] is None else int(found[1]), int(found[2])


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
