"""A client of Livery in one file: Python 3.11 or newer, nothing but the standard library.

    from pathlib import Path
    from livery import Livery, save

    livery = Livery("https://api.runpod.ai/v2/ENDPOINT", key="…")     # or Livery("http://127.0.0.1:8000")
    job = livery.submit(Path("car.jpg"), palette=["#111318", "#E9ECEE", "#D7263D"], detail=0.6)
    output = job.wait(lambda p: print(p.status, p.phase, p.percent))
    save(output, Path("out"), "car")                                  # car.svg, car-2048.png, …

    python livery.py https://api.runpod.ai/v2/ENDPOINT car.jpg -o out  (the key in RUNPOD_API_KEY)

What can go wrong:

    LiveryError
    ├─ TooLarge         the photo or the request is over a limit; nothing was sent
    ├─ Unreachable      no answer, after all retries; `maybe_sent` where the request may have arrived
    ├─ Refused          the endpoint answered with an HTTP error (status)
    ├─ Failed           the job failed (code, field, retryable)
    ├─ Cancelled        the job was cancelled
    ├─ TimedOut         the platform ended the job: its execution timeout or its time to live
    ├─ StillRunning     the job is not finished, and the caller's own time is up
    └─ Damaged          a file did not arrive as the reply describes it

Answers of 429 and 5xx are tried again with growing, random pauses, or after what Retry-After says.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import random
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

MAX_PHOTO_BYTES = 20 * 1000 * 1000
"""Largest photo that Livery takes, before base64."""

MAX_RUN_BYTES = 10 * 1000 * 1000
"""Largest JSON that the platform takes at /run."""

MAX_RUNSYNC_BYTES = 20 * 1000 * 1000
"""Largest JSON that the platform takes at /runsync."""

MAX_REPLY_BYTES = 64 * 1000 * 1000
"""Largest answer that is read."""

MAX_FILE_BYTES = 1000 * 1000 * 1000
"""Largest file that is fetched."""

RETRIED = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses that are tried again."""

RETRYABLE_CODES = frozenset(
    {"OutOfMemory", "DeadlineExceeded", "VolumeFull", "UploadFailed", "Cancelled", "DeviceLost"}
)
"""Codes of jobs that may succeed when sent again, for platforms that hand on only the sentence."""


class LiveryError(Exception):
    """Base of everything that this file raises."""


class TooLarge(LiveryError):
    """Over a limit; nothing was sent."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int, advice: str) -> None:
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        super().__init__(f"{what} takes {size_bytes / 1e6:.1f} MB, the limit is {limit_bytes / 1e6:.0f} MB: {advice}")


class Unreachable(LiveryError):
    """No answer.

    Args:
        maybe_sent: whether the endpoint may have taken the request all the same.
    """

    def __init__(self, message: str, *, maybe_sent: bool) -> None:
        self.maybe_sent = maybe_sent
        super().__init__(message)


class Refused(LiveryError):
    """An HTTP error that retrying did not mend, or can't."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"HTTP {status}: {message}")


class Failed(LiveryError):
    """The job failed.

    Args:
        message: the sentence of the reply; it starts with the code.
        code: stable, such as ``PaletteError``.
        field: the request's field at fault, such as ``palette[2]``; None where no field is.
        retryable: whether the same request may succeed later.
    """

    def __init__(self, message: str, *, code: str, field: str | None, retryable: bool) -> None:
        self.code, self.field, self.retryable = code, field, retryable
        super().__init__(message)


class Cancelled(LiveryError):
    """The job was cancelled."""


class TimedOut(LiveryError):
    """The platform ended the job."""


class StillRunning(LiveryError):
    """The caller's own time is up; the job goes on."""


