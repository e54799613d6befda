"""`thinktime doctor` says what a model or an endpoint can do, and its verdicts are those of the other commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import ran
from fake_endpoint import FakeEndpoint, Running
from tiny import tiny_directory_in


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    for name in ("THINKTIME_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Running() as running:
        yield running


def examined(*arguments: str) -> dict[str, Any]:
    """The JSON object of a doctor."""
    code, out, err = ran("doctor", *arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def row(label: str, *arguments: str) -> str:
    """The text of a row, and of the lines that continue it."""
    code, out, err = ran("doctor", *arguments)
    assert code == 0, err
    _, found, rest = out.partition(f"{label}  ")
    assert found, out
    first, *others = rest.splitlines()
    continued = others[: next(place for place, line in enumerate(others) if not line.startswith(" " * 20))]
    return " ".join(" ".join([first, *continued]).split())


def edited(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# Endpoints


def test_a_strategy_runs_or_is_refused_as_the_doctor_says(endpoint: FakeEndpoint) -> None:
    verdicts = examined(endpoint.url, "--model-name", "words")["strategies"]
    assert verdicts["majority"] is None and verdicts["beam_search"]["lacks"] == ["process rewards"]
    ask = ("ask", "what is 3 + 4", "--model", endpoint.url, "--model-name", "words", "--max-tokens", "64", "--strategy")
    for name, why in verdicts.items():
        code, _, err = ran(*ask, name)
        if why is None:  # a strategy may fail if it cannot read what the model says
            assert code in (0, 1), (name, err)
        else:
            assert (code, err) == (2, f"error: {why['reason']}\n")


def test_a_scorer_changes_what_runs(endpoint: FakeEndpoint) -> None:
    given = (endpoint.url, "--model-name", "words")
    without, scored = examined(*given), examined(*given, "--scorer", "pocket")
    assert without["scorer"] is None and scored["scorer"].startswith("reward@")
    assert without["strategies"]["beam_search"] is not None and scored["strategies"]["beam_search"] is None


@pytest.mark.parametrize(
    ("behaviour", "label", "says"),
    [
        ({}, "counts wrongly", "nothing seen"),
        ({"counts_all": False}, "counts wrongly", "counts one sample of several, so the listed log-probabilities"),
        ({"counts_all": False, "logprobs": False}, "counts wrongly", "so each sample has a request of its own"),
        ({"usage": False}, "counts wrongly", "It reports no usage, so every sample is charged its upper bound."),
        ({"usage": False}, "cost of this probe", "unknown"),
        ({"stops": "unlisted"}, "counts wrongly", "A stop string is counted, but has no log-probability."),
        ({"lists_models": False}, "listed models", "none"),
        ({"n": "ignored"}, "several samples per request (n)", "no"),
        ({"thinks": "apart"}, "shows thoughts", "apart"),
    ],
)
def test_a_trait_of_an_endpoint_is_a_row(
    endpoint: FakeEndpoint, behaviour: dict[str, Any], label: str, says: str
) -> None:
    vars(endpoint).update(behaviour)
    assert says in row(label, endpoint.url, "--model-name", "words")


def test_the_probe_is_anew_and_its_cost_is_that_of_the_endpoint(endpoint: FakeEndpoint) -> None:
    given = (endpoint.url, "--model-name", "words", "--price", "1000/2000")
    for _ in range(2):
        endpoint.prompt_tokens = endpoint.generated_tokens = 0
        cost = examined(*given)["probe"]
        assert endpoint.generated_tokens == cost["generated_tokens"] > 0
        assert endpoint.prompt_tokens == cost["prompt_tokens"]
        assert cost["dollars"] == pytest.approx((1000 * cost["prompt_tokens"] + 2000 * cost["generated_tokens"]) / 1e6)


def test_the_model_can_be_left_out_if_there_is_one(endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran("doctor", endpoint.url)[::2] == (
        2,
        f"error: model_name=None: name a model of {endpoint.url}; it has: words, other-words\n",
    )
    monkeypatch.setattr("fake_endpoint.MODELS", ("words",))
    assert examined(endpoint.url)["model"] == "words"


def test_a_refused_key_is_an_error_of_the_user_and_no_key_is_shown(
    endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.key = "secret-1"
    code, _, err = ran("doctor", endpoint.url, "--model-name", "words")
    assert code == 2 and "THINKTIME_API_KEY" in err and err.count("\n") == 1
    monkeypatch.setenv("THINKTIME_API_KEY", "secret-1")
    code, out, err = ran("doctor", endpoint.url, "--model-name", "words")
    assert (code, err) == (0, "") and "secret" not in out


def test_an_endpoint_that_is_not_there_is_a_failure() -> None:
    code, _, err = ran("doctor", "http://127.0.0.1:9/v1")
    assert code == 1 and "cannot be reached" in err and err.count("\n") == 1


# Models


def test_a_shipped_model_fits_one_screen() -> None:
    found = examined("pocket")
    assert (found["family"], found["context"], found["end_tokens"]) == ("llama", 512, ["<|end|>"])
    assert 0 < found["largest_difference"] < 1e-4 and found["matches_transformers"]
    assert found["strategies"]["beam_search"] is None and found["strategies"]["self_refine"] is not None
    code, out, _ = ran("doctor", "pocket")
    assert code == 0 and len(out.splitlines()) <= 40 and max(map(len, out.splitlines())) <= 110


def test_a_model_that_differs_from_transformers_is_not_to_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinktime.models.engine.transformers_model.TOLERANCE", 1e-9)
    assert "do not trust it" in row("compared with transformers", "pocket")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_directory_in(tmp_path / "tiny")


REFUSES = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.content }}"
)

RUDE = "{% for m in messages %}{% if 'briefly' in m.content %}{{ raise_exception('rude') }}{% endif %}.{% endfor %}"


@pytest.mark.parametrize(
    ("template", "system", "repeated"),
    [
        ("{{ messages[0].content }}{{ messages[-1].content }}", "accepted", "accepted"),
        (REFUSES + "{% endfor %}", "it refuses these roles (no system), so turns are joined", "accepted"),
        ("{{ messages[-1].content }}", "it drops the system turn, so turns are joined", "accepted"),
        (RUDE, "refused: prompt='system, user': the model's chat template refuses it: rude", "accepted"),
    ],
)
def test_the_rules_of_a_template_are_rows(tiny: Path, template: str, system: str, repeated: str) -> None:
    edited(tiny / "tokenizer_config.json", chat_template=template)
    roles = examined(str(tiny))["roles"]
    assert roles["system turn"].startswith(system) and roles["repeated roles"].startswith(repeated)


def test_a_model_without_a_template_says_so(tiny: Path) -> None:
    edited(tiny / "tokenizer_config.json", chat_template=None)
    assert examined(str(tiny))["roles"] is None
    assert row("chat template", str(tiny)) == "none; the question itself is the prompt"


def test_another_family_runs_in_transformers(tiny: Path) -> None:
    edited(tiny / "config.json", architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=None)
    found = examined(str(tiny), "--dtype", "float32")
    assert found["family"] == "mistral" and found["runs_in"].startswith("transformers") and found["bytes"] > 0
    assert found["dtype"] == "float32" and found["largest_difference"] < 1e-3


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", "{", "not JSON"),
        ("config.json", '{"architectures": ["GPT2LMHeadModel"]}', "it holds a GPT2LMHeadModel"),
        ("config.json", '{"architectures": ["OwnForCausalLM"], "model_type": "own"}', "model_type='own'"),
        ("model.safetensors", "no weights", "cannot load it"),
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("tokenizer_config.json", "{}", "no file names an end token"),
    ],
)
def test_a_directory_that_cannot_be_used_has_the_reason_of_other_commands(
    tiny: Path, name: str, content: str, says: str
) -> None:
    (tiny / name).write_text(content)
    code, out, err = ran("doctor", str(tiny))
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    assert ran("ask", "what?", "--model", str(tiny), "--strategy", "single")[2] == err


def test_a_folder_that_is_not_there_is_an_error_of_the_user(tmp_path: Path) -> None:
    code, _, err = ran("doctor", str(tmp_path / "nothing"))
    assert code == 2 and "there is no such directory" in err and err.count("\n") == 1
