"""Runs commands in this process."""

from __future__ import annotations

import contextlib
import io
import sys

from thinktime import cli


def ran(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    out, errors, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["thinktime", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            cli.run()
        except SystemExit as left:
            code = left.code
        finally:
            sys.argv = before
    assert isinstance(code, int)
    return code, out.getvalue(), errors.getvalue()
