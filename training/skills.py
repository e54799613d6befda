"""Teach the solver's weights to look back: check, judge, revise, plan.

One model solves and judges. It starts from the shipped solver with layers on top that have learnt to compare
(`training.compare`), or from the end of an earlier run. It goes on solving as the solver does, for it is trained on the
solver's own samples, right or wrong. The same samples teach the rest:

- *check*: every line as it should be, up to the first that is not, and a verdict.
- *judge*: one to three checks of lines of up to four solutions, then a score each: 9 is right, less by how far it was.
- *revise*: up to four wrong answers, the last one the nearest to the right one that follows (Snell et al. 2024).
- *plan*, then solve by the plan.

At every token of a sample another head learns whether it is right so far; it is dropped at the end.

    torchrun --nproc-per-node 2 -m training.skills --steps 1100 --init runs/skills/compare/final \
        --samples runs/skills/samples --dev runs/skills/dev --out runs/skills/run
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from thinktime.generators.text import shared
from thinktime.models.engine.llama import Llama, LlamaConfig
from thinktime.pocket import prompts
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import Split, WordProblem, problems
from thinktime.pocket.tokenizer import ASSISTANT, END, USER
from training.loop import TrainingRun, options, padded
from training.sample import able_lines, sampled

CONTEXT = 1024
SHARES = {"check": 0.4, "judge": 0.35, "revise": 0.2, "plan": 0.05}


@dataclass(frozen=True)
class SolverSample:
    """One solution of the solver, and where it goes wrong (``len(ids)``: nowhere)."""

    ids: list[int]
    text: str
    right: bool
    wrong_at: int
    lines: list[tuple[str, bool]]
    """Each line as it should be and whether it is, to the first that is not."""


@dataclass(frozen=True)
class Solved:
    """A problem with the solver's samples of it."""

    problem: WordProblem
    samples: list[SolverSample]


@dataclass
class TrainingRow:
    """Ids, and what the model learns at which place."""

    ids: list[int] = field(default_factory=list)
    in_loss: list[bool] = field(default_factory=list)
    """Whether the model learns to write the id."""
    right_so_far: dict[int, float] = field(default_factory=dict)
    """By place in a sample, whether it is right up to there."""

    def add(self, ids: Sequence[int], in_loss: bool = False) -> TrainingRow:
        """Append ids."""
        self.ids += ids
        self.in_loss += [in_loss] * len(ids)
        return self


