"""A volume's folder of models: what its manifest lists against what lies there, by names and sizes alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from models.registry import MODES, rows_of
from models.store import MODELS_FOLDER, Kind, folder_of, read_manifest

MOST_FILES = 10_000
"""Files after which the search for unexpected ones ends: a volume that others fill as well must not hold up a reply."""


@dataclass(frozen=True, slots=True)
class Tree:
    """How a volume differs from its manifest. Paths are relative to the volume, with `/`, in their order.

    Attributes:
        kind: of weights; None where there is no manifest.
        revisions: of each row that the manifest lists, by name.
        unlisted: rows that a mode of the studio engine needs and the manifest doesn't list.
        missing: files that it lists and that are not there.
        resized: files of another size than it lists.
        unexpected: files in the folder of the models that it doesn't list.
    """

    kind: Kind | None
    revisions: dict[str, str]
    unlisted: tuple[str, ...]
    missing: tuple[str, ...]
    resized: tuple[str, ...]
    unexpected: tuple[str, ...]


def survey_tree(volume: Path) -> Tree:
    """Compare a volume with its manifest. No file's content is read but the manifest's.

    Raises:
        ModelCorrupt: the manifest is damaged.
        OSError: a folder can't be read.
    """
    manifest = read_manifest(volume)
    rows = {} if manifest is None else dict(sorted(manifest.rows.items()))
    listed = {
        folder_of(volume, name, row.revision) / file.path: file.bytes
        for name, row in rows.items()
        for file in row.files
    }
    found = {path: _size_bytes(path) for path in listed}
    return Tree(
        kind=None if manifest is None else manifest.kind,
        revisions={name: row.revision for name, row in rows.items()},
        unlisted=tuple(row.name for row in rows_of(MODES) if row.name not in rows),
        missing=_shown(volume, (path for path in listed if found[path] is None)),
        resized=_shown(volume, (path for path in listed if found[path] not in {None, listed[path]})),
        unexpected=_shown(volume, (path for path in _files(volume / MODELS_FOLDER) if path not in listed)),
    )


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _shown(volume: Path, paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted(path.relative_to(volume).as_posix() for path in paths))


def _files(folder: Path) -> Iterator[Path]:
    """At most `MOST_FILES` of the files in a folder and its folders; none where it isn't there."""
    paths = (Path(inner) / name for inner, _, names in os.walk(folder, onerror=_unless_absent) for name in names)
    return islice(paths, MOST_FILES)


def _unless_absent(fault: OSError) -> None:
    if not isinstance(fault, FileNotFoundError):
        raise fault
