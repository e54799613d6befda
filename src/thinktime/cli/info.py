"""``thinktime models`` and ``thinktime strategies``: what there is."""

from __future__ import annotations

import json
from typing import Any

from thinktime.cli.common import Json, read_json


def models(as_json: Json = False) -> None:
    """The shipped models, what they know, and what else --model takes."""
    from thinktime.pocket import MODELS
    from thinktime.pocket.problems import DAYS, ITEMS, MAKERS, NAMES, problems

    shipped = {
        path.name: read_json(path / "config.json").get("thinktime", {})
        for path in sorted(MODELS.glob("*"))
        if path.is_dir()
    }
    example = next(iter(problems("test", 1, seed=1))).question
    if as_json:
        print(json.dumps({"pocket": shipped, "example": example, "other": "any Hugging Face model directory"}))
        return
    for name, facts in shipped.items():
        print(f"pocket {name}: {facts.get('description', '')}")
    print(
        f"\nThe pocket solver reads word problems in its own words, with numbers up to 199, for example:\n  {example}"
    )
    for title, words in (("names", NAMES), ("things", ITEMS), ("days", DAYS), ("places", MAKERS)):
        print(f"  {title}: {', '.join(words)}")
    print("\nAny other --model is a Hugging Face directory on this machine (Llama, Qwen, Mistral, …).")


def strategies(as_json: Json = False) -> None:
    """The strategies, their options and what they need."""
    from thinktime.strategies import known, options

    found: dict[str, dict[str, Any]] = {
        name: {
            "about": (kind.__doc__ or "").strip().splitlines()[0],
            "options": options(kind),
            "needs": sorted(kind.needs),
        }
        for name, kind in sorted(known().items())
    }
    if as_json:
        print(json.dumps(found))
        return
    for name, facts in found.items():
        settings = ",".join(f"{option}={value}" for option, value in facts["options"].items())
        print(f"{name}{':' if settings else ''}{settings}\n    {facts['about']}")
        print(f"    needs: {', '.join(facts['needs']) or 'nothing'}")
