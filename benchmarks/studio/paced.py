"""A volume as slow as a network's: what the models' files are read by gives no more than so many bytes a second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

READ: Callable[[int, Sequence[Any], int], int] = os.preadv


class PacedReads:
    """`os.preadv`, all of whose callers share one rate.

    Args:
        mb_per_s: 10^6 bytes a second.
    """

    def __init__(self, mb_per_s: float) -> None:
        self._bytes_per_s = mb_per_s * 1e6
        self._lock = threading.Lock()
        self._free_s = 0.0

    def __call__(self, descriptor: int, buffers: Sequence[Any], at: int) -> int:
        """Read, and return once that much could have come over the line."""
        count = READ(descriptor, buffers, at)
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + count / self._bytes_per_s
            due_s = self._free_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        return count


def pace_reads(mb_per_s: float) -> None:
    """Slow this process's reads of models from now on."""
    os.preadv = PacedReads(mb_per_s)  # type: ignore[assignment]
