"""Errors as HTTP replies: a status, and a body in OpenAI's shape."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from thinktime.core.errors import (
    MESSAGE,
    BankError,
    BusyError,
    CapabilityError,
    InputError,
    ModelError,
    ThinktimeError,
    UnknownNameError,
    UnreachableBankError,
    cut,
)
from thinktime.gateway.limits import RETRY_SECONDS
from thinktime.models.remote.client import RefusedError, RemoteError, TooLateError

_log = logging.getLogger("thinktime")
_OURS = {
    "api_key": "the upstream rejects the gateway's key",
    "base_url": "the upstream is not an OpenAI-compatible API",
}
"""Messages for mistakes in the gateway's own settings, by field."""

_ROLE_OPTION = re.compile(r"\(--model ([\w-]+)=NAME\)")
"""How the command line names the model of a role, which clients name in the body."""


class HttpError(Exception):
    """A request that is answered by an error.

    Args:
        status: the HTTP status.
        message: one line for humans.
        param: the field of the request that is wrong.
        code: a name for programs.
        retry_after: seconds until a retry may succeed.
        more_headers: of the reply.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._more_headers = more_headers or {}
        message = cut(message, MESSAGE)
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after
        self.account: Mapping[str, Any] | None = None
        """The account of a search that spent something before it failed."""

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, "invalid_request_error")
        kind = "insufficient_quota" if self.code == "insufficient_quota" else kind
        kind = "server_error" if self.status >= 500 else kind
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error} | ({} if self.account is None else {"thinktime": self.account})

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After, in whole seconds, and what else the reply says."""
        wait = {} if self.retry_after is None else {"Retry-After": str(math.ceil(self.retry_after))}
        return wait | dict(self._more_headers)


class UnknownKeyError(HttpError):
    """The request has a key that is unknown or revoked."""


@dataclass(frozen=True)
class ErrorShape:
    """How the errors of an API look."""

    body: Callable[[HttpError], Mapping[str, Any]]
    """The JSON body of a reply."""
    event: Callable[[Mapping[str, Any]], bytes]
    """The event with such a body in a stream that has begun."""


def busy(reason: str) -> HttpError:
    """The reply while a limit on what requests hold together is reached."""
    return HttpError(503, f"{reason}; try again", code="busy", retry_after=RETRY_SECONDS)


def redacted(reason: str, addresses: tuple[str, ...]) -> str:
    """The reason without the addresses, hosts and ports of upstreams, which clients may not see."""
    for address in sorted(addresses, key=len, reverse=True):
        reason = reason.replace(f"{address!r}", "upstream").replace(address, "the upstream")
    for mention in _mentions(addresses):
        reason = mention.sub("the upstream", reason)
    return reason


@lru_cache(maxsize=1)
def _mentions(addresses: tuple[str, ...]) -> list[re.Pattern[str]]:
    """Patterns of the hosts of these addresses, with their ports."""
    patterns = []
    for host in {urlsplit(address).hostname or "" for address in addresses} - {""}:
        is_word = re.fullmatch(r"(?!localhost)\w+", host) is not None  # "model" is an address only with its port
        port = r":\d+" if is_word else r"(?::\d+)?"
        pattern = rf"(?<![\w.-])\[?{re.escape(host)}\]?{port}(?![\w-])"
        patterns.append(re.compile(pattern, re.IGNORECASE))
    return patterns


def http_error(error: Exception, addresses: tuple[str, ...]) -> HttpError:
    """The HTTP error for an exception. An unexpected one is logged, and its text is not sent.

    Args:
        error: the exception.
        addresses: of upstreams; they are removed from the message.
    """
    if isinstance(error, HttpError):
        return error
    if isinstance(error, RecursionError):
        return HttpError(400, "the body is nested too deeply", code="invalid_json")
    if not isinstance(error, ThinktimeError):
        _log.error("a request failed", exc_info=error)
        return HttpError(500, "the gateway failed; see its log")
    reason = redacted(str(error), addresses)
    if isinstance(error, InputError):
        if error.field in _OURS:
            _log.error(str(error))
            return HttpError(502, _OURS[error.field])
        if error.field == "model_name":
            unknown = isinstance(error, UnknownNameError)
            return HttpError(404, reason, param="model", code="model_not_found" if unknown else None)
        long = error.field == "prompt" and error.value == "too long"
        return HttpError(400, reason, param=error.field, code="context_length_exceeded" if long else None)
    if isinstance(error, BusyError):
        return HttpError(429, reason, code="budget_reserved", retry_after=RETRY_SECONDS)
    if isinstance(error, CapabilityError):
        reason = _ROLE_OPTION.sub(r'("thinktime": {"models": {"\1": NAME}})', reason)
        return HttpError(400, reason, param="strategy")
    if isinstance(error, RefusedError) and (error.status == 429 or 500 <= error.status < 600):
        return HttpError(error.status, reason, code="upstream_refused", retry_after=error.retry_after)
    if isinstance(error, TooLateError):
        return HttpError(504, reason, code="upstream_too_late")
    if isinstance(error, RemoteError | ModelError):
        return HttpError(502, reason, code="upstream_failed")
    if isinstance(error, UnreachableBankError):
        reason = "the gateway cannot reach its bank, so it cannot check the budget; try again"
        return HttpError(503, reason, code="bank_unreachable", retry_after=RETRY_SECONDS)
    assert isinstance(error, BankError), error
    _log.error(str(error))
    return HttpError(500, "the gateway cannot write its bank; see its log")
