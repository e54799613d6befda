"""Text from a local model. Nodes become rows, and the rows of all branches of all problems run in one batch."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinktime.core.errors import CapabilityError, InputError, ThinktimeError, TooLongError
from thinktime.core.types import Capability, Child, Extension, Finish, Node, Problem
from thinktime.core.usage import Usage
from thinktime.generators.text import (
    LOGPROB_DIGITS,
    RemoteText,
    Text,
    pack,
    shared,
    steps_of,
    unpack,
    until_stop,
    with_context,
)
from thinktime.models.engine.costs import forward_flops
from thinktime.models.engine.worker import Worker
from thinktime.models.remote.probe import THINK
from thinktime.models.remote.thoughts import CLOSING, END, thinking, thinks_again

if TYPE_CHECKING:
    from torch import Tensor

    from thinktime.models.engine.llamacpp_model import LlamaCppModel
    from thinktime.models.engine.models import LanguageModel
    from thinktime.models.engine.rows import Output, Row, RowRace


_CAPABILITIES: frozenset[str] = frozenset(
    {
        *(Capability.STEPS, Capability.PREFIX, Capability.LOGPROBS, Capability.CONFIDENCES),
        *(Capability.CANCEL, Capability.NOISE),
    }
)
FINISH: dict[str, Finish] = {"eos": "eos", "stop": "step", "length": "length", "cancelled": "budget"}


class LocalGenerator:
    """Samples from a Hugging Face directory or a GGUF file on this machine.

    Args:
        directory: the model; a Llama needs no ``transformers``, other families do.
        step: the text that ends a step.
        max_rows: rows that run at once.
        dtype: with ``float64`` a sample does not depend on the other rows of its batch; ``float32`` is about twice as
            fast, but rounding may occasionally change a token. ``auto`` is the fastest one that keeps the checkpoint's
            precision, see `thinktime.models.engine.models.load_language_model`. llama.cpp computes with the weights
            as the file has them.
        thinking_tokens: the most thought tokens of a sample; at that length its thought is closed and the sample
            continues (budget forcing, Muennighoff et al. 2025, arXiv 2501.19393). None is no cap.
        chat: True for a chat model, which answers any prompt; False for a model of one task.
        engine: ``own``; ``llamacpp``, which reads GGUF files; or ``auto``: our own where it computes the family, and
            else llama.cpp if it is installed.

    Raises:
        InputError: the directory is missing or holds no language model; or llama.cpp is not installed; or the cap is
            below 0, or the model does not write ``</think>``.
    """

    unit = "tokens"
    origin: Any = None
    """Where the files were found, with their ``provenance``; None for a shipped model."""

    def __init__(
        self,
        directory: Path | str,
        *,
        step: str = "\n",
        max_rows: int = 256,
        dtype: str = "float32",
        thinking_tokens: int | None = None,
        chat: bool = True,
        engine: str = "auto",
    ) -> None:
        self.capabilities = _CAPABILITIES | {Capability.CHAT} if chat else _CAPABILITIES
        self.model = _loaded(Path(directory), dtype, engine)
        path = Path(directory).resolve()
        name = path.stem if path.suffix == ".gguf" else path.name
        self.name = f"{name}@{self.model.weights}/{self.model.weights_dtype}"
        if step != "\n":
            self.name += f" step={step!r}"
        self.weights, self.fingerprint = self.model.weights, self.model.fingerprint
        self._step_ids = self.model.tokenizer.ids_containing(step)
        self._worker = Worker(self.model.engine(max_rows=max_rows))
        self._thinking = thinking_tokens
        if thinking_tokens is not None:
            self.name += f" thinking_tokens={thinking_tokens}"
            tokenizer = self.model.tokenizer
            self._opening, self._closing = (tuple(tokenizer.encode(text)) for text in (f"{THINK}\n", CLOSING))
            if thinking_tokens < 0:
                raise InputError("thinking_tokens", thinking_tokens, "give 0 or more")
            if END not in tokenizer.decode(self._closing):
                raise InputError("thinking_tokens", thinking_tokens, f"this model does not write {END}; leave it out")

    @property
    def engine(self) -> Any:
        """The engine that computes it, with its account."""
        return self._worker.engine

    def root(self, problem: Problem, known: Sequence[Text] = (), *, quotes: bool = False) -> Text:
        """The chat template around the problem's context and prompt; a string is one user turn.

        Raises:
            InputError: the prompt is empty, or has words outside a closed vocabulary (with ``quotes`` these are
                spelled); or a part of the context is not text.
            TooLongError: it does not fit the model's context.
        """
        ids = self.model.tokenizer.encode_chat(with_context(problem), spell=quotes)
        limit = self.model.context
        if len(ids) >= limit:
            raise TooLongError("prompt", f"{len(ids)} tokens", f"this model reads {limit}; shorten the question")
        return Text(tuple(ids), known=max((_shared(ids, state) for state in known), default=0))

    def adopt(self, root: Text, state: Any, known: Sequence[Text] = ()) -> Text:
        """The text of another model in the ids of this one; ids of a shared tokenizer are kept.

        Raises:
            CapabilityError: the state is not a text.
        """
        if not isinstance(state, Text | RemoteText):
            raise CapabilityError(f"model={self.name!r}: it reads text, and cannot continue a {type(state).__name__}")
        tokenizer = self.model.tokenizer
        ids: list[int] = []
        ends: list[int] = []
        if isinstance(state, Text) and state.ids and tokenizer.decode(state.ids) == state.text:
            ids, ends = list(state.ids), list(state.step_ends)
        else:
            for step in steps_of(state):
                ids += tokenizer.encode(step)
                ends.append(len(ids))
        whole = (*root.prompt, *ids)
        read = max((_shared(whole, each) for each in known), default=0)
        return replace(root, ids=tuple(ids), text=state.text, step_ends=tuple(ends), known=read, adopted=bool(ids))

    def length(self, state: Text) -> int:
        """Tokens generated so far."""
        return len(state.ids)

    def worst_case(self, node: Node, max_length: int) -> Usage:
        """The cost of the whole prefix and of every token up to the limit."""
        return self._usage(node.state, min(max_length, self._room(node.state)), first=True, seconds=0.0)

    async def extend(self, extensions: Sequence[Extension]) -> list[Child]:
        """Sample one child per extension, in one running batch with every other caller."""
        from thinktime.models.engine.rows import RowRace

        if self._thinking is not None:
            return list(await asyncio.gather(*(self._within_cap(extension) for extension in extensions)))
        races = {(e.race, e.node): RowRace(e.race.k, self._counts(e), e.race.lengths) for e in extensions if e.race}
        rows = [self._row(e, race=races[e.race, e.node] if e.race else None) for e in extensions]
        made: dict[int, Child] = {}

        def arrived(index: int, output: Output) -> None:
            made[index] = child = self._child(extensions[index], output)
            if (keep := extensions[index].arrived) is not None and not races:  # a race may still cut the child
                with suppress(ThinktimeError):  # the search keeps it again at the end, and raises there
                    keep(child)

        await self._worker.run(rows, arrived)
        return [made[index] for index in range(len(extensions))]

    def _row(
        self, extension: Extension, ids: tuple[int, ...] = (), most: int | None = None, race: RowRace | None = None
    ) -> Row:
        """A row after the extension's node and the further ``ids``; ``most`` replaces the extension's length limit."""
        from thinktime.models.engine.rows import Row

        state: Text = extension.node.state
        most = extension.max_length if most is None else most
        return Row(
            state.prompt + state.ids + ids,
            key=int(extension.key[:16], 16),
            max_tokens=min(most, self._room(state) - len(ids)),
            temperature=extension.sampling.temperature,
            top_p=extension.sampling.top_p,
            stop_ids=self._step_ids if extension.until == "step" else frozenset(),
            stop_strings=extension.sampling.stop,
            deadline=extension.deadline,
            race=race,
            confidences=extension.confidences,
        )

    async def _within_cap(self, extension: Extension) -> Child:
        """A child whose thought is closed at the cap. The closing ids count for its length, but cost prompt tokens."""
        from thinktime.models.engine.rows import Output

        if extension.race is not None:
            raise InputError("thinking_tokens", self._thinking, "a race compares lengths; leave the cap out")
        before: Text = extension.node.state
        limit, most = extension.max_length, min(extension.max_length, self._room(before))
        begun = self.model.tokenizer.decode(before.prompt[-8:]).rstrip().endswith(THINK)
        if not before.text or thinking(before.text, begun=begun):
            limit = min(limit, max(0, (self._thinking or 0) - len(before.ids)))
        output = Output((), (), "length", 0, 0, 0.0)
        if limit:
            (output,) = await self._worker.run([self._row(extension, most=limit)])
        child = self._child(extension, output)
        if output.finish != "length" or child.finish == "eos" or limit == extension.max_length:
            return replace(child, state=replace(child.state, thinking=self._thought(before, child.state, begun)))
        closing: tuple[int, ...] = ()
        if not child.state.text or thinking(child.state.text, begun=begun):
            closing = self._closing if child.state.text or begun else self._opening + self._closing
        begin = output.ids + closing
        if len(begin) >= most:  # no room to close the thought
            room = extension.sampling.max_length - len(before.ids)
            ended: Finish = "cut" if extension.max_length == extension.at_most else "budget"
            ended = "length" if extension.max_length >= room or most < extension.max_length else ended
            return replace(child, finish=ended, state=replace(child.state, thinking=len(before.ids) + len(output.ids)))
        (rest,) = await self._worker.run([self._row(extension, begin, most - len(begin))])
        forced = (0.0,) * len(closing)  # the closing ids were not drawn
        logprobs, seconds = output.logprobs + forced + rest.logprobs, output.seconds + rest.seconds
        confidences = output.confidences + rest.confidences
        whole = replace(rest, ids=begin + rest.ids, logprobs=logprobs, seconds=seconds, confidences=confidences)
        child = self._child(extension, whole)
        prompt, drawn = child.usage.prompt_tokens or 0, child.usage.generated_tokens
        usage = replace(child.usage, prompt_tokens=prompt + len(closing), generated_tokens=drawn - len(closing))
        thought = self._thought(before, child.state, begun, len(before.ids) + limit if closing else None)
        return replace(child, usage=usage, state=replace(child.state, thinking=thought))

    def _thought(self, before: Text, state: Text, begun: bool, closed: int | None = None) -> int:
        """Upper bound of a sample's thought tokens; ``closed`` is the bound if its thought was closed just now."""
        text = state.text
        if thinks_again(text):
            return len(state.ids)
        if closed is not None:
            return closed
        if END in before.text or not (begun or text.lstrip().startswith(THINK)):
            return before.thinking or 0
        if END not in text:
            return len(state.ids)
        decode = self.model.tokenizer.decode
        return bisect_left(range(len(state.ids)), True, key=lambda n: END in decode(state.ids[:n])) - 1

    async def hidden(self, states: Sequence[Text]) -> list[tuple[list[float], Usage]]:
        """The last layer's hidden state at the last token of each state, before the model's last norm, and its cost."""
        from thinktime.models.engine.rows import Read
        from thinktime.models.engine.states import Segments

        last = Segments((self.model.shape.layers - 1,))
        ids = [state.prompt + state.ids for state in states]
        outputs = await self._worker.run([Read(each, len(each) - 1, last) for each in ids])
        found = []
        for state, output in zip(states, outputs, strict=True):
            assert output.states is not None
            found.append((output.states[0, 0].tolist(), self.probe_usage(state, output.seconds)))
        return found

    async def step_states(self, states: Sequence[Text], layers: Sequence[int]) -> list[Tensor]:
        """The hidden states at the last token of each step, after each of ``layers``: ``[steps, layers, hidden]``.

        Keys and values of the tokens before the first of these are taken from the store.

        Args:
            states: each has a step.
            layers: counted from 0.
        """
        from thinktime.models.engine.rows import Read
        from thinktime.models.engine.states import Segments

        every = Segments(tuple(layers), tokens=1)
        ends = [[len(state.prompt) + end - 1 for end in state.step_ends] for state in states]
        reads = [
            Read(state.prompt + state.ids, first, every, logprobs=False)
            for state, (first, *_) in zip(states, ends, strict=True)
        ]
        found = []
        for output, places in zip(await self._worker.run(reads), ends, strict=True):
            assert output.states is not None
            found.append(output.states[[place - places[0] for place in places]])
        return found

    def single_id(self, text: str) -> int | None:
        """The single token of this text; None if it has several."""
        ids = self.model.tokenizer.encode(text)
        return ids[0] if len(ids) == 1 else None

    async def logprobs(self, prefixes: Sequence[tuple[int, ...]], tokens: Sequence[int]) -> list[float]:
        """The log-probability, at temperature 1, of each token after the prefix at the same index."""
        from thinktime.models.engine.rows import Read

        pairs = zip(prefixes, tokens, strict=True)
        outputs = await self._worker.run([Read((*ids, token), len(ids)) for ids, token in pairs])
        return [float(output.values[0]) for output in outputs if output.values is not None]

    async def likeliest(self, prefixes: Sequence[tuple[int, ...]], k: int) -> list[list[tuple[str, float]]]:
        """The ``k`` most likely next tokens of each prefix, the most likely one first.

        Each is a text with its log-probability at temperature 1.
        """
        from thinktime.models.engine.rows import Row

        outputs = await self._worker.run([Row(ids, key=0, max_tokens=1, temperature=0.0, top=k) for ids in prefixes])
        decode = self.model.tokenizer.decode
        return [[(decode([token]), logprob) for token, logprob in output.top] for output in outputs]

    def probe_usage(self, state: Text, seconds: float = 0.0) -> Usage:
        """The cost of one more forward pass over the last token, which was drawn but not processed."""
        flops = forward_flops(self.model.shape, 1, len(state.prompt) + len(state.ids) - 1)
        return Usage(scorer_tokens=1, scorer_calls=1, scorer_flops=flops, seconds=seconds)

    def cut(self, extension: Extension, child: Child, tokens: int) -> Child:
        """The same row, cancelled earlier. The log-probability of its text is unknown."""
        before: Text = extension.node.state
        state, _ = self._state(extension, child.state.ids[len(before.ids) :][:tokens], math.nan)
        state = replace(
            state,
            logprobs=child.state.logprobs[: len(before.logprobs) + tokens],
            confidences=child.state.confidences[: len(before.confidences) + tokens],
        )
        usage = self._usage(before, tokens, first=extension.index == 0, seconds=child.usage.seconds)
        return Child(state, "pruned", usage, passes=tokens, length=tokens)

    def pack(self, node_state: Text, state: Text) -> dict[str, Any]:
        """See `thinktime.generators.text.pack`."""
        return pack(node_state, state)

    def unpack(self, node_state: Text, packed: Mapping[str, Any]) -> Text:
        """The state that `pack` described.

        A state of an export has no ids. They are the usual encoding of its text. The model may have drawn another one:
        end tokens fill the ids up to the number of tokens that it drew, or they are cut to it.
        """
        if "ids" in packed:
            return unpack(node_state, packed)
        new, drawn = packed["text"][len(node_state.text) :], packed["tokens"] - len(node_state.ids)
        tokenizer = self.model.tokenizer
        ids = (tokenizer.encode(new) + [tokenizer.end_ids[0]] * drawn)[:drawn]
        logprob = math.nan if packed["logprob"] is None else packed["logprob"]
        ends = self._step_ends(node_state.ids + tuple(ids))
        return unpack(node_state, {**packed, "ids": ids, "step_ends": ends, "logprob": logprob})

    def _counts(self, extension: Extension) -> Callable[[Sequence[int]], bool]:
        race = extension.race
        return lambda ids: race is not None and race.counts(self._state(extension, tuple(ids), 0.0)[0])

    def _child(self, extension: Extension, output: Output) -> Child:
        before: Text = extension.node.state
        state, stopped = self._state(extension, output.ids, before.logprob + sum(output.logprobs))
        logprobs = tuple(round(logprob, LOGPROB_DIGITS) for logprob in output.logprobs)
        confidences = before.confidences + output.confidences
        state = replace(state, logprobs=before.logprobs + logprobs, confidences=confidences)
        first = extension.index == 0 and bool(output.ids)  # a row cancelled before it began has processed nothing
        usage = self._usage(before, len(output.ids), first=first, seconds=output.seconds)
        finish: Finish = FINISH[output.finish]
        if stopped:
            return Child(state, "eos", usage, passes=len(output.ids), length=len(output.ids))
        limit = extension.race.limit if extension.race else None
        if finish == "budget" and limit is not None and len(output.ids) >= limit:
            finish = "pruned"
        if finish == "step" and not self._room(state):
            finish = "length"
        elif finish == "length" and self._room(state) and len(state.ids) < extension.sampling.max_length:
            finish = "cut" if len(output.ids) == extension.at_most else "budget"
        return Child(state, finish, usage, passes=len(output.ids), length=len(output.ids))

    def _room(self, state: Text) -> int:
        """Tokens that still fit the context."""
        return max(0, self.model.context - len(state.prompt) - len(state.ids))

    def _state(self, extension: Extension, new: tuple[int, ...], logprob: float) -> tuple[Text, bool]:
        """The state after ``new`` ids, and whether it ends at a stop string."""
        before: Text = extension.node.state
        ids = before.ids + new
        ends = self._step_ends(ids)
        text, stopped = until_stop(before.text, self.model.tokenizer.decode(ids), extension.sampling.stop)
        return replace(before, ids=ids, text=text, step_ends=ends, logprob=logprob, adopted=False), stopped

    def _step_ends(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The places just past the steps, of which the last one may be unfinished."""
        ends = [index + 1 for index, token in enumerate(ids) if token in self._step_ids]
        return tuple(ends) if ends and ends[-1] == len(ids) else (*ends, len(ids))

    def _usage(self, before: Text, generated: int, *, first: bool, seconds: float) -> Usage:
        """A node's first child is charged for the new tokens of the prefix; all other tokens are in the store.

        The new tokens of a root are those of its prompt that the model has not processed. The new token of any other
        node is its last one, which was drawn but not processed. If another model wrote the node, all tokens are new
        that this model has not processed.
        """
        shape = self.model.shape
        prefix = len(before.prompt) + len(before.ids)
        new = 0 if not first else 1 if before.ids and not before.adopted else prefix - before.known
        read = generated * prefix + generated * (generated - 1) // 2
        return Usage(
            prompt_tokens=new,
            cached_tokens=prefix - new,
            generated_tokens=generated,
            model_calls=1,
            flops=forward_flops(shape, generated, prefix) + forward_flops(shape, new, prefix - new),
            kv_bytes=read * shape.kv_bytes_per_token,
            seconds=seconds,
            dollars=0.0,
        )


def _loaded(path: Path, dtype: str, engine: str) -> LanguageModel | LlamaCppModel:
    """The model in the engine of this name; see `LocalGenerator`."""
    from thinktime.models.engine.gguf import UnsupportedFamilyError
    from thinktime.models.engine.llamacpp_library import installed
    from thinktime.models.engine.models import load_language_model

    if engine != "llamacpp":
        try:
            return load_language_model(path, dtype)
        except UnsupportedFamilyError:
            if engine == "own" or not installed():
                raise
    from thinktime.models.engine.llamacpp_model import load_llamacpp_model

    return load_llamacpp_model(path)


def _shared(ids: Sequence[int], state: Text) -> int:
    """Number of leading ids that were processed with this state; its last drawn id was not."""
    return shared(ids[:-1], (state.prompt + state.ids)[: -1 if state.ids else None])
