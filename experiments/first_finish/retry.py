"""Row 59 with a model that checks its steps and writes wrong ones again, so that errors make it longer (2505.18149).

    python -m experiments.first_finish.retry       # 500 problems, 32 samples each; half an hour on one core

Both shipped models that solve are measured as in ``experiments.first_finish.run``. Then the search itself runs live on
the retrying one, no sample banked: does it return the sample that the replay returns, token for token, and what does
giving up the others save in time? Writes ``retry.json`` and ``retry.png``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from experiments.first_finish.run import JUDGED_AT, analyse, lines, plot, verdict
from experiments.harness import Experiment, language_model, new_search, options, reward_model, run_arms
from experiments.intervals import difference
from experiments.provenance import write_json
from thinktime import pocket
from thinktime.bank.store import Bank
from thinktime.bench.samples import Pool, banked_pool
from thinktime.bench.tasks import Task
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Sampling
from thinktime.pocket.problems import WordProblem, problems
from thinktime.pocket.prompts import NO
from thinktime.strategies import parse
from training.sample import able_lines

HERE = Path(__file__).parent
MODELS = ("solver", "retry")
SAMPLES = 32
SAMPLING = Sampling(temperature=pocket.TEMPERATURE, max_length=800)
LIVE, ROUNDS = 32, 3
"""Problems answered at once, without a bank, and how often; the arms take turns."""
ARMS = (
    "single",
    f"first_finish:n={JUDGED_AT},guard=off",
    f"first_finish:n={JUDGED_AT},k=3,guard=off",
    f"majority:n={JUDGED_AT}",
)


def pool_of(name: str, experiment: Experiment) -> Pool:
    """The samples of one model, drawn where the bank lacks them."""
    generator, arms = language_model(name), [f"majority:n={SAMPLES}"]
    run_arms(arms, experiment.task, generator, experiment.scorer, experiment.bank, sampling=SAMPLING)
    with Bank(experiment.bank) as bank:
        return banked_pool(bank, experiment.task, SAMPLING, SAMPLES, model=generator.name)


def marks(pool: Pool, problems_of_task: Mapping[str, WordProblem]) -> dict[str, float]:
    """Shares of the wrong and of the right lines that the model marks as wrong, up to a wrong one that it keeps."""
    marked_lines: dict[bool, list[bool]] = {True: [], False: []}
    for problem in pool.problems:
        for sample in problem.samples:
            kept: list[str] = []
            for line in sample.text.splitlines():
                text, marked = line.removesuffix(f" {NO}"), line.endswith(f" {NO}")
                right = text in able_lines(problems_of_task[problem.id], kept)
                marked_lines[right].append(marked)
                if not marked and (not right or text.startswith("Answer")):
                    break
                kept += [] if marked else [text]
    return {
        "wrong_lines": len(marked_lines[False]),
        "wrong_lines_marked": fmean(marked_lines[False]),
        "right_lines": len(marked_lines[True]),
        "right_lines_marked": fmean(marked_lines[True]),
    }


async def live(label: str, task: Task) -> tuple[list[Answer], list[Search], float]:
    """Answers and searches of all problems at once, and the seconds that took a problem."""
    generator = language_model("retry")
    searches = [new_search(problem, task, generator, sampling=SAMPLING) for problem in task.problems]
    strategy, started = parse(label)[1], time.perf_counter()
    answers = await asyncio.gather(*(strategy(search) for search in searches))
    return list(answers), searches, (time.perf_counter() - started) / len(searches)


def measured_live(task: Task) -> dict[str, Any]:
    """Tokens, passes and seconds of the arms; how often the race returns what the shortest of the whole samples is."""
    rounds: dict[str, list[float]] = {label: [] for label in ARMS}
    found: dict[str, list[Answer]] = {}
    for _ in range(ROUNDS):
        for label in ARMS:
            found[label], searches, seconds = asyncio.run(live(label, task))
            rounds[label].append(seconds)
    same = []
    for answer, search in zip(found[ARMS[1]], searches, strict=True):  # of the last arm, which has all samples
        leaves = [record.node for record in search.trace.values() if record.node.depth]
        ended = [leaf for leaf in leaves if leaf.done and task.answers.read(leaf.state) is not None]
        least = min((leaf.passes for leaf in ended), default=None)
        shortest = [leaf.state.ids for leaf in ended if leaf.passes == least]
        same.append(answer.node.state.ids in shortest if answer.node else not shortest)
    rows: dict[str, Any] = {}
    for label, answers in found.items():
        rows[label] = {
            "right": fmean(task.check(a.value, p.reference) for a, p in zip(answers, task.problems, strict=True)),
            "generated_tokens": fmean(a.usage.generated_tokens for a in answers),
            "passes": fmean(a.passes for a in answers),
            "flops": fmean(a.usage.flops or 0.0 for a in answers),
            "seconds": {"value": median(rounds[label]), "low": min(rounds[label]), "high": max(rounds[label])},
        }
    return {"n_problems": len(task.problems), "rounds": ROUNDS, "live_is_replay": fmean(same), "arms": rows}


def main() -> None:
    args = options(__doc__).parse_args()
    experiment = Experiment(HERE, args, scorer=reward_model(dtype="float32"), module="retry")
    pools = {name: pool_of(name, experiment) for name in MODELS}
    measured = {name: analyse(pool, 0) for name, pool in pools.items()}
    for one in measured.values():
        one["verdict"] = verdict(one)
    rates = [[problem.pass_rate for problem in pools[name].problems] for name in MODELS]
    result = experiment.provenance | {
        "sampling": {"temperature": SAMPLING.temperature, "max_tokens": SAMPLING.max_length},
        "pools": measured,
        "marks": marks(pools["retry"], {p.id: p for p in problems("test", args.problems, seed=0)}),
        "retry_minus_solver": difference(rates[1], rates[0]),
        "live": measured_live(replace(experiment.task, problems=experiment.task.problems[:LIVE])),
    }
    write_json(experiment.file, result)
    plot(result, experiment.out / "retry.png")
    for name, one in measured.items():
        print(name, *lines(one), one["verdict"], sep="\n  ")
    print(json.dumps({name: result[name] for name in ("marks", "retry_minus_solver", "live")}, indent=1))


if __name__ == "__main__":
    main()
