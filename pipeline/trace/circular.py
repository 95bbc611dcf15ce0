"""Circular stretches of a chain, and chains that are a circle or an ellipse as a whole."""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.trace.between import circle_between
from pipeline.trace.conics import circle_through, ellipse_offset, ellipse_through
from pipeline.trace.cubics import crosswise
from pipeline.types import F64, Mask

LEAST_POINTS = 32
LEAST_SWEEP_RAD = 1.1
MOST_SWEEP_RAD = 5.5
"""Beyond it the ends of a stretch come so near each other that its sweep hangs on where they lie."""

STEP = 12

ROUND_RAD = 6.0
"""A closed outline is round where it goes so far round its centre; a thin crescent goes there and back."""

STEADY = 0.6
"""Least length of an arc for each crack that it covers, px: along a diagonal it is 0.71."""

CIRCLE_PX = 0.62
"""How far, along the dual segments, a circular stretch may pass its points; less where the bound is less."""

SPOT_PX, SPOT_ASPECT, SPOT_LIMIT_PX = 8.0, 3.0, 1.2
"""A closed outline no larger and no slenderer may be drawn as an ellipse that passes its points by more."""

START_PX = 1.0
"""How much further than it may an ellipse of a closed outline's moments passes its points, where one may be found."""


@inlined
def _circle_strain(
    x: F64, y: F64, horizontal: Mask, bound: F64, a: int, b: int, cx: float, cy: float, r: float
) -> float:
    worst = 0.0
    for i in range(a, b):
        u, w = x[i] - cx, y[i] - cy
        d = max(np.sqrt(u * u + w * w), 1e-9)
        over = (d - r) / d
        worst = max(worst, crosswise(u * over, w * over, -w, u, horizontal[i]) / bound[i])
        if worst > 1:
            break
    return worst


@inlined
def sweep_about(x: F64, y: F64, a: int, b: int, cx: float, cy: float) -> float:
    """The signed angle in which points a to b go round (cx, cy)."""
    total = 0.0
    for i in range(a + 1, b):
        ux, uy, vx, vy = x[i - 1] - cx, y[i - 1] - cy, x[i] - cx, y[i] - cy
        total += np.arctan2(ux * vy - uy * vx, ux * vx + uy * vy)
    return total


@inlined
def _goes_round(x: F64, y: F64, a: int, b: int, cx: float, cy: float, r: float) -> bool:
    """Whether points a to b go round (cx, cy) far enough for an arc, and never back along it."""
    sweep = abs(sweep_about(x, y, a, b, cx, cy))
    return sweep >= LEAST_SWEEP_RAD and sweep * r >= STEADY * (b - a)


