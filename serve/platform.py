"""The platform's state: jobs from their queue to their outcome, and which worker holds which.

    IN_QUEUE ──take──▶ IN_PROGRESS ──done──▶ COMPLETED, FAILED
       ▲                    │
       └── its worker died, or ended without a result; after TRIES: FAILED

From both, cancelling leads to CANCELLED at once, and running out of time to TIMED_OUT. The worker then still holds the
job until it tells otherwise: by posting a result, by asking for the next job, or by dying. Until then it gets no other.

No clock, no task and no socket in here: time is passed in as `now`, and the caller wakes those who wait.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.errors import DeadlineExceeded, InternalError, LiveryError, UploadFailed
from serve.limits import (
    HELD_BYTES,
    REPLY_BYTES,
    RUN_KEPT_S,
    RUNSYNC_KEPT_S,
    STOP_AGAIN_S,
    STOP_S,
    TRIES,
)
from serve.metrics import Histogram
from serve.observed import Observed


class Status(StrEnum):
    """As the platform names them."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def over(self) -> bool:
        """Whether nothing comes after it."""
        return self not in (Status.IN_QUEUE, Status.IN_PROGRESS)


class Full(Exception):
    """No job is taken now; the message says why."""


@dataclass(slots=True)
class Job:
    """One job.

    Attributes:
        input: what the worker is handed, as JSON; empty once the job is over.
        kept_s: how long its outcome can be asked for.
        execution_s: longest time in progress.
        ttl_s: longest time from its submission to its end.
        output: the last progress update while in progress; then the result.
        bytes: of input or result.
        tries: how often a worker took it.
        chunks: what the worker streamed and nobody has read yet.
    """

    id: str
    input: bytes
    kept_s: float
    execution_s: float
    ttl_s: float
    submitted_s: float
    bytes: int
    status: Status = Status.IN_QUEUE
    started_s: float | None = None
    ended_s: float | None = None
    worker: str | None = None
    tries: int = 0
    output: Any = None
    error: str | None = None
    chunks: list[Any] = field(default_factory=list)

    def as_json(self, now: float) -> dict[str, Any]:
        """As /status shows it; times in milliseconds."""
        shown: dict[str, Any] = {"id": self.id, "status": self.status.value}
        if self.started_s is not None:
            ended_s = now if self.ended_s is None else self.ended_s
            shown["delayTime"] = round((self.started_s - self.submitted_s) * 1000)
            shown["executionTime"] = round((ended_s - self.started_s) * 1000)
            shown["workerId"] = self.worker
        if self.output is not None:
            shown["output"] = self.output
        if self.error is not None:
            shown["error"] = self.error
        return shown


@dataclass(slots=True)
class Seat:
    """What the platform knows of one worker process.

    Attributes:
        jobs: that it holds, those that were stopped included.
        ready: it has asked for a job.
        leaving_s: since when it gets none any more, because it said that it must be replaced.
        stopped_s, told_s: when each of its jobs was stopped, and when it was last told so.
        served: results that it posted.
    """

    jobs: dict[str, Job] = field(default_factory=dict)
    ready: bool = False
    leaving_s: float | None = None
    stopped_s: dict[str, float] = field(default_factory=dict)
    told_s: dict[str, float] = field(default_factory=dict)
    served: int = 0

    def drop(self, job_id: str) -> Job | None:
        """The worker holds this job no longer."""
        self.stopped_s.pop(job_id, None)
        self.told_s.pop(job_id, None)
        return self.jobs.pop(job_id, None)


