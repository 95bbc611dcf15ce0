"""The playground: a page that makes illustrations in a browser, and what it needs of a server.

    python -m serve --playground                                  on top of this machine's own endpoint
    python -m serve.playground --endpoint URL --key-file FILE     in front of an endpoint elsewhere

In front of an endpoint elsewhere, this server adds the key to what the page asks for: no browser ever holds it. It
forwards four routes to that one endpoint and nothing else, and listens on this machine alone, since whoever reaches it
runs jobs on that key.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from pipeline.errors import PaletteError
from pipeline.palette import DEFAULT_PALETTE, parse_palette
from pipeline.palette_files import MAX_FILE_BYTES, read_palette_file
from pipeline.presets import PRESETS
from pipeline.types import MAX_INKS, MIN_INKS, Palette
from serve.bodies import Refusal, read_body
from serve.client_side import Door, answering, dressed, is_loopback
from serve.limits import RUN_BYTES, Rate

ROOT = Path(__file__).resolve().parent.parent
PAGE, CLIENT, SAMPLE = ROOT / "playground", ROOT / "clients" / "js" / "livery.mjs", ROOT / "test_input.json"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads its own files, shows the photo from memory, and unpacks the data: URLs of a reply."""

ANSWER_BYTES = 32_000_000
"""Largest answer of an endpoint that is handed on; the platform's own limit is 20 MB."""

FORWARD_S = 100.0
"""Longest time that one request to the endpoint may take; the page gives up after 120."""

JOB = "{job:[A-Za-z0-9_-]{1,100}}"

log = logging.getLogger("serve")


class Page:
    """The page's files, what it has to know before its first job, and its palettes.

    Args:
        remote: whether jobs leave this machine, so that each one may cost.
    """

    def __init__(self, *, remote: bool) -> None:
        self._remote = remote
        self._files = {path.name: path for path in (*PAGE.iterdir(), CLIENT) if path.suffix in MEDIA_TYPES}

    def add_to(self, application: web.Application) -> None:
        """The routes."""
        application.add_routes(
            [
                web.get("/", self.index),
                web.get("/playground/facts.json", self.facts),
                web.get("/playground/sample.jpg", self.sample),
                web.get("/playground/{name}", self.file),
                web.post("/palette", self.palette),
            ]
        )

    async def index(self, _: web.Request) -> web.Response:
        """The page itself."""
        return _file(PAGE / "index.html")

    async def file(self, request: web.Request) -> web.Response:
        """A part of the page."""
        path = self._files.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return _file(path)

    async def facts(self, _: web.Request) -> web.Response:
        """What the page would otherwise repeat: the default inks, the presets, how many inks there may be."""
        return web.json_response(
            {
                "remote": self._remote,
                "palette": _inks(DEFAULT_PALETTE),
                "inks": {"least": MIN_INKS, "most": MAX_INKS},
                "presets": PRESETS,
            }
        )

    async def sample(self, _: web.Request) -> web.Response:
        """The photo of test_input.json."""
        photo = base64.b64decode(json.loads(SAMPLE.read_text("ascii"))["input"]["image"])
        return web.Response(body=photo, content_type="image/jpeg")

    async def palette(self, request: web.Request) -> web.Response:
        """The inks of a palette file whose name is `?name=`, or, without it, of a text: `[{"hex", "name"}, …]`."""
        name = request.query.get("name")
        data = await read_body(request, MAX_FILE_BYTES)
        try:
            # A text never asks for colours of the photo.
            palette = cast(Palette, parse_palette(_text(data))) if name is None else read_palette_file(data, name)
        except PaletteError as fault:
            return web.json_response(fault.as_reply(), status=400)
        return web.json_response(_inks(palette))


