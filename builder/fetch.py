"""Fetching files onto a volume: several at a time, each resumable at any byte, and none seen before it is whole.

A file grows under `staging/`, is hashed as it grows, put on the disk, and only then renamed to its place: a process
that dies at any moment leaves what it had, and the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from builder.hub import BrokenOff, open_body, patience
from builder.lease import BuilderLock
from builder.volume import disk_faults, move_into_place, staging_of
from models.pins import PinnedFile
from pipeline.errors import Cancelled, ModelCorrupt, VolumeFull

PART = ".part"

_BLOCK_BYTES = 1 << 20


class Bar(Protocol):
    """What a progress bar has to offer; it is called from several threads."""

    def update(self, size_bytes: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that is to be fetched.

    Attributes:
        row: name of its row.
        repo, revision: where it comes from.
        file: which it is, and what it must be.
        target: where it goes.
    """

    row: str
    repo: str
    revision: str
    file: PinnedFile
    target: Path

    @property
    def stem(self) -> str:
        """How its half-made file is called, before its owner's name."""
        return f"{self.row}-{self.file.path.replace('/', '-')}-{self.file.sha256[:16]}"


@dataclass(slots=True)
class Fetcher:
    """Fetches files onto one volume, with the right to do so.

    Attributes:
        volume: its folder.
        lock: held.
        bar: told of each byte, those that an earlier process had fetched included.
        fetched_bytes: that came over the network.
    """

    volume: Path
    lock: BuilderLock
    bar: Bar
    fetched_bytes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def fetch_all(self, wanted: list[Wanted], jobs: int, on_done: Callable[[Wanted], None]) -> None:
        """Fetch files, `jobs` at a time, large ones first.

        Args:
            wanted: the files.
            jobs: how many at the same time.
            on_done: called on this thread for each file that is in its place.

        Raises:
            ModelMissing, ModelCorrupt, VolumeFull, Cancelled: for the first file that can't be had. What was fetched of
                the others stays for the next time, unless the volume is full: then everything half-made goes.
        """
        order = sorted(wanted, key=lambda item: -item.file.bytes)
        with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="livery-fetch") as pool:
            running = {pool.submit(self._fetch, item): item for item in order}
            try:
                self._collect(running, on_done)
            except VolumeFull:
                self._end(running)
                wait(running)
                self.drop_parts()
                raise
            finally:
                self._end(running)

    def _end(self, running: Iterable[Future[None]]) -> None:
        """Let nothing begin any more, and what runs come to its end soon."""
        self._stop.set()
        for future in running:
            future.cancel()

    def drop_parts(self) -> None:
        """Remove everything half-made."""
        for part in staging_of(self.volume).glob(f"*{PART}"):
            part.unlink(missing_ok=True)

    def part_bytes(self, wanted: Wanted) -> int:
        """How much of a file an earlier process had fetched."""
        return max((part.stat().st_size for part in self._parts(wanted)), default=0)

    @staticmethod
    def _collect(running: dict[Future[None], Wanted], on_done: Callable[[Wanted], None]) -> None:
        left = set(running)
        while left:
            done, left = wait(left, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                on_done(running[future])

    def _fetch(self, wanted: Wanted) -> None:
        with disk_faults():
            part = self._claim(wanted)
            resumed = part.exists() and part.stat().st_size > 0
            if not self._complete(wanted, part) and not (resumed and self._complete(wanted, part)):
                raise ModelCorrupt(f"the Hub sends other bytes for {wanted.file.path} of {wanted.row} than are pinned")
            self.lock.check()
            move_into_place(part, wanted.target)

    def _complete(self, wanted: Wanted, part: Path) -> bool:
        """Fetch what is missing. False, and nothing left, where the whole has another checksum."""
        with part.open("a+b") as file:
            growing = _Growing(file.fileno(), wanted.file.bytes)
            self.bar.update(growing.resume())
            attempt = 0
            while growing.size_bytes < wanted.file.bytes:
                before = growing.size_bytes
                try:
                    self._receive(wanted, growing)
                except BrokenOff as fault:
                    attempt = 0 if growing.size_bytes > before else attempt
                    patience(wanted.row, fault, attempt)
                    attempt += 1
            os.fsync(file.fileno())
        if growing.sha256 == wanted.file.sha256:
            return True
        self.bar.update(-growing.size_bytes)
        part.unlink()
        return False

    def _receive(self, wanted: Wanted, growing: _Growing) -> None:
        """Append what one request brings."""
        begin = growing.size_bytes
        with self._body(wanted, begin) as (found, blocks):
            if found != begin:
                self.bar.update(-begin)
                growing.restart()
            for block in blocks:
                self._check()
                taken = growing.append(block)
                self.bar.update(taken)
                with self._counting:
                    self.fetched_bytes += taken
                if taken < len(block):
                    return  # more than was pinned: the checksum will tell
        if growing.size_bytes < wanted.file.bytes:
            raise BrokenOff("the Hub breaks off in the middle of a file")

    @contextmanager
    def _body(self, wanted: Wanted, begin: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        self._check()
        with open_body(wanted.row, wanted.repo, wanted.revision, wanted.file.source_path, begin) as body:
            yield body

    def _check(self) -> None:
        if self._stop.is_set():
            raise Cancelled("another file could not be fetched")

    def _parts(self, wanted: Wanted) -> list[Path]:
        return list(staging_of(self.volume).glob(f"{wanted.stem}.*{PART}"))

    def _claim(self, wanted: Wanted) -> Path:
        """The half-made file, under our own name: the largest that an earlier builder left, or none yet."""
        own = staging_of(self.volume) / f"{wanted.stem}.{self.lock.owner}{PART}"
        left = sorted(self._parts(wanted), key=lambda part: part.stat().st_size)
        if left:
            left.pop().replace(own)
        for part in left:
            part.unlink()
        return own


class _Growing:
    """A file that is written from its end on, and hashed as it grows.

    Args:
        handle: open for reading and writing.
        limit_bytes: how large it may become.
    """

    def __init__(self, handle: int, limit_bytes: int) -> None:
        self._handle, self._limit_bytes = handle, limit_bytes
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def resume(self) -> int:
        """Take up what is there already. Returns how many bytes that is."""
        while block := os.pread(self._handle, _BLOCK_BYTES, self.size_bytes):
            self._digest.update(block)
            self.size_bytes += len(block)
        if self.size_bytes > self._limit_bytes:
            self.restart()
        return self.size_bytes

    def restart(self) -> None:
        """Begin again with an empty file."""
        os.ftruncate(self._handle, 0)
        self._digest, self.size_bytes = hashlib.sha256(), 0

    def append(self, block: bytes) -> int:
        """Write a block's beginning, as far as the limit allows. Returns how many bytes that was."""
        rest = memoryview(block)[: self._limit_bytes - self.size_bytes]
        taken = len(rest)
        self._digest.update(rest)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        self.size_bytes += taken
        return taken
