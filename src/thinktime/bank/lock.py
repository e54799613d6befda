"""A lock on an open file that the operating system drops when the process ends."""

from __future__ import annotations

from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    BEYOND = 1 << 40
    """The byte that is locked. Other processes cannot read a locked byte, so it lies beyond the end of every bank."""

    def lock(file: IO[Any]) -> None:
        """Lock a file for this process alone.

        Raises:
            BlockingIOError: another process has locked it.
        """
        file.seek(BEYOND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError as error:
            raise BlockingIOError(str(error)) from None

else:

    def lock(file: IO[Any]) -> None:
        """Lock a file for this process alone.

        Raises:
            BlockingIOError: another process has locked it.
        """
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
