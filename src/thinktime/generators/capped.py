"""Caps thoughts by continuation: a sample is cut at the cap, its thought is closed, and it continues from there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

from thinktime.core.errors import InputError
from thinktime.core.types import Child, Extension
from thinktime.core.usage import Usage
from thinktime.generators.requests import Requests, failed
from thinktime.generators.text import RemoteText
from thinktime.generators.thoughts import Thoughts
from thinktime.models.remote.thoughts import CLOSING


def worst_behind(requests: Requests, state: RemoteText, max_tokens: int) -> Usage:
    """The most that closing a thought adds to the cost of a sample: prompt and thought are read again."""
    return replace(requests.worst(state, 0, max_tokens + len(CLOSING)), model_calls=0)


async def sampled(requests: Requests, wanted: Sequence[Extension]) -> dict[str, Child | InputError]:
    """Sample children of one node. A thought that is open at the cap is closed, and the sample continues after it.

    Raises:
        InputError: the children race, which a cap does not support.
    """
    first, thoughts = wanted[0], requests.thoughts
    limit = first.max_length if thoughts is None else thoughts.first_limit(first.node.state, first.max_length)
    if thoughts is None or limit == first.max_length:
        return await requests.sample(wanted)
    if first.race is not None:
        raise InputError("thinking_tokens", thoughts.most, "a race compares lengths; leave the cap out")
    made: dict[str, Child | InputError] = {e.key: Child(e.node.state, "cut", Usage(), 0) for e in wanted}
    if limit:
        made = await requests.sample([replace(e, max_length=limit, arrived=None) for e in wanted])
    whole = await asyncio.gather(*(_rest(requests, thoughts, e, made[e.key]) for e in wanted))
    return dict(zip((e.key for e in wanted), whole, strict=True))


async def _rest(
    requests: Requests, thoughts: Thoughts, extension: Extension, child: Child | InputError
) -> Child | InputError:
    """Continue a sample after the cap; one that ended before is returned unchanged."""
    if not isinstance(child, InputError) and child.error is None and child.finish in ("length", "cut", "budget"):
        state, ending = thoughts.closed(child.state)
        if ending and requests.on_event is not None:
            part = {"delta": {"content": ending}} if state.chat else {"text": ending}
            await requests.on_event({"choices": [{"index": 0, **part}]})
        left = extension.max_length - child.usage.generated_tokens
        node = replace(extension.node, state=state)
        after = await requests.sample([replace(extension, node=node, max_length=left, arrived=None)])
        made = after[extension.key]
        made = failed(extension, made) if isinstance(made, InputError) else made
        if made.error is not None and requests.on_event is not None:
            made.error.repeatable = False  # the first part was passed on
        cost = made.usage
        if cost.uncounted_calls:
            reread = child.usage.generated_tokens + len(CLOSING)
            worst = requests.worst(extension.node.state, cost.generated_tokens, reread)
            cost = replace(cost, dollars=worst.dollars, flops=worst.flops)
        usage = replace(child.usage + cost, model_calls=1)
        whole = replace(made.state, choice=_joined(child.state.choice, made.state.choice))
        whole = extension.node.state if made.finish == "error" else whole
        length = whole.tokens - extension.node.state.tokens
        child = replace(made, state=whole, usage=usage, passes=child.passes + made.passes, length=length)
    if extension.arrived is not None and not isinstance(child, InputError):
        extension.arrived(child)
    return child


def _joined(first: str, second: str) -> str:
    """Join the raw choices of two parts: the log-probabilities of both, all other fields of the second."""
    parts = [json.loads(part) if part else {} for part in (first, second)]
    listed, more = ((part.get("logprobs") or {}).get("content") for part in parts)
    if listed and more:
        parts[1]["logprobs"]["content"] = listed + more
    return json.dumps(parts[1]) if second else second
