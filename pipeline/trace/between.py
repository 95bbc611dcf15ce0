"""Circles and lines that pass between the pixels: the middle of all that have each pixel's centre on its own side.

A circle that was sampled at pixel centres leaves more than a walk of cracks to fit: every circle that separates the
same centres would have given the same pixels, and no other. In the centre (a, b) and k = r² - a² - b² these are a
convex set (Damaschke, "The linear time recognition of digital arcs", Pattern Recognition Letters 16, 1995), and so are
lines. The analytic centre of the set lies nearer to what was drawn than least squares do; tests/test_between.py holds
by how much. Newton's steps find it, damped so that they stay inside, after a first phase that finds a point of the set
where there is one (Boyd and Vandenberghe, "Convex Optimization", 2004, sections 9.6 and 11.4).
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.trace.conics import solve
from pipeline.types import F64, Mask

STEPS = 60
"""Newton steps at most, of both phases together."""

NEARER = 10.0
"""How much more the first phase wants a circle of the set, against room around it, each time it has settled."""

SETTLED = 0.1
"""Newton decrement at which the first phase wants more, and the second has found the centre."""

FULL_STEP = 0.25
"""Newton decrement below which whole steps stay inside."""

HOPELESS = 1e-6
"""Duality gap at which no point of the set is expected any more: px for lines, squared radii for circles."""


@inlined
def _list_circle_sides(x: F64, y: F64, horizontal: Mask, a: int, b: int, circle: F64, rows: F64) -> None:
    """Two rows for each crack a to b, one for each pixel beside it: the circles that have its centre on its side.

    In units of the radius about the circle's centre. A row g means g[0] u + g[1] w + g[2] k + g[3] < 0.
    """
    cx, cy, r = circle[0], circle[1], circle[2]
    for i in range(a, b):
        u, w = (x[i] - cx) / r, (y[i] - cy) / r
        half_u, half_w = (0.0, 0.5 / r) if horizontal[i] else (0.5 / r, 0.0)
        outward = 1.0 if u * half_u + w * half_w > 0 else -1.0
        for side in range(2):
            sign = 1.0 - 2.0 * side
            p, q = u - sign * outward * half_u, w - sign * outward * half_w
            row = rows[2 * (i - a) + side]
            row[0], row[1], row[2], row[3] = -2 * sign * p, -2 * sign * q, -sign, sign * (p * p + q * q)


@inlined
def _list_line_sides(x: F64, y: F64, horizontal: Mask, a: int, b: int, line: F64, half: float, rows: F64) -> None:
    """Two rows for each crack a to b, as above: the lines that have its centre on their side.

    A row g means g[0] w + g[1] t + g[2] < 0 for a line that lies w px beside `line` and rises by t px over `half` px.
    """
    for i in range(a, b):
        half_x, half_y = (0.0, 0.5) if horizontal[i] else (0.5, 0.0)
        outward = 1.0 if half_y * line[2] - half_x * line[3] > 0 else -1.0
        for side in range(2):
            sign = 1.0 - 2.0 * side
            dx, dy = x[i] - sign * outward * half_x - line[0], y[i] - sign * outward * half_y - line[1]
            row = rows[2 * (i - a) + side]
            row[0], row[1] = -sign, -sign * (dx * line[2] + dy * line[3]) / half
            row[2] = sign * (dy * line[2] - dx * line[3])


@inlined
def _missed(g: F64, v: F64, unknowns: int) -> float:
    missed = g[unknowns]
    for j in range(unknowns):
        missed += g[j] * v[j]
    return float(missed)


@inlined
def _most_missed(rows: F64, n: int, v: F64, unknowns: int) -> float:
    most = -np.inf
    for i in range(n):
        most = max(most, _missed(rows[i], v, unknowns))
    return float(most)


@inlined
def _step(rows: F64, n: int, v: F64, unknowns: int, slack: bool, weight: float, m: F64, step: F64) -> float:
    """Newton's step of the barrier at v, to `step`; its decrement, negative where there is none.

    With `slack`, v[unknowns] is what every row may miss by, and `weight` how much less of it is wanted.
    """
    size = unknowns + 1 if slack else unknowns
    m[:], step[:] = 0.0, 0.0
    for i in range(n):
        g = rows[i]
        near = 1 / ((v[unknowns] if slack else 0.0) - _missed(g, v, unknowns))
        squared = near * near
        for j in range(unknowns):
            step[j] -= near * g[j]
            for k in range(j + 1):
                m[j, k] += squared * g[j] * g[k]
        if slack:
            step[unknowns] += near
            m[unknowns, unknowns] += squared
            for k in range(unknowns):
                m[unknowns, k] -= squared * g[k]
    if slack:
        step[unknowns] -= weight
    for j in range(size):
        for k in range(j):
            m[k, j] = m[j, k]
    gradient = step.copy()
    if not solve(m, step, size):
        return -1.0
    decrement = 0.0
    for j in range(size):
        decrement += gradient[j] * step[j]
    return float(np.sqrt(max(decrement, 0.0)))


@inlined
def _middle(rows: F64, n: int, v: F64, unknowns: int) -> bool:
    """Moves v to the analytic centre of the half-spaces; False where they have no point in common."""
    m, step = np.empty((4, 4)), np.empty(4)
    v[unknowns] = _most_missed(rows, n, v, unknowns)
    slack = v[unknowns] >= 0
    v[unknowns] = 1.25 * v[unknowns] + HOPELESS
    weight = n / max(v[unknowns], HOPELESS)
    for _ in range(STEPS):
        decrement = _step(rows, n, v, unknowns, slack, weight, m, step)
        if decrement < 0:
            return False
        if decrement >= SETTLED:
            share = 1.0 if decrement < FULL_STEP else 1 / (1 + decrement)
            for j in range(unknowns + 1 if slack else unknowns):
                v[j] += share * step[j]
            slack = slack and _most_missed(rows, n, v, unknowns) >= 0
        elif not slack:
            return True
        elif v[unknowns] - n / weight > 0 or n / weight < HOPELESS:
            return False
        else:
            weight *= NEARER
    return False


@inlined
def circle_between(x: F64, y: F64, horizontal: Mask, a: int, b: int, circle: F64) -> bool:
    """Moves `circle` (centre, radius, px), which is near, to the middle of those between the pixels of cracks a to b.

    False, and nothing is moved, where no circle has every pixel's centre on its side.
    """
    n = 2 * (b - a)
    rows, v = np.empty((n, 4)), np.empty(4)
    v[0], v[1], v[2], v[3] = 0.0, 0.0, 1.0, 0.0
    _list_circle_sides(x, y, horizontal, a, b, circle, rows)
    if not _middle(rows, n, v, 3):
        return False
    squared = v[2] + v[0] * v[0] + v[1] * v[1]
    if not squared > 0:
        return False
    r = circle[2]
    circle[0], circle[1], circle[2] = circle[0] + r * v[0], circle[1] + r * v[1], r * np.sqrt(squared)
    return True


@inlined
def line_between(x: F64, y: F64, horizontal: Mask, a: int, b: int, line: F64) -> bool:
    """Moves `line` (a place, px, and a unit direction), which is near, as `circle_between` moves a circle."""
    n = 2 * (b - a)
    rows, v = np.empty((n, 3)), np.zeros(3)
    c, s = line[2], line[3]
    half = 0.5 * abs((x[b - 1] - x[a]) * c + (y[b - 1] - y[a]) * s) + 0.5
    _list_line_sides(x, y, horizontal, a, b, line, half, rows)
    if not _middle(rows, n, v, 2):
        return False
    rise = v[1] / half
    length = np.sqrt(1 + rise * rise)
    line[0], line[1] = line[0] - s * v[0], line[1] + c * v[0]
    line[2], line[3] = (c - s * rise) / length, (s + c * rise) / length
    return True
