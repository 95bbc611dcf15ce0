"""From outlines back to pixels: which ink each pixel's centre shows, without anti-aliasing.

Outlines are cut into chords, chords into crossings with the rows of pixel centres, and each row's crossings are sorted
by shape and column; runs of a winding number other than zero are painted. A crossing is kept as the first column whose
centre lies on or right of it, so a centre on an outline belongs to the shape on its right (and below it, where the
outline is level): two shapes that share an outline never both claim, nor both miss, a pixel. Square roots are the only
functions called, so a painting is the same on any machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.compiled import by_rows, inlined, kernel
from pipeline.types import F64, I32, U8, UNITS_PER_PX, UNPAINTED, IndexMap, Shape

CHORD_UNITS = 0.5
"""How far a chord may leave its curve, in 1/100 px."""

CHORD_FIELDS = 6
"""Upper x and y, lower x and y (1/100 px), +1 where it runs downward or −1, the shape's number."""

VERTICES_PER_UNIT = 16
"""Chords end on a grid this fine, so that a curve that is followed backwards gives the same chords."""

CENTRE = UNITS_PER_PX // 2

RIGHT_ANGLE = 9000
"""In 1/100 degree."""

I64 = npt.NDArray[np.int64]

M, L, C, A, Z = (ord(letter) for letter in "MLCAZ")


def paint(shapes: Sequence[Shape], width_px: int, height_px: int) -> U8:
    """The ink that each pixel's centre shows.

    Curves and arcs are followed to within 0.01 px. Arcs are read as SVG 1.1, appendix F.6, has it: radii that can't
    reach are enlarged, a radius of 0 makes a line. Outlines may leave the map.

    Args:
        shapes: in painter's order, filled by the non-zero rule.
        width_px, height_px: of the map.

    Returns:
        uint8 [H, W]: the ink of the last shape that covers the centre, `UNPAINTED` where none does.
    """
    out = np.full((height_px, width_px), UNPAINTED, np.uint8)
    if not shapes:
        return out
    inks = np.array([shape.ink for shape in shapes], np.uint8)
    commands = np.frombuffer("".join(shape.commands for shape in shapes).encode(), np.uint8)
    points = np.concatenate([shape.points for shape in shapes])
    owner = np.repeat(np.arange(len(shapes)), [len(shape.commands) for shape in shapes])
    chords = _flatten(commands, points, owner, height_px)
    by_rows(lambda first, last: _paint_rows(chords, inks, out, first, last), height_px)
    return out


def agreement_pct(image: IndexMap, shapes: Sequence[Shape]) -> float:
    """Share of the map's pixels whose centre shows their own ink, or none where they are unpainted; 0 to 100."""
    same = np.count_nonzero(paint(shapes, image.width_px, image.height_px) == image.index)
    return 100.0 * float(same) / image.index.size


@inlined
def _row_at(y: float) -> float:
    """The first row whose centre lies at or below y (1/100 px), before it is clipped to the map."""
    return np.ceil((y - CENTRE) / UNITS_PER_PX)  # type: ignore[no-any-return]


@inlined
def _keep(chords: F64, n: int, ax: float, ay: float, bx: float, by: float, height: int, owner: int) -> int:
    """Writes a chord if it crosses a row of centres within the map; the number of chords written so far."""
    if _row_at(min(ay, by)) >= min(_row_at(max(ay, by)), height) or max(ay, by) <= CENTRE:
        return n
    if ay < by:
        chords[n, 0], chords[n, 1], chords[n, 2], chords[n, 3], chords[n, 4] = ax, ay, bx, by, 1.0
    else:
        chords[n, 0], chords[n, 1], chords[n, 2], chords[n, 3], chords[n, 4] = bx, by, ax, ay, -1.0
    chords[n, 5] = owner
    return n + 1


@inlined
def _room(chords: F64, n: int, more: int) -> F64:
    """The array, or a longer copy of its first n rows with room for `more` behind them."""
    if n + more <= len(chords):
        return chords
    longer = np.empty((2 * (n + more), CHORD_FIELDS))
    longer[:n] = chords[:n]
    return longer


@inlined
def _on_grid(value: float) -> float:
    return np.floor(value * VERTICES_PER_UNIT + 0.5) / VERTICES_PER_UNIT  # type: ignore[no-any-return]


