"""The shipped solver as a thinking model: its template begins a thought, and its word for the answer ends it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

BEGINS, ENDS = "Z", "Answer"
"""Words of the solver that become the marks of a thought: it never writes the first, and writes the second once."""

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message.reasoning_content %}{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}"
)


def make_thinker(solver: Path, directory: Path) -> Path:
    """Copy the solver, and rename these two words in the copy."""
    shutil.copytree(solver, directory)
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for word, mark in ((BEGINS, "<think>"), (ENDS, "</think>")):
        token_id = vocabulary[mark] = vocabulary.pop(word)
        added = {**tokenizer["added_tokens"][0], "id": token_id, "content": mark, "special": False}
        tokenizer["added_tokens"].append(added)
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((directory / "tokenizer_config.json").read_text())
    config["chat_template"] = TEMPLATE
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory
