"""Write the measured figures of ``targets.json`` and ``result.json`` into README.md and docs/pocket.md.

    python -m experiments.pocket.tables

The text between the two ``measured`` markers of a document is replaced, so it always agrees with the committed JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.intervals import as_number, as_percent

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def targets_table(measured: Mapping[str, Any]) -> list[str]:
    """The targets of the shipped models, their figures, and whether these are enough."""
    rows = ["| target | measured | met |", "|---|---|---|"]
    for name, row in measured["targets"].items():
        estimate = row["measured"]
        figure = f"{estimate['auc']:.3f}, n = {estimate['n']:,} steps" if "auc" in estimate else as_percent(estimate)
        rows.append(f"| {name} | {figure} | {'yes' if row['met'] else '**no**'} |")
    return rows


def levels_table(measured: Mapping[str, Any]) -> list[str]:
    """pass@1 of every level."""
    levels = measured["pass_at_1_by_level"]
    return [
        "| level | " + " | ".join(levels) + " |",
        "|---|" + "---|" * len(levels),
        "| pass@1, % | " + " | ".join(as_percent(level) for level in levels.values()) + " |",
    ]


def reward_table(measured: Mapping[str, Any]) -> list[str]:
    """AUC of the reward model, each way that it is asked."""
    quality = measured["reward_model"]
    names = {
        "all_steps": "all step ends",
        "to_first_error": "step ends up to the first error",
        "mid_step": "middle of a step, against the label of the step",
        "final_answer": "last step, against the answer",
    }
    rows = ["| reward model | AUC | n |", "|---|---|---|"]
    rows += [f"| {text} | {quality[name]['auc']:.3f} | {quality[name]['n']:,} |" for name, text in names.items()]
    for name, text in (("within_problem", "reward"), ("within_problem_log_likelihood", "solver's log-likelihood")):
        estimate = quality[name]
        n = quality["within_problem"]["n_problems"]
        area = as_number(estimate, digits=3)
        rows.append(f"| answers of one problem, mean over problems, by {text} | {area} | {n} problems |")
    lucky = 100 * quality["right_answer_by_wrong_steps"]
    return [*rows, "", f"{lucky:.1f}% of the right answers were reached by a step that the checker calls wrong."]


def runs_table(result: Mapping[str, Any]) -> list[str]:
    """Every strategy at its largest budget."""
    rows = [
        "| strategy | n | right, % | minus single, points | generated tokens | scorer tokens | GFLOPs |",
        "|---|---|---|---|---|---|---|",
    ]
    largest = {run["strategy"]: run for run in result["runs"]}
    for name, run in largest.items():
        usage = run["usage"]
        flops = (usage["flops"] + usage["scorer_flops"]) / 1e9
        difference = as_percent(run["versus_single"], "+") if run["versus_single"] else ""
        rows.append(
            f"| `{name}` | {run['n']} | {as_percent(run['accuracy'])} | {difference} "
            f"| {usage['generated_tokens']:,.0f} | {usage['scorer_tokens']:,.0f} | {flops:.2f} |"
        )
    return rows


def replace(path: Path, *parts: Sequence[str]) -> None:
    """Put parts, each some lines, between the markers of a document."""
    block = "<!-- measured -->\n" + "\n\n".join(map("\n".join, parts)) + "\n<!-- /measured -->"
    text = path.read_text()
    path.write_text(re.sub(r"<!-- measured -->.*<!-- /measured -->", lambda _: block, text, flags=re.DOTALL))


def main() -> None:
    measured = json.loads((HERE / "targets.json").read_text())
    result = json.loads((HERE / "result.json").read_text())
    about = (
        f"{measured['n_problems']} held-out problems, {measured['n_samples']} samples each, "
        f"temperature {measured['sampling']['temperature']}, seed {measured['seed']}, 95% intervals over problems; "
        "`python -m experiments.pocket.run`."
    )
    runs = runs_table(result)
    replace(
        ROOT / "docs/pocket.md", [about], targets_table(measured), levels_table(measured), reward_table(measured), runs
    )
    replace(ROOT / "README.md", ["On the shipped model: " + about], runs)


if __name__ == "__main__":
    main()
