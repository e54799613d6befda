"""Pages of other origins may send requests only where the owner says so."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import pytest
from gateway_server import BEARER, PLAIN, Serving, Start, keyed, serve
from waiting import PATIENCE

from thinktime.core.errors import InputError
from thinktime.core.usage import Budget
from thinktime.gateway.config import GatewayConfig, read_config

PAGE = "https://chat.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-thinktime"}


def preflight(gateway: Serving, origin: str) -> tuple[int, Message]:
    headers = {"Origin": origin, **PREFLIGHT}
    request = urllib.request.Request(f"{gateway.url}/chat/completions", headers=headers, method="OPTIONS")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return reply.status, reply.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_no_origin_is_allowed_by_default(start_gateway: Start) -> None:
    _, gateway = start_gateway()
    status, headers = preflight(gateway, PAGE)
    assert status == 405 and "Access-Control-Allow-Origin" not in headers
    assert "access-control-allow-origin" not in {name.lower() for name in gateway.ask(PLAIN, Origin=PAGE)[2]}


def test_a_page_of_an_allowed_origin_sends_requests_and_others_do_not(start_gateway: Start) -> None:
    _, gateway = start_gateway({"cors_origins": (PAGE,), **keyed(Budget(tokens=1000))}, probed=False)
    status, headers = preflight(gateway, PAGE)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    assert headers["Access-Control-Allow-Headers"] == "authorization,x-thinktime"
    assert "Access-Control-Allow-Credentials" not in headers
    status, headers = preflight(gateway, "https://evil.example")
    assert status == 400 and "Access-Control-Allow-Origin" not in headers
    for sent, expected in ((BEARER, 200), ({}, 401)):  # a page can read errors too
        status, _, found = gateway.ask(PLAIN, Origin=PAGE, **sent)
        assert (status, found["access-control-allow-origin"]) == (expected, PAGE)
    assert "access-control-allow-origin" not in gateway.ask(PLAIN, Origin="https://evil.example", **BEARER)[2]


def test_any_origin_needs_keys(start_gateway: Start) -> None:
    with pytest.raises(InputError, match=r"cors_origin='\*': without a key any page could use the gateway"):
        GatewayConfig("http://127.0.0.1:9/v1", cors_origins=("*",))
    _, gateway = start_gateway({"cors_origins": ("*",), **keyed(Budget())}, probed=False)
    assert preflight(gateway, PAGE)[1]["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("origin", ["chat.example", "https://chat.example/", "null", "https://*.example", ""])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(InputError, match=r"cors_origin=.*write https://HOST or http://HOST:PORT without a path"):
        GatewayConfig("http://127.0.0.1:9/v1", cors_origins=(origin,))


def test_origins_come_from_options_the_environment_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f'cors_origins = ["{PAGE}"]')
    assert read_config(file) == {"cors_origins": (PAGE,)}
    file.write_text(f'cors_origins = "{PAGE}"')
    with pytest.raises(InputError, match=r"cors_origins=.*give a list of origins"):
        read_config(file)
    program = serve(
        "--print-config", "--upstream", "http://127.0.0.1:9/v1", THINKTIME_CORS_ORIGIN=f"{PAGE} http://localhost:3000"
    )
    out, _ = program.communicate(timeout=PATIENCE)
    assert json.loads(out)["cors_origins"] == [PAGE, "http://localhost:3000"]
