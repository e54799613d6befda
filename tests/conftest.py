"""Fixtures of several test files: the shipped models, loaded once, and questions that they can read."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: a second thread makes them slower
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gc
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import Browser, chromium
from hypothesis import settings
from llama_server import serving
from postgres_server import PostgresServer, missing, running
from waiting import MovableClock

from thinktime.pocket import directory
from thinktime.pocket.problems import problems

if TYPE_CHECKING:
    from gateway_server import Start

    from thinktime.generators.local import LocalGenerator
    from thinktime.models.engine.models import LanguageModel, RewardModel
    from thinktime.scorers.prm import ProcessReward

settings.register_profile("thinktime", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("EXAMPLES", "5000")))
settings.load_profile("thinktime")

gc.set_threshold(50_000)  # imports and tests make few cycles, and a search for them takes long among so many modules


def pytest_collection_finish() -> None:
    """The modules and the tests stay to the end, so the garbage collector need not look at them again."""
    gc.freeze()


LONGEST = (
    "engine",
    "testing",
    "ray",
    "cli",
    "local",
    "scheduling",
    "skilled_model",
    "site",
    "gateway_page",
    "llama_server",
)
"""The files that take longest. They start first, so that at the end no worker has one of them alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


HEAVY = re.compile(r"\b(from|import) \S*(transformers|diffus)|transformers_\w+[:.]")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``, one worker gets all files whose imports take many seconds."""
    from xdist.scheduler import LoadFileScheduling

    if config.option.dist != "loadfile":
        return None
    config.option.loadscopereorder = False  # it would start the files with the fewest tests last, and some take longest
    heavy = {path.name for path in Path(__file__).parent.glob("test_*.py") if HEAVY.search(path.read_text())}

    class ByImports(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "heavy" if Path(file).name in heavy else file

    return ByImports(config, log)


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders that do not exist yet, without end."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(place) for place in count())


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, caches: Iterator[Path]) -> None:
    """Each test has its own cache of probes, apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(next(caches)))


@pytest.fixture(scope="session")
def solver_directory() -> Path:
    return directory("solver")


@pytest.fixture(scope="session")
def reward_directory() -> Path:
    return directory("reward")


@pytest.fixture(scope="session")
def questions() -> tuple[str, ...]:
    """Ten questions of the pocket task, two of each level."""
    return tuple(problem.question for problem in problems("test", 10, seed=11))


@pytest.fixture(scope="session")
def language_model(solver_directory: Path) -> LanguageModel:
    from thinktime.models.engine.models import load_language_model

    return load_language_model(solver_directory, "float64")


@pytest.fixture(scope="session")
def reward_model(reward_directory: Path) -> RewardModel:
    from thinktime.models.engine.models import load_reward_model

    return load_reward_model(reward_directory, "float64")


@pytest.fixture(scope="session")
def generator(solver_directory: Path) -> LocalGenerator:
    from thinktime.generators.local import LocalGenerator

    return LocalGenerator(solver_directory, dtype="float64")


@pytest.fixture(scope="session")
def reward(reward_directory: Path) -> ProcessReward:
    from thinktime.scorers.prm import ProcessReward

    return ProcessReward(reward_directory, dtype="float64")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MovableClock:
    """The clock of this process and of its event loops. A loop notices a move when it wakes for another reason."""
    clock = MovableClock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def start_gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a fake endpoint with the given behaviour, and a gateway in front of it that has probed it."""
    from fake_endpoint import Running
    from gateway_server import Serving, probe_first

    from thinktime.models.remote import client

    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    with ExitStack() as running:

        def start(settings: dict[str, Any] | None = None, probed: bool = True, **behaviour: Any) -> Any:
            upstream = Running(**behaviour)
            endpoint = upstream.__enter__()
            gateway = running.enter_context(Serving(endpoint.url, **(settings or {})))
            running.push(upstream)  # ends first, or the gateway would wait for requests that it never answers
            if probed:
                probe_first(endpoint, gateway)
            return endpoint, gateway

        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres server; where none can be started, the tests skip and say so."""
    if reason := missing():
        pytest.skip(reason)
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; where there is none, the tests skip and say so."""
    if chromium() is None:
        pytest.skip("no chromium or google-chrome on PATH: the page was not drawn")
    tab = Browser(tmp_path_factory.mktemp("profile"))
    tab.look(1400, 1000)
    yield tab
    tab.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Browser]:
    """A browser that must log no error."""
    browser.complaints.clear()
    yield browser
    browser.open("about:blank")
    assert browser.complaints == []


@pytest.fixture(scope="module")
def llama_cpp(solver_directory: Path) -> Iterator[str]:
    """llama.cpp's own server with the shipped solver: the root of its API."""
    with serving(solver_directory) as root:
        yield root


@pytest.fixture(scope="session")
def transformers_solver(solver_directory: Path) -> Any:
    """The shipped solver as ``transformers`` loads it, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(solver_directory, dtype="float32", local_files_only=True).eval()


@pytest.fixture(scope="session")
def transformers_tokenizer(solver_directory: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(solver_directory, local_files_only=True)
