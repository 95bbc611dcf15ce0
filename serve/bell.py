"""Wakes those who wait for the platform to change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_AGAIN_S = 1.0
"""Longest time between two looks, for what changes with time alone."""


class Bell:
    """Rung after each change."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake everyone who waits."""
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait_for(self, find: Callable[[], T | None], timeout_s: float) -> T | None:
        """What `find` finds, as soon as it does; None after `timeout_s`."""
        loop = asyncio.get_running_loop()
        latest_s = loop.time() + timeout_s
        while (found := find()) is None and (left_s := latest_s - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(left_s, LOOK_AGAIN_S)):
                    await self._rung.wait()
            except TimeoutError:
                continue
        return found
