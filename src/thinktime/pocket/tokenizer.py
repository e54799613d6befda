"""The pocket tokenizer: one token per word and per digit, lossless on any text.

A byte-level BPE without merges: a word of the pocket vocabulary is one token, and all other text is split into
bytes. So decoding returns exactly the encoded text, and stop strings work in ``transformers``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from thinktime.pocket.problems import vocabulary

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, END, USER, ASSISTANT)
STEP = "\n"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build(more: Sequence[str] = ()) -> Tokenizer:
    """Build the tokenizer from the vocabulary of the problem generator; ``more`` words get the ids after it."""
    words = [form for word in vocabulary() for form in (word, f"Ġ{word}")]
    digits = [f"Ġ{digit}" for digit in range(10)]
    marks = [f"Ġ{mark}" for mark in "+-*="]
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *digits, *marks, *words]
    tokens += [form for word in more for form in (word, f"Ġ{word}")]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path, context: int = 512) -> None:
    """Write the files that ``transformers`` needs: tokenizer, its configuration and the chat template."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "pad_token": PAD,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
        "closed_vocabulary": True,  # our own field: words outside the vocabulary are refused, not spelled in bytes
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def prompt(question: str) -> str:
    """The text the solver continues: the chat template with one user turn."""
    return f"{USER}{question}{ASSISTANT}"
