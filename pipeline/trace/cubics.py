"""One cubic Bézier through a stretch of a chain: least squares on the handles, checked point by point.

The ends are given; so are the tangents there, or they are free (at corners and ends). Points take their parameter from
the chord length and, where a first fit nearly holds, once more from their foot on the curve (Schneider, "An algorithm
for automatically fitting digitized curves", Graphics Gems, 1990). The distance that counts is along the dual segment.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.types import F64, Mask

LEAST_CROSSING = 0.35
"""Least cosine between a curve's normal and a dual segment: what a curve nearly along the segment is divided by."""

HOPELESS = 2.5
"""Times the bound: beyond it a second fit is not worth its time."""

SCATTER = 4

LEAST_HANDLE = 0.04
"""Of the chord."""

MOST_HANDLE = 1.3
"""Of the length of the walk."""

RIDGE = 1e-3


@inlined
def crosswise(ex: float, ey: float, tx: float, ty: float, horizontal: bool) -> float:
    """Length along the dual segment between a point and a curve: (ex, ey) apart, where the curve runs along (tx, ty).

    The dual segment of a horizontal crack is vertical.
    """
    length = np.sqrt(tx * tx + ty * ty)
    if length < 1e-9:
        return float(np.sqrt(ex * ex + ey * ey))
    along = abs(tx) if horizontal else abs(ty)
    return float(abs(ex * ty - ey * tx) / max(along, LEAST_CROSSING * length))


@inlined
def chord_parameters(x: F64, y: F64, a: int, b: int, x0: float, y0: float, x3: float, y3: float, u: F64) -> float:
    """Parameters of points a to b by chord length, to u[0:b - a]; returns the length of the walk."""
    length, px, py = 0.0, x0, y0
    for i in range(a, b):
        dx, dy = x[i] - px, y[i] - py
        length += np.sqrt(dx * dx + dy * dy)
        u[i - a] = length
        px, py = x[i], y[i]
    length += np.sqrt((x3 - px) ** 2 + (y3 - py) ** 2)
    scale = 1 / max(length, 1e-9)
    for i in range(b - a):
        u[i] *= scale
    return float(length)


@inlined
def _sums(x: F64, y: F64, a: int, b: int, ends: F64, u: F64, q: F64) -> None:
    """Sums of the normal equations over points a to b at parameters u, to q, see `handles_from`."""
    x0, y0, x3, y3 = ends[0], ends[1], ends[2], ends[3]
    q[:7] = 0.0
    for i in range(a, b):
        t = u[i - a]
        r = 1 - t
        f1, f2 = 3 * r * r * t, 3 * r * t * t
        g0 = r * r * r + f1
        rx, ry = x[i] - x0 * g0 - x3 * (1 - g0), y[i] - y0 * g0 - y3 * (1 - g0)
        q[0] += f1 * f1
        q[1] += f1 * f2
        q[2] += f2 * f2
        q[3] += f1 * rx
        q[4] += f1 * ry
        q[5] += f2 * rx
        q[6] += f2 * ry


