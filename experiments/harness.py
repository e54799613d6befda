"""The harness of the experiments on text: a task, models and their bank, arms, and what is compared between arms.

An arm is a strategy. All arms of an experiment answer the same problems and use one bank, so they share the samples
they have in common, and a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.intervals import Estimate, difference, mean, ratio
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from thinktime import pocket
from thinktime.bank.store import Bank
from thinktime.bench.runner import Bench, Entry, Outcome
from thinktime.bench.tasks import Task, load
from thinktime.core.journal import Journal
from thinktime.core.protocols import Scorer
from thinktime.core.search import Search
from thinktime.core.types import MAIN, Problem, Sampling
from thinktime.core.usage import total
from thinktime.generators.local import LocalGenerator
from thinktime.pocket.prompts import PROMPTS
from thinktime.scorers.embedding import HashedNgrams
from thinktime.scorers.prm import ProcessReward
from thinktime.session import Session
from thinktime.strategies import Strategy, parse
from thinktime.strategies.verification.generative_reward import GenerativeReward
from thinktime.strategies.verification.solve_or_verify import GenerativeVerification, SolveOrVerify

SAMPLING = Sampling(temperature=pocket.TEMPERATURE, max_length=pocket.MAX_TOKENS)
BANK = "bank.db"
SKILLED_BANK = "skilled.db"


@dataclass(frozen=True)
class Arm:
    """A strategy with the name it has in the result; ``scorer`` takes the place of the usual one."""

    label: str
    strategy: Strategy
    scorer: Scorer | None = None


def arm(label: str, scorer: Scorer | None = None) -> Arm:
    """The strategy that is typed like this; where no judgement or check can be read it answers by plurality."""
    strategy = parse(label)[1]
    if isinstance(strategy, GenerativeReward | GenerativeVerification | SolveOrVerify):
        strategy = replace(strategy, unreadable="plurality")
    return Arm(label, strategy, scorer)


def language_model(name: str = "solver", dtype: str = "float64") -> LocalGenerator:
    """A shipped model; in float64 a sample never depends on what shares its batch."""
    return LocalGenerator(pocket.directory(name), dtype=dtype)


def skilled() -> LocalGenerator:
    """The shipped skilled model; float32, for the bank keeps the samples as they were, and checks are many."""
    return language_model("skilled", "float32")


def reward_model(name: str = "reward", dtype: str = "float64") -> ProcessReward:
    """A shipped reward model."""
    return ProcessReward(pocket.directory(name), dtype=dtype)


def new_search(
    problem: Problem,
    task: Task,
    generator: LocalGenerator,
    scorer: Scorer | None = None,
    *,
    sampling: Sampling = SAMPLING,
    seed: int = 0,
    journal: Journal | None = None,
) -> Search:
    """A search outside of any bench, with all that the shipped models can do."""
    return Search(
        problem,
        generator,
        scorers=scorer,
        answers=task.answers,
        embedder=HashedNgrams(),
        prompts=PROMPTS,
        sampling=sampling,
        seed=seed,
        journal=journal,
    )


def run_arms(
    arms: Iterable[Arm | str],
    task: Task,
    generator: LocalGenerator,
    scorer: Scorer,
    bank: Path,
    seed: int = 0,
    sampling: Sampling = SAMPLING,
) -> dict[str, list[Outcome]]:
    """Every arm, or what is typed for one, on every problem; outcomes in the order of the problems."""
    session = Session({MAIN: generator}, {MAIN: scorer}, prompts=PROMPTS, sampling=sampling, seed=seed)
    with Bank(bank) as opened:
        return run_session(arms, task, session, opened)


def run_session(arms: Iterable[Arm | str], task: Task, session: Session, bank: Bank) -> dict[str, list[Outcome]]:
    """The same with the models and the settings of a session."""
    found: dict[str, list[Outcome]] = {}
    for each in (arm(given) if isinstance(given, str) else given for given in arms):
        started = time.perf_counter()
        entry = Entry(each.label, 1, each.strategy)
        judged = session if each.scorer is None else replace(session, scorers={MAIN: each.scorer})
        bench = Bench(task, judged, [entry], bank)
        asyncio.run(bench.run())
        mine = found[each.label] = [bench.outcomes[entry.label][problem.id] for problem in task.problems]
        seconds = time.perf_counter() - started
        accuracy, cost = fmean(map(correct, mine)), fmean(map(tokens, mine))
        print(f"{each.label}: {accuracy:.3f}, {cost:,.0f} tokens, {seconds:.0f} s", flush=True)
    return found


def options(description: str | None, problems: int = 500, bank: str = BANK) -> argparse.ArgumentParser:
    """The options of an experiment on the pocket task."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=problems)
    parser.add_argument("--bank", type=Path, default=Path("runs/experiments") / bank)
    parser.add_argument("--out", type=Path, help="folder of the result and the plot; beside the script unless given")
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    return parser


