"""Agent graph: nodes read the answers of earlier nodes, and the last node decides (Wang et al. 2025, arXiv 2511.00086).

Parallel samples, chains of revisions, and mixtures of both are such graphs. `thinktime.planning.graph_search` searches
for a good graph within a budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.selection import majority
from thinktime.core.trace import Answer
from thinktime.core.types import MAIN, Capability, Node, Prompt, missing
from thinktime.prompts.common import REVISE
from thinktime.strategies.composition.aggregate import AGGREGATE
from thinktime.strategies.composition.roles import named_generator, offered_by
from thinktime.strategies.options import at_least, one_of

ASSISTANT, FUSER = "assistant", "fuser"
PROMPTS = {ASSISTANT: REVISE, FUSER: AGGREGATE}
"""What a node is asked about the answers that it reads, by its role."""


@dataclass(frozen=True)
class GraphNode:
    """A node of a graph.

    Args:
        role: an ``assistant`` answers alone, or improves the answers that it reads; a ``fuser`` merges them.
        model: the role in the search of the model that writes.
        parents: the places of the nodes whose answers it reads, from 0.
    """

    role: str = ASSISTANT
    model: str = MAIN
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A directed acyclic graph of nodes, of which the last one decides.

    Raises:
        InputError: there is no node; a node reads a node that is not there, or one twice; there is a cycle; a fuser
            reads no assistant (the last node may read fusers alone); the last of several nodes reads nothing.
        UnknownNameError: there is no such role.
    """

    nodes: tuple[GraphNode, ...]

    def __post_init__(self) -> None:
        at_least("nodes", len(self.nodes), 1)
        last = len(self.nodes) - 1
        for place, node in enumerate(self.nodes):
            where = f"node {place + 1}"
            one_of("nodes", node.role, PROMPTS)
            read = [parent + 1 for parent in node.parents]
            if any(not 0 <= parent <= last for parent in node.parents):
                raise InputError("nodes", str(self), f"{where} reads {read}; the nodes are 1 to {last + 1}")
            if len(set(read)) < len(read):
                raise InputError("nodes", str(self), f"{where} reads {read}; name each node once")
            if place == last and last and not read:
                raise InputError("nodes", str(self), f"{where} decides; let it read an answer, as in fuser<1+2")
            roles = {self.nodes[parent].role for parent in node.parents}
            if node.role == FUSER and not (roles if place == last else ASSISTANT in roles):
                raise InputError("nodes", str(self), f"{where} is a fuser; let it read the answer of an assistant")
        if circle := self._cycle():
            numbers = " < ".join(str(place + 1) for place in circle)
            raise InputError("nodes", str(self), f"there is a cycle: {numbers}")

    @classmethod
    def parse(cls, text: str) -> Graph:
        """Read nodes separated by semicolons, each ``role``, ``role.model`` or ``role.model<parents``.

        Nodes are numbered from 1, and parents are joined by ``+``: ``assistant;assistant.draft;fuser<1+2``.

        Raises:
            InputError: the text has another form, or the graph is none (see the class).
        """
        if not isinstance(text, str) or not text.strip():
            raise InputError("nodes", text, "name at least one node, as in assistant;assistant;fuser<1+2")
        nodes = []
        for number, part in enumerate(text.split(";"), 1):
            words, sign, read = part.partition("<")
            role, dot, model = words.strip().partition(".")
            numbers = [one.strip() for one in read.split("+")] if sign else []
            if (dot and not model) or not all(one.isdecimal() for one in numbers):
                raise InputError("nodes", text, f"write node {number} as role.model<1+2")
            parents = tuple(int(one) - 1 for one in numbers)
            nodes.append(GraphNode(role, model or MAIN, parents))
        return cls(tuple(nodes))

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return ";".join(
            node.role
            + (f".{node.model}" if node.model != MAIN else "")
            + ("<" if node.parents else "")
            + "+".join(str(parent + 1) for parent in node.parents)
            for node in self.nodes
        )

    @cached_property
    def used(self) -> frozenset[int]:
        """The nodes whose answers reach the last one, and the last one; no other node runs or is charged."""
        found: set[int] = set()
        waiting = [len(self.nodes) - 1]
        while waiting:
            place = waiting.pop()
            if place not in found:
                found.add(place)
                waiting += self.nodes[place].parents
        return frozenset(found)

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The used nodes in order of running: a level reads only answers of the levels before it."""
        found: list[tuple[int, ...]] = []
        done: set[int] = set()
        while len(done) < len(self.used):
            ready = [place for place in sorted(self.used - done) if done.issuperset(self.nodes[place].parents)]
            found.append(tuple(ready))
            done.update(ready)
        return tuple(found)

    def _cycle(self) -> list[int]:
        """The places of a cycle, the first one also at the end; empty if there is none."""
        left = set(range(len(self.nodes)))
        while ready := {place for place in left if left.isdisjoint(self.nodes[place].parents)}:
            left -= ready
        walk = [min(left)] if left else []
        while walk and walk[-1] not in walk[:-1]:
            walk.append(next(parent for parent in self.nodes[walk[-1]].parents if parent in left))
        return walk[walk.index(walk[-1]) :] if walk else []


@dataclass(frozen=True)
class AgentGraph:
    """Run a graph of answers; the last node's answer is the answer.

    Nodes that do not depend on each other run side by side. An incomplete reply is not passed on: an assistant with
    nothing to read answers alone, and a fuser is left out. If the last node has no readable answer, those before it
    vote.

    Args:
        nodes: separated by semicolons, each ``role.model<parents``. The role is ``assistant`` (answers alone, or
            improves what it reads) or ``fuser`` (merges what it reads); the model is a role of the search, ``main`` if
            left out; parents are numbers of nodes, from 1, as in ``assistant;assistant.draft;fuser<1+2``.
    """

    nodes: str = "assistant;assistant;fuser<1+2"
    prompts: ClassVar[tuple[Prompt, ...]] = (REVISE, AGGREGATE)
    needs: ClassVar[frozenset[str]] = frozenset({AGGREGATE.capability, Capability.ANSWERS})

    def __post_init__(self) -> None:
        needs = {PROMPTS[node.role].capability for node in self._running if node.parents and node.model == MAIN}
        object.__setattr__(self, "needs", frozenset({*needs, Capability.ANSWERS}))  # those of this graph

    def validate(self, search: Search) -> None:
        """Refuse a node whose model is missing, or does not answer the node's prompt."""
        for node in self._running:
            model = named_generator(search, node.model, f"agent_graph: a node runs on model={node.model!r}")
            if node.parents and missing({PROMPTS[node.role].capability}, offered_by(search, model)):
                raise CapabilityError(
                    f"agent_graph: {node.role}.{node.model} needs {PROMPTS[node.role].capability}, which the model "
                    f"{model.name!r} does not answer"
                )

    async def __call__(self, search: Search) -> Answer:
        from asyncio import gather  # costs as much to import as all of the core

        graph, written = self._graph, dict[int, Node]()
        for level in graph.levels:
            asked: dict[str | None, dict[Node, list[int]]] = {}
            for place in level:
                node = graph.nodes[place]
                shown = [written[parent] for parent in node.parents if parent in written and written[parent].done]
                if shown:
                    question = search.ask(PROMPTS[node.role], shown, model=node.model)
                    if question is not None:
                        asked.setdefault(None, {}).setdefault(question, []).append(place)
                elif node.role == ASSISTANT:
                    asked.setdefault(node.model, {}).setdefault(search.root, []).append(place)
            for some in await gather(*(_written(search, model, roots) for model, roots in asked.items())):
                written |= some
        search.log(nodes={place + 1: node.key for place, node in sorted(written.items())})
        rounds = [[written[place] for place in level if place in written] for level in reversed(graph.levels)]
        votes = (majority(search.candidates(leaves)) for leaves in rounds)
        return search.finish(next((winner for winner in votes if winner is not None), None))

    @cached_property
    def _graph(self) -> Graph:
        return Graph.parse(self.nodes)

    @property
    def _running(self) -> list[GraphNode]:
        return [self._graph.nodes[place] for place in sorted(self._graph.used)]


async def _written(search: Search, model: str | None, roots: Mapping[Node, Sequence[int]]) -> dict[int, Node]:
    """The replies to these questions by the places of the nodes that asked; by each question's model unless given."""
    replies = await search.extend(list(roots), [len(places) for places in roots.values()], model=model)
    left = {root.key: iter(places) for root, places in roots.items()}
    return {next(left[reply.parent.key]): reply for reply in replies if reply.parent is not None}
