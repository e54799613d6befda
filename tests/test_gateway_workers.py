"""Several processes serve one port: they replace each other, count together and drain together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Running
from gateway_server import KEY, PLAIN, keyed, serve
from prometheus_client.parser import text_string_to_metric_families
from waiting import PATIENCE, eventually

from thinktime.core.errors import InputError
from thinktime.core.usage import Budget
from thinktime.gateway.config import GatewayConfig, Key, digest
from thinktime.gateway.page import merged
from thinktime.gateway.snapshots import Snapshots

UPSTREAM = "http://127.0.0.1:9/v1"


def processes_of(program: subprocess.Popen[str]) -> set[int]:
    """The processes that serve."""
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    return {int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


def ask(url: str, path: str = "/v1/chat/completions", body: Any = PLAIN) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        return str(reply.read().decode())


def counted(text: str) -> float:
    """The answered chats in metrics."""
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if sample.name == "thinktime_requests_total"]
    return sum(sample.value for sample in samples if "chat" in sample.labels["path"])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux, to see the processes")
def test_a_killed_process_is_replaced_and_a_signal_drains_all(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("w")  # a path of a socket has about 100 characters at most

    def kept() -> float:
        return sum(counted(file.read_text()) for file in tmp_path.glob("thinktime-*/*") if not file.suffix)

    with Running() as endpoint, ExitStack() as ending:
        program = serve("--upstream", endpoint.url, "--port", "0", "--workers", "2", TMPDIR=str(tmp_path))
        ending.callback(program.kill)
        assert program.stdout is not None
        url = program.stdout.readline().split()[0].removesuffix("/v1")
        assert eventually(lambda: len(processes_of(program)) == 2)
        before = processes_of(program)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, [url] * 16))
        assert eventually(lambda: kept() == 16)
        assert counted(ask(url, "/metrics", None)) == 16
        assert eventually(lambda: json.loads(ask(url, "/ui/requests", None))["silent"] == 0)
        page = json.loads(ask(url, "/ui/requests", None))
        assert page["processes"] == 2
        rows = page["requests"]
        assert len(rows) == 16 and {int(row["number"].split("-")[0]) for row in rows} <= before
        assert [row["at"] for row in rows] == sorted((row["at"] for row in rows), reverse=True)
        assert [model["requests"] for model in page["models"]] == [16]
        assert page["keys"][0]["usage"]["model_calls"] == 16
        assert not json.loads(ask(url, f"/ui/requests?since={page['version']}", None))["requests"]
        for row in rows[:4]:  # whichever process the system gives the connection to
            assert json.loads(ask(url, f"/ui/requests/{row['number']}", None))["request"]["at"] == row["at"]
        os.kill(max(before), signal.SIGSTOP)
        assert json.loads(ask(url, "/ui/requests", None))["silent"] == 1
        os.kill(max(before), signal.SIGCONT)
        os.kill(min(before), signal.SIGKILL)
        assert eventually(lambda: min(before) not in (now := processes_of(program)) and len(now) == 2)
        for _ in range(4):
            ask(url)
        assert eventually(lambda: kept() == 20)
        assert counted(ask(url, "/metrics", None)) == 20, "what a killed process has answered still counts"
        page = json.loads(ask(url, "/ui/requests", None))
        assert all(not n.startswith(f"{min(before)}-") for n in page["numbers"])
        endpoint.latency = 2.0
        asked = len(endpoint.requests)
        replies: list[str] = []
        last = threading.Thread(target=lambda: replies.append(ask(url)))
        last.start()
        assert eventually(lambda: len(endpoint.requests) > asked)
        program.send_signal(signal.SIGTERM)
        last.join(PATIENCE)
        out, errors = program.communicate(timeout=PATIENCE)
    assert "choices" in replies[0] and program.returncode == 0 and out == ""
    (line,) = errors.splitlines()
    assert f"process {min(before)} ended (-9); another one starts" in line


def test_a_process_that_cannot_start_ends_all_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[models.draft]\nmodel = "small"\nkey_variable = "NOT_SET"')
    program = serve("--upstream", UPSTREAM, "--port", "0", "--workers", "2", "--config", str(file))
    out, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == 2 and out == ""
    assert errors == "error: models.draft.key_variable='NOT_SET': set this environment variable\n"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bank": "bank.db"}, "a bank in a file has one process"),
        ({"budget": Budget(tokens=9)}, "budgets of keys or of the gateway need a shared bank"),
        (keyed(Budget(dollars=1)), "budgets of keys or of the gateway need a shared bank"),
        ({"key_store": "keys.db"}, "budgets of keys or of the gateway need a shared bank"),
        ({"keys": (Key("ann", digest(KEY), requests_per_minute=9),)}, "rates need a shared bank"),
    ],
)
def test_what_processes_cannot_keep_together_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=rf"workers=2: {says}.*give --bank postgresql://USER@HOST/DATABASE, or 1"):
        GatewayConfig(UPSTREAM, workers=2, **settings)
    assert GatewayConfig(UPSTREAM, **settings).workers == 1
    if "bank" not in settings:
        assert GatewayConfig(UPSTREAM, workers=2, bank="postgresql://ann@db/thinktime", **settings).workers == 2


def shown(process: int, calls: int | None) -> dict[str, Any]:
    """What the page shows of a process with one request, of which so many calls are known."""
    row = {"name": "ann", "usage": {"model_calls": calls}}
    model = {"key": "ann", "model": "words", "requests": 1, "usage": {"model_calls": calls}}
    requests = [{"number": f"{process}-1", "at": float(process)}]
    about = {"process": process, "version": 7, "numbers": [f"{process}-1"]}
    return about | {"requests": requests, "keys": [row], "models": [model], "server": {**row, "name": ""}}


@pytest.mark.parametrize(("shared", "calls"), [(True, 2), (False, 5)])
def test_the_page_adds_up_what_processes_do_not_share(shared: bool, calls: int) -> None:
    found = merged([shown(11, 2), shown(12, 3)], shared=shared)
    assert found["version"] == "11:7,12:7" and found["numbers"] == ["11-1", "12-1"]
    assert [row["number"] for row in found["requests"]] == ["12-1", "11-1"], "the newest first"
    assert found["keys"][0]["usage"]["model_calls"] == found["server"]["usage"]["model_calls"] == calls
    assert (found["models"][0]["requests"], found["models"][0]["usage"]["model_calls"]) == (2, 5)
    unknown = merged([shown(11, 2), shown(12, None)], shared=False)
    assert unknown["keys"][0]["usage"]["model_calls"] is None


OWN = b"""# TYPE thinktime_requests_total counter
thinktime_requests_total{path="/v1/x"} 2
# TYPE thinktime_requests_in_flight gauge
thinktime_requests_in_flight 1
# TYPE thinktime_bank_reachable gauge
thinktime_bank_reachable 1
# TYPE thinktime_spent_total counter
thinktime_spent_total{key="ann",what="generated_tokens"} 7
thinktime_spent_total{key="bob",what="generated_tokens"} 9
"""


@pytest.mark.parametrize("shared", [True, False])
def test_metrics_of_processes_are_added_up(tmp_path: Path, shared: bool) -> None:
    one, two, gone = (Snapshots(tmp_path, shared) for _ in range(3))
    two.write(OWN.replace(b"ble 1", b"ble 0"))
    gone.write(OWN)
    os.utime(gone._own, (0, 0))
    text = one.merged(OWN, ["ann"]).decode()
    assert 'requests_total{path="/v1/x"} 6.0' in text and "in_flight 2.0" in text and "reachable 0.0" in text
    assert f'spent_total{{key="ann",what="generated_tokens"}} {7.0 if shared else 21.0}' in text
    assert "bob" not in text
