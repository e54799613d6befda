"""What the requests of one gateway share, from its start to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from thinktime import strategies
from thinktime.bank.database import is_url
from thinktime.bank.keys import KeyStore
from thinktime.bank.store import Bank
from thinktime.core.journal import Journal
from thinktime.core.protocols import Scorer
from thinktime.gateway.auth import ApiClient, Auth
from thinktime.gateway.config import GatewayConfig
from thinktime.gateway.history import History
from thinktime.gateway.keys import SharedKeys, StoreThread
from thinktime.gateway.metrics import Metrics
from thinktime.gateway.rates import LocalRates, SharedRates
from thinktime.gateway.retention import Retention
from thinktime.gateway.roles import Roles
from thinktime.gateway.searching import refuse_large
from thinktime.gateway.shadow import SHADOW, Shadow
from thinktime.gateway.siblings import Siblings
from thinktime.gateway.snapshots import SECONDS, Snapshots
from thinktime.gateway.tracing import Tracing
from thinktime.gateway.upstreams import Upstreams
from thinktime.prompts.templates import overridden

if TYPE_CHECKING:
    from thinktime.gateway.shared import Keeper

PROBES = "(model probes)"
"""The account of probes for configured roles, and for clients without a budget."""


class Gateway:
    """The state of a gateway.

    Args:
        config: the settings.
        scorer: of methods that score; by default a configured one.
        folder: where the processes that serve one port keep their metrics and find each other; None for one process.

    Raises:
        InputError: a setting cannot work.
        BankError: the bank or the store of keys cannot be opened.
    """

    def __init__(self, config: GatewayConfig, scorer: Scorer | None = None, folder: Path | None = None) -> None:
        self.config, self.scorer = config, scorer
        self.history = History(None if folder is None else os.getpid())
        self.siblings = None if folder is None else Siblings(folder)
        self.bank: Bank | None = None
        self.keeper: Keeper | None = None
        self.journal: Journal | None = None
        self.retention: Retention | None = None
        self._closing: tuple[Callable[[], None], ...] = ()
        if config.bank is not None:
            self._open_bank(config.bank)
        self.auth = Auth(config, self.bank, self.keeper, *self._open_keys(config))
        self.probes = self.auth.account(PROBES)
        self.tracing = Tracing()
        self.upstreams = Upstreams(config.upstreams, config.fallbacks, self.tracing.sampling, config.request_seconds)
        self.roles = Roles(config, self.upstreams, self.probes, self.tracing.sampling)
        self.prompts = overridden(strategies.prompts(), config.prompts)
        self.metrics = Metrics()
        self.snapshots = None if folder is None else Snapshots(folder, shared=self.keeper is not None)
        self.running: set[asyncio.Future[None]] = set()
        """The requests that are being answered."""
        self.shadow: Shadow | None = None
        if config.shadow:
            spending = self.auth.account(SHADOW, replace(config.shadow_budget, seconds=None))
            count = self.metrics.shadowed
            self.shadow = Shadow(config, spending, self.upstreams, self.roles, scorer, count)
        if config.calibration is not None:
            refuse_large(config.calibration)

    def metrics_for(self, viewer: ApiClient | None = None) -> bytes:
        """The metrics as text, with the spending that a client may see; without a client, those of this process."""
        clients = [client for client in self.auth.clients if viewer is None or viewer.sees(client)]
        spent = {client.name: client.ledger.spent for client in clients}
        if viewer is None or viewer.sees_all:
            spent[PROBES] = self.probes.spent
            spent |= {} if self.shadow is None else {SHADOW: self.shadow.ledger.spent}
        text = self.metrics.text(spent, None if self.keeper is None else self.keeper.reachable)
        if viewer is None or self.snapshots is None:
            return text
        return self.snapshots.merged(text, spent)

    async def keep_metrics(self, snapshots: Snapshots) -> None:
        """Keep the metrics of this process for the others, again and again."""
        while True:
            await asyncio.to_thread(snapshots.write, self.metrics_for())
            await asyncio.sleep(SECONDS)

    def stop(self) -> None:
        """End all requests: the reply is a 503 in the shape of its API."""
        for working in self.running:
            working.cancel()

    def _open_bank(self, place: Path | str) -> None:
        """Open the bank; if several gateways share it, also what keeps their accounts."""
        self.journal = self.bank = Bank(place, waits=())
        if is_url(place):
            from thinktime.bank.accounts import Accounts
            from thinktime.gateway.journal import SharedJournal
            from thinktime.gateway.shared import Keeper

            self.keeper = Keeper(Accounts(str(place)))
            self.journal = journal = SharedJournal(self.bank)
            self._closing = (self.keeper.close, journal.close)
        if self.config.retention_time is not None or self.config.retention_size is not None:
            self.retention = Retention(place, self.config.retention_time, self.config.retention_size)
            self._closing = (self.retention.close, *self._closing)

    def _open_keys(self, config: GatewayConfig) -> tuple[SharedKeys | None, LocalRates]:
        """Open the keys in a store. Rates are there too, or else in a bank that several gateways share."""
        place, field = config.key_store, "key_store"
        if place is None and config.bank is not None and is_url(config.bank) and config.has_rates:
            place, field = config.bank, "bank"
        if place is None:
            return None, LocalRates()
        thread = StoreThread(KeyStore(place, field))
        self._closing = (*self._closing, thread.close)
        return None if config.key_store is None else SharedKeys(thread), SharedRates(thread)

    async def close(self) -> None:
        """Close all connections and the bank."""
        if self.shadow is not None:
            await self.shadow.close()
        await self.roles.close()
        await self.upstreams.close()
        await asyncio.to_thread(self.tracing.close)
        for close in self._closing:
            await asyncio.to_thread(close)
        if self.bank is not None:
            self.bank.close()
