"""P(Yes): its value against a plain forward pass, its cost, unfinished solutions, and models that cannot be asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from thinktime import session
from thinktime.config import Config, ModelSpec
from thinktime.core.errors import InputError
from thinktime.core.types import Finish, Node, Problem, Score
from thinktime.generators.local import LocalGenerator
from thinktime.generators.text import Text
from thinktime.models.engine.llama import Llama
from thinktime.pocket import directory
from thinktime.scorers.p_yes import PART, WHOLE, YesProbability
from thinktime.session import open_session

PROBLEM = Problem("p", "what is 3 + 4")


@pytest.fixture(scope="module")
def asked() -> LocalGenerator:
    return LocalGenerator(directory("skilled"), dtype="float64")


def solution(asked: LocalGenerator, text: str, finish: Finish = "eos") -> Node:
    ids = (*asked.model.tokenizer.encode(text), asked.model.tokenizer.eos_id)
    return Node(text, (0,), Text(asked.root(PROBLEM, quotes=True).prompt, ids, text, (len(ids),)), finish=finish)


def scores(scorer: YesProbability, nodes: list[Node], known: list[Node | None] | None = None) -> list[Score]:
    return asyncio.run(scorer.score(PROBLEM, nodes, known or [None] * len(nodes)))


def prompt(asked: LocalGenerator, text: str, question: str) -> tuple[int, ...]:
    turns = [("user", PROBLEM.prompt), ("assistant", text), ("user", question)]
    messages = [{"role": role, "content": content} for role, content in turns]
    return asked.root(Problem("q", messages), quotes=True).prompt


@pytest.mark.parametrize(("finish", "question"), [("eos", WHOLE), ("step", PART)])
def test_it_is_the_probability_of_yes_after_the_question(asked: LocalGenerator, finish: Finish, question: str) -> None:
    model = Llama.load(directory("skilled"), torch.float64)
    (yes,), (no,) = asked.model.tokenizer.encode("Yes"), asked.model.tokenizer.encode("No")
    with torch.inference_mode():
        ids = torch.tensor(prompt(asked, "3 + 4 = 7", question))
        logits = model.head(model.model(ids))[-1].softmax(-1)
    (score,) = scores(YesProbability(asked), [solution(asked, "3 + 4 = 7", finish)])
    assert score.value == pytest.approx(float(logits[yes] / (logits[yes] + logits[no])), abs=1e-8)


def test_a_score_is_charged_the_ids_that_were_not_read_before(asked: LocalGenerator) -> None:
    scorer = YesProbability(asked)
    seven, eight = solution(asked, "3 + 4 = 7"), solution(asked, "3 + 4 = 8")
    first, second = scores(scorer, [seven, eight], [None, seven])
    one, other = (prompt(asked, text, WHOLE) for text in ("3 + 4 = 7", "3 + 4 = 8"))
    common = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    assert (first.usage.scorer_tokens, second.usage.scorer_tokens) == (len(one), len(other) - common)
    assert (first.usage.scorer_calls, first.usage.generated_tokens, first.usage.flops) == (1, 0, 0.0)
    assert scorer.worst_case(PROBLEM, eight, seven) == second.usage


def test_a_model_that_wrote_the_solution_reads_the_question_alone(asked: LocalGenerator) -> None:
    node = solution(asked, "3 + 4 = 7")
    whole, rest = (scores(YesProbability(asked, writes=writes), [node])[0] for writes in (False, True))
    read = len(node.state.prompt + node.state.ids) - 1
    assert rest.usage.scorer_tokens == whole.usage.scorer_tokens - read
    assert rest.value == whole.value


def test_a_solution_that_does_not_fit_the_context_has_no_score(asked: LocalGenerator) -> None:
    scorer, long = YesProbability(asked), solution(asked, "3 + 4 = 7 " * 2000)
    missing, found = scores(scorer, [long, solution(asked, "7")])
    assert missing.value is None and missing.reason.startswith("the question about it does not fit p-yes:")
    assert found.value is not None and scorer.worst_case(PROBLEM, long, None).scorer_tokens == 0


@pytest.mark.parametrize(
    ("chat", "why"),
    [(False, "it is no chat model, so it cannot be asked"), (True, "yes and no are not single tokens of this model")],
)
def test_models_that_cannot_be_asked_are_refused(chat: bool, why: str) -> None:
    with pytest.raises(InputError, match=why):
        YesProbability(LocalGenerator(directory("solver"), chat=chat))


def test_a_config_names_it_by_the_word_or_by_a_model(monkeypatch: pytest.MonkeyPatch, asked: LocalGenerator) -> None:
    loaded: list[str] = []

    def model(role: str, spec: ModelSpec, config: Config) -> LocalGenerator:
        loaded.append(spec.source)
        return asked

    monkeypatch.setattr(session, "_model", model)
    name, other = "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct"
    for scorer, wanted in (("p-yes", [name]), (name, [name]), (other, [name, other]), ("m.gguf", [name, "m.gguf"])):
        loaded.clear()
        found = open_session(Config(name, scorer)).scorers["main"]
        assert (found.name, loaded) == (f"p-yes:{asked.name}", wanted)


def test_a_directory_is_still_a_reward_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reward_model="):
        open_session(Config("pocket", str(directory("solver"))))
