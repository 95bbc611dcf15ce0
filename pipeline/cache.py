"""The result cache: what jobs made, kept in a folder that many workers may share, so that the same job costs once.

An entry is one file, `<photo>-<key>.result`: the SHA-256 of the photo's file, and that of everything else that the
result depends on. It holds

    livery result 1 <SHA-256 of all that follows the first line>
    {"photo": …, "key": …, "svg_bytes": …, "files": [{"name": …, "bytes": …}, …], "report": {…}}
    the SVG's UTF-8, then the files, one after another

and neither the photo nor a link. What holds:

- Entries are written beside and renamed into place, so a reader sees a whole one or none; there are no locks.
- An entry that is damaged, or not what its name says, is a miss, and is removed.
- Its file's time of modification says when it was written, and its time of access when it was last used. Past
  `most_s` it is never read, and goes at that time where a worker runs, else when the next one starts.
- The least recently used leave before a new entry would pass `most_bytes`. Several workers may pass it together, by
  what they write within `SWEEP_S`.
- Nothing in the folder is touched that is not named as here.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import NonNegativeInt, ValidationError

from pipeline.finished import Finished, FinishedFile
from pipeline.schema import Format, Report, Strict
from pipeline.types import Warning

LARGEST_BYTES: Final = 256 << 20
"""Largest entry, in bytes: read at once, so it is bounded."""

SWEEP_S: Final = 600.0
"""After that much time the folder is counted again, for what other workers wrote."""

PART_S: Final = 3600.0
"""Age of a half-written entry that nobody writes any more: its worker was killed."""

_MAGIC: Final = b"livery result 1 "
_ENTRY: Final = re.compile(r"[0-9a-f]{64}-[0-9a-f]{64}\.result")
_PART: Final = re.compile(r"\.livery-\w+\.part")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

log = logging.getLogger(__name__)


class _Part(Strict):
    name: str
    format: Format
    ink: str | None
    width_px: int
    height_px: int
    bytes: NonNegativeInt


class _Head(Strict):
    photo: str
    key: str
    svg_bytes: NonNegativeInt
    files: tuple[_Part, ...]
    report: Report


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was removed: how many entries, and their bytes."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    bytes: int
    written_s: float
    used_s: float


class ResultCache:
    """The results in one folder. Threads and processes may share it.

    Args:
        folder: made with the first entry; the folder that holds it must be there.
        most_bytes: that the entries take together.
        most_s: how long an entry is kept after it was written, in seconds.
    """

    def __init__(self, folder: Path, most_bytes: int, most_s: float) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self.most_s = most_s
        self._lock = threading.Lock()
        self._bytes = 0
        self._swept_s = float("-inf")
        self._timer: threading.Timer | None = None
        self._sweep_in(0.0)

    def get(self, photo: str, key: str) -> Finished | None:
        """What was kept; None where nothing is, or nothing that can be used.

        Args:
            photo, key: SHA-256 in hex.
        """
        path = self._path(photo, key)
        try:
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                if self._is_past(state.st_mtime) or state.st_size > LARGEST_BYTES:
                    data = b""
                else:
                    data = file.read(LARGEST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as fault:
            log.warning("a result could not be read: %s", _name_of(fault))
            return None
        finished = _parse(data, photo, key)
        with suppress(OSError):  # another worker may have removed it, or the volume may be read-only
            if finished is None:
                path.unlink()
            else:
                os.utime(path, ns=(time.time_ns(), state.st_mtime_ns))
        return finished

    def put(self, photo: str, key: str, finished: Finished) -> Warning | None:
        """Keep a result. Where that fails the job is none the worse, and the warning says so.

        Args:
            photo, key: SHA-256 in hex.
        """
        data = _format(photo, key, finished)
        if len(data) > min(self.most_bytes, LARGEST_BYTES):
            return Warning("cache_full", "the result was not kept: it is larger than the whole cache")
        try:
            if self._bytes + len(data) > self.most_bytes or time.monotonic() - self._swept_s > SWEEP_S:
                self.sweep(len(data))
            self._write(self._path(photo, key), data)
        except OSError as fault:
            log.warning("a result was not kept: %s", _name_of(fault))
            if fault.errno in _FULL:
                return Warning("cache_full", "the result was not kept: the disk or volume of the cache is full")
            return Warning("cache_failed", "the result was not kept: the cache's folder can't be written")
        with self._lock:
            self._bytes += len(data)
            if self._timer is None:
                self._sweep_in(self.most_s)
        return None

    def purge(self, photo: str) -> Dropped:
        """Remove every entry that was made from a photo.

        Raises:
            OSError: one could not be removed.
        """
        paths = [path for path, _ in self._listed(f"{photo}-")]
        return Dropped(len(paths), sum(_unlinked(path) for path in paths))

    def sweep(self, room_bytes: int = 0) -> None:
        """Remove what is past its time, then the least recently used until an entry of `room_bytes` has room."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            entries = sorted(self._entries(), key=lambda entry: entry.used_s, reverse=True)
            total = sum(entry.bytes for entry in entries)
            while entries and total + room_bytes > self.most_bytes:
                total -= entries[-1].bytes
                _unlinked(entries.pop().path)
            self._bytes, self._swept_s = total, time.monotonic()
            if entries:
                self._sweep_in(min(entry.written_s for entry in entries) + self.most_s - time.time())

    def _path(self, photo: str, key: str) -> Path:
        if not _DIGEST.fullmatch(photo) or not _DIGEST.fullmatch(key):
            raise ValueError("photo and key must be SHA-256 in hex")
        return self.folder / f"{photo}-{key}.result"

    def _is_past(self, written_s: float) -> bool:
        # What is dated ahead, by another clock, must not be kept for longer either.
        return abs(time.time() - written_s) > self.most_s

    def _write(self, path: Path, data: bytes) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".livery-", suffix=".part", dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)

    def _listed(self, beginning: str = "") -> Iterator[tuple[Path, os.stat_result]]:
        """Our files in the folder whose names begin so, half-written ones included."""
        try:
            found = list(os.scandir(self.folder))
        except FileNotFoundError:
            return
        for item in found:
            ours = _ENTRY.fullmatch(item.name) or _PART.fullmatch(item.name)
            if ours and item.name.startswith(beginning):
                with suppress(FileNotFoundError):  # another worker was faster
                    yield Path(item.path), item.stat(follow_symlinks=False)

    def _entries(self) -> Iterator[_Entry]:
        """The entries that may be read; the others are removed on the way."""
        for path, state in self._listed():
            abandoned = path.suffix == ".part" and time.time() - state.st_mtime > PART_S
            if abandoned or self._is_past(state.st_mtime):
                _unlinked(path)
            elif path.suffix == ".result":
                yield _Entry(path, state.st_size, state.st_mtime, state.st_atime)

    def _sweep_in(self, seconds: float) -> None:
        # By weak reference: a cache that nobody has any more is not held by what sweeps it.
        self._timer = threading.Timer(min(max(0.0, seconds), threading.TIMEOUT_MAX), _swept, (weakref.ref(self),))
        self._timer.name, self._timer.daemon = "livery-cache", True
        self._timer.start()


