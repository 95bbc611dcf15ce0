"""The cheapest path over a chain's candidate nodes, by dynamic programming.

Between two nodes lies a line, where one crosses the dual segments, or a G1 cubic of least squares; a circular stretch
stands. A path costs the numbers that it writes and a share of the squared distance that it leaves, in pixels.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from pipeline.compiled import inlined
from pipeline.trace.candidates import ARC_BEGINS, CORNER, COST, HELD, KIND, SMOOTH, VERTEX, X, Y
from pipeline.trace.cubics import handles_from, holds_sampled
from pipeline.trace.moments import SIZE, cubic_sums, line_squares, walk_on
from pipeline.types import F64, I32, U8, Mask

LINE, CUBIC, ARC, ELLIPSE = 0, 1, 2, 3

Found: TypeAlias = tuple[F64, I32, I32, F64]
"""The cheapest way to each node: its cost, the node before, what lies between, and the handles of that."""

Scratch: TypeAlias = tuple[F64, F64, F64, F64, F64, F64]
"""Room for the ends of a cubic [8], its sums [7] and its handles [4], and the squares of what it leaves [1]; for a cone
of lines [5] and the sums along a walk [SIZE]."""

SPACING, STRAIN, STRIDE, CURVES, LINES = range(5)
"""What `settings` hold: cracks between smooth nodes, cost of a squared pixel of distance, points from one at which a
cubic is checked to the next, whether there are curves at all, and what a line costs."""

DENSE = 12
"""A cubic through fewer points is checked at each."""

LINE_COST, CUBIC_COST, ARC_COST = 9.0, 23.0, 18.0
"""Characters that each takes, about."""

FORCED_COST = 200.0
"""Of a line where nothing fits, so that every chain has a path."""

KINK_RAD = 0.1
KINK_COST = 5.0
"""Of a line that leaves a smooth node by KINK_RAD; grows with the square, and twice KINK_RAD is refused."""

MOST_POINTS = 300
"""Points that one cubic may take."""

MISSED_CORNER_PX2 = 1.3
"""Squared pixels of distance that count for a clear corner which a segment passes by."""

FAILURES = 4
"""Cubics from one node that fail one after the other before no longer one is tried."""

SPREAD = 7
"""Of so many nodes that lie further and further away, one is tried."""

SMOOTHING = 2


@inlined
def _kink(nodes: F64, a: int, b: int) -> float:
    """Cost of the angles between the line from node a to node b and the smooth tangents there; negative: refused."""
    dx, dy = nodes[b, 1] - nodes[a, 1], nodes[b, 2] - nodes[a, 2]
    length = np.sqrt(dx * dx + dy * dy)
    if length < 1e-6:
        return -1.0
    cost = 0.0
    for end in range(2):
        node = nodes[a] if end == 0 else nodes[b]
        if node[7] != SMOOTH:
            continue
        tx, ty = (node[5], node[6]) if end == 0 else (-node[3], -node[4])
        sine = abs(tx * dy - ty * dx) / length
        if tx * dx + ty * dy <= 0 or sine > 2 * KINK_RAD:
            return -1.0
        cost += KINK_COST * (sine / KINK_RAD) ** 2
    return cost


@inlined
def _narrow(x: F64, y: F64, horizontal: Mask, bound: F64, i: int, px: float, py: float, cone: F64) -> bool:
    """Narrows the cone of directions from (px, py) to those that cross point i's dual segment; False if none does."""
    dx, dy = x[i] - px, y[i] - py
    if dx * dx + dy * dy < 1.0:
        return True
    reach = bound[i]
    ax, ay, bx, by = dx, dy, dx, dy
    if horizontal[i]:
        ay, by = ay - reach, by + reach
    else:
        ax, bx = ax - reach, bx + reach
    if ax * by - ay * bx < 0:
        ax, ay, bx, by = bx, by, ax, ay
    if cone[4] == 0:
        cone[0], cone[1], cone[2], cone[3], cone[4] = ax, ay, bx, by, 1.0
        return True
    if cone[0] * ay - cone[1] * ax > 0:
        cone[0], cone[1] = ax, ay
    if cone[2] * by - cone[3] * bx < 0:
        cone[2], cone[3] = bx, by
    return bool(cone[0] * cone[3] - cone[1] * cone[2] >= 0)


@inlined
def _in_cone(cone: F64, dx: float, dy: float) -> bool:
    if cone[4] == 0:
        return True
    between = cone[0] * dy - cone[1] * dx >= 0 and dx * cone[3] - dy * cone[2] >= 0
    return bool(between and cone[0] * dx + cone[1] * dy > 0)


@inlined
def walk_lengths(x: F64, y: F64, along: F64) -> None:
    """The way along the walk at each point, px: a step is its share of the chord over SMOOTHING points about it."""
    n = len(x)
    along[0] = 0.0
    for i in range(1, n):
        a, b = max(i - 1 - SMOOTHING, 0), min(i + SMOOTHING, n - 1)
        dx, dy = x[b] - x[a], y[b] - y[a]
        along[i] = along[i - 1] + np.sqrt(dx * dx + dy * dy) / (b - a)


@inlined
def _offer(found: Found, b: int, a: int, total: float, what: int, h: F64) -> None:
    cost, back, kind, handles = found
    if total < cost[b]:
        cost[b], back[b], kind[b] = total, a, what
        for j in range(4):
            handles[b, j] = h[j]


