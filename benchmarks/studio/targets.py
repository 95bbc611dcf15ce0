"""What the studio engine should take on the devices that it was designed for, and whether a row does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.clock import Row

_SMALLER = "2048 px map"
_MIB_OF_GIB = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A limit on one figure of the rows of one name.

    Attributes:
        row: its name.
        figure: of the row: seconds, MiB or a number; of what has a length, that.
        most: that the figure may be.
        ratio: what `most` comes to beside the floor; None where none was counted.
    """

    row: str
    figure: str
    most: float
    ratio: float | None = None

    def verdict(self, row: Row) -> Row | None:
        """What a row of that name says of it; None where it has no such figure."""
        value = row.get(self.figure)
        if value is None:
            return None
        measured = len(value) if isinstance(value, Mapping) else value
        return {
            "figure": self.figure,
            "target": self.most,
            "target_ratio": self.ratio,
            "measured": measured,
            "of_target": round(measured / self.most, 2) if self.most else None,
            "met": measured <= self.most,
        }


_ON_ANY = (
    Target(f"job fast, {_SMALLER}", "vram_peak_mb", 16 * _MIB_OF_GIB),
    Target(f"job faithful, {_SMALLER}", "vram_peak_mb", 21 * _MIB_OF_GIB),
    *(
        target
        for mode in ("fast", "faithful")
        for target in (
            Target(f"first job {mode}", "p50_s", 15.0),
            Target(f"second job {mode}", "loads", 0),
            Target(f"second job {mode}", "files_read", 0),
        )
    ),
)

TARGETS: Mapping[str, tuple[Target, ...]] = {
    "H100": (
        Target(f"phase 1 fast, {_SMALLER}", "p50_s", 0.045, 3.9),
        Target(f"phase 1 faithful, {_SMALLER}", "p50_s", 0.045, 3.9),
        Target("matte, depth, Canny", "p50_s", 0.025),
        Target("core fast", "p50_s", 0.150, 2.3),
        Target("core faithful", "p50_s", 2.1, 2.3),
        Target(f"phase 3 fast, {_SMALLER}", "p50_s", 0.075, 4.7),
        Target(f"phase 3 faithful, {_SMALLER}", "p50_s", 0.075, 4.7),
        Target(f"job fast, {_SMALLER}", "p50_s", 0.80),
        Target(f"job faithful, {_SMALLER}", "p50_s", 2.75),
        *_ON_ANY,
    ),
    "RTX 5090": (
        Target(f"phase 1 fast, {_SMALLER}", "p50_s", 0.090, 2.1),
        Target(f"phase 1 faithful, {_SMALLER}", "p50_s", 0.090, 2.1),
        Target("matte, depth, Canny", "p50_s", 0.040),
        Target("core fast", "p50_s", 0.300, 1.22),
        Target("core faithful", "p50_s", 4.2, 1.2),
        Target(f"phase 3 fast, {_SMALLER}", "p50_s", 0.110, 1.8),
        Target(f"phase 3 faithful, {_SMALLER}", "p50_s", 0.110, 1.8),
        Target(f"job fast, {_SMALLER}", "p50_s", 1.05),
        Target(f"job faithful, {_SMALLER}", "p50_s", 5.0),
        *_ON_ANY,
    ),
}
"""By what the device's name contains: warm, one picture of 1024 × 1024 px whose silhouette passes at once, weights on a
local disk. A core is all steps and the decoding; a job ends with an SVG and a PNG 2048 px wide."""


def targets_of(device: str) -> tuple[Target, ...]:
    """Those of a device; none where it has none."""
    return next((targets for name, targets in TARGETS.items() if name in device), ())


def verdicts(device: str, row: Row) -> list[Row]:
    """What a row of a device says of its targets. A volume that was slowed is not the one that they are for."""
    if row.get("paced_mb_s") is not None:
        return []
    found = (target.verdict(row) for target in targets_of(device) if target.row == row["name"])
    return [verdict for verdict in found if verdict is not None]
