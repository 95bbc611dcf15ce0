"""Chains: arcs of the planar map joined through the junctions that they pass smoothly.

Where three regions meet, two of the three arcs often are one contour (a tyre on the ground, a body before a wall) and
the third ends on it: a T junction. A *chain* is a contour through such junctions, fitted as one curve and cut
afterwards, so a junction leaves no bump. A chain's points are the midpoints of its cracks. Each has its *dual segment*,
which joins the centres of the two pixels that the crack parts; a curve that crosses every dual segment shows every
pixel in its own ink (the bound of Imai and Iri's polygonal approximation, taken crosswise).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.compiled import by_rows, inlined, kernel
from pipeline.trace.planar import PlanarMap
from pipeline.types import F64, I32, U8, Mask

REACH_POINTS = 12
"""Points of each arc that decide whether two arcs go on in each other."""

LEAST_POINTS = 4
MAX_TURN_RAD = 0.6
MAX_RESIDUAL_PX = 0.8

LEAST_BOUND_PX = 0.25
BOUND_PER_PX = 0.375
AROUND_POINTS = 4


@dataclass(frozen=True, slots=True)
class Chains:
    """All chains of a map.

    Attributes:
        first: int32 [C + 1]; chain c walks the arcs `first[c]:first[c + 1]`.
        arc, reverse: int32, bool [A], which arc, and whether against its own walk.
        closed: bool [C], whether the chain ends where it starts.
        point_first: int32 [C + 1]; chain c owns the points `point_first[c]:point_first[c + 1]`.
        cut: int32 [A + 1], number of the first point of each place of `arc`.
        point: int32 [P], the points of all chains, as rows of `x2` and `y2`.
        arc_point: int32 [A + 1]; arc a, in its own walk, has the rows `arc_point[a]:arc_point[a + 1]`.
        x2, y2: int32 [P], midpoints of cracks in half pixels. x2 is odd on a horizontal crack, y2 on a vertical one.
        onward: int32 [2 A], for each arc end (2 × arc, plus 1 for its last vertex) the end in which the chain goes on
            through the junction, or -1.
    """

    first: I32
    arc: I32
    reverse: Mask
    closed: Mask
    point_first: I32
    cut: I32
    point: I32
    arc_point: I32
    x2: I32
    y2: I32
    onward: I32

    @property
    def count(self) -> int:
        return len(self.closed)


def join_arcs(plane: PlanarMap) -> Chains:
    """The chains of `plane`; each arc is in one of them."""
    arc_point, x2, y2 = _midpoints(plane.first, plane.x, plane.y)
    onward = _pair_ends(arc_point, x2, y2, plane.start, plane.end, plane.left, plane.right, len(plane.junction_x))
    first, arc, reverse, closed = _link(onward, plane.start)
    cut, point = _gather(arc, reverse, arc_point)
    return Chains(first, arc, reverse, closed, cut[first], cut, point, arc_point, x2, y2, onward)


@kernel
def _midpoints(first: I32, xs: I32, ys: I32) -> tuple[I32, I32, I32]:
    """Midpoints of each arc's cracks, in half pixels."""
    arcs = len(first) - 1
    arc_point = np.zeros(arcs + 1, np.int32)
    for arc in range(arcs):
        cracks = 0
        for at in range(first[arc], first[arc + 1] - 1):
            cracks += abs(xs[at + 1] - xs[at]) + abs(ys[at + 1] - ys[at])
        arc_point[arc + 1] = arc_point[arc] + cracks
    x2, y2 = np.empty(arc_point[arcs], np.int32), np.empty(arc_point[arcs], np.int32)
    for arc in range(arcs):
        n = arc_point[arc]
        for at in range(first[arc], first[arc + 1] - 1):
            across, down = xs[at + 1] - xs[at], ys[at + 1] - ys[at]
            length = abs(across) + abs(down)
            step_x, step_y = across // length, down // length
            for i in range(length):
                x2[n] = 2 * (xs[at] + i * step_x) + step_x
                y2[n] = 2 * (ys[at] + i * step_y) + step_y
                n += 1
    return arc_point, x2, y2