class Endpoint:
    """A RunPod endpoint elsewhere.

    Args:
        url: its address, such as `https://api.runpod.ai/v2/ID`.
        key: sent to it as a bearer key, and nowhere else; None where it asks for none.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None

    def add_to(self, application: web.Application) -> None:
        """The routes that are forwarded."""
        application.cleanup_ctx.append(self._connected)
        application.add_routes(
            [
                web.post("/run", self.run),
                web.get(f"/status/{JOB}", self.status),
                web.post(f"/cancel/{JOB}", self.cancel),
                web.get("/health", self.health),
            ]
        )

    async def run(self, request: web.Request) -> web.Response:
        """Queue a job."""
        if request.content_type != "application/json":
            raise Refusal(415, "UnsupportedMediaType", "send application/json")
        return await self._forward("POST", "run", await read_body(request, RUN_BYTES))

    async def status(self, request: web.Request) -> web.Response:
        """How a job stands."""
        return await self._forward("GET", f"status/{request.match_info['job']}")

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop a job."""
        return await self._forward("POST", f"cancel/{request.match_info['job']}")

    async def health(self, _: web.Request) -> web.Response:
        """Jobs and workers by state."""
        return await self._forward("GET", "health")

    async def _connected(self, _: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FORWARD_S)) as self._session:
            yield

    async def _forward(self, method: str, path: str, body: bytes | None = None) -> web.Response:
        if self._session is None:
            raise RuntimeError("the application has not started")
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        try:
            # A redirect would carry the key to another host.
            async with self._session.request(
                method, f"{self._url}/{path}", data=body, headers=headers, allow_redirects=False
            ) as answer:
                return await _handed_on(answer)
        except (aiohttp.ClientError, TimeoutError):
            raise Refusal(502, "Unreachable", "the endpoint doesn't answer", retry_s=5) from None


def playground_application(url: str, key: str | None) -> web.Application:
    """The page in front of an endpoint elsewhere."""
    door = Door(None, frozenset(), Rate(50.0))
    application = web.Application(middlewares=[answering(door)])
    application.on_response_prepare.append(dressed(door))
    Page(remote=True).add_to(application)
    Endpoint(url, key).add_to(application)
    return application


async def _handed_on(answer: aiohttp.ClientResponse) -> web.Response:
    """An endpoint's answer: its JSON, or a refusal in a job's form."""
    if answer.status in (401, 403):
        raise Refusal(403, "Forbidden", "the endpoint refuses the key: check --key-file")
    if 300 <= answer.status < 400:
        raise Refusal(502, "BadGateway", "the endpoint answers with a redirect: check --endpoint")
    if answer.status != 200:
        retry_s = 5 if answer.status == 429 or answer.status >= 500 else None
        raise Refusal(
            answer.status, "EndpointRefused", f"the endpoint answers with HTTP {answer.status}", retry_s=retry_s
        )
    body = bytearray()
    async for chunk in answer.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise Refusal(502, "BadGateway", f"the endpoint's answer is larger than {ANSWER_BYTES / 1e6:g} MB")
    return web.Response(body=bytes(body), content_type="application/json")


def _file(path: Path) -> web.Response:
    headers = {
        "Content-Type": MEDIA_TYPES[path.suffix],
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
    }
    return web.Response(body=path.read_bytes(), headers=headers)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise PaletteError("is not UTF-8 text", field="palette") from None


def _inks(palette: Palette) -> list[dict[str, str]]:
    return [{"hex": ink.hex, "name": ink.name} for ink in palette.inks]


def main() -> int:
    """Serve the page in front of an endpoint until told to end. Returns an exit code."""
    url, key, port = _options()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)-7s %(name)s: %(message)s")
    log.setLevel(logging.INFO)
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as fault:
        log.error("can't listen on port %d: %s", port, fault.strerror)  # noqa: TRY400
        return 1
    log.info("listening on http://127.0.0.1:%d", listening.getsockname()[1])
    web.run_app(playground_application(url, key), sock=listening, print=None, access_log=None)
    return 0


def _options() -> tuple[str, str | None, int]:
    parser = argparse.ArgumentParser(
        prog="python -m serve.playground", description="The playground in front of an endpoint elsewhere."
    )
    parser.add_argument("--endpoint", required=True, help="its address, such as https://api.runpod.ai/v2/ID")
    parser.add_argument("--key-file", type=Path, help="file with the endpoint's API key")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    given = parser.parse_args()
    if (fault := _address_fault(given.endpoint)) is not None:
        parser.error(f"--endpoint: {fault}")
    key = None
    if given.key_file is not None:
        try:
            key = given.key_file.read_text("ascii").strip()
        except (OSError, ValueError):
            parser.error("--key-file: can't be read as ASCII text")
        if re.fullmatch(r"[!-~]+", key) is None:
            parser.error("--key-file: must hold one key, printable and without spaces")
    if not 0 <= given.port <= 65535:
        parser.error("--port: must be 0 to 65535")
    return given.endpoint.rstrip("/"), key, given.port


def _address_fault(url: str) -> str | None:
    """Why jobs and a key can't be sent there; None where they can."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "is no address"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        return "must be an https:// address; plain http is for this machine alone"
    if host == "" or parts.username is not None or parts.query or parts.fragment:
        return "must be a host and a path, with no user, query or fragment"
    return None


if __name__ == "__main__":
    sys.exit(main())
