"""Limits on what clients send and hold, in bytes, seconds and counts. docs/gateway.md lists them.

Limits on replies of the upstream are in `thinktime.models.remote.limits`.
"""

from __future__ import annotations

from thinktime.models.remote.limits import MIB

# bytes and characters
HEAD = 16 * 1024
"""Most bytes of a request's first line and headers."""
HEADERS = 100
"""Most headers of a request."""
BODIES = 256 * MIB
"""Most bytes of the bodies of one key's unfinished requests; of all keys together, twice as many."""
VALUES = 1_000_000
"""Most values in a body, by its commas: an empty list of two bytes takes seventy bytes of memory."""
SENT = 256 * MIB
"""Most bytes that all samples of one request send to the upstream: the bytes of its body, times its samples."""
NAME = 2000
"""Most characters of a model's name, with the method in front."""

# seconds
HEAD_SECONDS = 10.0
"""Longest wait for a whole head, from the start of the connection or from the previous reply."""
BODY_SECONDS = 60.0
"""Longest wait for the body after the head."""
SEND_SECONDS = 30.0
"""Time in which a client has to read all that was sent to it, or ``LEAST_READ`` bytes."""
LEAST_READ = MIB
WAIT_SECONDS = 30.0
"""Longest wait for a part of a budget that other requests have reserved."""
GRACE_SECONDS = 60.0
"""Time after ``request_seconds`` at which a request without an answer is ended."""
RETRY_SECONDS = 5.0
"""Retry-After of a reply that says that the gateway or a budget is busy."""

# counts
SAMPLES = 8192
"""Most samples of one key's running requests; of all keys together, twice as many."""
CONNECTIONS = 4096
"""Most connections of clients. A third of the descriptors is the limit if that is less."""
SPARE = 32
"""Further connections, on which only ``/health`` is answered."""
MODELS = 1000
"""Most models of the upstream in the list of models."""
GENERATORS = 256
"""Most models of the upstream that are kept probed."""
FREE_FAILURES = 10
"""Failed keys that are answered at once; one is forgotten each second."""
FAILURE_SECONDS, LONGEST_FAILURE = 0.1, 2.0
"""Seconds that each further failed key adds to the time of its reply, and the longest such time."""
FAILURES, FAILURES_EACH = 256, 32
"""Most failed keys that wait for their reply, of all addresses and of each; further ones are a 429 at once."""
ADDRESSES = 4096
"""Addresses whose failed keys are remembered."""
LOG_LINES, LOG_SECONDS = 10, 10.0
"""Most lines that one line of code logs, and in how many seconds."""
