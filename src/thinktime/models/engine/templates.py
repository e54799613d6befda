"""The chat template of a model directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinktime.bounded import BoundedProcess
from thinktime.core.errors import InputError, ModelError

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's thought; templates read the first, and the one of gpt-oss the second."""
_LOG = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, Any]]


def conversation(prompt: Any) -> list[Mapping[str, Any]]:
    """The messages of a prompt; a text is one user turn.

    Raises:
        InputError: it is neither a text nor a list of messages with roles.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, Sequence):
        raise InputError("prompt", prompt, "give a text, or a list of messages")
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError("prompt", str(message)[:80], 'give each message as {"role": "user", "content": "…"}')
    return list(messages)


class ChatTemplate:
    """A template with the special tokens of its tokenizer.

    A template may refuse or drop system turns, or refuse two turns of one role in a row. Then a system turn is put
    before the user's next turn, turns of one role are joined, and a warning says so once.

    Args:
        source: the template, in jinja.
        tokens: special tokens by name, such as ``bos_token``.
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self._source, self._tokens = source, dict(tokens)
        self._said = False

    def render(self, messages: Messages) -> str:
        """The prompt for the next turn of the assistant.

        Raises:
            InputError: the template refuses these messages.
            ModelError: the template is broken, or takes too much time or memory.
        """
        text, why = self.rendered(messages)
        if why:
            self._say(why)
        return text

    def rendered(self, messages: Messages) -> tuple[str, str]:
        """The prompt, and the reason if turns were joined for it; else the reason is empty.

        Raises:
            InputError, ModelError: as `render`.
        """
        text, refusal = self._try(messages)
        system = [str(message.get("content") or "").strip() for message in messages if message["role"] == "system"]
        if text is not None and all(each in text for each in system):
            return text, ""
        merged = _merged(messages)
        if merged != list(messages):
            again, _ = self._try(merged)
            if again is not None:
                return again, f"refuses these roles ({refusal})" if refusal else "drops the system turn"
        if text is not None:
            return text, ""
        raise InputError("prompt", _roles(messages), f"the model's chat template refuses it: {refusal}")

    def _try(self, messages: Messages) -> tuple[str | None, str]:
        """The prompt, or None and the template's own message."""
        turns = [_with_reasoning(message) for message in messages]
        others = {"tools": None, "documents": None, "add_generation_prompt": True}
        variables = {**self._tokens, **others, "messages": turns}
        found = _PROCESS.ask({"template": self._source, "variables": variables})
        if found is None or "error" in found:
            reason = "it takes too much time or memory" if found is None else found["error"]
            raise ModelError(f"the model's chat template cannot be rendered ({reason}); correct it")
        return found.get("text"), found.get("refused", "")

    def _say(self, why: str) -> None:
        if not self._said:
            _LOG.warning(
                "the chat template %s; system turns go before the next user turn, and turns of one role are joined", why
            )
        self._said = True


_PROCESS = BoundedProcess(Path(__file__).with_name("template_process.py"))


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    thought = next((message[name] for name in REASONING if message.get(name) is not None), None)
    return dict(message) if thought is None else {"thinking": thought, **message, "reasoning_content": thought}


def _merged(messages: Messages) -> list[dict[str, Any]]:
    """The same messages without system turns and without two turns of one role in a row."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        turn = {**message, "role": "user"} if message["role"] == "system" else dict(message)
        before = merged[-1] if merged else None
        texts = [each.get("content") for each in (before or {}, turn)]
        if before is not None and before["role"] == turn["role"] and all(isinstance(text, str) for text in texts):
            before["content"] = "\n\n".join(map(str, texts))
        else:
            merged.append(turn)
    return merged


def _roles(messages: Messages) -> str:
    return ", ".join(str(message["role"]) for message in messages)
