"""The harness of searches on a real model: Qwen2.5-Coder-0.5B writes programs for GSM8K, and its steps are lines.

A vote and one sample come from the committed bank of independent samples, so they cost nothing again. The searches run
live, and keep their samples in a bank of their own: a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.banks.judge import SMALL, known_exports
from experiments.harness import Arm, arm, minus, over, run_session, summary, tokens
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime.bank.store import Bank
from thinktime.bench.bank_export import exported_bank
from thinktime.bench.runner import Outcome
from thinktime.bench.tasks import load
from thinktime.config import Config, ModelSpec
from thinktime.core.types import MAIN
from thinktime.generators.local import LocalGenerator
from thinktime.generators.recorded import BankedGenerator
from thinktime.scorers.confidence import Confidence
from thinktime.session import Session, open_session

TASK = "gsm8k-program"
EXPORT = known_exports()[TASK]
TEMPERATURE = 0.7
RECORDED = 8
"""Samples of each problem in the committed bank."""
GREEDY = "greedy"
VOTES = [f"majority:n={n}" for n in range(1, RECORDED + 1)]
SELECTIONS = [f"{name}:n={n}" for name in ("best_of_n", "weighted_majority") for n in (4, RECORDED)]
"""By the model's confidence, on the committed samples."""


def options(description: str | None, problems: int = 100) -> argparse.ArgumentParser:
    """The options of an experiment on the real model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=problems, help="the first ones of the test split")
    parser.add_argument("--data", type=Path, help="a folder with the files of GSM8K")
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/live.db"))
    parser.add_argument("--dtype", default="float16", help="it is part of the samples' names: keep it for one bank")
    parser.add_argument("--out", type=Path, help="folder of the result; beside the script unless given")
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    return parser


class Live:
    """The real run of one experiment: its folder, its problems, the model and its bank.

    Args:
        folder: of the script, where ``real.json`` goes.
        args: what `options` read.
    """

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder, self.bank, self._dtype = args.out or folder, args.bank, args.dtype
        self._provenance = provenance(folder, 0, "real")
        refuse_another(self.folder / "real.json", self._provenance["command"], force=args.force)
        self.task = load(TASK, args.problems, data=args.data)

    def searches(self, arms: Iterable[Arm | str]) -> dict[str, list[Outcome]]:
        """Every arm, live. A step has the model's confidence as its reward, unless the arm has a scorer."""
        with Bank(self.bank) as bank:
            return run_session(arms, self.task, self.session, bank)

    def beside(self) -> dict[str, list[Outcome]]:
        """One sample at temperature 0, live; and votes and selections on the committed samples."""
        with exported_bank(EXPORT) as bank:
            generator = BankedGenerator(bank.models()[0])
            session = replace(self.settings, models={MAIN: generator}, scorers={MAIN: Confidence(generator)})
            recorded = run_session([*VOTES, *SELECTIONS], self.task, session, bank)
        with Bank(self.bank) as bank:
            session = replace(self.session, sampling=replace(self.session.sampling, temperature=0.0))
            return run_session([replace(arm("single"), label=GREEDY)], self.task, session, bank) | recorded

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write ``real.json`` with what it takes to repeat it."""
        sampling = {"temperature": TEMPERATURE, "max_tokens": self.task.max_tokens}
        about = {
            "model": self.generator.origin.provenance.short(),
            "task": TASK,
            "n_problems": len(self.task.problems),
            "sampling": sampling,
        }
        write_json(self.folder / "real.json", {**self._provenance, **about, **result})

    @cached_property
    def session(self) -> Session:
        """The model, its confidence as the scorer, and the settings of the task."""
        return replace(open_session(self._config()), answers=self.task.answers)

    @property
    def generator(self) -> LocalGenerator:
        """The model."""
        generator = self.session.models[MAIN]
        assert isinstance(generator, LocalGenerator)
        return generator

    @cached_property
    def settings(self) -> Session:
        """The settings alone: no model is loaded."""
        config = self._config()
        return Session({}, sampling=config.sampling(), seed=config.seed, answers=self.task.answers)

    def _config(self) -> Config:
        return Config(
            ModelSpec(SMALL, dtype=self._dtype),
            "confidence",
            temperature=TEMPERATURE,
            max_tokens=self.task.max_tokens,
            stop=self.task.stop,
        )


def rows(outcomes: Mapping[str, Sequence[Outcome]], baseline: str) -> dict[str, dict[str, Any]]:
    """Every arm: accuracy, costs, lost samples, and differences to one sample, to the baseline and to the vote.

    The vote is that of the committed samples with the most similar number of tokens.
    """
    votes = [label for label in outcomes if label.startswith("majority")]
    found = {}
    for label, mine in outcomes.items():
        vote = min(votes, key=lambda each: abs(mean_tokens(outcomes[each]) - mean_tokens(mine)))
        found[label] = summary(mine) | {
            "samples": dict(Counter(end["kind"] for outcome in mine for end in outcome.ends)),
            "minus_greedy": minus(mine, outcomes[GREEDY]),
            "minus_baseline": minus(mine, outcomes[baseline]),
            "baseline_over_this_tokens": over(outcomes[baseline], mine, tokens),
            "vote_of_equal_tokens": vote,
            "vote_tokens": mean_tokens(outcomes[vote]),
            "minus_vote": minus(mine, outcomes[vote]),
        }
    return found


def mean_tokens(outcomes: Sequence[Outcome]) -> float:
    """Generated tokens a problem."""
    return fmean(map(tokens, outcomes))
