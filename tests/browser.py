"""Headless Chromium, driven through its debugging pipe: it opens pages, reads them, types, and takes screenshots."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waiting import PATIENCE

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
    *("--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
START = """
import os, sys
ends = [os.dup(int(end)) for end in sys.argv[1:3]]
while min(ends) < 5:
    ends = [os.dup(end) for end in ends]
for place, end in zip((3, 4), ends):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Starts a program that reads one of two pipes as 3 and writes the other as 4."""


def chromium() -> str | None:
    """The path of Chromium, or None if it is not installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """One tab. ``complaints`` collects the errors that the page logs, and violations of its security policy."""

    def __init__(self, profile: Path) -> None:
        ours, theirs = os.pipe(), os.pipe()
        ends = (ours[0], theirs[1])
        command = [sys.executable, "-c", START, *map(str, ends), str(chromium()), *FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen([*command, "about:blank"], pass_fds=ends, stderr=subprocess.DEVNULL)
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self._count, self._rest, self._session = 0, b"", ""
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._to.close()
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._from.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the protocol; return its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            received = self._next()
            if received.get("id") == self._count:
                assert "error" not in received, received["error"]
                result: dict[str, Any] = received["result"]
                return result
            self._note(received)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._from.fileno(), 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        received: dict[str, Any] = json.loads(message)
        return received

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])

    def open(self, url: str) -> None:
        """Go to an address, or load the page again."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)

    def read(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        received = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in received, received["exceptionDetails"]
        return received["result"].get("value")

    @property
    def text(self) -> str:
        """The visible text."""
        return str(self.read("document.body?.innerText ?? ''"))

    def count(self, selector: str) -> int:
        """The number of matching elements."""
        return int(self.read(f"document.querySelectorAll({json.dumps(selector)}).length"))

    def click(self, selector: str) -> None:
        """Click the first of these elements."""
        self.read(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, text: str) -> None:
        """Type into the focused element."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key, such as ``Enter`` or ``ArrowDown``."""
        key_event = {"key": key, "code": key} | ({"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" else {})
        key_event |= {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key_event)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def wait(self, done: Callable[[], object]) -> None:
        """Wait until the condition is true."""
        until = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < until, f"the page shows: {self.text}"
            time.sleep(0.05)

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the size of the window and its color scheme, ``light`` or ``dark``."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def photograph(self, path: Path) -> None:
        """Save a screenshot of the window as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