@inlined
def _cubic_steps(points: I32, at: int) -> int:
    """Into how many chords to cut the cubic that leaves points[at − 1].

    The chord of 1/n of a curve leaves it by at most |B″| / 8n², and |B″| ≤ 6 max |P − 2Q + R| over its control points.
    """
    bend = 0.0
    for i in range(at - 1, at + 1):
        dx = float(points[i, 0]) - 2.0 * points[i + 1, 0] + points[i + 2, 0]
        dy = float(points[i, 1]) - 2.0 * points[i + 1, 1] + points[i + 2, 1]
        bend = max(bend, np.sqrt(dx * dx + dy * dy))
    return max(1, int(np.ceil(np.sqrt(0.75 * bend / CHORD_UNITS))))


@inlined
def _cubic_chords(points: I32, at: int, chords: F64, n: int, height: int, owner: int) -> tuple[F64, int, float, float]:
    """Writes all chords but the last of the cubic that leaves points[at − 1]; where the last one begins."""
    px, py = float(points[at - 1, 0]), float(points[at - 1, 1])
    steps = _cubic_steps(points, at)
    chords = _room(chords, n, steps)
    for k in range(1, steps):
        t = k / steps
        r = 1.0 - t
        a, b, c, d = r * r * r, 3.0 * r * r * t, 3.0 * r * t * t, t * t * t
        qx = _on_grid(a * points[at - 1, 0] + b * points[at, 0] + c * points[at + 1, 0] + d * points[at + 2, 0])
        qy = _on_grid(a * points[at - 1, 1] + b * points[at, 1] + c * points[at + 1, 1] + d * points[at + 2, 1])
        n = _keep(chords, n, px, py, qx, qy, height, owner)
        px, py = qx, qy
    return chords, n, px, py


@inlined
def _turn_of(hundredths: int) -> tuple[float, float]:
    """Cosine and sine of an angle in 1/100 degree, by their series: the same on any machine."""
    quarter, rest = hundredths // RIGHT_ANGLE, hundredths % RIGHT_ANGLE
    x = rest * (np.pi / 2.0) / RIGHT_ANGLE
    c, s, term = 0.0, 0.0, 1.0
    for i in range(1, 24, 2):
        c += term
        term *= x / i
        s += term
        term *= -x / (i + 1)
    for _ in range(quarter % 4):
        c, s = -s, c
    return c, s


@inlined
def _arc_steps(cos: float, sin: float, radius: float) -> tuple[int, float, float]:
    """Halves an angle (0 to a whole turn) until its chords stay near; the number of steps, cosine and sine of one."""
    # A half turn's sine is 0 give or take a rounding error; either sign leads to the same half.
    half = np.sqrt(max(0.5 * (1.0 + cos), 0.0))
    cos, sin, steps = (-half if sin < 0 else half), np.sqrt(max(0.5 * (1.0 - cos), 0.0)), 2
    while True:
        half = np.sqrt(max(0.5 * (1.0 + cos), 0.0))
        if half > 0.5 and radius * (1.0 - half) <= CHORD_UNITS:
            return steps, cos, sin
        cos, sin, steps = half, (0.5 * sin / half if half > 0.5 else np.sqrt(0.5 * (1.0 - cos))), 2 * steps


@inlined
def _arc_chords(points: I32, at: int, chords: F64, n: int, height: int, owner: int) -> tuple[F64, int, float, float]:
    """Writes all chords but the last of the arc that leaves points[at − 1] (F.6.5, F.6.6); where the last one begins.

    The plane is turned and scaled until the ellipse is a unit circle about (mx, my), with the middle of its chord at 0.
    """
    px, py = float(points[at - 1, 0]), float(points[at - 1, 1])
    ex, ey = float(points[at + 2, 0]), float(points[at + 2, 1])
    rx, ry = abs(float(points[at, 0])), abs(float(points[at, 1]))
    if rx == 0 or ry == 0 or (px == ex and py == ey):
        return chords, n, px, py
    larger, way = points[at + 1, 1] >= 2, 1.0 if points[at + 1, 1] % 2 == 1 else -1.0
    c, s = (1.0, 0.0) if rx == ry else _turn_of(points[at + 1, 0])
    dx, dy = 0.5 * (px - ex), 0.5 * (py - ey)
    u, w = (c * dx + s * dy) / rx, (c * dy - s * dx) / ry
    grow = max(np.sqrt(u * u + w * w), 1.0)
    rx, ry, u, w = rx * grow, ry * grow, u / grow, w / grow
    lift = np.sqrt(max(1.0 / (u * u + w * w) - 1.0, 0.0)) * (-1.0 if larger == (way > 0) else 1.0)
    mx, my = lift * w, -lift * u
    cx, cy = 0.5 * (px + ex) + c * mx * rx - s * my * ry, 0.5 * (py + ey) + s * mx * rx + c * my * ry
    ux, uy, vx, vy = u - mx, w - my, -u - mx, -w - my
    steps, cos, sin = _arc_steps(min(max(ux * vx + uy * vy, -1.0), 1.0), way * (ux * vy - uy * vx), max(rx, ry))
    chords = _room(chords, n, steps)
    for _ in range(1, steps):
        ux, uy = ux * cos - way * uy * sin, uy * cos + way * ux * sin
        qx, qy = _on_grid(cx + c * ux * rx - s * uy * ry), _on_grid(cy + s * ux * rx + c * uy * ry)
        n = _keep(chords, n, px, py, qx, qy, height, owner)
        px, py = qx, qy
    return chords, n, px, py


