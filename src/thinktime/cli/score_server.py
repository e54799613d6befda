"""``thinktime score-server``: serve a process reward model over HTTP on this machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from thinktime.cli.common import Dtype
from thinktime.core.errors import InputError


def score_server(
    reward_model: Annotated[str, typer.Option(help="'pocket' or a reward model directory.")] = "pocket",
    name: Annotated[
        str | None, typer.Option(help="The model's name in requests; default: the directory's name.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8100,
    dtype: Dtype = "auto",
) -> None:
    """Serve a process reward model like vLLM's /pooling.

    Other commands use it as --scorer http://127.0.0.1:8100/pooling.
    """
    import uvicorn

    from thinktime import pocket
    from thinktime.scorers.prm import ProcessReward
    from thinktime.scorers.server import application

    directory = pocket.directory("reward") if reward_model == "pocket" else Path(reward_model)
    number = dtype if dtype != "auto" else "float64" if reward_model == "pocket" else "float32"
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind(("127.0.0.1", port))
            place.listen(2048)  # a client may read the address and connect before the server is up
        except (OSError, OverflowError) as error:
            raise InputError("port", port, f"cannot listen there ({error}); give another --port") from None
        app = application(ProcessReward(directory, dtype=number), name or directory.name)
        print(f"http://127.0.0.1:{place.getsockname()[1]}/pooling", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[place])
