"""A timer that calls a method of an object for as long as there is that object."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable


class Alarm:
    """Calls `method` once, on a thread of its own, after the time that was last set. Set and unset under one lock.

    The object is held by weak reference: what nobody has any more is not kept alive by what would tidy it.

    Args:
        name: of the thread.
        method: bound; called without arguments.
    """

    def __init__(self, name: str, method: Callable[[], None]) -> None:
        self._name = name
        self._method = weakref.WeakMethod(method)
        self._timer: threading.Timer | None = None

    @property
    def is_set(self) -> bool:
        """Whether it will ring, or is ringing for the last time that was set."""
        return self._timer is not None

    def ring_in(self, seconds: float) -> None:
        """Ring that much later, and at no other time."""
        self.unset()
        self._timer = threading.Timer(min(max(0.0, seconds), threading.TIMEOUT_MAX), _ring, (self._method,))
        self._timer.name, self._timer.daemon = self._name, True
        self._timer.start()

    def unset(self) -> None:
        """Don't ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _ring(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    ring = method()
    if ring is not None:
        ring()