@kernel
def _flatten(commands: U8, points: I32, owner: I64, height: int) -> F64:
    """The chords of all outlines that cross a row of centres within the map: float64 [N, CHORD_FIELDS].

    Args:
        commands: uint8 [C], letters of all shapes one after the other; points: their points, likewise.
        owner: int64 [C], the number of each command's shape.
        height: rows of the map.
    """
    chords = np.empty((4 * len(commands) + 64, CHORD_FIELDS))
    n, at = 0, 0
    px, py, start_x, start_y = 0.0, 0.0, 0.0, 0.0
    for i in range(len(commands)):
        chords = _room(chords, n, 2)
        command, mine = commands[i], owner[i]
        # Filling closes what no Z has closed, before the next M.
        if command == M and i > 0:
            n = _keep(chords, n, px, py, start_x, start_y, height, owner[i - 1])
        elif command == C:
            chords, n, px, py = _cubic_chords(points, at, chords, n, height, mine)
            at += 2
        elif command == A:
            chords, n, px, py = _arc_chords(points, at, chords, n, height, mine)
            at += 2
        chords = _room(chords, n, 2)
        qx, qy = start_x, start_y
        if command != Z:
            qx, qy = float(points[at, 0]), float(points[at, 1])
            at += 1
        if command == M:
            start_x, start_y = qx, qy
        else:
            n = _keep(chords, n, px, py, qx, qy, height, mine)
        px, py = qx, qy
    n = _keep(chords, n, px, py, start_x, start_y, height, owner[-1])
    return chords[:n].copy()


@inlined
def _column_at(chord: F64, row: int, width: int) -> int:
    """The first column whose centre lies on or right of the chord where it crosses a row of centres, 0 to the width."""
    y = row * UNITS_PER_PX + CENTRE - chord[1]
    x = chord[0] + y * (chord[2] - chord[0]) / (chord[3] - chord[1])
    return int(min(max(np.ceil((x - CENTRE) / UNITS_PER_PX), 0.0), float(width)))


@inlined
def _rows_of(chord: F64, first: int, last: int) -> tuple[int, int]:
    """The rows of centres that a chord crosses, from `first` to `last` (exclusive)."""
    return int(max(_row_at(chord[1]), float(first))), int(min(_row_at(chord[3]), float(last)))


@inlined
def _crossings(chords: F64, width: int, first: int, last: int) -> tuple[I64, I64]:
    """Crossings of rows `first` to `last`, as (shape · (width + 1) + column) · 2 + (1 where the chord runs upward).

    Returns:
        int64 keys, and int64 [rows + 1]: the keys of row first + i are keys[start[i] : start[i + 1]].
    """
    start = np.zeros(last - first + 2, np.int64)
    for i in range(len(chords)):
        low, high = _rows_of(chords[i], first, last)
        for row in range(low, high):
            start[row - first + 2] += 1
    for i in range(2, len(start)):
        start[i] += start[i - 1]
    keys = np.empty(start[-1], np.int64)
    for i in range(len(chords)):
        low, high = _rows_of(chords[i], first, last)
        for row in range(low, high):
            column = np.int64(chords[i, 5]) * (width + 1) + _column_at(chords[i], row, width)
            keys[start[row - first + 1]] = 2 * column + (chords[i, 4] < 0)
            start[row - first + 1] += 1
    return keys, start[:-1]


@kernel
def _paint_rows(chords: F64, inks: U8, out: U8, first: int, last: int) -> None:
    """Paints rows `first` to `last` of `out` (uint8 [H, W])."""
    columns = out.shape[1] + 1
    keys, start = _crossings(chords, out.shape[1], first, last)
    for row in range(first, last):
        here = keys[start[row - first] : start[row - first + 1]]
        here.sort()
        winding, since = 0, 0
        for key in here:
            column = (key // 2) % columns
            if winding == 0:
                since = column
            winding += 1 - 2 * (key % 2)
            if winding == 0:
                out[row, since:column] = inks[key // 2 // columns]