@inlined
def _end_points(arc_point: I32, x2: I32, y2: I32, end: int, out_x: F64, out_y: F64) -> int:
    """The points nearest to an arc's end (2 × arc, plus 1 for its last vertex), nearest first; returns their number."""
    arc = end // 2
    low, high = arc_point[arc], arc_point[arc + 1]
    n = min(REACH_POINTS, high - low)
    for i in range(n):
        at = low + i if end % 2 == 0 else high - 1 - i
        out_x[i], out_y[i] = 0.5 * x2[at], 0.5 * y2[at]
    return int(n)


@inlined
def _bend(ax: F64, ay: F64, na: int, bx: F64, by: F64, nb: int) -> float:
    """How badly two ends go on in each other: 9 where they don't.

    A parabola is fitted to the points of both, by their place in the walk; its largest distance to a point is the
    measure. The turn between the two ends' chords must be small too.
    """
    ux, uy = ax[0] - ax[na - 1], ay[0] - ay[na - 1]
    vx, vy = bx[nb - 1] - bx[0], by[nb - 1] - by[0]
    turn = abs(np.arctan2(ux * vy - uy * vx, ux * vx + uy * vy))
    if turn > MAX_TURN_RAD:
        return 9.0
    m = np.zeros((3, 5))
    for i in range(-na, nb):
        u = i + 0.5
        x, y = (bx[i], by[i]) if i >= 0 else (ax[-i - 1], ay[-i - 1])
        weight = 1.0
        for row in range(3):
            power = weight
            for column in range(3):
                m[row, column] += power
                power *= u
            m[row, 3] += weight * x
            m[row, 4] += weight * y
            weight *= u
    for row in range(3):
        if abs(m[row, row]) < 1e-12:
            return 9.0
        for other in range(3):
            if other != row:
                factor = m[other, row] / m[row, row]
                for column in range(5):
                    m[other, column] -= factor * m[row, column]
    worst = 0.0
    for i in range(-na, nb):
        u = i + 0.5
        x, y = (bx[i], by[i]) if i >= 0 else (ax[-i - 1], ay[-i - 1])
        dx = (m[0, 3] / m[0, 0]) + u * (m[1, 3] / m[1, 1]) + u * u * (m[2, 3] / m[2, 2]) - x
        dy = (m[0, 4] / m[0, 0]) + u * (m[1, 4] / m[1, 1]) + u * u * (m[2, 4] / m[2, 2]) - y
        tx = (m[1, 3] / m[1, 1]) + 2 * u * (m[2, 3] / m[2, 2])
        ty = (m[1, 4] / m[1, 1]) + 2 * u * (m[2, 4] / m[2, 2])
        worst = max(worst, abs(dx * ty - dy * tx) / max(np.sqrt(tx * tx + ty * ty), 1e-9))
    return float(worst + 0.3 * turn)


