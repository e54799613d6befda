"""Finds an error that an endpoint reports inside a reply of status 200, and the status that the error speaks of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_STATUSES = (
    (429, r"rate ?limit|too many|throttl|quota|resource exhausted|insufficient (?:balance|funds|credit)"),
    (503, r"overload|unavailable|busy|at capacity|loading"),
    (504, r"time ?out|timed out|deadline"),
    (401, r"unauthenticated|unauthorized|authentication|invalid (?:api )?key|invalid token|incorrect api key"),
    (403, r"permission|forbidden|access denied"),
    (404, r"not found|does not exist"),
    (413, r"too large|too long"),
    (400, r"bad ?request|invalid|validation|unprocessable|unsupported|not supported|context (?:length|size|window)"),
    (400, r"content (?:filter|policy)|safety"),
    (500, r"internal|server error|api error|engine|upstream|provider|generation"),
)
"""Words for a status, as vendors write them in ``code``, ``status`` and ``type``. The first match counts."""
_SURE = (429, 503)
"""Statuses that are also read off the words of a message."""
_NUMBERED = re.compile(r"\b(?:code|status|HTTP(?:/[\d.]+)?)\W{0,3}([45]\d\d)\b", re.IGNORECASE)
_NAMES = ("code", "status", "status_code", "http_status", "type", "error_type")


def reported_error(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The error object of a reply; None if the reply is no error.

    It is the field ``error``, of the reply or of all its samples; or the reply itself, if it is marked as an error, or
    has a status of 400 or more and no samples.
    """
    found = body.get("error")
    if isinstance(found, dict) and any(found.values()):
        return {"error_type": body.get("error_type"), **found}
    if found and not isinstance(found, dict):
        return {**body, "message": found if isinstance(found, str) else body.get("message")}
    if "error" in (body.get("object"), body.get("type")):
        return body
    if "choices" not in body and "data" not in body and _number(body) is not None:
        return body
    samples = body.get("choices")
    if samples and isinstance(samples, list):
        errors = [sample.get("error") if isinstance(sample, dict) else None for sample in samples]
        return reported_error({"choices": None, "error": errors[0]}) if all(errors) else None
    return None


def status_of(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error speaks of: its number, or the one of its words; None if it names none."""
    number = _number(error)
    if number is not None:
        return number
    for name in _NAMES:
        if (status := _in_words(error.get(name))) is not None:
            return status
    message = error.get("message")
    if numbered := _NUMBERED.search(str(message or "")[:300]):
        return int(numbered[1])
    status = _in_words(message)
    return status if status in _SURE else None


def _in_words(text: object) -> int | None:
    words = re.sub(r"[\W_]+|(?<=[a-z])(?=[A-Z])", " ", str(text or "")[:300]).lower()
    return next((status for status, pattern in _STATUSES if re.search(pattern, words)), None)


def _number(error: Mapping[str, Any]) -> int | None:
    for name in _NAMES:
        found = re.fullmatch(r"[45]\d\d", str(error.get(name) or "")[:9])
        if found:
            return int(found[0])
    return None
