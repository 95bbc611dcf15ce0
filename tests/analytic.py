"""A label map whose geometry is known exactly: what a tracer should find, at any size.

Discs, ellipses, rotated rectangles, letters of Bézier curves, lines 1 and 2 px wide, crescents, rings, and wheels that
a lorry hides in part. Each sample takes the ink of the last shape that covers its centre, without anti-aliasing. All
directions are Pythagorean (such as 12/13, 5/13), so drawing takes no trigonometry and gives the same bytes anywhere.

Shapes are given in a frame of 1024 units; only the widths of lines are in pixels of the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from pipeline.types import F64, U8, Ink, Mask, Palette

FRAME_UNITS = 1024.0
TRUTH_SCALE = 8
CURVE_STEPS = 256
"""Chords for each Bézier curve: the longest one here leaves its curve by less than 0.005 units."""

_HEXES = {
    "paper": "#F3EFE6", "ground": "#B9B2A2", "tyre": "#17181C", "steel": "#8E949B", "body": "#B7332C",
    "glass": "#9CC4D8", "line": "#3A3F48", "blue": "#31639C", "yellow": "#DDB043", "green": "#2E5440",
    "plum": "#74204C", "orange": "#E27B3C",
}  # fmt: skip
INKS = {name: number for number, name in enumerate(_HEXES)}
PALETTE = Palette(tuple(Ink(value, name) for name, value in _HEXES.items()))

Pair = tuple[float, float]
LEVEL, UPRIGHT = (1.0, 0.0), (0.0, 1.0)
SLANTS: tuple[Pair, ...] = ((12 / 13, 5 / 13), (4 / 5, 3 / 5), (3 / 5, 4 / 5), (15 / 17, -8 / 17), (24 / 25, 7 / 25))


@dataclass(frozen=True, slots=True)
class Circle:
    """A true circle of the scene.

    Attributes:
        x_px, y_px, radius_px: in pixels of the map.
        whole: whether nothing hides a part of its outline.
        hidden: bool [H, W], the pixels of the map that show something drawn later; None where nothing is.
    """

    x_px: float
    y_px: float
    radius_px: float
    whole: bool
    hidden: Mask | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AnalyticScene:
    """The map and its truth.

    Attributes:
        index: uint8 [size, size], labels.
        palette: of `index`.
        truth8x: uint8 [8 · size, 8 · size], the same scene sampled eight times as finely.
        circles: outlines of the wheels.
    """

    index: U8
    palette: Palette
    truth8x: U8
    circles: tuple[Circle, ...]


@dataclass(frozen=True, slots=True)
class Ellipse:
    """A filled ellipse: centre, radii, direction of the first radius, and a second ellipse that is cut away."""

    ink: str
    centre: Pair
    radii: Pair
    along: Pair = LEVEL
    without: Ellipse | None = None

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        (x, y), reach = self.centre, max(self.radii)
        return x - reach, y - reach, x + reach, y + reach

    def covers(self, x: F64, y: F64) -> Mask:
        """Mask [H, W] for x [W] and y [H]."""
        dx, dy = x[None, :] - self.centre[0], y[:, None] - self.centre[1]
        (ux, uy), (rx, ry) = self.along, self.radii
        inside: Mask = ((dx * ux + dy * uy) / rx) ** 2 + ((dy * ux - dx * uy) / ry) ** 2 < 1.0
        return inside if self.without is None else inside & ~self.without.covers(x, y)


@dataclass(frozen=True, slots=True)
class Outline:
    """A filled polygon, even-odd over its loops (float64 [N, 2] each)."""

    ink: str
    loops: tuple[F64, ...]

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        points = np.concatenate(self.loops)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return left, top, right, bottom

    def covers(self, x: F64, y: F64) -> Mask:
        """Mask [H, W] for x [W] and y [H], both rising: where an odd number of sides lies to the left."""
        start = np.concatenate(self.loops)
        end = np.concatenate([np.roll(loop, -1, axis=0) for loop in self.loops])
        first = np.searchsorted(y, np.minimum(start[:, 1], end[:, 1]))
        count = np.searchsorted(y, np.maximum(start[:, 1], end[:, 1])) - first
        side = np.repeat(np.arange(len(start)), count)
        row = np.arange(len(side)) + np.repeat(first - np.cumsum(count) + count, count)
        a, b = start[side], end[side]
        crossing = a[:, 0] + (b[:, 0] - a[:, 0]) * ((y[row] - a[:, 1]) / (b[:, 1] - a[:, 1]))
        flips = np.zeros((len(y), len(x) + 1), np.uint8)
        np.add.at(flips, (row, np.searchsorted(x, crossing)), 1)
        odd: Mask = np.cumsum(flips[:, :-1], axis=1, dtype=np.uint8) % 2 == 1
        return odd


Figure = Ellipse | Outline

# Letters on a body of 100 units, y downward.
LETTERS = {
    "D": "M10 0L50 0C82 0 96 22 96 50C96 78 82 100 50 100L10 100Z"
    "M30 18L48 18C66 18 74 30 74 50C74 70 66 82 48 82L30 82Z",
    "S": "M86 22C78 8 64 0 48 0C26 0 12 12 12 29C12 48 30 54 48 58C62 61 68 65 68 73C68 81 60 85 49 85"
    "C37 85 29 79 24 69L8 78C16 93 31 100 49 100C73 100 90 90 90 71C90 52 74 46 54 41C40 38 34 35 34 27"
    "C34 20 40 15 49 15C59 15 65 20 70 30Z",
    "R": "M10 0L54 0C78 0 90 12 90 30C90 44 82 53 70 57L94 100L70 100L49 60L32 60L32 100L10 100Z"
    "M32 17L32 43L52 43C63 43 68 38 68 30C68 22 63 17 52 17Z",
    "e": "M50 0C80 0 98 20 98 50L98 57L24 57C26 74 36 83 52 83C64 83 72 78 78 69L94 79C85 93 71 100 52 100"
    "C20 100 2 80 2 50C2 20 20 0 50 0ZM25 41L75 41C73 25 64 17 50 17C36 17 27 25 25 41Z",
}
_LORRY = (
    "M92.4 858.3L92.4 612.7C92.4 604.2 98.1 598.3 106.6 598.3L604.8 598.3L604.8 842.2L640.5 842.2L640.5 660.8"
    "C641 640 652 628.5 674 627.2L752 625.1C780 625 796 634 806 654L846 735L899 752C917 758 927 771 927.4 792"
    "L927.4 858.3Z"
)
_WINDOW = "M690 650L760 648.4C774 648.4 782 654 789 668L818.2 728.6L690 728.6Z"


def analytic_scene(size_px: int) -> AnalyticScene:
    """The scene on a square map of `size_px`."""
    unit_px = size_px / FRAME_UNITS
    figures = tuple(_figures(1.0 / unit_px))
    circles = tuple(
        Circle(x * unit_px, y * unit_px, r * unit_px, whole, _covered(figures[last + 1 :], size_px))
        for x, y, r, whole, last in _wheel_circles()
    )
    index = _sample(figures, size_px)
    return AnalyticScene(index, PALETTE, _sample(figures, size_px * TRUTH_SCALE), circles)


def _sample(figures: tuple[Figure, ...], samples: int) -> U8:
    """uint8 [samples, samples]: at each sample's centre, the ink of the last figure that covers it."""
    at: F64 = (np.arange(samples, dtype=np.float64) + 0.5) * (FRAME_UNITS / samples)
    out = np.full((samples, samples), INKS["paper"], np.uint8)
    for figure in figures:
        left, top, right, bottom = np.searchsorted(at, figure.box()).tolist()
        part = out[top:bottom, left:right]
        part[figure.covers(at[left:right], at[top:bottom])] = INKS[figure.ink]
    return out


