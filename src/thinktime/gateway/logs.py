"""The gateway's log: warnings, and if asked for a line for each request, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from thinktime.gateway.connections import LogLimit
from thinktime.gateway.history import HistoryEntry

_access = logging.getLogger("thinktime.access")


class JsonLines(logging.Formatter):
    """Each record is one JSON object in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its time (Unix seconds), level, logger and message, and the fields of a request."""
        entry: dict[str, Any] = {"time": record.created, "level": record.levelname.lower(), "logger": record.name}
        entry |= getattr(record, "request", None) or {"message": record.getMessage()}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(level: str, form: str, access: bool) -> None:
    """Send the log to the standard error.

    Args:
        level: the least important records that are shown: debug, info, warning or error.
        form: text or json.
        access: whether each request is a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    limit = LogLimit()
    for name in ("uvicorn.error", "asyncio", "thinktime"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
        logger.addFilter(limit)
    _access.setLevel(logging.INFO if access else logging.CRITICAL)


def log_request(method: str, path: str, status: int, began: float, entry: HistoryEntry | None) -> None:
    """Log a finished request, if that is asked for. A request without a whole body has no key, strategy or tokens."""
    if not _access.isEnabledFor(logging.INFO):
        return
    request: dict[str, Any] = {"method": method, "path": path, "status": status}
    request["seconds"] = round(time.monotonic() - began, 4)
    if entry is not None:
        strategy = entry.method.name if entry.method is not None else None
        spent = entry.ledger.spent
        request |= {"key": entry.client.name, "model": entry.model, "strategy": strategy, "left": entry.left}
        request |= {"calls": spent.model_calls, "tokens": spent.written_tokens, "error": entry.error or None}
        request["upstreams"] = ",".join(entry.upstreams) or None
    shown = " ".join(f"{name}={value}" for name, value in request.items() if value not in (None, False))
    _access.info(shown, extra={"request": request})
