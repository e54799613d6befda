"""The files of the project: public names, the changelog, and what a package index or a citation reads."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import thinktime
from docs.generated import commands
from thinktime.plugins import GROUPS
from thinktime.strategies import BUILT_IN

ROOT = Path(__file__).parents[1]
NAMES = ROOT / "tests" / "public_names.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def public_names() -> list[str]:
    """What users of a release may rely on: names to import, commands and their options, groups of entry points."""
    found = [f"thinktime.{kind.__name__}" for kind in BUILT_IN.values()]
    for module in ("thinktime", "thinktime.testing"):
        found += [f"{module}.{name}" for name in importlib.import_module(module).__all__]
    for path, context in commands():
        options = [option for each in context.command.params for option in each.opts if option.startswith("-")]
        found += [path, *(f"{path} {option}" for option in options)]
    return sorted({*found, *(f"thinktime.{group}" for group in GROUPS)})


def test_the_public_names_are_those_of_the_committed_list() -> None:
    """A name that goes breaks programs of users: say so in the changelog. To accept a change, write the new list."""
    assert public_names() == NAMES.read_text().splitlines(), "python -m tests.test_project writes the list"


def test_all_public_names_exist() -> None:
    assert [name for name in thinktime.__all__ if not hasattr(thinktime, name)] == []


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert text.startswith("# Changelog\n\n## ") and versions[0].split(",")[0] in (PROJECT["version"], "Unreleased")
    assert all(re.fullmatch(r"\d+\.\d+\.\d+, (unreleased|\d{4}-\d\d-\d\d)|Unreleased", version) for version in versions)


def test_each_change_is_a_bullet_of_whole_sentences_below_a_heading() -> None:
    newest = (ROOT / "CHANGELOG.md").read_text().partition("\n## ")[2].partition("\n## ")[0]
    for section in newest.split("\n### ")[1:]:
        title, _, body = section.partition("\n\n")
        bullets = re.split(r"^- ", body, flags=re.MULTILINE)
        assert bullets[0] == "" and len(bullets) > 1, title
        for bullet in bullets[1:]:
            assert re.search(r"[.)`|]$", bullet.strip()), f"{title}: {bullet[-60:]}"
        assert all(re.match(r"- |  |\||$", line) for line in body.splitlines()), (
            f"{title}: indent a bullet by two spaces"
        )


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert thinktime.__version__ == PROJECT["version"] == citation["version"]
    assert citation["license"] == PROJECT["license"] and citation["title"] == PROJECT["name"]
    assert {"cff-version", "message", "authors"} <= set(citation)


@pytest.mark.parametrize("name", ["fault", "method"])
def test_an_issue_form_asks_for_what_is_needed(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    ids = [part["id"] for part in form["body"]]
    assert {"name", "description", "body"} <= set(form) and len(set(ids)) == len(ids)
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_the_packages_of_the_tests_and_of_the_site_are_pinned() -> None:
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["optional-dependencies"]
    named = {re.split(r"[>\[]", part)[0] for extra in ("docs", "dev", "images", "local") for part in extras[extra]}
    assert {name.lower().replace("_", "-") for name in named - {"thinktime"}} <= {
        name.lower().replace("_", "-") for name in pinned
    }


if __name__ == "__main__":
    NAMES.write_text("".join(f"{name}\n" for name in public_names()))
