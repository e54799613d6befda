"""The tokenizer and the chat template of a Hugging Face directory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from thinktime.core.errors import InputError, ModelError
from thinktime.models.engine.directories import one_line, read_json
from thinktime.models.engine.templates import ChatTemplate, conversation


class ChatTokenizer:
    """``tokenizer.json`` and the chat template of a model directory. Without one, ``template`` is None.

    Raises:
        InputError: ``tokenizer.json`` is missing.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        if not path.exists():
            raise InputError("model", str(directory), "there is no tokenizer.json; give a Hugging Face model directory")
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise ModelError(f"{path}: not a tokenizer ({one_line(error)}); the file is broken") from error
        config = read_json(directory / "tokenizer_config.json")
        self.template = _chat_template(directory, config)
        self.end_ids = self._ends(directory, config)
        self.eos_id = self.end_ids[0]
        self._closed = bool(config.get("closed_vocabulary"))

    def _ends(self, directory: Path, config: dict[str, Any]) -> tuple[int, ...]:
        """Ids that end a reply: the tokenizer's end token, then those of the two configurations."""
        special = read_json(directory / "special_tokens_map.json")
        texts = [_token_text(each.get("eos_token")) for each in (config, special)]
        ends = [self._tokenizer.token_to_id(text) for text in texts if text]
        for name in ("generation_config.json", "config.json"):
            listed = read_json(directory / name).get("eos_token_id")
            ends += listed if isinstance(listed, list) else [listed]
        known = tuple(dict.fromkeys(end for end in ends if isinstance(end, int)))
        if not known:
            fix = "no file names an end token; add eos_token to tokenizer_config.json"
            raise InputError("model", str(directory), fix)
        return known

    @property
    def end_tokens(self) -> list[str]:
        """The tokens that end a reply, as they are written."""
        return [self._tokenizer.id_to_token(token) or str(token) for token in self.end_ids]

    def encode_chat(self, prompt: Any, spell: bool = False) -> list[int]:
        """Ids of the prompt with the start of the assistant's turn; a string is one user message.

        Raises:
            InputError: the prompt is empty or no conversation, or it has words outside a closed vocabulary and
                ``spell`` is false.
        """
        messages = conversation(prompt)
        content = " ".join(str(message.get("content") or "") for message in messages)
        if not content.strip():
            raise InputError("prompt", prompt, "ask something")
        if self._closed and not spell and (unknown := self._unknown_words(content)):
            raise InputError(
                "prompt",
                ", ".join(unknown),
                "this model knows only the words of its own task (see `thinktime models`); give another --model",
            )
        text = content if self.template is None else self.template.render(messages)
        return list(self._tokenizer.encode(text, add_special_tokens=self.template is None).ids)

    def encode(self, text: str) -> list[int]:
        """Ids of a text that another model or a person wrote, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def ids_containing(self, text: str) -> frozenset[int]:
        """Every token whose text contains ``text``; a step can end with these."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=False).values()
        return frozenset(i for i in vocabulary if text in self._tokenizer.decode([i], skip_special_tokens=False))

    def _unknown_words(self, content: str) -> list[str]:
        vocabulary = self._tokenizer.get_vocab()
        words = dict.fromkeys(re.findall(r"[^\W\d_]+", content))
        return [word for word in words if word not in vocabulary and f"Ġ{word}" not in vocabulary]


def _chat_template(directory: Path, config: dict[str, Any]) -> ChatTemplate | None:
    """The template for a conversation without tools; None if the directory has none.

    Raises:
        InputError: it has several by name, and none is the default.
    """
    file = directory / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")
    if isinstance(source, list):
        named = {each["name"]: each["template"] for each in source}
        if "default" not in named:
            raise InputError("chat_template", ", ".join(named), "name one of them default in tokenizer_config.json")
        source = named["default"]
    if not source:
        return None
    special = read_json(directory / "special_tokens_map.json") | config
    tokens = {name: _token_text(value) for name, value in special.items() if name.endswith("_token")}
    return ChatTemplate(source, {name: text for name, text in tokens.items() if isinstance(text, str)})


def _token_text(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token