def _swept(cache: weakref.ref[ResultCache]) -> None:
    due = cache()
    if due is None:
        return
    try:
        due.sweep()
    except OSError as fault:
        log.warning("results that are past their time could not be removed: %s", _name_of(fault))


def _unlinked(path: Path) -> int:
    """Remove a file. Returns its bytes; 0 where another worker was faster."""
    try:
        size_bytes = path.stat(follow_symlinks=False).st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size_bytes


def _name_of(fault: OSError) -> str:
    """Such as ENOSPC: the fault's own text holds the path."""
    return errno.errorcode.get(fault.errno or 0, type(fault).__name__)


def _format(photo: str, key: str, finished: Finished) -> bytes:
    svg = finished.svg.encode()
    parts = tuple(
        _Part(
            name=file.name,
            format=file.format,
            ink=file.ink,
            width_px=file.width_px,
            height_px=file.height_px,
            bytes=len(file.data),
        )
        for file in finished.files
    )
    head = _Head(photo=photo, key=key, svg_bytes=len(svg), files=parts, report=finished.report)
    body = b"\n".join((head.model_dump_json().encode(), svg + b"".join(file.data for file in finished.files)))
    return b"".join((_MAGIC, hashlib.sha256(body).hexdigest().encode(), b"\n", body))


def _parse(data: bytes, photo: str, key: str) -> Finished | None:
    """An entry's content; None where it is damaged, or another's."""
    first, _, body = data.partition(b"\n")
    if first != _MAGIC + hashlib.sha256(body).hexdigest().encode():
        return None
    text, _, contents = body.partition(b"\n")
    try:
        head = _Head.model_validate_json(text)
        pieces = _cut(contents, (head.svg_bytes, *(part.bytes for part in head.files)))
        if (head.photo, head.key) != (photo, key) or pieces is None:
            return None
        svg = pieces[0].decode()
    except (ValidationError, UnicodeDecodeError):
        return None
    files = tuple(
        FinishedFile(part.name, part.format, piece, part.ink, part.width_px, part.height_px)
        for part, piece in zip(head.files, pieces[1:], strict=True)
    )
    return Finished(svg, files, head.report)


def _cut(contents: bytes, sizes_bytes: Sequence[int]) -> list[bytes] | None:
    """`contents` in pieces of these sizes; None where they don't add up to it."""
    if sum(sizes_bytes) != len(contents):
        return None
    pieces, start = [], 0
    for size_bytes in sizes_bytes:
        pieces.append(contents[start : start + size_bytes])
        start += size_bytes
    return pieces
