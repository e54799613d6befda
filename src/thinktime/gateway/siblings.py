"""The other processes that serve the same port: what the page asks them, on a port of this machine for each."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

SECONDS = 1.0
"""Time in which a process has to answer."""
FORWARDED = ("authorization", "x-api-key", "host")
"""Headers that the other process needs, to let the same client in."""


class Siblings:
    """The processes of a gateway, which find each other by files with their ports.

    Args:
        folder: of these files, which only this user can read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """The same in all processes, and another one after a restart of all."""
        return self._folder.name

    def listen(self) -> socket.socket:
        """A socket on which the others ask this process. It serves the same routes with the same checks."""
        listener = socket.create_server(("127.0.0.1", 0))
        file = self._file(os.getpid())
        new = file.with_suffix(".new")
        new.write_text(str(listener.getsockname()[1]))
        new.replace(file)
        return listener

    async def ask_all(self, path: str, headers: Mapping[str, str]) -> tuple[list[dict[str, Any]], int]:
        """The JSON objects that all others answer, and the number of processes that do not answer.

        Args:
            path: with its query.
            headers: of the client's request, by lower-case name.
        """
        others = [int(file.stem) for file in self._folder.glob("*.port")]
        replies = await asyncio.gather(*(self.ask(other, path, headers) for other in others if other != os.getpid()))
        running = [reply for reply in replies if reply is not None]
        found = [json.loads(body) for status, body in running if status == 200]
        return found, len(running) - len(found)

    async def ask(self, process: int, path: str, headers: Mapping[str, str]) -> tuple[int, bytes] | None:
        """Status and body of a process's answer; None if it has ended, 504 if it does not answer. See `ask_all`."""
        import aiohttp

        if self._session is None:
            timeout, connector = aiohttp.ClientTimeout(total=SECONDS), aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        sent = {name: headers[name] for name in FORWARDED if name in headers}
        try:
            port = int(self._file(process).read_text())
            async with self._session.get(f"http://127.0.0.1:{port}/{path}", headers=sent) as reply:
                return reply.status, await reply.read()
        except FileNotFoundError:
            return None
        except aiohttp.ClientConnectorError:  # nobody listens there
            self._file(process).unlink(missing_ok=True)
            return None
        except (TimeoutError, aiohttp.ClientError):
            return 504, b""

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _file(self, process: int) -> Path:
        return self._folder / f"{process}.port"
