"""The pages of the site: their commands, their code and their links work, and each page can be reached."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from commands import ran
from gateway_server import Start
from markdown_it import MarkdownIt

import thinktime
from docs import generated
from experiments.__main__ import ROWS
from thinktime.strategies import BUILT_IN

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([DOCS / "start.md", *DOCS.glob("*/*.md")])
"""The pages whose commands and code are run. The others of the folder are older, and are tested elsewhere."""
OTHERS = ("*.md", "training/LOG.md", "*/README.md", "*/*/README.md")
LINKED = sorted(
    page
    for page in [*DOCS.rglob("*.md"), *(page for pattern in OTHERS for page in ROOT.glob(pattern))]
    if not page.relative_to(ROOT).parts[0].startswith(".")  # caches of tools have pages of their own
)
"""The pages whose links are checked."""
NOT_RUN = {
    "pip install": "installs packages",
    "vllm serve|llama-server|ray start": "starts another program",
    "--ray auto": "needs a cluster, which takes many seconds to start; tests/test_ray.py runs one",
    "(models|data) pull": "downloads",
    "--model ~/|/pooling": "needs a model of the reader",
    "python -m": "takes minutes or hours",
    "make (test|light|release|dist)": "tests and builds everything",
    "^git |twine": "publishes",
    "podman|docker|helm|systemctl": "needs a container runtime, a cluster or systemd",
    "^python3.11 -m venv|/opt/thinktime|^install ": "installs the gateway as a service",
    "--install-completion": "changes the settings of the user's shell",
    "doctor pocket": "compares with transformers, which takes seconds; tests/test_doctor.py runs it",
}
"""The commands that no test runs, and why. Their options are checked, and their modules have to exist."""
SMALLER = {
    "gsm8k-program --model qwen2.5-coder-0.5b-instruct": "pocket --levels 1 --max-tokens 60",
    r"--limit \d+": "--problems 1",
    "--problems 20 --levels 1,2": "--problems 1 --levels 1 --max-tokens 60",
}
"""What replaces the real model, its problems, and many problems where a command runs."""
ELSEWHERE = {r"http://127.0.0.1:(8000|9000|4000)/v1": "{endpoint}", r"http://127.0.0.1:9501/v1": "{gateway}"}
"""The addresses of the endpoint and the gateway, which a simulated endpoint and a gateway of the test replace."""


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language and the text of each code block of a page."""
    for token in MarkdownIt().parse(text):
        if token.type == "fence":
            yield token.info, token.content


def lines(block: str) -> list[str]:
    """The commands of a block; a backslash at the end of a line continues it."""
    return [line for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip()]


