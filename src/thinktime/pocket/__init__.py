"""The shipped tiny models and the word problems they were trained on: real models with real errors."""

from __future__ import annotations

from pathlib import Path

from thinktime.core.errors import ModelError

MODELS = Path(__file__).parent / "models"
TEMPERATURE = 1.0
"""The serving temperature: the reward model was trained on samples drawn at it."""
MAX_TOKENS = 400


def directory(name: str) -> Path:
    """Where the shipped ``solver`` or ``reward`` model is.

    Raises:
        ModelError: the installation lacks it.
    """
    path = MODELS / name
    if not path.is_dir():
        raise ModelError(f"pocket={name!r}: this installation lacks the shipped models; install thinktime again")
    return path
