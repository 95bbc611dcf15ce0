"""The volume: what a builder has put there, and what a worker may read of it.

    <volume>/manifest.json                     what is there, whole: written after the files that it lists
    <volume>/lock.json                         pins of rows that the package's lock doesn't pin
    <volume>/models/<row>/<revision>/<path>    the files, at the paths that they have in their repository

Files under `models/` are moved there whole and never written again. What builders need besides (half-fetched files, the
lock among builders) lies in `<volume>/staging/`, which no worker reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.files import ModelFiles
from models.pins import FORMAT, Pin, PinnedFile, effective_pins, entry_of, listed_rows, read_object
from models.reading import ReadAhead, Reads, Wanted
from models.registry import Mode, Row, row_named, rows_of
from models.requests import Check, unchecked
from pipeline.errors import ModelCorrupt, ModelMissing

Kind = Literal["hub", "tiny", "random"]

MANIFEST_NAME = "manifest.json"
MODELS_FOLDER = "models"
NONCOMMERCIAL_HINT = "set LIVERY_ALLOW_NONCOMMERCIAL=true where that is right"

_WEIGHTS = (".safetensors", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a manifest: what the builder put on the volume.

    Attributes:
        revision: 40 hex digits: the Hub's, or of random weights the digest of their checksums.
        files: all of them.
    """

    revision: str
    files: tuple[PinnedFile, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a volume holds.

    Attributes:
        kind: `hub`: the published weights. `tiny`, `random`: random ones, small or of full size, for tests.
        rows: by name.
    """

    kind: Kind
    rows: Mapping[str, Listed] = field(default_factory=dict)

    def as_document(self) -> dict[str, object]:
        """As `read_manifest` reads it."""
        rows = {
            name: {"revision": listed.revision, "files": [entry_of(file) for file in listed.files]}
            for name, listed in sorted(self.rows.items())
        }
        return {"format": FORMAT, "kind": self.kind, "rows": rows}


def read_manifest(volume: Path) -> Manifest | None:
    """The manifest of a volume; None where there is none.

    Raises:
        ModelCorrupt: it is damaged.
    """
    what = "the volume's manifest"
    document = read_object(volume / MANIFEST_NAME, what)
    if document is None:
        return None
    kind = document.get("kind")
    if kind not in {"hub", "tiny", "random"}:
        raise ModelCorrupt(f"{what} is damaged")
    return Manifest(kind, {name: Listed(*entry) for name, entry in listed_rows(document, what).items()})


def folder_of(volume: Path, name: str, revision: str) -> Path:
    """Where the files of a row lie."""
    return volume / MODELS_FOLDER / name / revision


def is_commercial(row: Row, pin: Pin | None) -> bool:
    """Whether a row's licence allows commercial work; of what the deployment chose, its pin says so."""
    return row.commercial if pin is None or pin.commercial is None else pin.commercial


@dataclass(frozen=True, slots=True)
class Store:
    """A volume, as workers see it. Reads it anew with every call, so that a builder's work shows at once.

    Attributes:
        volume: its folder.
        allow_noncommercial: whether rows may be used whose licence forbids commercial work.
        verify: what is checked of a file before it is used: its size, or its checksum as well.
        reads: how much was read of models' files.
        ahead: reads them before they are asked for.
    """

    volume: Path
    allow_noncommercial: bool = False
    verify: Literal["size", "sha256"] = "sha256"
    reads: Reads = field(default_factory=Reads, compare=False)
    ahead: ReadAhead = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ahead", ReadAhead(self.reads))

    @property
    def kind(self) -> Kind | None:
        """What kind of weights the volume holds; None where it holds none.

        Raises:
            ModelCorrupt: its manifest is damaged.
        """
        manifest = read_manifest(self.volume)
        return None if manifest is None else manifest.kind

    def holds(self, name: str) -> bool:
        """Whether the manifest lists a row. That it can be used as well, `files` finds out.

        Raises:
            ModelCorrupt: the manifest is damaged.
        """
        manifest = read_manifest(self.volume)
        return manifest is not None and name in manifest.rows

    def revisions(self) -> dict[str, str]:
        """The revision of each row that the manifest lists, by name.

        Raises:
            ModelCorrupt: the manifest is damaged.
        """
        manifest = read_manifest(self.volume)
        return {} if manifest is None else {name: listed.revision for name, listed in manifest.rows.items()}

    def files(self, name: str, ask: Check = unchecked) -> ModelFiles:
        """The files of a row, their sizes checked, and the checksums of those that a library reads itself.

        The checksums of the others are checked as they are read.

        Args:
            name: of the row.
            ask: called while any of them is read, now and later; what it raises ends the reading.

        Raises:
            ModelMissing: they are not there, not pinned, at another revision, or may not be used commercially.
            ModelCorrupt: a file is of another size, or has another checksum; or manifest or lock are damaged.
        """
        listed = self._usable(row_named(name), read_manifest(self.volume), effective_pins(self.volume))
        sha256 = {file.path: file.sha256 for file in listed.files} if self.verify == "sha256" else {}
        folder = folder_of(self.volume, name, listed.revision)
        files = ModelFiles(name, listed.revision, folder, sha256, self.reads, self.ahead, ask)
        for path in sha256:
            if not path.endswith(_WEIGHTS):
                files.check(path)
        return files

    def weights(self, folders: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[Wanted, ...]:
        """The weight files of rows, for reading them ahead. What the volume lacks is left out, not refused.

        Args:
            folders: name of a row, and what the paths begin with.

        Raises:
            ModelCorrupt: the manifest is damaged.
        """
        manifest, found = read_manifest(self.volume), dict[Path, Wanted]()
        for name, inside in folders:
            listed = None if manifest is None else manifest.rows.get(name)
            if listed is None:
                continue
            for file in listed.files:
                if file.path.endswith(_WEIGHTS) and file.path.startswith(inside):
                    path = folder_of(self.volume, name, listed.revision) / file.path
                    found[path] = Wanted(path, file.bytes, self.verify == "sha256")
        return tuple(found.values())

    def missing(self, modes: Iterable[Mode]) -> tuple[str, ...]:
        """Names of the rows that these modes need and that can't be used. Cheap: no file's content is read.

        Raises:
            ModelCorrupt: the manifest or a lock is damaged.
        """
        manifest, pins = read_manifest(self.volume), effective_pins(self.volume)
        return tuple(row.name for row in rows_of(modes) if not self._can_use(row, manifest, pins))

    def _can_use(self, row: Row, manifest: Manifest | None, pins: Mapping[str, Pin]) -> bool:
        try:
            self._usable(row, manifest, pins)
        except (ModelMissing, ModelCorrupt):
            return False
        return True

    def _usable(self, row: Row, manifest: Manifest | None, pins: Mapping[str, Pin]) -> Listed:
        """What the manifest lists of a row, found to agree with its pin and with what is there."""
        if manifest is None or row.name not in manifest.rows:
            raise ModelMissing(f"the volume doesn't hold {row.name}; builder warm fetches it")
        listed = manifest.rows[row.name]
        if manifest.kind == "hub":
            check_pin(row, listed, pins.get(row.name), allow_noncommercial=self.allow_noncommercial)
        if [file.path for file in listed.files] != list(row.files):
            raise ModelMissing(f"the volume holds other files of {row.name} than are needed; run the builder again")
        for file in listed.files:
            check_size(row.name, folder_of(self.volume, row.name, listed.revision) / file.path, file.bytes)
        return listed


def check_pin(row: Row, listed: Listed, pin: Pin | None, *, allow_noncommercial: bool) -> None:
    """Refuse what is not pinned, is there at another revision, or may not be used.

    Raises:
        ModelMissing: it is so.
        ModelCorrupt: the manifest's checksums are others than the pin's.
    """
    if pin is None:
        raise ModelMissing(f"{row.name} is not pinned to a revision; builder pin does that")
    if not allow_noncommercial and not is_commercial(row, pin):
        raise ModelMissing(f"the licence of {row.name} allows no commercial work; {NONCOMMERCIAL_HINT}")
    if listed.revision != pin.revision:
        raise ModelMissing(f"the volume holds another revision of {row.name} than is pinned; run builder warm")
    if listed.files != pin.files:
        raise ModelCorrupt(f"the volume's manifest has other checksums of {row.name} than are pinned")


def check_size(name: str, path: Path, size_bytes: int) -> None:
    """Refuse a file that is not there or of another size.

    Raises:
        ModelMissing, ModelCorrupt: it is so.
    """
    try:
        found_bytes = path.stat().st_size
    except OSError:
        raise ModelMissing(f"the volume lacks a file of {name}; run builder warm") from None
    if found_bytes != size_bytes:
        raise ModelCorrupt(f"a file of {name} is {found_bytes} bytes long, not {size_bytes}")