@inlined
def _may_be_circular(x: F64, y: F64, a: int, b: int) -> bool:
    """A cheap look at five places of a stretch: whether their sagittas are those of a circle, to about a pixel."""
    last = b - 1
    m = (a + last) // 2
    dx, dy = x[last] - x[a], y[last] - y[a]
    chord = max(np.sqrt(dx * dx + dy * dy), 1e-9)
    bulge = ((x[m] - x[a]) * dy - (y[m] - y[a]) * dx) / chord
    if abs(bulge) < 0.7:
        return False
    for i in ((a + m) // 2, (m + last) // 2):
        off = ((x[i] - x[a]) * dy - (y[i] - y[a]) * dx) / chord
        along = abs(((x[i] - x[m]) * dx + (y[i] - y[m]) * dy) / chord)
        r = abs(bulge) / 2 + chord * chord / (8 * abs(bulge))
        if along > r:
            return False
        want = abs(bulge) - r + np.sqrt(r * r - along * along)
        if abs(off * np.sign(bulge) - want) > 1.3:
            return False
    return True


@inlined
def _circle_run(
    x: F64, y: F64, horizontal: Mask, limit: F64, low: int, high: int, at: int, out: F64
) -> tuple[int, int]:
    """Grows a circular stretch from points at to at + LEAST_POINTS; its centre and radius to out[0:3].

    Returns its first point and the one behind its last; equal where there is none.
    """
    a, b = at, at + LEAST_POINTS
    if b > high:
        return at, at
    if not _may_be_circular(x, y, a, b):
        return at, at
    cx, cy, r = circle_through(x, y, a, b)
    if not 3 < r < 3000 or _circle_strain(x, y, horizontal, limit, a, b, cx, cy, r) > 1:
        return at, at
    for side in range(2):
        step = 64
        while step >= 1:
            na, nb = (a, min(b + step, high)) if side == 0 else (max(a - step, low), b)
            if na == a and nb == b:
                break
            ncx, ncy, nr = circle_through(x, y, na, nb)
            if 3 < nr < 3000 and _circle_strain(x, y, horizontal, limit, na, nb, ncx, ncy, nr) <= 1:
                a, b, cx, cy, r = na, nb, ncx, ncy, nr
            else:
                step //= 2
    if b - a < LEAST_POINTS or not _goes_round(x, y, a, b, cx, cy, r):
        return at, at
    trim = 2
    if b - a > 6 * trim:
        cx, cy, r = circle_through(x, y, a + trim, b - trim)
    out[0], out[1], out[2] = cx, cy, r
    return a, b


@inlined
def find_circles(x: F64, y: F64, horizontal: Mask, limit: F64, low: int, high: int, turn: F64, runs: F64) -> int:
    """Circular stretches between points low and high, in order, as rows first, last, centre, radius; their number."""
    found, at = 0, low
    circle = np.empty(3)
    end = low
    while at + LEAST_POINTS <= high and found < len(runs):
        a, b = _circle_run(x, y, horizontal, limit, end, high, at, circle)
        if b > a:
            for v in range(a + 4, b - 3):  # a corner ends a stretch
                if turn[v] > 0.9 and v > a + 4:
                    b = v
                    break
            tail = min(int(np.sqrt(circle[2])) + 2, (b - a) // 4)
            a, b = (a + tail if a > low else a), (b - tail if b < high else b)
            while b - a > LEAST_POINTS and abs(sweep_about(x, y, a, b, circle[0], circle[1])) > MOST_SWEEP_RAD:
                b -= 2
            if b - a >= LEAST_POINTS:
                cx, cy, r = circle_through(x, y, a, b)
                if r > 3 and _goes_round(x, y, a, b, cx, cy, r):
                    runs[found, 0], runs[found, 1] = a, b
                    runs[found, 2], runs[found, 3], runs[found, 4] = cx, cy, r
                    circle_between(x, y, horizontal, a, b, runs[found, 2:5])
                    found += 1
                    end = b
                    at = b
                    continue
        at += STEP
    return found


@inlined
def on_circle(x: float, y: float, cx: float, cy: float, r: float) -> tuple[float, float]:
    """The point of a circle nearest to (x, y)."""
    u, w = x - cx, y - cy
    d = max(np.sqrt(u * u + w * w), 1e-9)
    return cx + u * r / d, cy + w * r / d


@inlined
def _roundness(bound: float, rx: float, ry: float) -> float:
    """How far an ellipse of these radii may pass a point: further where it is a spot, which need not be one yet."""
    spot = max(rx, ry) <= SPOT_PX and max(rx, ry) <= SPOT_ASPECT * min(rx, ry)
    return min(bound, SPOT_LIMIT_PX if spot else CIRCLE_PX)


@inlined
def _is_ellipse(x: F64, y: F64, horizontal: Mask, bound: F64, low: int, high: int, e: F64) -> bool:
    """Whether ellipse e (centre, radii, turn) passes points low to high closely and reaches no further than they do."""
    c, s = np.cos(e[4]), np.sin(e[4])
    half_x = np.sqrt((e[2] * c) ** 2 + (e[3] * s) ** 2)
    half_y = np.sqrt((e[2] * s) ** 2 + (e[3] * c) ** 2)
    left, right, top, bottom = x[low], x[low], y[low], y[low]
    for i in range(low, high):
        off, gx, gy = ellipse_offset(e, x[i], y[i])
        if crosswise(off * gx, off * gy, -gy, gx, horizontal[i]) > _roundness(bound[i], e[2], e[3]):
            return False
        left, right, top, bottom = min(left, x[i]), max(right, x[i]), min(top, y[i]), max(bottom, y[i])
    across = e[0] - half_x > left - 1 and e[0] + half_x < right + 1
    return bool(across and e[1] - half_y > top - 1 and e[1] + half_y < bottom + 1)


@inlined
def closed_conic(x: F64, y: F64, horizontal: Mask, bound: F64, low: int, high: int, segments: F64) -> int:
    """The whole closed chain as a circle or an ellipse; the number of segments written, 1 or 0."""
    left, right, top, bottom = x[low], x[low], y[low], y[low]
    for i in range(low, high):
        left, right, top, bottom = min(left, x[i]), max(right, x[i]), min(top, y[i]), max(bottom, y[i])
    row = segments[0]
    px, py = 0.5 * (x[low - 1] + x[low]), 0.5 * (y[low - 1] + y[low])
    if abs(right - left - bottom + top) <= 4 * SPOT_LIMIT_PX:
        cx, cy, r = circle_through(x, y, low, high)
        limit = np.empty(high)
        for i in range(low, high):
            limit[i] = _roundness(bound[i], r, r)
        if r > 0.4 and _circle_strain(x, y, horizontal, limit, low, high, cx, cy, r) <= 1:
            sweep = sweep_about(x, y, low, high + 1, cx, cy)
            if abs(sweep) > ROUND_RAD:
                circle = np.array([cx, cy, r])
                circle_between(x, y, horizontal, low, high, circle)
                cx, cy, r = circle
                row[0], row[1] = on_circle(px, py, cx, cy, r)
                row[2], row[3], row[4], row[5] = cx, cy, r, r
                row[6], row[7], row[8], row[9] = 0.0, np.sign(sweep) * 2 * np.pi, row[0], row[1]
                return 1
    e, far_px = np.empty(5), START_PX + _roundness(SPOT_LIMIT_PX, 0.5 * (right - left), 0.5 * (bottom - top))
    if high - low < 12 or not ellipse_through(x, y, low, high, far_px, e):
        return 0
    if not _is_ellipse(x, y, horizontal, bound, low, high, e):
        return 0
    sweep = sweep_about(x, y, low, high + 1, e[0], e[1])
    if abs(sweep) < ROUND_RAD:
        return 0
    c, s = np.cos(e[4]), np.sin(e[4])
    u, w = px - e[0], py - e[1]
    start = np.arctan2((w * c - u * s) / e[3], (u * c + w * s) / e[2])
    u, w = e[2] * np.cos(start), e[3] * np.sin(start)
    row[0], row[1], row[2], row[3] = e[0] + u * c - w * s, e[1] + u * s + w * c, e[0], e[1]
    row[4], row[5] = e[2], e[3]
    row[6], row[7], row[8], row[9] = e[4], np.sign(sweep) * 2 * np.pi, row[0], row[1]
    return 1
