"""A stand-in of the Hub's HTTP interface, in a process of its own: what `builder` asks of the real one, and its faults.

    python -m tests.hub_server FOLDER

FOLDER/repos/<owner>/<name>/<path> is served. FOLDER/switches.json, read anew for each request, says what goes wrong
(see `Switches`), and FOLDER/requests.jsonl receives a line for each request. The port is the first line of standard
output.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from models.registry import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
LARGE = (".safetensors", ".pth")
CHUNK = 1024


@dataclass(frozen=True)
class Switches:
    """What goes wrong. A path is one within a repository; `*` stands for all.

    Attributes:
        bytes_per_s: of each body; None: as fast as it goes.
        break_after: path → bytes of the body after which the connection is cut, again and again.
        statuses: path → status that is answered in its place, again and again.
        wrong: paths whose bytes are flipped.
        ranges: whether ranges are known.
        token: without which nothing is served; None: none is needed.
        retry_after_s: of those statuses.
    """

    bytes_per_s: float | None = None
    break_after: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    ranges: bool = True
    token: str | None = None
    retry_after_s: int | None = None


def of_path(table: dict[str, int], path: str) -> int | None:
    return table.get(path, table.get("*"))


@cache
def content(path: Path) -> bytes:
    return path.read_bytes()


def revision_of(repo: str) -> str:
    return hashlib.sha1(repo.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path
    writing = threading.Lock()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        document = json.loads((self.folder / "switches.json").read_text())
        self.switches = Switches(**document)
        self.sent = 0
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        entry = {
            "path": "/".join(parts),
            "range": self.headers.get("Range"),
            "authorized": "Authorization" in self.headers,
        }
        try:
            self._answer(parts)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            line = json.dumps({**entry, "status": getattr(self, "answered", None), "sent": self.sent}) + "\n"
            with self.writing, (self.folder / "requests.jsonl").open("a") as log:
                log.write(line)

    def _answer(self, parts: list[str]) -> None:
        if parts[0] == "cdn":
            return self._body("/".join(parts[1:3]), "/".join(parts[3:]))
        token = self.switches.token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            return self._refuse(401, "RepoNotFound")
        if parts[:2] == ["api", "models"]:
            return self._info("/".join(parts[2:4]))
        if len(parts) > 4 and parts[2] == "resolve":
            return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._refuse(404, "RepoNotFound")

    def _info(self, repo: str) -> None:
        status = of_path(self.switches.statuses, f"api/{repo}")
        place = self.folder / "repos" / repo
        if status is not None or not place.is_dir():
            self._refuse(404 if status is None else status, "RepoNotFound")
            return
        siblings: list[dict[str, Any]] = []
        for path in sorted(place.rglob("*")):
            if path.is_file():
                data = content(path)
                file = {"rfilename": str(path.relative_to(place)), "size": len(data), "blobId": "0" * 40}
                if path.suffix in LARGE:
                    file["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
                siblings.append(file)
        licence = next((row.licence for row in REGISTRY if row.repo == repo), "mit")
        answer = {"id": repo, "sha": revision_of(repo), "siblings": siblings, "cardData": {"license": licence}}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        place = self.folder / "repos" / repo / path
        if revision != revision_of(repo):
            return self._refuse(404, "RevisionNotFound")
        if not place.is_file():
            return self._refuse(404, "EntryNotFound")
        if place.suffix not in LARGE:
            return self._body(repo, path)
        # Large files lie on another host; the token must not follow there.
        port = self.headers["Host"].rpartition(":")[2]
        headers = {
            "Location": f"http://localhost:{port}/cdn/{repo}/{path}?signature=secret-signature",
            "X-Linked-Size": str(len(content(place))),
            "X-Linked-Etag": f'"{hashlib.sha256(content(place)).hexdigest()}"',
            "X-Repo-Commit": revision,
        }
        return self._send(302, headers, b"")

    def _body(self, repo: str, path: str) -> None:
        status = of_path(self.switches.statuses, path)
        if status is not None:
            return self._refuse(status, "EntryNotFound")
        data = content(self.folder / "repos" / repo / path)
        if path in self.switches.wrong:
            data = bytes([data[0] ^ 1]) + data[1:]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": revision_of(repo)}
        asked = self.headers.get("Range")
        if asked is None or not self.switches.ranges:
            return self._send(200, headers, data, path)
        begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        return self._send(206, headers, data[begin:], path)

    def _refuse(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code}
        if self.switches.retry_after_s is not None:
            headers["Retry-After"] = str(self.switches.retry_after_s)
        self._send(status, headers, b'{"error": "no"}')

    def _send(self, status: int, headers: dict[str, str], data: bytes, path: str | None = None) -> None:
        self.answered = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data)), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.end_headers()
        limit = None if path is None else of_path(self.switches.break_after, path)
        slow = self.switches.bytes_per_s if path is not None else None
        while self.sent < len(data):
            if limit is not None and self.sent >= limit:
                self.close_connection = True
                return
            chunk = data[self.sent : self.sent + (CHUNK if limit is None else min(CHUNK, limit - self.sent))]
            self.wfile.write(chunk)
            self.sent += len(chunk)
            if slow is not None:
                time.sleep(len(chunk) / slow)


def serve(folder: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"folder": folder}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed on purpose
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


@dataclass
class Hub:
    """The server's process, and what it was asked."""

    folder: Path
    process: subprocess.Popen[str]
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def switch(self, **switches: Any) -> None:
        """From the next request on; what is not named is as it should be."""
        whole = self.folder / "switches.part"
        whole.write_text(json.dumps(asdict(Switches(**switches))))
        whole.replace(self.folder / "switches.json")

    def requests(self) -> list[dict[str, Any]]:
        """All that were answered so far."""
        log = self.folder / "requests.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def forget(self) -> None:
        (self.folder / "requests.jsonl").unlink(missing_ok=True)

    def bodies(self) -> dict[str, list[int]]:
        """Bytes that each request for a file's body was sent, by repository and path."""
        sent: dict[str, list[int]] = {}
        for request in self.requests():
            parts = request["path"].split("/")
            if request["status"] in {200, 206} and parts[0] != "api":
                at = 3 if parts[0] == "cdn" else 4
                repo = parts[1:3] if parts[0] == "cdn" else parts[:2]
                sent.setdefault("/".join((*repo, *parts[at:])), []).append(request["sent"])
        return sent

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def fill(folder: Path, seed: int = 0, large_bytes: int = 60_000) -> dict[str, bytes]:
    """Repositories with the names and files of the whole registry, and made-up bytes. Returns them by repo/path."""
    draw = random.Random(seed)
    written = {}
    style = ("someone/a-style", ("loras/flat.safetensors",))
    for repo, files in [*((row.repo, row.files) for row in REGISTRY if row.repo is not None), style]:
        for path in files:
            size = draw.randint(large_bytes // 3, large_bytes) if path.endswith(LARGE) else draw.randint(1, 400)
            place = folder / "repos" / repo / path
            place.parent.mkdir(parents=True, exist_ok=True)
            written[f"{repo}/{path}"] = draw.randbytes(size)
            place.write_bytes(written[f"{repo}/{path}"])
        (folder / "repos" / repo / "pytorch_model.bin").write_bytes(b"of no use to anybody")
    return written


def start(folder: Path) -> Hub:
    """Serve a folder that `fill` filled."""
    command = [sys.executable, "-m", "tests.hub_server", str(folder)]
    (folder / "switches.json").write_text(json.dumps(asdict(Switches())))
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return Hub(folder, process, int(process.stdout.readline()))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
