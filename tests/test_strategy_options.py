"""Options of strategies: their defaults, the least value of each, and the words of each choice."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from thinktime.core.errors import InputError, UnknownNameError
from thinktime.strategies import BUILT_IN, make

SIXTEEN: dict[str, Any] = {"n": 16}
BY_DEFAULT: dict[str, dict[str, Any]] = {
    "single": {},
    "best_of_n": {**SIXTEEN, "by": "score"},
    "majority": SIXTEEN,
    "weighted_majority": SIXTEEN,
    "most_likely": SIXTEEN,
    "summed_probability": SIXTEEN,
    "adaptive_consistency": {**SIXTEEN, "confidence": 0.95, "batch": 1},
    "length_vote": {**SIXTEEN, "keep": 0.5, "least": 3, "side": "short"},
    "deepconf": {"n": 16, "keep": 0.9, "by": "tail", "window": 2048},
    "deepconf_online": {
        **{"n": 32, "warmup": 16, "keep": 0.9, "window": 2048, "every": 64, "batch": 4, "consensus": 0.95},
    },
    "first_finish": {
        **{"n": 4, "k": 1, "by": "length", "counts": "answer", "min_tokens": 0},
        **{"advice": "unknown", "guard": "warn"},
    },
    "beam_search": {**SIXTEEN, "width": 4, "max_rounds": 40, "lookahead": 0},
    "dvts": {**SIXTEEN, "width": 4, "max_rounds": 40},
    "rebase": {**SIXTEEN, "balance": 0.2, "max_rounds": 40},
    "ets": {
        **{"n": 16, "balance": 0.2, "node_price": 1.0, "coverage": 1.5, "cluster_distance": 0.05, "min_children": 0},
        **{"cost_unit": "node", "keep": "best", "vote": "weighted", "max_step_tokens": 0, "max_rounds": 25},
        "solver_seconds": 10.0,
    },
    "a_star": {
        **{"k": 4, "edge_cost": "drop", "step_cost": 0.02, "token_cost": 0.0005, "weight": 1.0, "n_goals": 1},
        **{"pop_width": 1, "max_frontier": 256, "max_depth": 40, "segment_tokens": 0, "reserve_tokens": 0},
        "score_map": "none",
    },
    "best_first": {"k": 4, "n_goals": 1},
    "mcts": {**SIXTEEN, "width": 4, "explore": 0.5, "batch": 8},
    "particle_filter": {
        **{"n": 16, "potential": "diff", "factor": 1.0, "ess": 0.5, "anneal": 0, "start": 0, "every": 1},
        **{"max_rounds": 40, "reward": "log_odds", "rollouts": 0, "resampler": "systematic"},
    },
    "fk_steering": {
        **{"n": 4, "potential": "max", "factor": 10.0, "ess": 0.5, "anneal": 0, "start": 4, "every": 4},
        **{"max_rounds": 1001, "reward": "score", "rollouts": 0, "resampler": "systematic"},
    },
    "dts": {
        **{"n": 64, "variant": "star", "factor": 1.0, "widen": 1.0, "alpha": 0.5, "explore": 1.0},
        **{"backup": "mean", "walks": 1},
    },
    "zero_order": {
        **{"n": 4, "rounds": 8, "start": 1, "cosine": 0.95, "on_stall": "keep", "by": "score", "final_steps": 0},
    },
    "search_over_paths": {"n": 4, "width": 2, "level": 0.11, "forward": 0.78, "backward": 0.81},
    "early_rejection": {
        **{"n": 16, "width": 4, "tau": 8, "keep": "best", "rank": "whole", "select": "vote", "cuts": "trained"},
        "max_rounds": 40,
    },
    "adaptive_sampling": {**SIXTEEN, "gamma": 0.9, "anneal": "power2", "batching": "one", "select": "self_eval"},
    "early_pruning": {**SIXTEEN, "t_check": 16, "keep_frac": 0.5, "keep": "best"},
    "revision": {**SIXTEEN, "chains": 4, "context": 4, "select": "verifier"},
    "generative_verification": {
        **{"n": 16, "checks": 4, "select": "weighted", "verdict": "hybrid", "unreadable": "raise"},
    },
    "solve_or_verify": {
        **{"n": 16, "ratio": 1.0, "alpha_s": 0.0, "a": 0.57, "alpha_v": 0.0, "b": 0.39, "crossover": 1.0},
        **{"integer": "round", "unreadable": "raise"},
    },
    "generative_reward": {"n": 4, "k": 8, "keep": 0, "by": "meta", "stop": "all", "unreadable": "raise"},
    "pairwise_tournament": {"n": 16, "schedule": "swiss", "pairs": 2, "pivots": 2, "orders": "both"},
    "self_refine": {"rounds": 3},
    "stepwise_best_of_n": {"n": 4, "max_steps": 25, "min_steps": 3},
    "plan_then_solve": {"n": 1, "roles": "auto"},
    "aggregate": {"n": 4, "layers": 1},
    "speculative_reasoning": {"threshold": 7.0, "first_n_base": 0, "max_step_tokens": 512},
    "cascade": {"n": 4, "threshold": 0.75},
    "archon": {"file": "", "layers": None, "max_fuser_inputs": 24, "retries": 3, "unreadable": "raise"},
    "pipeline": {"stages": "generate*4;repair*4"},
    "agent_graph": {"nodes": "assistant;assistant;fuser<1+2"},
    "delegate": {"inner": make("single"), "model": "draft"},
    "restarts": {"inner": make("single"), "n": 4, "select": "majority"},
}
LEAST: dict[str, dict[str, int]] = {
    "best_of_n": {"n": 1},
    "majority": {"n": 1},
    "weighted_majority": {"n": 1},
    "most_likely": {"n": 1},
    "summed_probability": {"n": 1},
    "adaptive_consistency": {"n": 1, "batch": 1},
    "length_vote": {"n": 1, "least": 1},
    "deepconf": {"n": 1, "window": 1},
    "deepconf_online": {"n": 1, "warmup": 1, "window": 1, "every": 1, "batch": 1},
    "first_finish": {"n": 1, "k": 1, "min_tokens": 0},
    "beam_search": {"n": 1, "width": 1, "max_rounds": 1, "lookahead": 0},
    "dvts": {"n": 1, "width": 1, "max_rounds": 1},
    "rebase": {"n": 1, "max_rounds": 1},
    "ets": {"n": 1, "node_price": 0, "coverage": 0, "min_children": 0, "max_step_tokens": 0, "max_rounds": 1},
    "a_star": {
        **{"k": 1, "n_goals": 1, "pop_width": 1, "max_frontier": 1, "max_depth": 1, "segment_tokens": 0},
        **{"reserve_tokens": 0, "step_cost": 0, "token_cost": 0},
    },
    "best_first": {"k": 1, "n_goals": 1},
    "mcts": {"n": 1, "width": 1, "batch": 1, "explore": 0},
    "particle_filter": {"n": 1, "ess": 0, "anneal": 0, "start": 0, "every": 1, "max_rounds": 1, "rollouts": 0},
    "fk_steering": {"n": 2, "ess": 0, "anneal": 0, "start": 0, "every": 1, "max_rounds": 1, "rollouts": 0},
    "dts": {"n": 1, "explore": 0, "walks": 1},
    "zero_order": {"n": 1, "rounds": 0, "start": 1, "final_steps": 0},
    "search_over_paths": {"n": 1, "width": 1},
    "early_rejection": {"n": 1, "width": 1, "tau": 1, "max_rounds": 1},
    "adaptive_sampling": {"n": 1},
    "early_pruning": {"t_check": 1},
    "revision": {"n": 1, "chains": 1, "context": 1},
    "generative_verification": {"n": 1, "checks": 0},
    "solve_or_verify": {"n": 1, "alpha_s": 0, "alpha_v": 0},
    "generative_reward": {"n": 1, "k": 1, "keep": 0},
    "pairwise_tournament": {"n": 1, "pairs": 1, "pivots": 1},
    "self_refine": {"rounds": 0},
    "stepwise_best_of_n": {"n": 1, "max_steps": 1, "min_steps": 0},
    "plan_then_solve": {"n": 1},
    "aggregate": {"n": 1, "layers": 1},
    "speculative_reasoning": {"first_n_base": 0, "max_step_tokens": 1},
    "cascade": {"n": 2},
    "archon": {"retries": 0},
    "restarts": {"n": 1},
}
ABOVE_ZERO = {
    "adaptive_consistency": ["confidence"],
    "length_vote": ["keep"],
    "deepconf": ["keep"],
    "deepconf_online": ["keep", "consensus"],
    "rebase": ["balance"],
    "ets": ["balance", "cluster_distance", "solver_seconds"],
    "a_star": ["weight"],
    "particle_filter": ["factor"],
    "dts": ["factor", "widen"],
    "search_over_paths": ["forward"],
    "adaptive_sampling": ["gamma"],
    "solve_or_verify": ["ratio", "crossover"],
    "cascade": ["threshold"],
}
VOTES = ["majority", "weighted_majority"]
POTENTIALS = ["diff", "max", "sum", "rt", "is", "bon"]
RESAMPLERS = ["systematic", "stratified", "multinomial"]
UNREADABLE = ["raise", "plurality"]
WORDS: dict[str, dict[str, list[str]]] = {
    "best_of_n": {"by": ["score", "ranks", "comparison"]},
    "length_vote": {"side": ["short", "long"]},
    "deepconf": {"by": ["lowest", "bottom", "tail", "mean"]},
    "first_finish": {
        **{"by": ["length", "time"], "counts": ["answer", "any"], "advice": ["use", "do not use", "unknown"]},
        "guard": ["warn", "off"],
    },
    "ets": {"cost_unit": ["node", "token"], "keep": ["best", "random"], "vote": ["weighted", "majority", "best"]},
    "a_star": {"score_map": ["none", "sigmoid"], "edge_cost": ["drop", "consistent", "steps", "tokens", "zero"]},
    "particle_filter": {"potential": POTENTIALS, "reward": ["log_odds", "score"], "resampler": RESAMPLERS},
    "fk_steering": {"potential": POTENTIALS, "reward": ["log_odds", "score"], "resampler": RESAMPLERS},
    "dts": {"variant": ["star", "sample"], "backup": ["mean", "sum", "max"]},
    "zero_order": {"on_stall": ["keep", "restart"], "by": ["score", "ranks"]},
    "early_rejection": {
        **{"keep": ["best", "random"], "rank": ["whole", "partial"], "select": ["vote", "best"]},
        "cuts": ["trained", "any"],
    },
    "adaptive_sampling": {
        **{"anneal": ["power2", "linear", "constant"], "batching": ["one", "doubling"]},
        "select": ["self_eval", *VOTES],
    },
    "early_pruning": {"keep": ["best", "random", "likely"]},
    "revision": {"select": ["verifier", "majority", "last"]},
    "generative_verification": {
        **{"select": ["best_of_n", "weighted"], "verdict": ["hybrid", "logprob", "text"], "unreadable": UNREADABLE},
    },
    "solve_or_verify": {"integer": ["round", "floor"], "unreadable": UNREADABLE},
    "generative_reward": {"by": ["meta", "random"], "stop": ["all", "decided"], "unreadable": UNREADABLE},
    "pairwise_tournament": {"schedule": ["swiss", "pivot"], "orders": ["both", "one"]},
    "plan_then_solve": {"roles": ["auto", "two", "four"]},
    "archon": {"unreadable": UNREADABLE},
    "restarts": {"select": [*VOTES, "best"]},
}


def test_the_tables_have_every_strategy() -> None:
    assert BY_DEFAULT.keys() == BUILT_IN.keys()


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


@pytest.mark.parametrize(("name", "option"), [(name, each) for name, options in ABOVE_ZERO.items() for each in options])
def test_a_positive_option_accepts_values_above_zero_and_refuses_zero(name: str, option: str) -> None:
    assert getattr(make(name, {option: 1e-6}), option) == 1e-6
    with pytest.raises(InputError, match=rf"^{option}=0\.0: give a number above 0"):
        make(name, {option: 0})


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, options in WORDS.items() for option in options])
def test_a_choice_accepts_only_these_words(name: str, option: str) -> None:
    assert [getattr(make(name, {option: word}), option) for word in WORDS[name][option]] == WORDS[name][option]
    with pytest.raises(UnknownNameError, match=f"^{option}='neither': unknown") as refused:
        make(name, {option: "neither"})
    assert all(word in str(refused.value) for word in WORDS[name][option])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("early_pruning", {"keep_frac": 0}, r"^keep_frac=0\.0: give a number above 0"),
        ("early_pruning", {"keep_frac": 1.01}, r"^keep_frac=1\.01: give a share, at most 1"),
        ("early_pruning", {"n": 3, "keep_frac": 0.33}, "with n=3 it keeps no sample"),
        ("early_pruning", {"n": 0}, "^n=0: give 1 or more"),
        ("adaptive_sampling", {"gamma": 1}, r"^gamma=1\.0: give a number below 1"),
        ("adaptive_consistency", {"confidence": 1}, r"^confidence=1\.0: give a number below 1"),
        ("dts", {"alpha": 0}, r"^alpha=0\.0: give a number between 0 and 1"),
        ("dts", {"alpha": 1}, r"^alpha=1\.0: give a number between 0 and 1"),
        ("search_over_paths", {"level": 0}, r"^level=0\.0: give a share"),
        ("search_over_paths", {"level": 1}, r"^level=1\.0: give a share"),
        ("search_over_paths", {"level": 0.25, "forward": 0.76, "backward": 0.8}, r"^forward=0\.76: give less"),
        ("search_over_paths", {"level": 0.2, "forward": 0.5, "backward": 0.5}, r"^backward=0\.5: give more than"),
        ("search_over_paths", {"level": 0.2, "forward": 0.5, "backward": 1.01}, r"^backward=1\.01: give more than"),
        ("zero_order", {"cosine": 1.01}, "cosine"),
        ("zero_order", {"cosine": -0.01}, "cosine"),
        ("solve_or_verify", {"ratio": float("inf")}, "^ratio=inf: give a number above 0"),
        ("solve_or_verify", {"a": float("inf")}, "^a=inf: give a finite number"),
        ("solve_or_verify", {"b": float("-inf")}, "^b=-inf: give a finite number"),
        ("revision", {"n": 6, "chains": 4}, "^n=6: give a multiple of chains=4"),
        ("beam_search", {"n": 6, "width": 4}, "^n=6: give a multiple of width=4"),
        ("dvts", {"n": 6, "width": 4}, "^n=6: give a multiple of width=4"),
        ("beam_search", {"width": "cube"}, "width"),
        ("early_rejection", {"tau": "soon"}, "tau"),
        ("first_finish", {"n": 2, "k": 3}, "^k=3: give 1 to n=2"),
        ("first_finish", {"guard": "refuse"}, "^advice='unknown': measure first"),
        ("first_finish", {"advice": "do not use", "guard": "refuse"}, "^advice='do not use': short samples"),
        ("generative_reward", {"k": 2, "keep": 3}, "^keep=3: give k=2 or fewer"),
        ("generative_reward", {"keep": 1, "stop": "decided"}, "^stop='decided': "),
        ("majority", {"n": 65_537}, "^n=65537: give 65536 or fewer"),
        ("deepconf", {"keep": 1.01}, r"^keep=1\.01: give a share, at most 1"),
        ("deepconf_online", {"warmup": 33}, "^warmup=33: give 1 to n=32"),
        ("mcts", {"explore": float("inf")}, "^explore=inf: give 0 or more"),
        ("rebase", {"balance": float("inf")}, "^balance=inf: give a number above 0"),
    ],
)
def test_invalid_values_are_refused_by_name(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(name, values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("majority", {"n": 65_536}),
        ("early_pruning", {"n": 2, "keep_frac": 0.5}),
        ("early_pruning", {"keep_frac": 1}),
        ("search_over_paths", {"level": 0.25, "forward": 0.75, "backward": 1}),
        ("solve_or_verify", {"a": -0.5, "b": 0}),
        ("revision", {"n": 2, "chains": 4}),
        ("beam_search", {"n": 2, "width": 4}),
        ("first_finish", {"n": 3, "k": 3}),
        ("first_finish", {"advice": "use", "guard": "refuse"}),
        ("generative_reward", {"k": 2, "keep": 2}),
        ("zero_order", {"cosine": 0.999}),
    ],
)
def test_values_at_the_limits_are_accepted(name: str, values: dict[str, Any]) -> None:
    strategy = make(name, values)
    assert {option: getattr(strategy, option) for option in values} == values
