"""Teach the solver's weights to look back: check, judge, revise, plan.

One model solves and judges. It starts from the shipped solver with layers on top that have learnt to compare
(`training.compare`), or from where an earlier run of this ended, and goes on solving as it did, for it is trained on
the solver's own samples as they came, right or wrong. What else it learns is made of the same samples:

- *check*: every line as it should be, up to the first that is not, and a verdict.
- *judge*: one to three checks of lines of up to four solutions, then a score each: 9 is right, less by how far it was.
- *revise*: up to four wrong answers, the last one the nearest to the right one that follows (Snell et al. 2024).
- *plan*, then solve by the plan.

At every token of a sample another head learns whether it is right so far; it is thrown away.

    torchrun --nproc-per-node 2 -m training.skills --steps 1100 --init runs/skills/compare/final \
        --samples runs/skills/samples --dev runs/skills/dev --out runs/skills/run
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from thinktime.engine.llama import Llama, LlamaConfig
from thinktime.pocket import prompts
from thinktime.pocket import tokenizer as pocket_tokenizer
from thinktime.pocket.problems import Split, WordProblem, problems
from thinktime.pocket.tokenizer import ASSISTANT, END, USER
from training.common import MuonAdam, average_gradients, rate_scale, start_processes, write_row
from training.sample import able_lines

PAD_ID = 0
CONTEXT = 1024
SHARES = {"check": 0.4, "judge": 0.35, "revise": 0.2, "plan": 0.05}


@dataclass(frozen=True)
class Sample:
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
    samples: list[Sample]


@dataclass
class Row:
    """Ids with what is learnt at which place."""

    ids: list[int] = field(default_factory=list)
    said: list[bool] = field(default_factory=list)
    """Whether the id is the model's to say."""
    judged: dict[int, float] = field(default_factory=dict)
    """Whether a sample is right so far, at its places."""

    def add(self, ids: Sequence[int], said: bool = False) -> Row:
        """Append ids."""
        self.ids += ids
        self.said += [said] * len(ids)
        return self


class Writer:
    """Makes rows of samples."""

    def __init__(self, tokenizer: Tokenizer, rng: Random) -> None:
        self._tokenizer, self._rng = tokenizer, rng

    def write(self, skill: str, solved: Solved, sample: Sample) -> Row | None:
        """A row that teaches the skill with this sample, or None where it has nothing to teach."""
        row = Row().add(self._ids(USER + solved.problem.question))
        make = {"check": self._check, "judge": self._judge, "revise": self._revise}
        return make.get(skill, self._plan)(row, solved, sample)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def _turn(self, row: Row, word: str, reply: str) -> Row:
        return row.add(self._ids(USER + word + ASSISTANT)).add(self._ids(reply + END), said=True)

    def _check(self, row: Row, solved: Solved, sample: Sample) -> Row:
        row.add(self._ids(ASSISTANT))
        start = len(row.ids)
        row.add(sample.ids, said=True)
        row.judged |= {start + i: float(i < sample.wrong_at) for i in range(len(sample.ids))}
        self._turn(row, "Check", prompts.checked(sample.lines))
        better = [s for s in solved.samples if s.right]
        if sample.right and self._rng.random() < 0.1:
            return self._turn(row, "Revise", sample.text)
        if not sample.right and better:
            return self._turn(row, "Revise", self._rng.choice(better).text)
        return row

    def _judge(self, row: Row, solved: Solved, sample: Sample) -> Row:
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

    def _revise(self, row: Row, solved: Solved, sample: Sample) -> Row | None:
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
        return row.add(self._ids(ASSISTANT)).add(sample.ids, said=True)

    def _plan(self, row: Row, solved: Solved, sample: Sample) -> Row:
        self._turn(row, "Plan", prompts.planned([step.text for step in solved.problem.steps]))
        return self._turn(row, "Solve", solved.problem.solution)


def read(folder: Path, split: Split, count: int, seed: int, tokenizer: Tokenizer) -> list[Solved]:
    """The sampled problems with their samples, those without a proper line left out."""
    known = {p.id: p for p in problems(split, count, seed=seed)}
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_text().splitlines():
            line: dict[str, Any] = json.loads(text)
            problem = known[line["id"]]
            samples = []
            for raw in line["samples"]:
                said = tokenizer.decode(raw["ids"])
                lines = list(zip(said.splitlines(), raw["steps"], strict=False))
                if len(said.splitlines()) != len(raw["steps"]) or not lines:
                    continue  # the length limit or a blank line broke the format
                if False in raw["steps"]:
                    place = raw["steps"].index(False)
                    able = able_lines(problem, [text for text, _ in lines[:place]])
                    near = max(able, key=lambda text: _common(tokenizer, text, lines[place][0]))
                    lines = [*lines[:place], (near, False)]
                samples.append(Sample(raw["ids"], said, raw["correct"], raw["wrong_at"], lines))
            found.append(Solved(problem, samples))
    return found


def _common(tokenizer: Tokenizer, a: str, b: str) -> int:
    """Tokens that two lines begin with alike."""
    pairs = zip(tokenizer.encode(a).ids, tokenizer.encode(b).ids, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), 10**6)


@dataclass(frozen=True)
class Batch:
    """Tensors ``[rows, tokens]``."""

    ids: Tensor
    said: Tensor
    judged: Tensor
    has_label: Tensor


