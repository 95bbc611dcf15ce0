"""`builder warm`: the models that are wanted, from the Hub onto the volume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.choice import Choice, refuse_noncommercial, refuse_unpinned
from builder.fetch import Fetcher, Wanted
from builder.hashing import damaged
from builder.lease import BuilderLock
from builder.pin import pin_volume
from builder.report import Report, SharedBar
from builder.volume import disk_faults, in_units, require_space, write_manifest
from models.pins import LOCK_NAME, Pin, effective_pins, read_lock
from models.registry import Row
from models.store import Kind, Listed, Manifest, folder_of, read_manifest
from pipeline.errors import ModelMissing


@dataclass(slots=True)
class _Progress:
    """Files that rows still lack; a row enters the manifest with its last one."""

    volume: Path
    lock: BuilderLock
    manifest: Manifest
    pins: Mapping[str, Pin]
    left: dict[str, set[str]] = field(default_factory=dict)

    def done(self, wanted: Wanted) -> None:
        lacking = self.left[wanted.row]
        lacking.discard(wanted.file.path)
        if not lacking:
            self.enter([wanted.row])

    def enter(self, names: Iterable[str]) -> None:
        """List rows that are whole."""
        whole = {name: Listed(self.pins[name].revision, self.pins[name].files) for name in names}
        if any(self.manifest.rows.get(name) != listed for name, listed in whole.items()):
            self._write({**self.manifest.rows, **whole})

    def strike(self, names: Iterable[str]) -> None:
        """Take rows off the list, so that no worker reads what is found damaged."""
        gone = set(names)
        if gone & set(self.manifest.rows):
            self._write({name: listed for name, listed in self.manifest.rows.items() if name not in gone})

    def _write(self, rows: Mapping[str, Listed]) -> None:
        self.manifest = Manifest(self.manifest.kind, rows)
        self.lock.check()
        write_manifest(self.volume, self.manifest)


def warm(
    volume: Path, lock: BuilderLock, choice: Choice, report: Report, *, pin: bool, recheck: bool, jobs: int
) -> None:
    """Fetch what the volume lacks of the chosen rows.

    Args:
        volume: its folder.
        lock: held.
        choice: which rows.
        report: receives a row for each, and the sums.
        pin: whether rows without a pin are pinned first.
        recheck: whether files that the manifest lists are hashed again, rather than believed by their size.
        jobs: files that are fetched at the same time.

    Raises:
        ModelMissing: a row is not pinned, not allowed, or can't be had from the Hub.
        ModelCorrupt: the Hub sends something else than was pinned.
        VolumeFull: there is no room. Nothing half-made is left behind.
        Cancelled: another builder took over.
    """
    manifest = manifest_of(volume, "hub")
    if pin:
        pinned = Report("pin")
        pin_volume(volume, choice, pinned, update=False)
        report.lines += pinned.lines
    pins, rows = effective_pins(volume), choice.rows(read_lock(volume / LOCK_NAME))
    refuse_unpinned(rows, pins)
    refuse_noncommercial(rows, pins, allowed=choice.allow_noncommercial)
    progress = _Progress(volume, lock, manifest, pins)
    wanted = _wanted(volume, rows, progress, jobs, recheck=recheck)
    with SharedBar("fetching", sum(item.file.bytes for item in wanted)) as bar:
        fetcher = Fetcher(volume, lock, bar)
        if lock.took_over:
            fetcher.drop_parts()  # their owner may still be writing to them
        with disk_faults():
            require_space(volume, sum(max(item.file.bytes - fetcher.part_bytes(item), 0) for item in wanted))
        fetcher.fetch_all(wanted, jobs, progress.done)
        fetcher.drop_parts()
    names = {item.row for item in wanted}
    report.rows += [
        {"name": row.name, "state": "fetched" if row.name in names else "there", "bytes": pins[row.name].bytes}
        for row in rows
    ]
    report.totals |= {"fetched_files": len(wanted), "fetched_bytes": fetcher.fetched_bytes}
    report.lines.append(f"{len(wanted)} files fetched, {in_units(fetcher.fetched_bytes)} over the network")


def manifest_of(volume: Path, kind: Kind) -> Manifest:
    """The volume's manifest, or an empty one of that kind.

    Raises:
        ModelMissing: the volume holds weights of another kind.
        ModelCorrupt: the manifest is damaged.
    """
    manifest = read_manifest(volume)
    if manifest is None:
        return Manifest(kind)
    if manifest.kind != kind:
        raise ModelMissing(f"this volume holds {manifest.kind} weights, and kinds don't mix; use another folder")
    return manifest


def _wanted(volume: Path, rows: Iterable[Row], progress: _Progress, jobs: int, *, recheck: bool) -> list[Wanted]:
    """The files that are not there, or not what they must be. Rows that lack none enter the manifest."""
    doubtful: dict[Path, Wanted] = {}
    wanted = []
    for row in rows:
        pin = progress.pins[row.name]
        folder = folder_of(volume, row.name, pin.revision)
        listed = progress.manifest.rows.get(row.name) == Listed(pin.revision, pin.files)
        for file in pin.files:
            item = Wanted(row.name, pin.repo, pin.revision, file, folder / file.path)
            if not _has_size(item):
                wanted.append(item)
            elif recheck or not listed:
                doubtful[item.target] = item
    checks = [(item.row, item.target, item.file) for item in doubtful.values()]
    wanted += [doubtful[damage.path] for damage in damaged(checks, jobs)]
    lacking = {item.row for item in wanted}
    progress.left = {name: {item.file.path for item in wanted if item.row == name} for name in lacking}
    progress.strike(lacking)
    progress.enter(row.name for row in rows if row.name not in lacking)
    return wanted


def _has_size(item: Wanted) -> bool:
    try:
        return item.target.stat().st_size == item.file.bytes
    except OSError:
        return False
