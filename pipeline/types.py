"""What travels between the phases: one frozen value for each arrow of the pipeline.

    JobInput → Photo → CleanPlate → Illustration → IndexMap → Tracing → Drawing → JobOutput

All pictures are C-contiguous numpy arrays, row first, `[H, W]` or `[H, W, 3]`, in the *working frame*: the upright
photo reduced (or enlarged) once on entry. After phase 3 no RGB value exists: an `IndexMap` holds indices into its
palette, so an off-palette colour can't be written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

UNPAINTED = 255
"""Index of a pixel that no ink covers (a removed background)."""

MIN_INKS, MAX_INKS = 2, 64

Phase = Literal["decode", "sanitize", "steer", "enforce", "vectorize", "export", "upload"]


@dataclass(frozen=True, slots=True)
class Warning:
    """One line of `report.warnings`: a stable snake_case code and a sentence for the caller."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Ink:
    """One palette colour.

    Attributes:
        hex: `#RRGGBB`, upper case, sRGB.
        name: the caller's name for it, or the hex value where none was given.
    """

    hex: str
    name: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """sRGB, 0 to 255 each."""
        return int(self.hex[1:3], 16), int(self.hex[3:5], 16), int(self.hex[5:7], 16)


@dataclass(frozen=True, slots=True)
class Palette:
    """2 to 64 distinct inks, in the caller's order."""

    inks: tuple[Ink, ...]

    def __len__(self) -> int:
        return len(self.inks)

    @property
    def hexes(self) -> tuple[str, ...]:
        return tuple(ink.hex for ink in self.inks)

    def rgb(self) -> U8:
        """uint8 [K, 3], sRGB."""
        return np.array([ink.rgb for ink in self.inks], dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open pixel box `[x0, x1) × [y0, y1)`."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area_px(self) -> int:
        return max(0, self.x1 - self.x0) * max(0, self.y1 - self.y0)


@dataclass(frozen=True, slots=True)
class Photo:
    """The decoded photo in the working frame.

    Attributes:
        rgb: uint8 [H, W, 3], sRGB, upright, opaque.
        source_width_px, source_height_px: size of the upright photo before the reduction; the frame of the request's
            boxes and points.
        sha256: of the encoded bytes, hex.
        warnings: what was substituted on the way (animation, alpha, a profile that could not be read).
    """

    rgb: U8
    source_width_px: int
    source_height_px: int
    sha256: str
    warnings: tuple[Warning, ...] = ()

    @property
    def width_px(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height_px(self) -> int:
        return int(self.rgb.shape[0])

    def to_frame(self, box: tuple[float, float, float, float]) -> Box:
        """A box of the upright photo as whole pixels of the working frame: grown outward, clipped."""
        sx, sy = self.width_px / self.source_width_px, self.height_px / self.source_height_px
        x0, y0, x1, y1 = box
        return Box(
            min(max(int(np.floor(x0 * sx)), 0), self.width_px - 1),
            min(max(int(np.floor(y0 * sy)), 0), self.height_px - 1),
            max(min(int(np.ceil(x1 * sx)), self.width_px), 1),
            max(min(int(np.ceil(y1 * sy)), self.height_px), 1),
        )


@dataclass(frozen=True, slots=True)
class Removed:
    """One region that phase 1 filled in. `box` is in pixels of the upright photo; `area_px` counts those pixels."""

    kind: str
    box: tuple[float, float, float, float]
    score: float | None
    area_px: int


@dataclass(frozen=True, slots=True)
class Vehicle:
    """The subject, as the studio engine found it in the working frame.

    Attributes:
        mask: bool [H, W].
        box: (x0, y0, x1, y1) in pixels, half open, of the mask.
        score: the detector's, 0 to 1; None where it was not asked.
        source: the request's hint that led to it.
    """

    mask: Mask
    box: tuple[float, float, float, float]
    score: float | None
    source: Literal["auto", "whole", "point", "box"]


@dataclass(frozen=True, slots=True)
class CleanPlate:
    """The photo without the things that phase 1 removed.

    Attributes:
        rgb: as in `Photo`.
        removed: what was filled in.
        vehicle: as it is in `rgb`; None from the draft engine, which does not look for it here.
    """

    rgb: U8
    removed: tuple[Removed, ...] = ()
    warnings: tuple[Warning, ...] = ()
    vehicle: Vehicle | None = None


@dataclass(frozen=True, slots=True)
class Illustration:
    """What phase 2 hands to phase 3.

    Attributes:
        rgb: uint8 [H, W, 3], sRGB, tone-mapped into the palette's range and smoothed, or a studio picture.
        importance: uint8 [H, W], 0 (ground, may be simplified hard) to 255 (subject).
        subject: uint8 [H, W], probability × 255 that the pixel belongs to the vehicle.
        subject_confidence: 0 to 1, how far `subject` can be trusted.
        lines: bool [H, W], line work to be drawn in the darkest ink, or None.
    """

    rgb: U8
    importance: U8
    subject: U8
    subject_confidence: float
    lines: Mask | None = None
    warnings: tuple[Warning, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexMap:
    """The palette guarantee as a type: `index` uint8 [H, W], each value < len(palette) or `UNPAINTED`."""

    index: U8
    palette: Palette

    def __post_init__(self) -> None:
        if self.index.dtype != np.uint8 or self.index.ndim != 2:
            raise TypeError("index must be uint8 [H, W]")
        painted = self.index[self.index != UNPAINTED]
        if painted.size and int(painted.max()) >= len(self.palette):
            raise ValueError("index names an ink outside the palette")

    @property
    def width_px(self) -> int:
        return int(self.index.shape[1])

    @property
    def height_px(self) -> int:
        return int(self.index.shape[0])


UNITS_PER_PX = 100
"""Outlines are held on a grid of 1/100 px: the integers that are written are the integers that were traced."""

POINTS_OF = {"M": 1, "L": 1, "C": 3, "A": 3, "Z": 0}
"""Points that each command of an outline takes."""

OUTSIDE = -1
"""The side of an edge that lies beyond the map's border."""


def _checked(commands: str, points: I32) -> None:
    if points.dtype != np.int32 or points.ndim != 2 or points.shape[1] != 2:
        raise TypeError("points must be int32 [N, 2]")
    if not commands.startswith("M") or sum(POINTS_OF[c] for c in commands) != len(points):
        raise ValueError("commands and points do not agree")


@dataclass(frozen=True, slots=True)
class Shape:
    """One filled outline.

    Attributes:
        ink: index into the palette.
        commands: one letter for each step: M (start), L (line), C (cubic Bézier curve), A (elliptical arc), Z (close).
            Each sub-outline is M, then L, C and A, then Z. Filled by the non-zero rule.
        points: int32 [N, 2], absolute x and y in 1/100 px of the index map, in the order in which the commands take
            them (`POINTS_OF`). A C takes its two handles and then its end. An A takes its two radii; then its x axis'
            turn from the map's, clockwise in 1/100 degree, with its flags (2 where it is the larger arc, plus 1 where
            it runs clockwise on the screen); then its end: the seven numbers of SVG's A.
    """

    ink: int
    commands: str
    points: I32

    def __post_init__(self) -> None:
        _checked(self.commands, self.points)

    @property
    def nodes(self) -> int:
        """Points on the outline: one for each command but Z."""
        return len(self.commands) - self.commands.count("Z")


@dataclass(frozen=True, slots=True)
class Edge:
    """One boundary between two regions, which no other edge repeats: what a knife follows once.

    Attributes:
        left, right: palette index on each side, seen along the edge with y downward; `UNPAINTED` where no ink lies
            there, `OUTSIDE` beyond the map. Equal only between two regions of one ink that touch at a corner.
        commands, points: as in `Shape`, of one outline: M, then L, C and A; with a Z where it returns to its start.
    """

    left: int
    right: int
    commands: str
    points: I32

    def __post_init__(self) -> None:
        _checked(self.commands, self.points)


@dataclass(frozen=True, slots=True)
class Tracing:
    """What a tracer makes of an `IndexMap`.

    Attributes:
        shapes: in painter's order.
        edges: each boundary once, the map's border included; empty where the tracer knows of none.
        primitives: how many circles, ellipses, arcs and straight lines it recognised, by those names.
    """

    shapes: tuple[Shape, ...]
    edges: tuple[Edge, ...] = ()
    primitives: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Certificate:
    """How true a drawing is to its map, measured on what was drawn.

    Attributes:
        tolerance_px: how far an outline was allowed to leave the map's.
        agreement_pct: pixels whose centre shows their own label (or nothing, where unpainted), 0 to 100.
        nodes, paths: of the shapes.
        primitives: as in `Tracing`.
        min_feature_px: width of the narrowest place that was asked for, None where none was.
    """

    tolerance_px: float
    agreement_pct: float
    nodes: int
    paths: int
    primitives: Mapping[str, int] = field(default_factory=dict)
    min_feature_px: float | None = None


@dataclass(frozen=True, slots=True)
class InkUse:
    """Paths and nodes that one ink takes in a drawing."""

    paths: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """The vector illustration.

    Attributes:
        svg: UTF-8 text, root `<svg>` with a viewBox of `width_px` × `height_px`.
        tracing: the outlines that `svg` and every other format is written from.
        certificate: measured on them; None where the tracer states no tolerance.
        uses: what each palette index takes; inks without a path are absent.
    """

    svg: str
    width_px: int
    height_px: int
    tracing: Tracing = Tracing(())
    certificate: Certificate | None = None
    uses: Mapping[int, InkUse] = field(default_factory=dict)
    warnings: tuple[Warning, ...] = ()

    @property
    def paths(self) -> int:
        return sum(use.paths for use in self.uses.values())

    @property
    def nodes(self) -> int:
        return sum(use.nodes for use in self.uses.values())
