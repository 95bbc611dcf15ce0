"""How much, how long and how often: the platform's own figures where it has them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

RUN_BYTES, RUNSYNC_BYTES = 10_000_000, 20_000_000
"""Largest body of /run and of /runsync."""

PHOTO_BYTES, OPTIONS_BYTES = 20_000_000, 1_000_000
"""Largest parts of /illustrate."""

BODY_S = 60.0
"""Longest time that a client may take to send its request."""

REPLY_BYTES = 20_000_000
"""Largest result; the platform shows a job with a larger one as completed, without its output."""

HELD_BYTES = 512 << 20
"""Most that is held of jobs that wait and results that are kept; above it new jobs are refused."""

RUN_KEPT_S, RUNSYNC_KEPT_S = 1800.0, 60.0
"""How long the outcome of a job can be asked for."""

RUNSYNC_WAIT_S, RUNSYNC_LONGEST_WAIT_S = 90.0, 300.0
"""How long /runsync waits for a result before it answers with how things stand."""

EXECUTION_S, EXECUTION_RANGE_S = 600.0, (5.0, 86_400.0)
"""How long a job may run: by default, and what `policy.executionTimeout` may set."""

TTL_S, TTL_RANGE_S = 86_400.0, (10.0, 604_800.0)
"""How long a job may wait and run in all: by default, and what `policy.ttl` may set."""

POLL_S = 20.0
"""How long a worker's question is held until there is something to tell; the SDK gives up after 90."""

STOP_AGAIN_S = 1.0
"""How often a worker is told to stop the same job."""

STOP_S = 30.0
"""A worker that still holds a stopped job after this time is ended; Livery's leaves by itself after 20."""

TRIES = 3
"""How often a job is begun whose worker dies."""


@dataclass(slots=True)
class Rate:
    """Requests that each client may make: `per_s` in the long run, twice that many at once.

    Attributes:
        clients: tokens left and when they were counted, by client, the one seen last at the end.
    """

    per_s: float
    now: Callable[[], float] = time.monotonic
    clients: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait_s(self, client: str) -> float:
        """Count one request; 0, or the seconds until the client may come again."""
        now, burst = self.now(), 2 * self.per_s
        tokens, counted = self.clients.pop(client, (burst, now))
        tokens = min(burst, tokens + (now - counted) * self.per_s)
        allowed = tokens >= 1
        self.clients[client] = (tokens - 1 if allowed else tokens, now)
        self._forget(now)
        return 0.0 if allowed else (1 - tokens) / self.per_s

    def _forget(self, now: float) -> None:
        """Two seconds fill anyone's tokens again."""
        while self.clients:
            client, (_, counted) = next(iter(self.clients.items()))
            if now - counted < 2:
                return
            del self.clients[client]