@inlined
def _offer_line(found: Found, nodes: F64, a: int, b: int, m: F64, base: float, settings: F64, h: F64) -> bool:
    """Offers the line between two nodes for `base` and what it costs itself; whether no cubic need be tried."""
    kink = _kink(nodes, a, b)
    if kink < 0:
        return False
    strain = settings[STRAIN] * line_squares(m, nodes[b, X] - nodes[a, X], nodes[b, Y] - nodes[a, Y])
    _offer(found, b, a, base + settings[LINES] + kink + strain, LINE, h)
    return bool(kink < CUBIC_COST - settings[LINES])


@inlined
def _way_to(along: F64, v: int) -> float:
    """The way along the walk to vertex v, px."""
    return float(0.5 * (along[v - 1] + along[min(v, len(along) - 1)]) if v > 0 else along[0])


@inlined
def _ends_of(nodes: F64, a: int, b: int, ends: F64) -> None:
    p, q = nodes[a], nodes[b]
    ends[0], ends[1], ends[2], ends[3] = p[1], p[2], q[1], q[2]
    ends[4], ends[5], ends[6], ends[7] = p[5], p[6], q[3], q[4]


@inlined
def _cubic_holds(
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
    along: F64,
    nodes: F64,
    a: int,
    b: int,
    m: F64,
    step: int,
    room: Scratch,
) -> bool:
    """Whether the cubic of least squares between two nodes keeps within the bounds; it is left in `room`.

    Args:
        m: sums along the walk from node a to node b.
        step: points from one at which the cubic is checked to the next, where it is not DENSE.
    """
    ends, q, h, squares, _, _ = room
    start, stop = int(nodes[a, VERTEX]), int(nodes[b, VERTEX])
    dx, dy, n, begin = nodes[b, X] - nodes[a, X], nodes[b, Y] - nodes[a, Y], stop - start, _way_to(along, start)
    _ends_of(nodes, a, b, ends)
    length = max(_way_to(along, stop) - begin, np.sqrt(dx * dx + dy * dy))
    cubic_sums(m, length, dx, dy, q)
    if not handles_from(q, n, length, ends, nodes[a, KIND] != SMOOTH, nodes[b, KIND] != SMOOTH, h):
        return False
    stride = 1 if n < DENSE else step
    return holds_sampled(x, y, horizontal, bound, start, stop, along, begin, length, stride, ends, h, squares)


@inlined
def _reach_out(
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
    along: F64,
    nodes: F64,
    count: int,
    a: int,
    settings: F64,
    found: Found,
    room: Scratch,
) -> None:
    """Offers every later node what the segments from node a cost.

    It ends at a node that every path passes, or where nothing fits any more.
    """
    strain_cost, stride, curves = settings[STRAIN], int(settings[STRIDE]), settings[CURVES] != 0
    px, py, start = nodes[a, X], nodes[a, Y], int(nodes[a, VERTEX])
    begin = _way_to(along, start)
    _, _, h, squares, cone, m = room
    cone[:], m[:] = 0.0, 0.0
    seen, line_alive, failures, skip, missed = start, True, 0, 0, 0.0
    for b in range(a + 1, count):
        stop = int(nodes[b, VERTEX])
        if stop == start:
            continue
        while seen < stop:
            walk_on(m, along[seen] - begin, x[seen] - px, y[seen] - py)
            line_alive = line_alive and _narrow(x, y, horizontal, bound, seen, px, py, cone)
            seen += 1
        base = found[0][a] + nodes[b, COST] + missed
        straight = False
        if line_alive and _in_cone(cone, nodes[b, X] - px, nodes[b, Y] - py):
            straight = _offer_line(found, nodes, a, b, m, base, settings, h)
        fixed = nodes[b, HELD] > 0 or nodes[b, KIND] != SMOOTH
        worth = curves and not straight and (skip == 0 or fixed) and base + CUBIC_COST < found[0][b]
        if worth and failures < FAILURES and stop - start <= MOST_POINTS:
            if _cubic_holds(x, y, horizontal, bound, along, nodes, a, b, m, stride, room):
                failures = 0
                _offer(found, b, a, base + CUBIC_COST + strain_cost * squares[0], CUBIC, h)
            else:
                failures += 1
            skip = max(0, (b - a) // SPREAD - 1)
        elif skip > 0:
            skip -= 1
        if nodes[b, KIND] == CORNER and nodes[b, COST] == 0:
            missed += MISSED_CORNER_PX2 * strain_cost
        if nodes[b, HELD] > 0 or (not line_alive and (failures >= FAILURES or not curves)):
            break


@inlined
def cheapest(
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
    along: F64,
    nodes: F64,
    count: int,
    settings: F64,
    back: I32,
    kind: I32,
    handles: F64,
    stop: U8,
) -> bool:
    """The cheapest path from the first node to the last, back[b] before b on it; False once stop[0] is set."""
    cost = np.full(count, np.inf)
    cost[0] = 0.0
    found = (cost, back, kind, handles)
    room = (np.empty(8), np.empty(7), np.zeros(4), np.empty(1), np.empty(5), np.empty(SIZE))
    for a in range(count - 1):
        if stop[0] != 0:
            return False
        if cost[a] == np.inf:
            continue
        if nodes[a, 9] == ARC_BEGINS:
            cost[a + 1], back[a + 1], kind[a + 1] = cost[a] + ARC_COST, a, ARC
            continue
        _reach_out(x, y, horizontal, bound, along, nodes, count, a, settings, found, room)
        b = a + 1
        while nodes[b, 0] == nodes[a, 0]:
            b += 1
        if cost[b] == np.inf:
            cost[b], back[b], kind[b] = cost[a] + FORCED_COST, a, LINE
    return True
