"""Generators that replay: imported samples, and samples from our own bank."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from thinktime.answers import canonical
from thinktime.core.errors import CapabilityError, ModelError
from thinktime.core.types import Capability, Child, Extension, Node, Problem
from thinktime.core.usage import Usage
from thinktime.generators.text import RemoteText, Text, pack, unpack, unpack_remote


@dataclass(frozen=True)
class RecordedSample:
    """One sample of an imported run. ``correct`` is None if it was not judged, ``reward`` is None if it is missing."""

    text: str
    answer: str | None
    correct: bool | None = None
    reward: float | None = None


class RecordedAnswers:
    """Reads the recorded answers."""

    def read(self, state: RecordedSample) -> str | None:
        """The recorded answer."""
        return state.answer

    def key(self, answer: str) -> Hashable:
        """Equal keys mean equivalent answers."""
        return canonical(answer)


class RecordedGenerator:
    """Returns the recorded samples of one problem in order. Of their cost only the number of calls is known."""

    name = "recorded"
    unit = "samples"
    capabilities: frozenset[str] = frozenset()

    def __init__(self, samples: Sequence[RecordedSample]) -> None:
        self._samples = samples

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> RecordedSample:
        """The empty sample."""
        return RecordedSample("", None)

    def adopt(self, root: RecordedSample, state: Any, known: Sequence[Any] = ()) -> RecordedSample:
        """Refuse.

        Raises:
            CapabilityError: always; recorded samples continue no other text.
        """
        raise CapabilityError("model='recorded': recorded samples cannot continue what another model wrote")

    def length(self, state: RecordedSample) -> int:
        """Unknown, so no length limit binds."""
        return 0

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """One call."""
        return _ONE_CALL

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """The samples at the children's indices.

        Raises:
            ModelError: there are fewer recorded samples.
        """
        if (last := max(extension.index for extension in extensions)) >= len(self._samples):
            raise ModelError(f"n={last + 1}: this problem has {len(self._samples)} recorded samples; ask for fewer")
        return [Child(self._samples[e.index], "eos", _ONE_CALL, passes=0) for e in extensions]

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """Refuse: recorded samples have no tokens.

        Raises:
            ModelError: always.
        """
        raise ModelError("recorded samples can't be cut: the ends of their tokens are unknown")

    def pack(self, node_state: RecordedSample, state: RecordedSample) -> dict[str, Any]:
        """The sample's fields."""
        return dict(state.__dict__)

    def unpack(self, node_state: RecordedSample, packed: Mapping[str, Any]) -> RecordedSample:
        """The state that `pack` described."""
        return RecordedSample(**packed)


_ONE_CALL = Usage(model_calls=1, flops=None, kv_bytes=None, dollars=None)


class BankedGenerator:
    """Replaces a model in a replay; the bank holds its samples, and nothing is generated."""

    capabilities = frozenset(
        {
            *(Capability.STEPS, Capability.PREFIX, Capability.LOGPROBS, Capability.CONFIDENCES),
            *(Capability.CANCEL, Capability.NOISE, Capability.CHAT),
        }
    )

    unit = "tokens"

    def __init__(self, name: str) -> None:
        self.name = name

    def root(self, problem: Problem, known: Sequence[Any] = (), *, quotes: bool = False) -> Text:
        """The empty text; the prompt's ids are not needed."""
        return Text(())

    def adopt(self, root: Text, state: Any, known: Sequence[Any] = ()) -> Text | RemoteText:
        """The other model's state unchanged: all its children are in the bank."""
        adopted: Text | RemoteText = state
        return adopted

    def length(self, state: Text | RemoteText) -> int:
        """Tokens generated so far."""
        return state.tokens if isinstance(state, RemoteText) else len(state.ids)

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """The live model's tokens and calls; FLOPs and dollars are unknown without the model."""
        return Usage(generated_tokens=max_length, model_calls=1, flops=None, dollars=None)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Refuse.

        Raises:
            ModelError: always; this is called only for samples that the bank lacks.
        """
        raise ModelError(f"replay: the bank lacks {len(extensions)} samples of {self.name}; run without --replay")

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """The first ``tokens`` of the child; their text and FLOPs are unknown without the model."""
        before: Text | RemoteText = extension.node.state
        confidences = child.state.confidences[: len(before.confidences) + tokens]
        state: Text | RemoteText
        if isinstance(child.state, RemoteText):
            state = replace(child.state, text="", step_ends=(), tokens=self.length(before) + tokens)
        else:
            assert isinstance(before, Text)
            state = replace(before, ids=before.ids + child.state.ids[len(before.ids) :][:tokens])
        state = replace(state, confidences=confidences)
        usage = replace(child.usage, generated_tokens=tokens, flops=None, kv_bytes=None)
        return Child(state, "pruned", usage, passes=tokens, length=tokens)

    def pack(self, node_state: Text, state: Text) -> dict[str, Any]:
        """See `thinktime.generators.text.pack`."""
        return pack(node_state, state)

    def unpack(self, node_state: Text | RemoteText, packed: Mapping[str, Any]) -> Text | RemoteText:
        """The state that `pack` of the live model described; a record without ids is an endpoint's."""
        if "ids" not in packed:
            return unpack_remote(node_state if isinstance(node_state, RemoteText) else RemoteText(""), packed)
        return unpack(node_state if isinstance(node_state, Text) else Text(()), packed)
