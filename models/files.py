"""One model's files on the volume, as its loader reads them.

Weights are read in one pass, in blocks and several of them at a time, and never mapped into memory. Over a network file
system a mapped file is fetched page by page, which takes 20 times as long, and one stream gets a part only of what
several get together. What is read is hashed meanwhile, and refused where it is not what was pinned.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.requests import Check, unchecked
from models.weights import BadWeights, tensors_in
from pipeline.errors import ModelCorrupt, ModelMissing
from pipeline.types import U8

if TYPE_CHECKING:
    import torch

STREAMS = 8
"""Blocks of a file that are read at the same time."""

BLOCK_BYTES = 1 << 22
"""Read at once by a stream. A load that is called off waits for the blocks under way, so they are small: 32 MiB in all,
which a volume of 200 MB/s gives in a sixth of a second."""

BLOCKS_AHEAD = 2 * STREAMS
"""Read, or about to be, before they are hashed."""

ASKED_S = 0.1
"""Longest time that a slow block keeps a load from asking whether it should go on, in seconds."""


@dataclass(slots=True)
class Reads:
    """How much was read of a volume.

    Attributes:
        files, bytes: since the process began; a file that is read twice counts twice.
    """

    files: int = 0
    bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def note(self, size_bytes: int) -> None:
        """Count a file of that size."""
        with self._lock:
            self.files += 1
            self.bytes += size_bytes


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one row of the registry, at its pinned revision.

    Attributes:
        name: of the row, for messages.
        revision: 40 hex digits.
        folder: where the files lie, at the paths that they have in their repository.
        sha256: the checksums, 64 hex digits by path, that files must have as they are read; none is checked of a file
            that is not named.
        reads: where what is read is counted.
        ask: called while a file is read; what it raises ends the reading.
    """

    name: str
    revision: str
    folder: Path
    sha256: Mapping[str, str] = field(default_factory=dict)
    reads: Reads = field(default_factory=Reads, compare=False)
    ask: Check = field(default=unchecked, compare=False)

    def path(self, name: str) -> Path:
        """Where one small file lies, for a library that reads it itself: a tokenizer's table."""
        path = self.folder / name
        if not path.is_file():
            raise ModelMissing(f"the volume lacks a file of {self.name}")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """A configuration.

        Raises:
            ModelMissing, ModelCorrupt: it is not there, has another checksum than its own, or is no JSON object.
        """
        try:
            value = json.loads(self._read(name).tobytes())
        except ValueError:
            raise ModelCorrupt(f"a configuration of {self.name} is damaged") from None
        if not isinstance(value, dict):
            raise ModelCorrupt(f"a configuration of {self.name} is damaged")
        return value

    def tensors(self, *names: str) -> dict[str, torch.Tensor]:
        """The tensors of one or more weight files, on the CPU, in the dtype that they were stored in.

        `.safetensors` files hold nothing but tensors; of any other only tensors are unpickled (`weights_only`), so that
        a file can't run code.

        Raises:
            ModelMissing, ModelCorrupt: a file is not there, is cut short, has another checksum than its own, or holds
                something else than tensors.
        """
        merged: dict[str, torch.Tensor] = {}
        for name in names:
            merged |= self._tensors(name)
        return merged

    def check(self, name: str) -> None:
        """Read a file for its checksum alone.

        Raises:
            ModelMissing, ModelCorrupt: it is not there, or has another one than its own.
        """
        self._read(name)

    def _tensors(self, name: str) -> Mapping[str, torch.Tensor]:
        try:
            return tensors_in(name, self._read(name))
        except BadWeights:
            raise ModelCorrupt(f"a weight file of {self.name} is damaged, or holds more than tensors") from None

    def _read(self, name: str) -> U8:
        expected = self.sha256.get(name)
        try:
            data, found = read_whole(self.path(name), hashing=expected is not None, ask=self.ask)
        except OSError as fault:
            raise ModelMissing(f"a file of {self.name} can't be read from the volume: {fault.strerror}") from None
        except BadWeights:
            raise ModelCorrupt(f"a file of {self.name} was cut short while it was read") from None
        self.reads.note(len(data))
        if found != expected:
            raise ModelCorrupt(f"a file of {self.name} does not have its pinned checksum; builder verify names it")
        return data


def read_whole(path: Path, *, hashing: bool, ask: Check = unchecked) -> tuple[U8, str | None]:
    """A file's bytes, read in blocks by `STREAMS` threads, and hashed in order by this one while they read on.

    Args:
        path: of the file.
        hashing: whether the checksum is wanted.
        ask: called for each block and at least every `ASKED_S`, on this thread; what it raises ends the reading as
            soon as the blocks under way are there.

    Returns:
        The bytes, uint8 [n], and their sha256 as 64 hex digits, or None where it was not asked for.

    Raises:
        OSError: it can't be read.
        BadWeights: it became shorter meanwhile.
    """
    buffer, digest = np.empty(path.stat().st_size, np.uint8), hashlib.sha256()
    ahead: deque[tuple[Future[None], memoryview]] = deque()

    def take_first() -> None:
        read, block = ahead.popleft()
        _await(read, ask)
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
    return buffer, digest.hexdigest() if hashing else None


def _fill(descriptor: int, block: memoryview, at: int) -> None:
    while len(block):
        count = os.preadv(descriptor, [block], at)
        if not count:
            raise BadWeights
        block, at = block[count:], at + count


def _await(read: Future[None], ask: Check) -> None:
    ask()
    while wait([read], timeout=ASKED_S).not_done:
        ask()
    read.result()
