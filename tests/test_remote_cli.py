"""The command line on an endpoint: runs, refusals before anything is spent, and resumed runs."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_endpoint
import pytest
from fake_endpoint import FakeEndpoint, Running, written

from thinktime import cli
from thinktime.bank.store import Bank
from thinktime.session import model_key

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with Running() as running:
        yield running


@pytest.fixture
def thinktime(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Command]:
    """The program's entry point in this process, in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("THINKTIME_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["thinktime", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.run()
        captured = capsys.readouterr()
        return left.value.code if isinstance(left.value.code, int) else 0, captured.out, captured.err

    yield run
    signal.signal(signal.SIGTERM, before)


def ask(endpoint: FakeEndpoint, *options: str) -> tuple[str, ...]:
    return ("ask", "what is 3 + 4", "--model", endpoint.url, *options)


@pytest.mark.parametrize(
    "strategy", ["single", "majority:n=8", "adaptive_consistency", "length_vote", "most_likely", "summed_probability"]
)
def test_strategies_without_a_scorer_run_on_endpoints(
    endpoint: FakeEndpoint, thinktime: Command, strategy: str
) -> None:
    code, out, err = thinktime(*ask(endpoint, "--model-name", "words", "--strategy", strategy, "--json"))
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["answer"] in ("7", "8", "9")
    assert answer["usage"]["flops"] is None and answer["usage"]["dollars"] is None


def test_the_printed_account_has_the_cost_and_marks_unknown_counts(endpoint: FakeEndpoint, thinktime: Command) -> None:
    options = ("--model-name", "words", "--strategy", "majority:n=4", "--price", "1000/2000", "--budget", "9usd")
    code, out, _ = thinktime(*ask(endpoint, *options))
    words = " ".join(out.split())
    assert code == 0 and "unknown reused" in words and "FLOPs unknown" in words and " dollars, " in words


@pytest.mark.parametrize(
    ("strategy", "lacks"),
    [("first_finish", "cancelling a sample at once"), ("best_of_n", "a scorer"), ("beam_search", "process rewards")],
)
def test_a_strategy_that_cannot_run_is_refused_before_sampling_and_near_ones_are_named(
    endpoint: FakeEndpoint, thinktime: Command, strategy: str, lacks: str
) -> None:
    endpoint.streams = False
    code, _, err = thinktime(*ask(endpoint, "--model-name", "words", "--strategy", strategy))
    assert code == 2 and lacks in err and "what would work, the nearest first:" in err and err.count("\n") == 1
    assert all("what is 3 + 4" not in json.dumps(body) for body in endpoint.requests)