class Damaged(LiveryError):
    """A file is not what the reply says of it."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long.

    Attributes:
        attempts: of one request, the first included.
        first_pause_s: before the second; each later one is twice as long, and all are cut at random by up to half.
        longest_pause_s: of any pause, also of one that Retry-After asks for.
    """

    attempts: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0

    def pause_s(self, failures: int, retry_after: str | None) -> float:
        """Before the next attempt. Retry-After counts where it is a number of seconds."""
        if retry_after is not None and re.fullmatch(r"[0-9]{1,6}", retry_after.strip()):
            return min(float(retry_after), self.longest_pause_s)
        grown_s: float = min(self.first_pause_s * 2.0 ** (failures - 1), self.longest_pause_s)
        return grown_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands.

    Attributes:
        status: the platform's, such as ``IN_QUEUE`` or ``IN_PROGRESS``.
        phase: such as ``steer``; None before the first.
        percent: 0 to 100; never falls.
        message: what is being done; None where the worker says nothing more.
    """

    status: str
    phase: str | None = None
    percent: int = 0
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Livery:
    """An endpoint.

    Attributes:
        url: `https://api.runpod.ai/v2/ENDPOINT`, or the address of a local server.
        key: the API key; sent to `url` only, and over plain http only on this machine.
        timeout_s: of one request.
        retries: of one request.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    retries: Retries = Retries()

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url must be an http:// or https:// address")
        if self.key is not None and parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError("a key is not sent over plain http; use https")

    def submit(self, photo: Path | bytes | None = None, **fields: Any) -> Job:
        """Queue a job; returns at once.

        Args:
            photo: a JPEG, PNG or WebP, or None where `fields` hold an `image_url` or an action that takes no photo.
            fields: of the request, as in schema.json.

        Raises:
            TooLarge, Unreachable, Refused.
        """
        body = _body(photo, fields, MAX_RUN_BYTES, "use run_sync, a smaller photo, or image_url")
        return Job(self, str(self._call("POST", "run", body)["id"]))

    def run_sync(self, photo: Path | bytes | None = None, **fields: Any) -> dict[str, Any]:
        """Run a job and wait for its output in the same request, or beyond it where the platform answers earlier.

        Takes twice the size that `submit` takes, and tells of no progress.

        Raises:
            LiveryError: any of the tree but StillRunning.
        """
        body = _body(photo, fields, MAX_RUNSYNC_BYTES, "use a smaller photo, or image_url")
        answer = self._call("POST", "runsync", body)
        output = _output(answer)
        return Job(self, str(answer["id"])).wait() if output is None else output

    def job(self, id: str) -> Job:
        """A job that was submitted before."""
        return Job(self, id)

    def _call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url.rstrip('/')}/{path}"
        request = urllib.request.Request(address, data=body, headers=headers, method=method)  # noqa: S310 - checked above
        text = _attempt(request, self.timeout_s, self.retries, lambda answer: _read(answer, MAX_REPLY_BYTES))
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "id" not in answer:
            raise Refused(200, "the answer is not one of a RunPod endpoint; is the address right?")
        return answer


@dataclass(slots=True)
class Job:
    """A job on an endpoint."""

    livery: Livery
    id: str

    def status(self) -> dict[str, Any]:
        """What the platform says of it now, unread."""
        return self.livery._call("GET", f"status/{urllib.parse.quote(self.id, safe='')}")

    def wait(
        self, progress: Callable[[Progress], object] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """The job's output, as in schema.json.

        Args:
            progress: called where something changed.
            timeout_s: longest time to wait; None for as long as the platform keeps the job.

        Raises:
            Failed, Cancelled, TimedOut, StillRunning, Unreachable, Refused.
        """
        began_s = time.monotonic()
        told = Progress("")
        pause_s = 0.25
        while True:
            answer = self.status()
            output = _output(answer)
            if output is not None:
                return output
            now = _progress(answer, told)
            if now != told:
                pause_s = 0.25
                if progress is not None:
                    progress(now)
            told = now
            if timeout_s is not None and time.monotonic() - began_s + pause_s > timeout_s:
                raise StillRunning(f"job {self.id} is {told.status} after {timeout_s:g} s")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 2.0)

    def cancel(self) -> None:
        """Stop it; a job that has ended stays as it is.

        Raises:
            Unreachable, Refused.
        """
        self.livery._call("POST", f"cancel/{urllib.parse.quote(self.id, safe='')}", b"{}")


