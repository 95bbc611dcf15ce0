"""An S3 store in a process of its own: moto's, behind a gate that checks what moto takes on trust.

    python -m tests.s3_server

The gate recomputes each V4 signature from the protocol's description, in headers and in presigned links, and checks a
link's expiry, a body's length, its Content-MD5 and its SHA-256. It also fails where it is told to (`Switches`). The
port is the first line of standard output. `Shaky` breaks connections on their way to it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import boto3
from pydantic import SecretStr

from pipeline.settings import Bucket

ROOT = Path(__file__).resolve().parent.parent
KEY_ID = "AKIAC4N4RYKEYID00000"
SECRET = "c4n4ry/secret+of/the+bucket/0123456789ab"
REGION = "eu-central-1"
NAME = "pictures"


@dataclass(frozen=True)
class Switches:
    """What goes wrong.

    Attributes:
        puts: status and code that the next PUTs are answered with, one each.
        deletes: the same for DELETEs.
        wait_s: before each PUT is carried out.
    """

    puts: tuple[tuple[int, str], ...] = ()
    deletes: tuple[tuple[int, str], ...] = ()
    wait_s: float = 0.0


class Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        self.status, self.code = status, code
        super().__init__(code)


Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


@dataclass
class Gate:
    """A WSGI application before another."""

    inner: Application
    puts: list[tuple[int, str]] = field(default_factory=list)
    deletes: list[tuple[int, str]] = field(default_factory=list)
    wait_s: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, _, query = environ["RAW_URI"].partition("?")
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if path.startswith("/-/"):
            return self._control(path, body, start_response)
        entry = {"method": environ["REQUEST_METHOD"], "path": path, "length": length, "headers": headers_of(environ)}
        try:
            check_body(entry["headers"], body)
            check_signature(environ["REQUEST_METHOD"], path, query, entry["headers"])
            self._fail(environ["REQUEST_METHOD"])
        except Refused as refused:
            self.requests.append({**entry, "refused": refused.code})
            text = f"<Error><Code>{refused.code}</Code><Message>{KEY_ID}</Message></Error>".encode()
            start_response(f"{refused.status} Refused", [("Content-Length", str(len(text)))])
            return [text]
        self.requests.append(entry)
        environ["wsgi.input"] = io.BytesIO(body)
        return self.inner(environ, start_response)

    def _fail(self, method: str) -> None:
        if method == "PUT":
            time.sleep(self.wait_s)
        planned = {"PUT": self.puts, "DELETE": self.deletes}.get(method)
        if planned:
            raise Refused(*planned.pop(0))

    def _control(self, path: str, body: bytes, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if path == "/-/switches":
            switches = json.loads(body)
            self.puts = [(status, code) for status, code in switches["puts"]]
            self.deletes = [(status, code) for status, code in switches["deletes"]]
            self.wait_s = switches["wait_s"]
            self.requests = []
        text = json.dumps(self.requests).encode()
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]


def headers_of(environ: Environ) -> dict[str, str]:
    found = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    plain = {"content-type": environ.get("CONTENT_TYPE"), "content-length": environ.get("CONTENT_LENGTH")}
    return {**found, **{name: value for name, value in plain.items() if value}}


def check_body(headers: dict[str, str], body: bytes) -> None:
    if len(body) < int(headers.get("content-length", 0)):
        raise Refused(400, "IncompleteBody")
    stated = headers.get("content-md5")
    if stated is not None and base64.b64decode(stated) != hashlib.md5(body).digest():
        raise Refused(400, "BadDigest")
    stated = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if stated not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
        raise Refused(400, "XAmzContentSHA256Mismatch")


def check_signature(method: str, path: str, query: str, headers: dict[str, str]) -> None:
    """As "Signature calculations" in S3's documentation has it."""
    halves = [pair.partition("=") for pair in query.split("&") if pair]
    pairs = [(unquote(name), unquote(value)) for name, _, value in halves]
    link = dict(pairs)
    if "X-Amz-Signature" in link:
        credential, signed = link["X-Amz-Credential"], link["X-Amz-SignedHeaders"]
        signature, date, payload = link["X-Amz-Signature"], link["X-Amz-Date"], "UNSIGNED-PAYLOAD"
        pairs = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
    elif headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 "):
        parts = dict(part.strip().split("=", 1) for part in headers["authorization"].split(" ", 1)[1].split(","))
        credential, signed, signature = parts["Credential"], parts["SignedHeaders"], parts["Signature"]
        date, payload = headers["x-amz-date"], headers["x-amz-content-sha256"]
    else:
        raise Refused(403, "AccessDenied")
    key_id, day, region, service, last = credential.split("/")
    if key_id != KEY_ID:
        raise Refused(403, "InvalidAccessKeyId")
    if region != REGION:
        raise Refused(400, "AuthorizationHeaderMalformed")
    asked = "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs))
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in signed.split(";"))
    canonical = "\n".join((method, path, asked, lines, signed, payload))
    scope = f"{day}/{region}/{service}/{last}"
    text = "\n".join(("AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, service, last):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), signature):
        raise Refused(403, "SignatureDoesNotMatch")
    began = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > began + timedelta(seconds=int(link.get("X-Amz-Expires", 900))):
        raise Refused(403, "AccessDenied" if link else "RequestTimeTooSkewed")


def serve() -> None:
    # Only this process needs them; the tests that start it don't.
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app  # noqa: PLC0415
    from werkzeug.serving import make_server  # noqa: PLC0415

    class Handler(MotoRequestHandler):  # type: ignore[misc]
        protocol_version = "HTTP/1.1"  # for the 100 that clients wait for before they send a body

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    gate = Gate(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, gate, threaded=True, request_handler=Handler)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()


@dataclass
class Store:
    """The server's process, and what it was asked."""

    process: subprocess.Popen[str]
    port: int

    def bucket(self, **changed: Any) -> Bucket:
        """The settings that a worker would have."""
        settings: dict[str, Any] = {
            "endpoint": f"http://127.0.0.1:{self.port}",
            "name": NAME,
            "region": REGION,
            "prefix": "livery",
            "key_id": SecretStr(KEY_ID),
            "secret": SecretStr(SECRET),
            "expiry_s": 3600,
        }
        return Bucket(**{**settings, **changed})

    def switch(self, **switches: Any) -> None:
        """From the next request on; what is not named is as it should be. Forgets earlier requests."""
        self._control("switches", json.dumps(asdict(Switches(**switches))).encode())

    def requests(self, method: str) -> list[dict[str, Any]]:
        """Those of one method since the last `switch`."""
        return [request for request in self._control("requests", None) if request["method"] == method]

    @cached_property
    def client(self) -> Any:
        """To look at the store as anybody would."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name=REGION,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )

    def keys(self) -> list[str]:
        """Of all objects."""
        listed = self.client.list_objects_v2(Bucket=NAME).get("Contents", [])
        return [str(entry["Key"]) for entry in listed]

    def clear(self) -> None:
        """Remove all objects."""
        for key in self.keys():
            self.client.delete_object(Bucket=NAME, Key=key)
        self.switch()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def _control(self, what: str, body: bytes | None) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/{what}", body, timeout=20) as answer:
            requests: list[dict[str, Any]] = json.load(answer)
            return requests


def start() -> Store:
    """A store with one empty bucket."""
    command = [sys.executable, "-m", "tests.s3_server"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    store = Store(process, int(process.stdout.readline()))
    place = {"LocationConstraint": REGION}
    store.client.create_bucket(Bucket=NAME, CreateBucketConfiguration=place)
    return store


class Shaky:
    """A way to a port on loopback that breaks, as planned, the connections that take it.

    Args:
        port: where connections go on to.
        plan: for each connection in turn, bytes from the client after which it is reset; None, and past the plan's end:
            it holds. 0 resets before a byte, a negative number lets all through to the server and resets its answer.
        bytes_per_s: of what clients send; None: as fast as it goes.
    """

    def __init__(self, port: int, plan: tuple[int | None, ...] = (), bytes_per_s: float | None = None) -> None:
        self.connections = 0
        self._upstream, self._plan, self._bytes_per_s = port, plan, bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            limit = self._plan[self.connections] if self.connections < len(self._plan) else None
            self.connections += 1
            threading.Thread(target=self._carry, args=(client, limit), daemon=True).start()

    def _carry(self, client: socket.socket, limit: int | None) -> None:
        if limit == 0:
            return reset(client)
        server = socket.create_connection(("127.0.0.1", self._upstream))
        back = threading.Thread(target=self._answer, args=(server, client, limit), daemon=True)
        back.start()
        carried = 0
        with suppress(OSError):
            while data := client.recv(16384):
                if limit is not None and limit > 0:
                    data = data[: limit - carried]
                server.sendall(data)
                carried += len(data)
                if self._bytes_per_s is not None:
                    time.sleep(len(data) / self._bytes_per_s)
                if limit is not None and 0 < limit <= carried:
                    reset(client)
                    break
            server.shutdown(socket.SHUT_WR)
        return None

    @staticmethod
    def _answer(server: socket.socket, client: socket.socket, limit: int | None) -> None:
        with suppress(OSError):
            while data := server.recv(16384):
                if limit is not None and limit < 0 and b"HTTP/1.1 100" not in data:
                    client.shutdown(socket.SHUT_RDWR)  # wakes the other thread, which holds the connection too
                    reset(client)
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        server.close()


def reset(connection: socket.socket) -> None:
    """End a connection by RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


if __name__ == "__main__":
    serve()
