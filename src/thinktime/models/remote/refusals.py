"""Finds out why an endpoint refuses a request: the key, the model, the length, or another field."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from thinktime.core.errors import InputError, ModelError, TooLongError, UnknownNameError
from thinktime.models.remote.client import Client, RefusedError, RemoteError
from thinktime.models.remote.protocol import root_and_api

_LENGTH = re.compile(r"context|too long|too large|exceeds? the (?:maximum|limit)", re.IGNORECASE)


def about_length(error: RefusedError) -> bool:
    """Whether the prompt and the tokens requested after it exceed the model's context."""
    return error.status == 413 or (error.status in (400, 422) and bool(_LENGTH.search(error.message)))


async def explained(error: RefusedError, client: Client, model: str) -> ModelError | InputError:
    """The error to raise: what the user has to change, or the refusal itself if the request is not its cause."""
    if not 400 <= error.status < 500 or error.status == 429:
        return error
    says = f"{client.url} answers {error.status} ({error.message})"
    if error.status in (401, 403):
        key = "given" if client.has_key else None
        return InputError("api_key", key, f"{says}; set THINKTIME_API_KEY (OPENAI_API_KEY is for OpenAI's host)")
    names: list[str] = []
    if error.status == 404 or "model" in error.message.lower():
        with suppress(RemoteError):
            names = await models(client)
        if names and model not in names:
            return UnknownNameError("model_name", model, names)
    if error.status == 404:
        return InputError("base_url", client.url, f"{says}; give the root of an OpenAI-compatible API")
    if about_length(error):
        return TooLongError("prompt", "too long", f"{error.message}; shorten the prompt, or lower max_tokens")
    return InputError("request", model, f"{says}; change the request")


async def models(client: Client) -> list[str]:
    """The names of the models that an endpoint lists.

    Raises:
        RemoteError: the endpoint cannot be reached, or refuses the request.
    """
    return listed_in((await client.get("models")).body)


def listed_in(listing: Mapping[str, Any]) -> list[str]:
    """The names in a list of models."""
    data = listing.get("data")
    entries = data if isinstance(data, Sequence) else []
    return [entry["id"] for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("id"), str)]


def listed_models(base_url: str, api_key: str | None = None) -> list[str]:
    """The names of the models that an endpoint lists.

    Raises:
        InputError: the endpoint rejects the key, or has no list of models.
        RemoteError: the endpoint cannot be reached.
    """

    async def ask() -> list[str]:
        client = Client(root_and_api(base_url)[0], api_key, timeout=60.0)
        try:
            return await models(client)
        except RefusedError as error:
            raise await explained(error, client, "") from None
        finally:
            await client.close()

    return asyncio.run(ask())


def only_model(base_url: str, api_key: str | None = None) -> str:
    """The name of the only model of an endpoint.

    Raises:
        InputError: the endpoint lists no model or several, or rejects the key.
        RemoteError: the endpoint cannot be reached.
    """
    names = listed_models(base_url, api_key)
    if len(names) == 1:
        return names[0]
    there_are = f"it has: {', '.join(names[:20])}" if names else "it lists none"
    raise InputError("model_name", None, f"name a model of {base_url}; {there_are}")
