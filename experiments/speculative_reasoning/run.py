"""Row 02 on the pocket models: the solver drafts, the skilled model writes, and the reward model rates each step.

    python -m experiments.speculative_reasoning.run

Both models are of about the same size, so nothing is saved here. The task knows which steps are right, so this measures
what the rating does on models that were trained. All arms are `speculative_reasoning`.
"""

from __future__ import annotations

from pathlib import Path

from experiments.harness import SAMPLING, Experiment, language_model, minus, reward_model, run_session
from experiments.harness import options as arguments
from experiments.speculative_reasoning.real import (
    DRAFT_ALONE,
    MAIN_ALONE,
    RANDOM,
    Coin,
    judge,
    row,
    share_accepted,
    speculating,
)
from thinktime.bank.store import Bank
from thinktime.bench.runner import Outcome
from thinktime.core.types import MAIN
from thinktime.pocket.prompts import PROMPTS
from thinktime.session import Session

HERE = Path(__file__).parent
THRESHOLDS = (7.0, 4.5)
"""The paper's default, and a probability of one half."""


def main() -> None:
    args = arguments(__doc__, problems=200, bank="speculative-pocket.db").parse_args()
    main_model, reward = language_model("skilled", "float32"), reward_model(dtype="float32")
    experiment = Experiment(HERE, args, main_model, reward)
    models = {MAIN: main_model, "draft": language_model("solver", "float32")}
    task = experiment.task
    session = Session(models, {MAIN: reward}, prompts=PROMPTS, sampling=SAMPLING, answers=task.answers)
    rated = {f"threshold {threshold:g}": threshold for threshold in THRESHOLDS}
    arms = [
        speculating(MAIN_ALONE, "first_n_base=999", Coin()),
        speculating(DRAFT_ALONE, "threshold=0", Coin()),
        *(speculating(label, f"threshold={threshold}", reward) for label, threshold in rated.items()),
    ]
    with Bank(args.bank) as bank:
        found = run_session(arms, task, session, bank)
        for label in rated:
            share = share_accepted(found[label])
            coin = speculating(f"{RANDOM} as {label}", f"threshold={9 * (1 - share):.4f}", Coin())
            found |= run_session([coin], task, session, bank)
    rows = {label: row(outcomes, found[MAIN_ALONE]) for label, outcomes in found.items()}
    for label in rated:
        rows[label]["minus_random"] = minus(found[label], found[f"{RANDOM} as {label}"])

    def right(outcome: Outcome, lines: list[str]) -> bool:
        assert task.so_far is not None
        return bool(task.so_far("".join(lines), outcome.problem))

    first = next(iter(rated))
    judged = judge(found[first], {"rating": lambda node: 9 * float(node["score"])}, right)
    experiment.finish({"arms": rows, "judge": {"drafts_of": first, **judged}})


if __name__ == "__main__":
    main()