@inlined
def handles_from(q: F64, n: int, length: float, ends: F64, free0: bool, free1: bool, out: F64) -> bool:
    """The handles of least squares, each along its tangent or free, to out[0:4]; False where a handle points backward.

    Args:
        q: sums over the n points, with f1 = 3 t (1 - t)^2, f2 = 3 t^2 (1 - t) and r the rest of a point after the share
            of both ends: f1 f1, f1 f2, f2 f2, f1 r (x and y), f2 r (x and y).
        n, length: number of points and length of the walk, px.
        ends, free0, free1: as for `fit_cubic`.
    """
    chord_x, chord_y = ends[2] - ends[0], ends[3] - ends[1]
    chord = max(np.sqrt(chord_x * chord_x + chord_y * chord_y), 1e-9)
    ridge = (4 * RIDGE if free0 or free1 else RIDGE) * n
    third = ridge * length / 3
    cx, cy = third * chord_x / chord, third * chord_y / chord
    a00, a01, a11 = q[0] + ridge, q[1], q[2] + ridge
    s0, t0, s1, t1 = ends[4], ends[5], ends[6], ends[7]
    least, most = LEAST_HANDLE * chord, MOST_HANDLE * length
    if free0 and free1:
        den = a00 * a11 - a01 * a01
        if den < 1e-12:
            return False
        ax, ay, bx, by = q[3] + cx, q[4] + cy, q[5] - cx, q[6] - cy
        out[0], out[1] = (ax * a11 - bx * a01) / den, (ay * a11 - by * a01) / den
        out[2], out[3] = (bx * a00 - ax * a01) / den, (by * a00 - ay * a01) / den
    elif free0 or free1:
        s, t, a, b = (s1, t1, a00, a11) if free0 else (s0, t0, a11, a00)
        fx, fy = (q[3] + cx, q[4] + cy) if free0 else (q[5] - cx, q[6] - cy)
        along = (q[5] * s + q[6] * t if free0 else q[3] * s + q[4] * t) + third
        den = b - a01 * a01 / a
        if den < 1e-12:
            return False
        length_of = (along - a01 / a * (fx * s + fy * t)) / den
        if not least <= length_of <= most:
            return False
        fx, fy = (fx - a01 * length_of * s) / a, (fy - a01 * length_of * t) / a
        if free0:
            out[0], out[1], out[2], out[3] = fx, fy, length_of * s, length_of * t
        else:
            out[0], out[1], out[2], out[3] = length_of * s, length_of * t, fx, fy
    else:
        b0, b1 = q[3] * s0 + q[4] * t0 + third, q[5] * s1 + q[6] * t1 + third
        cross = a01 * (s0 * s1 + t0 * t1)
        den = a00 * a11 - cross * cross
        if den < 1e-12:
            return False
        one, two = (b0 * a11 - b1 * cross) / den, (b1 * a00 - b0 * cross) / den
        if min(one, two) < least or max(one, two) > most:
            return False
        out[0], out[1], out[2], out[3] = one * s0, one * t0, two * s1, two * t1
    return bool(out[0] ** 2 + out[1] ** 2 <= most * most and out[2] ** 2 + out[3] ** 2 <= most * most)


@inlined
def holds_sampled(
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
    a: int,
    b: int,
    along: F64,
    begin: float,
    length: float,
    stride: int,
    ends: F64,
    h: F64,
    out: F64,
) -> bool:
    """Whether a cubic passes every stride-th point within its bound; the sum of squares over all, about, to out[0].

    Points have the parameters (along - begin) / length. Every SCATTER-th of them comes first: what fails, fails soon.
    """
    x0, y0 = ends[0], ends[1]
    gx, gy = ends[2] - x0, ends[3] - y0
    squares, scale = 0.0, 1 / length
    first = a + min(stride - 1, b - a - 1) // 2
    many = (b - 1 - first) // stride + 1
    turn, k = SCATTER // 2, SCATTER // 2
    for _ in range(many):
        while k >= many:
            turn = (turn + 1) % SCATTER
            k = turn
        i = first + k * stride
        k += SCATTER
        t = (along[i] - begin) * scale
        r = 1 - t
        f1, f2, g3 = 3 * r * r * t, 3 * r * t * t, t * t * (3 - 2 * t)
        ex = x0 + gx * g3 + h[0] * f1 + h[2] * f2 - x[i]
        ey = y0 + gy * g3 + h[1] * f1 + h[3] * f2 - y[i]
        w1, wm, w2 = 3 * r * (r - 2 * t), 3 * t * (2 * r - t), 6 * r * t
        dx, dy = h[0] * w1 + h[2] * wm + w2 * gx, h[1] * w1 + h[3] * wm + w2 * gy
        squared = max(dx * dx + dy * dy, 1e-12)
        cross = ex * dy - ey * dx
        across = dx if horizontal[i] else dy
        squares += cross * cross / squared
        # |cross| / max(|across|, LEAST_CROSSING |d|) against the bound, without a root
        if cross * cross > bound[i] * bound[i] * max(across * across, LEAST_CROSSING * LEAST_CROSSING * squared):
            return False
    out[0] = squares * stride
    return True


