"""What an installation brings: the gateway and its votes need neither numpy nor scipy, sympy or torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import requires
from pathlib import Path

import light_votes
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from thinktime.cli import _EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
HEAVY = set(light_votes.HEAVY)
NAMES = {"PIL": "pillow", "opentelemetry": "opentelemetry-sdk"}
"""The packages of modules that have another name."""
OF_THE_USER = {"ImageReward"}
"""Packages that are used if the user has them; the message of their absence names them."""


@cache
def named(extra: str = "") -> frozenset[str]:
    """The packages that the project names for an installation with an extra, and for the extras within it."""
    found = set[str]()
    for requirement in map(Requirement, [*PROJECT["dependencies"], *(EXTRAS[extra] if extra else ())]):
        if requirement.name == "thinktime":
            found |= {package for inner in requirement.extras for package in named(inner)}
        else:
            found.add(canonicalize_name(requirement.name))
    return frozenset(found)


@cache
def everything(packages: frozenset[str]) -> frozenset[str]:
    """These packages, and all that they need in turn, by what is installed here."""
    found, left = set[str](), set(packages)
    while left:
        name = left.pop()
        found.add(name)
        needed = [Requirement(text) for text in requires(name) or ()]
        here = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
        left |= {canonicalize_name(each.name) for each in here} - found
    return frozenset(found)


def package(module: str) -> str:
    """The package that has a module."""
    return canonicalize_name(NAMES.get(module, module))


@pytest.mark.parametrize("extra", ["", "remote", "serve", "postgres", "otel"])
def test_the_light_extras_bring_no_heavy_package(extra: str) -> None:
    assert everything(named(extra)) & HEAVY == set()


def test_the_closure_of_packages_finds_heavy_ones() -> None:
    assert everything(named("bench")) & HEAVY == {"numpy", "scipy"}
    assert {"numpy", "scipy", "sympy", "torch", "transformers"} <= everything(named("local"))  # torch brings sympy


def test_a_gateway_votes_without_heavy_packages_and_says_what_a_method_lacks() -> None:
    done = subprocess.run([sys.executable, light_votes.__file__], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["votes"], found["heavy"]) == ([[200, 8], [200, 16]], [])
    assert [status for status, _ in found["refusals"]] == [400, 400]
    lacking = [re.findall(r"it needs (\w+); pip install 'thinktime\[bench\]'$", text) for _, text in found["refusals"]]
    assert lacking == [["scipy"], ["numpy"]]


def test_a_command_that_lacks_numpy_says_what_to_install() -> None:
    program = "import sys; sys.modules['numpy'] = None; from thinktime.cli import run; run()"
    command = [sys.executable, "-c", program, "plan", "gsm8k-program", "--budget", "1000tok"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    says = "error: numpy is not installed: pip install 'thinktime[bench]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", says)


def imported() -> set[str]:
    """The packages that any file imports anywhere, without its own and the standard library."""
    text = "\n".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    found = re.findall(r"^ *(?:from (\w+)[\w.]* import |import (\w+)[\w.]*(?: as \w+)?(?:$|,| *#))", text, re.MULTILINE)
    return {one or other for one, other in found} - sys.stdlib_module_names - {"thinktime"}


def test_every_package_that_is_imported_is_in_an_extra() -> None:
    """Of an extra for users; also if another package of it brings it. ``reasoning-gym`` may be missing here."""
    known = {name for extra in set(EXTRAS) - {"dev", "reasoning-gym"} for name in everything(named(extra))}
    assert {module for module in imported() if package(module) not in known} == OF_THE_USER


@pytest.mark.parametrize(("module", "extra"), _EXTRAS.items())
def test_the_extra_that_an_error_names_brings_the_package(module: str, extra: str) -> None:
    assert package(module) in everything(named(extra))