def test_the_model_can_be_left_out_if_the_endpoint_has_only_one(
    endpoint: FakeEndpoint, thinktime: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = thinktime(*ask(endpoint, "--strategy", "single"))
    assert code == 2 and "it has: words, other-words" in err
    monkeypatch.setattr("fake_endpoint.MODELS", ("words",))
    code, out, _ = thinktime(*ask(endpoint, "--strategy", "single", "--json"))
    assert code == 0 and json.loads(out)["finish"] == "done"


@pytest.mark.parametrize("usual", [None, "its url"])
def test_the_key_comes_from_the_environment_and_is_never_shown(
    endpoint: FakeEndpoint, thinktime: Command, monkeypatch: pytest.MonkeyPatch, usual: str | None
) -> None:
    endpoint.key = "secret-1"
    code, _, err = thinktime(*ask(endpoint, "--strategy", "single"))
    assert code == 2 and "THINKTIME_API_KEY" in err
    options = ask(endpoint, "--model-name", "words", "--strategy", "single")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-1")
    code, _, err = thinktime(*options)
    assert code == 2 and "OPENAI_API_KEY is for OpenAI's host" in err
    if usual:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    else:
        monkeypatch.setenv("THINKTIME_API_KEY", "secret-1")
    code, out, err = thinktime(*options)
    assert code == 0 and "secret" not in out + err


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://openai.com.example.org/v1", False),
        ("https://notopenai.com/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_a_key_named_for_openai_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch, url: str, sent: bool) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-1")
    assert model_key(url) == ("secret-1" if sent else None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--model", "pocket", "--model-name", "words"), "model_name='words': this is for an endpoint"),
        (("--model", "pocket", "--price", "1/2"), "price='1/2': this is for an endpoint"),
        (("--reward-model", "pocket"), "this model knows only the words of its own task"),
        (("--price", "cheap"), "price='cheap': write dollars per million tokens"),
        (("--budget", "1usd"), "this model's dollars are unknown"),
        (("--budget", "1e12flops"), "this model's flops are unknown"),
        (("--model-name", "word"), "did you mean 'words'?"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    endpoint: FakeEndpoint, thinktime: Command, options: tuple[str, ...], says: str
) -> None:
    given = options if "--model-name" in options else ("--model-name", "words", *options)
    if options[0] == "--model":
        given = options
    code, _, err = thinktime(*ask(endpoint, "--strategy", "single", *given))
    assert code == 2 and says in err and err.count("\n") == 1


def test_a_dead_endpoint_is_one_line(thinktime: Command) -> None:
    dead = ("ask", "what", "--model", "http://127.0.0.1:9/v1", "--strategy", "single")
    for options in ((), ("--model-name", "words")):
        code, _, err = thinktime(*dead, *options)
        assert code == 1 and "cannot be reached" in err and err.count("\n") == 1


def test_a_bench_resumes_where_it_stopped_and_replays_without_the_endpoint(
    endpoint: FakeEndpoint, thinktime: Command, tmp_path: Path
) -> None:
    endpoint.n = "ignored"
    questions = [json.dumps({"question": f"what is {n} + 4", "answer": "7"}) for n in range(5)]
    (tmp_path / "sums.jsonl").write_text("\n".join(questions))
    bench = ("bench", "sums.jsonl", "--strategies", "single,majority", "--n", "4", "--max-tokens", "64", "--json")
    remote = (*bench, "--model", endpoint.url, "--model-name", "words")
    code, out, err = thinktime(*remote)
    assert code == 0, err
    first = json.loads(out)
    with Bank(tmp_path / "runs/bench/bank.db") as bank:
        assert len(bank) == 20
    endpoint.requests.clear()
    code, out, _ = thinktime(*remote)
    asked = [body for body in endpoint.requests if "what is" in json.dumps(body)]
    assert asked == [] and json.loads(out)["runs"] == first["runs"]
    code, out, err = thinktime(*bench, "--replay")
    assert code == 0, err
    assert [run["accuracy"] for run in json.loads(out)["runs"]] == [run["accuracy"] for run in first["runs"]]


def test_a_bench_leaves_out_failed_problems_and_a_second_run_repeats_them(
    endpoint: FakeEndpoint, thinktime: Command, tmp_path: Path
) -> None:
    endpoint.n = "ignored"
    questions = [json.dumps({"question": f"what is {n} + 4", "answer": "7"}) for n in range(5)]
    (tmp_path / "sums.jsonl").write_text("\n".join(questions))
    bench = ("bench", "sums.jsonl", "--strategies", "single", "--n", "1", "--max-tokens", "64", "--json")
    remote = (*bench, "--model", endpoint.url, "--model-name", "words")
    endpoint.spoils = "what is 2 + 4"
    code, out, err = thinktime(*remote)
    warning, error = err.splitlines()
    assert code == 1 and "1 problems could not be asked: endpoint=" in error
    assert warning.startswith("warning: single, n = 1: of 5 samples 1 missing")
    assert (json.loads(out)["complete"], json.loads(out)["runs"][0]["n_problems"]) == (False, 4)
    endpoint.spoils = ""
    code, out, _ = thinktime(*remote)
    assert code == 0 and json.loads(out)["complete"]


def test_a_judge_behind_http_chooses_among_samples_and_its_cost_is_reported(
    endpoint: FakeEndpoint, thinktime: Command
) -> None:
    options = (
        "--model-name",
        "words",
        "--scorer",
        endpoint.url,
        "--scorer-name",
        "words",
        "--strategy",
        "best_of_n:n=4",
    )
    code, out, err = thinktime(*ask(endpoint, *options, "--price", "1/2", "--scorer-price", "1/2", "--json"))
    assert (code, err) == (0, "")
    usage = json.loads(out)["usage"]
    assert usage["scorer_calls"] == 4 and usage["scorer_tokens"] > 0 and usage["dollars"] > 0


def test_a_reward_model_behind_http_guides_a_search(endpoint: FakeEndpoint, thinktime: Command) -> None:
    endpoint.rewards = "tags"
    scorer = f"http://127.0.0.1:{endpoint.port}/pooling"
    options = ("--model-name", "words", "--scorer", scorer, "--scorer-name", "words", "--aggregate", "min")
    code, out, err = thinktime(*ask(endpoint, *options, "--strategy", "beam_search:n=4,width=2", "--json"))
    assert (code, err) == (0, "") and json.loads(out)["usage"]["scorer_calls"] >= 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scorer-name", "words"), "scorer_name='words': this is for an endpoint; give its URL with --scorer"),
        (("--scorer-price", "1/2"), "scorer_price='1/2': this is for an endpoint"),
        (("--scorer", "http://127.0.0.1:9/pooling", "--scorer-name", "words"), "cannot be reached"),
        (("--scorer", "http://127.0.0.1:9/v1"), "cannot be reached"),
        (("--scorer", "verdicts"), "scorer='verdicts': an endpoint does not show its inside"),
        (("--scorer", "{url}", "--scorer-name", "wrods"), "did you mean 'words'"),
        (("--scorer", "{url}", "--scorer-name", "words", "--scorer-price", "cheap"), "price='cheap'"),
        (("--parameters", "0"), "parameters=0.0"),
        (("--model", "pocket", "--parameters", "1e9"), "give its URL with --model"),
    ],
)
def test_scorer_options_that_do_not_fit_are_one_line(
    endpoint: FakeEndpoint, thinktime: Command, options: tuple[str, ...], says: str
) -> None:
    given = [option.format(url=endpoint.url) for option in options]
    named = [] if "--model" in given else ["--model-name", "words"]
    code, _, err = thinktime(*ask(endpoint, *named, "--strategy", "best_of_n", *given))
    assert code in (1, 2) and says in err and err.count("\n") == 1


