"""Hidden borders: how far a layer reaches beneath the layers painted after it.

Where an ink meets one that is painted later, only the later one's outline shows. The earlier layer has to end somewhere
beneath it, deep enough that no renderer's anti-aliasing lets the page through, and that is all: a *trap*. So the border
there needs no curve. It is the polyline of fewest vertices through a row of gates, one across the later ink at each
crack (ordered stabbing, Guibas et al., "Approximating polygons and subdivisions with minimum-link paths", 1993, taken
greedily).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from pipeline.compiled import inlined
from pipeline.types import F64, I32, U8

DEPTH, DRIFT, MOST, THIN = range(4)
"""What a trap holds: how deep it is at least, px; share of the bound that a visible curve is taken to leave its cracks
by; how much deeper it may be, px; share of a thin ink's breadth that is kept on both sides."""

Below: TypeAlias = tuple[U8, I32, int, F64]
"""What a layer ends beneath: uint8 [H, W], the index map; int32 [256], the rank of each label; the layer's own rank;
and float64 [4], its trap."""

REACH_PX = 10.0

END_POINTS = 2
"""Gates at each end of an open border that begin at the crack itself, and are left out where nothing is in the way:
there the later ink may begin as a wedge."""

CLEAR_PX = 1.0
OPEN_END_PX = 2.0
GRAIN_PX = 0.3
PASSED_PX = 1.5
"""A gate seen from behind, no further away than this, has been passed: gates on the inside of a bend cross."""
STEP_PX = 0.5
GRAZE_PX = 1.0
"""So far along a normal it may still run through the corner of an own pixel."""
NORMAL_REACH = 2
FAR_MARGIN_PX = 0.4
"""Kept, beyond the bound, from a neighbour that is painted earlier."""


@inlined
def reach_beneath(index: U8, rank_of: I32, x: float, y: float, nx: float, ny: float, mine: int) -> tuple[float, int]:
    """How far from (x, y) along (nx, ny) only later-painted pixels lie, up to REACH_PX, and what ends that.

    Args:
        index: uint8 [H, W]; rank_of: int32 [256], painting order of each label; mine: the rank of this layer.

    Returns:
        The length in px, and the rank met there (mine + 1 where nothing was met).
    """
    height, width = index.shape
    t = STEP_PX
    while t <= REACH_PX:
        px, py = int(np.floor(x + t * nx)), int(np.floor(y + t * ny))
        if not (0 <= px < width and 0 <= py < height):
            return t - STEP_PX, mine
        met = rank_of[index[py, px]]
        if met < mine or (met == mine and t > GRAZE_PX):
            return t - STEP_PX, met
        t += STEP_PX
    return REACH_PX, mine + 1


@inlined
def set_gates(
    index: U8, rank_of: I32, mine: int, trap: F64, x: F64, y: F64, bound: F64, n: int, closed: bool, gates: F64
) -> None:
    """The gate at each of n points: near x, y and far x, y, to gates [n, 4]. The later ink lies to the right.

    A gate begins where the trap is deep enough and ends before the next earlier neighbour; where the later ink is too
    thin for both, it is the middle.
    """
    far = np.empty(n)
    for i in range(n):
        a, b = i - NORMAL_REACH, i + NORMAL_REACH
        if closed:
            a, b = a % n, b % n
        else:
            a, b = max(a, 0), min(b, n - 1)
        dx, dy = x[b] - x[a], y[b] - y[a]
        length = max(np.sqrt(dx * dx + dy * dy), 1e-9)
        nx, ny = -dy / length, dx / length
        reach, met = reach_beneath(index, rank_of, x[i], y[i], nx, ny, mine)
        margin = bound[i] + FAR_MARGIN_PX if met < mine else 0.0
        near = min(trap[DRIFT] * bound[i] + trap[DEPTH], trap[THIN] * reach)
        if not closed and min(i, n - 1 - i) < END_POINTS:
            near = 0.0
        far[i] = min(max(reach - margin, (1 - trap[THIN]) * reach), near + trap[MOST])
        gates[i, 0], gates[i, 1], gates[i, 2], gates[i, 3] = near, far[i], nx, ny
    for i in range(1, n):
        far[i] = min(far[i], far[i - 1] + 1.0)
    for i in range(n - 2, -1, -1):
        far[i] = min(far[i], far[i + 1] + 1.0)
    for i in range(n):
        near, nx, ny = gates[i, 0], gates[i, 2], gates[i, 3]
        deep = max(far[i], near)
        gates[i, 0], gates[i, 1] = x[i] + near * nx, y[i] + near * ny
        gates[i, 2], gates[i, 3] = x[i] + deep * nx, y[i] + deep * ny


