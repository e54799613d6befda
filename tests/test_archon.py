"""Archon: layers, their order, their TOML form, and every line of bad input, worked out by hand on words."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import ANSWERS, PROBLEM, ToyGenerator, ToyScorer, done, solve, toy_search

from thinktime.core.errors import CapabilityError, InputError, ModelError, TooLongError, UnknownNameError
from thinktime.core.search import Search
from thinktime.core.types import Capability, Extension, Node, Problem, Sampling
from thinktime.core.usage import Budget
from thinktime.generators.text import Text
from thinktime.prompts.layers import CRITIQUE, EVALUATE, FUSE, RANK, WRITE_TESTS, with_critiques
from thinktime.strategies import check, make, parse, settings
from thinktime.strategies.composition.archon import Archon, check_layers, load, read_layers
from thinktime.strategies.composition.layers import (
    Critique,
    Evaluate,
    Fuse,
    Generate,
    Rank,
    Top,
    Verify,
    Vote,
    WriteTests,
    calls,
)
from thinktime.testing import WORD_PROMPTS, Piece, check_strategy

QUESTION = str(PROBLEM.prompt)


class Talker(ToyGenerator):
    """Replies by a script with the keys ``prompt#index``, without the problem's words; other samples count up."""

    capabilities = ToyGenerator.capabilities | {Capability.CHAT}

    def __init__(self, script: Mapping[str, str | Piece] = {}, name: str = "talker") -> None:
        self.questions: list[str] = []

        def say(extension: Extension) -> Piece:
            (asked,) = (each for each in [self._asked[extension.node.state.prompt]])
            self.questions.append(asked)
            said = script.get(f"{asked}#{extension.index}", f"so {extension.index + 1}")
            return done(said) if isinstance(said, str) else said

        self._asked: dict[tuple[int, ...], str] = {}
        super().__init__(say, name=name)

    def root(self, problem: Problem, known: Any = (), *, quotes: bool = False) -> Text:
        """The words, which are remembered by their ids."""
        root = super().root(problem, known, quotes=quotes)
        self._asked[root.prompt] = str(problem.prompt).removeprefix(QUESTION).strip()
        return root


def talk(script: Mapping[str, str | Piece] = {}, **options: Any) -> Search:
    return toy_search(Talker(script), options.pop("scorer", None), cap=20, **options)


def archon(*layers: Any, **options: Any) -> Archon:
    return Archon(layers=tuple((layer,) if not isinstance(layer, tuple) else layer for layer in layers), **options)


# What layers do


def test_the_generic_stack_criticises_ranks_and_fuses() -> None:
    strategy = archon(Generate(samples=3), Critique(), Rank(top_k=2), Fuse())
    # a ranking of "0" scores the candidates 0, 0.1, 0.2: the last is the best
    script = {"so 1 so 2 so 3 critique#0": "well 5", "so 1 so 2 so 3 well 5 rank#0": "is 0"}
    answer = solve(strategy, talk(script | {"so 3 so 2 well 5 fuse#0": "be 42"}))
    assert (answer.value, answer.finish, answer.usage.model_calls) == ("42", "done", 6)
    assert strategy.calls == 6, "a dry run counts the calls of the executor"


def test_critiques_move_and_are_dropped_with_their_candidates() -> None:
    shown: list[str] = []

    def render(problem: Problem, about: Any, said: Any) -> str:
        shown.append(FUSE.render(problem, about, said)[-1]["content"])
        return f"{QUESTION} fuse"

    candidates = [Text((), text=f"answer {place}") for place in range(3)]
    prompt = with_critiques(FUSE, ("good", "", "bad"))
    text = prompt.render(PROBLEM, candidates, ())[-1]["content"]
    assert text.index("### Candidate 1\nanswer 0") < text.index("### Critique of candidate 1\ngood")
    assert "Critique of candidate 2" not in text and "### Critique of candidate 3\nbad" in text
    from thinktime.strategies.composition.layers import State

    nodes = tuple(Node(str(place), (place,), state) for place, state in enumerate(candidates))
    kept = State(nodes, ("good", "", "bad")).keep([2, 0])
    assert [node.key for node in kept.candidates] == ["2", "0"] and kept.critiques == ("bad", "good")
    assert State(nodes).keep([1]).critiques == ()


