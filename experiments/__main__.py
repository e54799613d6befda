"""Run the experiment of a row of the catalogue.

python -m experiments 45                                # or: make experiment ROW=45
python -m experiments 45 run --problems 20              # one part of it, with options
python -m experiments 45 real --data FOLDER             # live on a real model; only if it is named
"""

from __future__ import annotations

import runpy
import sys

ROWS = {
    "01": ("adaptive_self_eval.control", "adaptive_self_eval.real", "adaptive_self_eval.run"),
    "02": ("speculative_reasoning.control", "speculative_reasoning.run"),
    "05": ("ets.control", "ets.repeats", "ets.run"),
    "06": ("noise_search.control", "noise_search.run", "images.run"),
    "08": ("compute_optimal.control", "compute_optimal.real", "compute_optimal.run", "revision.run"),
    "09": ("frontier.control", "frontier.real", "frontier.run", "verifier_free.run"),
    "17": ("early_rejection.control", "early_rejection.recorded", "early_rejection.run"),
    "29": ("archon.control", "archon.real"),
    "33": ("generative_reward.control", "generative_reward.run"),
    "34": ("agent_reinforce.control",),
    "35": ("dts.control", "dts.real", "dts.run", "images.run"),
    "37": ("monkeys.control", "monkeys.real"),
    "38": ("fk_steering.run", "images.run"),
    "39": ("agenttts.control", "agenttts.real"),
    "43": ("kinetics.control", "kinetics.pocket", "kinetics.device", "kinetics.real"),
    "45": ("a_star.control", "a_star.run"),
    "46": ("solve_or_verify.control", "solve_or_verify.real", "solve_or_verify.run"),
    "51": ("o1_patterns.control", "o1_patterns.real", "o1_patterns.run"),
    "56": ("reward_aware.control", "reward_aware.real"),
    "59": ("first_finish.control", "first_finish.run", "first_finish.retry"),
    "60": ("sarathi.simulate",),
}
"""The modules of each row that has an experiment; the rows are those of ``docs/catalogue.md``."""
LIVE = {
    "02": ("speculative_reasoning.real",),
    "05": ("ets.real",),
    "17": ("early_rejection.real",),
    "33": ("generative_reward.real",),
    "34": ("agent_reinforce.real",),
    "39": ("agenttts.advisor",),
    "43": ("kinetics.sparse",),
    "45": ("a_star.real",),
}
"""Modules that ask a real model, which has to be downloaded."""


def parts(row: str) -> dict[str, str]:
    """The modules of a row by the names of its parts; the part of a second folder has the name of its module."""
    found: dict[str, str] = {}
    for module in (*ROWS[row], *LIVE.get(row, ())):
        name = module.partition(".")[2]
        found[module if name in found else name] = module
    return found


def main() -> None:
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(f"{__doc__}\nrows: {', '.join(ROWS)}")
        return
    row, options = (sys.argv[1].zfill(2) if len(sys.argv) > 1 else ""), sys.argv[2:]
    if row not in ROWS:
        print(f"row={row!r}: no experiment; give one of {', '.join(ROWS)}", file=sys.stderr)
        sys.exit(2)
    chosen, named = ROWS[row], parts(row)
    if options and options[0] in named:
        chosen = (named[options.pop(0)],)
    elif options:
        fix = f"first name a part of row {row}: {', '.join(named)}"
        print(f"options={' '.join(options)!r}: {fix}", file=sys.stderr)
        sys.exit(2)
    for module in chosen:
        sys.argv = [module, *options]
        runpy.run_module(f"experiments.{module}", run_name="__main__")


if __name__ == "__main__":
    main()