def _covered(figures: tuple[Figure, ...], samples: int) -> Mask:
    """Whether any figure covers each sample's centre, bool [samples, samples]."""
    at: F64 = (np.arange(samples, dtype=np.float64) + 0.5) * (FRAME_UNITS / samples)
    covered = np.zeros((samples, samples), np.bool_)
    for figure in figures:
        left, top, right, bottom = np.searchsorted(at, figure.box()).tolist()
        covered[top:bottom, left:right] |= figure.covers(at[left:right], at[top:bottom])
    return covered


def _figures(px: float) -> Iterator[Figure]:
    """Every figure in painter's order; `px` is the side of one pixel in units."""
    yield _rectangle("ground", (512.0, 962.7), (520.0, 80.4), LEVEL)
    yield from _wheels()
    yield _drawn("body", _LORRY)
    yield _drawn("glass", _WINDOW)
    yield _rectangle("yellow", (348.6, 690.3), (210.2, 31.7), LEVEL)
    yield from _discs()
    yield from _ellipses()
    yield from _rectangles()
    yield from _letters()
    yield from _crescents()
    yield from _lines(px)


_TYRE, _RIM, _HUB = 64.3, 36.7, 9.4
_AXLES: tuple[tuple[float, float, bool], ...] = (
    (196.3, 889.6, False), (330.2, 876.9, False), (411.7, 887.2, False), (806.4, 881.3, False), (968.0, 545.4, True),
)  # fmt: skip
"""Centre of each wheel, and whether it stands free. The body hides a third to two fifths of the outer circle of most,
and the second wheel is hidden by the third too."""
_SPARE_SHRINK = 0.7


def _wheels() -> Iterator[Figure]:
    for x, y, free in _AXLES:
        size = _SPARE_SHRINK if free else 1.0
        for ink, radius in (("tyre", _TYRE), ("steel", _RIM), ("line", _HUB)):
            yield Ellipse(ink, (x, y), (radius * size, radius * size))


