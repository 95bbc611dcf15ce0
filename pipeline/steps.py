"""The clock of a job: what each phase took, how far the job is, and what ends it before its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2

from pipeline.errors import Cancelled, DeadlineExceeded, OutOfMemory
from pipeline.schema import Engine, Timings
from pipeline.settings import Settings
from pipeline.types import Phase
from pipeline.watch import WATCH, Late

PERCENT: dict[Phase, int] = {
    "decode": 0,
    "sanitize": 15,
    "steer": 20,
    "enforce": 45,
    "vectorize": 60,
    "export": 80,
    "upload": 95,
}
"""Share of a typical job of the draft engine that is done when a phase starts."""

STUDIO_PERCENT: dict[Phase, int] = {
    "decode": 0,
    "sanitize": 3,
    "steer": 15,
    "enforce": 70,
    "vectorize": 85,
    "export": 93,
    "upload": 97,
}
"""The same of the studio engine, whose time goes into painting."""

DOING: dict[Phase, str] = {
    "decode": "reading the photo",
    "sanitize": "taking off what is not the vehicle's own",
    "steer": "drawing the picture",
    "enforce": "laying the inks",
    "vectorize": "tracing the outlines",
    "export": "making the files",
    "upload": "handing the files over",
}
"""What is said of a phase that starts."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        phase: under way.
        percent: of the job that is done, 0 to 99; never less than what was told before.
        message: what is being done, in a few words.
    """

    phase: Phase
    percent: int
    message: str


@dataclass(slots=True)
class Steps:
    """Times the phases, holds them to their deadlines, tells of them, and stops where asked to."""

    settings: Settings
    engine: Engine
    progress: Callable[[Progress], None] | None = None
    cancelled: Callable[[], bool] | None = None
    spent_s: dict[Phase, float] = field(default_factory=dict)
    waited_s: float = 0.0
    began_s: float = field(default_factory=time.perf_counter)
    _phase: Phase | None = None
    _phase_began_s: float = 0.0
    _told: Progress | None = None

    def __post_init__(self) -> None:
        if (watch := WATCH.get()) is not None:
            watch.follow(self.late)

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """One stretch of a phase; several of them share its deadline.

        Raises:
            Cancelled: before it starts.
            DeadlineExceeded: after it ended, or from `check` within it.
            OutOfMemory: the process could not get memory.
        """
        self.ask()
        if phase not in self.spent_s:
            self._say(phase, DOING[phase], 0.0)
        self._phase, self._phase_began_s = phase, time.perf_counter()
        try:
            yield
        except MemoryError:
            raise OutOfMemory(f"the worker ran out of memory in {phase}") from None
        except cv2.error as fault:
            if fault.code != cv2.Error.StsNoMem:
                raise
            raise OutOfMemory(f"the worker ran out of memory in {phase}") from None
        self._keep_to_deadline()
        self.spent_s[phase] = self._spent_now_s(phase)
        self._phase = None

    def tell(self, message: str, share: float = 0.0) -> None:
        """Tell of a step within the present phase. For whichever thread works on it at that moment.

        Args:
            message: what is being done, in a few words.
            share: of the phase that is done by now, 0 to 1.
        """
        if self._phase is not None:
            self._say(self._phase, message, share)

    def check(self) -> None:
        """Raise where the job was cancelled, or its present phase has run past its time. For any thread."""
        self.ask()
        self._keep_to_deadline()

    def late(self) -> Late | None:
        """The present phase and by how much it is past its time; None where it isn't. For any thread."""
        phase = self._phase
        if phase is None:
            return None
        late_s = self._spent_now_s(phase) - self.settings.deadline_s(phase, self.engine)
        return (phase, late_s) if late_s > 0 else None

    def ask(self) -> None:
        """Raise Cancelled where the caller has cancelled the job."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("the job was cancelled")

    def total_s(self) -> float:
        """Since the job began."""
        return time.perf_counter() - self.began_s

    def timings(self) -> Timings:
        """Of the phases that ended, and of waiting for a turn."""
        spent_ms = {phase: round(spent_s * 1000, 1) for phase, spent_s in self.spent_s.items()}
        turn_ms = round(self.waited_s * 1000, 1) if self.waited_s > 0 else None
        return Timings(**spent_ms, turn=turn_ms, total=round(self.total_s() * 1000, 1))

    def _say(self, phase: Phase, message: str, share: float) -> None:
        if self.progress is None:
            return
        starts = STUDIO_PERCENT if self.engine == "studio" else PERCENT
        start = starts[phase]
        end = min((other for other in starts.values() if other > start), default=99)
        percent = start + int(share * (end - start))
        told = self._told
        now = Progress(phase, percent if told is None else max(percent, told.percent), message)
        if now != told:
            self._told = now
            self.progress(now)

    def _spent_now_s(self, phase: Phase) -> float:
        return self.spent_s.get(phase, 0.0) + time.perf_counter() - self._phase_began_s

    def _keep_to_deadline(self) -> None:
        if (late := self.late()) is not None:
            raise DeadlineExceeded(f"{late[0]} ran past its time", phase=late[0])
