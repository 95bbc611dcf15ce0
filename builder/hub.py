"""The Hub, as the builder uses it: what a repository holds at its newest revision, and a file's bytes from any byte on.

All requests go through huggingface-hub's own session, which knows its endpoint (`HF_ENDPOINT`), its token (`HF_TOKEN`,
or what `hf auth login` stored) and its offline switch. No message repeats what a request or a reply held: they may
carry the token or signed links.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from models.pins import Pin, PinnedFile, parse_pin, pin_entry
from models.registry import Row
from pipeline.errors import ModelMissing

if TYPE_CHECKING:
    from httpx2 import Response

T = TypeVar("T")

ATTEMPTS = 6
"""How often in a row a request is made that brings nothing."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 30.0
_TIMEOUT_S = 30.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_STATUSES = {
    401: "it is not there, or its licence must be agreed to on the Hub first and HF_TOKEN set",
    403: "this token may not read it; agree to its licence on the Hub, or use another HF_TOKEN",
    404: "it is not there",
}


class BrokenOff(Exception):
    """A request that is worth repeating: the connection broke, or the Hub asked for patience.

    Args:
        reason: for the message, should it go on like that.
        wait_s: how long the Hub asked to wait, in seconds.
    """

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        self.reason, self.wait_s = reason, wait_s
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a row's files come from.

    Attributes:
        repo: owner and name on the Hub.
        paths: in the repository, by the path on the volume, of files that are called otherwise there.
    """

    repo: str
    paths: Mapping[str, str]


def pin_row(row: Row, source: Source) -> tuple[Pin, str | None]:
    """The row at the newest revision of its repository.

    Large files have their checksum on the Hub; small ones are fetched and hashed.

    Returns:
        The pin, and the licence that the repository states.

    Raises:
        ModelMissing: the repository or a file is not there or not to be read, or the Hub can't be reached.
        ModelCorrupt: what it says makes no pin.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - a third of a second, and most commands don't need it

    def ask() -> tuple[str, dict[str, tuple[int, str] | None], str | None]:
        with _faults(row.name):
            try:
                info = HfApi().model_info(source.repo, files_metadata=True, timeout=_TIMEOUT_S)
            except (ValueError, TypeError, KeyError):
                raise ModelMissing(f"{row.name} can't be pinned: what answered there is no Hub") from None
        found = {
            file.rfilename: None if file.lfs is None else (file.lfs.size, file.lfs.sha256)
            for file in (info.siblings if info.siblings is not None else ())
        }
        return str(info.sha), found, None if info.card_data is None else info.card_data.get("license")

    revision, found, licence = persistently(row.name, ask)
    files = []
    for path in row.files:
        name = source.paths.get(path, path)
        if name not in found:
            raise ModelMissing(f"{source.repo} has no {name}, which {row.name} needs")
        large = found[name]
        size_bytes, sha256 = _hashed(row.name, source.repo, revision, name) if large is None else large
        files.append(PinnedFile(path, sha256, size_bytes, None if name == path else name))
    pin = Pin(source.repo, revision, tuple(files))
    return parse_pin(row, pin_entry(pin)), licence


def of_choice(pin: Pin, licence: str | None, *, commercial: bool) -> Pin:
    """The pin of a row whose repository the deployment chose, with what its own row can't say."""
    return replace(pin, licence="not stated" if licence is None else licence, commercial=commercial)


def _hashed(row_name: str, repo: str, revision: str, path: str) -> tuple[int, str]:
    """Size and sha256 of a small file."""

    def ask() -> tuple[int, str]:
        digest, size_bytes = hashlib.sha256(), 0
        with open_body(row_name, repo, revision, path, 0) as (_, blocks):
            for block in blocks:
                digest.update(block)
                size_bytes += len(block)
        return size_bytes, digest.hexdigest()

    return persistently(row_name, ask)


@contextmanager
def open_body(row_name: str, repo: str, revision: str, path: str, begin: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """A file's bytes.

    Args:
        row_name: for messages.
        repo, revision, path: which file.
        begin: the first byte that is wanted.

    Returns:
        Where the bytes begin (at 0 where the server knows no ranges), and they themselves, block by block.

    Raises:
        ModelMissing: the Hub refuses.
        BrokenOff: it is worth trying again.
    """
    from huggingface_hub import get_session, get_token, hf_hub_url, hf_raise_for_status  # noqa: PLC0415

    headers, token = {"Accept-Encoding": "identity"}, get_token()
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"  # the session leaves it out where it is sent on to another host
    if begin:
        headers["Range"] = f"bytes={begin}-"
    url = hf_hub_url(repo, path, revision=revision)
    with _faults(row_name), get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
        hf_raise_for_status(response)
        starts = begin if _is_range_from(response, begin) else 0
        yield starts, response.iter_bytes()  # as they arrive: what has come is worth keeping


def _is_range_from(response: Response, begin: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {begin}-")


@contextmanager
def _faults(row_name: str) -> Iterator[None]:
    """What a request raises, as errors of ours."""
    from httpx2 import HTTPError, InvalidURL  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled  # noqa: PLC0415

    try:
        yield
    except HfHubHTTPError as fault:
        raise _refusal(row_name, fault.response) from None
    except OfflineModeIsEnabled:
        raise ModelMissing(f"{row_name} can't be fetched: HF_HUB_OFFLINE is set") from None
    except HFValidationError:
        raise ModelMissing(f"{row_name} can't be fetched: that is no name of a repository") from None
    except InvalidURL:
        raise ModelMissing(f"{row_name} can't be fetched: HF_ENDPOINT is no address") from None
    except HTTPError as fault:
        raise BrokenOff(f"the connection to the Hub failed ({type(fault).__name__})") from None


def _refusal(row_name: str, response: Response) -> Exception:
    status = response.status_code
    if status in _PASSING:
        asked = response.headers.get("Retry-After", "")
        return BrokenOff(f"the Hub answers with status {status}", float(asked) if asked.isdecimal() else None)
    reason = _STATUSES.get(status, "the Hub refuses")
    return ModelMissing(f"{row_name} can't be fetched: {reason} (status {status})")


def persistently(row_name: str, ask: Callable[[], T]) -> T:
    """What `ask` returns, asked again where it was broken off.

    Raises:
        ModelMissing: it was, `ATTEMPTS` times.
    """
    for attempt in range(ATTEMPTS):
        try:
            return ask()
        except BrokenOff as fault:
            patience(row_name, fault, attempt)
    raise AssertionError


def patience(row_name: str, fault: BrokenOff, attempt: int) -> None:
    """Wait before the next attempt, longer each time.

    Raises:
        ModelMissing: that was the last one.
    """
    if attempt + 1 >= ATTEMPTS:
        raise ModelMissing(f"{row_name} can't be fetched: {fault.reason}, {ATTEMPTS} times in a row") from None
    wait_s = _FIRST_WAIT_S * 2**attempt if fault.wait_s is None else fault.wait_s
    time.sleep(min(wait_s, _LONGEST_WAIT_S))