def test_the_key_of_one_host_is_not_sent_to_another(
    endpoint: FakeEndpoint, thinktime: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model-name", "words", "--strategy", "best_of_n:n=2", "--scorer-name", "words", "--scorer")
    with Running(key="secret-1") as judge:
        monkeypatch.setenv("THINKTIME_API_KEY", "secret-1")
        code, _, err = thinktime(*ask(endpoint, *options, judge.url))
        assert code == 2 and "api_key=None" in err
        monkeypatch.setenv("THINKTIME_SCORER_API_KEY", "secret-1")
        code, _, err = thinktime(*ask(endpoint, *options, judge.url))
        assert (code, err) == (0, "")


def test_flops_are_twice_the_given_parameters_per_token(endpoint: FakeEndpoint, thinktime: Command) -> None:
    options = (
        "--model-name",
        "words",
        "--strategy",
        "single",
        "--parameters",
        "1e9",
        "--budget",
        "1e13flops",
        "--json",
    )
    code, out, err = thinktime(*ask(endpoint, *options))
    usage = json.loads(out)["usage"]
    assert code == 0, err
    assert usage["flops"] == 2e9 * (usage["prompt_tokens"] + usage["generated_tokens"])


def test_an_endpoint_is_probed_once_a_day_and_again_on_request(endpoint: FakeEndpoint, thinktime: Command) -> None:
    single = ask(endpoint, "--model-name", "words", "--strategy", "majority:n=4")
    asked = []
    for _ in range(2):
        endpoint.requests.clear()
        assert thinktime(*single)[0] == 0
        asked.append(len(endpoint.requests))
    assert asked == [7, 1]
    endpoint.n = "ignored"
    code, out, err = thinktime("probe", endpoint.url, "--model-name", "words", "--json")
    assert (code, err) == (0, "") and json.loads(out)["n"] is False
    endpoint.requests.clear()
    assert thinktime(*single)[0] == 0
    assert not any("n" in body for body in endpoint.requests) and len(endpoint.requests) == 4


def test_the_result_of_a_probe_is_printed_in_words(endpoint: FakeEndpoint, thinktime: Command) -> None:
    endpoint.thinks = "apart"
    code, out, _ = thinktime("probe", endpoint.url, "--model-name", "words")
    assert code == 0 and re.search(r"shows thoughts +apart", out) and re.search(r"seeds +yes", out)
    code, _, err = thinktime("probe", "http://127.0.0.1:9/v1")
    assert code == 1 and "cannot be reached" in err and err.count("\n") == 1


@pytest.mark.parametrize(("port", "says"), [("99999", "port=99999"), ("-1", "port=-1")])
def test_a_score_server_that_cannot_listen_is_one_line(thinktime: Command, port: str, says: str) -> None:
    code, _, err = thinktime("score-server", "--port", port)
    assert code == 2 and says in err and err.count("\n") == 1


def test_a_score_server_of_no_reward_model_is_one_line(thinktime: Command, tmp_path: Path) -> None:
    code, _, err = thinktime("score-server", "--reward-model", str(tmp_path / "none"), "--port", "0")
    assert code == 2 and err.count("\n") == 1


HOSTILE = "\x1b[2J\x1b]0;title\x07\x1bP1q\x1b\\\x9b31m\u202eevil\u2066\x00\x08"
"""Text that clears a terminal, sets its title, draws, and turns the line around."""


def test_escapes_of_a_model_or_a_server_do_not_reach_the_terminal(
    endpoint: FakeEndpoint, thinktime: Command, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.says = [f"{HOSTILE} The answer is 7"]
    printed = [thinktime(*ask(endpoint, "--model-name", "words", "--strategy", "single", "--tree"))]
    error = {"error": {"message": HOSTILE, "type": HOSTILE, "code": HOSTILE}}
    for status in (400, 401, 404, 422):
        endpoint.sent.append(written(error, status=status))
        printed.append(thinktime(*ask(endpoint, "--model-name", f"{status}", "--strategy", "single")))
    for body in (error, {"choices": [{"error": error, "finish_reason": HOSTILE}]}, HOSTILE.encode(), {"a": HOSTILE}):
        endpoint.sent.extend([written(body)] * 40)
        printed.append(thinktime(*ask(endpoint, "--model-name", "words", "--strategy", "single")))
        endpoint.sent.clear()
    printed.append(thinktime("probe", endpoint.url, "--model-name", HOSTILE))
    shown = "".join(out + err for _, out, err in printed) + caplog.text
    assert "evil" in shown and "The answer is 7" in shown
    assert not set(shown) & set("\x1b\x07\x9b\u202e\u2066\x00\x08") and "Traceback" not in shown


def sums(path: Path, n: int) -> Path:
    """A task of n questions."""
    path.write_text("\n".join(json.dumps({"question": f"what is {i} + 4", "answer": "7"}) for i in range(n)))
    return path


@pytest.mark.parametrize(
    ("slots", "options", "most"),
    [(3, (), 3), (3, ("--concurrency", "2"), 2), (None, (), 32), (None, ("--concurrency", "40"), 40)],
)
def test_a_bench_sends_as_many_requests_as_the_server_has_slots(
    endpoint: FakeEndpoint, thinktime: Command, tmp_path: Path, slots: int | None, options: tuple[str, ...], most: int
) -> None:
    endpoint.slots, endpoint.n, endpoint.latency = slots, "ignored", 0.02
    task = sums(tmp_path / "sums.jsonl", 48)
    remote = ("--model", endpoint.url, "--model-name", "words", "--max-tokens", "64", *options)
    assert thinktime("bench", str(task), "--strategies", "single", "--n", "1", *remote)[0] == 0
    assert endpoint.busiest == most


def test_an_abandoned_request_is_counted_and_those_that_waited_behind_it_are_answered(
    endpoint: FakeEndpoint, thinktime: Command, tmp_path: Path
) -> None:
    task = sums(tmp_path / "sums.jsonl", 12)
    remote = ("--model", endpoint.url, "--model-name", "words", "--max-tokens", "64", "--concurrency", "1")
    bench = ("bench", str(task), "--strategies", "single", "--n", "1", "--json", *remote, "--timeout", "1")
    assert thinktime(*ask(endpoint, "--model-name", "words", "--strategy", "single"))[0] == 0  # probes the endpoint
    endpoint.faults = deque(["never"])
    code, out, errors = thinktime(*bench)
    (run,) = json.loads(out)["runs"]
    assert run["n_problems"] == 11 and (run["samples"]["total"], run["samples"]["timed_out"]) == (12, 1)
    assert code == 1 and "single, n = 1: of 12 samples 1 timed out" in errors and "no answer in 1." in errors


def test_the_share_of_tokens_is_checked(thinktime: Command) -> None:
    code, _, errors = thinktime("ask", "what?", "--top-p", "0")
    assert code == 2 and "top_p=0.0: give a number above 0" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--timeout", "0", "--model", "http://127.0.0.1:1/v1"), "timeout=0.0: give seconds above 0"),
        (("--timeout", "5"), "timeout=5.0: this is for an endpoint"),
        (("--concurrency", "0"), "concurrency=0: give 1 or more"),
    ],
)
def test_limits_of_requests_are_checked(thinktime: Command, options: tuple[str, ...], message: str) -> None:
    code, _, errors = thinktime("bench", *options)
    assert code == 2 and message in errors