def _wheel_circles() -> Iterator[tuple[float, float, float, bool, int]]:
    """Outer circle and rim of each wheel: x, y, radius, whether it is whole, the number of the wheel's last figure."""
    for number, (x, y, free) in enumerate(_AXLES):
        size, last = _SPARE_SHRINK if free else 1.0, 3 * number + 3
        yield x, y, _TYRE * size, free, last
        yield x, y, _RIM * size, free, last


def _discs() -> Iterator[Figure]:
    inks = ("blue", "green", "plum", "orange", "tyre", "yellow")
    for ink, x, radius in zip(
        inks, (40.7, 62.2, 90.4, 130.8, 190.1, 270.6), (2.6, 5.3, 9.8, 16.4, 25.7, 38.2), strict=True
    ):
        yield Ellipse(ink, (x, 62.4), (radius, radius))
    for step in range(10):
        radius = 116.3 - 11.6 * step
        yield Ellipse(("green", "yellow")[step % 2], (878.6, 150.8), (radius, radius))


def _ellipses() -> Iterator[Figure]:
    yield Ellipse("blue", (140.4, 190.7), (98.3, 44.6), SLANTS[0])
    yield Ellipse("orange", (330.8, 196.1), (66.2, 23.5), SLANTS[2])
    yield Ellipse("plum", (446.2, 176.9), (31.7, 82.4))
    yield Ellipse("paper", (140.4, 190.7), (40.2, 12.9), SLANTS[0])
    yield Ellipse("line", (394.3, 60.2), (44.1, 8.7), SLANTS[3])


def _rectangles() -> Iterator[Figure]:
    yield _rectangle("green", (560.4, 96.3), (46.2, 30.1), SLANTS[0])
    yield _rectangle("orange", (668.1, 88.2), (38.6, 38.6), SLANTS[1])
    yield _rectangle("blue", (574.7, 216.8), (58.3, 14.4), SLANTS[3])
    yield _rectangle("tyre", (690.2, 214.6), (30.5, 44.9), SLANTS[4])
    yield _rectangle("yellow", (690.2, 214.6), (12.2, 20.3), SLANTS[4])


def _letters() -> Iterator[Figure]:
    rows = ((42.3, 300.6, 92.0, "tyre"), (42.3, 412.4, 31.0, "plum"), (206.7, 414.1, 14.0, "blue"))
    for left, top, size, ink in rows:
        for number, letter in enumerate("DSRe"):
            yield _drawn(ink, LETTERS[letter], (left + 1.1 * size * number, top), size / 100.0)


def _crescents() -> Iterator[Figure]:
    for x, radius, shift in ((78.2, 44.6, 9.2), (186.1, 44.6, 4.4), (290.7, 40.3, 2.3)):
        bite = Ellipse("paper", (x + shift, 520.3), (radius, radius))
        yield Ellipse("blue", (x, 520.3), (radius, radius), without=bite)


def _lines(px: float) -> Iterator[Figure]:
    """Bars and circles 2 px and 1 px wide."""
    for row, width_px in ((340.3, 2.0), (420.6, 1.0)):
        for number, along in enumerate((LEVEL, UPRIGHT, *SLANTS)):
            yield _rectangle("line", (510.0 + 60.3 * number, row), (34.2, width_px * px / 2.0), along)
        inner = Ellipse("paper", (936.4, row), (32.6 - width_px * px, 32.6 - width_px * px))
        yield Ellipse("line", (936.4, row), (32.6, 32.6), without=inner)


def _rectangle(ink: str, centre: Pair, halves: Pair, along: Pair) -> Outline:
    """A rectangle by its centre, its half sides and the direction of the first."""
    (x, y), (w, h), (ux, uy) = centre, halves, along
    signs = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
    return Outline(ink, (np.array([(x + a * w * ux - b * h * uy, y + a * w * uy + b * h * ux) for a, b in signs]),))


def _drawn(ink: str, path: str, at: Pair = (0.0, 0.0), scale: float = 1.0) -> Outline:
    """SVG path data of absolute M, L, C and Z, moved and scaled, its curves as chords."""
    loops = tuple(_loop(part) * scale + at for part in path.split("Z") if part)
    return Outline(ink, loops)


def _loop(path: str) -> F64:
    steps = [
        np.array(step[1:].split(), np.float64).reshape(-1, 2)
        for step in path.replace("L", "|L").replace("C", "|C").split("|")
    ]
    share = np.arange(1, CURVE_STEPS + 1)[:, None] / CURVE_STEPS
    points = [steps[0]]
    for before, step in pairwise(steps):
        points.append(step if len(step) == 1 else _bezier(before[-1], step, share))
    return np.concatenate(points)


def _bezier(start: F64, rest: F64, share: F64) -> F64:
    left = 1.0 - share
    a, b, c = rest
    curve: F64 = left**3 * start + 3.0 * left**2 * share * a + 3.0 * left * share**2 * b + share**3 * c
    return curve
