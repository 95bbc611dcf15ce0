"""The clock of a job: what each phase took, and what ends it before its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.errors import Cancelled, DeadlineExceeded, OutOfMemory
from pipeline.schema import Engine, Timings
from pipeline.settings import Settings
from pipeline.types import Phase

PERCENT: dict[Phase, int] = {
    "decode": 0,
    "sanitize": 15,
    "steer": 20,
    "enforce": 45,
    "vectorize": 60,
    "export": 80,
    "upload": 95,
}
"""Share of a typical job that is done when a phase starts."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A phase has started; `percent` of the job is done."""

    phase: Phase
    percent: int


@dataclass(slots=True)
class Steps:
    """Times the phases, holds them to their deadlines, tells of them, and stops where asked to."""

    settings: Settings
    engine: Engine
    progress: Callable[[Progress], None] | None = None
    cancelled: Callable[[], bool] | None = None
    spent_s: dict[Phase, float] = field(default_factory=dict)
    began_s: float = field(default_factory=time.perf_counter)
    _phase: Phase | None = None
    _phase_began_s: float = 0.0

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """One stretch of a phase; several of them share its deadline.

        Raises:
            Cancelled: before it starts.
            DeadlineExceeded: after it ended, or from `check` within it.
            OutOfMemory: the process could not get memory.
        """
        self.ask()
        if self.progress is not None and phase not in self.spent_s:
            self.progress(Progress(phase, PERCENT[phase]))
        self._phase, self._phase_began_s = phase, time.perf_counter()
        try:
            yield
        except MemoryError:
            raise OutOfMemory(f"the worker ran out of memory in {phase}") from None
        self._keep_to_deadline()
        self.spent_s[phase] = self._spent_now_s(phase)
        self._phase = None

    def check(self) -> None:
        """Raise where the job was cancelled, or its present phase has run past its time. For any thread."""
        self.ask()
        self._keep_to_deadline()

    def ask(self) -> None:
        """Raise Cancelled where the caller has cancelled the job."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("the job was cancelled")

    def total_s(self) -> float:
        """Since the job began."""
        return time.perf_counter() - self.began_s

    def timings(self) -> Timings:
        """Of the phases that ended."""
        spent_ms = {phase: round(spent_s * 1000, 1) for phase, spent_s in self.spent_s.items()}
        return Timings(**spent_ms, total=round(self.total_s() * 1000, 1))

    def _spent_now_s(self, phase: Phase) -> float:
        return self.spent_s.get(phase, 0.0) + time.perf_counter() - self._phase_began_s

    def _keep_to_deadline(self) -> None:
        phase = self._phase
        if phase is not None and self._spent_now_s(phase) > self.settings.deadline_s(phase, self.engine):
            raise DeadlineExceeded(f"{phase} ran past its time", phase=phase)
