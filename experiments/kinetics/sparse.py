"""Greedy programs of Qwen2.5-Coder-0.5B with sparse attention (2506.05333).

    python -m experiments.kinetics.sparse --data FOLDER         # goes on where it stopped; keep the folder of --parts

The prompt is read with dense attention; every later token attends to a budget of positions. The problems are the first
of GSM8K that the committed samples at temperature 0 solve, and as many that they do not solve. Writes ``sparse.json``
and ``sparse.png``.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.banks.judge import judged_pool, known_exports
from experiments.intervals import as_points, difference, mean
from experiments.kept import Kept
from experiments.kinetics.attention import Decoded, Rows
from experiments.plot import COLOURS, line, panels, save
from experiments.provenance import FORCE, provenance, refuse_another, write_json
from experiments.verifiers.collect import node, with_texts
from thinktime.bench.samples import judged
from thinktime.bench.tasks import Task, load
from thinktime.core.types import Problem
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import until_stop
from thinktime.models.engine.llama import Llama
from thinktime.planning.kinetics import Sparse
from thinktime.pocket import MAX_TOKENS
from thinktime.session import model_path

HERE = Path(__file__).parent
TASK, MODEL = "gsm8k-program", "qwen2.5-coder-0.5b-instruct"
SINK, LOCAL, BLOCK = 4, 16, 16
BUDGETS = (36, 52, 84, 132, 180)
"""Positions; a third of the mean context is about 84."""
DECODED = {"topk": (84, 36), "block_topk": (84, 36), "local": (84, 132), "random": (84, 132)}
"""The budgets with which programs are written, by kind of attention, in the order of the runs."""
NAMES = {"topk": "best positions", "block_topk": "best blocks", "local": "window", "random": "random positions"}


def attention(kind: str, budget: int) -> Sparse:
    """An attention of the experiment."""
    return Sparse(kind, budget, SINK, LOCAL, BLOCK)


def chosen(each: int) -> list[tuple[str, str]]:
    """The ids of problems, and the committed texts at temperature 0; first ``each`` that are right, then wrong ones."""
    pool = with_texts(known_exports()[f"{TASK}-greedy"], 1)
    right, wrong = ([p for p in pool if p.samples[0].correct is solved] for solved in (True, False))
    return [(problem.id, problem.samples[0].text) for problem in (*right[:each], *wrong[:each])]


class Writer:
    """Writes a solution of each problem at temperature 0, with any attention.

    Args:
        generator: a model of our own module.
        task: of the problems.
        problems: some of its problems.
    """

    def __init__(self, generator: LocalGenerator, task: Task, problems: Sequence[Problem]) -> None:
        self._task, self._problems = task, problems
        self.name, self._lm = generator.name, generator.model
        self.prompts = [generator.root(problem).prompt for problem in problems]
        self._most = task.max_tokens or MAX_TOKENS
        assert isinstance(self._lm.model, Llama)
        self._rows = Rows(self._lm.model, self._lm.shape, self.prompts, self._most, self._lm.dtype)

    def write(self, sparse: Sparse | None, watched: Sequence[Sparse] = ()) -> dict[str, Any]:
        """The solutions, whether they are right, their tokens, and the share of the attention that is kept."""
        started = time.process_time()
        found: Decoded = self._rows.greedy(self._ends, sparse, watched)
        seconds = time.process_time() - started
        texts = [self._text(reply) for reply in found.replies]
        leaves = [node(text, done=self._ends(ids)) for text, ids in zip(texts, found.replies, strict=True)]
        return {
            "seconds": round(seconds, 1),
            "texts": texts,
            "tokens": [len(reply) for reply in found.replies],
            "ended": [leaf.done for leaf in leaves],
            **asyncio.run(self._judge(leaves, found.replies)),
            "kept": {f"{kind.kind} {kind.budget}": share.mean for kind, share in found.shares.items()},
        }

    async def _judge(self, leaves: Sequence[Any], replies: Sequence[Sequence[int]]) -> dict[str, list[bool]]:
        pairs = zip(self._problems, leaves, replies, strict=True)
        rows = await asyncio.gather(*(judged(self._task, p, [leaf], [len(ids)]) for p, leaf, ids in pairs))
        return {"right": [row[0].correct for row in rows], "answered": [row[0].answered for row in rows]}

    def _text(self, ids: Sequence[int]) -> str:
        tokens = ids[:-1] if ids[-1] in self._lm.tokenizer.end_ids else ids
        return until_stop("", self._lm.tokenizer.decode(tokens), self._task.stop)[0]

    def _ends(self, ids: Sequence[int]) -> bool:
        if ids[-1] in self._lm.tokenizer.end_ids:
            return True
        tail = self._lm.tokenizer.decode(ids[-8:])
        return any(stop in tail for stop in self._task.stop)


def measured(found: Mapping[str, Any], dense: Mapping[str, Any], each: int, share: float) -> dict[str, Any]:
    """One attention beside dense attention on the same problems.

    Args:
        found: what `Writer.write` gives.
        dense: the same with dense attention.
        each: problems that the committed samples solve, which come first.
        share: of such problems among all of the bank.
    """
    right, theirs = [float(r) for r in found["right"]], [float(r) for r in dense["right"]]
    weights = [share / 0.5] * each + [(1 - share) / 0.5] * (len(right) - each)
    return {
        "right_of_solved": mean(right[:each]),
        "minus_dense_of_solved": difference(right[:each], theirs[:each]),
        "right_of_unsolved": mean(right[each:]),
        "accuracy_of_all": fmean(w * r for w, r in zip(weights, right, strict=True)),
        "minus_dense_of_all": difference(
            [w * r for w, r in zip(weights, right, strict=True)], [w * r for w, r in zip(weights, theirs, strict=True)]
        ),
        "same_text": mean(a == b for a, b in zip(found["texts"], dense["texts"], strict=True)),
        "attention_kept": found["kept"],
        "unanswered": sum(not a for a in found["answered"]),
        "cut": sum(not e for e in found["ended"]),
        "tokens": fmean(found["tokens"]),
        "seconds": found["seconds"] / len(right),
    }


def plot(result: Mapping[str, Any], path: Path) -> None:
    """The attention that is kept, and the solved problems that stay solved, against the budget."""
    figure, (left, right) = panels(2, 11, 4.4)
    context = result["mean_context"]
    for colour, kind in enumerate(NAMES):
        watched = result["attention_kept"]
        left.plot(BUDGETS, [100 * watched[f"{kind} {b}"] for b in BUDGETS], "o-", color=COLOURS[colour], ms=4)
        rows = [result["sparse"][f"{kind} {b}"]["right_of_solved"] for b in DECODED[kind]]
        line(right, [b + 1.5 * (colour - 1.5) for b in DECODED[kind]], rows, colour, NAMES[kind])
    right.axhline(100 * result["dense"]["right_of_solved"]["value"], color="#555555", lw=0.8, ls="--")
    for axes in (left, right):
        axes.set_xlabel("positions that a token attends to")
        axes.axvline(context / 3, color="#999999", lw=0.8, ls=":")
    left.set(ylabel="attention on kept positions, %", title="dense attention covered; dotted: a third of the context")
    right.set(ylabel="still right, %", title="problems that are solved with dense attention")
    right.legend(fontsize=8, loc="lower right")
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=20, help="problems that are solved, and that are not")
    parser.add_argument("--data", type=Path, help="a folder with the files of GSM8K")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--parts", type=Path, default=Path("runs/experiments/sparse"), help="folder of finished parts")
    parser.add_argument("--seconds", type=float, default=840.0, help="begin no other part after so long")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument(FORCE, action="store_true", help="overwrite the result of another command")
    args = parser.parse_args()
    made = provenance(HERE, 0, "sparse")
    refuse_another(args.out / "sparse.json", made["command"], force=args.force)
    started, part = time.monotonic(), Kept(args.parts)
    problems = chosen(args.each)

    @cache
    def writer() -> Writer:  # only if a part is missing
        task = load(TASK, data=args.data)
        found = {problem.id: problem for problem in task.problems}
        return Writer(LocalGenerator(model_path(MODEL), dtype=args.dtype), task, [found[id] for id, _ in problems])

    def write(sparse: Sparse | None, watched: Sequence[Sparse] = ()) -> dict[str, Any]:
        return writer().write(sparse, watched)

    def about() -> dict[str, Any]:
        return {"model": writer().name, "prompts": [len(ids) for ids in writer().prompts]}

    known = part("model", about)
    dense = part("dense", lambda: write(None, [attention(kind, b) for kind in NAMES for b in BUDGETS]))
    found = {}
    for kind, budget in [(kind, budgets[turn]) for turn in (0, 1) for kind, budgets in DECODED.items()]:
        name = f"{kind} {budget}"
        if time.monotonic() - started > args.seconds and not (args.parts / f"{name}.json").exists():
            print("more parts are left; run it again")
            return
        found[name] = part(name, partial(write, attention(kind, budget)))
    bank = judged_pool(known_exports()[f"{TASK}-greedy"])
    share = fmean(problem.pass_rate for problem in bank.problems)
    result = made | {
        "model": known["model"],
        "task": TASK,
        "n_problems": len(problems),
        "solved_first": args.each,
        "share_solved_of_bank": share,
        "sink": SINK,
        "local": LOCAL,
        "block": BLOCK,
        "mean_context": fmean(p + n / 2 for p, n in zip(known["prompts"], dense["tokens"], strict=True)),
        "same_as_the_bank": fmean(a == text for a, (_, text) in zip(dense["texts"], problems, strict=True)),
        "attention_kept": dense["kept"],
        "dense": measured(dense | {"kept": {}}, dense, args.each, share),
        "sparse": {name: measured(each, dense, args.each, share) for name, each in found.items()},
    }
    write_json(args.out / "sparse.json", result)
    plot(result, args.out / "sparse.png")
    for name, row in {"dense": result["dense"], **result["sparse"]}.items():
        print(name, as_points(row["minus_dense_of_solved"]), as_points(row["minus_dense_of_all"]), row["tokens"])


if __name__ == "__main__":
    main()
