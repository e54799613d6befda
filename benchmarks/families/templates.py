"""Whether prompts of published chat templates are the same, to the byte, as those of ``transformers``.

    python -m benchmarks.families.templates FOLDER...

A folder has templates as ``*.jinja`` files, for example ``models/templates`` of llama.cpp, which collects those of
published models, and ``chat_templates`` of https://github.com/chujiezheng/chat_templates. It writes
``templates.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from thinktime.bench.environment import environment
from thinktime.core.errors import ThinktimeError
from thinktime.models.engine.templates import ChatTemplate

HERE = Path(__file__).parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
SYSTEM = {"role": "system", "content": "Answer in one word. <&> ü"}
USER = {"role": "user", "content": 'What is the capital of France?\n\n  Think "twice".  '}
REPLY = {"role": "assistant", "content": "Paris."}
THOUGHT = REPLY | {"reasoning_content": "France has one.\nIt is Paris."}
CONVERSATIONS = {
    "user": [USER],
    "system and user": [SYSTEM, USER],
    "three turns": [USER, REPLY, USER],
    "three turns with a thought": [SYSTEM, USER, THOUGHT, USER],
    "two user turns": [USER, USER],
}


def theirs(source: str, messages: list[dict[str, Any]]) -> str | None:
    """The prompt by ``transformers``; None if the template raises."""
    try:
        found = render_jinja_template([messages], None, None, source, add_generation_prompt=True, **TOKENS)
    except Exception:  # a template can raise anything
        return None
    return str(found[0][0])


def ours(source: str, messages: list[dict[str, Any]]) -> str | None:
    """The prompt of the engine; None if it is refused."""
    try:
        return ChatTemplate(source, TOKENS).render(messages)
    except ThinktimeError:
        return None


def kind(source: str, messages: list[dict[str, Any]]) -> str:
    """How the two prompts compare."""
    right, found = theirs(source, messages), ours(source, messages)
    if right == found:
        return "equal" if right is not None else "refused by both"
    if right is None:
        return "refused by the template, and asked with joined turns"
    dropped = any(turn["role"] == "system" and turn["content"] not in right for turn in messages)
    return "without the system turn, which is asked with the user's" if dropped and found is not None else "different"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    logging.disable(logging.WARNING)
    kinds: dict[str, dict[str, str]] = {}
    for path in sorted(path for folder in parser.parse_args().folders for path in folder.glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        kinds[path.stem] = {name: kind(source, turns) for name, turns in CONVERSATIONS.items()}
        print(path.stem, kinds[path.stem], flush=True)
    all_kinds = [each for found in kinds.values() for each in found.values()]
    counts = {each: all_kinds.count(each) for each in sorted(set(all_kinds))}
    head = {"command": "python -m benchmarks.families.templates FOLDER...", "environment": environment()}
    result = head | {"templates": len(kinds), "prompts": len(all_kinds), "counts": counts, "of each": kinds}
    (HERE / "templates.json").write_text(json.dumps(result, indent=1) + "\n")
    print(len(kinds), "templates", counts)


if __name__ == "__main__":
    main()
