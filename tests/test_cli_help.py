"""Help, version and completion of the command line."""

from __future__ import annotations

import re

import pytest
from commands import ran

import thinktime
from docs.generated import commands

COMMANDS = dict(commands())
LONGEST = 60
"""Most characters of a description that is one line of `thinktime --help` in a terminal of 80 columns."""


@pytest.mark.parametrize("path", COMMANDS)
def test_h_is_help_of_every_command(path: str) -> None:
    words = path.split()[1:]
    code, out, errors = ran(*words, "-h")
    assert (code, errors) == (0, "") and f"Usage: {path} " in out and re.search(r"--help\s+-h", out)


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != "thinktime"])
def test_every_command_is_described_in_one_line_and_every_option_has_a_meaning(path: str) -> None:
    command = COMMANDS[path].command
    line = command.get_short_help_str(200)
    assert 0 < len(line) <= LONGEST and line[0].isupper(), line
    records = [each.get_help_record(COMMANDS[path]) for each in command.get_params(COMMANDS[path])]
    assert all(record and record[1] for record in records)


def test_the_version_is_printed() -> None:
    assert ran("--version") == (0, f"thinktime {thinktime.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("thinktime be", {"bench"}),
        ("thinktime s", {"serve", "score-server", "strategies"}),
        ("thinktime models p", {"pull"}),
        ("thinktime bench --strat", {"--strategies"}),
        ("thinktime ask --str", {"--strategy"}),
    ],
)
def test_bash_completes_commands_and_options(words: str, completed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_THINKTIME_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    code, out, _ = ran()
    assert code == 0 and set(out.split()) == completed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_script_of_a_shell_asks_thinktime_for_completions(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, shell))
    code, script, _ = ran("--show-completion")
    assert code == 0 and "_THINKTIME_COMPLETE" in script
    monkeypatch.setenv("_THINKTIME_COMPLETE", f"source_{shell}")
    code, again, _ = ran()
    assert code == 0 and again.strip() == script.strip()
