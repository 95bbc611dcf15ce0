"""What the studio engine's models made of a photo, before any ink: kept, it is re-inked without running a model."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError

from pipeline.cache import Cache, EntryName
from pipeline.kept import Kept
from pipeline.paint import Attempt, Painted
from pipeline.schema import Strict
from pipeline.types import U8, Removed, Warning

_LEVEL = 1  # of zlib: a painting is packed to two thirds in a tenth of a second, and higher levels gain little


@dataclass(frozen=True, slots=True)
class Art:
    """A painted vehicle.

    Attributes:
        painted: free of any palette; as it was painted, or enlarged.
        removed: what phase 1 took off.
        revisions: name of each model that had a part in it → revision.
        warnings: of both phases.
    """

    painted: Painted
    removed: tuple[Removed, ...]
    revisions: Mapping[str, str]
    warnings: tuple[Warning, ...]

    def enlarged(self, rgb: U8, revisions: Mapping[str, str]) -> Art:
        """The same with its picture as the upscaler made it, of these revisions."""
        return replace(self, painted=self.painted.enlarged(rgb), revisions={**self.revisions, **revisions})

    @property
    def size_bytes(self) -> int:
        """What keeping it takes in memory."""
        return self.painted.rgb.nbytes + self.painted.subject.nbytes

    def to_bytes(self) -> bytes:
        """A line of JSON; then the picture's samples and the subject's bits, packed by zlib."""
        rgb = np.ascontiguousarray(self.painted.rgb)
        height_px, width_px = rgb.shape[:2]
        head = _Head(
            width_px=width_px,
            height_px=height_px,
            iou=self.painted.iou,
            attempts=self.painted.attempts,
            painting_warnings=self.painted.warnings,
            removed=self.removed,
            revisions=dict(self.revisions),
            warnings=self.warnings,
        )
        samples = zlib.compress(rgb.tobytes() + np.packbits(self.painted.subject).tobytes(), _LEVEL)
        return b"\n".join((head.model_dump_json().encode(), samples))

    @classmethod
    def from_bytes(cls, data: bytes) -> Art | None:
        """What `to_bytes` wrote; None where it can't have."""
        text, _, samples = data.partition(b"\n")
        try:
            head = _Head.model_validate_json(text)
        except ValidationError:
            return None
        pixels = head.width_px * head.height_px
        unpacked = _unpacked(samples, 3 * pixels + -(-pixels // 8))
        if unpacked is None:
            return None
        rgb = unpacked[: 3 * pixels].reshape(head.height_px, head.width_px, 3)
        subject = np.unpackbits(unpacked[3 * pixels :], count=pixels).reshape(rgb.shape[:2]).astype(bool)
        painted = Painted(rgb, subject, head.iou, head.attempts, head.painting_warnings)
        return cls(painted, head.removed, head.revisions, head.warnings)


_Side = Annotated[int, Field(ge=1, le=4096)]


class _Head(Strict):
    width_px: _Side
    height_px: _Side
    iou: float | None
    attempts: tuple[Attempt, ...]
    painting_warnings: tuple[Warning, ...]
    removed: tuple[Removed, ...]
    revisions: dict[str, str]
    warnings: tuple[Warning, ...]


def _unpacked(packed: bytes, size_bytes: int) -> U8 | None:
    """uint8 [size_bytes]; None where `packed` holds anything else. Never unpacks more than that."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, size_bytes + 1)
    except zlib.error:
        return None
    whole = len(data) == size_bytes and unpacker.eof and not unpacker.unused_data
    return np.frombuffer(data, np.uint8).copy() if whole else None


@dataclass(frozen=True, slots=True)
class Gallery:
    """Art of recent photos: in this process's memory, and as it was painted in the cache's folder too.

    What was enlarged is in memory only: it is up to 16 times as large, and one quick model makes it again.

    Attributes:
        cache: None where nothing is kept in a folder.
    """

    cache: Cache | None = None
    memory: Kept[Art] = field(default_factory=Kept)

    def painted(self, name: EntryName) -> Art | None:
        """As it was painted; None where it isn't there any more."""
        art = self.memory.get(name.file)
        if art is None and self.cache is not None and (art := self.cache.get(name, Art.from_bytes)) is not None:
            self.memory.put(name.file, art, art.size_bytes)
        return art

    def enlarged(self, name: EntryName) -> Art | None:
        """Enlarged; None where it isn't there any more."""
        return self.memory.get(name.file)

    def keep_painted(self, name: EntryName, art: Art) -> Warning | None:
        """Keep what was painted. Where the folder can't take it the job is none the worse, and the warning says so."""
        self.memory.put(name.file, art, art.size_bytes)
        return None if self.cache is None else self.cache.put(name, art.to_bytes())

    def keep_enlarged(self, name: EntryName, art: Art) -> None:
        """Keep what was enlarged."""
        self.memory.put(name.file, art, art.size_bytes)

    def purge(self, photo: str) -> int:
        """Let go of what is in memory of a photo, not in the folder. Returns how many pictures those were."""
        return self.memory.drop(photo)
