"""`builder pin`: revisions, sizes and checksums from the Hub into a lock file. Nothing else ever writes one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from builder.choice import PERMISSIVE, Choice
from builder.hub import of_choice, pin_row
from builder.report import Report
from builder.volume import write_whole
from models.pins import LOCK_NAME, PACKAGE_LOCK, Pin, lock_text, read_lock
from models.registry import STYLE_LORA, Row


def pin_rows(rows: Iterable[Row], choice: Choice, report: Report) -> dict[str, Pin]:
    """Each row at the newest revision of its repository.

    A line of the report tells where the Hub states another licence than the registry.

    Raises:
        ModelMissing, ModelCorrupt: one can't be pinned.
    """
    pins = {}
    for row in rows:
        pin, licence = pin_row(row, choice.source(row))
        if row.repo is None:
            pin = of_choice(pin, licence, commercial=licence is not None and licence.lower() in PERMISSIVE)
        elif licence is not None and not _same_licence(licence, row.licence):
            report.lines.append(f"note: the Hub states {licence!r} for {row.name}, the registry {row.licence}")
        pins[row.name] = pin
        report.rows.append(
            {"name": row.name, "state": "pinned", "repo": pin.repo, "revision": pin.revision, "bytes": pin.bytes}
        )
    return pins


def pin_volume(volume: Path, choice: Choice, report: Report, *, update: bool) -> None:
    """Pin into the volume's lock what neither it nor the package pins; with `update` all that the package doesn't.

    The volume's builder lock must be held.

    Raises:
        ModelMissing, ModelCorrupt, VolumeFull: a row can't be pinned, or the lock can't be written.
    """
    own, path = read_lock(volume / LOCK_NAME), volume / LOCK_NAME
    packaged = read_lock(PACKAGE_LOCK)
    rows = [row for row in choice.rows(own) if row.name not in packaged and _is_due(row, own, choice, update=update)]
    if rows:
        write_whole(volume, path, lock_text(own | pin_rows(rows, choice, report)).encode())


def pin_file(path: Path, choice: Choice, report: Report, *, update: bool) -> None:
    """The same into a lock file anywhere, such as the package's own.

    Raises:
        ModelMissing, ModelCorrupt: a row can't be pinned.
        OSError: the file can't be written.
    """
    own = read_lock(path)
    rows = [row for row in choice.rows(own) if _is_due(row, own, choice, update=update)]
    if rows:
        text = lock_text(own | pin_rows(rows, choice, report))
        partial = path.with_name(f".{path.name}.part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


def _is_due(row: Row, own: Mapping[str, Pin], choice: Choice, *, update: bool) -> bool:
    if row.name == STYLE_LORA and choice.style_lora is not None:
        return True  # it may name another one than is pinned
    return row.name not in own or (update and row.repo is not None)


def _same_licence(hub: str, registry: str) -> bool:
    """`openrail++` is how the Hub calls OpenRAIL++-M."""
    return hub.lower().removesuffix("-m") == registry.lower().removesuffix("-m")