def test_models_of_a_layer_run_side_by_side_and_their_candidates_are_in_order() -> None:
    search = Search(
        PROBLEM,
        {"main": Talker(), "small": Talker({"#0": "well 8", "#1": "well 9"}, "small")},
        answers=ANSWERS,
        prompts=WORD_PROMPTS,
        sampling=Sampling(max_length=20),
    )
    strategy = archon((Generate(samples=2), Generate("small", 2)), Vote())
    assert strategy.calls == 4
    solve(strategy, search)
    leaves = [record.node for record in search.records() if record.node.parent is not None]
    assert [node.state.text for node in leaves] == ["so 1", "so 2", "well 8", "well 9"]
    assert {role for _, role in search.meter.accounts} == {"model main", "model small"}


def test_a_layer_of_another_role_asks_that_model() -> None:
    fuser = Talker({"so 1 so 2 fuse#0": "be 77"}, "large")
    search = Search(
        PROBLEM,
        {"main": Talker(), "large": fuser},
        answers=ANSWERS,
        prompts=WORD_PROMPTS,
        sampling=Sampling(max_length=20),
    )
    assert solve(archon(Generate(samples=2), Fuse("large")), search).value == "77"
    assert fuser.questions == ["so 1 so 2 fuse"]


def test_the_verifier_argues_then_keeps_what_it_judges_right() -> None:
    # a verdict of "9" is 0.9, of "0" 0
    script = {
        "so 1 argue#0": "as 3",
        "so 1 as 3 verdict#0": "no 0",
        "so 2 argue#0": "as 4",
        "so 2 as 4 verdict#0": "oh 9",
    }
    search = talk(script)
    answer = solve(archon(Generate(samples=2), Verify()), search)
    assert (answer.value, answer.usage.model_calls) == ("2", 2 + 4)
    none = {"so 1 so 1 verdict#0": "no 0", "so 2 so 1 verdict#0": "no 0"}
    assert solve(archon(Generate(samples=2), Verify()), talk(none)).value == "1", "if none survives, all are kept"


def test_tests_are_written_once_and_the_candidate_that_passes_most_is_kept() -> None:
    # each reply passes test 1; test 2 too if its last number is below 6
    script = {
        "write_tests#0": "a 1",
        "so 1 a 1 evaluate#0": "x 7",
        "so 2 a 1 evaluate#0": "x 0",
        "so 3 a 1 evaluate#0": "x 1",
    }
    answer = solve(archon(Generate(samples=3), WriteTests(), Evaluate()), talk(script))
    assert (answer.value, answer.usage.model_calls) == ("2", 3 + 1 + 3), "a tie goes to the earlier candidate"
    answer = solve(archon(Generate(samples=3), WriteTests(), Evaluate(first_k=1)), talk(script))
    assert (answer.value, answer.usage.model_calls) == ("2", 3 + 1 + 2), "it stops at the first that passes all"


def test_votes_and_scores_call_no_model() -> None:
    def scored(node: Node) -> float:
        return 0.9 if "2" in node.state.text else 0.2

    script = {"#2": "so 1"}
    for layer, value in ((Vote(), "1"), (Vote("main"), "2"), (Top(), "2"), (Top(top_k=2), "2")):
        answer = solve(archon(Generate(samples=3), layer), talk(script, scorer=ToyScorer(scored)))
        assert (answer.value, answer.usage.model_calls) == (value, 3)


def test_equal_scores_stay_in_order_whatever_their_texts() -> None:
    script = {"#0": "so 9", "#1": "so 1"}
    search = talk(script, scorer=ToyScorer(lambda node: 0.5))
    assert solve(archon(Generate(samples=2), Top()), search).value == "9"


