"""Whether our engine and llama.cpp draw the same greedy tokens from the same GGUF file, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinktime.models.engine.llamacpp_model import load_llamacpp_model
from thinktime.models.engine.models import load_language_model
from thinktime.models.engine.rows import Read, Row


def agreement(model: Path, prompts: Sequence[Sequence[int]], tokens: int) -> dict[str, Any]:
    """Compare greedy replies to these prompts.

    Returns:
        How many replies differ, and for each of them the first position at which it does, with the gap: by how much
        our engine finds its own token likelier there than llama.cpp's (a difference of log-probabilities, so of logits
        too). A small gap is explained by rounding and by the activations that llama.cpp quantises.
    """
    own, other = load_language_model(model, "auto"), load_llamacpp_model(model)
    rows = [Row(tuple(prompt), 0, tokens, 0.0) for prompt in prompts]
    engine = own.engine()
    differing: list[dict[str, Any]] = []
    for row, ours, theirs in zip(rows, engine.run(rows), other.engine().run(rows), strict=True):
        pairs = enumerate(zip(ours.ids, theirs.ids, strict=False))
        place = next((place for place, (one, another) in pairs if one != another), None)
        if place is None:
            continue
        before = row.ids + ours.ids[:place]
        reads = engine.run([Read((*before, each.ids[place]), len(before)) for each in (ours, theirs)])
        one, another = (float(read.values[0]) for read in reads if read.values is not None)
        differing.append({"position": place, "gap": round(one - another, 4)})
    return {"prompts": len(rows), "tokens": tokens, "differ": len(differing), "differences": differing}
