"""A stand-in of RunPod's client side on loopback: jobs whose course a test writes down, and answers that go wrong.

It knows what a client can see: /run, /runsync, /status, /cancel, the states, the key, files behind links. What a job
makes is the test's to say. It runs on threads of the test's process and notes every request.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENDPOINT = "/v2/abc123"


@dataclass(frozen=True)
class Seen:
    """One request as it arrived, and when on the monotonic clock."""

    method: str
    path: str
    key: str | None
    body: bytes
    at_s: float


@dataclass
class Platform:
    """The endpoint.

    Attributes:
        course: what /status answers, one after the other; the last one again and again.
        sync: what /runsync answers.
        faults: path → answers (status, headers, body) that come first, each once.
        files: path → bytes that are served to requests without a key.
        key: without which nothing but files is served; None: none is needed.
    """

    port: int = 0
    course: list[dict[str, Any]] = field(default_factory=list)
    sync: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    key: str | None = None
    seen: list[Seen] = field(default_factory=list)
    cancelled: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{ENDPOINT}"

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str) -> dict[str, Any] | None:
        """What the endpoint says at a path below it."""
        if path == "/run":
            return {"id": "job-1", "status": "IN_QUEUE"}
        if path == "/runsync":
            return {"id": "job-1", **self.sync}
        if path == "/cancel/job-1":
            self.cancelled = True
            return {"id": "job-1", "status": "CANCELLED"}
        if path == "/status/job-1":
            if self.cancelled:
                return {"id": "job-1", "status": "CANCELLED"}
            return {"id": "job-1", **(self.course.pop(0) if len(self.course) > 1 else self.course[0])}
        return None


def _handler(platform: Platform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])))

        def _serve(self, body: bytes) -> None:
            platform.seen.append(
                Seen(self.command, self.path, self.headers.get("Authorization"), body, time.monotonic())
            )
            faults = platform.faults.get(self.path.removeprefix(ENDPOINT), [])
            if faults:
                self._send(*faults.pop(0))
            elif self.path in platform.files:
                refused = "Authorization" in self.headers
                self._send(400 if refused else 200, {}, b"" if refused else platform.files[self.path])
            elif platform.key is not None and self.headers.get("Authorization") != f"Bearer {platform.key}":
                self._send(401, {}, b"")
            else:
                answer = platform.answer(self.path.removeprefix(ENDPOINT)) if self.path.startswith(ENDPOINT) else None
                self._send(404 if answer is None else 200, {}, json.dumps(answer).encode())

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            if status == 0:  # hang up without an answer
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def serving() -> Iterator[Platform]:
    """An endpoint on a free port of loopback."""
    platform = Platform()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(platform))
    server.daemon_threads = True
    platform.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield platform
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
