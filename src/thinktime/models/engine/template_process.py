"""Renders chat templates for `thinktime.models.engine.templates`, which runs this file as a process of its own.

A template is a program from a model directory. It may loop forever or fill the memory, so this process ends a rendering
that takes too much. It reads one JSON object per line, ``{"template", "variables"}``, and answers each with
``{"text"}``, ``{"refused"}`` (the template raises an exception of its own) or ``{"error"}``.

The environment is that of ``transformers``, so that a prompt is the same to the byte.
"""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 2.0
"""Most processor time of one rendering."""
BYTES = 1 << 30
"""Most memory of this process."""
LONGEST = 1 << 24
"""Most characters of a prompt."""


class Generation(Extension):
    """``{% generation %}`` marks text for training. Here it is only rendered."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as a call, so that variables set in it end with it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> Any:
        return caller()


class RefusedTemplateError(TemplateError):
    """A template calls ``raise_exception``."""


def _refuse(message: str) -> NoReturn:
    raise RefusedTemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Without jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


@lru_cache(64)
def compiled(source: str) -> Template:
    """A template, ready to render."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)


def answer(template: str, variables: dict[str, Any]) -> dict[str, str]:
    """The rendered text, or the reason why there is none."""
    try:
        text = compiled(template).render(**variables)
    except RefusedTemplateError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"error": f"it needs more than {BYTES >> 20} MiB"}
    except Exception as error:  # a template can raise anything
        return {"error": f"{type(error).__name__}: {error}"}
    return {"text": text} if len(text) <= LONGEST else {"error": f"its prompt has {len(text)} characters"}


def main() -> None:
    """Answer until the input ends."""
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
        found = json.dumps(answer(**json.loads(line)))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(found, flush=True)


if __name__ == "__main__":
    main()
