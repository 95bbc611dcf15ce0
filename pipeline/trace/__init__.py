"""Tracers: an index map becomes outlines.

A tracer is any function of this package that takes an `IndexMap` and gives `Shape`s in painter's order. The SVG writer
knows nothing else of it, so one tracer can take another's place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNITS_PER_PX = 100
"""Outlines are held on a grid of 1/100 px: the integers that are written are the integers that were traced."""

I32 = npt.NDArray[np.int32]

POINTS_OF = {"M": 1, "L": 1, "C": 3, "Z": 0}
"""Points that each command of an outline takes."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One filled outline.

    Attributes:
        ink: index into the palette.
        commands: one letter for each step: M (start), L (line), C (cubic Bézier curve), Z (close). Each sub-outline is
            M, then L and C, then Z. Filled by the non-zero rule.
        points: int32 [N, 2], absolute x and y in 1/100 px of the index map, in the order in which the commands take
            them (`POINTS_OF`): a C takes its two handles and then its end.
    """

    ink: int
    commands: str
    points: I32

    def __post_init__(self) -> None:
        if self.points.dtype != np.int32 or self.points.ndim != 2 or self.points.shape[1] != 2:
            raise TypeError("points must be int32 [N, 2]")
        if not self.commands.startswith("M") or sum(POINTS_OF[c] for c in self.commands) != len(self.points):
            raise ValueError("commands and points do not agree")

    @property
    def nodes(self) -> int:
        """Points on the outline: one for each command but Z."""
        return len(self.commands) - self.commands.count("Z")