class Writer:
    """Makes rows of samples."""

    def __init__(self, tokenizer: Tokenizer, rng: Random) -> None:
        self._tokenizer, self._rng = tokenizer, rng

    def write(self, skill: str, solved: Solved, sample: SolverSample) -> TrainingRow | None:
        """A row that teaches the skill with this sample, or None where it has nothing to teach."""
        row = TrainingRow().add(self._ids(USER + solved.problem.question))
        make = {"check": self._check, "judge": self._judge, "revise": self._revise}
        return make.get(skill, self._plan)(row, solved, sample)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def _turn(self, row: TrainingRow, word: str, reply: str) -> TrainingRow:
        return row.add(self._ids(USER + word + ASSISTANT)).add(self._ids(reply + END), in_loss=True)

    def _check(self, row: TrainingRow, solved: Solved, sample: SolverSample) -> TrainingRow:
        row.add(self._ids(ASSISTANT))
        start = len(row.ids)
        row.add(sample.ids, in_loss=True)
        row.right_so_far |= {start + i: float(i < sample.wrong_at) for i in range(len(sample.ids))}
        self._turn(row, "Check", prompts.checked(sample.lines))
        better = [s for s in solved.samples if s.right]
        if sample.right and self._rng.random() < 0.1:
            return self._turn(row, "Revise", sample.text)
        if not sample.right and better:
            return self._turn(row, "Revise", self._rng.choice(better).text)
        return row

    def _judge(self, row: TrainingRow, solved: Solved, sample: SolverSample) -> TrainingRow:
        rng, others = self._rng, list({s.text: s for s in solved.samples if s.text != sample.text}.values())
        shown = [sample, *rng.sample(others, min(len(others), rng.randint(1, 3)))]
        rng.shuffle(shown)
        texts, scores = [], []
        for s in shown:
            lines = s.text.splitlines()
            until = rng.randint(1, len(lines)) if rng.random() < 0.3 else len(lines)
            texts.append("\n".join(lines[:until]))
            wrong = next((i for i, (_, right) in enumerate(s.lines) if not right), until)
            scores.append(9 if wrong >= until else 1 + 7 * wrong // until)
        checks = {}
        for _ in range(rng.randint(1, 3)):
            who = rng.randrange(len(shown))
            most = min(len(shown[who].lines), len(texts[who].splitlines()))
            line = most - 1 if rng.random() < 0.5 else rng.randrange(most)
            checks[who, line] = (who, line, *shown[who].lines[line])
        content = prompts.judge("", texts)[1]["content"]
        return self._turn(row, content, prompts.judged(list(checks.values()), scores))

    def _revise(self, row: TrainingRow, solved: Solved, sample: SolverSample) -> TrainingRow | None:
        if not sample.right:
            return None
        wrong = [s for s in solved.samples if not s.right]
        count = min(self._rng.randint(0, prompts.REVISED), len(wrong))
        shown = self._rng.sample(wrong, count)
        if shown:
            nearest = max(wrong, key=lambda s: SequenceMatcher(None, s.ids, sample.ids, autojunk=False).ratio())
            shown = [*[s for s in shown if s is not nearest][: count - 1], nearest]
        for s in shown:
            row.add(self._ids(ASSISTANT)).add(s.ids).add(self._ids(USER + "Revise"))
        if not shown:
            row.add(self._ids(USER + "Revise"))
        return row.add(self._ids(ASSISTANT)).add(sample.ids, in_loss=True)

    def _plan(self, row: TrainingRow, solved: Solved, sample: SolverSample) -> TrainingRow:
        self._turn(row, "Plan", prompts.planned([step.text for step in solved.problem.steps]))
        return self._turn(row, "Solve", solved.problem.solution)


def read(folder: Path, split: Split, count: int, seed: int, tokenizer: Tokenizer) -> list[Solved]:
    """The sampled problems with their samples, those without a proper line left out."""
    known = {p.id: p for p in problems(split, count, seed=seed)}
    found = []
    for row in sampled(folder):
        problem = known[row["id"]]
        samples = []
        for raw in row["samples"]:
            solution = tokenizer.decode(raw["ids"])
            lines = list(zip(solution.splitlines(), raw["steps"], strict=False))
            if len(solution.splitlines()) != len(raw["steps"]) or not lines:
                continue  # the length limit or a blank line broke the format
            if False in raw["steps"]:
                place = raw["steps"].index(False)
                able = able_lines(problem, [text for text, _ in lines[:place]])
                wrong = tokenizer.encode(lines[place][0]).ids
                near = max(able, key=lambda text: shared(tokenizer.encode(text).ids, wrong))
                lines = [*lines[:place], (near, False)]
            samples.append(SolverSample(raw["ids"], solution, raw["correct"], raw["wrong_at"], lines))
        found.append(Solved(problem, samples))
    return found


@dataclass(frozen=True)
class RowBatch:
    """Tensors ``[rows, tokens]``: a `TrainingRow`'s columns, padded, and which places have a label."""

    ids: Tensor
    in_loss: Tensor
    right_so_far: Tensor
    has_label: Tensor


def collate(rows: Sequence[TrainingRow], multiple: int = 32) -> RowBatch:
    """Pad."""
    labels = [[row.right_so_far.get(place) for place in range(len(row.ids))] for row in rows]
    return RowBatch(
        padded([row.ids for row in rows], multiple),
        padded([row.in_loss for row in rows], multiple, dtype=torch.bool),
        padded([[label or 0.0 for label in row] for row in labels], multiple, dtype=torch.float32),
        padded([[label is not None for label in row] for row in labels], multiple, dtype=torch.bool),
    )


def predict(model: Llama, backbone: Any, label: nn.Linear, batch: RowBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits ``[n, vocabulary]`` and ids ``[n]`` of what is learnt, and the label's logit where there is a label."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = backbone(batch.ids)
        in_loss = batch.in_loss[:, 1:]
        logits = model.head(hidden[:, :-1][in_loss]).float()
        labels = label(hidden[batch.has_label]).float()[..., 0]
    return logits, batch.ids[:, 1:][in_loss], labels


def losses(model: Llama, backbone: Any, label: nn.Linear, batch: RowBatch) -> tuple[Tensor, Tensor]:
    """Cross entropy of the text, and of the label right so far."""
    logits, target, labels = predict(model, backbone, label, batch)
    wrong = F.binary_cross_entropy_with_logits(labels, batch.right_so_far[batch.has_label], reduction="sum")
    return F.cross_entropy(logits, target), wrong / max(1, len(labels))


def rows_of(solved: Sequence[Solved], writer: Writer, rng: Random) -> Iterator[TrainingRow]:
    """Endless rows, skills in their shares."""
    pairs = [(problem, sample) for problem in solved for sample in problem.samples]
    while True:
        rng.shuffle(pairs)
        for problem, sample in pairs:
            skill = rng.choices(list(SHARES), list(SHARES.values()))[0]
            row = writer.write(skill, problem, sample)
            if row is not None and len(row.ids) <= CONTEXT:
                yield row


def batches(rows: Iterator[TrainingRow], run: TrainingRun, rng: Random) -> Iterator[RowBatch]:
    """This process's share of rows of similar length, about ``--tokens`` of them padded."""
    while True:
        pool = sorted((next(rows) for _ in range(400 * run.world)), key=lambda row: len(row.ids))
        chunks: list[list[TrainingRow]] = [[]]
        for row in pool:
            if chunks[-1] and (len(chunks[-1]) + 1) * len(row.ids) > run.args.tokens * run.world:
                chunks.append([])
            chunks[-1].append(row)
        chunks = [chunk for chunk in chunks if len(chunk) >= run.world]
        rng.shuffle(chunks)
        yield from (collate(run.share(chunk)) for chunk in chunks)


def grown(init: Path, tokenizer: Tokenizer) -> tuple[Llama, nn.Linear]:
    """The language model of a checkpoint, a head of one label beside it; a compared classifier gets the new words."""
    weights = load_file(init / "model.safetensors")
    config = replace(LlamaConfig.read(init), vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=CONTEXT)
    model, label = Llama(config), nn.Linear(config.hidden_size, 1)
    nn.init.zeros_(label.weight)
    nn.init.zeros_(label.bias)
    if (score := weights.pop("score.weight", None)) is not None:
        weights.pop("score.bias")
        label.weight.data[0] = score[1] - score[0]
        old = weights["model.embed_tokens.weight"]
        new = torch.randn(config.vocab_size - len(old), config.hidden_size) * old.std()
        weights["model.embed_tokens.weight"] = torch.cat([old, new])
    model.load_state_dict(weights)
    return model, label


@torch.no_grad()
def evaluate(model: Llama, label: nn.Linear, dev: Sequence[Solved], tokenizer: Tokenizer) -> dict[str, float]:
    """Loss of the text, by skill."""
    result = {}
    for skill in SHARES:
        writer = Writer(tokenizer, Random(f"dev/{skill}"))
        rows = [writer.write(skill, solved, sample) for solved in dev[:60] for sample in solved.samples[:2]]
        kept = sorted((r for r in rows if r is not None and len(r.ids) <= CONTEXT), key=lambda r: len(r.ids))
        batch_losses = (losses(model, model.model, label, collate(kept[i : i + 16])) for i in range(0, len(kept), 16))
        result[skill] = round(fmean(float(text) for text, _ in batch_losses), 4)
    return result


def row_options(description: str | None, problems: int, *, muon_rate: float, adam_rate: float) -> ArgumentParser:
    """The options of a training on rows that are made of samples of the solver."""
    parser = options(description, muon_rate=muon_rate, adam_rate=adam_rate)
    parser.add_argument("--init", type=Path, required=True, help="what training.compare made of the solver, or a run")
    parser.add_argument("--samples", type=Path, required=True, help="of the solver, by training.sample")
    parser.add_argument("--problems", type=int, default=problems)
    parser.add_argument("--sample-seed", type=int, default=17)
    parser.add_argument("--tokens", type=int, default=4096, help="padded tokens a batch and process")
    return parser


def main() -> None:
    parser = row_options(__doc__, 12000, muon_rate=0.01, adam_rate=0.002)
    parser.add_argument("--dev", type=Path, required=True, help="samples of dev problems, for the curve")
    args = parser.parse_args()
    run = TrainingRun(args)
    tokenizer = pocket_tokenizer.build(prompts.WORDS)
    solved = read(args.samples, "train", args.problems, args.sample_seed, tokenizer)
    dev = read(args.dev, "dev", 300, args.sample_seed, tokenizer)
    model, label = grown(args.init, tokenizer)
    backbone = torch.compile(model.model, dynamic=True)
    n_samples = sum(len(s.samples) for s in solved)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {n_samples} samples", flush=True)

    def loss_of(batch: RowBatch) -> tuple[dict[str, Tensor], Tensor]:
        text, labels = losses(model, backbone, label, batch)
        return {"loss": text + 0.5 * labels}, batch.ids

    rng = Random(args.seed)
    rows = rows_of(solved, Writer(tokenizer, Random(args.seed + 1)), rng)
    dev_losses = partial(evaluate, model, label, dev, tokenizer)
    run.train(model, batches(rows, run, rng), loss_of, falling=0.8, heads=label, evaluate=dev_losses)
    if not run.rank:
        print(json.dumps(dev_losses()), flush=True)


if __name__ == "__main__":
    main()
