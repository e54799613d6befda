"""Errors as answers: a status, and a body in the shape that OpenAI's clients read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from thinktime.core.errors import BankError, CapabilityError, InputError, ModelError, ThinktimeError, UnknownNameError
from thinktime.remote.client import RefusedError, RemoteError, TooLateError

_log = logging.getLogger("thinktime")
_OURS = {"api_key": "the upstream does not take the gateway's key", "base_url": "the upstream is no API of this kind"}
"""What a client cannot help."""


class HttpError(Exception):
    """An answer that is an error.

    Args:
        status: of HTTP.
        message: one line.
        param: which field of the request is meant.
        code: a name for programs.
        retry_after: seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after
        self.account: Mapping[str, Any] | None = None
        """What was spent all the same."""

    @property
    def body(self) -> dict[str, Any]:
        """What the client reads."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, "invalid_request_error")
        kind = "insufficient_quota" if self.code == "insufficient_quota" else kind
        kind = "server_error" if self.status >= 500 else kind
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error} | ({} if self.account is None else {"thinktime": self.account})

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After, in whole seconds."""
        return {} if self.retry_after is None else {"Retry-After": str(math.ceil(self.retry_after))}


def told(reason: str, upstream: str) -> str:
    """A reason without the upstream's address."""
    return reason.replace(f"{upstream!r}", "upstream").replace(upstream, "the upstream")


def http_error(error: Exception, upstream: str) -> HttpError:
    """What a client is told of an error; an unexpected one is logged and not told.

    Args:
        error: what was raised.
        upstream: its address, which is nobody's business.
    """
    if isinstance(error, HttpError):
        return error
    if isinstance(error, RecursionError):
        return HttpError(400, "the body is nested too deeply", code="invalid_json")
    if not isinstance(error, ThinktimeError):
        _log.error("a request failed", exc_info=error)
        return HttpError(500, "the gateway failed; its log says why")
    said = told(str(error), upstream)
    if isinstance(error, InputError):
        if error.field in _OURS:
            _log.error(str(error))
            return HttpError(502, _OURS[error.field])
        if error.field == "model_name":
            unknown = isinstance(error, UnknownNameError)
            return HttpError(404, said, param="model", code="model_not_found" if unknown else None)
        long = error.field == "prompt" and error.value == "too long"
        return HttpError(400, said, param=error.field, code="context_length_exceeded" if long else None)
    if isinstance(error, CapabilityError):
        return HttpError(400, said, param="strategy")
    if isinstance(error, RefusedError) and (error.status == 429 or error.status >= 500):
        return HttpError(error.status, said, code="upstream_refused", retry_after=error.retry_after)
    if isinstance(error, TooLateError):
        return HttpError(504, said, code="upstream_too_late")
    if isinstance(error, RemoteError | ModelError):
        return HttpError(502, said, code="upstream_failed")
    assert isinstance(error, BankError), error
    _log.error(str(error))
    return HttpError(500, "the gateway cannot write its bank; its log says why")