@dataclass(slots=True)
class Platform:
    """All jobs and workers of one server."""

    now: Callable[[], float] = time.monotonic
    jobs: dict[str, Job] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)
    outcomes: Counter[Status] = field(default_factory=Counter)
    retried: int = 0
    ending: bool = False
    waited: Histogram = field(default_factory=Histogram)
    ran: Histogram = field(default_factory=Histogram)
    observed: Observed = field(default_factory=Observed)
    _queue: deque[Job] = field(default_factory=deque)

    # ---- clients

    def submit(self, input: bytes, *, sync: bool, execution_s: float, ttl_s: float) -> Job:
        """Queue a job.

        Raises:
            Full: too much is held already, or the server is ending.
        """
        if self.ending:
            raise Full("the server is ending")
        if sum(job.bytes for job in self.jobs.values()) + len(input) > HELD_BYTES:
            raise Full("too many jobs wait or are kept")
        name = f"sync-{uuid.uuid4()}" if sync else str(uuid.uuid4())
        kept_s = RUNSYNC_KEPT_S if sync else RUN_KEPT_S
        job = Job(name, input, kept_s, execution_s, ttl_s, self.now(), len(input))
        self.jobs[name] = job
        self._queue.append(job)
        return job

    def cancel(self, job: Job) -> None:
        """End a job that isn't over."""
        if not job.status.over:
            self._stop(job, Status.CANCELLED)

    def count(self, status: Status) -> int:
        """Jobs that are held in this state."""
        return sum(job.status is status for job in self.jobs.values())

    # ---- workers

    def join(self, worker: str) -> None:
        """A worker process has started."""
        self.seats[worker] = Seat()

    def gone(self, worker: str) -> Seat:
        """A worker process has ended; what it held and nobody stopped is queued again."""
        seat = self.seats.pop(worker)
        self._release(seat)
        return seat

    def asks(self, worker: str, *, busy: bool) -> None:
        """A worker begins to ask for jobs. One that isn't busy has ended all it held."""
        if (seat := self.seats.get(worker)) is not None:
            seat.ready = True
            if not busy:
                self._release(seat)

    def take(self, worker: str, most: int) -> list[Job]:
        """The next jobs for a worker, at most this many."""
        seat = self.seats.get(worker)
        if seat is None or seat.leaving_s is not None:
            return []
        taken: list[Job] = []
        while self._queue and len(taken) < most:
            job = self._queue.popleft()
            job.status, job.started_s, job.worker = Status.IN_PROGRESS, self.now(), worker
            job.tries += 1
            seat.jobs[job.id] = job
            taken.append(job)
        return taken

    def progress(self, worker: str, job_id: str, update: object) -> None:
        """A worker tells how far a job is."""
        if (job := self._running(worker, job_id)) is not None:
            job.output = update

    def stream(self, worker: str, job_id: str, chunk: object) -> None:
        """A worker hands over a part of a result."""
        if (job := self._running(worker, job_id)) is not None:
            job.chunks.append(chunk)

    def done(self, worker: str, job_id: str, reply: dict[str, Any], size_bytes: int) -> None:
        """A worker posts a result; that of a job which was stopped, or is another worker's by now, is dropped."""
        job = self._running(worker, job_id)
        seat = self.seats.get(worker)
        if seat is not None:
            seat.drop(job_id)
            seat.served += 1
            if reply.get("stopPod") is True:
                seat.leaving_s = self.now()
        if job is None:
            return
        if size_bytes > REPLY_BYTES:
            self._fail(job, Status.FAILED, UploadFailed("the result is larger than the platform hands on"))
            return
        error = reply.get("error")
        job.output, job.error = reply.get("output"), error if isinstance(error, str) else None
        if error is None:
            self.observed.observe(job.output)
        self._end(job, Status.COMPLETED if error is None else Status.FAILED, size_bytes)

    def stops(self, worker: str) -> list[str]:
        """Jobs that a worker is to stop: at once, and again while it still holds them."""
        if (seat := self.seats.get(worker)) is None:
            return []
        again_s = self.now() - STOP_AGAIN_S
        told = [job_id for job_id in seat.stopped_s if seat.told_s.get(job_id, again_s) <= again_s]
        seat.told_s.update(dict.fromkeys(told, self.now()))
        return told

    # ---- time

    def expire(self) -> bool:
        """End what ran out of time, forget what was kept long enough; whether anything changed."""
        now, changed = self.now(), False
        for job in list(self.jobs.values()):
            if job.ended_s is not None:
                if now - job.ended_s > job.kept_s:
                    del self.jobs[job.id]
                continue
            too_long = job.started_s is not None and now - job.started_s > job.execution_s
            if too_long or now - job.submitted_s > job.ttl_s:
                self._stop(job, Status.TIMED_OUT)
                changed = True
        return changed

    def stuck(self) -> list[str]:
        """Workers that hold on to what they were told to leave."""
        late_s = self.now() - STOP_S
        return [
            worker
            for worker, seat in self.seats.items()
            if min(seat.stopped_s.values(), default=late_s) < late_s
            or (seat.leaving_s is not None and seat.leaving_s < late_s)
        ]

    def _running(self, worker: str, job_id: str) -> Job | None:
        seat = self.seats.get(worker)
        job = None if seat is None else seat.jobs.get(job_id)
        return job if job is not None and job.status is Status.IN_PROGRESS else None

    def _release(self, seat: Seat) -> None:
        for job_id in list(seat.jobs):
            job = seat.drop(job_id)
            if job is None or job.status.over:
                continue
            if job.tries >= TRIES:
                self._fail(job, Status.FAILED, InternalError())
                continue
            job.status, job.started_s, job.worker, job.output = Status.IN_QUEUE, None, None, None
            job.chunks.clear()
            self._queue.appendleft(job)
            self.retried += 1

    def _stop(self, job: Job, status: Status) -> None:
        if job.status is Status.IN_QUEUE:
            self._queue.remove(job)
        elif job.worker is not None and job.worker in self.seats:
            self.seats[job.worker].stopped_s[job.id] = self.now()
        if status is Status.TIMED_OUT:
            phase = job.output.get("phase", "queue") if isinstance(job.output, dict) else "queue"
            self._fail(job, status, DeadlineExceeded(f"the job ran past its time in {phase}", phase=phase))
        else:
            job.output = None
            self._end(job, status, 0)

    def _fail(self, job: Job, status: Status, fault: LiveryError) -> None:
        reply: dict[str, Any] = dict(fault.as_reply())
        job.error, job.output = reply.pop("error"), reply
        self._end(job, status, 0)

    def _end(self, job: Job, status: Status, size_bytes: int) -> None:
        job.status, job.ended_s = status, self.now()
        job.input, job.bytes = b"", size_bytes
        self.outcomes[status] += 1
        if job.started_s is not None:
            self.waited.observe(job.started_s - job.submitted_s)
            self.ran.observe(job.ended_s - job.started_s)
