"""The command line: a file for each command or two. Everything heavy is imported when used."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from thinktime import __version__
from thinktime.cli.ask import ask
from thinktime.cli.bank import bank
from thinktime.cli.bench import bench
from thinktime.cli.calibrate import calibrate
from thinktime.cli.common import EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED
from thinktime.cli.data import data
from thinktime.cli.demo import demo
from thinktime.cli.doctor import doctor
from thinktime.cli.keys import keys
from thinktime.cli.models import models
from thinktime.cli.paint import paint
from thinktime.cli.plan import plan
from thinktime.cli.probe import probe
from thinktime.cli.replay import replay
from thinktime.cli.report import report
from thinktime.cli.results import compare, export
from thinktime.cli.score_server import score_server
from thinktime.cli.serve import serve
from thinktime.cli.strategies import strategies
from thinktime.core.errors import CapabilityError, InputError, ThinktimeError
from thinktime.core.printable import printable

_EXTRAS = {
    "aiohttp": "remote",
    "numpy": "bench",
    "scipy": "bench",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "diffusers": "images",
    "PIL": "images",
    "ray": "ray",
}
"""What to install where a module is missing."""
_SPINS = "10000"
"""How long threads of torch spin for each other before they sleep. GNU's default is thirty times as long: beside other
busy processes that keeps the cores from those that are waited for."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"thinktime {__version__}")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

commands = (
    ask,
    paint,
    bench,
    serve,
    replay,
    report,
    compare,
    export,
    calibrate,
    plan,
    probe,
    doctor,
    demo,
    score_server,
)
for command in commands:
    from_environment = {"auto_envvar_prefix": "THINKTIME"} if command is serve else {}
    app.command(context_settings=from_environment)(command)
app.add_typer(models, name="models")
app.add_typer(strategies, name="strategies")
app.add_typer(data, name="data")
app.add_typer(bank, name="bank")
app.add_typer(keys, name="keys")


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Spend a budget of inference-time compute on better answers, and see exactly what it cost."""


def run() -> None:
    """Entry point: errors become one line on stderr and an exit code (2: your input, 1: something failed)."""
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read when torch is loaded, which is later
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 shows a question mark
            stream.reconfigure(errors="replace")
    try:
        code = app(prog_name="thinktime", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except TyperException as error:
        message = getattr(error, "format_message", error.__str__)()  # names the option too
        _fail(" ".join(message.split()), EXIT_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", EXIT_INTERRUPTED)
    except (InputError, CapabilityError) as error:
        _fail(str(error), EXIT_INPUT)
    except ThinktimeError as error:
        _fail(str(error), EXIT_FAILED)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "", "local")
        _fail(f"{error.name} is not installed: pip install 'thinktime[{extra}]'", EXIT_FAILED)
    except ExceptionGroup as group:
        known = [error for error in group.exceptions if isinstance(error, ThinktimeError)]
        if not known:
            raise
        _fail(str(known[0]), EXIT_INPUT if isinstance(known[0], InputError | CapabilityError) else EXIT_FAILED)


def _fail(message: str, code: int) -> None:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)
