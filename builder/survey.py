"""`builder plan`, `status` and `verify`: what a command would do, what is there, and whether it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from builder.choice import Choice
from builder.hashing import damaged
from builder.report import Report
from builder.volume import SPARE_BYTES, in_units, staging_of
from models.pins import LOCK_NAME, Pin, PinnedFile, effective_pins, read_lock
from models.registry import Row, row_named
from models.store import (
    MODELS_FOLDER,
    NONCOMMERCIAL_HINT,
    Manifest,
    Store,
    check_pin,
    folder_of,
    is_commercial,
    read_manifest,
)
from pipeline.errors import ModelCorrupt, ModelMissing


def plan(volume: Path, choice: Choice, report: Report) -> None:
    """What `warm` would fetch, from where, under which licence, and whether the disk has room for it.

    Raises:
        ModelCorrupt: a lock is damaged.
    """
    pins = effective_pins(volume)
    rows = choice.rows(read_lock(volume / LOCK_NAME))
    needed_bytes = 0
    for row in rows:
        pin = pins.get(row.name)
        left_bytes = None if pin is None else _bytes_to_fetch(volume, row, pin)
        needed_bytes += 0 if left_bytes is None else left_bytes
        commercial = is_commercial(row, pin)
        report.rows.append(
            {
                "name": row.name,
                "state": "unpinned" if left_bytes is None else "to fetch" if left_bytes else "there",
                "slot": row.slot,
                "repo": row.repo if pin is None else pin.repo,
                "revision": None if pin is None else pin.revision,
                "licence": row.licence if pin is None or pin.licence is None else pin.licence,
                "commercial": commercial,
                "modes": list(row.modes),
                "dtype": row.dtype,
                "vram_mb": row.vram_mb,
                "files": len(row.files),
                "bytes": None if pin is None else pin.bytes,
                "bytes_to_fetch": left_bytes,
            }
        )
        if pin is None:
            report.faults.append(f"{row.name} is not pinned: builder pin, or warm --pin")
        if not commercial and not choice.allow_noncommercial:
            report.faults.append(f"the licence of {row.name} allows no commercial work; {NONCOMMERCIAL_HINT}")
    free_bytes = _free_bytes(volume)
    if needed_bytes + SPARE_BYTES > free_bytes:
        report.faults.append(f"{in_units(needed_bytes)} are to be fetched, but {in_units(free_bytes)} are free")
    vram_mb = {mode: sum(row.vram_mb for row in rows if mode in row.modes) for mode in choice.modes}
    report.totals |= {"bytes_to_fetch": needed_bytes, "free_bytes": free_bytes, "weights_vram_mb": vram_mb}
    report.lines += [
        f"to fetch: {in_units(needed_bytes)}; free: {in_units(free_bytes)}",
        *(f"weights in GPU memory, {mode}: {megabytes} MiB" for mode, megabytes in vram_mb.items()),
    ]


def status(volume: Path, choice: Choice, report: Report) -> None:
    """What is there, by sizes alone; not content where a row that is needed can't be used.

    Raises:
        ModelCorrupt: the manifest or a lock is damaged.
    """
    store, manifest, pins = (
        Store(volume, choice.allow_noncommercial, "size"),
        read_manifest(volume),
        effective_pins(volume),
    )
    listed = {} if manifest is None else manifest.rows
    wanted = [row.name for row in choice.rows(read_lock(volume / LOCK_NAME))]
    for name in dict.fromkeys((*wanted, *listed)):
        state, revision, size_bytes = "ready", None, None
        if name in listed:
            revision, size_bytes = listed[name].revision, sum(file.bytes for file in listed[name].files)
        try:
            store.files(name)
        except (ModelMissing, ModelCorrupt) as fault:
            state = "missing" if isinstance(fault, ModelMissing) else "damaged"
            report.faults.append(f"{name}: {fault.message}")
        report.rows.append(
            {"name": name, "state": state, "revision": revision, "bytes": size_bytes, "pinned": name in pins}
        )
    unused_bytes, half_bytes = _unused_bytes(volume, manifest), _size_of([staging_of(volume)])
    report.totals |= {
        "kind": None if manifest is None else manifest.kind,
        "free_bytes": _free_bytes(volume),
        "unused_bytes": unused_bytes,
        "half_fetched_bytes": half_bytes,
    }
    report.lines.append(
        f"kind: {report.totals['kind']}; free: {in_units(report.totals['free_bytes'])}; "
        f"half fetched: {in_units(half_bytes)}; of other revisions: {in_units(unused_bytes)}"
    )


def verify(volume: Path, choice: Choice, report: Report, *, jobs: int) -> None:
    """Hash every file that the manifest lists, and compare with it and with the pins. Changes nothing.

    Raises:
        ModelMissing: there is no manifest.
        ModelCorrupt: the manifest or a lock is damaged.
    """
    manifest, pins = read_manifest(volume), effective_pins(volume)
    if manifest is None:
        raise ModelMissing("the volume holds no models; builder warm fetches them")
    files: list[tuple[str, Path, PinnedFile]] = []
    states = dict.fromkeys(manifest.rows, "whole")
    for name, listed in manifest.rows.items():
        row = row_named(name)
        try:
            if manifest.kind == "hub":
                check_pin(row, listed, pins.get(name), allow_noncommercial=True)
        except (ModelMissing, ModelCorrupt) as fault:
            states[name] = "not as pinned"
            report.faults.append(f"{name}: {fault.message}")
        files += [(name, folder_of(volume, name, listed.revision) / file.path, file) for file in listed.files]
    for damage in damaged(files, jobs):
        states[damage.row] = "damaged"
        report.faults.append(f"{damage.row}: {damage.name}: {_WORDS[damage.fault]}; warm --recheck fetches it again")
    needed = {row.name for row in choice.rows(read_lock(volume / LOCK_NAME))} - set(manifest.rows)
    report.faults += [f"{name}: not on the volume" for name in sorted(needed)]
    report.rows += [
        {"name": name, "state": states[name], "revision": listed.revision, "bytes": sum(f.bytes for f in listed.files)}
        for name, listed in manifest.rows.items()
    ]
    report.totals |= {"kind": manifest.kind, "files": len(files), "bytes": sum(file.bytes for _, _, file in files)}
    report.lines.append(f"{len(files)} files, {in_units(report.totals['bytes'])} read, kind: {manifest.kind}")


_WORDS = {"missing": "is not there", "size": "has another size", "sha256": "has another checksum"}


def _bytes_to_fetch(volume: Path, row: Row, pin: Pin) -> int:
    folder = folder_of(volume, row.name, pin.revision)
    return sum(file.bytes for file in pin.files if _size_of([folder / file.path]) != file.bytes)


def _free_bytes(volume: Path) -> int:
    place = volume.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _unused_bytes(volume: Path, manifest: Manifest | None) -> int:
    """What lies under `models/` that the manifest doesn't list: other revisions, other rows."""
    used = set() if manifest is None else {folder_of(volume, name, row.revision) for name, row in manifest.rows.items()}
    return _size_of(folder for folder in (volume / MODELS_FOLDER).glob("*/*") if folder not in used)


def _size_of(places: Iterable[Path]) -> int:
    """Bytes of files, and of all in folders; what is not there has none."""
    total = 0
    for place in places:
        if place.is_file():
            total += place.stat().st_size
        for parent, _, names in os.walk(place):
            total += sum(Path(parent, name).stat().st_size for name in names)
    return total
