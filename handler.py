"""RunPod entry: validate, run, encode.

    python handler.py                          the job in test_input.json
    python handler.py --test_input '{"input": {"action": "ping"}}'
    python handler.py --rp_serve_api           the SDK's own local server with /run, /runsync and /status
    python -m serve                            an endpoint on this machine, with cancel and progress

`handler` takes a RunPod job and returns its reply. It never raises: what goes wrong comes back as `error`, a sentence
that starts with a stable code, beside `code`, `field` and `retryable`; details stay in the log, under the job's id.

Importing this module loads nothing heavy: the phases are imported with the first job, RunPod's SDK by `main`.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DeviceLost, InternalError, LiveryError, OutOfMemory, UploadFailed
from pipeline.logs import FIELDS, job_fields, lines_of, start_logging
from pipeline.loop import WorkerLoop
from pipeline.updates import Job, job_name, posted_progress

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.schema import JobInput
    from pipeline.settings import Settings
    from pipeline.steps import Progress
    from pipeline.worker import Worker

log = logging.getLogger("handler")

_ONE_WORKER = threading.Lock()


def handler(job: Job, cancelled: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Serve one RunPod job.

    Args:
        job: `{"id": …, "input": …}`; the input is `pipeline.schema.JobInput`.
        cancelled: asked often, on any thread, whether the job should end early; then the reply is `Cancelled`.

    Returns:
        `JobOutput`, `DryRunOutput`, `PurgeOutput` or `Health` of pipeline.schema as plain JSON values, or an error
        reply.
    """
    began_s = time.perf_counter()
    with lines_of(str(job.get("id"))[:80]):
        reply = _reply(job, cancelled)
        spent_ms = (time.perf_counter() - began_s) * 1000
        told = {FIELDS: job_fields(reply, spent_ms)}
        log.info("job %s: %s in %.0f ms", job_name(job), reply.get("code", "done"), spent_ms, extra=told)
    return reply


def _reply(job: Job, cancelled: Callable[[], bool] | None) -> dict[str, Any]:
    try:
        return _serve(job, cancelled)
    except MemoryError:
        return error_reply(OutOfMemory("the worker ran out of memory"))
    except BaseException as fault:
        # The house's only broad except: the SDK sends what escapes to the caller, with a traceback and the host's name,
        # and SystemExit or a library's panic, which are no Exceptions, would end the worker.
        if isinstance(fault, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        return error_reply(_known(fault, job))


def _known(fault: BaseException, job: Job) -> LiveryError:
    # In a frame of its own: one that the fault's traceback leads through would hold the fault, and so itself and all
    # that the job had in memory, until Python next looks for cycles.
    known = fault if isinstance(fault, LiveryError) else InternalError()
    if isinstance(known, InternalError):
        log.exception("job %s failed inside Livery", job_name(job))
    return known


def _serve(job: Job, cancelled: Callable[[], bool] | None) -> dict[str, Any]:
    from pipeline.request import parse_request
    from pipeline.settings import load_settings

    settings = load_settings()
    request = parse_request(job.get("input"))
    with _ONE_WORKER:
        worker = worker_for(settings)
    with posted_progress(job) as progress:
        reply = _answer(request, worker, job_name(job), progress, cancelled).model_dump(mode="json")
    return postable(reply, settings)


@lru_cache(maxsize=1)
def worker_for(settings: Settings) -> Worker:
    """This process's worker: what is loaded for one job serves the next."""
    from pipeline.worker import Worker

    return Worker(settings)


def _answer(
    request: JobInput,
    worker: Worker,
    job_id: str,
    progress: Callable[[Progress], None] | None,
    cancelled: Callable[[], bool] | None,
) -> BaseModel:
    from pipeline.actions import illustrate, purge
    from pipeline.health import ping
    from pipeline.run import dry_run

    if request.action == "ping":
        return ping(worker)
    if request.action == "dry_run":
        return dry_run(request, worker)
    if request.action == "purge":
        return purge(request, worker, cancelled=cancelled)
    return illustrate(request, worker, job_id, progress=progress, cancelled=cancelled)


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


def main() -> int:
    """Start the worker, or run one local job. Returns an exit code where it does not get that far."""
    from pipeline.fitness import check_host
    from pipeline.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as fault:
        return _refuse(*fault.faults)
    if (local_fault := _local_input_fault()) is not None:
        return _refuse(local_fault)
    start_logging(settings)
    # The SDK's default level logs whole photos.
    if "RUNPOD_DEBUG_LEVEL" not in os.environ:
        os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    import runpod

    runpod.serverless.register_fitness_check(check_host)
    if settings.auto_engine == "studio":
        worker_for(settings).import_ahead()
    loop = WorkerLoop(handler, settings.jobs_at_once)
    runpod.serverless.start({"handler": loop.serve, "concurrency_modifier": loop.concurrency})
    return 0


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
