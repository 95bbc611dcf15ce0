"""What clients talk to: RunPod's own routes, at the root and below /v2/{endpoint}; an upload form, health, metrics."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from serve import metrics
from serve.bell import Bell
from serve.bodies import Asked, Refusal, read_job, read_upload
from serve.limits import RUN_BYTES, RUNSYNC_BYTES, RUNSYNC_LONGEST_WAIT_S, RUNSYNC_WAIT_S, Rate
from serve.platform import Full, Job, Platform, Status

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("serve")


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in.

    Attributes:
        key: the bearer key that every request carries; None where none is asked for.
        origins: of pages that may call from a browser; `*` for any.
        rate: of requests, by client.
    """

    key: str | None
    origins: frozenset[str]
    rate: Rate

    def check(self, request: web.Request) -> None:
        """Turn away who may not come in.

        Raises:
            Refusal: with the reason.
        """
        if (wait_s := self.rate.wait_s(request.remote or "")) > 0:
            raise Refusal(429, "TooManyRequests", "too many requests from this address", retry_s=math.ceil(wait_s))
        # Without a key, a page that was led here under another name is turned away.
        if self.key is None and not is_loopback(request.url.host or ""):
            raise Refusal(403, "Forbidden", "this server is known as localhost only", field="Host")
        origin = request.headers.get("Origin")
        if origin is not None and not self.allows(origin) and origin != f"{request.scheme}://{request.host}":
            raise Refusal(403, "Forbidden", "start the server with --origin to allow this page", field="Origin")
        if request.method != "OPTIONS" and self.key is not None and not self._knows(request):
            raise Refusal(401, "Unauthorized", "send the server's key as Authorization: Bearer")

    def allows(self, origin: str) -> bool:
        """Whether a page of another origin may call, and read what comes back."""
        return origin in self.origins or "*" in self.origins

    def _knows(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        digests = [hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, self.key or "")]
        return hmac.compare_digest(*digests) and scheme.lower() == "bearer"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine under one of the names that mean nothing else."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client_application(platform: Platform, bell: Bell, door: Door, restarts: Callable[[], int]) -> web.Application:
    """The routes, behind the door."""
    side = ClientSide(platform, bell, restarts)
    application = web.Application(middlewares=[answering(door)])
    application.on_response_prepare.append(dressed(door))
    for base in ("", "/v2/{endpoint}"):
        application.add_routes(
            [
                web.post(f"{base}/run", side.run),
                web.post(f"{base}/runsync", side.run_sync),
                web.post(f"{base}/illustrate", side.illustrate),
                web.get(f"{base}/status/{{job}}", side.status),
                web.get(f"{base}/stream/{{job}}", side.stream),
                web.post(f"{base}/cancel/{{job}}", side.cancel),
                web.post(f"{base}/purge-queue", side.purge),
                web.get(f"{base}/health", side.health),
            ]
        )
    application.add_routes([web.get("/ready", side.ready), web.get("/metrics", side.metrics)])
    return application


def answering(door: Door) -> Any:
    """Lets in whom the door does, and puts what goes wrong in the form of a job's errors."""

    @web.middleware
    async def answer(request: web.Request, handler: Handle) -> web.StreamResponse:
        try:
            door.check(request)
            if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                return web.Response(status=204)
            return await handler(request)
        except Refusal as refusal:
            return refusal.as_response()
        except web.HTTPNotFound:
            return Refusal(404, "NotFound", "there is no such address").as_response()
        except web.HTTPMethodNotAllowed as fault:
            response = Refusal(405, "MethodNotAllowed", f"use {', '.join(fault.allowed_methods)}").as_response()
            response.headers["Allow"] = fault.headers["Allow"]
            return response

    return answer