def test_a_strategy_inside_writes_a_candidate_for_each_run() -> None:
    strategy = archon(Generate(strategy="majority:n=3", samples=2), Vote())
    search = talk()
    assert solve(strategy, search).value is not None
    assert search.ledger.spent.model_calls == strategy.calls == 6


def test_a_fused_answer_that_cannot_be_read_falls_back_to_a_vote_of_the_candidates() -> None:
    script = {"#1": "so 1", "so 1 so 1 fuse#0": "well what"}
    answer = solve(archon(Generate(samples=2), Fuse()), talk(script))
    assert (answer.value, answer.share) == ("1", 1.0)


def test_if_the_budget_ends_the_candidates_vote() -> None:
    script = {"#1": "so 5", "#2": "so 5"}
    answer = solve(archon(Generate(samples=3), Critique(), Fuse()), talk(script, budget=Budget(calls=3)))
    assert (answer.value, answer.finish, answer.usage.model_calls) == ("5", "budget", 3)


def test_an_architecture_may_answer_what_no_candidate_says() -> None:
    answer = solve(archon(Generate(samples=2), Fuse()), talk({"so 1 so 2 fuse#0": "be 3"}))
    assert answer.value == "3", "so pass@k of the candidates is no upper bound"


@pytest.mark.parametrize(
    "strategy",
    [
        archon(Generate(samples=3), Critique(), Rank(top_k=2), (Fuse(), Fuse(samples=2)), Verify(), Fuse(), retries=1),
        archon(Generate(samples=3), WriteTests(), Evaluate(top_k=2), Fuse(samples=2), Evaluate(), retries=1),
        archon((Generate(samples=2), Generate(strategy="beam_search:n=2,width=2")), WriteTests(), Evaluate(first_k=1)),
        archon(Generate(samples=4), Top(top_k=3), Vote("main")),
    ],
)
def test_architectures_keep_every_law(strategy: Archon) -> None:
    check_strategy(replace(strategy, unreadable="plurality"), seeds=range(2))


# Replies that cannot be read


def test_an_unreadable_reply_is_asked_again_and_every_retry_is_charged() -> None:
    script = {"so 1 so 2 rank#0": "well what", "so 1 so 2 rank#1": "is 0"}
    answer = solve(archon(Generate(samples=2), Rank()), talk(script))
    assert (answer.value, answer.usage.model_calls) == ("2", 2 + 2)
    greedy = talk({"so 1 so 1 rank#0": "well what"}, temperature=0.0)
    with pytest.raises(ModelError, match="layer 1"):  # a retry at temperature 0 would be the same
        solve(archon((Generate(), Generate(strategy="single")), Rank()), greedy)


def test_a_layer_without_a_readable_reply_never_lets_the_first_candidate_win_silently() -> None:
    script = {"#0": "so 4"} | {f"so 4 so 2 so 2 rank#{i}": "well what" for i in range(4)} | {"#2": "so 2"}
    strategy = archon(Generate(samples=3), Rank())
    with pytest.raises(ModelError, match=r"layer 1: no reply to the prompt 'rank' can be read; they end 'well what'"):
        solve(strategy, talk(script))
    search = talk(script)
    assert solve(replace(strategy, unreadable="plurality"), search).value == "2"
    assert {"layer": 1, "prompt": "rank", "asked": 1, "unreadable": 1} in search.events


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("Ranking: [2] > [1] > [3]", (1, 0, 2)),
        ("[1] is good.\nRanking: [3]", (2, 0, 1)),
        ("Ranking: [3] > [3] > [9] > [0] > [1]", (2, 0, 1)),
        ("I like [2]", (1, 0, 2)),
        ("none of them", None),
        ("Ranking: [99]", None),
    ],
)
def test_a_ranking_keeps_every_candidate_once(text: str, order: tuple[int, ...] | None) -> None:
    assert RANK.read(Text((), text=text), 3) == order


