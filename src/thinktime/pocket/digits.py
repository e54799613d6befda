"""The prompts of the shipped image model: a digit, and other properties of its picture."""

from __future__ import annotations

WISHES = {"heavy ink": ("ink", 10.0), "light ink": ("ink", -10.0), "symmetric": ("symmetry", 10.0)}
"""Properties that a prompt may name: the measure, and its weight against the log-probability of the digit."""
STEPS = 20
"""Denoising steps; more steps do not improve the pictures (``quality.json`` beside the weights)."""


def scorer_for(prompt: str) -> str:
    """The measures of a prompt, as ``--scorer`` takes them: ``digit 7, heavy ink`` is ``class+10*ink``."""
    wished = (f"{weight:+g}*{measure}" for words, (measure, weight) in WISHES.items() if words in prompt.lower())
    return "class" + "".join(wished)
