"""A job's clock, as whoever waits for the job sees it: which phase has run past its time and doesn't notice."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.types import Phase

Late = tuple["Phase", float]
"""A phase, and by how many seconds it is past its time."""


class Watch:
    """What is late in one job. Followed and asked on different threads."""

    def __init__(self) -> None:
        self._clocks: list[Callable[[], Late | None]] = []

    def follow(self, clock: Callable[[], Late | None]) -> None:
        """Ask `clock` too, from now on."""
        self._clocks.append(clock)

    def late(self) -> Late | None:
        """The phase that is past its time; None where none is."""
        return next(filter(None, [clock() for clock in self._clocks]), None)


WATCH: ContextVar[Watch | None] = ContextVar("WATCH", default=None)
"""Who watches what this context does; set by whoever waits for it, so that no phase has to hand it on."""
