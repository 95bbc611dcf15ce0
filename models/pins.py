"""Pins: which revision of a model's repository is used, and the size and checksum of each of its files.

They stand in lock files, as `builder pin` writes them from the Hub: `models/lock.json` in this package, and `lock.json`
beside a volume's manifest for the rows that the package doesn't pin.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.registry import REGISTRY, Row
from pipeline.errors import ModelCorrupt

FORMAT = 1
PACKAGE_LOCK = Path(__file__).with_name("lock.json")
LOCK_NAME = "lock.json"

_REVISION = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file at a revision.

    Attributes:
        path: where it lies on the volume, within its model's folder.
        sha256: 64 hex digits.
        bytes: its size.
        source: its path in the repository, where that is another one.
    """

    path: str
    sha256: str
    bytes: int
    source: str | None = None

    @property
    def source_path(self) -> str:
        """Its path in the repository."""
        return self.path if self.source is None else self.source


@dataclass(frozen=True, slots=True)
class Pin:
    """One row at a revision.

    Attributes:
        repo: owner and name on the Hub.
        revision: 40 hex digits.
        files: all that the row names, in its order.
        licence, commercial: of what the deployment chose; None where the registry's row says it.
    """

    repo: str
    revision: str
    files: tuple[PinnedFile, ...]
    licence: str | None = None
    commercial: bool | None = None

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


def read_lock(path: Path) -> dict[str, Pin]:
    """The pins of a lock file, by the row's name; none where there is no such file.

    Raises:
        ModelCorrupt: it is no lock file, or pins what the registry doesn't know.
    """
    document = read_object(path, "the lock of the models")
    if document is None:
        return {}
    rows = {row.name: row for row in REGISTRY}
    pins = {}
    for name, entry in _rows_in(document, "the lock of the models").items():
        if name not in rows:
            raise ModelCorrupt("the lock of the models names a model that the registry doesn't know")
        pins[name] = parse_pin(rows[name], entry)
    return pins


def effective_pins(volume: Path) -> dict[str, Pin]:
    """The package's pins, and the volume's for rows that the package doesn't pin.

    Raises:
        ModelCorrupt: one of the two is damaged.
    """
    return read_lock(volume / LOCK_NAME) | read_lock(PACKAGE_LOCK)


def lock_text(pins: Mapping[str, Pin]) -> str:
    """What `read_lock` reads back as these pins."""
    rows: dict[str, Any] = {}
    for row in REGISTRY:
        if row.name in pins:
            rows[row.name] = pin_entry(pins[row.name])
    return json.dumps({"format": FORMAT, "rows": rows}, indent=1) + "\n"


def read_object(path: Path, what: str) -> dict[str, Any] | None:
    """A file's JSON object of our format; None where there is no such file.

    Args:
        path: of the file.
        what: it is, for the message.

    Raises:
        ModelCorrupt: it is damaged, or of a format that this version doesn't know.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        raise ModelCorrupt(f"{what} can't be read") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelCorrupt(f"{what} is of another format than {FORMAT}")
    return document


def _rows_in(document: dict[str, Any], what: str) -> dict[str, Any]:
    rows = document.get("rows")
    if not isinstance(rows, dict):
        raise ModelCorrupt(f"{what} is damaged")
    return rows


def listed_rows(document: dict[str, Any], what: str) -> dict[str, tuple[str, tuple[PinnedFile, ...]]]:
    """Revision and files of each row that a manifest lists.

    Raises:
        ModelCorrupt: it is damaged.
    """
    listed = {}
    for name, entry in _rows_in(document, what).items():
        if not isinstance(entry, dict) or not _matches(_REVISION, entry.get("revision")):
            raise ModelCorrupt(f"{what} is damaged at {name[:40]}")
        listed[name] = entry["revision"], _files_from(entry, f"{what} at {name[:40]}")
    return listed


def entry_of(file: PinnedFile) -> dict[str, str | int]:
    """A file as lock and manifest write it."""
    entry: dict[str, str | int] = {"path": file.path, "sha256": file.sha256, "bytes": file.bytes}
    return entry if file.source is None else {**entry, "source": file.source}


def pin_entry(pin: Pin) -> dict[str, Any]:
    """A pin as a lock writes it."""
    entry: dict[str, Any] = {"repo": pin.repo, "revision": pin.revision}
    if pin.licence is not None:
        entry |= {"licence": pin.licence, "commercial": pin.commercial}
    return {**entry, "files": [entry_of(file) for file in pin.files]}


def parse_pin(row: Row, entry: Any) -> Pin:
    """A row's pin from its entry in a lock.

    Raises:
        ModelCorrupt: it is damaged, or pins another repository or other files than the row's.
    """
    what = f"the lock of {row.name}"
    if not isinstance(entry, dict) or not isinstance(entry.get("repo"), str):
        raise ModelCorrupt(f"{what} is damaged")
    if row.repo is not None and entry["repo"] != row.repo:
        raise ModelCorrupt(f"{what} is of another repository than {row.repo}")
    if not _matches(_REVISION, entry.get("revision")):
        raise ModelCorrupt(f"{what} has no revision of 40 hex digits")
    files = _files_from(entry, what)
    if [file.path for file in files] != list(row.files):
        raise ModelCorrupt(f"{what} lists other files than the registry")
    licence, commercial = entry.get("licence"), entry.get("commercial")
    if not isinstance(licence, str | None) or not isinstance(commercial, bool | None):
        raise ModelCorrupt(f"{what} is damaged")
    return Pin(entry["repo"], entry["revision"], files, licence, commercial)


def _files_from(entry: dict[str, Any], what: str) -> tuple[PinnedFile, ...]:
    listed = entry.get("files")
    if not isinstance(listed, list) or not all(isinstance(file, dict) for file in listed):
        raise ModelCorrupt(f"{what} is damaged")
    files = []
    for file in listed:
        path, sha256, size, source = (file.get(key) for key in ("path", "sha256", "bytes", "source"))
        if not _matches(_SHA256, sha256):
            raise ModelCorrupt(f"{what} has a file without a sha256 of 64 hex digits")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ModelCorrupt(f"{what} has a file without a size")
        if not isinstance(path, str) or not isinstance(source, str | None):
            raise ModelCorrupt(f"{what} is damaged")
        files.append(PinnedFile(path, sha256, size, source))
    return tuple(files)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
