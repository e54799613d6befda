"""A Postgres server of the tests, in a temporary folder, and an empty bank for each test that asks for one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from waiting import eventually

FOLDERS = (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/pgsql/bin"))
"""Where the programs are, besides those on the path."""
FAST = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=16MB")


def program(name: str) -> str | None:
    """The path of a program of Postgres; None if it is not on this machine."""
    places = os.pathsep.join([os.environ.get("PATH", ""), *map(str, FOLDERS)])
    return shutil.which(name, path=places)


def missing() -> str:
    """Why no server can be started here; empty if one can."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "needs psycopg: pip install 'thinktime[postgres]'"
    if program("initdb") is None or program("postgres") is None:
        return "needs Postgres: apt install postgresql"
    return "" if os.geteuid() or _other_user() else "Postgres refuses root, and there is no other user to run it"


def _other_user() -> pwd.struct_passwd | None:
    """The user who runs the server if root runs the tests."""
    found = [each for each in pwd.getpwall() if each.pw_name in ("postgres", "nobody")]
    return max(found, key=lambda each: each.pw_name == "postgres", default=None)


class PostgresServer:
    """A server on a free port of this machine, for the duration of a ``with`` block.

    The user ``guarded`` needs a password; ``owner`` needs none.

    Args:
        folder: empty; the server's user has to be able to enter it.
        settings: of the server; by default it is fast and loses data if the machine stops.
    """

    def __init__(self, folder: Path, settings: tuple[str, ...] = FAST) -> None:
        self.folder, self._settings = folder, settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        user = None if os.geteuid() else _other_user()
        self._user = None if user is None else user.pw_uid
        self._group = None if user is None else user.pw_gid
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        self.folder.chmod(0o755)
        data = self.folder / "data"
        data.mkdir()
        if self._user is not None and self._group is not None:
            os.chown(data, self._user, self._group)
        self._run(
            "initdb", "-D", str(data), "-U", "owner", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"
        )
        access = data / "pg_hba.conf"
        access.write_text("host all guarded 127.0.0.1/32 scram-sha-256\n" + access.read_text())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [f"--{setting}" for setting in self._settings]
        command = [str(program("postgres")), "-D", str(self.folder / "data"), "-p", str(self.port), "-k", "", *options]
        log = open(self.folder / "log", "ab")  # noqa: SIM115  # the server keeps it
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", user=self._user, group=self._group)
        log.close()
        eventually(self._answers)

    def stop(self, kill: bool = False) -> None:
        """Stop the server; with ``kill`` at once, as if the machine had stopped."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if kill else signal.SIGINT)
            self._process.wait()
            self._process = None

    def bank(self) -> str:
        """The URL of a new, empty schema: a tenth of the time of a new database."""
        import psycopg

        name = f"bank{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url('postgres')}?options=-csearch_path%3D{name}"

    def url(self, database: str, user: str = "owner") -> str:
        """The URL of a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        import psycopg

        assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(program(name)), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            user=self._user,
            group=self._group,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server in a folder of its own, which the server's user can enter."""
    with TemporaryDirectory(prefix="thinktime-postgres-") as folder, PostgresServer(Path(folder)) as server:
        yield server
