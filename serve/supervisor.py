"""Keeps one worker process running: starts it, starts it again when it ends, and ends it with the server."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from serve.bell import Bell
from serve.platform import Platform
from serve.worker_side import environment

PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Before a worker that ended is started again: at first, and at most, doubled from one failure to the next."""

END_S = 15.0
"""Longest time that a worker may take to end when told to; Livery's takes 12."""

log = logging.getLogger("serve")


class Supervisor:
    """One worker at a time, each under a name of its own.

    Args:
        entry: the worker's script.
        address, secret: of the worker side.
        inherited: environment of the worker, without the SDK's part.
    """

    def __init__(
        self, platform: Platform, bell: Bell, entry: Path, address: str, secret: str, inherited: Mapping[str, str]
    ) -> None:
        self._platform, self._bell = platform, bell
        self._entry, self._address, self._secret, self._inherited = entry, address, secret, inherited
        self._process: Process | None = None
        self._ending = asyncio.Event()
        self.started = 0

    @property
    def restarts(self) -> int:
        """Workers started in another's place."""
        return max(self.started - 1, 0)

    async def run(self) -> None:
        """Keep a worker until `end`."""
        pause_s = PAUSE_S
        while not self._ending.is_set():
            if await self._one_life():
                pause_s = PAUSE_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def end(self) -> None:
        """Tell the worker to end, and see that it does."""
        self._ending.set()
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), END_S)
        except TimeoutError:
            log.error("the worker doesn't end: killed")  # noqa: TRY400 - there is no more to tell
            self.kill()

    def kill(self) -> None:
        """End the worker with everything that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _one_life(self) -> bool:
        """From a worker's start to its end; whether it served anything."""
        self.started += 1
        name = f"worker-{self.started}"
        self._platform.join(name)
        began_s = time.monotonic()
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(self._entry),
            env={**self._inherited, **environment(self._address, self._secret, name)},
            stdin=DEVNULL,
            start_new_session=True,
            preexec_fn=_leash(),
        )
        log.info("%s: started as process %d", name, process.pid)
        if self._ending.is_set():
            process.terminate()
        code = await process.wait()
        self.kill()  # the SDK's heartbeat outlives a worker that was killed
        self._process = None
        seat = self._platform.gone(name)
        self._bell.ring()
        log.info("%s: ended with %d after %.0f s, %d jobs served", name, code, time.monotonic() - began_s, seat.served)
        return seat.served > 0


def _leash() -> Callable[[], None] | None:
    """What a worker does as it starts, so that it is told to end even if the server is killed; Linux alone has it."""
    if sys.platform != "linux":
        return None
    prctl, set_death_signal = ctypes.CDLL(None).prctl, 1

    def leash() -> None:
        prctl(set_death_signal, int(signal.SIGTERM))

    return leash