class Experiment:
    """One experiment: its folder, its problems, its models and their bank.

    Args:
        folder: of the script, where its result goes.
        args: what `options` read.
        generator: the model that solves; the shipped solver unless given.
        scorer: the usual scorer; the shipped reward model unless given.
        levels: of the problems that are kept; all unless given.
        module: the script, without ``.py``.
    """

    def __init__(
        self,
        folder: Path,
        args: argparse.Namespace,
        generator: LocalGenerator | None = None,
        scorer: Scorer | None = None,
        levels: Sequence[int] = (),
        module: str = "run",
    ) -> None:
        self.folder, self.out, self.bank = folder, args.out or folder, args.bank
        self.file = self.out / f"{'result' if module == 'run' else module}.json"
        self.provenance = provenance(folder, 0, module)
        refuse_another(self.file, self.provenance["command"], force=args.force)
        task = load("pocket", args.problems, seed=0)
        kept = tuple(p for p in task.problems if not levels or p.metadata["level"] in levels)
        self.task = replace(task, problems=kept)
        self.generator = generator or language_model()
        self.scorer = scorer or reward_model()

    def run(self, arms: Iterable[Arm | str], seed: int = 0) -> dict[str, list[Outcome]]:
        """Every arm on every problem."""
        return run_arms(arms, self.task, self.generator, self.scorer, self.bank, seed)

    def finish(self, result: Mapping[str, Any], verdict: Sequence[str] = ()) -> None:
        """Write ``result.json`` with what it takes to repeat it, and print the verdict."""
        sampling = {"temperature": SAMPLING.temperature, "max_tokens": SAMPLING.max_length}
        whole = {**self.provenance, "n_problems": len(self.task.problems), "sampling": sampling, **result}
        write_json(self.file, whole | ({"verdict": verdict} if verdict else {}))
        for sentence in verdict:
            print(sentence)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Accuracy with its interval, and the mean of every cost of a problem."""
    usage = total(outcome.answer.usage for outcome in outcomes).as_dict()
    return {
        "accuracy": mean(map(correct, outcomes)),
        "usage": {name: None if value is None else value / len(outcomes) for name, value in usage.items()},
        "passes": fmean(outcome.answer.passes for outcome in outcomes),
        "without_answer": fmean(outcome.answer.value is None for outcome in outcomes),
        "out_of_budget": fmean(outcome.answer.finish == "budget" for outcome in outcomes),
    }


def correct(outcome: Outcome) -> float:
    """1 if the answer is right, else 0."""
    return float(outcome.correct)


def tokens(outcome: Outcome) -> float:
    """Tokens generated."""
    return float(outcome.answer.usage.generated_tokens)


def flops(outcome: Outcome) -> float:
    """Operations of the generator and the scorer."""
    usage = outcome.answer.usage
    return (usage.flops or 0.0) + (usage.scorer_flops or 0.0)


def by_level(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each level of the pocket task."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(str(outcome.problem.metadata["level"]), []).append(outcome)
    return dict(sorted(found.items()))


def replies(outcome: Outcome, prompt: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The nodes of a trace that ask this prompt, each with a reply."""
    asked = {node["key"]: node for node in outcome.trace if node.get("prompt") == prompt}
    return [(asked[node["parent"]], node) for node in outcome.trace if node["parent"] in asked]


def minus(a: Sequence[Outcome], b: Sequence[Outcome], of: Callable[[Outcome], float] = correct) -> Estimate:
    """Paired difference of accuracies, or of what ``of`` gives."""
    return difference(map(of, a), map(of, b))


def over(a: Sequence[Outcome], b: Sequence[Outcome], of: Callable[[Outcome], float]) -> Estimate:
    """Ratio of the sums of what ``of`` gives, over the same problems."""
    return ratio(list(map(of, a)), list(map(of, b)))


def nearest_cost(found: Sequence[Outcome], outcomes: Mapping[str, Sequence[Outcome]], labels: Iterable[str]) -> str:
    """The label of the arm that generates about as many tokens."""
    cost = fmean(map(tokens, found))
    return min(labels, key=lambda label: abs(fmean(map(tokens, outcomes[label])) / cost - 1))


def vote_of_equal_cost(found: Sequence[Outcome], vote: Sequence[Outcome], n: int) -> str:
    """The weighted vote that takes as many operations as these, by what one of ``n`` samples takes."""
    return f"weighted_majority:n={max(1, round(n * fmean(map(flops, found)) / fmean(map(flops, vote))))}"
