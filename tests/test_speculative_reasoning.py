"""SpecReason by hand: which steps are kept, what is charged, why a chain stops, and the ratings by one token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Any

import pytest
import torch
from toy import ANSWERS, PROBLEM, Piece, ToyGenerator, ToyScorer, done, drawn, solve, step

from thinktime import session
from thinktime.config import Config
from thinktime.core.errors import CapabilityError, InputError
from thinktime.core.search import Search
from thinktime.core.trace import Answer
from thinktime.core.types import Capability, Child, Extension, Finish, Node, Problem, Sampling, Score
from thinktime.core.usage import Budget, Usage
from thinktime.generators.local import LocalGenerator
from thinktime.generators.openai import RemoteGenerator
from thinktime.generators.text import RemoteText, Text
from thinktime.models.engine.llama import Llama
from thinktime.models.engine.templates import ChatTemplate
from thinktime.pocket import directory
from thinktime.scorers.digit import RATE, DigitRating, WrittenDigit, expected_digit, greedy_digit, probabilities
from thinktime.session import open_session
from thinktime.strategies import check, parse

Texts = Mapping[int, Piece]


def by_depth(pieces: Texts) -> Callable[[Extension], Piece]:
    """The piece that follows so many steps."""
    return lambda extension: pieces[len(extension.node.path)]


def two(draft: Texts, main: Texts, scores: Mapping[str, float | None], **options: Any) -> Search:
    """A search of two scripts; a node is scored by its last words."""
    models = {"main": ToyGenerator(by_depth(main), name="large"), "draft": ToyGenerator(by_depth(draft), name="small")}

    def score(node: Node) -> float | None:
        assert node.parent is not None
        return scores[node.state.text[len(node.parent.state.text) :].strip()]

    settings = {"scorers": ToyScorer(score), "answers": ANSWERS, "sampling": Sampling(max_length=40), **options}
    return Search(PROBLEM, models, **settings)


def run(search: Search, text: str = "speculative_reasoning:max_step_tokens=20") -> tuple[Answer, list[dict[str, Any]]]:
    strategy = parse(text)[1]
    check("speculative_reasoning", strategy, search)
    answer = solve(strategy, search)
    return answer, [event for event in search.events if "warning" not in event]


DRAFT = {0: step("a"), 1: step("b b b"), 2: done("so 5")}
MAIN = {0: step("x"), 1: step("y y"), 2: done("so 7")}
SCORES = {"a": 0.9, "b b b": 0.5, "so 5": 0.8}


def test_good_drafts_are_kept_and_the_main_model_writes_the_other_steps() -> None:
    search = two(DRAFT, MAIN, SCORES)
    answer, (*steps, last) = run(search)
    assert answer.node is not None and (answer.value, answer.node.state.text) == ("5", "a y y so 5")
    assert [each["verdict"] for each in steps] == ["accepted", "rejected", "accepted"]
    assert [each["rating"] for each in steps] == [8.1, 4.5, 7.2]
    assert [sorted(each["tokens"].items()) for each in steps] == [
        [("draft", 1)],
        [("draft", 3), ("main", 2)],
        [("draft", 2)],
    ]
    assert [node.model for node in reversed(list(answer.node.lineage()))][1:] == ["draft", "main", "draft"]
    assert last == {
        "stop": "finished",
        "accepted": 2,
        "drafted": 3,
        "kept_tokens": 5,
        "generated_tokens": 8,
        "passes": {"draft": 6, "main": 2, "judge": 3},
    }
    assert answer.usage.generated_tokens == 8, "the account has the dropped draft too"
    assert {role for _, role in answer.accounts} == {"model draft", "model main", "scorer main"}
    assert [record.node.state.text for record in search.records() if record.pruned] == ["a b b b"]


@pytest.mark.parametrize(("threshold", "text"), [(0, "a b b b so 5"), (8, "a y y so 7"), (9, "x y y so 7")])
def test_the_threshold_decides_from_every_draft_to_none(threshold: int, text: str) -> None:
    answer, _ = run(two(DRAFT, MAIN, SCORES), f"speculative_reasoning:threshold={threshold},max_step_tokens=20")
    assert answer.node is not None and answer.node.state.text == text


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_reaches_a_threshold_of_its_own_value(digit: int) -> None:
    search = two({0: done("so 5")}, {0: done("so 7")}, {"so 5": round(digit / 9, 9)})
    assert run(search, f"speculative_reasoning:threshold={digit},max_step_tokens=20")[0].value == "5"


def test_the_first_steps_can_be_the_main_models() -> None:
    answer, (first, second, *_) = run(
        two(DRAFT, MAIN, SCORES), "speculative_reasoning:threshold=0,first_n_base=1,max_step_tokens=20"
    )
    assert answer.node is not None and answer.node.state.text == "x b b b so 5"
    assert (first["verdict"], first["rating"], first["judge_tokens"]) == ("not drafted", None, 0)
    assert second["verdict"] == "accepted"


@pytest.mark.parametrize(
    ("piece", "verdict"),
    [
        (step(" "), "empty"),
        (step("word " * 21), "cut"),
        (Piece("so", "length"), "length"),
        (step("b"), "not rated"),
    ],
)
def test_a_draft_that_is_no_whole_step_is_dropped_and_only_a_whole_one_is_rated(piece: Piece, verdict: str) -> None:
    search = two({0: piece}, {0: done("so 7")}, {"b": None})
    answer, (first, last) = run(search)
    assert (answer.value, first["verdict"]) == ("7", verdict)
    assert last["passes"]["judge"] == (verdict == "not rated")


def test_an_empty_end_of_a_draft_is_rated_because_it_ends_the_solution() -> None:
    search = two({0: step("so 5"), 1: done("")}, MAIN, {"so 5": 1.0, "": 1.0})
    answer, steps = run(search)
    assert answer.value == "5" and [each["verdict"] for each in steps[:-1]] == ["accepted", "accepted"]


@pytest.mark.parametrize(
    ("main", "stop", "n"),
    [
        ({**{i: step("again") for i in range(9)}}, "repeat", 3),
        ({**{i: step(f"{i}") for i in range(99)}}, "budget", 40),
        ({0: step("a"), 1: Piece("b", "length")}, "budget", 2),
    ],
)
def test_a_chain_stops_and_without_an_answer_there_is_no_guess(main: Texts, stop: str, n: int) -> None:
    search = two({i: step(" ") for i in range(99)}, main, {})
    answer, (*steps, last) = run(search)
    assert (last["stop"], len(steps), answer.value, answer.finish) == (stop, n, None, "incomplete")


def test_two_equal_steps_at_the_start_and_blank_lines_do_not_stop_it() -> None:
    main = {0: step("a"), 1: step("a"), 2: step(" "), 3: step(" "), 4: done("so 7")}
    assert run(two({i: step(" ") for i in range(9)}, main, {}))[0].value == "7"


def test_the_budget_counts_dropped_drafts() -> None:
    steps = {i: step(f"so so {i}") for i in range(20)}
    search = two(steps, steps, {piece.words: 0.0 for piece in steps.values()}, budget=Budget(tokens=70))
    answer, events = run(search)
    assert events[-1]["stop"] == "budget" and answer.usage.generated_tokens <= 70
    assert events[-1]["kept_tokens"] < events[-1]["generated_tokens"] == answer.usage.generated_tokens


def test_the_end_of_a_thought_without_an_answer_is_noted_and_the_chain_goes_on() -> None:
    draft = {0: step("hm </think>"), 1: done("so 5")}
    answer, (first, *_) = run(two(draft, MAIN, {"hm </think>": 1.0, "so 5": 1.0}))
    assert (answer.value, first["flags"]) == ("5", ["ends the thought"])


def test_a_cut_step_of_the_main_model_is_kept_and_noted() -> None:
    main = {0: step("word " * 25), 1: done("so 7")}
    answer, (first, *_) = run(two({0: step(" "), 1: step(" ")}, main, {}))
    assert (answer.value, first["flags"]) == ("7", ["cut"])


def test_the_judge_sees_no_trace_of_itself_in_the_next_step() -> None:
    search = two(DRAFT, MAIN, SCORES)
    run(search)
    main = search.models["main"]
    assert isinstance(main, ToyGenerator)
    assert [batch[0].node.state.text for batch in main.asked] == ["a"]


# Bad input


@pytest.mark.parametrize("threshold", [-0.1, 9.1, float("nan")])
def test_a_threshold_outside_the_scale_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match=r"^threshold="):
        parse(f"speculative_reasoning:threshold={threshold}")


def test_scores_of_another_scale_are_refused_with_both_names() -> None:
    message = r"^score=7\.0: threshold=7 from 0 to 9 needs prefix scores in \[0, 1\]; .* in place of 'toy-scorer'$"
    with pytest.raises(InputError, match=message):
        run(two({0: step("a")}, MAIN, {"a": 7.0}))


def test_the_same_model_in_both_roles_is_a_warning() -> None:
    model = ToyGenerator(lambda extension: done("so 7"), name="one")
    search = Search(
        PROBLEM, {"main": model, "draft": model}, scorers=ToyScorer({"0": 1.0}), sampling=Sampling(max_length=600)
    )
    solve(parse("speculative_reasoning")[1], search)
    assert search.events[0] == {
        "warning": "speculative_reasoning: draft and main are the same model, so nothing is gained"
    }


def test_a_step_limit_above_that_of_a_solution_is_a_warning() -> None:
    search = two(DRAFT, MAIN, SCORES)
    run(search, "speculative_reasoning")
    assert search.events[0] == {"warning": "max_step_tokens=512: a whole solution has 40 at most"}


def test_without_a_draft_the_error_says_how_to_add_one() -> None:
    search = Search(PROBLEM, ToyGenerator(drawn), scorers=ToyScorer({}))
    with pytest.raises(CapabilityError, match=r"a model of the role 'draft' \(--model draft=NAME\)"):
        check("speculative_reasoning", parse("speculative_reasoning")[1], search)


@pytest.mark.parametrize("lacking", [Capability.STEPS, Capability.PREFIX])
def test_a_draft_that_cannot_continue_a_text_is_refused_before_a_token(lacking: Capability) -> None:
    search = two(DRAFT, MAIN, SCORES)
    draft: Any = search.models["draft"]
    draft.capabilities = draft.capabilities - {lacking}
    with pytest.raises(CapabilityError, match=f"model draft='small': it lacks {lacking}"):
        run(search)


def test_models_that_never_end_a_step_are_refused_after_the_first_with_its_text() -> None:
    endless = {0: step("on and " * 20)}
    with pytest.raises(InputError, match=r"^max_step_tokens=5: neither model ends its first step.*'on and on and on'"):
        run(two(endless, endless, {}), "speculative_reasoning:max_step_tokens=5")


# Ratings by one token


@pytest.fixture(scope="module")
def asked() -> LocalGenerator:
    return LocalGenerator(directory("skilled"), dtype="float64")


def solution(asked: LocalGenerator, text: str, finish: Finish = "step") -> Node:
    ids = tuple(asked.model.tokenizer.encode(text))
    return Node(text, (0,), Text(asked.root(PROBLEM, quotes=True).prompt, ids, text, (len(ids),)), finish=finish)


def rated(asked: LocalGenerator, text: str, tokens: list[tuple[str, float]], expected: bool) -> Score:
    class Likely(LocalGenerator):
        def __init__(self) -> None:
            vars(self).update(vars(asked))

        async def likeliest(self, prefixes: Sequence[tuple[int, ...]], k: int) -> list[list[tuple[str, float]]]:
            return [tokens for _ in prefixes]

    scorer = DigitRating(Likely(), expected=expected)
    (score,) = asyncio.run(scorer.score(PROBLEM, [solution(asked, text)], [None]))
    return score


TOKENS = [("7", log(0.4)), (" 8", log(0.2)), ("8", log(0.2)), ("The", log(0.1))]


def test_the_digit_is_the_likeliest_token_or_the_mean_of_the_digits(asked: LocalGenerator) -> None:
    greedy, mean = (rated(asked, "3 + 4 = 7", TOKENS, expected) for expected in (False, True))
    assert greedy.value == pytest.approx(7 / 9, abs=1e-9) and mean.value == pytest.approx(7.5 / 9, abs=1e-9)
    assert greedy.steps == mean.steps == pytest.approx((0,) * 7 + (0.4, 0.4, 0), abs=1e-9)
    assert sum(greedy.steps) == pytest.approx(0.8), "the rest is on words"


def test_a_likeliest_token_that_is_no_digit_counts_as_0() -> None:
    tokens = [("The", log(0.6)), ("9", log(0.3))]
    assert (greedy_digit(tokens), expected_digit(probabilities(tokens))) == (0, 9.0)
    assert (greedy_digit([]), expected_digit([0.0] * 10), probabilities([("12", 0.0), ("", 0.0)])) == (0, 0, [0.0] * 10)


def test_the_ten_likeliest_tokens_are_those_of_a_plain_forward_pass(asked: LocalGenerator) -> None:
    model = Llama.load(directory("skilled"), torch.float64)
    ids = asked.root(PROBLEM, quotes=True).prompt
    with torch.inference_mode():
        expected = model.head(model.model(torch.tensor(ids)))[-1].log_softmax(-1).topk(10)
    (found,) = asyncio.run(asked.likeliest([ids], 10))
    assert [text for text, _ in found] == [asked.model.tokenizer.decode([token]) for token in expected.indices.tolist()]
    assert [logprob for _, logprob in found] == pytest.approx(expected.values.tolist(), abs=1e-9)


def test_the_question_comes_after_the_steps_and_a_closed_thought_stays_in_it(asked: LocalGenerator) -> None:
    scorer = DigitRating(asked)
    ids = scorer._prompt(PROBLEM, solution(asked, "<think>\n3 + 4 = 7\n</think>\n7"))
    turns = [("user", PROBLEM.prompt), ("assistant", "3 + 4 = 7\n\n7"), ("user", RATE)]
    messages = [{"role": role, "content": content} for role, content in turns]
    assert ids == asked.root(Problem("q", messages), quotes=True).prompt


def test_a_template_that_removes_the_step_is_refused(asked: LocalGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful = ChatTemplate("{% for m in messages if m.role == 'user' %}{{ m.content }}\n{% endfor %}", {})
    monkeypatch.setattr(asked.model.tokenizer, "template", forgetful)
    with pytest.raises(InputError, match="its chat template removes the step '3 \\+ 4 = 7' from the conversation"):
        asyncio.run(DigitRating(asked).score(PROBLEM, [solution(asked, "so\n3 + 4 = 7\n")], [None]))


def test_a_solution_that_does_not_fit_has_no_rating(asked: LocalGenerator) -> None:
    scorer, long = DigitRating(asked), solution(asked, "3 + 4 = 7 " * 2000)
    missing, found = asyncio.run(scorer.score(PROBLEM, [long, solution(asked, "7")], [None, None]))
    assert missing.value is None and missing.reason.startswith("the question about it does not fit digit:")
    assert found.value is not None


def test_what_the_draft_wrote_is_new_to_the_main_model_and_what_it_wrote_itself_is_not(asked: LocalGenerator) -> None:
    scorer, node = DigitRating(asked, writes=True), solution(asked, "3 + 4 = 7")
    own, theirs = (scorer.worst_case(PROBLEM, replace(node, model=role), None) for role in ("main", "draft"))
    assert theirs.scorer_tokens - own.scorer_tokens == len(node.state.prompt + node.state.ids) - 1
    after = replace(solution(asked, "3 + 4 = 7\n7"), model="draft", parent=node)
    assert scorer.worst_case(PROBLEM, after, None).scorer_tokens < theirs.scorer_tokens


@pytest.mark.parametrize("name", ["digit", "expected-digit"])
def test_a_config_names_the_rating(name: str, monkeypatch: pytest.MonkeyPatch, asked: LocalGenerator) -> None:
    monkeypatch.setattr(session, "_model", lambda role, spec, config: asked)
    models = {"main": "qwen2.5-coder-1.5b-instruct", "draft": "qwen2.5-coder-0.5b-instruct"}
    (scorer,) = open_session(Config(models, name)).scorers.values()
    assert scorer.name == f"{name}:{asked.name}"


def test_an_endpoint_writes_its_digit_and_cannot_give_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = RemoteGenerator("http://127.0.0.1:9/v1", "words")
    monkeypatch.setattr(session, "_model", lambda role, spec, config: endpoint)
    (scorer,) = open_session(Config(endpoint.name, "digit")).scorers.values()
    assert isinstance(scorer, WrittenDigit) and Capability.PROCESS_REWARD in scorer.capabilities
    with pytest.raises(InputError, match=r"^scorer='expected-digit': it needs the probabilities .* take digit or"):
        open_session(Config(endpoint.name, "expected-digit"))


@pytest.mark.parametrize(
    ("reply", "score"), [("7", 7 / 9), (" 7\nBecause", 7 / 9), ("10", 1 / 9), ("The step", None), ("", None)]
)
def test_a_written_digit_is_the_first_character_of_the_reply(reply: str, score: float | None) -> None:
    scorer = WrittenDigit(RemoteGenerator("http://127.0.0.1:9/v1", "words"))
    assert scorer.place(Child(RemoteText("", reply), "length", Usage(), 1)) == score
