"""Measures calibrations of clients' requests in the background: how many samples a vote needs.

A share of the requests is sampled again after their clients have their answers, while no client's request runs. Nothing
of a request is kept but whether votes agree, and what they cost (`thinktime.planning.agreement`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, TypeVar

from thinktime.core.errors import InputError, ThinktimeError
from thinktime.core.ledger import Ledger
from thinktime.core.protocols import Scorer
from thinktime.core.search import Search
from thinktime.core.types import MAIN, Node
from thinktime.core.usage import Usage, total
from thinktime.files import write_whole
from thinktime.gateway.answers import SampleAnswers
from thinktime.gateway.auth import ApiClient
from thinktime.gateway.config import GatewayConfig
from thinktime.gateway.errors import HttpError
from thinktime.gateway.request import CompletionRequest
from thinktime.gateway.roles import Roles
from thinktime.gateway.upstreams import Upstreams
from thinktime.session import Session
from thinktime.strategies.options import installed

if TYPE_CHECKING:
    from thinktime.planning.calibration import Calibration

SHADOW = "(shadow)"
"""The account of all measurements."""
QUIET_SECONDS = 1.0
"""Time without a client's request before a measurement begins or goes on."""
MOST_CUTS = 3
"""A measurement that clients' requests have cut so often is given up."""
LONGEST = 64 * 1024
"""Most bytes of a request that is measured."""
MOST_REQUESTS, MOST_CALIBRATIONS = 1000, 16
"""A calibration ends with so many requests. There are so many: of a model, a scorer and a temperature each."""
EVERY = 20
"""Requests after which a calibration is written again."""

Read = Callable[[], CompletionRequest]
Result = TypeVar("Result")
_log = logging.getLogger("thinktime")


class _CutError(Exception):
    """Clients' requests have left no time for this one."""