@inlined
def _unit(cone: F64) -> None:
    """Makes both sides of a cone one long, so that their sum is its middle."""
    for side in range(0, 4, 2):
        length = max(np.sqrt(cone[side] ** 2 + cone[side + 1] ** 2), 1e-9)
        cone[side] /= length
        cone[side + 1] /= length


@inlined
def _clip(gate: F64, px: float, py: float, cone: F64, out: F64) -> None:
    """The part of a gate inside the cone from (px, py), as parameters along it, to out[0:2]."""
    low, high = 0.0, 1.0
    gx, gy = gate[2] - gate[0], gate[3] - gate[1]
    ox, oy = gate[0] - px, gate[1] - py
    for side in range(2):
        cx, cy = (cone[0], cone[1]) if side == 0 else (-cone[2], -cone[3])
        at, slope = cx * oy - cy * ox, cx * gy - cy * gx  # inside where at + t slope >= 0
        if abs(slope) < 1e-12:
            continue
        t = -at / slope
        if slope > 0:
            low = max(low, t)
        else:
            high = min(high, t)
    out[0], out[1] = low, high


@inlined
def stab(gates: F64, begin: int, n: int, sx: float, sy: float, ex: float, ey: float, out: F64) -> int:
    """A polyline from (sx, sy) through gates begin to n to (ex, ey): its inner vertices to `out`; their number.

    From each vertex it goes as far as one line can, then takes the middle of what that line may cross of the last gate.
    """
    count, px, py = 0, sx, sy
    i, last = begin, begin - 1
    cone, part = np.zeros(4), np.empty(2)
    alive = False
    while True:
        ax, ay, bx, by = (gates[i, 0], gates[i, 1], gates[i, 2], gates[i, 3]) if i < n else (ex, ey, ex, ey)
        ax, ay, bx, by = ax - px, ay - py, bx - px, by - py
        fits = True
        nearest, widest = min(ax * ax + ay * ay, bx * bx + by * by), max(ax * ax + ay * ay, bx * bx + by * by)
        passed = ax * by - ay * bx < 0 and nearest < PASSED_PX * PASSED_PX
        if widest > 0.04 and not passed:
            if not alive:
                cone[0], cone[1], cone[2], cone[3], alive = ax, ay, bx, by, True
                _unit(cone)
                fits = ax * by - ay * bx >= 0
            else:
                lx, ly = (ax, ay) if cone[0] * ay - cone[1] * ax > 0 else (cone[0], cone[1])
                rx, ry = (bx, by) if cone[2] * by - cone[3] * bx < 0 else (cone[2], cone[3])
                ahead = (cone[0] + cone[2]) * (ax + bx) + (cone[1] + cone[3]) * (ay + by)
                fits = lx * ry - ly * rx >= 0 and ahead > 0
                if fits:
                    cone[0], cone[1], cone[2], cone[3] = lx, ly, rx, ry
                    _unit(cone)
        if fits:
            if i >= n:
                return count
            i += 1
            continue
        if i - 1 == last:  # not even one gate further: go through this one's middle
            turn = min(i, n - 1)
            px, py = 0.5 * (gates[turn, 0] + gates[turn, 2]), 0.5 * (gates[turn, 1] + gates[turn, 3])
            last = i
            i += 1
            if i > n:
                out[count, 0], out[count, 1] = px, py
                return count + 1
        else:
            _clip(gates[i - 1], px, py, cone, part)
            t = 0.5 * (min(max(part[0], 0.0), 1.0) + min(max(part[1], 0.0), 1.0))
            gate = gates[i - 1]
            px, py = gate[0] + t * (gate[2] - gate[0]), gate[1] + t * (gate[3] - gate[1])
            last = i - 1
        out[count, 0], out[count, 1] = px, py
        count += 1
        alive = False


@inlined
def _later(index: U8, rank_of: I32, mine: int, x: float, y: float) -> bool:
    """Whether the pixel at (x, y), px, is painted after rank `mine`."""
    px, py = int(np.floor(x)), int(np.floor(y))
    return bool(0 <= py < index.shape[0] and 0 <= px < index.shape[1] and rank_of[index[py, px]] > mine)


