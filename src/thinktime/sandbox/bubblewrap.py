"""The command line of bubblewrap (https://github.com/containers/bubblewrap): what a program finds in the sandbox."""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache
from pathlib import Path


def bubblewrap(files: int, info: int, rules: int) -> list[str]:
    """The command that runs another one in a sandbox.

    Root gets no user namespace: its program takes another user id, because the kernel does not count root's processes.

    Args:
        files: bytes that fit in each of the two folders it can write to.
        info: a descriptor that gets the process id of the sandbox, as JSON.
        rules: a descriptor with the filter of system calls.
    """
    rights = ["--cap-drop", "ALL"]
    if os.geteuid() == 0:
        rights += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_CHOWN"]
    else:
        rights += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    return [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox", "--info-fd", str(info)),
        *("--seccomp", str(rules)),
        *rights,
        *("--perms", "0777", "--size", str(files), "--tmpfs", "/tmp"),  # first, because Python may be below it
        *_visible(),
        *("--perms", "0755", "--dir", "/dev"),
        *("--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"),
        *("--perms", "0777", "--size", str(files), "--tmpfs", "/dev/shm"),  # multiprocessing has its locks there
        *("--remount-ro", "/", "--chdir", "/tmp", "--"),
    ]


@cache
def _visible() -> tuple[str, ...]:
    """Read-only parts of this machine: the system's libraries and programs, and Python with its packages."""
    found: list[str] = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        top = Path("/", name)
        if top.is_symlink():
            found += ["--symlink", os.readlink(top), str(top)]
        elif top.is_dir():
            found += ["--ro-bind", str(top), str(top)]
    parts = [Path("/etc/ld.so.cache"), Path("/etc/alternatives")]
    for prefix in {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}:
        if not prefix.is_relative_to("/usr"):
            parts += [prefix / name for name in ("bin", "lib", "lib64", "pyvenv.cfg")]
    above = {folder for part in parts for folder in part.parents if folder != folder.parent}
    for folder in sorted(above):
        found += ["--perms", "0755", "--dir", str(folder)]
    for part in parts:
        found += ["--ro-bind-try", str(part), str(part)]
    return tuple(found)