def _body(photo: Path | bytes | None, fields: Mapping[str, Any], limit_bytes: int, advice: str) -> bytes:
    request = dict(fields)
    if photo is not None:
        size_bytes = photo.stat().st_size if isinstance(photo, Path) else len(photo)
        if size_bytes > MAX_PHOTO_BYTES:
            raise TooLarge("the photo", size_bytes, MAX_PHOTO_BYTES, "save it smaller")
        encoded_bytes = (size_bytes + 2) // 3 * 4
        if encoded_bytes > limit_bytes:
            raise TooLarge("the photo in base64", encoded_bytes, limit_bytes, advice)
        data = photo.read_bytes() if isinstance(photo, Path) else photo
        request["image"] = base64.b64encode(data).decode("ascii")
    body = json.dumps({"input": request}, allow_nan=False).encode()
    if len(body) > limit_bytes:
        raise TooLarge("the request", len(body), limit_bytes, advice)
    return body


def _output(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """The output of a finished job; None while it is not finished. Raises where it ended otherwise."""
    status, output = answer.get("status"), answer.get("output")
    if status in {"IN_QUEUE", "IN_PROGRESS"}:
        return None
    details = output if isinstance(output, dict) else {}
    if status == "FAILED" or answer.get("error"):
        message = str(answer.get("error") or details.get("error") or "the job failed and the platform does not say why")
        code = str(details.get("code") or (re.match(r"([A-Za-z]+)(?=:)", message) or ["Unknown"])[0])
        retryable = bool(details.get("retryable", code in RETRYABLE_CODES))
        raise Failed(message, code=code, field=details.get("field"), retryable=retryable)
    if status == "CANCELLED":
        raise Cancelled("the job was cancelled")
    if status == "TIMED_OUT":
        raise TimedOut("the platform ended the job: its execution timeout, or its time to live")
    if status != "COMPLETED" or not isinstance(output, dict):
        message = f"the platform says {status} and hands over no output"
        raise Failed(message, code="Unknown", field=None, retryable=False)
    return output


def _progress(answer: Mapping[str, Any], told: Progress) -> Progress:
    told_by_worker = answer.get("output")
    news = told_by_worker if isinstance(told_by_worker, dict) else {}
    percent = news.get("percent")
    return Progress(
        status=str(answer.get("status")),
        phase=news.get("phase", told.phase),
        percent=max(told.percent, int(percent)) if isinstance(percent, int | float) else told.percent,
        message=news.get("message"),
    )


def save(output: Mapping[str, Any], folder: Path, stem: str = "livery") -> list[Path]:
    """Write every file of an output: STEM.svg, STEM-2048.png, STEM.pdf, STEM.dxf, STEM-INK.pdf, STEM.json.

    Each file that came as a link or as a data: URL is checked against the size and the sha256 that the reply states.

    Raises:
        Damaged, Unreachable, Refused: as soon as one file can't be had; nothing half-written is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if output.get("svg") is not None:
        written.append(_write(folder / f"{stem}.svg", str(output["svg"]).encode()))
    for file in (*output.get("png", ()), *output.get("files", ())):
        written.append(_fetch(file, _free(folder, f"{stem}{_ending(file)}", written)))
    report = json.dumps(output.get("report"), indent=1, ensure_ascii=False)
    return [*written, _write(folder / f"{stem}.json", f"{report}\n".encode())]


def _ending(file: Mapping[str, Any]) -> str:
    """What follows the stem in a file's name; nothing of the reply can lead out of the folder."""
    if "width" in file:
        return f"-{int(file['width'])}.png"
    suffix = "pdf" if file["format"] == "separations" else re.sub(r"[^a-z0-9]", "", str(file["format"]))
    if file.get("ink") is None:
        return f".{suffix}"
    ink = re.sub(r"[^\w-]+", "-", str(file["ink"])).strip("-")
    return f"-{ink}.{suffix}"


def _free(folder: Path, name: str, taken: Sequence[Path]) -> Path:
    """`name` in the folder, numbered where another file of the same output has it, in whatever case."""
    names = {path.name.casefold() for path in taken}
    stem, _, suffix = name.rpartition(".")
    numbered = (f"{stem}-{number}.{suffix}" for number in range(2, len(names) + 3))
    return folder / next(each for each in (name, *numbered) if each.casefold() not in names)


def _fetch(file: Mapping[str, Any], path: Path) -> Path:
    url = str(file["url"])
    if url.startswith("data:"):
        data = base64.b64decode(url.partition(",")[2])
    elif url.startswith(("https://", "http://")):
        # Links are signed: no key goes along, to whatever host they name.
        request = urllib.request.Request(url)  # noqa: S310 - the schemes are checked
        data = _attempt(request, 120.0, Retries(), lambda answer: _read(answer, MAX_FILE_BYTES))
    else:
        raise Damaged(f"{path.name}: its address is neither https nor data:")
    if len(data) != file["bytes"] or hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise Damaged(f"{path.name}: {len(data)} bytes arrived that are not those the reply describes")
    return _write(path, data)


def _write(path: Path, data: bytes) -> Path:
    partial = path.with_name(f"{path.name}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _attempt(
    request: urllib.request.Request, timeout_s: float, retries: Retries, read: Callable[[IO[bytes]], bytes]
) -> bytes:
    handlers = [_NoRedirects()] if request.has_header("Authorization") else []
    opener = urllib.request.build_opener(*handlers)
    for attempt in range(1, retries.attempts + 1):
        try:
            with opener.open(request, timeout=timeout_s) as answer:
                return read(answer)
        except urllib.error.HTTPError as refused:
            fault: LiveryError = Refused(refused.code, _reason(refused))
            if refused.code not in RETRIED:
                raise fault from None
            pause_s = retries.pause_s(attempt, refused.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException) as broken:
            # A new job is queued once only: what may have arrived is not sent again.
            never_sent = _never_sent(broken)
            fault = Unreachable(_line(broken), maybe_sent=not never_sent)
            if request.get_method() == "POST" and not never_sent:
                raise fault from None
            pause_s = retries.pause_s(attempt, None)
        if attempt == retries.attempts:
            raise fault
        time.sleep(pause_s)
    raise ValueError("retries.attempts must be at least 1")


def _never_sent(broken: Exception) -> bool:
    reason = broken.reason if isinstance(broken, urllib.error.URLError) else broken
    return isinstance(reason, ConnectionRefusedError | socket.gaierror)


def _line(broken: Exception) -> str:
    reason = broken.reason if isinstance(broken, urllib.error.URLError) else broken
    return f"no answer: {str(reason) or type(reason).__name__}"


def _reason(refused: urllib.error.HTTPError) -> str:
    if refused.code == 401:
        return "the key is missing or wrong"
    if refused.code == 404:
        return "no such endpoint, or the job is no longer kept"
    try:
        text = refused.read(2000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    return " ".join(text.split())[:300] or str(refused.reason)


def _read(answer: IO[bytes], limit_bytes: int) -> bytes:
    data = answer.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise Damaged(f"the answer is larger than {limit_bytes / 1e6:.0f} MB")
    return data


def main() -> int:
    """The command line. Returns 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(description="Send a photo to a Livery endpoint and save what comes back.")
    parser.add_argument("url", help="https://api.runpod.ai/v2/ENDPOINT, or a local server; the key in RUNPOD_API_KEY")
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder for the files (default: out)")
    parser.add_argument("--fields", type=json.loads, default={}, metavar="JSON", help="such as '{\"detail\": 0.7}'")
    given = parser.parse_args()
    try:
        job = Livery(given.url, os.environ.get("RUNPOD_API_KEY") or None).submit(given.photo, **given.fields)
        try:
            output = job.wait(lambda p: print(f"{p.status} {p.phase or ''} {p.percent} %", file=sys.stderr))  # noqa: T201
        except KeyboardInterrupt:
            job.cancel()
            raise
        for path in save(output, given.output, given.photo.stem):
            print(path)  # noqa: T201
    except (LiveryError, OSError, ValueError, KeyboardInterrupt) as fault:
        print(f"error: {str(fault) or 'interrupted; the job was cancelled'}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
