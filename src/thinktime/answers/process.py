"""Computes keys of answers for `thinktime.answers.equivalence`, which runs this file as a process of its own.

Each JSON object ``{"text"}`` is answered with ``{"key"}``, ``{"undefined": true}``, or ``{"undecided": true}`` if the
text takes too much. Almost all texts end at the counts in `thinktime.answers.expressions` and
`thinktime.answers.arithmetic`, which depend on the text alone. The limits of time and memory here stop the others.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

SECONDS, LAST = 0.05, 0.5
"""Processor seconds of one answer until it is undecided, and until the process ends if Python cannot stop it."""
BYTES = 1 << 30
"""Most memory of this process."""


def main() -> None:
    """Answer until the input ends."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from thinktime.answers.arithmetic import TooMuchError, UndefinedError
    from thinktime.answers.kinds import key_of

    def stop(*_: object) -> NoReturn:
        raise TooMuchError

    def answer(text: str) -> dict[str, Any]:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, LAST)  # its signal ends the process
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            found = {"key": key_of(text)}
            signal.setitimer(signal.ITIMER_PROF, 0)  # here, so that a late signal is caught below
        except UndefinedError:
            return {"undefined": True}
        except (TooMuchError, MemoryError):
            return {"undecided": True}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return found

    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGPROF, stop)
    key_of("sqrt(2)")  # imports what the first formula needs
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line)["text"])), flush=True)


if __name__ == "__main__":
    main()