def test_a_model_with_escapes_in_its_name_is_asked_benched_replayed_and_examined(
    endpoint: FakeEndpoint, thinktime: Command, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = HOSTILE.replace("\0", "")
    monkeypatch.setattr(fake_endpoint, "MODELS", (name,))
    endpoint.says = [f"{HOSTILE} The answer is {HOSTILE}7"]
    question = {"question": f"what is {HOSTILE}3 + 4?", "answer": f"7{HOSTILE}"}
    Path("questions.jsonl").write_text(json.dumps(question) + "\n")
    sample = {"prompt": HOSTILE, "response": f"The answer is 7{HOSTILE}", "label": HOSTILE}
    Path("samples.jsonl").write_text((json.dumps(sample) + "\n") * 2)
    entries = ("--strategies", "single,majority", "--n", "2")
    runs = [
        ask(endpoint, "--strategy", "majority:n=2", "--tree"),
        ("bench", "questions.jsonl", "--model", endpoint.url, *entries, "--out", "live"),
        ("bench", "questions.jsonl", "--replay", "--bank", "live/bank.db", *entries, "--out", "again"),
        ("doctor", endpoint.url),
        ("probe", endpoint.url),
    ]
    printed = [thinktime(*each) for each in runs]
    assert [code for code, _, _ in printed] == [0] * len(runs), printed
    printed.append(thinktime("replay", "samples.jsonl", "--samples", "response"))
    shown = "".join(out + err for _, out, err in printed) + caplog.text
    assert "evil" in shown and not set(shown) & set("\x1b\x07\x9b\u202e\u2066\x00\x08") and "Traceback" not in shown
    live, again = (json.loads(Path(folder, "result.json").read_text()) for folder in ("live", "again"))
    assert live["runs"] == again["runs"]


def test_a_replay_has_the_limits_of_the_model_in_its_bank(endpoint: FakeEndpoint, thinktime: Command) -> None:
    Path("questions.jsonl").write_text(json.dumps({"question": "what is 3 + 4?", "answer": "7"}) + "\n")
    bench = ("bench", "questions.jsonl", "--strategies", "majority", "--n", "2", "--out", "run")
    assert thinktime(*bench, "--model", endpoint.url, "--model-name", "words")[0] == 0
    asked = len(endpoint.requests)
    assert thinktime(*bench, "--replay")[0] == 0 and len(endpoint.requests) == asked
