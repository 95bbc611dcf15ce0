"""A job's progress on its way to the platform: in order, at most two a second, none after the job's result."""

# ruff: noqa: PLC0415 - RunPod's SDK takes a second to import

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.steps import Progress

Job = Mapping[str, Any]
"""A job as RunPod hands it out: `{"id": …, "input": …}`."""

UPDATE_INTERVAL_S = 0.5
"""Least time between two progress updates."""

UPDATE_TIMEOUT_S = 5.0
"""Longest time that one progress update may take; the reply waits for the one under way."""

log = logging.getLogger(__name__)


def job_name(job: Job) -> str:
    """The job's id as log lines show it: printable, at most 80 characters."""
    return ascii(job.get("id"))[:80]


@contextmanager
def posted_progress(job: Job) -> Iterator[Callable[[Progress], None] | None]:
    """Where RunPod listens, a function that posts a job's progress; when the block ends, none is under way any more."""
    if "RUNPOD_WEBHOOK_POST_OUTPUT" not in os.environ:
        yield None
        return
    updates = Updates(lambda update: _post(job, update))
    try:
        yield lambda progress: updates.offer(asdict(progress))
    finally:
        updates.close()


class Updates:
    """Sends updates one at a time, `UPDATE_INTERVAL_S` apart; a newer one takes the place of one that still waits.

    The SDK's own `progress_update` starts a thread a call, so updates overtake each other and the final result.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._waiting: dict[str, Any] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="livery-progress", daemon=True)
        self._thread.start()

    def offer(self, update: dict[str, Any]) -> None:
        """Send `update` as soon as its turn comes. Returns at once."""
        with self._changed:
            self._waiting = update
            self._changed.notify()

    def close(self) -> None:
        """Drop what still waits, which the result supersedes, and wait for the update under way."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting is not None)
                if self._closed or self._waiting is None:
                    return
                update, self._waiting = self._waiting, None
            self._send(update)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, timeout=UPDATE_INTERVAL_S)


def _post(job: Job, update: dict[str, Any]) -> None:
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules.rp_http import send_result

    async def post() -> None:
        async with asyncio.timeout(UPDATE_TIMEOUT_S), AsyncClientSession() as session:
            await send_result(session, {"status": "IN_PROGRESS", "output": update}, job)

    try:
        asyncio.run(post())
    except TimeoutError:
        log.warning("job %s: a progress update took too long and was dropped", job_name(job))
