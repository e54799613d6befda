"""Working folders of programs that run without bubblewrap."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def working_folder() -> Iterator[str]:
    """An empty folder, which is removed at the end with all that is in it."""
    path = tempfile.mkdtemp()
    try:
        yield path
    finally:
        with suppress(OSError):
            _remove(path)


def _remove(path: str) -> None:
    """Remove a folder of any depth and with any permissions: inner folders move to its top first.

    `shutil.rmtree` recurses, and fails if a program has removed the permissions of a folder.
    """
    os.chmod(path, 0o700)
    left, moved = [path], 0
    while left:
        folder = left.pop()
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                moved += 1
                left.append(os.path.join(path, f"{secrets.token_hex(8)}-{moved}"))
                os.rename(entry.path, left[-1])
            else:
                os.unlink(entry.path)
        if folder != path:
            os.rmdir(folder)
    os.rmdir(path)
