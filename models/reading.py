"""Whole files off a network volume: when they are asked for, or ahead of that, while something else is computed.

A file is read in one pass, in blocks and several of them at a time, and never mapped into memory. Over a network file
system a mapped file is fetched page by page, which takes 20 times as long, and one stream gets a part only of what
several get together. What is read is hashed meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from models.requests import Check, unchecked
from models.weights import BadWeights
from pipeline.types import U8

T = TypeVar("T")

STREAMS = 8
"""Blocks of a file that are read at the same time."""

BLOCK_BYTES = 1 << 22
"""Read at once by a stream. A load that is called off waits for the blocks under way, so they are small: 32 MiB in all,
which a volume of 200 MB/s gives in a sixth of a second."""

BLOCKS_AHEAD = 2 * STREAMS
"""Read, or about to be, before they are hashed."""

ASKED_S = 0.1
"""Longest time that a wait keeps a load from asking whether it should go on, in seconds."""


@dataclass(frozen=True, slots=True)
class Read:
    """A file's bytes, uint8 [n], and their sha256 as 64 hex digits; None where it was not asked for."""

    data: U8
    sha256: str | None


@dataclass(slots=True)
class Reads:
    """How much was read of a volume since the process began; a file that is read twice counts twice.

    Attributes:
        files, bytes: that were read.
        ahead: of those files, how many were read before they were asked for, and then used.
        spent_s: what reading took, file by file, whether or not anybody waited for it.
        waited_s: how long whoever asked for a file waited for it.
    """

    files: int = 0
    bytes: int = 0
    ahead: int = 0
    spent_s: float = 0.0
    waited_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def note(self, size_bytes: int) -> None:
        """Count a file of that size."""
        with self._lock:
            self.files += 1
            self.bytes += size_bytes

    def note_ahead(self, spent_s: float) -> None:
        """Count what reading a file took that nobody has asked for yet."""
        with self._lock:
            self.spent_s += spent_s

    def note_asked(self, waited_s: float, *, ahead: bool) -> None:
        """Count a wait for a file, and whether it was there when it was asked for, or on its way; else it was read."""
        with self._lock:
            self.ahead += ahead
            self.waited_s += waited_s
            if not ahead:
                self.spent_s += waited_s

    def since(self, before: Reads) -> Reads:
        """What was read after `before`."""
        return Reads(
            self.files - before.files,
            self.bytes - before.bytes,
            self.ahead - before.ahead,
            self.spent_s - before.spent_s,
            self.waited_s - before.waited_s,
        )

    def now(self) -> Reads:
        """A copy."""
        return self.since(Reads())


def read_whole(path: Path, *, hashing: bool, ask: Check = unchecked) -> Read:
    """A file's bytes, read in blocks by `STREAMS` threads, and hashed in order by this one while they read on.

    Args:
        path: of the file.
        hashing: whether the checksum is wanted.
        ask: called for each block and at least every `ASKED_S`, on this thread; what it raises ends the reading as
            soon as the blocks under way are there.

    Raises:
        OSError: it can't be read.
        BadWeights: it became shorter meanwhile.
    """
    buffer, digest = np.empty(path.stat().st_size, np.uint8), hashlib.sha256()
    ahead: deque[tuple[Future[None], memoryview]] = deque()

    def take_first() -> None:
        read, block = ahead.popleft()
        result_of(read, ask)
        if hashing:
            digest.update(block)

    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(max_workers=STREAMS) as streams:
        try:
            for at in range(0, len(buffer), BLOCK_BYTES):
                block = buffer.data[at : at + BLOCK_BYTES]
                ahead.append((streams.submit(_fill, file.fileno(), block, at), block))
                if len(ahead) == BLOCKS_AHEAD:
                    take_first()
            while ahead:
                take_first()
        finally:
            streams.shutdown(wait=False, cancel_futures=True)  # what has not begun; `with` waits for the rest
    return Read(buffer, digest.hexdigest() if hashing else None)


def _fill(descriptor: int, block: memoryview, at: int) -> None:
    while len(block):
        count = os.preadv(descriptor, [block], at)
        if not count:
            raise BadWeights
        block, at = block[count:], at + count


def result_of(work: Future[T], ask: Check) -> T:
    """What `work`, done on another thread, gives or raises.

    Args:
        ask: called while it is waited for, at least every `ASKED_S`; what it raises ends the wait.
    """
    ask()
    while wait([work], timeout=ASKED_S).not_done:
        ask()
    return work.result()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that will be asked for: its size, and whether its checksum will be."""

    path: Path
    bytes: int
    hashing: bool


class _Ended(Exception):
    """Nobody waits any more for what is being read ahead."""


class ReadAhead:
    """Reads files on a thread of its own, in the order given, and holds each until it is taken.

    It never knows better than whoever asks: a file that it could not read is one that it has not read.

    Args:
        reads: where what is read is counted.
    """

    def __init__(self, reads: Reads | None = None) -> None:
        self._reads = Reads() if reads is None else reads
        self._changed = threading.Condition()
        self._wanted: deque[Wanted] = deque()
        self._under_way: Path | None = None
        self._held: dict[Path, Read] = {}
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def begin(self, wanted: Iterable[Wanted], most_bytes: int) -> None:
        """Read from now on. Ends what was begun before.

        Args:
            wanted: in the order that they will be asked for.
            most_bytes: held at one moment; a larger file is left to whoever asks for it.
        """
        self.end()
        self._wanted.extend(one for one in wanted if one.bytes <= most_bytes)
        if self._wanted:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, args=(most_bytes,), name="livery-ahead", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Stop reading, and drop what nobody took. Waits for the blocks under way."""
        self._ended.set()
        with self._changed:
            self._wanted.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._held.clear()

    def take(self, path: Path, ask: Check = unchecked) -> Read | None:
        """A file that was read, once, or that is being read; None where the caller has to read it.

        Args:
            path: of the file.
            ask: called while it is being read; what it raises ends the wait.
        """
        with self._changed:
            self._wanted = deque(one for one in self._wanted if one.path != path)
            while self._under_way == path:
                ask()
                self._changed.wait(ASKED_S)
            read = self._held.pop(path, None)
            self._changed.notify_all()  # there is room
        return read

    def _run(self, most_bytes: int) -> None:
        while (one := self._next(most_bytes)) is not None:
            read = None
            try:
                read = self._read(one)
            finally:
                with self._changed:
                    self._under_way = None
                    if read is not None:
                        self._held[one.path] = read
                    self._changed.notify_all()

    def _next(self, most_bytes: int) -> Wanted | None:
        """The file to read now that there is room for it; None at the end."""
        with self._changed:
            while self._wanted:
                if sum(len(read.data) for read in self._held.values()) + self._wanted[0].bytes <= most_bytes:
                    self._under_way = self._wanted[0].path
                    return self._wanted.popleft()
                self._changed.wait()
        return None

    def _read(self, one: Wanted) -> Read | None:
        began_s = time.perf_counter()
        try:
            read = read_whole(one.path, hashing=one.hashing, ask=self._go_on)
        except (OSError, MemoryError, BadWeights, _Ended):
            return None  # whoever needs it meets the same, and says so
        self._reads.note(len(read.data))
        self._reads.note_ahead(time.perf_counter() - began_s)
        return read

    def _go_on(self) -> None:
        if self._ended.is_set():
            raise _Ended
