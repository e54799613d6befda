"""The study of optuna that the searches by a tree-structured Parzen estimator (TPE) share."""

from __future__ import annotations

from typing import Any
from warnings import catch_warnings, simplefilter

from thinktime.core.errors import ModelError


def parzen_study(seed: int) -> Any:
    """A study of optuna that maximises, by TPE over all variables together, because they interact.

    Raises:
        ModelError: optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ModelError("TPE needs optuna: pip install 'thinktime[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with catch_warnings():
        simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of the option ``multivariate``
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    return optuna.create_study(direction="maximize", sampler=sampler)