def dressed(door: Door) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Gives every answer its headers: what an allowed page's browser asks for, and none that tell of the machine."""

    async def dress(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update({"Server": "livery", "Cache-Control": "no-store", "Vary": "Origin"})
        response.headers["X-Content-Type-Options"] = "nosniff"
        origin = request.headers.get("Origin")
        if origin is not None and door.allows(origin):
            response.headers.update(
                {
                    "Access-Control-Allow-Origin": origin,
                    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
                    "Access-Control-Allow-Headers": "Authorization, Content-Type",
                    "Access-Control-Expose-Headers": "Retry-After",
                    "Access-Control-Max-Age": "600",
                }
            )

    return dress


class ClientSide:
    """The handlers."""

    def __init__(self, platform: Platform, bell: Bell, restarts: Callable[[], int]) -> None:
        self._platform = platform
        self._bell = bell
        self._restarts = restarts

    async def run(self, request: web.Request) -> web.Response:
        """Queue a job."""
        return self._shown(self._submit(await read_job(request, RUN_BYTES)))

    async def run_sync(self, request: web.Request) -> web.Response:
        """Queue a job and wait for its outcome, at most `?wait=` milliseconds."""
        wait_s = _wait_s(request.query.get("wait"))
        job = self._submit(await read_job(request, RUNSYNC_BYTES), sync=True)
        await self._bell.wait_for(lambda: job.status.over or None, wait_s)
        return self._shown(job)

    async def illustrate(self, request: web.Request) -> web.Response:
        """Queue a job from a form with a photo."""
        return self._shown(self._submit(await read_upload(request)))

    async def status(self, request: web.Request) -> web.Response:
        """How a job stands."""
        return self._shown(self._named(request))

    async def stream(self, request: web.Request) -> web.Response:
        """What the worker streamed of a job since the last call."""
        job = self._named(request)
        parts, job.chunks = job.chunks, []
        return web.json_response(
            {"id": job.id, "status": job.status.value, "stream": [{"output": part} for part in parts]}
        )

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop a job; one that is over stays as it is."""
        job = self._named(request)
        self._platform.cancel(job)
        self._bell.ring()
        return self._shown(job)

    async def purge(self, _: web.Request) -> web.Response:
        """Cancel every job that waits."""
        waiting = [job for job in self._platform.jobs.values() if job.status is Status.IN_QUEUE]
        for job in waiting:
            self._platform.cancel(job)
        self._bell.ring()
        return web.json_response({"removed": len(waiting), "status": "completed"})

    async def health(self, _: web.Request) -> web.Response:
        """Jobs and workers by state, as the platform counts them."""
        jobs, seats = self._platform, self._platform.seats.values()
        running = sum(bool(seat.jobs) for seat in seats)
        ready = sum(seat.ready and seat.leaving_s is None for seat in seats)
        return web.json_response(
            {
                "jobs": {
                    "completed": jobs.outcomes[Status.COMPLETED],
                    "failed": jobs.outcomes[Status.FAILED] + jobs.outcomes[Status.TIMED_OUT],
                    "inProgress": jobs.count(Status.IN_PROGRESS),
                    "inQueue": jobs.count(Status.IN_QUEUE),
                    "retried": jobs.retried,
                },
                "workers": {
                    "idle": ready - min(ready, running),
                    "initializing": sum(not seat.ready for seat in seats),
                    "ready": ready,
                    "running": running,
                    "throttled": 0,
                    "unhealthy": 0,
                },
            }
        )

    async def ready(self, _: web.Request) -> web.Response:
        """200 once a worker asks for jobs, 503 before."""
        ready = any(seat.ready and seat.leaving_s is None for seat in self._platform.seats.values())
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """For a scraper."""
        jobs = self._platform
        outcomes = {status.value.lower(): jobs.outcomes[status] for status in Status if status.over}
        ready = sum(seat.ready for seat in jobs.seats.values())
        text = metrics.page(
            metrics.single("livery_queue_jobs", "gauge", "Jobs that wait.", jobs.count(Status.IN_QUEUE)),
            metrics.single("livery_running_jobs", "gauge", "Jobs in progress.", jobs.count(Status.IN_PROGRESS)),
            metrics.labelled("livery_jobs_total", "Jobs that are over.", "outcome", outcomes),
            metrics.single("livery_jobs_retried_total", "counter", "Jobs queued again.", jobs.retried),
            metrics.histogram("livery_job_wait_seconds", "From the queue to the worker.", jobs.waited),
            metrics.histogram("livery_job_run_seconds", "From the worker to the outcome.", jobs.ran),
            metrics.single("livery_workers_ready", "gauge", "Workers that ask for jobs.", ready),
            metrics.single("livery_worker_restarts_total", "counter", "Workers started again.", self._restarts()),
            jobs.observed.lines(),
        )
        return web.Response(body=text.encode(), headers={"Content-Type": metrics.CONTENT_TYPE})

    def _submit(self, asked: Asked, *, sync: bool = False) -> Job:
        try:
            job = self._platform.submit(asked.input, sync=sync, execution_s=asked.execution_s, ttl_s=asked.ttl_s)
        except Full as reason:
            raise Refusal(503, "Unavailable", str(reason), retry_s=10) from None
        log.info("job %s: queued", job.id)
        self._bell.ring()
        return job

    def _named(self, request: web.Request) -> Job:
        job = self._platform.jobs.get(request.match_info["job"])
        if job is None:
            raise Refusal(404, "NotFound", "there is no such job, or its outcome is no longer kept")
        return job

    def _shown(self, job: Job) -> web.Response:
        return web.json_response(job.as_json(self._platform.now()))


def _wait_s(given: str | None) -> float:
    if given is None:
        return RUNSYNC_WAIT_S
    if not given.isdecimal() or not 1 <= int(given) / 1000 <= RUNSYNC_LONGEST_WAIT_S:
        message = f"must be milliseconds from 1000 to {RUNSYNC_LONGEST_WAIT_S * 1000:.0f}"
        raise Refusal(400, "BadRequest", message, field="wait")
    return int(given) / 1000
