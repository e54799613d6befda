"""Row 39 with a real language model as the searcher: does Qwen2.5-Coder-1.5B find a good allocation?

    python -m experiments.agenttts.advisor        # half an hour on one core; the model is qwen2.5-coder-1.5b-instruct

The pipeline is the constructed one of `experiments.agenttts.surface`, with exact results. The language model sees all
results so far, writes guidelines, and proposes ten allocations at a time. Beside it stand random search and the
built-in rules. Writes ``advisor.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.agenttts.control import CLOSE, EVALUATIONS, path, table
from experiments.agenttts.surface import accuracy, optimum, space
from experiments.banks.judge import LARGE
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime.bank.store import Bank
from thinktime.config import Config, ModelSpec
from thinktime.core.errors import ModelError
from thinktime.core.types import Problem
from thinktime.planning.pipeline_advisors import LanguageModelSearcher
from thinktime.planning.pipeline_search import Archive, search_allocations
from thinktime.session import Session, open_session
from thinktime.strategies.sampling.single import Single

HERE = Path(__file__).parent
SETTINGS = (("solver", 100.0), ("chooser", 100.0))
SEEDS = range(3)
TEMPERATURE, MAX_TOKENS = 0.7, 500


class Writer:
    """Replies of a model to prompts, each sampled once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.prompt_tokens = self.generated_tokens = self.cut = 0

    def __call__(self, prompt: str) -> str:
        """The text of the reply."""
        search = self._session.search(Problem(hashlib.sha256(prompt.encode()).hexdigest()[:16], prompt))
        answer = asyncio.run(Single()(search))
        usage = answer.usage
        self.prompt_tokens += (usage.prompt_tokens or 0) + (usage.cached_tokens or 0)
        self.generated_tokens += usage.generated_tokens
        ends = [record.node for record in search.records() if record.node.parent is not None]
        self.cut += sum(node.finish == "length" for node in ends)
        return str(ends[-1].state.text)


def searched(task: str, budget: float, session: Session) -> dict[str, Any]:
    """One search by the language model: the accuracy of its best allocation so far, and what could not be used."""
    within = space(budget)
    archive, writer = Archive(within, table(task, budget, None, 0), EVALUATIONS), Writer(session)
    searcher = LanguageModelSearcher(within, writer)
    began, ended = time.monotonic(), "all evaluations"
    try:
        search_allocations(searcher, archive)
    except ModelError as error:
        ended = str(error)[:80]
    best, values = -1.0, list[float]()
    for trial in archive.trials:
        best = max(best, trial.score if trial.score is not None else best)
        values.append(best)
    return {
        "ended": ended,
        "evaluations": len(values),
        "best_so_far": values,
        "replies": len(searcher.replies),
        "refused": searcher.refused,
        "guidelines": searcher.guidelines,
        "prompt_tokens": writer.prompt_tokens,
        "generated_tokens": writer.generated_tokens,
        "cut": writer.cut,
        "seconds": time.monotonic() - began,
    }


def reached(values: list[float], best: float) -> int | None:
    """The evaluations until the best allocation is close to the optimum; None if it never is."""
    return next((n for n, value in enumerate(values, 1) if value >= best - CLOSE), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=LARGE)
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments/advisor.db"))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, 0, "advisor")
    refuse_another(args.out / "advisor.json", made["command"], force=args.force)
    spec = ModelSpec(args.model, engine="llamacpp", concurrency=1)
    session = open_session(Config(spec, "none", temperature=TEMPERATURE, max_tokens=MAX_TOKENS))
    rows = []
    with Bank(args.bank) as bank:
        for task, budget in SETTINGS:
            best = accuracy(task, optimum(task, budget))
            for seed in SEEDS:
                found = searched(task, budget, replace(session, seed=seed).with_bank(bank))
                beside = {name: path(name, task, budget, None, seed) for name in ("random", "rules")}
                every = {"language model": found["best_so_far"], **beside}
                row = {
                    "task": task,
                    "budget": budget,
                    "seed": seed,
                    "optimum": best,
                    "language_model": found,
                    "regret": {name: best - values[-1] for name, values in every.items()},
                    "evaluations_until_close": {name: reached(values, best) for name, values in every.items()},
                }
                rows.append(row)
                lost = len(found["refused"])
                print(task, seed, found["ended"], row["regret"], row["evaluations_until_close"], f"{lost} refused")
    write_json(args.out / "advisor.json", made | {"model": args.model, "temperature": TEMPERATURE, "searches": rows})


if __name__ == "__main__":
    main()
