"""A worker process among RunPod's: each job on a thread of its own, and an end to it when the platform asks for one.

The SDK awaits `WorkerLoop.serve` for each job. It stops a job by cancelling that await, which ends no thread: here the
job is told, and the await lasts until the job has really ended, so that never more jobs run than were set. On SIGTERM
the SDK lets the running jobs finish, then sits in its long polls; here they have `GRACE_S`, and the process is gone
within `LEAVE_S`. A phase that hangs in a call that nothing can end is answered for, and the process leaves, as on
SIGTERM, so that another serves the next job. A job that was stopped gets no result, so the platform runs it again
wherever it still wants it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, NoReturn

from pipeline.errors import DeadlineExceeded, DeviceLost
from pipeline.kept import Kept
from pipeline.updates import Job, job_name
from pipeline.watch import WATCH, Watch

Handle = Callable[[Job, Callable[[], bool]], dict[str, Any]]
"""Serves a job: given what tells whether the job was cancelled. Returns a reply of plain JSON values, never raises."""

HUNG_S = 1.5
"""How long a phase may be past its time; after it the job is answered and the process leaves."""

LOOK_S = 0.25
"""Longest time between two looks at that."""

STOP_S = 20.0
"""Longest time that a cancelled job may take to end; after it the process leaves."""

GRACE_S = 10.0
"""How long the running jobs may go on after SIGTERM, before they are cancelled."""

LEAVE_S = 11.5
"""Longest time from SIGTERM to the end of the process."""

REPLIES_BYTES = 64 << 20
"""Most that is kept of replies, in bytes: at least three of the largest."""

log = logging.getLogger("handler")


class WorkerLoop:
    """Serves the SDK's jobs with `handle`, at most `jobs_at_once` at the same time, on as many threads.

    Jobs of one id are served one after another, whatever they ask for: the platform has lost the earlier one.
    """

    def __init__(self, handle: Handle, jobs_at_once: int = 1) -> None:
        self._handle = handle
        self._jobs_at_once = jobs_at_once
        self._threads = ThreadPoolExecutor(jobs_at_once, thread_name_prefix="livery-job")
        self._replies: Kept[str] = Kept(REPLIES_BYTES)
        self._jobs: set[asyncio.Task[Any]] = set()
        self._ends: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._stop_sdk: Callable[[], object] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def serve(self, job: Job) -> dict[str, Any]:
        """The SDK's handler.

        Raises:
            CancelledError: the platform stopped the job, or the process; the job's thread is free again. Or the GPU
                was lost to another job, which the platform is told: this one runs again elsewhere.
        """
        if (task := asyncio.current_task()) is not None:
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)
        while (earlier := self._ends.get(job_name(job))) is not None:
            await asyncio.wait({earlier})
        if self._leaving is not None:
            raise asyncio.CancelledError
        cancelled, watch = threading.Event(), Watch()
        ended = self._begin(job, watch, cancelled.is_set)
        try:
            reply = await _reply_of(ended, watch, job)
        except asyncio.CancelledError:
            cancelled.set()
            await self._end_of(ended, job)
            raise
        if "refresh_worker" in reply:
            cancelled.set()  # for a phase that hangs, and comes to itself before the process ends
            if self._leaving is not None and reply.get("code") == DeviceLost.__name__:
                raise asyncio.CancelledError
            self.leave()
        return reply

    def _begin(self, job: Job, watch: Watch, cancelled: Callable[[], bool]) -> asyncio.Future[dict[str, Any]]:
        context = copy_context()
        context.run(WATCH.set, watch)
        work = partial(context.run, self._once, job, cancelled)
        ended = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._ends[job_name(job)] = ended
        ended.add_done_callback(lambda _: self._ends.pop(job_name(job)))
        return ended

    def concurrency(self, _now: int) -> int:
        """The SDK's `concurrency_modifier`: how many jobs it hands over at the same time.

        It is the first of ours that the SDK calls in its event loop, so the signals are taken over from it here.
        """
        if self._stop_sdk is None:
            stop = signal.getsignal(signal.SIGTERM)
            self._stop_sdk = partial(stop, signal.SIGTERM, None) if callable(stop) else lambda: None
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.leave)
        return self._jobs_at_once

    def leave(self) -> None:
        """End the process once the running jobs have ended and their results are posted, or without after `GRACE_S`."""
        if self._leaving is None and self._stop_sdk is not None:
            self._stop_sdk()
            self._leaving = asyncio.get_running_loop().create_task(self._leave())
            late = threading.Timer(LEAVE_S, _abandon, ("the process was told to end and does not",))
            late.daemon = True
            late.start()

    async def _end_of(self, ended: asyncio.Future[dict[str, Any]], job: Job) -> None:
        """Wait until a stopped job's thread is free, however often the platform repeats itself meanwhile.

        Where that takes longer than `STOP_S` the process leaves: at once, or where others run, as on SIGTERM.
        """
        loop = asyncio.get_running_loop()
        latest_s = loop.time() + STOP_S
        while not ended.done():
            if loop.time() > latest_s and self._leaving is None:
                reason = f"job {job_name(job)} was cancelled and does not end"
                if len(self._jobs) == 1 or self._stop_sdk is None:
                    _abandon(reason)
                log.critical("%s: the process leaves", reason)
                self.leave()
            try:
                await asyncio.wait({ended}, timeout=max(latest_s - loop.time(), LOOK_S))
            except asyncio.CancelledError:
                continue

    async def _leave(self) -> None:
        if self._jobs:
            _, running = await asyncio.wait(self._jobs, timeout=GRACE_S)
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
        # The SDK's long polls are all that is left, and Python's own clean-up takes seconds on a busy machine.
        _end_process(0)

    def _once(self, job: Job, cancelled: Callable[[], bool]) -> dict[str, Any]:
        """The reply to a job; to one that was served here before, whose reply the platform lost, the same again."""
        key = _key(job)
        if key is not None and (kept := self._replies.get(key)) is not None:
            log.info("job %s: served before", job_name(job))
            return dict(json.loads(kept))
        reply = self._handle(job, cancelled)
        if _action(job) == "purge":
            self._replies.drop("")  # it names a photo, which any of them may show
        if key is not None and "error" not in reply:
            text = json.dumps(reply)
            self._replies.put(key, text, len(text))
        return reply


def _action(job: Job) -> object:
    """What a job asks for; None where its input is no object."""
    request = job.get("input")
    return request.get("action", "illustrate") if isinstance(request, dict) else None


def _key(job: Job) -> str | None:
    """What a job is known by when it comes again; None for those of which nothing is kept."""
    if _action(job) != "illustrate" or job["input"].get("cache") == "off":
        return None
    try:
        text = json.dumps([job.get("id"), job["input"]], sort_keys=True)
    except RecursionError:
        return None
    return hashlib.sha256(text.encode()).hexdigest()


async def _reply_of(ended: asyncio.Future[dict[str, Any]], watch: Watch, job: Job) -> dict[str, Any]:
    """The reply to a job, or where a phase hangs, without asking what time it is, one in its place."""
    while not ended.done():
        await asyncio.wait({ended}, timeout=LOOK_S)
        if not ended.done() and (late := watch.late()) is not None and late[1] > HUNG_S:
            log.critical("job %s hangs in %s: the process leaves", job_name(job), late[0])
            fault = DeadlineExceeded(f"{late[0]} ran past its time", phase=late[0])
            return {**fault.as_reply(), "refresh_worker": True}
    return ended.result()


def _abandon(reason: str) -> NoReturn:
    log.critical("%s: the process leaves at once", reason)
    _end_process(1)


def _end_process(code: int) -> NoReturn:
    # The SDK's heartbeat is a process of its own, and would tell the platform that all is well.
    for child in multiprocessing.active_children():
        child.kill()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
