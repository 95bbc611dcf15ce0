"""What phases 1 and 2 made, kept in this process for a while, so that re-inking a photo runs no model.

Only pictures and reports are kept, never the encoded photo; a job with `cache: "off"` leaves nothing here.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.alarm import Alarm

T = TypeVar("T")

KEPT_BYTES = 512 << 20
"""Most that is kept, in bytes: about a dozen photos at 4096 px."""

KEPT_S = 900.0
"""How long something is kept after it was last used, in seconds."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T
    bytes: int
    used_s: float


@dataclass(slots=True, weakref_slot=True)
class Kept(Generic[T]):
    """A least-recently-used store, bounded in bytes and in time. Threads may share it.

    What is past its time goes at that time, by a timer that runs only while there is something to wait for.
    """

    most_bytes: int = KEPT_BYTES
    most_s: float = KEPT_S
    _entries: OrderedDict[str, _Entry[T]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _alarm: Alarm = field(init=False)

    def __post_init__(self) -> None:
        self._alarm = Alarm("livery-kept", self._sweep)

    def get(self, key: str) -> T | None:
        """What was kept under `key`; None where it is not there any more."""
        with self._lock:
            self._expire()
            entry = self._entries.get(key)
            if entry is None:
                return None
            entry.used_s = time.monotonic()
            self._entries.move_to_end(key)
            return entry.value

    def put(self, key: str, value: T, size_bytes: int) -> None:
        """Keep `value`, which takes `size_bytes`; what is larger than the whole store is not kept."""
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = _Entry(value, size_bytes, time.monotonic())
            self._expire()
            while sum(entry.bytes for entry in self._entries.values()) > self.most_bytes:
                self._entries.popitem(last=False)
            if not self._alarm.is_set:
                self._wait()

    def drop(self, beginning: str) -> int:
        """Let go of all whose key begins so. Returns how many those were."""
        with self._lock:
            keys = [key for key in self._entries if key.startswith(beginning)]
            for key in keys:
                del self._entries[key]
        return len(keys)

    def _sweep(self) -> None:
        with self._lock:
            self._expire()
            self._wait()

    def _expire(self) -> None:
        oldest_s = time.monotonic() - self.most_s
        for key in [key for key, entry in self._entries.items() if entry.used_s <= oldest_s]:
            del self._entries[key]

    def _wait(self) -> None:
        """Have a sweep when the first entry is due, where there is one."""
        self._alarm.unset()
        if self._entries:
            due_s = min(entry.used_s for entry in self._entries.values()) + self.most_s
            self._alarm.ring_in(due_s - time.monotonic())
