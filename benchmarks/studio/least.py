"""What a piece of work takes at least, and how large each network is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.floor import Floor


@dataclass(frozen=True, slots=True)
class Least:
    """What can't be left out of a piece of work.

    Attributes:
        tflop: 10^12 floating-point operations, a multiplication and an addition counted as two.
        gigabytes: 10^9 bytes read and written.
    """

    tflop: float = 0.0
    gigabytes: float = 0.0

    def floor_s(self, floor: Floor) -> float | None:
        """Seconds on a device of those rates; None where nothing was counted."""
        seconds = max(self.tflop / floor.tflops, self.gigabytes / floor.copy_gb_s)
        return seconds if seconds > 0 else None


NOT_COUNTED = Least()

TFLOP: Mapping[str, float] = {
    "GroundingDINO": 1.26,
    "SAM encoder": 5.96,
    "LaMa": 0.44,
    "depth": 0.12,
    "UNet": 6.76,
    "ControlNet-Union": 3.43,
    "ControlNet": 3.02,
    "VAE decoder": 10.47,
    "core fast": 51.5,
    "core faithful": 730.0,
    "RRDBNet": 11.97,
    "phase 1": 8.98,
    "job fast": 75.7,
    "job faithful": 803.0,
}
"""Counted from the networks' configurations, for one picture of 1024 × 1024 px, without guidance: for LaMa a crop of
512 px, for GroundingDINO 1200 × 800 px, for depth 518 px. A core is all steps and the decoding."""

PARAMETERS_M: Mapping[str, tuple[float, ...]] = {
    "detector": (232,),
    "segmenter": (641,),
    "inpainter": (51,),
    "depth estimator": (24.8,),
    "prompt encoder": (123, 695),
    "decoder": (50,),
    "fast painter": (2567, 1258),
    "faithful painter": (2567, 1251, 1251),
    "upscaler": (4.5,),
}
"""Of the published networks of each unit (`models.units`), in millions, in the unit's order."""

PARAMETERS_WITHIN = 0.02
"""The table's numbers are rounded."""
