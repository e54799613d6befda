"""The tree of a search, as records for result files and as a drawing for the terminal."""

from __future__ import annotations

from typing import Any

from rich.text import Text as RichText
from rich.tree import Tree

from thinktime.core.printable import printable
from thinktime.core.search import Search
from thinktime.core.trace import Record
from thinktime.core.types import MAIN
from thinktime.generators.text import added_text


def records(search: Search) -> list[dict[str, Any]]:
    """Every node in the order of sampling; the text of a node is what it adds to its parent's."""
    return [
        {
            "key": record.node.key,
            "parent": record.node.parent.key if record.node.parent else None,
            "depth": record.node.depth,
            "text": added_text(record.node),
            "score": None if record.score is None else round(record.score, 6),
            "steps": [round(step, 6) for step in record.steps],
            "finish": record.node.finish,
            "tokens": record.node.usage.generated_tokens,
            "pruned": record.pruned,
            **({"model": record.node.model} if record.node.model != MAIN else {}),
            **({"prompt": record.prompt, "about": _quoted(record)} if record.prompt else {}),
        }
        for record in search.records()
    ]


def draw(search: Search, returned: str | None = None) -> Tree:
    """The tree for the terminal: scores in front, pruned nodes dimmed, the returned path in bold."""
    on_path = set()
    if returned is not None:
        on_path = {node.key for node in search.trace[returned].node.lineage()}
    branches = {search.root.key: Tree("question")}
    for record in search.records():
        if record.prompt:
            quoted = (*record.about, *record.said)
            above = branches[quoted[-1].key if quoted else search.root.key]
            branches[record.node.key] = above.add(RichText(record.prompt, style="italic"))
        if record.node.parent is None:
            continue
        score = "     " if record.score is None else f"{record.score:.3f}"
        style = "bold" if record.node.key in on_path else "dim" if record.pruned else ""
        label = RichText(f"{score} {printable(added_text(record.node).strip())}  ({record.node.finish})", style=style)
        branches[record.node.key] = branches[record.node.parent.key].add(label)
    return branches[search.root.key]


def _quoted(record: Record) -> list[str]:
    """The keys of the nodes that a prompt shows to the model."""
    return [node.key for node in (*record.about, *record.said)]