@inlined
def _strain(
    x: F64, y: F64, horizontal: Mask, bound: F64, a: int, b: int, ends: F64, u: F64, h: F64
) -> tuple[float, float]:
    """The largest distance as a share of its bound, and the sum of squared distances; u moves to the points' feet."""
    x0, y0, x3, y3 = ends[0], ends[1], ends[2], ends[3]
    worst, squares = 0.0, 0.0
    for i in range(a, b):
        t = u[i - a]
        r = 1 - t
        f1, f2 = 3 * r * r * t, 3 * r * t * t
        g0 = r * r * r + f1
        ex = x0 * g0 + x3 * (1 - g0) + h[0] * f1 + h[2] * f2 - x[i]
        ey = y0 * g0 + y3 * (1 - g0) + h[1] * f1 + h[3] * f2 - y[i]
        w1, wm, w2 = 3 * r * (r - 2 * t), 3 * t * (2 * r - t), 6 * r * t
        dx = h[0] * w1 + h[2] * wm + w2 * (x3 - x0)
        dy = h[1] * w1 + h[3] * wm + w2 * (y3 - y0)
        squared = dx * dx + dy * dy
        apart = crosswise(ex, ey, dx, dy, horizontal[i])
        strain = apart / bound[i]
        if strain > worst:
            worst = strain
            if worst > HOPELESS:
                return worst, squares
        cross = ex * dy - ey * dx
        squares += cross * cross / max(squared, 1e-12)
        if squared > 1e-12:
            u[i - a] = min(max(t - (ex * dx + ey * dy) / squared, 0.0), 1.0)
    return worst, squares


@inlined
def fit_cubic(
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
    a: int,
    b: int,
    ends: F64,
    free0: bool,
    free1: bool,
    rounds: int,
    u: F64,
    out: F64,
) -> tuple[float, float]:
    """Fit points a to b (exclusive); the handles, as offsets from their ends, go to out[0:4].

    Args:
        x, y: float64 [P], points in px.
        horizontal, bound: whether each point's crack is horizontal, and how far the curve may pass it, in px.
        a, b: the points.
        ends: x0, y0, x3, y3, then the unit tangent at the start and, backward, at the end.
        free0, free1: whether the start's and the end's handle may point anywhere.
        rounds: fits to try at most, each after moving the parameters.
        u: scratch of at least b - a.
        out: handles of the best fit.

    Returns:
        The largest distance as a share of its bound (at most 1 where the fit holds), and the sum of squared distances.
    """
    if b <= a:
        third_x, third_y = (ends[2] - ends[0]) / 3, (ends[3] - ends[1]) / 3
        out[0], out[1], out[2], out[3] = third_x, third_y, -third_x, -third_y
        return 0.0, 0.0
    length = chord_parameters(x, y, a, b, ends[0], ends[1], ends[2], ends[3], u)
    handles, q = np.empty(4), np.empty(7)
    best, best_squares = 1e9, 0.0
    for turn in range(rounds):
        _sums(x, y, a, b, ends, u, q)
        if not handles_from(q, b - a, length, ends, free0, free1, handles):
            break
        strain, squares = _strain(x, y, horizontal, bound, a, b, ends, u, handles)
        if strain < best:
            best, best_squares = strain, squares
            out[0], out[1], out[2], out[3] = handles[0], handles[1], handles[2], handles[3]
        if strain > HOPELESS or (turn == 0 and strain <= 1 and rounds <= 2):
            break
    return best, best_squares
