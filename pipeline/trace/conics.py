"""Circles and ellipses through points, by least squares of the distance.

Kåsa's linear fit starts a circle and the moments of the area an ellipse; Gauss-Newton steps on the distance finish both
(Gander, Golub and Strebel, "Least-squares fitting of circles and ellipses", BIT 34, 1994; the ellipse's distance to
first order, as Sampson takes it). All functions are kernels: compiled, without allocation per point.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.types import F64

STEPS = 4
TINY = 1e-12

RIDGE = 1e-6
"""Keeps the equations of an ellipse soluble that is a circle, whose turn is anything."""

STILL_PX = 1e-4
"""A circle whose step is shorter has arrived."""


@inlined
def solve(m: F64, b: F64, n: int) -> bool:
    """Gaussian elimination with row pivots on m [n, n] and b [n] in place; False where m is singular."""
    for i in range(n):
        pivot = i
        for row in range(i + 1, n):
            if abs(m[row, i]) > abs(m[pivot, i]):
                pivot = row
        if abs(m[pivot, i]) < TINY:
            return False
        if pivot != i:
            for column in range(n):
                m[i, column], m[pivot, column] = m[pivot, column], m[i, column]
            b[i], b[pivot] = b[pivot], b[i]
        for row in range(i + 1, n):
            factor = m[row, i] / m[i, i]
            if factor != 0:
                for column in range(i, n):
                    m[row, column] -= factor * m[i, column]
                b[row] -= factor * b[i]
    for i in range(n - 1, -1, -1):
        for column in range(i + 1, n):
            b[i] -= m[i, column] * b[column]
        b[i] /= m[i, i]
    return True


@inlined
def circle_through(x: F64, y: F64, a: int, b: int) -> tuple[float, float, float]:
    """Centre x, y and radius of the circle nearest to points a to b (exclusive); radius 0 where there is none."""
    n = b - a
    mean_x, mean_y = 0.0, 0.0
    for i in range(a, b):
        mean_x += x[i]
        mean_y += y[i]
    mean_x, mean_y = mean_x / n, mean_y / n
    m, v = np.zeros((3, 3)), np.zeros(3)
    for i in range(a, b):
        u, w = x[i] - mean_x, y[i] - mean_y
        z = u * u + w * w
        m[0, 0] += u * u
        m[0, 1] += u * w
        m[1, 1] += w * w
        v[0] += u * z
        v[1] += w * z
        v[2] += z
    m[1, 0], m[2, 2] = m[0, 1], n
    if not solve(m, v, 3):
        return 0.0, 0.0, 0.0
    cx, cy = v[0] / 2, v[1] / 2
    squared = v[2] + cx * cx + cy * cy
    if not squared > 0:
        return 0.0, 0.0, 0.0
    r = np.sqrt(squared)
    for _ in range(STEPS):
        m[:], v[:] = 0.0, 0.0
        for i in range(a, b):
            u, w = x[i] - mean_x - cx, y[i] - mean_y - cy
            d = max(np.sqrt(u * u + w * w), TINY)
            u, w, e = u / d, w / d, d - r
            m[0, 0] += u * u
            m[0, 1] += u * w
            m[0, 2] += u
            m[1, 1] += w * w
            m[1, 2] += w
            v[0] += u * e
            v[1] += w * e
            v[2] += e
        m[1, 0], m[2, 0], m[2, 1], m[2, 2] = m[0, 1], m[0, 2], m[1, 2], n
        if not solve(m, v, 3):
            return 0.0, 0.0, 0.0
        cx, cy, r = cx + v[0], cy + v[1], r + v[2]
        if abs(v[0]) + abs(v[1]) + abs(v[2]) < STILL_PX:
            break
    return cx + mean_x, cy + mean_y, r


@inlined
def _ellipse_start(x: F64, y: F64, a: int, b: int, out: F64) -> bool:
    """The ellipse with the centre and the second moments of the polygon through points a to b: centre, radii, turn."""
    area, at_x, at_y, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(a, b):
        j = i + 1 if i + 1 < b else a
        u, w, p, q = x[i] - x[a], y[i] - y[a], x[j] - x[a], y[j] - y[a]
        cross = u * q - p * w
        area += cross
        at_x += cross * (u + p)
        at_y += cross * (w + q)
        xx += cross * (u * u + u * p + p * p)
        yy += cross * (w * w + w * q + q * q)
        xy += cross * (2 * u * w + u * q + p * w + 2 * p * q)
    if abs(area) < 1:
        return False
    at_x, at_y = at_x / (3 * area), at_y / (3 * area)
    xx, yy, xy = xx / (6 * area) - at_x * at_x, yy / (6 * area) - at_y * at_y, xy / (12 * area) - at_x * at_y
    half, spread = 0.5 * (xx + yy), np.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
    if half - spread < TINY:
        return False
    out[0], out[1] = at_x + x[a], at_y + y[a]
    out[2], out[3], out[4] = 2 * np.sqrt(half + spread), 2 * np.sqrt(half - spread), 0.5 * np.arctan2(2 * xy, xx - yy)
    return True


@inlined
def ellipse_offset(e: F64, x: float, y: float) -> tuple[float, float, float]:
    """Sampson's distance of (x, y) from ellipse e (centre, radii, turn), positive outside, and its unit gradient."""
    c, s = np.cos(e[4]), np.sin(e[4])
    u, w = (x - e[0]) * c + (y - e[1]) * s, (y - e[1]) * c - (x - e[0]) * s
    gu, gw = u / (e[2] * e[2]), w / (e[3] * e[3])
    g = np.sqrt(u * gu + w * gw)
    length = max(np.sqrt(gu * gu + gw * gw), TINY)
    return (g - 1) * g / length, (gu * c - gw * s) / length, (gu * s + gw * c) / length


@inlined
def ellipse_through(x: F64, y: F64, a: int, b: int, far_px: float, out: F64) -> bool:
    """Centre, radii (px) and turn (rad) of the ellipse nearest to the closed walk of points a to b, to `out` [5].

    False where there is none, or where a point lies further than `far_px` from the ellipse of the same moments.
    """
    if b - a < 10 or not _ellipse_start(x, y, a, b, out):
        return False
    for i in range(a, b):
        off, _, _ = ellipse_offset(out, x[i], y[i])
        if abs(off) > far_px:
            return False
    m, v, slope = np.zeros((5, 5)), np.zeros(5), np.zeros(5)
    for _ in range(STEPS):
        m[:], v[:] = 0.0, 0.0
        c, s = np.cos(out[4]), np.sin(out[4])
        for i in range(a, b):
            off, gx, gy = ellipse_offset(out, x[i], y[i])
            fx, fy = x[i] - off * gx - out[0], y[i] - off * gy - out[1]
            slope[0], slope[1] = gx, gy
            slope[2] = (fx * c + fy * s) / out[2] * (gx * c + gy * s)
            slope[3] = (fy * c - fx * s) / out[3] * (gy * c - gx * s)
            slope[4] = fx * gy - fy * gx
            for j in range(5):
                v[j] += slope[j] * off
                for k in range(5):
                    m[j, k] += slope[j] * slope[k]
        for j in range(5):
            m[j, j] += RIDGE
        if not solve(m, v, 5):
            return False
        for j in range(5):
            out[j] += v[j]
        if not (out[2] > 0.5 and out[3] > 0.5 and max(out[2], out[3]) < 5000):
            return False
    return True
