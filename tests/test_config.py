"""The config, the session that loads it, roles on the command line, `solve`, and a user's own prompts."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from test_cli import Command, thinktime
from toy import ANSWERS, PROBLEM, ToyGenerator, ToyScorer, done, drawn, drawn_score

import thinktime as package
from thinktime.bank.store import Bank
from thinktime.cli.common import prompts_in, roles_in
from thinktime.config import Config, ModelSpec, ScorerSpec
from thinktime.core.errors import BankError, CapabilityError, InputError, UnknownNameError
from thinktime.core.types import Prompt, Sampling, Score
from thinktime.core.usage import Budget, Usage
from thinktime.environments.calculator import Calculator
from thinktime.pocket import MAX_TOKENS
from thinktime.session import asolve, open_replay, open_session, solve
from thinktime.strategies import BUILT_IN
from thinktime.strategies.sampling.majority import Majority

__all__ = ["thinktime"]  # a fixture

# The config


def test_a_config_of_nothing_is_the_shipped_model_with_its_reward_model() -> None:
    config = Config()
    assert config.model_specs() == {"main": ModelSpec("pocket")}
    assert config.scorer_specs() == {"main": ScorerSpec("pocket")}
    assert config.sampling().max_length == MAX_TOKENS and config.named_strategy()[0] == "weighted_majority"


def test_other_models_have_no_scorer_and_longer_samples() -> None:
    config = Config("somewhere/model", strategy="single")
    assert config.scorer_specs() == {} and config.sampling().max_length == 1024
    assert Config("somewhere/model", "none", strategy="single").scorer_specs() == {}
    assert Config(scorers="none").scorer_specs() == {}


def test_models_scorers_and_environments_have_roles() -> None:
    judge = ToyScorer(drawn_score)
    config = Config({"main": "pocket", "draft": ModelSpec("small", dtype="float32")}, {"judge": judge})
    assert config.model_specs()["draft"] == ModelSpec("small", dtype="float32")
    assert config.scorer_specs() == {"main": ScorerSpec("pocket"), "judge": judge}
    environments = Config(environments={"sums": "calculator", "notes": "key_value"}).environments_by_name()
    assert {role: each.name for role, each in environments.items()} == {"sums": "calculator", "notes": "key_value"}


def test_a_strategy_may_be_given_as_an_object_and_is_written_as_text() -> None:
    assert Config(strategy=Majority(n=3)).named_strategy() == ("majority:n=3", Majority(n=3))
    assert Config(strategy="majority:n=3").named_strategy() == ("majority", Majority(n=3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": {"draft": "pocket"}}, r"models=\['draft'\]: one of them has to be the role 'main'"),
        ({"models": {"main": "pocket", "Draft 2": "pocket"}}, "role='Draft 2': write a word of small letters"),
        ({"models": "", "strategy": "single"}, "model='': name one"),
        ({"scorers": {"judge": "oracle"}}, "scorer='oracle': it uses the reference answers: a control"),
        ({"environments": {"main": "calculater"}}, "environment='calculater': unknown; did you mean 'calculator'"),
        ({"prompts": {"chek": "Is it right?"}}, "prompt='chek': unknown; did you mean 'check'"),
        ({"prompts": {"check": "Is {it} right?"}}, r"prompt.check field='it': unknown"),
        ({"strategy": "majorty"}, "strategy='majorty': unknown; did you mean 'majority'"),
        ({"budget": "much"}, "budget='much': write a number and a unit"),
        ({"temperature": -1.0}, "temperature=-1.0: give a number from 0 to 5"),
        ({"top_p": 0.0}, "top_p=0.0: give a number above 0"),
        ({"max_tokens": 0}, "max_tokens=0: give 1 or more"),
        ({"temperature": "7"}, "^temperature='7': give a number$"),
        ({"top_p": None}, "^top_p=None: give a number$"),
        ({"max_tokens": "400"}, "^max_tokens='400': give a whole number$"),
        ({"max_tokens": 7.5}, "^max_tokens=7.5: give a whole number$"),
        ({"seed": "zero"}, "^seed='zero': give a whole number$"),
        ({"seed": True}, "^seed=True: give a whole number$"),
        ({"strategy": 8}, "^strategy=8: give a text as 'majority:n=8'"),
        ({"budget": 4000}, "^budget=4000: give a text as '4000tok,30s', or a Budget$"),
        ({"bank": b"bank.db"}, "^bank=b'bank.db': give the path of a file, or postgresql://USER@HOST/DATABASE$"),
        ({"models": 3}, "^role main=3: give a text, or an object with a name$"),
        ({"models": {1: "pocket"}}, "^role=1: write a word of small letters"),
        ({"prompts": "check"}, "^prompts='check': give texts or prompts by name"),
        ({"prompts": {"check": 3}}, "^prompt.check=3: give a text or a Prompt$"),
    ],
)
def test_a_value_that_cannot_work_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        Config(**values)
    assert "\n" not in str(refused.value)


ODD: tuple[Any, ...] = (
    "7",
    7,
    7.5,
    True,
    None,
    [],
    {},
    {1: 2},
    b"x",
    object(),
    math.nan,
    math.inf,
    10**5000,
    "\ud800",
    "x" * 5000,
    (),
)


URL = {"source": "http://host/v1"}
KINDS = [Config, ModelSpec, ScorerSpec, Sampling, Budget, *BUILT_IN.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_another_type_is_taken_or_refused_in_one_short_line(kind: type[Any]) -> None:
    said = []
    for name, value in product([each.name for each in fields(kind)], ODD):
        try:
            kind(**{**(URL if kind in (ModelSpec, ScorerSpec) else {}), name: value})
        except InputError as refused:
            said.append(str(refused))
    assert [line for line in said if "\n" in line or len(line) > 1000] == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "float8"}, "dtype='float8': give auto, float64, float32, bfloat16 or float16"),
        ({"price": "1/2"}, "price='1/2': this is for an endpoint; give its URL with --model"),
        ({"thinking_tokens": -1}, "thinking_tokens=-1: give 0 or more"),
        ({"source": "http://host/v1", "price": "cheap"}, "price='cheap': write dollars per million tokens"),
        ({"source": "http://host/v1", "parameters": 0.0}, "parameters=0.0: give a number above 0"),
    ],
)
def test_options_that_do_not_fit_a_model_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelSpec(**{"source": "pocket", **values})


# Solving


def test_a_question_is_solved_in_one_call_with_a_generator_object() -> None:
    generator = ToyGenerator({str(i): done("so 7") for i in range(4)})
    answer = solve("what is 3 + 4", generator, strategy="majority:n=4", budget="40tok", max_tokens=8, answers=ANSWERS)
    assert (answer.value, answer.finish, answer.usage.model_calls) == ("7", "done", 4)
    assert asyncio.run(asolve(PROBLEM, ToyGenerator(drawn), strategy="majority:n=2")).usage.model_calls == 2


def test_the_package_offers_solve_and_the_strategies_by_class() -> None:
    assert package.solve is solve and package.Config is Config
    assert package.Majority is Majority and package.BeamSearch(n=4).n == 4
    with pytest.raises(AttributeError, match="module 'thinktime' has no attribute 'Majorty'"):
        package.Majorty  # noqa: B018
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_a_strategy_that_the_models_cannot_run_is_refused_before_anything_is_spent() -> None:
    generator = ToyGenerator(drawn)
    with pytest.raises(CapabilityError, match="strategy='best_of_n': it needs a scorer"):
        solve("what", generator, strategy="best_of_n")
    assert generator.asked == []


def test_an_unknown_option_of_solve_is_an_error() -> None:
    with pytest.raises(TypeError, match="strateggy"):
        solve("what", ToyGenerator(drawn), strateggy="single")


def test_the_shipped_model_solves_a_word_problem(questions: tuple[str, ...]) -> None:
    answer = package.solve(questions[0], strategy="majority:n=2")
    assert answer.usage.model_calls == 2 and answer.usage.scorer_calls == 0


def test_a_session_opens_searches_for_many_problems_and_closes_its_bank(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    models = {"main": ToyGenerator(drawn), "draft": ToyGenerator(drawn, name="small")}
    config = Config(models, ToyScorer(drawn_score), {"sums": "calculator"}, bank=path, budget="99tok", max_tokens=9)

    async def run() -> None:
        async with open_session(config) as session:
            for question in ("one", "two"):
                search = session.search(package.Problem(question, question))
                await search.extend([search.root], 2, model="draft")
                assert isinstance(search.environments["sums"], Calculator) and search.embedder is not None
                assert search.scorer is not None and search.ledger.budget.tokens == 99

    asyncio.run(run())
    with Bank(path) as bank:
        assert bank.models() == ["small"] and len(bank) == 4


def with_fingerprint(fingerprint: str) -> ToyGenerator:
    model = ToyGenerator(drawn)
    model.fingerprint = fingerprint  # type: ignore[attr-defined]
    return model


def test_a_bank_with_samples_of_other_files_is_refused_in_one_line_and_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    solve("what", with_fingerprint("0123"), strategy="single", bank=path)
    for _ in range(2):
        with pytest.raises(
            BankError, match=r"^bank=.*it has work of 'toy' with other files: .*replay it, or give anot"
        ):
            solve("what", with_fingerprint("4567"), strategy="single", bank=path)
    again = with_fingerprint("0123")
    solve("what", again, strategy="single", bank=path)
    assert again.asked == []
    with Bank(path) as bank:
        assert open_replay(Config(), bank).models["main"].name == "toy"


@pytest.mark.parametrize("kind", ["model", "scorer"])
def test_a_bank_from_before_fingerprints_is_refused_for_the_same_model_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bank.db"
    with Bank(path) as bank:
        if kind == "model":
            row = {"state": {}, "finish": "eos", "usage": {}, "passes": 0}
            bank.add_samples(PROBLEM, "toy", [("k", row)])
        else:
            bank.add_scores("toy", [("k", Score(0.5, Usage()))])
        with pytest.raises(BankError, match="with unknown files: the bank is of a version that did not note them"):
            bank.bind("toy", "0123")
        bank.bind("another", "0123")


def test_a_users_prompt_replaces_the_strategys() -> None:
    mine = Prompt("mine", lambda problem, about, said: "Is it so?", lambda state, n: 0.5)
    prompts = Config(prompts={"check": "Is {answer} right?", "revise": mine}).prompts_by_name()
    assert prompts["check"].name == "check" and not prompts["check"].is_answer
    revise = prompts["revise"]
    assert (revise.name, revise.is_answer, revise.render(PROBLEM, [], [])) == ("revise", True, "Is it so?")
    trained = Config("pocket-skilled").prompts_by_name()
    own = Config("pocket-skilled", prompts={"check": "Is it?"}).prompts_by_name()
    assert own.keys() == trained.keys() and own["check"] != trained["check"] and own["judge"] == trained["judge"]


# Roles on the command line


def test_a_role_is_written_before_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["~/m/large", "draft=~/m/small", "judge-2=http://host/v1?key=a"]
    assert roles_in("model", given) == {
        "main": "~/m/large",
        "draft": "~/m/small",
        "judge-2": "http://host/v1?key=a",
    }
    for path in ("http://host/v1?a=b", "./a=b", "Model=7b", "/m/a=b"):
        assert roles_in("model", [path]) == {"main": path}
    assert roles_in("model", ["model=7b"]) == {"model": "7b"}
    (tmp_path / "model=7b").mkdir()
    (tmp_path / "draft").mkdir()
    assert roles_in("model", ["model=7b", "draft=x"]) == {"main": "model=7b", "draft": "x"}
    assert roles_in("price", ["draft=1/2", "x=y"], {"draft"}) == {"draft": "1/2", "main": "x=y"}
    assert roles_in("model", ["a", "b"]) == {"main": "b"}, "the last one counts"
    with pytest.raises(InputError, match="model='draft=': give a value behind the role, as draft=VALUE"):
        roles_in("model", ["draft="])


def test_prompts_are_read_from_files(tmp_path: Path) -> None:
    file = tmp_path / "check.txt"
    file.write_text("Is {answer} right?")
    assert prompts_in([f"check={file}"]) == {"check": "Is {answer} right?"}
    with pytest.raises(InputError, match="prompt='check': write it as name=FILE"):
        prompts_in(["check"])
    with pytest.raises(InputError, match="cannot read the file"):
        prompts_in([f"check={tmp_path / 'nowhere'}"])


def test_ask_takes_several_models_and_prompts(thinktime: Command, tmp_path: Path, questions: tuple[str, ...]) -> None:
    command = ("ask", questions[0], "--strategy", "single", "--json")
    one = thinktime(*command)
    two = thinktime(*command, "--model", "pocket", "--model", "draft=pocket-retry")
    assert (one.code, two.code) == (0, 0), two.err
    found = json.loads(one.out)
    assert json.loads(two.out)["text"] == found["text"]
    (account,) = found["accounts"]
    assert (account["role"], account["usage"]) == ("model main", found["usage"])
    shell = thinktime(*command, "--environment", "shell")
    assert shell.code == 2 and "environment='shell': unknown; there are: calculator, key_value" in shell.err
    assert thinktime(*command, "--environment", "store=key_value", "--environment", "calculator").code == 0
    lacking = thinktime(*command, "--model", "draft=pocket")
    assert (lacking.code, lacking.err.count("\n")) == (2, 1) and "has to be the role 'main'" in lacking.err
    file = tmp_path / "words.txt"
    file.write_text("Is {answer} right?")
    unknown = thinktime(*command, "--prompt", f"chek={file}")
    assert unknown.code == 2 and "prompt='chek': unknown; did you mean 'check'" in unknown.err
    assert thinktime(*command, "--prompt", f"check={file}").code == 0


def test_a_bench_of_two_models_replays_from_its_bank(thinktime: Command, tmp_path: Path) -> None:
    bench = ("bench", "pocket", "--problems", "2", "--levels", "1", "--strategies", "single,best_of_n", "--n", "2")
    models = ("--model", "pocket", "--model", "draft=pocket-retry")
    live = thinktime(*bench, *models, "--scorer", "pocket", "--out", "live")
    assert live.code == 0, live.err
    bank = tmp_path / "live" / "bank.db"
    with sqlite3.connect(bank) as db:
        columns = "finish, state, usage, passes, at, log_weight"
        db.execute(f"INSERT INTO samples SELECT key || 'x', problem, 'small', {columns} FROM samples")
    replayed = thinktime(*bench, "--replay", "--bank", str(bank), "--out", "replayed")
    assert replayed.code == 0, replayed.err
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("live", "replayed")]
    assert results[0]["runs"] == results[1]["runs"]
    assert results[0]["model"].pop("models").keys() == {"main", "draft"}
    assert results[0]["model"] == results[1]["model"], "the bank has the role of each model"


def test_a_replay_can_read_the_samples_again(thinktime: Command, tmp_path: Path) -> None:
    bench = ("bench", "pocket", "--problems", "2", "--levels", "1", "--strategies", "single", "--out", "run")
    assert thinktime(*bench).code == 0
    again = thinktime(*bench, "--replay", "--reader", "boxed", "--force")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert again.code == 0 and result["reader"] == "boxed"
    assert [problem["answer"] for problem in result["runs"][0]["problems"]] == [None, None], "pocket writes no boxes"
    unknown = thinktime(*bench, "--reader", "box")
    assert unknown.code == 2 and "reader='box': unknown; did you mean 'boxed'" in unknown.err


def test_a_replay_of_a_bank_without_roles_needs_the_roles_of_its_models(thinktime: Command, tmp_path: Path) -> None:
    bench = ("bench", "pocket", "--problems", "2", "--levels", "1", "--strategies", "single,best_of_n", "--n", "2")
    live = thinktime(*bench, "--out", "live")
    assert live.code == 0, live.err
    bank = tmp_path / "live" / "bank.db"
    with sqlite3.connect(bank) as db:
        (name,) = db.execute("SELECT DISTINCT model FROM samples").fetchone()
        columns = "finish, state, usage, passes, at, log_weight"
        db.execute(f"INSERT INTO samples SELECT key || 'x', problem, 'small', {columns} FROM samples")
        db.execute("DROP TABLE roles")  # as in a bank of an earlier version
    unclear = thinktime(*bench, "--replay", "--bank", str(bank), "--out", "unclear")
    assert unclear.code == 2 and unclear.err.count("\n") == 1
    assert f"it has the models ['small', '{name}']; say which one is 'main': --model NAME" in unclear.err
    draft = ("--model", "pocket", "--model", "draft=small")
    replayed = thinktime(*bench, *draft, "--replay", "--bank", str(bank), "--out", "replayed")
    assert replayed.code == 0, replayed.err
    results = [json.loads((tmp_path / run / "result.json").read_text()) for run in ("live", "replayed")]
    assert results[0]["runs"] == results[1]["runs"]
    assert results[1]["model"].pop("models") == {"main": name, "draft": "small"}
    assert results[0]["model"] == results[1]["model"]


# A bank by roles


Roles = dict[str, dict[str, list[str]]]


class Names:
    """A bank with these names of models and scorers."""

    place = "bank.db"

    def __init__(self, models: list[str], scorers: list[str], roles: Roles) -> None:
        self.models, self.scorers = lambda: models, lambda: scorers
        self.roles = lambda kind: roles.get(kind, {})


def in_bank(
    config: Config, models: list[str], scorers: list[str], roles: Roles | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    found = open_replay(config, Names(models, scorers, roles or {}))  # type: ignore[arg-type]
    models_by_role, scorers_by_role = (
        {role: each.name for role, each in some.items()} for some in (found.models, found.scorers)
    )
    return models_by_role, scorers_by_role


def test_a_bank_of_one_model_and_one_scorer_needs_no_names() -> None:
    assert in_bank(Config(), ["a"], ["r"]) == ({"main": "a"}, {"main": "r"})
    assert in_bank(Config(scorers="none"), ["a"], []) == ({"main": "a"}, {})
    assert in_bank(Config(), ["a"], []) == ({"main": "a"}, {})


def test_names_in_a_bank_are_given_by_role_and_the_last_one_is_found() -> None:
    config = Config({"main": "pocket", "draft": "b"}, {"main": "s", "judge": "r"})
    assert in_bank(config, ["a", "b"], ["r", "s"]) == ({"main": "a", "draft": "b"}, {"main": "s", "judge": "r"})
    config = Config({"main": "a", "draft": "small"}, {"judge": "r"}, max_tokens=9)
    assert in_bank(config, ["a", "b"], ["r"]) == ({"main": "a", "draft": "b"}, {"judge": "r"})


def test_a_replay_uses_the_roles_that_the_bank_has_stored() -> None:
    roles: Roles = {"model": {"main": ["b"], "draft": ["a"]}, "scorer": {"main": ["r", "s"], "judge": ["t"]}}
    config = Config({"main": "pocket", "draft": "small"}, {"judge": "x"})
    with pytest.raises(InputError, match=r"scorers \['r', 's', 't'\]; say which one is 'main'"):
        in_bank(config, ["a", "b"], ["r", "s", "t"], roles)
    config = Config({"main": "pocket", "draft": "small"}, {"main": "s", "judge": "x"})
    assert in_bank(config, ["a", "b"], ["r", "s", "t"], roles) == (
        {"main": "b", "draft": "a"},
        {"main": "s", "judge": "t"},
    )
    assert in_bank(Config("a"), ["a", "b"], ["r"], roles) == ({"main": "a"}, {"main": "r"}), (
        "a name in the config replaces the stored role"
    )


@pytest.mark.parametrize(
    ("models", "scorers", "message"),
    [
        ([], [], "bank='bank.db': it has no samples to replay; give the bank of a run"),
        (["a", "b"], [], "say which one is 'main': --model NAME"),
        (["a"], ["r", "s"], r"it has the scorers \['r', 's'\]; say which one is 'main': --scorer NAME"),
    ],
)
def test_an_ambiguous_role_of_a_bank_is_named_in_the_error(models: list[str], scorers: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        in_bank(Config(), models, scorers)
    with pytest.raises(InputError, match="say which one is 'draft': --model draft=NAME"):
        in_bank(Config({"main": "a", "draft": "small"}), ["a"], [])


def test_the_verdicts_of_a_model_are_known_by_their_name() -> None:
    session = open_replay(Config(), Names(["a"], ["a/verdict"], {}))  # type: ignore[arg-type]
    assert session.scorers["main"].capabilities == {package.Capability.VERDICTS}


def test_the_error_for_an_unknown_environment_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="there are: calculator, key_value"):
        Config(environments="shell")


# Keys


def test_a_key_for_one_host_is_never_sent_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from thinktime.session import _key

    monkeypatch.setenv("THINKTIME_API_KEY", "of-main")
    monkeypatch.setenv("THINKTIME_SCORER_API_KEY", "of-scorer")
    here, there = "http://here/v1", "http://there/v1"
    config = Config({"main": here, "draft": there}, {"main": there, "judge": here})
    assert _key("main", here, "model", config) == "of-main"
    assert _key("draft", there, "model", config) is None
    assert _key("draft", "http://here/v1/chat", "model", config) == "of-main"
    assert _key("main", there, "scorer", config) == "of-scorer"
    assert _key("judge", here, "scorer", config) == "of-main"
    assert _key("judge", "http://elsewhere/v1", "scorer", config) is None
    monkeypatch.setenv("THINKTIME_DRAFT_API_KEY", "of-draft")
    assert _key("draft", there, "model", config) == "of-draft"
    assert _key("judge", there, "scorer", Config("pocket", {"judge": there})) == "of-scorer"


def test_solve_in_an_event_loop_says_what_to_write() -> None:
    async def cell() -> None:
        package.solve("3 + 4")

    with pytest.raises(InputError, match=r"await thinktime\.asolve"):
        asyncio.run(cell())