class Shadow:
    """Measures one request at a time, and none while a client waits.

    Args:
        config: its share, and its folder of calibrations; earlier ones go on.
        ledger: pays for all measurements; its budget is hard.
        upstreams, roles, scorer: of the gateway.
        count: notes what became of a request that was chosen.

    Raises:
        InputError: the folder cannot be made, a file of it is no calibration, or numpy is not installed.
    """

    def __init__(
        self,
        config: GatewayConfig,
        ledger: Ledger,
        upstreams: Upstreams,
        roles: Roles,
        scorer: Scorer | None,
        count: Callable[[str], None],
    ) -> None:
        installed("shadow", str(config.shadow), "numpy")
        assert config.shadow_out is not None
        self.outcomes: Counter[str] = Counter()
        """What became of the requests that were chosen, since the server started."""
        self._config, self.ledger, self._folder = config, ledger, config.shadow_out
        self._upstreams, self._roles, self._scorer, self._count = upstreams, roles, scorer, count
        self._random = SystemRandom()
        self.clients = 0
        """Clients' requests that run."""
        self._left_at = -QUIET_SECONDS
        self._task: asyncio.Task[None] | None = None
        self._working: asyncio.Future[Any] | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError("shadow_out", str(self._folder), f"name a folder ({error.strerror})") from None
        self._found = _kept(self._folder)
        self._unwritten: set[tuple[Any, ...]] = set()

    def arrived(self) -> None:
        """A client's request begins: a measurement that runs is cut."""
        self.clients += 1
        if self._working is not None:
            self._working.cancel()

    def left(self, client: ApiClient, read: Read | None) -> None:
        """A client's request has ended; measure it if it is chosen.

        Args:
            client: whose key allows it or not.
            read: gives the request, if it has an answer that can be measured.
        """
        self.clients -= 1
        self._left_at = time.monotonic()
        if read is None or not client.shadow or self._random.random() >= self._config.shadow:
            return
        try:
            request = read()
        except InputError:  # it asks for several answers
            return
        if request.sampling.temperature == 0:
            return
        if self.clients or (self._task is not None and not self._task.done()):
            self._note("skipped")
        else:
            self._task = asyncio.create_task(self._run(request))

    async def close(self) -> None:
        """End, and write what is measured."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for key in list(self._unwritten):
            await self._write(key)

    async def _run(self, request: CompletionRequest) -> None:
        outcome = "failed"
        try:
            async with asyncio.timeout(self._config.request_seconds):
                outcome = await self._measured(request)
        except (TimeoutError, _CutError):
            outcome = "cut"
        except asyncio.CancelledError:
            outcome = "cut"
            raise
        except (ThinktimeError, HttpError) as error:
            _log.warning("shadow: %s", error)
        except Exception:  # nobody waits for the task, so it would be lost
            _log.exception("shadow: a fault of the gateway")
        finally:
            self._note(outcome)

    async def _measured(self, request: CompletionRequest) -> str:
        """Measure a request; what became of it in one word."""
        from thinktime.planning.agreement import SAMPLES, begun, measured, with_request

        await self._quiet()
        generator = await self._upstreams.generator(request.model, request.api, self.ledger, key=request.problem.id)
        scorers = await self._roles.scorers({}, self.ledger, request.problem.id)
        scorer = self._scorer or scorers.get(MAIN)
        named = generator.name, None if scorer is None else scorer.name, request.sampling.temperature
        before = self._found.get(named) or begun(*named)
        if len(before.problems) >= MOST_REQUESTS or (
            named not in self._found and len(self._found) >= MOST_CALIBRATIONS
        ):
            return "full"
        search = Session(
            {MAIN: generator.sending(request.fields, logprobs=True)},
            {} if scorer is None else {MAIN: scorer},
            answers=SampleAnswers(as_json=request.json, tools=request.tools),
            sampling=request.sampling,
            seed=secrets.randbits(31),
        ).search(request.problem, self.ledger)
        if not await self._covered(search, SAMPLES):
            return "unpaid"
        drawn: list[Node] = []
        while len(drawn) < SAMPLES:
            drawn += await self._alone(search, lambda: _sample(search))
        found = await self._alone(search, lambda: measured(search, drawn))
        if found is None:
            return "unread"
        self._found[named] = with_request(before, found)
        self._unwritten.add(named)
        if len(self._found[named].problems) % EVERY == 0:
            await self._write(named)
        return "measured"

    async def _covered(self, search: Search, samples: int) -> bool:
        """Whether the rest of the budget covers the worst case of all samples."""
        worst = [search.generator.worst_case(search.root, search.sampling.max_length)] * samples
        if search.scorer is not None:
            worst += [search.scorer.worst_case(search.problem, search.root, None)] * samples
        reservation = await self.ledger.reserve(total(worst))
        if reservation is not None:
            self.ledger.settle([reservation], Usage())
        return reservation is not None

    async def _alone(self, search: Search, work: Callable[[], Awaitable[Result]]) -> Result:
        """The result of work during which no client's request ran. What was cut is charged its worst case.

        Raises:
            _CutError: it was cut too often.
        """
        for _ in range(MOST_CUTS):
            await self._quiet()
            working: asyncio.Future[Result] = asyncio.ensure_future(work())
            self._working = working
            try:
                await asyncio.wait({working})
            finally:
                working.cancel()
                self._working = None
                search.ledger.forfeit()
            if not working.cancelled():
                return working.result()
        raise _CutError

    async def _quiet(self) -> None:
        """Wait until no client's request runs or has run a moment ago."""
        while self.clients or time.monotonic() - self._left_at < QUIET_SECONDS:
            await asyncio.sleep(QUIET_SECONDS / 2)

    def _note(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self._count(outcome)

    async def _write(self, named: tuple[Any, ...]) -> None:
        """Write a calibration, in a thread; one of few requests cannot be read, so it waits for more."""
        from thinktime.planning.agreement import finished
        from thinktime.planning.calibration_files import LEAST_PROBLEMS, forget, text

        found = self._found[named]
        if len(found.problems) < LEAST_PROBLEMS:
            return
        source = {"command": f"thinktime serve --shadow {self._config.shadow:g}", "requests": dict(self.outcomes)}
        path = self._folder / _file_name(named)

        try:
            await asyncio.to_thread(lambda: write_whole(path, text(finished(found, source))))
        except OSError as error:
            _log.error("shadow_out=%r: cannot write it (%s)", str(self._folder), error)
            return
        self._unwritten.discard(named)
        forget()


async def _sample(search: Search) -> list[Node]:
    """One more sample of the problem.

    Raises:
        ThinktimeError: the sample failed.
        _CutError: the budget does not cover it.
    """
    drawn = await search.extend([search.root])
    if not drawn:
        raise _CutError
    if drawn[0].finish == "error":
        raise search.errors[-1]
    return drawn


def _kept(folder: Path) -> dict[tuple[Any, ...], Calibration]:
    """The calibrations of earlier requests, by model, scorer and temperature."""
    from thinktime.planning.agreement import begun
    from thinktime.planning.calibration import AGREEMENT
    from thinktime.planning.calibration_files import read

    kept = {}
    for path in sorted(folder.glob("*.json")):
        found = read(path)
        named = found.model["generator"], found.model["scorer"], found.sampling["temperature"]
        if found.measure == AGREEMENT and found.task == begun(*named).task:
            kept[named] = found
    return kept


def _file_name(named: tuple[Any, ...]) -> str:
    """A name that says the model and the temperature, and differs for others."""
    generator, _, temperature = named
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", generator.partition("@")[0])[:60]
    return f"{plain}-{temperature:g}-{hashlib.blake2b(json.dumps(named).encode(), digest_size=4).hexdigest()}.json"
