"""Options of strategies: their defaults, and the least value of each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from thinktime.core.errors import InputError
from thinktime.strategies import make

BY_DEFAULT: dict[str, dict[str, Any]] = {
    "majority": {"n": 16},
    "adaptive_consistency": {"n": 16, "confidence": 0.95, "batch": 1},
    "first_finish": {
        **{"n": 4, "k": 1, "by": "length", "counts": "answer", "min_tokens": 0},
        **{"advice": "unknown", "guard": "warn"},
    },
    "beam_search": {"n": 16, "width": 4, "max_rounds": 40, "lookahead": 0},
    "dvts": {"n": 16, "width": 4, "max_rounds": 40},
    "rebase": {"n": 16, "balance": 0.2, "max_rounds": 40},
    "mcts": {"n": 16, "width": 4, "explore": 0.5, "batch": 8},
    "early_rejection": {
        **{"n": 16, "width": 4, "tau": 8, "keep": "best", "rank": "whole", "select": "vote", "cuts": "trained"},
        "max_rounds": 40,
    },
}
LEAST: dict[str, dict[str, int]] = {
    "majority": {"n": 1},
    "adaptive_consistency": {"n": 1, "batch": 1},
    "first_finish": {"n": 1, "k": 1, "min_tokens": 0},
    "beam_search": {"n": 1, "width": 1, "max_rounds": 1, "lookahead": 0},
    "dvts": {"n": 1, "width": 1, "max_rounds": 1},
    "rebase": {"n": 1, "max_rounds": 1},
    "mcts": {"n": 1, "width": 1, "batch": 1, "explore": 0},
    "early_rejection": {"n": 1, "width": 1, "tau": 1, "max_rounds": 1},
}


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_options_have_these_defaults(name: str) -> None:
    strategy: Any = make(name, {})
    assert {field.name: getattr(strategy, field.name) for field in fields(strategy)} == BY_DEFAULT[name]


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, options in LEAST.items() for option in options])
def test_an_option_accepts_its_least_value_and_refuses_lower_ones(name: str, option: str) -> None:
    least = LEAST[name]
    assert getattr(make(name, least), option) == least[option]
    with pytest.raises(InputError, match=rf"^{option}={least[option] - 1}(\.0)?: give {least[option]} or more"):
        make(name, least | {option: least[option] - 1})


@pytest.mark.parametrize(("name", "option"), [("rebase", "balance"), ("adaptive_consistency", "confidence")])
def test_a_share_accepts_values_above_zero_and_refuses_zero(name: str, option: str) -> None:
    assert getattr(make(name, {option: 1e-6}), option) == 1e-6
    with pytest.raises(InputError, match=rf"^{option}=0\.0: give a number above 0"):
        make(name, {option: 0})


@pytest.mark.parametrize("option", ["keep", "rank", "select", "cuts"])
def test_an_unknown_choice_of_early_rejection_is_refused_by_name(option: str) -> None:
    with pytest.raises(InputError, match=f"^{option}='neither': unknown"):
        make("early_rejection", {option: "neither"})


@pytest.mark.parametrize("option", ["by", "counts", "advice", "guard"])
def test_an_unknown_choice_of_first_finish_is_refused_by_name(option: str) -> None:
    with pytest.raises(InputError, match=f"^{option}='neither': unknown"):
        make("first_finish", {option: "neither"})
