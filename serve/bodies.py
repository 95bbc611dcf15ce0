"""Requests' bodies, read within their limits, and how a request is refused."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from aiohttp import BodyPartReader, web

from serve.limits import (
    BODY_S,
    EXECUTION_RANGE_S,
    EXECUTION_S,
    OPTIONS_BYTES,
    PHOTO_BYTES,
    TTL_RANGE_S,
    TTL_S,
)


class Refusal(Exception):
    """A request that is answered with an error, in the same form as a job's.

    Args:
        status: HTTP's.
        code: stable, a name in the manner of `pipeline.errors`.
        field: the field of the request at fault.
        retry_s: when to come again; the same request may then be served.
    """

    def __init__(
        self, status: int, code: str, message: str, *, field: str | None = None, retry_s: int | None = None
    ) -> None:
        self.status, self.code, self.message, self.field, self.retry_s = status, code, message, field, retry_s
        super().__init__(message)

    def as_response(self) -> web.Response:
        """`{"error", "code", "field", "retryable"}` with HTTP's status."""
        where = f"{self.field}: " if self.field else ""
        body = {
            "error": f"{self.code}: {where}{self.message}",
            "code": self.code,
            "field": self.field,
            "retryable": self.retry_s is not None,
        }
        headers = {} if self.retry_s is None else {"Retry-After": str(self.retry_s)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return web.json_response(body, status=self.status, headers=headers)


@dataclass(frozen=True, slots=True)
class Asked:
    """A job as a client asks for it: the worker's input as JSON, and its times."""

    input: bytes
    execution_s: float = EXECUTION_S
    ttl_s: float = TTL_S


def strict_json(text: bytes) -> Any:
    """JSON, without the NaN and the infinities that Python takes for it.

    Raises:
        ValueError: it isn't.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


async def read_body(request: web.Request, most_bytes: int) -> bytes:
    """A request's body.

    Raises:
        Refusal: it is too large or too slow.
    """
    if (request.content_length or 0) > most_bytes:
        raise _too_large("the request", most_bytes)
    body = bytearray()
    async with _in_time():
        async for chunk in request.content.iter_chunked(1 << 16):
            body += chunk
            if len(body) > most_bytes:
                raise _too_large("the request", most_bytes)
    return bytes(body)


async def read_job(request: web.Request, most_bytes: int) -> Asked:
    """The job in a JSON body: `{"input": {…}, "policy": {"executionTimeout": ms, "ttl": ms}}`.

    Raises:
        Refusal: it is too large, too slow, or not such a body.
    """
    if request.content_type != "application/json":
        raise Refusal(415, "UnsupportedMediaType", "send application/json")
    asked = _object(await read_body(request, most_bytes), "the request", None)
    for name in asked:
        if name not in ("input", "policy"):
            raise Refusal(400, "BadRequest", "is unknown here; a job is input and policy", field=name)
    if not isinstance(asked.get("input"), dict):
        raise Refusal(400, "BadRequest", "must be an object", field="input")
    policy = asked.get("policy", {})
    if not isinstance(policy, dict):
        raise Refusal(400, "BadRequest", "must be an object", field="policy")
    return Asked(
        json.dumps(asked["input"]).encode(),
        _seconds(policy, "executionTimeout", EXECUTION_S, EXECUTION_RANGE_S),
        _seconds(policy, "ttl", TTL_S, TTL_RANGE_S),
    )


async def read_upload(request: web.Request) -> Asked:
    """The job in a form: the file `photo`, and `options`, the rest of the input as JSON.

    Raises:
        Refusal: as for `read_job`.
    """
    if request.content_type != "multipart/form-data":
        raise Refusal(415, "UnsupportedMediaType", "send multipart/form-data")
    limits = {"photo": PHOTO_BYTES, "options": OPTIONS_BYTES}
    parts: dict[str, bytes] = {}
    try:
        async with _in_time():
            async for part in await request.multipart():
                name = part.name if isinstance(part, BodyPartReader) else None
                if not isinstance(part, BodyPartReader) or name not in limits or name in parts:
                    raise Refusal(400, "BadRequest", "the form has one photo and at most one options", field=name)
                parts[name] = await _part(part, name, limits[name])
    except ValueError:
        raise Refusal(400, "BadRequest", "the form is damaged") from None
    if "photo" not in parts:
        raise Refusal(400, "BadRequest", "is missing", field="photo")
    options = _object(parts.get("options", b"{}"), "it", "options")
    for name in ("image", "image_url"):
        if name in options:
            raise Refusal(400, "BadRequest", "can't stand beside photo", field=f"options.{name}")
    return Asked(json.dumps(options | {"image": base64.b64encode(parts["photo"]).decode("ascii")}).encode())


async def _part(part: BodyPartReader, name: str, most_bytes: int) -> bytes:
    data = bytearray()
    while chunk := await part.read_chunk(1 << 16):
        data += chunk
        if len(data) > most_bytes:
            raise _too_large(name, most_bytes)
    return bytes(data)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(BODY_S):
            yield
    except TimeoutError:
        raise Refusal(408, "RequestTimeout", f"the request took longer than {BODY_S:g} s", retry_s=1) from None


def _object(text: bytes, what: str, field: str | None) -> dict[str, Any]:
    try:
        value = strict_json(text)
    except ValueError:
        raise Refusal(400, "BadRequest", f"{what} isn't JSON", field=field) from None
    if not isinstance(value, dict):
        raise Refusal(400, "BadRequest", f"{what} must be an object", field=field)
    return value


def _seconds(policy: Mapping[str, Any], name: str, default_s: float, within_s: tuple[float, float]) -> float:
    value = policy.get(name, default_s * 1000)
    least_s, most_s = within_s
    if isinstance(value, bool) or not isinstance(value, int | float) or not least_s <= value / 1000 <= most_s:
        message = f"must be milliseconds from {least_s * 1000:.0f} to {most_s * 1000:.0f}"
        raise Refusal(400, "BadRequest", message, field=f"policy.{name}")
    return value / 1000


def _too_large(what: str, most_bytes: int) -> Refusal:
    message = f"{what} is larger than {most_bytes / 1e6:g} MB; send a smaller photo, or an image_url"
    return Refusal(413, "BodyTooLarge", message)