def test_critiques_tests_and_marks_are_read() -> None:
    text = "### Critique 1\nStrength: none.\n\n**Critique 2:** it adds\nwrongly"
    assert CRITIQUE.read(Text((), text=text), 3) == ("Strength: none.", "it adds\nwrongly", "")
    assert CRITIQUE.read(Text((), text="all fine"), 2) is None
    tests = WRITE_TESTS.read(
        Text((), text="1. It is a number.\n2) It counts days.\n- It is positive.\nThat is all."), 0
    )
    assert tests == ("It is a number.", "It counts days.", "It is positive.")
    assert len(WRITE_TESTS.read(Text((), text="\n".join(f"{i}. true" for i in range(20))), 0)) == 10
    assert WRITE_TESTS.read(Text((), text="no list"), 0) is None
    marks = EVALUATE.read(Text((), text="1: pass\n2: FAIL\nStatement 3: it does pass\n3: fail"), 1)
    assert marks == {1: True, 2: False, 3: False}
    assert EVALUATE.read(Text((), text="fine"), 1) is None


# Order rules


G, F, R, C, V, W, E = Generate(samples=3), Fuse(), Rank(top_k=2), Critique(), Verify(), WriteTests(), Evaluate()


@pytest.mark.parametrize(
    "layers",
    [
        [G],
        [(G, G), C, R, (F, F), C, R, F],
        [G, C, F],
        [G, C, V, R],
        [G, W, E, F, E],
        [G, (F, F), (F, F, F), F, V],
        [G, Vote()],
        [G, F, Top()],
    ],
)
def test_these_orders_are_accepted(layers: list[Any]) -> None:
    archon(*layers)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([F], r"layer 0='fuse': layer 0 has to be generate"),
        ([R, G], r"layer 0='rank': layer 0 has to be generate"),
        ([G, F, G], r"layer 2='generate': generate is only allowed in layer 0"),
        ([G, (F, R)], r"layer 1='fuse\+rank': all components of a layer have one type"),
        ([(G, F)], r"layer 0='generate\+fuse': all components of a layer have one type"),
        ([G, (R, R)], r"layer 1='rank\+rank': rank has to be alone in its layer"),
        ([G, (C, C), F], "critique has to be alone"),
        ([G, (V, V)], "verify has to be alone"),
        ([G, (W, W), E], "write_tests has to be alone"),
        ([G, (Vote(), Vote())], "vote has to be alone"),
        ([G, (F, F)], r"layer 1='fuse\+fuse': the last layer of fuse has one component"),
        ([G, C], r"layer 1='critique': a critique needs a rank or fuse after it that reads it"),
        ([G, C, V], "a critique needs a rank or fuse"),
        ([G, C, C, F], r"layer 1='critique': a critique needs"),
        ([G, W], "write_tests has to be followed by evaluate"),
        ([G, W, R, E], "write_tests has to be followed by evaluate"),
        ([G, E], "evaluate needs write_tests before it"),
    ],
)
def test_other_orders_are_refused_with_the_layer_and_the_rule(layers: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        archon(*layers)
    assert "\n" not in str(refused.value)


def test_a_fuser_reads_no_more_candidates_than_allowed() -> None:
    with pytest.raises(InputError, match=r"layer 1 fuse='25 candidates': a fuser reads at most max_fuser_inputs=24"):
        archon(Generate(samples=25), Fuse())
    archon(Generate(samples=25), Rank(top_k=24), Fuse())
    with pytest.raises(InputError, match="max_fuser_inputs=4"):
        make("archon", {"max_fuser_inputs": 4})
    with pytest.raises(InputError, match="max_fuser_inputs=0: give 1 or more"):
        make("archon", {"max_fuser_inputs": 0})
    check_layers(read_layers([[Generate(samples=30)], [Fuse()]]), 30)


def test_a_top_k_above_the_candidates_is_a_warning_and_all_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        strategy = archon(Generate(samples=2), Rank(top_k=5))
    assert caplog.messages == ["layer 1: top_k=5, but it gets 2 candidates; all are kept"]
    assert solve(strategy, talk({"so 1 so 2 rank#0": "is 0"})).value == "2"


def test_the_dry_run_counts_calls_by_prompt() -> None:
    layers = read_layers([[G], [C], [R], [Fuse(samples=2), F], [V], [W], [E], [F]])
    found = [(call.prompt, call.count, call.candidates, call.critiques) for call in calls(layers)]
    assert found == [
        *(("generate", 3, 0, False), ("critique", 1, 3, False), ("rank", 1, 3, True)),
        *(("fuse", 2, 2, True), ("fuse", 1, 2, True), ("argue", 3, 1, False), ("verdict", 3, 1, False)),
        *(("write_tests", 1, 0, False), ("evaluate", 3, 1, False), ("fuse", 1, 1, False)),
    ]


# TOML and bad input


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "architecture.toml"
    path.write_text(text)
    return str(path)


TOML = """
layers = [
    [{ type = "generate", samples = 8 }, { type = "generate", model = "small", samples = 4, strategy = "majority" }],
    [{ type = "critique" }],
    [{ type = "rank", top_k = 4 }],
    [{ type = "fuse", model = "small" }],
]
"""


def test_an_architecture_is_a_toml_file(tmp_path: Path) -> None:
    file = written(tmp_path, TOML)
    layers = (
        (Generate(samples=8), Generate("small", 4, "majority")),
        (Critique(),),
        (Rank(top_k=4),),
        (Fuse("small"),),
    )
    assert load(file) == layers
    strategy = parse(f"archon:file={file},retries=1")[1]
    assert isinstance(strategy, Archon) and strategy.architecture == layers and strategy.retries == 1
    with pytest.raises(InputError, match="give a file or layers, not both"):
        Archon(file, layers)


def test_layers_are_given_as_components_or_mappings() -> None:
    given = [[{"type": "generate", "samples": 2}], [{"type": "vote"}]]
    strategy = make("archon", {"layers": given})
    assert isinstance(strategy, Archon) and strategy.architecture == ((Generate(samples=2),), (Vote(),))
    assert settings(archon(Generate(samples=2), Vote()))["layers"] == [["Generate:samples=2"], ["Vote"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers = [[{", "cannot read it as TOML"),
        ("", "it has no layers"),
        ("layer = []", "archon.file key='layer': unknown"),
        ("layers = []", "layers=.*give a list of one component or more"),
        ("layers = 3", "layers=3: give a list"),
        ("layers = [[]]", "layer 0=.*give a list of one component or more"),
        ('layers = [{ type = "generate" }]', "layer 0=.*give a list"),
        ("layers = [[4]]", "layer 0=4: write a component as"),
        ("layers = [[{}]]", "layer 0=.*write a component as"),
        (
            'layers = [[{ type = "generator" }]]',
            "layer 0 type='generator': unknown; did you mean 'generate'.*critique.*vote",
        ),
        ('layers = [[{ type = "generate", sample = 2 }]]', "layer 0 generate option='sample': unknown; did you mean"),
        ('layers = [[{ type = "generate", samples = 0 }]]', r"layer 0 generate\.samples=0: give 1 or more"),
        ('layers = [[{ type = "generate", samples = 2.5 }]]', r"layer 0 generate\.samples=2\.5: give a whole number"),
        ('layers = [[{ type = "generate", samples = true }]]', r"layer 0 generate\.samples=True: give a whole number"),
        ('layers = [[{ type = "generate", samples = 70000 }]]', "give 65536 or fewer"),
        ('layers = [[{ type = "generate", model = 3 }]]', r"layer 0 generate\.model=3: give a text"),
        (
            'layers = [[{ type = "generate" }], [{ type = "rank", top_k = 0 }]]',
            r"layer 1 rank\.top_k=0: give 1 or more",
        ),
        ('layers = [[{ type = "generate", strategy = "majorty" }]]', "did you mean 'majority'"),
        ('layers = [[{ type = "generate", strategy = "archon" }]]', "write its layers into this architecture"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        parse(f"archon:file={written(tmp_path, text)}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["missing.toml", ".", "~nobody-at-all/x.toml"])
def test_a_file_that_cannot_be_read_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"archon\.file=.*cannot read it as TOML"):
        Archon(name)


@pytest.mark.parametrize("given", ["abc", 5])
def test_layers_that_are_no_lists_are_refused(given: object) -> None:
    with pytest.raises(InputError):
        make("archon", {"layers": given})


def refusal(strategy: Archon, search: Search, error: type[Exception]) -> str:
    with pytest.raises(error) as refused:
        check("archon", strategy, search)
    assert search.ledger.spent.model_calls == 0
    return str(refused.value)


def test_a_role_that_no_model_fills_is_refused_before_a_token() -> None:
    said = refusal(archon(Generate(samples=2), Fuse("large")), talk(), CapabilityError)
    assert said == "layer 1 fuse.model='large': no model has this role; the search has draft, main"
    said = refusal(archon(Generate(samples=2), Top("judge")), talk(), CapabilityError)
    assert said == "layer 1 score.scorer='judge': no scorer has this role; the search has none"
    assert "a scorer" in refusal(archon(Generate(samples=2), Top()), talk(), CapabilityError)


def test_a_model_without_the_skill_is_named_with_what_works() -> None:
    models = {"main": Talker(), "tiny": ToyGenerator({}, name="tiny-3m")}
    search = Search(PROBLEM, models, answers=ANSWERS, sampling=Sampling(max_length=8))
    said = refusal(archon(Generate(samples=2), Fuse("tiny")), search, CapabilityError)
    assert said.startswith("layer 1 fuse: model 'tiny-3m' does not answer the prompt 'fuse'; use vote or score")
    alone = Search(PROBLEM, models["tiny"], answers=ANSWERS, sampling=Sampling(max_length=8))
    assert "it needs the prompt 'fuse'" in refusal(archon(Generate(samples=2), Fuse()), alone, CapabilityError)
    said = refusal(archon(Generate(strategy="best_of_n:n=2")), search, CapabilityError)
    assert said == "layer 0 generate: its strategy needs a scorer"


def test_equal_samples_at_temperature_0_are_refused_before_a_token() -> None:
    for strategy in (archon(Generate(samples=2), Vote()), archon(Generate(), Fuse(samples=2))):
        assert "2 samples would be the same" in refusal(strategy, talk(temperature=0.0), InputError)


def test_a_question_beyond_the_context_of_a_fuser_is_an_error_with_both_sizes() -> None:
    class Short(Talker):
        def root(self, problem: Problem, known: Any = (), *, quotes: bool = False) -> Text:
            if quotes:
                raise TooLongError("prompt", "900 tokens", "this model reads 512; shorten the question")
            return super().root(problem, known)

    with pytest.raises(
        TooLongError, match=r"layer 1 fuse of 2 candidates='900 tokens': this model reads 512; .* top_k"
    ):
        solve(archon(Generate(samples=2), Fuse()), toy_search(Short(), None))


def test_empty_candidates_end_the_layers() -> None:
    cut = Piece("so so so", "length")
    answer = solve(archon(Generate(samples=2), Critique(), Fuse()), talk({"#0": cut, "#1": cut}))
    assert (answer.value, answer.finish, answer.usage.model_calls) == (None, "incomplete", 2)


def test_an_unknown_type_in_python_is_named() -> None:
    with pytest.raises(UnknownNameError, match="layer 1 type='judge'"):
        Archon(layers=read_layers([[Generate()], [{"type": "judge"}]]))


def test_a_client_of_the_gateway_names_no_files() -> None:
    from thinktime.gateway.methods import parse as method

    with pytest.raises(InputError, match=r"archon\.file='/etc/passwd'"):
        method("archon:file=/etc/passwd")
    assert method("archon").samples == 11