@inlined
def _clear_chord(index: U8, rank_of: I32, mine: int, px: float, py: float, qx: float, qy: float) -> bool:
    """Whether a band of CLEAR_PX on both sides of a chord, its last OPEN_END_PX left out, is painted later."""
    dx, dy = qx - px, qy - py
    length = np.sqrt(dx * dx + dy * dy)
    if length < 1e-6:
        return True
    ux, uy = dx / length, dy / length
    t = OPEN_END_PX
    while t < length - OPEN_END_PX:
        for side in range(-1, 2):
            off = side * CLEAR_PX
            if not _later(index, rank_of, mine, px + t * ux - off * uy, py + t * uy + off * ux):
                return False
        t += STEP_PX
    return True


@inlined
def _clear_triangle(
    index: U8, rank_of: I32, mine: int, ax: float, ay: float, bx: float, by: float, cx: float, cy: float
) -> bool:
    """Whether all pixels whose centres lie in a triangle, or GRAIN_PX beside it, are painted later."""
    if (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0:
        bx, by, cx, cy = cx, cy, bx, by
    sides = ((ax, ay, bx, by), (bx, by, cx, cy), (cx, cy, ax, ay))
    top, bottom = int(np.floor(min(ay, by, cy))), int(np.floor(max(ay, by, cy)))
    least, most = min(ax, bx, cx) - 0.5, max(ax, bx, cx) - 0.5
    for row in range(max(top, 0), min(bottom + 1, index.shape[0])):
        low, high = least, most
        for side in sides:
            dx, dy = side[2] - side[0], side[3] - side[1]
            slack = GRAIN_PX * np.sqrt(dx * dx + dy * dy)
            # inside where dx (y - y0) - dy (x - x0) >= -slack
            at = dx * (row + 0.5 - side[1]) + dy * (side[0] - 0.5) + slack
            if dy > 1e-9:
                high = min(high, at / dy)
            elif dy < -1e-9:
                low = max(low, at / dy)
            elif at < 0:
                high = low - 1
        for column in range(max(int(np.ceil(low)), 0), min(int(np.floor(high)) + 1, index.shape[1])):
            if rank_of[index[row, column]] <= mine:
                return False
    return True


@inlined
def clear_ends(
    index: U8,
    rank_of: I32,
    mine: int,
    x: F64,
    y: F64,
    skip: int,
    n: int,
    ends: tuple[float, float, float, float],
    vertices: F64,
    count: int,
) -> bool:
    """Whether only later pixels lie between a hidden border and the `skip` cracks at each end that it missed."""
    for end in range(2):
        px, py = (ends[0], ends[1]) if end == 0 else (ends[2], ends[3])
        qx, qy = (ends[2], ends[3]) if end == 0 else (ends[0], ends[1])
        if count > 0:
            k = 0 if end == 0 else count - 1
            qx, qy = vertices[k, 0], vertices[k, 1]
        for i in range(skip):
            j = i if end == 0 else n - 1 - i
            onward = j + 1 if end == 0 else j - 1
            ax, ay = x[j], y[j]
            bx, by = (x[onward], y[onward]) if i + 1 < skip else (qx, qy)
            if not _clear_triangle(index, rank_of, mine, px, py, ax, ay, bx, by):
                return False
    return True


@inlined
def shorten(
    index: U8,
    rank_of: I32,
    mine: int,
    sx: float,
    sy: float,
    ex: float,
    ey: float,
    closed: bool,
    vertices: F64,
    count: int,
) -> int:
    """Takes vertices out of a hidden border where the layer may as well end further in; the number that stays.

    A vertex may go where the triangle that goes with it, and a band along the new chord, hold later pixels only.

    Args:
        vertices: float64 [., 2], written; between (sx, sy) and (ex, ey), or for a closed border all there are.
    """
    again = True
    while again and count > (3 if closed else 0):
        again = False
        i = 0
        while i < count and count > (3 if closed else 0):
            px, py, qx, qy = sx, sy, ex, ey
            if closed or i > 0:
                px, py = vertices[(i - 1) % count, 0], vertices[(i - 1) % count, 1]
            if closed or i + 1 < count:
                qx, qy = vertices[(i + 1) % count, 0], vertices[(i + 1) % count, 1]
            if _clear_chord(index, rank_of, mine, px, py, qx, qy) and _clear_triangle(
                index, rank_of, mine, px, py, vertices[i, 0], vertices[i, 1], qx, qy
            ):
                for j in range(i, count - 1):
                    vertices[j, 0], vertices[j, 1] = vertices[j + 1, 0], vertices[j + 1, 1]
                count -= 1
                again = True
            else:
                i += 1
    return count
