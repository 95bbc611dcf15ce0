"""Outlines as DXF, in millimetres, for cutters and plotters.

Two dialects of Autodesk's ASCII exchange format: R12 (AC1009) with nothing but polylines, which the oldest cutter
reads, and R2000 (AC1015) with the curves themselves. Group codes after Autodesk's "DXF Reference". The bytes hold no
date and no identifier of their own, so the same drawing always gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pipeline.colour import delta_e, srgb_to_lab
from pipeline.export.svg import slug
from pipeline.types import F64, I32, OUTSIDE, POINTS_OF, U8, UNITS_PER_PX, UNPAINTED, Drawing, Palette

if TYPE_CHECKING:
    from ezdxf.layouts.layout import Modelspace

I64 = npt.NDArray[np.int64]
Spot = tuple[float, float]

CHORD_MM = 0.01
CHORD_PX = 0.05
"""How far a chord may lie from its curve in R12: the larger of the two. No cutter is more precise than the first, and
nothing was traced more precisely than the second."""

CUT_LAYER = "CUT"
CUT_COLOUR = 1
"""ACI red, which laser and drag-knife software takes for a cut."""

R12_NAME_CHARS = 31
R2000_NAME_CHARS = 255

HALF_SLACK_UNITS = 2.0
"""How far the radius of half a circle or ellipse may miss half the chord, since both are whole 1/100 px."""

_TAKEN_NAMES = frozenset({"0", "defpoints"})
"""Layers with a meaning of their own: blocks inherit from the first, and the second is never plotted."""

_NOT_IN_A_NAME = re.compile('[<>/\\\\":;?*|=`,^\x00-\x1f\x7f-\x9f\ud800-\udfff\U00010000-\U0010ffff]')
"""What AutoCAD refuses in a layer's name, controls, and what its `\\U+XXXX` (four digits) has no way to write."""

_ARC_GROUPS = 3


