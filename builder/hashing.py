"""Hashing what lies on a volume, several files at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from builder.report import SharedBar
from models.pins import PinnedFile

BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not what it must be.

    Attributes:
        row: name of its row.
        path: where it lies.
        name: its path within the row's folder.
        fault: `missing`, `size` or `sha256`.
    """

    row: str
    path: Path
    name: str
    fault: str


def damaged(files: Sequence[tuple[str, Path, PinnedFile]], jobs: int) -> list[Damage]:
    """Which of these files are missing, of another size, or have another checksum.

    Args:
        files: name of the row, place, and what must be there.
        jobs: files that are read at the same time.
    """
    with (
        SharedBar("checking", sum(file.bytes for _, _, file in files)) as bar,
        ThreadPoolExecutor(max_workers=jobs) as pool,
    ):
        found = pool.map(lambda item: (item, _fault_of(item[1], item[2], bar)), files)
        return [Damage(row, path, file.path, fault) for (row, path, file), fault in found if fault is not None]


def _fault_of(path: Path, file: PinnedFile, bar: SharedBar) -> str | None:
    try:
        if path.stat().st_size != file.bytes:
            return "size"
        return None if sha256_of(path, bar) == file.sha256 else "sha256"
    except OSError:
        return "missing"


def sha256_of(path: Path, bar: SharedBar) -> str:
    """A file's checksum, 64 hex digits.

    Raises:
        OSError: it can't be read.
    """
    digest, block = hashlib.sha256(), bytearray(BLOCK_BYTES)
    view = memoryview(block)
    with path.open("rb", buffering=0) as opened:
        while count := opened.readinto(block):
            digest.update(view[:count])
            bar.update(count)
    return digest.hexdigest()