def collate(rows: Sequence[Row], multiple: int = 32) -> Batch:
    """Pad."""
    longest = -(-max(len(row.ids) for row in rows) // multiple) * multiple
    ids = torch.full((len(rows), longest), PAD_ID)
    said, has_label = torch.zeros(2, len(rows), longest, dtype=torch.bool)
    judged = torch.zeros(len(rows), longest)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        said[place, : len(row.ids)] = torch.tensor(row.said)
        if row.judged:
            at = torch.tensor(list(row.judged))
            judged[place, at] = torch.tensor(list(row.judged.values()))
            has_label[place, at] = True
    return Batch(ids, said, judged, has_label)


def losses(model: Llama, backbone: Any, label: nn.Linear, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross entropy of what is said, and of the label right so far."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = backbone(batch.ids)
        said = batch.said[:, 1:]
        logits = model.head(hidden[:, :-1][said]).float()
        marks = label(hidden[batch.has_label]).float()[..., 0]
    speech = F.cross_entropy(logits, batch.ids[:, 1:][said])
    marked = F.binary_cross_entropy_with_logits(marks, batch.judged[batch.has_label], reduction="sum")
    return speech, marked / max(1, len(marks))


def rows_of(solved: Sequence[Solved], writer: Writer, rng: Random) -> Iterator[Row]:
    """Endless rows, skills in their shares."""
    pairs = [(problem, sample) for problem in solved for sample in problem.samples]
    while True:
        rng.shuffle(pairs)
        for problem, sample in pairs:
            skill = rng.choices(list(SHARES), list(SHARES.values()))[0]
            row = writer.write(skill, problem, sample)
            if row is not None and len(row.ids) <= CONTEXT:
                yield row


def batches(rows: Iterator[Row], tokens: int, world: int, rng: Random) -> Iterator[list[Row]]:
    """Rows of similar length, about ``tokens`` of them padded, a multiple of the processes."""
    while True:
        pool = sorted((next(rows) for _ in range(400 * world)), key=lambda row: len(row.ids))
        chunks: list[list[Row]] = [[]]
        for row in pool:
            if chunks[-1] and (len(chunks[-1]) + 1) * len(row.ids) > tokens * world:
                chunks.append([])
            chunks[-1].append(row)
        chunks = [chunk for chunk in chunks if len(chunk) >= world]
        rng.shuffle(chunks)
        yield from chunks


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
    """Loss of what is said, by skill."""
    result = {}
    for skill in SHARES:
        writer = Writer(tokenizer, Random(f"dev/{skill}"))
        rows = [writer.write(skill, solved, sample) for solved in dev[:60] for sample in solved.samples[:2]]
        kept = sorted((r for r in rows if r is not None and len(r.ids) <= CONTEXT), key=lambda r: len(r.ids))
        parts = [
            float(losses(model, model.model, label, collate(kept[i : i + 16]))[0]) for i in range(0, len(kept), 16)
        ]
        result[skill] = round(sum(parts) / len(parts), 4)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init", type=Path, required=True, help="what training.compare made of the solver, or a run")
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True, help="samples of dev problems, for the curve")
    parser.add_argument("--problems", type=int, default=12000)
    parser.add_argument("--sample-seed", type=int, default=17)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=4096, help="padded tokens a batch and process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--muon-rate", type=float, default=0.01)
    parser.add_argument("--adam-rate", type=float, default=0.002)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    args = parser.parse_args()
    rank, world = start_processes(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = pocket_tokenizer.build(prompts.WORDS)
    solved = read(args.samples, "train", args.problems, args.sample_seed, tokenizer)
    dev = read(args.dev, "dev", 300, args.sample_seed, tokenizer)
    model, label = grown(args.init, tokenizer)
    both = nn.ModuleDict({"model": model, "label": label}).train()
    backbone = torch.compile(model.model, dynamic=True)
    optimizer = MuonAdam(both, args.muon_rate, args.adam_rate, args.weight_decay)
    n_samples = sum(len(s.samples) for s in solved)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {n_samples} samples", flush=True)
    log = (args.out / "log.jsonl").open("a")
    rng = Random(args.seed)
    rows = rows_of(solved, Writer(tokenizer, Random(args.seed + 1)), rng)
    start, step, tokens, running = time.time(), 0, 0, 0.0
    for chunk in batches(rows, args.tokens, world, rng):
        batch = collate(chunk[rank::world])
        speech, marked = losses(model, backbone, label, batch)
        loss = speech + 0.5 * marked
        loss.backward()  # type: ignore[no-untyped-call]
        tokens += average_gradients(both, world, int((batch.ids != PAD_ID).sum()))
        optimizer.step(rate_scale(step, args.steps, falling=0.8))
        step += 1
        if step == args.steps:
            break
        if rank:
            continue
        running = 0.98 * running + 0.02 * loss.item() if step > 1 else loss.item()
        if step % 50 == 0:
            row: dict[str, object] = {
                "step": step,
                "tokens": tokens,
                "minutes": round((time.time() - start) / 60, 2),
                "loss": round(running, 4),
                **(evaluate(model, label, dev, tokenizer) if step % 500 == 0 else {}),
            }
            write_row(log, row)
        if step % 250 == 0:
            model.save(args.out / "latest", torch.float32)
    if not rank:
        model.save(args.out / "final", torch.float32)
        print(json.dumps(evaluate(model, label, dev, tokenizer)), flush=True)


if __name__ == "__main__":
    main()
