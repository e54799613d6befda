"""A search as JSON for the page: nodes, scores, pruned branches and votes, while it runs and afterwards."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from itertools import islice
from math import isfinite
from typing import Any

from thinktime.core.meter import as_rows
from thinktime.core.search import Search
from thinktime.core.trace import Answer, Record
from thinktime.core.types import MAIN, Child, Extension, Node
from thinktime.gateway.errors import redacted
from thinktime.generators.text import added_text

NODES = 2000
"""Most nodes of one search; further ones are only counted."""
TEXT = 4000
"""Most characters of a text; further ones are only counted."""
TURNS = 40
"""Most messages of a prompt, the last ones."""
EVENTS = 200
"""Most log events of a strategy, the last ones."""


class SearchView:
    """Shows a search while it runs.

    Args:
        search: the search, which is never changed here.
        addresses: of upstreams; they are removed from error messages.
    """

    def __init__(self, search: Search, addresses: tuple[str, ...]) -> None:
        self._search, self._addresses = search, addresses

    def shown(self, known: int = 0, answer: Answer | None = None) -> dict[str, Any]:
        """The tree as JSON.

        Nodes are referred to by their index in ``nodes`` followed by ``growing``. A node's text never changes, so
        ``nodes`` leaves out those that the reader has; scores and prunings cover all nodes. A node in ``growing`` has
        no ``finish`` until its sample ends.

        Args:
            known: number of nodes that the reader has.
            answer: the answer, once the search has ended.
        """
        search = self._search
        records = list(islice(search.trace.values(), NODES))
        path = [] if answer is None or answer.node is None else list(answer.node.lineage())[::-1]
        if len(search.trace) > NODES:
            shown = {record.node.key for record in records}
            records += [search.trace[node.key] for node in path if node.key not in shown]
        growing = [Record(_node(*each)) for each in islice(search.in_flight.values(), NODES)]
        positions = {record.node.key: index for index, record in enumerate(records + growing)}
        unread = search.failed_scores()
        return {
            "first": known,
            "nodes": [self._node_json(record, positions) for record in records[known:]],
            "growing": [self._node_json(record, positions) for record in growing],
            "judged": [
                [index, record.score, [step if isfinite(step) else None for step in record.steps]]
                for index, record in enumerate(records)
                if record.score is not None
            ],
            "pruned": [index for index, record in enumerate(records) if record.pruned],
            "path": [positions[node.key] for node in path],
            "votes": self._votes([record.node for record in records + growing], positions),
            "more": len(search.trace) - len(records),
            "log": [self._redacted(json.dumps(event, default=str)) for event in search.events[-EVENTS:]],
            "unread": [self._redacted(reason) for reason in dict.fromkeys(unread[:EVENTS])],
            "prompt": turns(search.problem.prompt),
            "trace": search.problem.id,
            "sampling": vars(search.sampling),
            "accounts": as_rows(search.meter.accounts),
        }

    def _node_json(self, record: Record, positions: Mapping[str, int]) -> dict[str, Any]:
        node = record.node
        thoughts, calls = _thoughts_and_calls(node.state)
        fields: dict[str, Any] = {
            "key": node.key,
            "parent": None if node.parent is None else positions.get(node.parent.key),
            "ordinal": ".".join(map(str, node.path)),
            "text": clipped(added_text(node) + calls),
            "finish": node.finish if node.parent is None or node.finish != "root" else None,
            "tokens": node.usage.generated_tokens,
        }
        if thoughts:
            fields["thoughts"] = clipped(thoughts)
        if node.model != MAIN:
            fields["model"] = node.model
        if record.prompt:
            fields["prompt"] = record.prompt
            quoted = (*record.about, *record.said)
            fields["about"] = [positions[about.key] for about in quoted if about.key in positions]
        if record.error is not None:
            fields["error"] = self._redacted(str(record.error))
        return fields

    def _redacted(self, text: str) -> str:
        return redacted(clipped(text), self._addresses)

    def _votes(self, nodes: Iterable[Node], positions: Mapping[str, int]) -> list[dict[str, Any]]:
        """Complete samples grouped by answer; samples without a readable answer come last."""
        search = self._search
        groups: dict[Hashable, dict[str, Any]] = {}
        for candidate in search.candidates([node for node in nodes if node.done and search.is_answer(node)]):
            group = (candidate.answer is None, candidate.key)
            if group not in groups:
                answer = None if candidate.answer is None else clipped(candidate.answer)
                groups[group] = {"answer": answer, "samples": []}
            groups[group]["samples"].append(positions[candidate.node.key])
        return sorted(groups.values(), key=lambda group: group["answer"] is None)


def turns(prompt: Any) -> list[dict[str, str]]:
    """A prompt as messages of text; other parts are shown by their type."""
    if isinstance(prompt, str):
        return [{"role": "prompt", "text": clipped(prompt)}]
    return [{"role": str(m.get("role", ""))[:40], "text": clipped(_text_of(m))} for m in list(prompt)[-TURNS:]]


def clipped(text: str, most: int = TEXT) -> str:
    """The text, cut to ``most`` characters, with the number of those cut off."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _node(extension: Extension, child: Child | None) -> Node:
    """A provisional node for a child; one without output has its parent's state."""
    path = (*extension.node.path, extension.index)
    if child is None:
        return Node(extension.key, path, extension.node.state, extension.node, "root")
    return Node(extension.key, path, child.state, extension.node, child.finish, child.usage)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [] if content is None else [{"text": content}]
    texts = [part.get("text", f"[{part.get('type')}]") if isinstance(part, Mapping) else part for part in parts]
    return "\n".join([*map(str, texts), *_calls(message)])


def _thoughts_and_calls(state: Any) -> tuple[str, str]:
    """The thoughts and the tool calls of a sample, which its text lacks."""
    choice = getattr(state, "choice", "")
    has_more = '"reasoning' in choice or "_call" in choice
    message = json.loads(choice).get("message") if has_more else None
    if not isinstance(message, Mapping):
        return "", ""
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    return str(thoughts), "\n".join(_calls(message))


def _calls(message: Mapping[str, Any]) -> list[str]:
    found = message.get("tool_calls") or message.get("function_call") or []
    calls = found if isinstance(found, list) else [found]
    functions = [call.get("function", call) if isinstance(call, Mapping) else call for call in calls]
    return [f"{f.get('name')}({f.get('arguments')})" if isinstance(f, Mapping) else str(f) for f in functions]
