"""What the studio engine's models made of a photo, before any ink: kept, it is re-inked without running a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.paint import Painted
from pipeline.types import Removed, Warning


@dataclass(frozen=True, slots=True)
class Art:
    """A painted vehicle.

    Attributes:
        painted: free of any palette, enlarged where that was asked for.
        removed: what phase 1 took off.
        revisions: name of each model that had a part in it → revision.
        warnings: of both phases, and of what memory made them give up.
    """

    painted: Painted
    removed: tuple[Removed, ...]
    revisions: Mapping[str, str]
    warnings: tuple[Warning, ...]

    @property
    def bytes(self) -> int:
        """What keeping it takes."""
        return self.painted.rgb.nbytes + self.painted.subject.nbytes
