"""RunPod entry: validate, run, encode.

    python handler.py                          the job in test_input.json
    python handler.py --test_input '{"input": {"action": "ping"}}'
    python handler.py --rp_serve_api           a local server with /run, /runsync and /status

`handler` takes a RunPod job and returns its reply. It never raises: what goes wrong comes back as `error`, a sentence
that starts with a stable code, beside `code`, `field` and `retryable`; details stay in the log, under the job's id.

Importing this module loads nothing heavy: the phases are imported with the first job, RunPod's SDK by `main`.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DeviceLost, InternalError, LiveryError, OutOfMemory, UploadFailed

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.schema import JobInput
    from pipeline.settings import Settings
    from pipeline.steps import Progress
    from pipeline.worker import Worker

Job = Mapping[str, Any]

UPDATE_INTERVAL_S = 0.5
"""Least time between two progress updates."""

UPDATE_TIMEOUT_S = 5.0
"""Longest time that one progress update may take; the reply waits for the one under way."""

log = logging.getLogger("handler")


def handler(job: Job) -> dict[str, Any]:
    """Serve one RunPod job.

    Args:
        job: `{"id": …, "input": …}`; the input is `pipeline.schema.JobInput`.

    Returns:
        `JobOutput`, `DryRunOutput` or `Health` of pipeline.schema as plain JSON values, or an error reply.
    """
    began_s = time.perf_counter()
    try:
        reply = _serve(job)
    except MemoryError:
        reply = error_reply(OutOfMemory("the worker ran out of memory"))
    except Exception as fault:
        # The house's only broad except: the SDK sends what escapes to the caller, with a traceback and the host's name.
        known = fault if isinstance(fault, LiveryError) else InternalError()
        if isinstance(known, InternalError):
            log.exception("job %s failed inside Livery", _job_id(job))
        reply = error_reply(known)
    spent_ms = (time.perf_counter() - began_s) * 1000
    log.info("job %s: %s in %.0f ms", _job_id(job), reply.get("code", "done"), spent_ms)
    return reply


def _serve(job: Job) -> dict[str, Any]:
    from pipeline.request import parse_request
    from pipeline.settings import load_settings

    settings = load_settings()
    request = parse_request(job.get("input"))
    with _progress(job) as progress:
        reply = _answer(request, worker_for(settings), _job_id(job), progress).model_dump(mode="json")
    return postable(reply, settings)


@lru_cache(maxsize=1)
def worker_for(settings: Settings) -> Worker:
    """This process's worker: what is loaded for one job serves the next."""
    from pipeline.worker import Worker

    return Worker(settings)


def _answer(request: JobInput, worker: Worker, job_id: str, progress: Callable[[Progress], None] | None) -> BaseModel:
    from pipeline.handover import job_output
    from pipeline.health import ping
    from pipeline.run import dry_run, run

    if request.action == "ping":
        return ping(worker)
    if request.action == "dry_run":
        return dry_run(request, worker)
    return job_output(run(request, worker, progress=progress), worker.settings, job_id, progress=progress)


def postable(reply: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """`reply`, known to be what the SDK can post: it posts nothing at all for what isn't JSON or not Unicode.

    Raises:
        UploadFailed: it is larger than the worker's limit.
        ValueError, TypeError: it isn't JSON.
    """
    size_bytes = len(json.dumps(reply, allow_nan=False, ensure_ascii=False).encode("utf-8"))
    if size_bytes > settings.max_reply_bytes:
        raise UploadFailed(
            f"the reply would take {size_bytes / 1e6:.1f} MB and this worker sends at most "
            f"{settings.max_reply_bytes / 1e6:.1f} MB: ask for fewer output.formats, fewer or smaller "
            "output.png_widths or a lower detail, or raise LIVERY_MAX_REPLY_BYTES on the worker"
        )
    return reply


def error_reply(fault: LiveryError) -> dict[str, Any]:
    reply: dict[str, Any] = dict(fault.as_reply())
    if isinstance(fault, DeviceLost):
        reply["refresh_worker"] = True
    return reply


def _job_id(job: Job) -> str:
    return ascii(job.get("id"))[:80]


@contextmanager
def _progress(job: Job) -> Iterator[Callable[[Progress], None] | None]:
    """Where RunPod listens, a function that posts a job's progress; when the block ends, none is under way any more."""
    if "RUNPOD_WEBHOOK_POST_OUTPUT" not in os.environ:
        yield None
        return
    updates = Updates(lambda update: _post_update(job, update))
    try:
        yield lambda progress: updates.offer({"phase": progress.phase, "percent": progress.percent})
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


def _post_update(job: Job, update: dict[str, Any]) -> None:
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules.rp_http import send_result

    async def post() -> None:
        async with asyncio.timeout(UPDATE_TIMEOUT_S), AsyncClientSession() as session:
            await send_result(session, {"status": "IN_PROGRESS", "output": update}, job)

    try:
        asyncio.run(post())
    except TimeoutError:
        log.warning("job %s: a progress update took too long and was dropped", _job_id(job))


def main() -> int:
    """Start the worker, or run one local job. Returns an exit code where it does not get that far."""
    from pipeline.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as fault:
        return _refuse(*fault.faults)
    if (local_fault := _local_input_fault()) is not None:
        return _refuse(local_fault)
    _start_logging(settings)
    # The SDK's default level logs whole photos.
    if "RUNPOD_DEBUG_LEVEL" not in os.environ:
        os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    import runpod

    runpod.serverless.start({"handler": handler})
    return 0


def _start_logging(settings: Settings) -> None:
    # Other packages stay at WARNING: at INFO and DEBUG some log what they are handed.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)-7s %(name)s: %(message)s")
    for name in ("handler", "pipeline"):
        logging.getLogger(name).setLevel(settings.log_level.upper())


def _refuse(*faults: str) -> int:
    for fault in faults:
        print(f"ERROR   {fault}", file=sys.stderr)  # noqa: T201 - there is no logging yet
    return 1


def _local_input_fault() -> str | None:
    """What keeps the SDK from reading the job of a local run; it would show a traceback, or run another job instead."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--test_input")
    parser.add_argument("--rp_serve_api", action="store_true")
    asked, _ = parser.parse_known_args()
    serves = asked.rp_serve_api or os.environ.get("RUNPOD_REALTIME_PORT", "0") != "0"
    if serves or (asked.test_input is None and "RUNPOD_WEBHOOK_GET_JOB" in os.environ):
        return None
    name = "test_input.json" if asked.test_input is None else "--test_input"
    try:
        job = json.loads(Path(name).read_text("utf-8") if asked.test_input is None else asked.test_input)
    except FileNotFoundError:
        return f"{name}: there is none in the current folder"
    except (OSError, ValueError, RecursionError):
        return f"{name}: isn't JSON"
    if not isinstance(job, dict) or job.get("input") is None:
        return f'{name}: must be an object with "input"'
    return None


if __name__ == "__main__":
    sys.exit(main())