def write_dxf(
    drawing: Drawing, palette: Palette, *, width_mm: float, curves: bool = False, single_cut: bool = False
) -> bytes:
    """`drawing` as an ASCII DXF, `width_mm` wide, its lower left corner at the origin and y upward.

    Each ink that is used has one layer by its name (upper-case ASCII in R12), coloured with the nearest AutoCAD colour
    index by CIEDE2000; R2000 knows no true colours. Every sub-outline of every shape is closed and lies on its ink's
    layer. Shapes that were traced to be stacked overlap: abutting ones suit a knife better.

    Args:
        width_mm: width of the whole map; a millimetre is the file's unit ($INSUNITS 4).
        curves: False writes R12 with closed POLYLINEs, whose chords stay within 0.01 mm or 0.05 px of the curves,
            whichever is larger. True writes R2000: an outline is a CIRCLE, an ELLIPSE, an LWPOLYLINE (lines, and
            circular arcs as bulges) or a cubic SPLINE (Bézier curves, with lines as straight spans); only where it
            mixes these it is cut, into pieces that meet in the same written numbers. A spline that returns to its start
            is clamped there and not flagged closed, since readers take the flag for a periodic one.
        single_cut: True writes the boundaries between regions instead, each once, on one layer "CUT": between two inks,
            between an ink and an unpainted place, and along the map's border. A border with no ink on either side
            isn't cut.

    Raises:
        ValueError: `width_mm` is not a positive number, or `single_cut` is asked of a tracing without edges.
    """
    if not 0 < width_mm < math.inf:
        raise ValueError("width_mm must be a positive number")
    if single_cut and not drawing.tracing.edges:
        raise ValueError("this tracing has no edges to cut along")
    frame = _frame(drawing, width_mm)
    layers = _cut_layers() if single_cut else _ink_layers(drawing, palette, curves)
    outlines = list(_cuts(drawing) if single_cut else _fills(drawing, layers))
    return _r2000(outlines, layers.values(), frame) if curves else _r12(outlines, layers.values(), frame)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The map's place on the sheet.

    Attributes:
        mm_per_unit: of 1/100 px.
        width_mm, height_mm: of the map, rounded like every number.
        height_units: of the map, in 1/100 px.
        places: decimals that are written: at least three, and at least to a tenth of 1/100 px.
    """

    mm_per_unit: float
    width_mm: float
    height_mm: float
    height_units: int
    places: int

    def spots(self, points: F64) -> F64:
        """Places on the map (float64 [N, 2], 1/100 px, y downward) on the sheet: float64 [N, 2], mm, y upward."""
        upward = np.stack([points[:, 0], self.height_units - points[:, 1]], axis=1)
        rounded: F64 = np.round(upward * self.mm_per_unit, self.places)
        return rounded + 0.0  # no minus zero

    def length(self, units: float) -> float:
        return round(units * self.mm_per_unit, self.places) + 0.0


@dataclass(frozen=True, slots=True)
class _Layer:
    """A DXF layer and its AutoCAD colour index."""

    name: str
    colour: int


@dataclass(frozen=True, slots=True)
class _Outline:
    """One sub-outline: commands and points as in `Shape`, M first; closed where it ends in Z."""

    layer: str
    commands: str
    points: I32

    @property
    def closed(self) -> bool:
        return self.commands.endswith("Z")


def _frame(drawing: Drawing, width_mm: float) -> _Frame:
    mm_per_unit = width_mm / (drawing.width_px * UNITS_PER_PX)
    places = next((places for places in range(3, 9) if 10.0**-places <= mm_per_unit / 10), 9)
    height_units = drawing.height_px * UNITS_PER_PX
    return _Frame(mm_per_unit, round(width_mm, places), round(height_units * mm_per_unit, places), height_units, places)


# Layers


def _cut_layers() -> dict[int, _Layer]:
    return {OUTSIDE: _Layer(CUT_LAYER, CUT_COLOUR)}


def _ink_layers(drawing: Drawing, palette: Palette, curves: bool) -> dict[int, _Layer]:
    """One layer for each ink that a shape uses, by palette index, in the palette's order."""
    used = sorted({shape.ink for shape in drawing.tracing.shapes})
    if not used:
        return {}
    colours = _nearest_colours(palette.rgb()[used])
    taken = set(_TAKEN_NAMES)
    layers = {}
    for ink, colour in zip(used, colours, strict=True):
        name, digits = palette.inks[ink].name, palette.inks[ink].hex[1:]
        if curves:
            name = _new_name(_r2000_name(name, digits), R2000_NAME_CHARS, taken)
        else:
            name = _new_name(slug(name, digits).upper(), R12_NAME_CHARS, taken)
        layers[ink] = _Layer(name, colour)
    return layers


def _r2000_name(name: str, otherwise: str) -> str:
    allowed = _NOT_IN_A_NAME.sub("_", name).strip()
    return allowed if allowed.strip("_") else otherwise


def _new_name(wanted: str, longest: int, taken: set[str]) -> str:
    """`wanted` in at most `longest` characters, with the first number from 2 that makes it new; noted in `taken`.

    Layers whose names differ in case alone are one layer to AutoCAD.
    """
    found, number = wanted[:longest].rstrip(" -"), 1
    while found.casefold() in taken:
        number += 1
        found = f"{wanted[: longest - len(str(number)) - 1].rstrip(' -')}-{number}"
    taken.add(found.casefold())
    return found


