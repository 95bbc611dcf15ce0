"""What RunPod's SDK talks to: jobs out, progress and results in, which jobs to stop.

It listens on this machine alone, below a path that only this run's workers know: a header would not do, since the SDK
sends the key of its user's login file in place of the one that it is handed.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from serve.bell import Bell
from serve.bodies import strict_json
from serve.limits import POLL_S
from serve.platform import Job, Platform

POST_BYTES = 64 << 20
"""Largest result that is read at all."""


def environment(address: str, secret: str, worker: str) -> dict[str, str]:
    """What the SDK reads: where this server's worker side lies."""
    base = f"{address}/{secret}"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=local",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=local",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=local",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
        "RUNPOD_POD_ID": worker,
        "RUNPOD_AI_API_KEY": "local",  # without one the SDK sends no pings
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }


def worker_application(platform: Platform, bell: Bell, secret: str) -> web.Application:
    """The routes that `environment` names."""
    side = WorkerSide(platform, bell)
    application = web.Application(client_max_size=POST_BYTES, middlewares=[_secret_only(secret)])
    application.add_routes(
        [
            web.get("/{secret}/job-take/{worker}", side.take),
            web.get("/{secret}/job-take-batch/{worker}", side.take_batch),
            web.get("/{secret}/job-stop/{worker}", side.stop),
            web.post("/{secret}/job-done/{worker}/{job}", side.done),
            web.post("/{secret}/job-stream/{worker}/{job}", side.stream),
            web.get("/{secret}/ping/{worker}", side.ping),
        ]
    )
    return application


def _secret_only(secret: str) -> Any:
    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.match_info.get("secret", "")
        if not hmac.compare_digest(given.encode(), secret.encode()):
            raise web.HTTPNotFound
        return await handler(request)

    return check


class WorkerSide:
    """The handlers."""

    def __init__(self, platform: Platform, bell: Bell) -> None:
        self._platform = platform
        self._bell = bell

    async def take(self, request: web.Request) -> web.Response:
        """One job, or 204."""
        jobs = await self._next(request, 1)
        return _json_text(_handed(jobs[0])) if jobs else web.Response(status=204)

    async def take_batch(self, request: web.Request) -> web.Response:
        """Up to `batch_size` jobs as a list, or 204."""
        most = request.query.get("batch_size", "1")
        jobs = await self._next(request, int(most) if most.isdecimal() else 1)
        return _json_text(f"[{','.join(map(_handed, jobs))}]") if jobs else web.Response(status=204)

    async def stop(self, request: web.Request) -> web.Response:
        """`{"jobsToStop": [id, …]}`, or 204."""
        worker = request.match_info["worker"]
        told = await self._bell.wait_for(lambda: self._platform.stops(worker) or None, POLL_S)
        return web.json_response({"jobsToStop": told}) if told else web.Response(status=204)

    async def done(self, request: web.Request) -> web.Response:
        """A progress update, or the result: `{"output", "error", "stopPod"}`."""
        worker, job_id = request.match_info["worker"], request.match_info["job"]
        text = await request.read()
        reply = _posted(text)
        if reply.get("status") == "IN_PROGRESS":
            self._platform.progress(worker, job_id, reply.get("output"))
        else:
            self._platform.done(worker, job_id, reply, len(text))
        self._bell.ring()
        return web.Response()

    async def stream(self, request: web.Request) -> web.Response:
        """A part of a result: `{"output"}`."""
        part = _posted(await request.read())
        self._platform.stream(request.match_info["worker"], request.match_info["job"], part.get("output"))
        self._bell.ring()
        return web.Response()

    async def ping(self, _: web.Request) -> web.Response:
        """The SDK's heartbeat. Whether the process lives is known without it."""
        return web.Response()

    async def _next(self, request: web.Request, most: int) -> list[Job]:
        worker = request.match_info["worker"]
        self._platform.asks(worker, busy=request.query.get("job_in_progress") == "1")
        self._bell.ring()
        return await self._bell.wait_for(lambda: self._platform.take(worker, most) or None, POLL_S) or []


def _handed(job: Job) -> str:
    return f'{{"id": {json.dumps(job.id)}, "input": {job.input.decode()}}}'


def _json_text(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")


def _posted(text: bytes) -> dict[str, Any]:
    try:
        posted = strict_json(text)
    except ValueError:
        raise web.HTTPBadRequest from None
    if not isinstance(posted, dict):
        raise web.HTTPBadRequest
    return posted
