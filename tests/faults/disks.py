"""File systems so small that tests can fill them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A file system of its own."""

    folder: Path

    def fill(self, left_bytes: int) -> None:
        """Leave no more than so many bytes free."""
        state = os.statvfs(self.folder)
        (self.folder / "filling").write_bytes(bytes(max(state.f_bavail * state.f_frsize - left_bytes, 0)))

    def empty(self) -> None:
        """Take that back."""
        (self.folder / "filling").unlink()

    def names(self) -> set[str]:
        """Of all files but what it was filled with."""
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        return found - {"filling"}


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[Disk]:
    """A disk while the block runs; the test is skipped where nobody may make one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can make a small file system")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
