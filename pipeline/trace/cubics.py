"""One cubic Bézier through a stretch of a chain: least squares on the handles, checked point by point.

The ends are given; so are the tangents there, or they are free (at corners and ends). Points take their parameter from
the chord length and, where a first fit nearly holds, once more from their foot on the curve (Schneider, "An algorithm
for automatically fitting digitized curves", Graphics Gems, 1990). The distance that counts is along the dual segment.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.trace.conics import solve

LEAST_CROSSING = 0.35
"""Least cosine between a curve's normal and a dual segment: what a curve nearly along the segment is divided by."""

HOPELESS = 2.5
"""Times the bound: beyond it a second fit is not worth its time."""

LEAST_HANDLE = 0.04
"""Of the chord."""

MOST_HANDLE = 1.3
"""Of the length of the walk."""

RIDGE = 1e-3


@inlined
def crosswise(ex, ey, tx, ty, horizontal):  # type: ignore[no-untyped-def]
    """Length along the dual segment between a point and a curve: (ex, ey) apart, where the curve runs along (tx, ty).

    The dual segment of a horizontal crack is vertical.
    """
    length = np.sqrt(tx * tx + ty * ty)
    if length < 1e-9:
        return np.sqrt(ex * ex + ey * ey)
    along = abs(tx) if horizontal else abs(ty)
    return abs(ex * ty - ey * tx) / max(along, LEAST_CROSSING * length)


@inlined
def chord_parameters(x, y, a, b, x0, y0, x3, y3, u):  # type: ignore[no-untyped-def]
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
    return length


@inlined
def _fixed_handles(x, y, a, b, ends, u, length, out):  # type: ignore[no-untyped-def]
    """Handle lengths along given tangents, as handles to out[0:4]; False where a tangent points the wrong way."""
    x0, y0, x3, y3, s0, t0, s1, t1 = ends
    a00, a01, a11, b0, b1 = 0.0, 0.0, 0.0, 0.0, 0.0
    cosine = s0 * s1 + t0 * t1
    for i in range(a, b):
        t = u[i - a]
        r = 1 - t
        f1, f2 = 3 * r * r * t, 3 * r * t * t
        g0 = r * r * r + f1
        rx, ry = x[i] - x0 * g0 - x3 * (1 - g0), y[i] - y0 * g0 - y3 * (1 - g0)
        a00 += f1 * f1
        a01 += f1 * f2
        a11 += f2 * f2
        b0 += f1 * (rx * s0 + ry * t0)
        b1 += f2 * (rx * s1 + ry * t1)
    ridge = RIDGE * (b - a)
    a00, a11, a01 = a00 + ridge, a11 + ridge, a01 * cosine
    b0, b1 = b0 + ridge * length / 3, b1 + ridge * length / 3
    den = a00 * a11 - a01 * a01
    if den < 1e-12:
        return False
    p, q = (b0 * a11 - b1 * a01) / den, (b1 * a00 - b0 * a01) / den
    chord = np.sqrt((x3 - x0) ** 2 + (y3 - y0) ** 2)
    if min(p, q) < LEAST_HANDLE * chord or max(p, q) > MOST_HANDLE * length:
        return False
    out[0], out[1], out[2], out[3] = p * s0, p * t0, q * s1, q * t1
    return True


@inlined
def _free_handles(x, y, a, b, ends, free0, free1, u, length, out):  # type: ignore[no-untyped-def]
    """Handles of which one or both may point anywhere, to out[0:4]."""
    x0, y0, x3, y3, s0, t0, s1, t1 = ends
    n0, n1 = (2 if free0 else 1), (2 if free1 else 1)
    n = n0 + n1
    m, v, gx, gy = np.zeros((4, 4)), np.zeros(4), np.zeros(4), np.zeros(4)
    for i in range(a, b):
        t = u[i - a]
        r = 1 - t
        f1, f2 = 3 * r * r * t, 3 * r * t * t
        g0 = r * r * r + f1
        rx, ry = x[i] - x0 * g0 - x3 * (1 - g0), y[i] - y0 * g0 - y3 * (1 - g0)
        gx[:], gy[:] = 0.0, 0.0
        if free0:
            gx[0], gy[1] = f1, f1
        else:
            gx[0], gy[0] = f1 * s0, f1 * t0
        if free1:
            gx[n0], gy[n0 + 1] = f2, f2
        else:
            gx[n0], gy[n0] = f2 * s1, f2 * t1
        for j in range(n):
            v[j] += gx[j] * rx + gy[j] * ry
            for k in range(n):
                m[j, k] += gx[j] * gx[k] + gy[j] * gy[k]
    ridge, third = 4 * RIDGE * (b - a), length / 3
    chord = max(np.sqrt((x3 - x0) ** 2 + (y3 - y0) ** 2), 1e-9)
    cx, cy = (x3 - x0) / chord, (y3 - y0) / chord
    for j in range(n):
        m[j, j] += ridge
    if free0:
        v[0] += ridge * third * cx
        v[1] += ridge * third * cy
    else:
        v[0] += ridge * third
    if free1:
        v[n0] -= ridge * third * cx
        v[n0 + 1] -= ridge * third * cy
    else:
        v[n0] += ridge * third
    if not solve(m, v, n):
        return False
    if not free0 and not LEAST_HANDLE * chord <= v[0] <= MOST_HANDLE * length:
        return False
    if not free1 and not LEAST_HANDLE * chord <= v[n0] <= MOST_HANDLE * length:
        return False
    out[0], out[1] = (v[0], v[1]) if free0 else (v[0] * s0, v[0] * t0)
    out[2], out[3] = (v[n0], v[n0 + 1]) if free1 else (v[n0] * s1, v[n0] * t1)
    reach = MOST_HANDLE * length
    return out[0] ** 2 + out[1] ** 2 <= reach * reach and out[2] ** 2 + out[3] ** 2 <= reach * reach


@inlined
def _strain(x, y, horizontal, bound, a, b, ends, u, h):  # type: ignore[no-untyped-def]
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
def fit_cubic(x, y, horizontal, bound, a, b, ends, free0, free1, rounds, u, out):  # type: ignore[no-untyped-def]
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
    handles = np.empty(4)
    best, best_squares = 1e9, 0.0
    for turn in range(rounds):
        if free0 or free1:
            solved = _free_handles(x, y, a, b, ends, free0, free1, u, length, handles)
        else:
            solved = _fixed_handles(x, y, a, b, ends, u, length, handles)
        if not solved:
            break
        strain, squares = _strain(x, y, horizontal, bound, a, b, ends, u, handles)
        if strain < best:
            best, best_squares = strain, squares
            out[0], out[1], out[2], out[3] = handles[0], handles[1], handles[2], handles[3]
        if strain > HOPELESS or (turn == 0 and strain <= 1 and rounds <= 2):
            break
    return best, best_squares
