"""The spending of keys survives restarts and kills of the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Running
from gateway_server import PLAIN, VOTE, Serving, probe_first
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE, eventually

from thinktime.bank.store import Bank
from thinktime.core.errors import BankError
from thinktime.core.ledger import Ledger
from thinktime.core.usage import Budget, Usage
from thinktime.gateway.auth import Auth, KeptLedger
from thinktime.gateway.config import GatewayConfig, Key, digest

KEY = "tt-a-key-that-is-long-enough"
ALICE = {"Authorization": f"Bearer {KEY}"}


def key(tokens: int) -> tuple[Key, ...]:
    return (Key("alice", digest(KEY), Budget(tokens=tokens)),)


def test_a_key_keeps_its_spending_after_a_restart(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"bank": tmp_path / "bank.db", "keys": key(300)}
    with Running() as endpoint:
        with Serving(endpoint.url, **settings) as gateway:
            probe_first(endpoint, gateway, KEY)
            account = gateway.ask({**VOTE, "max_tokens": 20}, **ALICE)[1]["thinktime"]["account"]
            spent = gateway.gateway.auth.clients[0].ledger.spent
            assert spent.generated_tokens > account["generated_tokens"] > 0
            everything = gateway.gateway.auth.ledger.spent
        with Serving(endpoint.url, **settings) as gateway:
            assert gateway.gateway.auth.clients[0].ledger.spent == spent
            assert gateway.gateway.auth.ledger.spent == everything == spent  # the key paid for the probe
            left = 300 - spent.generated_tokens  # without a method, because the new gateway would probe the model again
            status, answer, _ = gateway.ask({**PLAIN, "model": "words", "max_tokens": left + 1}, **ALICE)
            assert (status, answer["error"]["code"]) == (429, "insufficient_quota")
            assert gateway.ask({**PLAIN, "model": "words", "max_tokens": left}, **ALICE)[0] == 200
        with Serving(endpoint.url, **{**settings, "keys": (Key("bob", digest(KEY), Budget(tokens=30)),)}) as gateway:
            assert gateway.gateway.auth.clients[0].ledger.spent == Usage()
            assert gateway.gateway.auth.ledger.spent.generated_tokens > everything.generated_tokens


def test_a_gateway_budget_counts_removed_keys_after_a_restart(tmp_path: Path) -> None:
    with Bank(tmp_path / "bank.db") as bank:
        bank.keep_spending("gone", Usage(generated_tokens=90), Usage(generated_tokens=5, model_calls=1))
    settings: dict[str, Any] = {"bank": tmp_path / "bank.db", "budget": Budget(tokens=200)}
    with Running() as endpoint, Serving(endpoint.url, **settings) as gateway:
        assert gateway.ask({**PLAIN, "model": "single/words", "max_tokens": 110})[0] == 429
        assert gateway.ask({**PLAIN, "model": "single/words", "max_tokens": 40})[0] == 200


def test_a_killed_gateway_has_charged_the_worst_case_of_running_samples(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    with Running(n="ignored") as endpoint:
        lines = f'upstream = "{endpoint.url}"\nport = 0\nbank = "{tmp_path / "bank.db"}"\n'
        file.write_text(f'{lines}[keys.alice]\nsha256 = "{digest(KEY)}"\nbudget = "2000tok"\n')
        command = [sys.executable, "-m", "thinktime", "serve", "--config", str(file)]
        program = subprocess.Popen(command, env=os.environ.copy(), stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        url = re.match(r"(http://\S+)", program.stdout.readline())
        assert url is not None

        def ask(body: dict[str, Any]) -> None:
            headers = {"Content-Type": "application/json", **ALICE}
            request = urllib.request.Request(f"{url[1]}/chat/completions", json.dumps(body).encode(), headers)
            with suppress(OSError), urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                reply.read()

        ask({**PLAIN, "model": "single/words", "max_tokens": 9})
        before = endpoint.generated_tokens
        endpoint.requests.clear()
        endpoint.faults.extend(["", "", "never", "never"])
        asking = threading.Thread(target=ask, args=({**VOTE, "model": "majority:n=4/words", "max_tokens": 50},))
        asking.start()
        eventually(lambda: endpoint.generated_tokens > before and len(endpoint.requests) == 4)
        program.kill()
        program.wait(PATIENCE)
        asking.join(PATIENCE)
        done = endpoint.generated_tokens  # the endpoint's own count, without probes and unfinished samples
    with Bank(tmp_path / "bank.db") as bank:
        spent = bank.spending()
    charged = sum(usage.generated_tokens for usage in spent.values())
    assert done <= charged <= done + 4 * 50
    assert charged >= done + 2 * 50 and 2 <= spent["alice"].uncounted_calls <= 4


@given(st.lists(st.tuples(st.integers(1, 50), st.none() | st.integers(0, 50)), max_size=12))
def test_at_any_moment_the_bank_has_the_spending_and_the_worst_case_of_running_samples(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[int, int | None]]
) -> None:
    path = tmp_path_factory.mktemp("banks") / "bank.db"
    spent = under_way = open_calls = 0
    with Bank(path) as bank:
        ledger = KeptLedger(Budget(tokens=200), "a", bank, Ledger())
        for worst, cost in calls:
            reservation = asyncio.run(ledger.reserve(Usage(generated_tokens=worst, model_calls=1)))
            if reservation is None:
                continue
            if cost is None:
                under_way, open_calls = under_way + worst, open_calls + 1
            else:
                ledger.settle([reservation], Usage(generated_tokens=min(cost, worst), model_calls=1))
                spent += min(cost, worst)
    with Bank(path) as bank:
        again = KeptLedger(Budget(tokens=200), "a", bank, Ledger())
        assert again.spent.generated_tokens == spent + under_way <= 200
        assert again.spent.uncounted_calls == open_calls


def test_a_reservation_that_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    bank = Bank(tmp_path / "bank.db")
    auth = Auth(GatewayConfig("http://127.0.0.1:9/v1", keys=key(100)), bank)
    ledger = auth.clients[0].ledger
    bank.close()
    with pytest.raises(BankError):
        asyncio.run(ledger.reserve(Usage(generated_tokens=100, model_calls=1)))
    assert ledger.room_for_tokens() == 100