@kernel
def _pair_ends(arc_point: I32, x2: I32, y2: I32, start: I32, end: I32, left: I32, right: I32, junctions: int) -> I32:
    """For each arc end (2 × arc, plus 1 for its last vertex) the end in which it goes on at its junction, or -1."""
    arcs = len(start)
    onward = np.full(2 * arcs, -1, np.int32)
    ends_of = np.full((junctions, 4), -1, np.int32)
    count = np.zeros(junctions, np.int32)
    for end_no in range(2 * arcs):
        at = start[end_no // 2] if end_no % 2 == 0 else end[end_no // 2]
        if at >= 0:
            ends_of[at, count[at]] = end_no
            count[at] += 1
    ax, ay, bx, by = np.empty(REACH_POINTS), np.empty(REACH_POINTS), np.empty(REACH_POINTS), np.empty(REACH_POINTS)
    for at in range(junctions):
        if count[at] != 3:
            continue
        best, best_a, best_b = MAX_RESIDUAL_PX, -1, -1
        for i in range(3):
            for j in range(i + 1, 3):
                a, b = ends_of[at, i], ends_of[at, j]
                if a // 2 == b // 2:
                    continue
                na = _end_points(arc_point, x2, y2, a, ax, ay)
                nb = _end_points(arc_point, x2, y2, b, bx, by)
                border = min(left[a // 2], right[a // 2]) < 0 and min(left[b // 2], right[b // 2]) < 0
                if border:
                    bend = -1.0
                elif min(na, nb) < LEAST_POINTS:
                    continue
                else:
                    bend = _bend(ax, ay, na, bx, by, nb)
                if bend < best:
                    best, best_a, best_b = bend, a, b
        if best_a >= 0:
            onward[best_a], onward[best_b] = best_b, best_a
    return onward


@kernel
def _link(onward: I32, start: I32) -> tuple[I32, I32, Mask, Mask]:
    """Arcs in the order of their chains; open chains first, then those that close."""
    arcs = len(start)
    arc, reverse = np.empty(arcs, np.int32), np.zeros(arcs, np.bool_)
    first, closed = np.empty(arcs + 1, np.int32), np.zeros(arcs, np.bool_)
    done = np.zeros(arcs, np.bool_)
    chains, n = 0, 0
    for closing in range(2):
        for end_no in range(2 * arcs):
            a = end_no // 2
            if done[a] or (closing == 0 and (onward[end_no] >= 0 or start[a] < 0)):
                continue
            first[chains] = n
            closed[chains] = closing == 1
            chains += 1
            at = end_no
            while at >= 0 and not done[at // 2]:
                done[at // 2] = True
                arc[n], reverse[n] = at // 2, at % 2 == 1
                n += 1
                at = onward[at ^ 1]
    first[chains] = n
    return first[: chains + 1].copy(), arc, reverse, closed[:chains].copy()


@kernel
def _gather(arc: I32, reverse: Mask, arc_point: I32) -> tuple[I32, I32]:
    """The points of all chains one after the other, and where each arc's points begin among them."""
    cut = np.zeros(len(arc) + 1, np.int32)
    point = np.empty(arc_point[-1], np.int32)
    n = 0
    for place in range(len(arc)):
        low, high = arc_point[arc[place]], arc_point[arc[place] + 1]
        for i in range(high - low):
            point[n] = high - 1 - i if reverse[place] else low + i
            n += 1
        cut[place + 1] = n
    return cut, point


def tolerances(index: U8, chains: Chains, tolerance_px: float) -> F64:
    """The bound at each point: `tolerance_px`, but less where a region stays thin, so that its two sides can't meet.

    Beside a region t pixels across (along the dual segment) it is LEAST_BOUND_PX + BOUND_PER_PX · t. What counts is the
    widest place within AROUND_POINTS along the arc: a region that tapers towards a junction is not thin for that.

    Args:
        index: uint8 [H, W].
        chains: its chains.
        tolerance_px: the largest bound.

    Returns:
        float64 [P], px, rows as in `chains.x2`.
    """
    bounds = np.empty(len(chains.x2))
    across = np.empty(len(chains.x2), np.int32)
    enough = int(np.ceil((tolerance_px - LEAST_BOUND_PX) / BOUND_PER_PX))
    by_rows(lambda a, b: _breadths(index, chains.x2, chains.y2, enough, across, a, b), len(across))
    _bounds(chains.arc_point, across, tolerance_px, bounds)
    return bounds


@kernel
def _breadths(index: U8, x2: I32, y2: I32, enough: int, out: I32, first: int, last: int) -> None:
    """Pixels across the thinner of the two regions beside points first to last, along their dual segments, to `out`."""
    height, width = index.shape
    for i in range(first, last):
        across, down = (0, 1) if x2[i] % 2 == 1 else (1, 0)
        x, y = x2[i] // 2, y2[i] // 2
        thin = enough
        for side in range(2):
            u, v = (x, y) if side == 0 else (x - across, y - down)
            step = 1 if side == 0 else -1
            if not (0 <= u < width and 0 <= v < height):
                continue
            label, t = index[v, u], 1
            while t < thin:
                u, v = u + step * across, v + step * down
                if not (0 <= u < width and 0 <= v < height):
                    t = thin
                elif index[v, u] != label:
                    break
                t += 1
            thin = min(thin, t)
        out[i] = thin


@kernel
def _bounds(arc_point: I32, across: I32, tolerance_px: float, out: F64) -> None:
    for arc in range(len(arc_point) - 1):
        low, high = arc_point[arc], arc_point[arc + 1]
        for i in range(low, high):
            widest = 0
            for j in range(max(i - AROUND_POINTS, low), min(i + AROUND_POINTS + 1, high)):
                widest = max(widest, across[j])
            out[i] = min(tolerance_px, LEAST_BOUND_PX + BOUND_PER_PX * widest)
