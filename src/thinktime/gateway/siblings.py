"""The other processes that serve the same port: what the page asks them, over sockets in a private folder."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECONDS = 1.0
"""Time in which a process has to answer."""
FORWARDED = ("authorization", "x-api-key", "host")
"""Headers that the other process needs, to let the same client in."""
TIMED_OUT = 504, b""


class Siblings:
    """The processes of a gateway.

    Args:
        folder: of their sockets, which only this user can reach, because they carry the keys of clients.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """The same in all processes, and another one after a restart of all."""
        return self._folder.name

    def listen(self) -> list[socket.socket]:
        """The socket on which the others ask this process; none if the system has none, or the path is too long."""
        try:
            listener = socket.socket(socket.AF_UNIX)
            self._place(os.getpid()).unlink(missing_ok=True)  # of an earlier process with this number
            listener.bind(str(self._place(os.getpid())))
        except (AttributeError, OSError):
            return []
        listener.listen()
        return [listener]

    async def ask_all(self, path: str, headers: Mapping[str, str]) -> list[dict[str, Any]]:
        """The JSON objects of all others that answer.

        Args:
            path: with its query.
            headers: of the client's request, by lower-case name.
        """
        others = [int(place.stem) for place in self._folder.glob("*.sock")]
        replies = await asyncio.gather(*(self.ask(other, path, headers) for other in others if other != os.getpid()))
        return [json.loads(body) for status, body in (reply for reply in replies if reply) if status == 200]

    async def ask(self, process: int, path: str, headers: Mapping[str, str]) -> tuple[int, bytes] | None:
        """Status and body of a process's answer, or `TIMED_OUT`; None if it has ended. See `ask_all`."""
        import aiohttp

        sent = {name: headers[name] for name in FORWARDED if name in headers}
        connector, timeout = aiohttp.UnixConnector(str(self._place(process))), aiohttp.ClientTimeout(total=SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(f"http://gateway/{path}", headers=sent) as reply,
            ):
                return reply.status, await reply.read()
        except aiohttp.ClientConnectorError:
            return None
        except (TimeoutError, aiohttp.ClientError):
            return TIMED_OUT

    def _place(self, process: int) -> Path:
        return self._folder / f"{process}.sock"
