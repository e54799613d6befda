"""A bench on a Ray cluster of several nodes has the result of one process, also if a worker or a node is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray_words
from commands import ran

from thinktime.bank.store import Bank

BENCH = (
    *("bench", "sums", "--model", "noted", "--scorer", "word_scores", "--max-tokens", "20"),
    *("--strategies", "single,majority,best_of_n", "--n", "4", "--out", "run"),
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the model is installed, for the path."""
    folder = tmp_path_factory.mktemp("installed")
    ray_words.entry_points(folder)
    return folder


@pytest.fixture(scope="module")
def cluster(installed: Path) -> Iterator[str]:
    """The address of a cluster of two nodes, each with room for one worker."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'thinktime[ray]'")
    path = os.pathsep.join([str(installed), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    settings = {
        "PYTHONPATH": path,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "300",
        "RAY_prestart_worker_first_driver": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        before = signal.getsignal(signal.SIGTERM)
        node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_log_monitor": False}
        nodes = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **node})
        nodes.add_node(wait=False, env_vars={ray_words.SECOND: "1"}, **node)
        yield nodes.address
        nodes.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def folder(tmp_path: Path, installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(installed))
    return tmp_path


def files(*options: str) -> tuple[str, str, str]:
    """What a bench writes, and what it says."""
    code, out, errors = ran(*BENCH, "--json", *options)
    assert code == 0, errors
    assert json.loads(out)["complete"]
    result, samples = (Path("run", name).read_text() for name in ("result.json", "samples.jsonl"))
    return result, samples, errors


@pytest.fixture
def alone(folder: Path) -> tuple[str, str]:
    """The files of one process; they are gone."""
    result, samples, _ = files()
    for name in ("run/bank.db", "run/result.json", "run/samples.jsonl", "drawn"):
        Path(name).unlink()
    return result, samples


def test_one_worker_has_the_result_of_one_process(cluster: str, alone: tuple[str, str]) -> None:
    assert files("--ray", cluster, "--ray-workers", "1")[:2] == alone
    assert len(ray_words.drawn()) == len(set(ray_words.drawn())) == ray_words.banked()


def test_a_killed_worker_changes_nothing_and_its_samples_are_not_lost(cluster: str, alone: tuple[str, str]) -> None:
    ray_words.WORKER.touch()
    *found, errors = files("--ray", cluster, "--ray-workers", "2")
    assert tuple(found) == alone
    assert errors.count("a worker is lost") == 1
    assert len(ray_words.drawn()) == len(set(ray_words.drawn())) == ray_words.banked()


def test_a_killed_node_changes_nothing(cluster: str, alone: tuple[str, str]) -> None:
    ray_words.NODE.touch()
    *found, errors = files("--ray", cluster)  # as many workers as have room: two
    assert tuple(found) == alone
    assert errors.count("a worker is lost") == 1


def refused(*options: str) -> str:
    """The line of a bench that is refused."""
    code, out, errors = ran(*BENCH, *options)
    assert (code, out) == (2, ""), errors
    (line,) = errors.splitlines()
    return line


@pytest.mark.usefixtures("folder")
def test_a_cluster_that_is_not_there_is_refused_at_once() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'thinktime[ray]'")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        for each in (address, f"ray://{address}"):
            assert refused("--ray", each).startswith(f"error: ray={each!r}: cannot connect (")
    assert refused("--ray", "everywhere").endswith("give local, auto, HOST:PORT or ray://HOST:PORT")


@pytest.mark.usefixtures("folder")
def test_options_that_do_not_fit_are_refused_before_ray_starts() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'thinktime[ray]'")
    assert "ray_workers=2: it belongs to --ray" in refused("--ray-workers", "2")
    assert "ray='local': a replay draws no samples" in refused("--ray", "local", "--replay")
    assert "ray='local': it shares out all problems" in refused("--ray", "local", "--shard", "1/2")
    assert "not for http://127.0.0.1:9/v1; leave out --ray" in refused(
        "--ray", "local", "--model", "http://127.0.0.1:9/v1"
    )
    assert "'--ray-workers'" in refused("--ray", "local", "--ray-workers", "0")


@pytest.mark.usefixtures("folder")
def test_a_bank_that_another_process_uses_is_refused_before_ray_starts() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'thinktime[ray]'")
    with Bank(Path("run/bank.db")):
        code, out, errors = ran(*BENCH, "--ray", "local")
    assert (code, out) == (1, "") and "this process is using it" in errors


@pytest.mark.usefixtures("folder")
def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "thinktime.bench.ray_workers", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, errors = ran(*BENCH, "--ray", "local")
    assert (code, out, errors) == (1, "", "error: ray is not installed: pip install 'thinktime[ray]'\n")
