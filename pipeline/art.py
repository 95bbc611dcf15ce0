"""What the studio engine's models made of a photo, before any ink: kept, it is re-inked without running a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.paint import Painted
from pipeline.types import U8, Removed, Warning


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
    def bytes(self) -> int:
        """What keeping it takes."""
        return self.painted.rgb.nbytes + self.painted.subject.nbytes
