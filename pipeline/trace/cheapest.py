"""The cheapest path over a chain's candidate nodes, by dynamic programming.

Between two nodes lies a line, where one crosses the dual segments, or a G1 cubic of least squares; a circular stretch
stands. A path costs the numbers that it writes and a share of the squared distance that it leaves, in pixels.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.trace.candidates import ARC_BEGINS, SMOOTH
from pipeline.trace.cubics import handles_from, sampled_strain
from pipeline.trace.moments import SIZE, cubic_sums, line_squares, walk_on

LINE, CUBIC, ARC, ELLIPSE = 0, 1, 2, 3

SPACING, STRAIN, STRIDE, CURVES = range(4)
"""What `settings` hold: cracks between smooth nodes, cost of a squared pixel of distance, points from one at which a
cubic is checked to the next, and whether there are curves at all."""

DENSE = 12
"""A cubic through fewer points is checked at each."""

LINE_COST, CUBIC_COST, ARC_COST = 9.0, 23.0, 18.0
FORCED_COST = 200.0
"""Of a line where nothing fits, so that every chain has a path."""

KINK_RAD = 0.1
KINK_COST = 5.0
"""Of a line that leaves a smooth node by KINK_RAD; grows with the square, and twice KINK_RAD is refused."""

MOST_POINTS = 300
"""Points that one cubic may take."""

FAILURES = 4
"""Cubics from one node that fail one after the other before no longer one is tried."""

SPREAD = 5
"""Of so many nodes that lie further and further away, one is tried."""

SMOOTHING = 2


@inlined
def _kink(nodes, a, b):  # type: ignore[no-untyped-def]
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
def _narrow(x, y, horizontal, bound, i, px, py, cone):  # type: ignore[no-untyped-def]
    """Narrows the cone of directions from (px, py) to those that cross point i's dual segment; False once it is empty."""
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
    return cone[0] * cone[3] - cone[1] * cone[2] >= 0


@inlined
def _in_cone(cone, dx, dy):  # type: ignore[no-untyped-def]
    if cone[4] == 0:
        return True
    return cone[0] * dy - cone[1] * dx >= 0 and dx * cone[3] - dy * cone[2] >= 0 and cone[0] * dx + cone[1] * dy > 0


@inlined
def walk_lengths(x, y, along):  # type: ignore[no-untyped-def]
    """The way along the walk at each point, px: each step is as long as the chord over the SMOOTHING points around it."""
    n = len(x)
    along[0] = 0.0
    for i in range(1, n):
        a, b = max(i - 1 - SMOOTHING, 0), min(i + SMOOTHING, n - 1)
        dx, dy = x[b] - x[a], y[b] - y[a]
        along[i] = along[i - 1] + np.sqrt(dx * dx + dy * dy) / (b - a)


@inlined
def _offer(cost, back, kind, handles, b, a, total, what, h):  # type: ignore[no-untyped-def]
    if total < cost[b]:
        cost[b], back[b], kind[b] = total, a, what
        for j in range(4):
            handles[b, j] = h[j]


@inlined
def _ends_of(nodes, a, b, ends):  # type: ignore[no-untyped-def]
    p, q = nodes[a], nodes[b]
    ends[0], ends[1], ends[2], ends[3] = p[1], p[2], q[1], q[2]
    ends[4], ends[5], ends[6], ends[7] = p[5], p[6], q[3], q[4]


@inlined
def _reach_out(x, y, horizontal, bound, along, nodes, count, a, settings, state):  # type: ignore[no-untyped-def]
    """Offers every later node what the segments from node a cost; ends at a fixed node or where nothing fits any more."""
    cost, back, kind, handles = state
    strain_cost, stride, curves = settings[STRAIN], int(settings[STRIDE]), settings[CURVES] != 0
    px, py, start = nodes[a, 1], nodes[a, 2], int(nodes[a, 0])
    begin = 0.5 * (along[start - 1] + along[start]) if start > 0 else along[0]
    cone, h, m, q = np.zeros(5), np.zeros(4), np.zeros(SIZE), np.empty(7)
    ends, squares = np.empty(8), np.zeros(1)
    seen, line_alive, failures, skip = start, True, 0, 0
    for b in range(a + 1, count):
        stop = int(nodes[b, 0])
        if stop == start:
            continue
        while seen < stop:
            walk_on(m, along[seen] - begin, x[seen] - px, y[seen] - py)
            line_alive = line_alive and _narrow(x, y, horizontal, bound, seen, px, py, cone)
            seen += 1
        base = cost[a] + nodes[b, 8]
        dx, dy = nodes[b, 1] - px, nodes[b, 2] - py
        straight = False
        if line_alive and _in_cone(cone, dx, dy):
            kink = _kink(nodes, a, b)
            straight = 0 <= kink < CUBIC_COST - LINE_COST
            if kink >= 0:
                strain = strain_cost * line_squares(m, dx, dy)
                _offer(cost, back, kind, handles, b, a, base + LINE_COST + kink + strain, LINE, h)
        fixed = nodes[b, 9] > 0 or nodes[b, 7] != SMOOTH
        if curves and failures < FAILURES and stop - start <= MOST_POINTS and not straight and (skip == 0 or fixed):
            _ends_of(nodes, a, b, ends)
            length = 0.5 * (along[stop - 1] + along[min(stop, len(along) - 1)]) - begin
            length = max(length, np.sqrt(dx * dx + dy * dy))
            cubic_sums(m, length, dx, dy, q)
            n = stop - start
            if handles_from(q, n, length, ends, nodes[a, 7] != SMOOTH, nodes[b, 7] != SMOOTH, h) and sampled_strain(
                x, y, horizontal, bound, start, stop, along, begin, length, 1 if n < DENSE else stride, ends, h, squares
            ) <= 1:
                failures = 0
                _offer(cost, back, kind, handles, b, a, base + CUBIC_COST + strain_cost * squares[0], CUBIC, h)
            else:
                failures += 1
            skip = max(0, (b - a) // SPREAD - 1)
        elif skip > 0:
            skip -= 1
        if nodes[b, 9] > 0 or (not line_alive and (failures >= FAILURES or not curves)):
            break


@inlined
def cheapest(x, y, horizontal, bound, along, nodes, count, settings, back, kind, handles):  # type: ignore[no-untyped-def]
    """The cheapest path from the first node to the last: back[b] is the node before b on it."""
    cost = np.full(count, np.inf)
    cost[0] = 0.0
    for a in range(count - 1):
        if cost[a] == np.inf:
            continue
        if nodes[a, 9] == ARC_BEGINS:
            cost[a + 1], back[a + 1], kind[a + 1] = cost[a] + ARC_COST, a, ARC
            continue
        _reach_out(x, y, horizontal, bound, along, nodes, count, a, settings, (cost, back, kind, handles))
        b = a + 1
        while nodes[b, 0] == nodes[a, 0]:
            b += 1
        if cost[b] == np.inf:
            cost[b], back[b], kind[b] = cost[a] + FORCED_COST, a, LINE
    return cost[count - 1]
