"""Where junctions lie: the places at which three contours meet, to a fraction of a pixel.

Before the fit each junction gets a place from the arcs that meet there: where the arc that ends on a passing contour
would cross it, or the point nearest to three lines. After the fit the junction is set on the curve of the contour that
passes it, and the curves that end there are drawn to it.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined, kernel
from pipeline.trace.cheapest import ARC, CUBIC, ELLIPSE, LINE
from pipeline.trace.conics import solve
from pipeline.trace.nodes import end_line
from pipeline.types import F64, I32, Mask

PULL = 0.05
"""Weight of the crack vertex beside the lines of the arcs, each of which has weight 1."""

PASSING_WEIGHT = 6.0
"""Of a contour that passes the junction, beside one that ends there."""

SAMPLES = 12


@kernel
def place_junctions(
    plane_x: I32,
    plane_y: I32,
    width: int,
    height: int,
    ends: I32,
    end_points: tuple[I32, I32, I32],
    passing: Mask,
    most_shift_px: float,
    out: F64,
) -> None:
    """The place of each junction, float64 [J, 2] to `out`, px.

    Args:
        plane_x, plane_y: int32 [J], crack vertices.
        width, height: of the map; junctions on its border stay there.
        ends: int32 [J, 4], arc ends (2 × arc, plus 1 for the last vertex) by the direction in which they leave, or -1.
        end_points: x2, y2 and first point of each arc's points, in the arc's own order.
        passing: bool [2 A], whether the arc end goes on through the junction.
        most_shift_px: how far a junction may lie from its crack vertex.
    """
    x2, y2, arc_point = end_points
    m, v, line = np.zeros((2, 2)), np.zeros(2), np.empty(4)
    for j in range(len(plane_x)):
        jx, jy = float(plane_x[j]), float(plane_y[j])
        on_x, on_y = not 0 < jx < width, not 0 < jy < height
        m[0, 0], m[0, 1], m[1, 0], m[1, 1] = PULL, 0.0, 0.0, PULL
        v[:] = 0.0
        for d in range(4):
            end = ends[j, d]
            if end < 0:
                continue
            if not end_line(x2, y2, arc_point[end // 2], arc_point[end // 2 + 1], end % 2 == 1, line):
                continue
            weight = PASSING_WEIGHT if passing[end] else 1.0
            nx, ny = -line[3], line[2]
            off = nx * (line[0] - jx) + ny * (line[1] - jy)
            m[0, 0] += weight * nx * nx
            m[0, 1] += weight * nx * ny
            m[1, 0] += weight * nx * ny
            m[1, 1] += weight * ny * ny
            v[0] += weight * nx * off
            v[1] += weight * ny * off
        if on_x:
            v[0], m[0, 0], m[0, 1] = 0.0, 1.0, 0.0
        if on_y:
            v[1], m[1, 1], m[1, 0] = 0.0, 1.0, 0.0
        if not solve(m, v, 2):
            v[:] = 0.0
        far = np.sqrt(v[0] ** 2 + v[1] ** 2)
        scale = min(1.0, most_shift_px / max(far, 1e-9))
        out[j, 0] = jx if on_x else jx + scale * v[0]
        out[j, 1] = jy if on_y else jy + scale * v[1]


@inlined
def on_segment(kind: int, row: F64, t: float) -> tuple[float, float]:
    """The place at parameter t (0 to 1) of a segment."""
    if kind == LINE:
        return row[0] + t * (row[2] - row[0]), row[1] + t * (row[3] - row[1])
    if kind == CUBIC:
        r = 1 - t
        a, b, c, d = r * r * r, 3 * r * r * t, 3 * r * t * t, t * t * t
        return a * row[0] + b * row[2] + c * row[4] + d * row[6], a * row[1] + b * row[3] + c * row[5] + d * row[7]
    if t == 0:
        return row[0], row[1]
    if t == 1:
        return row[8], row[9]
    c, s = np.cos(row[6]), np.sin(row[6])
    u, w = (row[0] - row[2]) * c + (row[1] - row[3]) * s, (row[1] - row[3]) * c - (row[0] - row[2]) * s
    angle = np.arctan2(w / row[5], u / row[4]) + t * row[7]
    u, w = row[4] * np.cos(angle), row[5] * np.sin(angle)
    return row[2] + u * c - w * s, row[3] + u * s + w * c


@inlined
def nearest_parameter(kind: int, row: F64, px: float, py: float) -> float:
    """The parameter at which a segment comes nearest to (px, py): by samples, then by halving about the best."""
    if kind == LINE:
        dx, dy = row[2] - row[0], row[3] - row[1]
        along = ((px - row[0]) * dx + (py - row[1]) * dy) / max(dx * dx + dy * dy, 1e-12)
        return float(min(max(along, 0.0), 1.0))
    best, least = 0.0, 1e300
    samples = SAMPLES * 4 if kind >= ARC else SAMPLES
    for i in range(samples + 1):
        x, y = on_segment(kind, row, i / samples)
        away = (x - px) ** 2 + (y - py) ** 2
        if away < least:
            best, least = i / samples, away
    step = 0.5 / samples
    while step > 1e-5:
        for side in range(-1, 2, 2):
            t = min(max(best + side * step, 0.0), 1.0)
            x, y = on_segment(kind, row, t)
            away = (x - px) ** 2 + (y - py) ** 2
            if away < least:
                best, least = t, away
        step *= 0.5
    return best


@inlined
def draw_end(kind: int, row: F64, at_start: bool, px: float, py: float) -> None:
    """Moves one end of a segment to (px, py), and the handle beside it by as much."""
    if kind == LINE:
        a, b = (0, 1) if at_start else (2, 3)
        row[a], row[b] = px, py
    elif kind == CUBIC:
        a, h = (0, 2) if at_start else (6, 4)
        row[h] += px - row[a]
        row[h + 1] += py - row[a + 1]
        row[a], row[a + 1] = px, py
    elif kind != ELLIPSE:
        a = 0 if at_start else 8
        row[a], row[a + 1] = px, py
