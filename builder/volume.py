"""Writing to a volume: whole files or none, on the disk before they are seen, and one clear error where it is full."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.store import MANIFEST_NAME, Manifest
from pipeline.errors import LiveryError, ModelMissing, VolumeFull

STAGING_FOLDER = "staging"
SPARE_BYTES = 64 << 20
"""Left free on the volume beyond what is fetched: manifests, and whoever else writes there."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def staging_of(volume: Path) -> Path:
    """Where half-made files lie: on the volume itself, so that a finished one only has to be renamed."""
    return volume / STAGING_FOLDER


@contextmanager
def disk_faults() -> Iterator[None]:
    """Says of a failed write whether the volume is full.

    Raises:
        VolumeFull: it is, or the writer's share of it is.
        ModelMissing: it can't be written for another reason.
    """
    try:
        yield
    except OSError as fault:
        raise _disk_fault(fault) from None


def _disk_fault(fault: OSError) -> LiveryError:
    if fault.errno in _FULL:
        return VolumeFull(f"the volume is full: {fault.strerror}")
    return ModelMissing(f"the volume can't be written: {fault.strerror}")


def require_space(volume: Path, needed_bytes: int) -> None:
    """Refuse to begin what would not fit.

    Raises:
        VolumeFull: fewer bytes are free than are needed.
    """
    free_bytes = shutil.disk_usage(volume).free
    if needed_bytes + SPARE_BYTES > free_bytes:
        raise VolumeFull(
            f"{in_units(needed_bytes)} are still to be written (and {in_units(SPARE_BYTES)} are kept free), "
            f"but the volume has {in_units(free_bytes)} left"
        )


def write_whole(volume: Path, path: Path, content: bytes) -> None:
    """Write a small file so that readers see the old one or the new one, and a crash leaves one of them.

    Raises:
        VolumeFull, ModelMissing: it can't be written.
    """
    partial = staging_of(volume) / f"{path.name}.{uuid.uuid4().hex}.tmp"
    with disk_faults():
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            move_into_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def move_into_place(partial: Path, path: Path) -> None:
    """Rename a file or folder whose content is on the disk, and put the renaming there too.

    Raises:
        OSError: it can't be renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as fault:
        if fault.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems have no such thing
            raise
    finally:
        os.close(handle)


def write_manifest(volume: Path, manifest: Manifest) -> None:
    """Say what the volume holds.

    Raises:
        VolumeFull, ModelMissing: it can't be written.
    """
    write_whole(volume, volume / MANIFEST_NAME, (json.dumps(manifest.as_document(), indent=1) + "\n").encode())


def in_units(size_bytes: int) -> str:
    """A size as people read it, in decimal units as disks are sold."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
