"""A process reward model behind HTTP, in the wire format of vLLM's ``/pooling`` with a step pooler.

A solution's rewards are a list of ``[wrong, right]`` pairs, one per step; each line of the last message is a step. The
server listens on this machine only; use a proxy to reach it from others.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

from thinktime.core.errors import InputError, ModelError
from thinktime.core.types import Node, Problem
from thinktime.generators.text import RemoteText

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    from thinktime.scorers.prm import ProcessReward

LARGEST = 1 << 20
"""The most bytes of a request."""


def application(reward: ProcessReward, name: str) -> Starlette:
    """``POST /pooling``, ``GET /v1/models`` and ``GET /health`` for one reward model.

    Args:
        reward: the model.
        name: the model's name in requests.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def pooling(request: Request) -> JSONResponse:
        raw = b""
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > LARGEST:
                return _error(413, f"body: longer than {LARGEST} bytes; send less")
        try:
            problem, node = _solution(raw, name)
            (score,) = await reward.score(problem, [node], [None])
        except LookupError as error:
            return _error(404, str(error.args[0]))
        except InputError as error:
            return _error(400, str(error))
        except ModelError as error:
            return _error(500, str(error))
        if score.value is None:
            return _error(
                400, f"messages: more than the {reward.context} tokens this model reads; shorten the solution"
            )
        tokens = score.usage.scorer_tokens
        return JSONResponse(
            {
                "id": f"pool-{uuid4().hex}",
                "object": "list",
                "created": int(time.time()),
                "model": name,
                "data": [{"index": 0, "object": "pooling", "data": [[1 - right, right] for right in score.steps]}],
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
            }
        )

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "thinktime"}]})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/pooling", pooling, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ]
    )


def _solution(raw: bytes, name: str) -> tuple[Problem, Node]:
    """The problem and the solution in a request; the solution is a node of a search.

    Raises:
        InputError: the request does not ask for the rewards of a solution.
        LookupError: it asks for another model.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise InputError("body", raw[:40].decode(errors="replace"), "send a JSON object") from None
    if not isinstance(body, Mapping):
        raise InputError("body", raw[:40].decode(errors="replace"), "send a JSON object")
    if body.get("model", name) != name:
        raise LookupError(f"model={body['model']!r}: there is {name!r}")
    if body.get("task", "token_classify") != "token_classify":
        raise InputError("task", body["task"], "this server gives only step rewards: token_classify")
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(_is_text(message) for message in messages):
        raise InputError("messages", str(messages)[:40], "send a list of messages of text, the solution last")
    if len(messages) < 2 or messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise InputError(
            "messages", len(messages), "send a question and, last, an assistant's message that is not empty"
        )
    text = messages[-1]["content"]
    ends = [match.end() for match in re.finditer("\n", text)]
    ends += [] if ends and ends[-1] == len(text) else [len(text)]
    state = RemoteText(json.dumps(messages[:-1]), text, step_ends=tuple(ends), chat=True)
    return Problem("", messages[:-1]), Node(
        "", (), state, finish="step" if body.get("continue_final_message") else "eos"
    )


def _is_text(message: object) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(name), str) for name in ("role", "content"))


def _error(status: int, message: str) -> JSONResponse:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": status}}, status)
