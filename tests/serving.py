"""`python -m serve` as a process, with the worker that it starts, for tests to talk to."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent

HANG_S = 120.0
"""Nothing here may take longer; a guard against hangs, not a target."""

T = TypeVar("T")


def platform_environment(port: int) -> dict[str, str]:
    """What the platform sets for a worker that takes its jobs from a stand-in on this port of loopback."""
    address = f"http://127.0.0.1:{port}"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{address}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{address}/done/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{address}/ping/$RUNPOD_POD_ID",
        "RUNPOD_POD_ID": "worker",
        "RUNPOD_AI_API_KEY": "key",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
    }


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the log, and when it came on the monotonic clock."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    lines: list[Line] = field(default_factory=list)
    port: int = 0

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask(
            "POST", path, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def submit(self, request: dict[str, Any], **policy: int) -> str:
        answer = self.post("/run", {"input": request, **({"policy": policy} if policy else {})})
        assert answer.status == 200, answer
        assert answer.json["status"] == "IN_QUEUE"
        return str(answer.json["id"])

    def status(self, job: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/status/{job}").json)

    def cancel(self, job: str) -> dict[str, Any]:
        return dict(self.post(f"/cancel/{job}").json)

    def outcome(self, job: str) -> dict[str, Any]:
        """How a job ended."""

        def ended() -> dict[str, Any] | None:
            status = self.status(job)
            return None if status["status"] in ("IN_QUEUE", "IN_PROGRESS") else status

        return until(ended)

    def line(self, pattern: str, after_s: float = 0.0) -> tuple[float, re.Match[str]]:
        """The first line of the log since then that holds the pattern, as soon as it comes, and when it came."""

        def found() -> tuple[float, re.Match[str]] | None:
            for line in list(self.lines):
                if line.at_s >= after_s and (match := re.search(pattern, line.text)):
                    return line.at_s, match
            return None

        return until(found)

    def started(self, job: str) -> float:
        """When the worker began a job."""
        return self.line(rf"\| {job} \| Started")[0]

    def worker(self, number: int) -> int:
        """The process of the server's n-th worker."""
        return int(self.line(rf"worker-{number}: started as process (\d+)")[1][1])

    def ready(self) -> None:
        until(lambda: self.ask("GET", "/ready").status == 200 or None)

    def read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.append(Line(time.monotonic(), text.rstrip("\n")))


def until(find: Callable[[], T | None], *, every_s: float = 0.02) -> T:
    """What `find` finds, once it does."""
    latest_s = time.monotonic() + HANG_S
    while (found := find()) is None:
        assert time.monotonic() < latest_s, "nothing came of it"
        time.sleep(every_s)
    return found


def wait_to(at_s: float) -> None:
    """Return at this time of the monotonic clock."""
    time.sleep(max(at_s - time.monotonic(), 0.0))


@contextmanager
def server(*arguments: str, ready: bool = True, **environment: str) -> Iterator[Server]:
    """A server on a free port while the block runs; with `ready`, from when its worker asks for jobs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serve", "--port", "0", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = Server(process)
    reading = threading.Thread(target=running.read, daemon=True)
    reading.start()
    try:
        running.port = int(running.line(r"listening on http://127\.0\.0\.1:(\d+)")[1][1])
        if ready:
            running.ready()
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reading.join(5)
