"""A turn: what only one job has at a time. The others wait in line, and are heard meanwhile when they should stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ASK_S = 0.1
"""How often a job that waits asks whether it should go on."""


class _Place:
    """In the line, of a job on this thread."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Turn:
    """Goes from job to job, in the order that they came. One within another, on its thread, comes before it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: list[_Place] = []

    @contextmanager
    def __call__(self, ask: Callable[[], None], waits: Callable[[], None]) -> Iterator[float]:
        """The turn, while the block runs; gives the seconds that it was waited for, 0 where no job had it.

        Args:
            ask: called before the block, and every `ASK_S` of a wait; what it raises ends the wait.
            waits: called once where another job has the turn.
        """
        place, began_s = _Place(), time.perf_counter()
        with self._changed:
            around = (at for at, other in enumerate(self._line) if other.thread == place.thread)
            self._line.insert(next(around, len(self._line)), place)
            free = self._line[0] is place
        try:
            if not free:
                waits()
            self._wait(place, ask)
            yield 0.0 if free else time.perf_counter() - began_s
        finally:
            with self._changed:
                self._line.remove(place)
                self._changed.notify_all()

    def _wait(self, place: _Place, ask: Callable[[], None]) -> None:
        first = False
        while not first:
            ask()
            with self._changed:
                first = self._changed.wait_for(lambda: self._line[0] is place, ASK_S)