@cache
def _aci_rgb() -> U8:
    """AutoCAD's colours 1 to 255 in sRGB: uint8 [255, 3]. Number 7 is black or white, whichever the page is not.

    10 to 249 are 24 hues in steps of 15°, each at five brightnesses, strong (even) and half mixed with grey (odd).
    """
    named = [(255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 255, 255)]
    wheel = []
    for number in range(10, 250):
        value = (255, 165, 127, 76, 38)[number % 10 // 2]
        low = value // 2 if number % 2 else 0
        wheel.append(tuple(low + ((value - low) * share + 30) // 60 for share in _hue(number // 10 - 1)))
    greys = [(grey,) * 3 for grey in (128, 192, 51, 80, 105, 130, 190, 255)]
    return np.array([*named, *greys[:2], *wheel, *greys[2:]], dtype=np.uint8)


def _hue(step: int) -> tuple[int, int, int]:
    """Red, green and blue of a pure hue in steps of 15° from red, 0 to 60 each."""
    red, green, blue = (min(max(abs((15 * step + turn) % 360 - 180) - 60, 0), 60) for turn in (0, 240, 120))
    return red, green, blue


def _nearest_colours(rgb: U8) -> list[int]:
    """The AutoCAD colour index nearest to each of `rgb` (uint8 [N, 3]), never 7, which turns black on a white page."""
    known = _aci_rgb()
    numbers = np.array([number for number in range(1, 256) if number != 7])
    apart = delta_e(srgb_to_lab(rgb)[:, None], srgb_to_lab(known[numbers - 1])[None])
    return [int(number) for number in numbers[apart.argmin(axis=1)]]


# Outlines


def _fills(drawing: Drawing, layers: dict[int, _Layer]) -> Iterator[_Outline]:
    for shape in drawing.tracing.shapes:
        yield from _sub_outlines(layers[shape.ink].name, shape.commands, shape.points)


def _cuts(drawing: Drawing) -> Iterator[_Outline]:
    for edge in drawing.tracing.edges:
        if not {edge.left, edge.right} <= {UNPAINTED, OUTSIDE}:
            yield from _sub_outlines(CUT_LAYER, edge.commands, edge.points)


def _sub_outlines(layer: str, commands: str, points: I32) -> Iterator[_Outline]:
    at = 0
    for found in re.finditer("M[^M]*", commands):
        many = sum(POINTS_OF[command] for command in found[0])
        yield _Outline(layer, found[0], points[at : at + many])
        at += many


@dataclass(frozen=True, slots=True)
class _Arcs:
    """Elliptical arcs by centre: centre + rx cos(t) u + ry sin(t) v, where v is u turned clockwise on the screen.

    Attributes:
        centre, radii: float64 [N, 2], 1/100 px.
        axis: float64 [N, 2], u.
        begin_rad, sweep_rad: float64 [N], t at the start and how far it runs; positive clockwise on the screen. 0 where
            the arc is a straight line (a radius of 0, or no way between its ends).
    """

    centre: F64
    radii: F64
    axis: F64
    begin_rad: F64
    sweep_rad: F64


def _arcs(start: F64, taken: F64) -> _Arcs:
    """Arcs from `start` (float64 [N, 2]) by the numbers that an A takes (float64 [N, 3, 2]).

    SVG 1.1, appendix F.6.5: radii too small for the chord grow until they fit.
    """
    radii, flags, way = taken[:, 0], taken[:, 1, 1].astype(np.int64), taken[:, 2] - start
    straight = (radii <= 0).any(axis=1) | (way == 0).all(axis=1)
    turn_rad = np.radians(np.where(radii[:, 0] == radii[:, 1], 0.0, taken[:, 1, 0] / 100))
    axis = np.stack([np.cos(turn_rad), np.sin(turn_rad)], axis=1)
    half = _turned(-way / 2, axis * (1, -1)) / np.where(straight[:, None], 1.0, radii)
    length = np.hypot(half[:, 0], half[:, 1])
    scale = np.maximum(length, 1.0)
    half, length, radii = half / scale[:, None], np.minimum(length, 1.0), radii * scale[:, None]
    aside = np.sqrt(1 - length * length) / np.where(straight, 1.0, length)
    side = np.where((flags // 2) == (flags % 2), -aside, aside)[:, None]
    middle = side * np.stack([half[:, 1], -half[:, 0]], axis=1)
    begin, end = half - middle, -half - middle
    begin_rad = np.arctan2(begin[:, 1], begin[:, 0])
    sweep_rad = (np.arctan2(end[:, 1], end[:, 0]) - begin_rad) % (2 * np.pi) - np.where(flags % 2, 0.0, 2 * np.pi)
    centre = start + way / 2 + _turned(middle * radii, axis)
    return _Arcs(centre, radii, axis, begin_rad, np.where(straight, 0.0, sweep_rad))


def _turned(vectors: F64, by: F64) -> F64:
    """`vectors` (float64 [..., 2]) turned by the angle of the unit vector `by`."""
    x, y, c, s = vectors[..., 0], vectors[..., 1], by[..., 0], by[..., 1]
    return np.stack([c * x - s * y, s * x + c * y], axis=-1)


@dataclass(frozen=True, slots=True)
class _Steps:
    """The commands of many outlines side by side, Z left out.

    Attributes:
        outline: int64 [S], the outline of each step.
        command: uint8 [S].
        first, takes: int64 [S], place of the step's first point among all, and how many it takes.
        points: float64 [N, 2], 1/100 px.
        arc: int64 [S], place of an A's arc in `arcs`, else -1.
        arcs: one for each A.
    """

    outline: I64
    command: U8
    first: I64
    takes: I64
    points: F64
    arc: I64
    arcs: _Arcs


def _steps(outlines: Sequence[_Outline]) -> _Steps:
    commands = [outline.commands.rstrip("Z") for outline in outlines]
    command = np.frombuffer("".join(commands).encode(), dtype=np.uint8)
    takes = np.where((command == ord("C")) | (command == ord("A")), 3, 1)
    first = np.cumsum(takes) - takes
    points = np.concatenate([np.empty((0, 2)), *(outline.points for outline in outlines)]).astype(np.float64)
    bent = np.flatnonzero(command == ord("A"))
    arc = np.full(len(command), -1)
    arc[bent] = np.arange(len(bent))
    taken = points[first[bent][:, None] + np.arange(_ARC_GROUPS)]
    arcs = _arcs(points[first[bent] - 1], taken)
    outline = np.repeat(np.arange(len(outlines)), [len(text) for text in commands])
    return _Steps(outline, command, first, takes, points, arc, arcs)


# R12


def _r12(outlines: Sequence[_Outline], layers: Iterable[_Layer], frame: _Frame) -> bytes:
    """Header, tables and polylines, each a run of (group code, value) lines."""
    corner = (_number(frame.width_mm, frame.places), _number(frame.height_mm, frame.places))
    tags = [
        "0", "SECTION", "2", "HEADER", "9", "$ACADVER", "1", "AC1009",
        "9", "$INSUNITS", "70", "4", "9", "$MEASUREMENT", "70", "1",
        "9", "$EXTMIN", "10", "0.0", "20", "0.0", "30", "0.0",
        "9", "$EXTMAX", "10", corner[0], "20", corner[1], "30", "0.0", "0", "ENDSEC",
        "0", "SECTION", "2", "TABLES", "0", "TABLE", "2", "LTYPE", "70", "1",
        "0", "LTYPE", "2", "CONTINUOUS", "70", "0", "3", "Solid line", "72", "65", "73", "0", "40", "0.0",
        "0", "ENDTAB",
    ]  # fmt: skip
    known = list(layers)
    tags += ["0", "TABLE", "2", "LAYER", "70", str(len(known))]
    for layer in known:
        tags += ["0", "LAYER", "2", layer.name, "70", "0", "62", str(layer.colour), "6", "CONTINUOUS"]
    tags += ["0", "ENDTAB", "0", "ENDSEC", "0", "SECTION", "2", "ENTITIES"]
    for outline, spots in zip(outlines, _polylines(outlines, frame), strict=True):
        if len(spots) > (2 if outline.closed else 1):
            tags.append(_polyline(outline, spots, frame.places))
    tags += ["0", "ENDSEC", "0", "EOF", ""]
    return "\n".join(tags).encode("ascii")


def _polyline(outline: _Outline, spots: list[Spot], places: int) -> str:
    head = f"0\nPOLYLINE\n8\n{outline.layer}\n66\n1\n70\n{int(outline.closed)}\n10\n0.0\n20\n0.0\n30\n0.0\n"
    vertex = f"0\nVERTEX\n8\n{outline.layer}\n10\n"
    vertices = [f"{vertex}{_number(x, places)}\n20\n{_number(y, places)}\n30\n0.0\n" for x, y in spots]
    return f"{head}{''.join(vertices)}0\nSEQEND\n8\n{outline.layer}"


def _number(value: float, places: int) -> str:
    """The shortest decimal with at least one place, never with an exponent."""
    text = f"{value:.{places}f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _polylines(outlines: Sequence[_Outline], frame: _Frame) -> Iterator[list[Spot]]:
    """The corners of each outline in mm, without one that repeats the one before it or, in a closed one, the first."""
    steps = _steps(outlines)
    tolerance_units = max(CHORD_MM / frame.mm_per_unit, CHORD_PX * UNITS_PER_PX)
    spots, outline = _flattened(steps, tolerance_units)
    spots = frame.spots(spots)
    fresh = np.ones(len(spots), dtype=np.bool_)
    fresh[1:] = (spots[1:] != spots[:-1]).any(axis=1) | (outline[1:] != outline[:-1])
    spots, outline = spots[fresh], outline[fresh]
    borders = np.searchsorted(outline, np.arange(len(outlines) + 1)).tolist()
    x, y = spots[:, 0].tolist(), spots[:, 1].tolist()
    for at, (low, high) in enumerate(pairwise(borders)):
        corners = list(zip(x[low:high], y[low:high], strict=True))
        if outlines[at].closed and len(corners) > 1 and corners[0] == corners[-1]:
            corners.pop()
        yield corners


def _flattened(steps: _Steps, tolerance_units: float) -> tuple[F64, I64]:
    """Curves cut into chords within `tolerance_units` of them: float64 [N, 2] in 1/100 px, and the outline of each.

    Chords are of equal length in the curve's own parameter, so a curve has the same corners in both directions. A
    Bézier curve lies within 3/4 of its larger second difference over the square of the count; an arc within its larger
    radius times 1 - cos(half the chord's angle), and no chord spans more than a quarter turn.
    """
    curves, bent = np.flatnonzero(steps.command == ord("C")), np.flatnonzero(steps.arc >= 0)
    start, one, two, end = (steps.points[steps.first[curves] + offset] for offset in (-1, 0, 1, 2))
    bend = np.maximum(np.hypot(*(start - 2 * one + two).T), np.hypot(*(one - 2 * two + end).T))
    chords = np.ones(len(steps.command), dtype=np.int64)
    chords[curves] = np.ceil(np.sqrt(0.75 * bend / tolerance_units)).clip(1)
    longest_rad = 2 * np.arccos(1 - np.minimum(tolerance_units / steps.arcs.radii.max(axis=1, initial=1.0), 0.2))
    chords[bent] = np.ceil(np.abs(steps.arcs.sweep_rad) / longest_rad).clip(1)
    owner = np.repeat(np.arange(len(chords)), chords)
    last = np.cumsum(chords)
    t = ((np.arange(len(owner)) - np.repeat(last - chords, chords) + 1) / chords[owner])[:, None]
    spots = steps.points[(steps.first + steps.takes - 1)[owner]]
    inner = t[:, 0] < 1
    rows = np.flatnonzero(inner & (steps.command[owner] == ord("C")))
    which, u = np.searchsorted(curves, owner[rows]), 1 - t[rows]
    near, far = (
        u * u * (u * start[which] + 3 * t[rows] * one[which]),
        t[rows] * t[rows] * (t[rows] * end[which] + 3 * u * two[which]),
    )
    spots[rows] = near + far
    rows = np.flatnonzero(inner & (steps.arc[owner] >= 0))
    spots[rows] = _on_arcs(steps.arcs, steps.arc[owner[rows]], t[rows, 0])
    return spots, steps.outline[owner]


def _on_arcs(arcs: _Arcs, which: I64, t: F64) -> F64:
    """The spots at parameters t, 0 to 1, of the arcs `which`: float64 [N, 2]."""
    rad = arcs.begin_rad[which] + t * arcs.sweep_rad[which]
    unit = np.stack([np.cos(rad), np.sin(rad)], axis=1)
    return arcs.centre[which] + _turned(unit * arcs.radii[which], arcs.axis[which])


# R2000


@dataclass(frozen=True, slots=True)
class _Piece:
    """One step of an outline in mm.

    Attributes:
        kind: `line`, `curve` (Bézier), `arc` (of a circle) or `ellipse` (an arc of one).
        spots: from its start to its end; a curve has its two handles between.
        arc: place in `_Steps.arcs`, -1 for lines and curves.
    """

    kind: Literal["line", "curve", "arc", "ellipse"]
    spots: tuple[Spot, ...]
    arc: int = -1


def _r2000(outlines: Sequence[_Outline], layers: Iterable[_Layer], frame: _Frame) -> bytes:
    import ezdxf  # noqa: PLC0415 - it takes half a second, and R12 does without
    from ezdxf.filemanagement import new  # noqa: PLC0415

    ezdxf.options.write_fixed_meta_data_for_testing = True  # type: ignore[attr-defined] # no date, no identifier
    document = new("AC1015", units=4)
    document.header["$MEASUREMENT"] = 1
    for layer in layers:
        document.layers.add(layer.name, color=layer.colour)
    space = document.modelspace()
    document.header["$EXTMIN"], document.header["$EXTMAX"] = (0, 0, 0), (frame.width_mm, frame.height_mm, 0)
    space.reset_extents((0, 0, 0), (frame.width_mm, frame.height_mm, 0))
    space.reset_limits((0, 0), (frame.width_mm, frame.height_mm))
    document.set_modelspace_vport(frame.height_mm, (frame.width_mm / 2, frame.height_mm / 2))
    steps = _steps(outlines)
    borders = np.searchsorted(steps.outline, np.arange(len(outlines) + 1)).tolist()
    spots = list(map(tuple, frame.spots(steps.points).tolist()))
    for outline, (low, high) in zip(outlines, pairwise(borders), strict=True):
        whole = _whole_ellipse(outline, steps.arcs, int(steps.arc[high - 1]))
        if whole >= 0:
            _add_ellipse(space, outline.layer, steps.arcs, whole, frame, whole=True)
            continue
        for run in _runs(list(_pieces(outline, steps, spots, low, high))):
            _add_run(space, outline, run, steps.arcs, frame)
    text = io.StringIO()
    document.write(text)
    data: bytes = document.encode(text.getvalue())
    return data


def _whole_ellipse(outline: _Outline, arcs: _Arcs, last: int) -> int:
    """The place of the first of two arcs that make a circle or an ellipse, -1 where the outline is none.

    The centre of a half hangs on the last digit of its radius, but the two errors are opposite: their mean is exact.
    """
    if outline.commands != "MAAZ" or (outline.points[0] != outline.points[-1]).any():
        return -1
    first = last - 1
    apart = math.dist(arcs.centre[first], arcs.centre[last])
    same = (
        apart * apart <= 8 * HALF_SLACK_UNITS * arcs.radii[first].max()  # a chord d short of 2 r: 2 sqrt(2 d r) apart
        and abs(arcs.radii[first] - arcs.radii[last]).max() <= HALF_SLACK_UNITS
        and arcs.sweep_rad[first] * arcs.sweep_rad[last] > 0
        and abs(arcs.axis[first] - arcs.axis[last]).max() < 1e-4
    )
    return first if same else -1


def _pieces(outline: _Outline, steps: _Steps, spots: Sequence[Spot], low: int, high: int) -> Iterator[_Piece]:
    """The steps low to high of `outline`, with the line that closes it; what has no length is left out."""
    at = spots[steps.first[low]]
    begin = at
    for step in range(low + 1, high):
        first, arc = int(steps.first[step]), int(steps.arc[step])
        taken = tuple(spots[first : first + int(steps.takes[step])])
        if steps.command[step] == ord("C") and len({at, *taken}) > 1:
            yield _Piece("curve", (at, *taken))
        elif arc >= 0 and steps.arcs.sweep_rad[arc] != 0 and taken[-1] != at:
            radii = steps.arcs.radii[arc]
            yield _Piece("arc" if radii[0] == radii[1] else "ellipse", (at, taken[-1]), arc)
        elif taken[-1] != at:
            yield _Piece("line", (at, taken[-1]))
        at = taken[-1]
    if outline.closed and at != begin:
        yield _Piece("line", (at, begin))


def _runs(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Pieces that one entity holds, brought together: lines go with arcs and with curves, elliptical arcs with none."""
    runs: list[list[_Piece]] = []
    kind = "ellipse"
    for piece in pieces:
        if "ellipse" not in {kind, piece.kind} and (kind == piece.kind or "line" in {kind, piece.kind}):
            runs[-1].append(piece)
            kind = piece.kind if kind == "line" else kind
        else:
            runs.append([piece])
            kind = piece.kind
    return runs


def _add_run(space: Modelspace, outline: _Outline, run: list[_Piece], arcs: _Arcs, frame: _Frame) -> None:
    begin, end = run[0].spots[0], run[-1].spots[-1]
    if run[0].kind == "ellipse":
        _add_ellipse(space, outline.layer, arcs, run[0].arc, frame, whole=False)
    elif any(piece.kind == "curve" for piece in run):
        _add_spline(space, outline.layer, run, frame)
    else:
        closed = outline.closed and begin == end
        corners = [(*piece.spots[0], _bulge(piece, arcs)) for piece in run] + ([] if closed else [(*end, 0.0)])
        space.add_lwpolyline(corners, format="xyb", close=closed, dxfattribs={"layer": outline.layer})


def _bulge(piece: _Piece, arcs: _Arcs) -> float:
    """The tangent of a quarter of an arc's angle, positive where it runs counter-clockwise; 0 for a line."""
    return 0.0 if piece.arc < 0 else round(-math.tan(arcs.sweep_rad[piece.arc] / 4), 9) + 0.0


def _add_spline(space: Modelspace, layer: str, run: list[_Piece], frame: _Frame) -> None:
    """Bézier curves end to end as one clamped cubic B-spline with a knot of multiplicity 3 at each joint."""
    controls = [run[0].spots[0]]
    for piece in run:
        controls += (
            piece.spots[1:] if piece.kind == "curve" else _straight(piece.spots[0], piece.spots[-1], frame.places)
        )
    knots = [0.0, *(float(joint) for joint in range(len(run) + 1) for _ in range(3)), float(len(run))]
    spline = space.add_open_spline(controls, degree=3, knots=knots, dxfattribs={"layer": layer})
    spline.dxf.flags = spline.PLANAR


def _straight(begin: Spot, end: Spot, places: int) -> tuple[Spot, Spot, Spot]:
    """Handles and end of a line as a Bézier curve."""
    (ax, ay), (bx, by) = begin, end
    near = (round((2 * ax + bx) / 3, places), round((2 * ay + by) / 3, places))
    return near, (round((ax + 2 * bx) / 3, places), round((ay + 2 * by) / 3, places)), end


def _add_ellipse(space: Modelspace, layer: str, arcs: _Arcs, at: int, frame: _Frame, *, whole: bool) -> None:
    """A whole circle or ellipse, or an elliptical arc, which runs counter-clockwise in DXF."""
    centre = arcs.centre[at : at + 2].mean(axis=0) if whole else arcs.centre[at]
    x, y = frame.spots(centre[None])[0].tolist()
    radii = arcs.radii[at]
    if whole and radii[0] == radii[1]:
        space.add_circle((x, y), frame.length(float(radii[0])), dxfattribs={"layer": layer})
        return
    c, s = arcs.axis[at].tolist()
    swapped = bool(radii[1] > radii[0])
    major, minor = float(radii.max()), float(radii.min())
    along = (-major * s, -major * c) if swapped else (major * c, -major * s)
    ends = sorted([float(arcs.begin_rad[at]), float(arcs.begin_rad[at] + arcs.sweep_rad[at])], reverse=True)
    begin, end = ((math.pi / 2 if swapped else 0.0) - rad for rad in ends)
    space.add_ellipse(
        (x, y),
        major_axis=(frame.length(along[0]), frame.length(along[1])),
        ratio=round(minor / major, 9),
        start_param=0.0 if whole else round(begin % math.tau, 9),
        end_param=math.tau if whole else round(end % math.tau, 9),
        dxfattribs={"layer": layer},
    )
