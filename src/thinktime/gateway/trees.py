"""A search as the page shows it: its nodes, scores, pruned branches and vote, while it runs and afterwards."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from itertools import islice
from math import isfinite
from typing import Any

from thinktime.core.search import Answer, Record, Search
from thinktime.core.types import Child, Extension, Node
from thinktime.gateway.errors import told
from thinktime.generators.text import added_text

NODES = 2000
"""Of one search; those beyond are counted."""
TEXT = 4000
"""Characters of a text; the rest is counted."""
TURNS = 40
"""Messages of a prompt, the last ones."""
EVENTS = 200
"""Notes of a strategy, the last ones."""


class SearchView:
    """A search that somebody may look at while it runs.

    Args:
        search: it is read and never changed.
        upstream: the address that reasons do not tell.
    """

    def __init__(self, search: Search, upstream: str) -> None:
        self._search, self._upstream = search, upstream

    def shown(self, known: int = 0, answer: Answer | None = None) -> dict[str, Any]:
        """The tree as JSON.

        Nodes are referred to by their places in ``nodes`` and, behind those, ``growing``. What a node says never
        changes, so whoever knows the first ones is told the others; scores and prunings are told of all. What is
        growing has no ``finish`` before it has come.

        Args:
            known: how many nodes the reader has.
            answer: what it came to, once it ended.
        """
        search = self._search
        records = list(islice(search.trace.values(), NODES))
        path = [] if answer is None or answer.node is None else list(answer.node.lineage())[::-1]
        if len(search.trace) > NODES:
            shown = {record.node.key for record in records}
            records += [search.trace[node.key] for node in path if node.key not in shown]
        growing = [Record(_node(*each)) for each in islice(search.growing.values(), NODES)]
        place = {record.node.key: index for index, record in enumerate(records + growing)}
        unread = search.readings.failed if search.readings is not None else []
        return {
            "first": known,
            "nodes": [self._facts(record, place) for record in records[known:]],
            "growing": [self._facts(record, place) for record in growing],
            "judged": [
                [index, record.score, [step if isfinite(step) else None for step in record.steps]]
                for index, record in enumerate(records)
                if record.score is not None
            ],
            "pruned": [index for index, record in enumerate(records) if record.pruned],
            "path": [place[node.key] for node in path],
            "votes": self._votes([record.node for record in records + growing], place),
            "more": len(search.trace) - len(records),
            "log": [clipped(json.dumps(event, default=str)) for event in search.events[-EVENTS:]],
            "unread": [told(reason, self._upstream) for reason in dict.fromkeys(unread[:EVENTS])],
            "prompt": turns(search.problem.prompt),
            "trace": search.problem.id,
            "sampling": vars(search.sampling),
        }

    def _facts(self, record: Record, place: Mapping[str, int]) -> dict[str, Any]:
        node = record.node
        thoughts, calls = _beside(node.state)
        facts: dict[str, Any] = {
            "key": node.key,
            "parent": None if node.parent is None else place.get(node.parent.key),
            "ordinal": ".".join(map(str, node.path)),
            "text": clipped(added_text(node) + calls),
            "finish": node.finish if node.parent is None or node.finish != "root" else None,
            "tokens": node.usage.generated_tokens,
        }
        if thoughts:
            facts["thoughts"] = clipped(thoughts)
        if record.skill:
            facts["skill"] = record.skill.name.lower()
            facts["about"] = [place[about.key] for about in record.about if about.key in place]
        if record.error is not None:
            facts["error"] = clipped(told(str(record.error), self._upstream))
        return facts

    def _votes(self, nodes: Iterable[Node], place: Mapping[str, int]) -> list[dict[str, Any]]:
        """Complete samples by the answer they give; those of which none can be read come last."""
        groups: dict[Hashable, dict[str, Any]] = {}
        for node in nodes:
            if not node.done or not self._search.is_answer(node):
                continue
            (candidate,) = self._search.candidates([node])
            group = (candidate.answer is None, candidate.key)
            if group not in groups:
                said = None if candidate.answer is None else clipped(candidate.answer)
                groups[group] = {"answer": said, "samples": []}
            groups[group]["samples"].append(place[node.key])
        return sorted(groups.values(), key=lambda group: group["answer"] is None)


def turns(prompt: Any) -> list[dict[str, str]]:
    """A prompt as messages of texts; what is no text is named."""
    if isinstance(prompt, str):
        return [{"role": "prompt", "text": clipped(prompt)}]
    return [{"role": str(m.get("role", ""))[:40], "text": clipped(_text_of(m))} for m in list(prompt)[-TURNS:]]


def clipped(text: str, most: int = TEXT) -> str:
    """A text that is no longer than it may be."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _node(extension: Extension, child: Child | None) -> Node:
    """The node that a child will be; one that has not come has its parent's state, and no finish yet."""
    path = (*extension.node.path, extension.index)
    if child is None:
        return Node(extension.key, path, extension.node.state, extension.node, "root")
    return Node(extension.key, path, child.state, extension.node, child.finish, child.usage)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [] if content is None else [{"text": content}]
    texts = [part.get("text", f"[{part.get('type')}]") if isinstance(part, Mapping) else part for part in parts]
    return "\n".join([*map(str, texts), *_calls(message)])


def _beside(state: Any) -> tuple[str, str]:
    """What a sample has beside its text: thoughts, and calls of tools."""
    choice = getattr(state, "choice", "")
    has_more = any(name in choice for name in ('"reasoning', '"tool_calls"', '"function_call"'))
    message = json.loads(choice).get("message") if has_more else None
    if not isinstance(message, Mapping):
        return "", ""
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    return str(thoughts), "\n".join(_calls(message))


def _calls(message: Mapping[str, Any]) -> list[str]:
    calls = message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])
    functions = [call.get("function", call) if isinstance(call, Mapping) else call for call in calls]
    return [f"{f.get('name')}({f.get('arguments')})" if isinstance(f, Mapping) else str(f) for f in functions]
