"""The cache: what jobs made, kept in a folder that many workers may share, so that the same work is paid once.

An entry is one file, `<photo>-<key>.<kind>`: the SHA-256 of the photo's file, that of everything else that it depends
on, and whether it is a job's whole result or what phases 1 and 2 of the studio engine made (`art`). It holds

    livery cache 2 <SHA-256 of its own name, a line's end, and all that follows the first line>
    its content

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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from pipeline.alarm import Alarm
from pipeline.types import Warning

T = TypeVar("T")
Kind = Literal["result", "art"]

LARGEST_BYTES: Final = 256 << 20
"""Largest entry, in bytes: read at once, so it is bounded."""

SWEEP_S: Final = 600.0
"""After that much time the folder is counted again, for what other workers wrote."""

PART_S: Final = 3600.0
"""Age of a half-written entry that nobody writes any more: its worker was killed."""

NOT_KEPT: Final = frozenset({"cache_full", "cache_failed"})
"""Codes of `Cache.put`'s warnings."""

_MAGIC: Final = b"livery cache 2 "
_ENTRY: Final = re.compile(r"[0-9a-f]{64}-[0-9a-f]{64}\.(?:result|art)")
_PART: Final = re.compile(r"\.livery-\w+\.part")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EntryName:
    """What an entry is kept under. `photo` and `key` are SHA-256 in hex: of the file, and of all else that shapes it.

    Raises:
        ValueError: one of them is not.
    """

    photo: str
    key: str
    kind: Kind

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.photo) or not _DIGEST.fullmatch(self.key):
            raise ValueError("photo and key must be SHA-256 in hex")

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.photo}-{self.key}.{self.kind}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """What was removed: how many entries of each kind, and their bytes."""

    results: int = 0
    art: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    bytes: int
    written_s: float
    used_s: float


class Cache:
    """The entries in one folder. Threads and processes may share it.

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
        self._alarm = Alarm("livery-cache", self._sweep_when_due)
        self._alarm.ring_in(0.0)

    def get(self, name: EntryName, read: Callable[[bytes], T | None]) -> T | None:
        """What was kept under `name`; None where nothing is, or nothing that can be used.

        Args:
            name: of the entry.
            read: what its content means; None where it can't be that of such an entry.
        """
        path = self.folder / name.file
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
            log.warning("a cache entry could not be read: %s", _name_of(fault))
            return None
        content = _opened(name, data)
        value = None if content is None else read(content)
        with suppress(OSError):  # another worker may have removed it, or the volume may be read-only
            if value is None:
                path.unlink()
            else:
                os.utime(path, ns=(time.time_ns(), state.st_mtime_ns))
        return value

    def put(self, name: EntryName, content: bytes) -> Warning | None:
        """Keep `content`. Where that fails the job is none the worse, and the warning says so."""
        data = _sealed(name, content)
        if len(data) > min(self.most_bytes, LARGEST_BYTES):
            return Warning("cache_full", f"the {name.kind} was not kept: it is larger than the whole cache")
        try:
            if self._bytes + len(data) > self.most_bytes or time.monotonic() - self._swept_s > SWEEP_S:
                self.sweep(len(data))
            self._write(self.folder / name.file, data)
        except OSError as fault:
            log.warning("the %s was not kept: %s", name.kind, _name_of(fault))
            if fault.errno in _FULL:
                message = f"the {name.kind} was not kept: the disk or volume of the cache is full"
                return Warning("cache_full", message)
            return Warning("cache_failed", f"the {name.kind} was not kept: the cache's folder can't be written")
        with self._lock:
            self._bytes += len(data)
            if not self._alarm.is_set:
                self._alarm.ring_in(self.most_s)
        return None

    def purge(self, photo: str) -> Dropped:
        """Remove every entry that was made from a photo.

        Raises:
            OSError: one could not be removed.
        """
        paths = [path for path, _ in self._listed(f"{photo}-")]
        results = sum(path.suffix == ".result" for path in paths)
        return Dropped(results, len(paths) - results, sum(_unlinked(path) for path in paths))

    def sweep(self, room_bytes: int = 0) -> None:
        """Remove what is past its time, then the least recently used until an entry of `room_bytes` has room."""
        with self._lock:
            self._alarm.unset()
            entries = sorted(self._entries(), key=lambda entry: entry.used_s, reverse=True)
            total = sum(entry.bytes for entry in entries)
            while entries and total + room_bytes > self.most_bytes:
                total -= entries[-1].bytes
                _unlinked(entries.pop().path)
            self._bytes, self._swept_s = total, time.monotonic()
            if entries:
                self._alarm.ring_in(min(entry.written_s for entry in entries) + self.most_s - time.time())

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
            elif path.suffix != ".part":
                yield _Entry(path, state.st_size, state.st_mtime, state.st_atime)

    def _sweep_when_due(self) -> None:
        try:
            self.sweep()
        except OSError as fault:
            log.warning("what is past its time could not be removed: %s", _name_of(fault))


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


def _sealed(name: EntryName, content: bytes) -> bytes:
    return b"".join((_MAGIC, _seal(name, content), b"\n", content))


def _opened(name: EntryName, data: bytes) -> bytes | None:
    """An entry's content; None where it is damaged, or another's."""
    first, _, content = data.partition(b"\n")
    return content if first == _MAGIC + _seal(name, content) else None


def _seal(name: EntryName, content: bytes) -> bytes:
    digest = hashlib.sha256(f"{name.file}\n".encode())
    digest.update(content)
    return digest.hexdigest().encode()
