"""`builder tiny` and `builder random`: a volume of random weights, for tests and for timing, laid out as a real one.

Its manifest says what kind it is, and workers refuse it unless they are told to take it. Random weights have no
revision on the Hub; theirs is the SHA-1 of their files' names, checksums and sizes: other content, another revision.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from builder.choice import Choice
from builder.hashing import sha256_of
from builder.lease import BuilderLock
from builder.report import Report, SharedBar
from builder.volume import disk_faults, move_into_place, require_space, staging_of, write_manifest
from builder.warm import manifest_of
from builder.writers import write_row
from models.pins import PinnedFile
from models.registry import Row
from models.store import Listed, Manifest, folder_of

_MIB = 1 << 20
_TINY_MB = 2
_FULL_MB: Mapping[str, int] = {
    "grounding-dino-base": 888,
    "sam-vit-huge": 1223,
    "big-lama": 195,
    "depth-anything-v2-small": 48,
    "zoedepth": 659,
    "sdxl-base": 6460,
    "sdxl-vae-fp16-fix": 320,
    "controlnet-depth-sdxl": 2387,
    "controlnet-canny-sdxl": 2387,
    "controlnet-union-promax": 2397,
    "sdxl-lightning-4step": 376,
    "style-lora": 44,
    "realesrgan-x4plus-anime": 18,
}
"""MiB that a row's files take on the disk. On a GPU it can be less: the decoder's file holds an encoder as well, and is
in single precision."""


def synthesise(
    volume: Path, lock: BuilderLock, choice: Choice, report: Report, *, kind: Literal["tiny", "random"], seed: int
) -> None:
    """Write the chosen rows with random weights.

    Args:
        volume: its folder.
        lock: held.
        choice: which rows.
        report: receives a row for each, with its number of parameters.
        kind: `tiny`: a few hundred kB each. `random`: of full size.
        seed: the same seed, the same bytes.

    Raises:
        ModelMissing: the volume holds weights of another kind.
        VolumeFull: there is no room.
    """
    manifest, rows = manifest_of(volume, kind), choice.rows()
    with disk_faults():
        require_space(volume, sum(_disk_bytes(row, kind) for row in rows))
        for row in rows:
            listed, parameters = _write(volume, lock, row, kind, seed)
            lock.check()
            manifest = Manifest(kind, {**manifest.rows, row.name: listed})
            write_manifest(volume, manifest)
            report.rows.append(
                {
                    "name": row.name,
                    "state": "written",
                    "revision": listed.revision,
                    "bytes": sum(file.bytes for file in listed.files),
                    "parameters": parameters,
                }
            )


def _disk_bytes(row: Row, kind: Literal["tiny", "random"]) -> int:
    """What a row's files take at the most."""
    return (_TINY_MB if kind == "tiny" else _FULL_MB[row.name]) * _MIB


def _write(volume: Path, lock: BuilderLock, row: Row, kind: Literal["tiny", "random"], seed: int) -> tuple[Listed, int]:
    """One row's files in their place, what the manifest lists of them, and the number of their parameters."""
    folder = staging_of(volume) / f"{row.name}.{lock.owner}.new"
    try:
        parameters = write_row(row, folder, "tiny" if kind == "tiny" else "full", _seed_of(row, seed))
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        if found != sorted(row.files):
            raise ValueError(f"the writer of {row.name} wrote other files than the registry lists: {found}")
        files = tuple(_listed_file(folder, path) for path in row.files)
        taken = sum(file.bytes for file in files)
        if taken > _disk_bytes(row, kind):
            raise AssertionError(f"{row.name} takes {taken} bytes, more than room was asked for")
        listed = Listed(revision_of(files), files)
        target = folder_of(volume, row.name, listed.revision)
        if not target.exists():  # else the same bytes were written before
            move_into_place(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return listed, parameters


def _seed_of(row: Row, seed: int) -> int:
    """One for each row: two of one shape with the same values could be taken for each other unseen."""
    return int.from_bytes(hashlib.sha256(f"{seed} {row.name}".encode()).digest()[:4], "big")


def revision_of(files: tuple[PinnedFile, ...]) -> str:
    """A revision for content that the Hub doesn't know: 40 hex digits that depend on nothing but these files."""
    lines = "".join(f"{file.path}\0{file.sha256}\0{file.bytes}\n" for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha1(lines.encode(), usedforsecurity=False).hexdigest()


def _listed_file(folder: Path, name: str) -> PinnedFile:
    """A file's checksum and size, once it is on the disk."""
    path = folder / name
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    with SharedBar(f"hashing {name}", path.stat().st_size) as bar:
        return PinnedFile(name, sha256_of(path, bar), path.stat().st_size)
