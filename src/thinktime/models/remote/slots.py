"""Finds out how many samples a llama.cpp server computes at once. Further ones would wait in its queue."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from thinktime.models.remote.client import Client, RemoteError
from thinktime.models.remote.protocol import root_and_api

_SECONDS = 5.0
"""Most seconds to wait for an answer."""


def slots(base_url: str, api_key: str | None = None) -> int | None:
    """The number of slots that a server names in its properties; None if it names none.

    Raises:
        InputError: the URL is invalid.
    """
    root, _ = root_and_api(base_url)
    with ThreadPoolExecutor(1) as pool:  # the caller may be in an event loop already
        return pool.submit(asyncio.run, _slots(root.removesuffix("/v1"), api_key)).result()


async def _slots(root: str, api_key: str | None) -> int | None:
    client = Client(root, api_key, timeout=_SECONDS)
    try:
        found = (await client.get("props")).body.get("total_slots")
    except RemoteError:
        return None
    finally:
        await client.close()
    return found if isinstance(found, int) and found > 0 else None
