"""Installs the built files in clean environments, runs them, and measures what the extras take on the disk.

    make release-check        # builds dist/ first; two minutes

It stops at the first fault. The environments have no pip, so they hold only what was installed. Sizes are blocks on
the disk with Python's compiled files, in megabytes of 1,000,000 bytes. ``--out FILE`` keeps them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
EXTRAS = ("", "remote", "serve", "serve,postgres", "remote,bench")
"""What is measured; local models need torch, whose size depends on its build."""
MOST = 120.0
"""Most megabytes of ``thinktime[serve]``."""
QUESTION = "Ann has 5 books. Ann buys 3 books. How many books does Ann have now?"
EVERYTHING = "import pkgutil, thinktime; [getattr(thinktime, name) for name in thinktime.__all__]"


class Clean:
    """A virtual environment that has one file of a release, with extras, and nothing else."""

    def __init__(self, folder: Path, file: Path, extras: str) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / "bin"
        self.packages = next(folder.glob("lib/python*/site-packages"))
        pip = [sys.executable, "-m", "pip", "-qq", "--python", str(self.bin / "python")]
        what = f"{file}[{extras}]" if extras else str(file)
        subprocess.run([*pip, "install", "-c", str(ROOT / "constraints.txt"), what], check=True)

    def megabytes(self) -> float:
        """Blocks on the disk of all installed files."""
        blocks = sum(path.stat().st_blocks for path in self.packages.rglob("*") if path.is_file())
        return round(blocks * 512 / 1e6, 1)

    def run(self, *command: str, path: Sequence[Path] = ()) -> str:
        """The output of a program of the environment.

        Args:
            command: the program and its arguments.
            path: folders with more modules.
        """
        settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "THINKTIME_"))}
        settings |= {"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {}
        program = [str(self.bin / command[0]), *command[1:]]
        done = subprocess.run(program, env=settings, cwd=self.bin, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def borrow(self) -> None:
        """Let it see the packages of this environment too, after its own."""
        (self.packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))


def require(holds: bool, fault: str) -> None:
    """End with a fault unless this holds."""
    if not holds:
        sys.exit(fault)


def check(file: Path, folder: Path) -> float:
    """Install a file with the extra ``serve``, use it, and return its megabytes."""
    env = Clean(folder, file, "serve")
    megabytes = env.megabytes()
    require(megabytes < MOST, f"{file.name}[serve] takes {megabytes} MB; the limit is {MOST:g}")

    committed = subprocess.run(["git", "ls-files"], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    found = {str(path.relative_to(env.packages)) for path in (env.packages / "thinktime").rglob("*") if path.is_file()}
    found = {path for path in found if "__pycache__" not in path}
    differing = sorted(found ^ set(committed.stdout.split()))
    require(not differing, f"{file.name} lacks or adds {differing[:5]}")

    shown = env.run("thinktime", "--version")
    require(shown == f"thinktime {VERSION}\n", f"{file.name} is {shown!r}")
    env.run("python", "-c", EVERYTHING)
    settings = env.run("thinktime", "serve", "--print-config", "--upstream", "http://127.0.0.1:8000/v1")
    require(json.loads(settings)["port"] == 8080, settings)
    votes = json.loads(env.run("python", str(ROOT / "tests" / "light_votes.py"), path=[ROOT / "tests"]))
    require(votes["votes"] == [[200, 8], [200, 16]] and votes["heavy"] == [], f"votes of the gateway: {votes}")

    env.borrow()  # the packages of local models are large, and not what is tested here
    place = Path(env.run("python", "-c", "import thinktime; print(thinktime.__file__)").strip())
    require(place.is_relative_to(env.packages), f"{place} is not the installed package")
    answer = json.loads(env.run("thinktime", "ask", QUESTION, "--strategy", "single", "--temperature", "0", "--json"))
    require(answer["answer"] == "8", f"the shipped model answers {answer['answer']!r}")
    return megabytes


def main() -> None:
    """Check the wheel and the source archive, and measure the extras."""
    options = argparse.ArgumentParser()
    options.add_argument("dist", type=Path, nargs="?", default=ROOT / "dist")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    files = [given.dist / f"thinktime-{VERSION}{end}" for end in ("-py3-none-any.whl", ".tar.gz")]
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(files):
            print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB; installed with [serve]", flush=True)
            print(f"  works, {check(file, Path(folder, f'check{number}'))} MB", flush=True)
        for number, extras in enumerate(EXTRAS):
            env = Clean(Path(folder, f"size{number}"), files[0], extras)
            sizes[extras] = env.megabytes()
            print(f"thinktime[{extras}]: {sizes[extras]} MB", flush=True)
    if given.out is not None:
        machine = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
        result = {"version": VERSION, **machine, "megabytes": sizes}
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
