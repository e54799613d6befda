"""The shipped tiny models and the word problems they were trained on: real models with real errors."""

from __future__ import annotations

from pathlib import Path

from thinktime.core.errors import ModelError

MODELS = Path(__file__).parent / "models"
TEMPERATURE = 1.0
"""The sampling temperature: the reward model was trained on samples drawn at this temperature."""
MAX_TOKENS = 400


def directory(name: str) -> Path:
    """The directory of a shipped model, such as ``solver`` or ``reward``.

    Raises:
        ModelError: the installation lacks the model.
    """
    path = MODELS / name
    if not path.is_dir():
        raise ModelError(f"pocket={name!r}: this installation lacks the shipped models; install thinktime again")
    return path