def not_run(command: str) -> bool:
    return any(re.search(pattern, command) for pattern in NOT_RUN)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_gateway: Start) -> Callable[[Path], None]:
    """Runs a page from its first block to its last one, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("thinktime.gateway.server.serve", lambda config, scorer: None)  # would serve for ever
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "bash"))
    (tmp_path / "questions.jsonl").write_text('{"question": "what is 3 + 4", "answer": "7"}\n')

    def whole(page: Path) -> None:
        text = page.read_text()
        if "http://127.0.0.1" in text:
            endpoint, gateway = start_gateway()
            for pattern, name in ELSEWHERE.items():
                text = re.sub(pattern, name.format(endpoint=endpoint.url, gateway=gateway.url), text)
            text = text.replace("qwen3-8b", "words")
        for place, (language, block) in enumerate(blocks(text)):
            if language == "bash":
                output = " ".join(answer(command) for command in lines(block) if not not_run(command))
            elif language == "text":
                for line in lines(block):
                    assert re.search(re.escape(" ".join(line.split())).replace("…", ".*"), output), (line, output)
            elif language in ("python", "toml"):
                use(block, f"block{place}")

    def use(block: str, name: str) -> None:
        """Keep a block that begins with the name of a file, install an entry point, or run the code."""
        if named := re.match(r"# (\w+\.\w+)\n", block):
            (tmp_path / named[1]).write_text(block)
        elif point := re.search(r'^\[project\.entry-points\."(.+)"\]\n(.*)', block, re.MULTILINE):
            about = tmp_path / "installed" / "mine-1.dist-info"
            about.mkdir(parents=True)
            (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
            (about / "entry_points.txt").write_text(f"[{point[1]}]\n{point[2]}\n".replace('"', ""))
            monkeypatch.syspath_prepend(str(about.parent))
        else:
            page = sys.modules[name] = ModuleType(name)  # a dataclass looks its module up
            exec(compile(block, name, "exec"), vars(page))

    def answer(command: str) -> str:
        """Everything that a command prints, with single spaces."""
        for pattern, small in SMALLER.items() if "thinktime bench" in command else ():
            command = re.sub(pattern, small, command)
        words = shlex.split(command)
        with pytest.MonkeyPatch.context() as only_here:
            while re.fullmatch(r"[A-Z_]+=.*", words[0]):
                only_here.setenv(*words.pop(0).split("=", 1))
            return printed(words)

    def printed(words: Sequence[str]) -> str:
        if words[0] == "curl":
            url, body = next(word for word in words if "://" in word), words[words.index("-d") + 1]
            request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as reply:
                return str(reply.read().decode())
        assert words[0] == "thinktime"
        code, out, errors = ran(*words[1:])
        assert code == 0, (words, errors)
        return " ".join(out.split())

    return whole


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_runs(page: Path, run: Callable[[Path], None]) -> None:
    run(page)


def test_commands_that_are_not_run_have_known_options_and_modules() -> None:
    known = dict(generated.commands())
    for page in PAGES:
        commands = [line for language, block in blocks(page.read_text()) if language == "bash" for line in lines(block)]
        for words in map(shlex.split, filter(not_run, commands)):
            if words[:2] == ["python", "-m"]:
                assert find_spec(words[2]) and (words[2] != "experiments" or words[3] in ROWS), words
            elif words[0] == "thinktime":
                path = next(" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in known)
                options = {option for each in known[path].command.get_params(known[path]) for option in each.opts}
                assert {word for word in words if word.startswith("--")} <= options, words


def test_the_reasons_for_commands_that_are_not_run_are_all_needed() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert [pattern for pattern in NOT_RUN if not re.search(pattern, text)] == []


def whole(page: Path) -> str:
    """A page with the parts that are made from the code."""
    return re.sub(r"```\{generated\} (\w+)\n```", lambda match: getattr(generated, match[1])(), page.read_text())


def links_and_anchors(text: str) -> tuple[set[str], set[str]]:
    """Where a page leads, and the names of its headings in addresses."""
    links, anchors = set(), set()
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for place, token in enumerate(tokens):
        for inside in token.children or ():
            links |= {str(inside.attrs[name]) for name in ("href", "src") if name in inside.attrs}
        if token.type == "heading_open":
            title = "".join(inside.content for inside in tokens[place + 1].children or ())
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            anchors.add(next(name for n in range(99) if (name := f"{anchor}-{n}" if n else anchor) not in anchors))
    return links, anchors


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    found = {page: links_and_anchors(whole(page)) for page in LINKED}
    broken = []
    for page, (links, _) in found.items():
        for link in links:
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = Path(os.path.normpath(ROOT / path[1:] if path.startswith("/") else page.parent / path))
            target = target if path else page
            if not target.exists() or (anchor and target in found and anchor not in found[target][1]):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_page_is_in_the_navigation() -> None:
    trees = [block for language, block in blocks((DOCS / "index.md").read_text()) if language == "{toctree}"]
    named = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    patterns = [os.path.normpath(f"docs/{name}.md") for name in named]
    pages = [str(page.relative_to(ROOT)) for page in LINKED if page != DOCS / "index.md"]
    lost = [page for page in pages if not any(fnmatch.fnmatch(page, pattern) for pattern in patterns)]
    assert lost == [], "add them to a toctree of docs/index.md"
    assert [pattern for pattern in patterns if not fnmatch.filter(pages, pattern)] == []


def test_the_reference_has_every_command_setting_field_and_strategy() -> None:
    cli, methods, results = generated.cli(), generated.methods(), generated.result()
    assert all(f"## {path}\n" in cli for path, _ in generated.commands())
    assert "| `--temperature <float>` | Sampling temperature; 0 is greedy. [default: 1.0] |" in cli
    assert all(f"### {name}\n" in methods for name in BUILT_IN)
    assert "(/experiments/ets/README.md)" in methods.partition("### ets")[2].partition("###")[0]
    assert (
        "| `requests_per_minute` | whole number |  | most requests in any 60 seconds. |" in generated.gateway_config()
    )
    assert "| `runs[].accuracy` | estimate |" in results and "| `coverage.K` | estimate |" in results
    assert "| `generated_tokens` | Tokens sampled" in generated.usage()
    assert "| `log_weight` | REAL | yes |  |" in generated.bank()


def test_the_fields_of_results_are_those_of_the_guide() -> None:
    guide = (DOCS / "benchmarks.md").read_text().partition("### result.json")[2].partition("###")[0]
    named = set(re.findall(r"`(\w+)`", guide))
    assert set(re.findall(r"\| `(\w+)", generated.result())) <= named


def test_the_page_about_python_has_every_public_name() -> None:
    page = (DOCS / "reference" / "python.md").read_text()
    assert [name for name in thinktime.__all__ if f":: thinktime.{name}\n" not in page] == []


def test_the_page_about_the_environment_has_every_variable() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    read: set[str] = set(re.findall(r"environ(?:\.get\(|\[)\s*\"([A-Z_]+)", source))
    read |= set(re.findall(r"\bTHINKTIME_[A-Z_]*[A-Z]\b", source))
    page = (DOCS / "reference" / "environment.md").read_text()
    ours: Any = {"LOCALAPPDATA"}  # Windows sets it
    assert [name for name in sorted(read - ours) if f"`{name}`" not in page] == []
