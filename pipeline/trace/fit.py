"""Curves through a chain: the cheapest path over its nodes, by dynamic programming.

Each chain gets candidate nodes (smooth places, corners, its ends). Between two of them lies a line where one fits the
dual segments, or a G1 cubic; circular stretches are found first and stand. The path with the fewest written numbers wins,
with a small charge for distance, for corners, and for kinks too slight to be corners. Afterwards lines are laid by least
squares, nodes move to where lines meet, and the cubics are fitted again between the final nodes.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined, kernel
from pipeline.trace.conics import circle_through, ellipse_offset, ellipse_through
from pipeline.trace.cubics import crosswise, fit_cubic, handles_from, sampled_strain
from pipeline.trace.moments import SIZE, cubic_sums, line_squares, walk_on
from pipeline.trace.nodes import corner_at, find_corners, smooth_node

LINE, CUBIC, ARC, ELLIPSE = 0, 1, 2, 3
FIELDS = 10
"""Numbers of a segment: for a line x0, y0, x1, y1; for a cubic x0, y0, its handles' ends, x3, y3; for an arc x0, y0,
centre, radius x, radius y, turn (rad), sweep (rad, clockwise on the screen positive), x1, y1."""

SMOOTH, CORNER, END = 0, 1, 2
FIXED, ARC_BEGINS = 1.0, 2.0

LINE_COST, CUBIC_COST, ARC_COST = 9.0, 23.0, 18.0
CORNER_COST = 3.0
FORCED_COST = 200.0
"""Of a line where nothing fits, so that every chain has a path."""

KINK_RAD = 0.1
KINK_COST = 5.0
"""Of a line that leaves a smooth node by KINK_RAD; grows with the square, and twice KINK_RAD is refused."""

STRAIN_COST = 6.0
"""Of one squared pixel between a point and its curve, times the square of 0.8 px over the tolerance."""

PAD = 40
"""Points of a closed chain that are repeated on each side, so that windows see across its start."""

MOST_POINTS = 300
"""Points that one cubic may take."""

FAILURES = 4
STRIDE = 3
SMOOTHING = 2
SPREAD = 5

CIRCLE_LEAST_POINTS = 32
CIRCLE_LEAST_SWEEP = 1.1
CIRCLE_STEP = 12
ROUND_RAD = 6.0
"""A closed outline is round where it goes so far round its centre; a thin crescent goes there and back."""

STEADY = 0.6
"""Least length of an arc for each crack that it covers, px: along a diagonal it is 0.71."""

CIRCLE_PX = 0.62
"""How far, along the dual segments, a circle or ellipse may pass its points; more where the tolerance is less sharp
and the outline closed."""

ROUNDS = 4
MEETING_REACH_PX = 1.6
"""How far a node may move to the place where two lines meet."""


@inlined
def _circle_strain(x, y, horizontal, bound, a, b, cx, cy, r):  # type: ignore[no-untyped-def]
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
def _sweep(x, y, a, b, cx, cy):  # type: ignore[no-untyped-def]
    """The signed angle in which points a to b go round (cx, cy)."""
    total = 0.0
    for i in range(a + 1, b):
        ux, uy, vx, vy = x[i - 1] - cx, y[i - 1] - cy, x[i] - cx, y[i] - cy
        total += np.arctan2(ux * vy - uy * vx, ux * vx + uy * vy)
    return total


@inlined
def _goes_round(x, y, a, b, cx, cy, r):  # type: ignore[no-untyped-def]
    """Whether points a to b go round (cx, cy) far enough for an arc, and never back along it."""
    sweep = abs(_sweep(x, y, a, b, cx, cy))
    return sweep >= CIRCLE_LEAST_SWEEP and sweep * r >= STEADY * (b - a)


@inlined
def _may_be_circular(x, y, a, b):  # type: ignore[no-untyped-def]
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
def _circle_run(x, y, horizontal, limit, low, high, at, out):  # type: ignore[no-untyped-def]
    """Grows a circular stretch from points at to at + CIRCLE_LEAST_POINTS; its centre and radius to out[0:3].

    Returns its first point and the one behind its last; equal where there is none.
    """
    a, b = at, at + CIRCLE_LEAST_POINTS
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
    if b - a < CIRCLE_LEAST_POINTS or not _goes_round(x, y, a, b, cx, cy, r):
        return at, at
    trim = 2
    if b - a > 6 * trim:
        cx, cy, r = circle_through(x, y, a + trim, b - trim)
    out[0], out[1], out[2] = cx, cy, r
    return a, b


@inlined
def _find_circles(x, y, horizontal, limit, low, high, turn, runs):  # type: ignore[no-untyped-def]
    """Circular stretches between points low and high, in order, as rows first, last, centre, radius; their number."""
    found, at = 0, low
    circle = np.empty(3)
    end = low
    while at + CIRCLE_LEAST_POINTS <= high and found < len(runs):
        a, b = _circle_run(x, y, horizontal, limit, end, high, at, circle)
        if b > a:
            for v in range(a + 4, b - 3):  # a corner ends a stretch
                if turn[v] > 0.9 and v > a + 4:
                    b = v
                    break
            tail = min(int(np.sqrt(circle[2])) + 2, (b - a) // 4)
            a, b = (a + tail if a > low else a), (b - tail if b < high else b)
            if b - a >= CIRCLE_LEAST_POINTS:
                cx, cy, r = circle_through(x, y, a, b)
                if r > 3 and _goes_round(x, y, a, b, cx, cy, r):
                    runs[found, 0], runs[found, 1] = a, b
                    runs[found, 2], runs[found, 3], runs[found, 4] = cx, cy, r
                    found += 1
                    end = b
                    at = b
                    continue
        at += CIRCLE_STEP
    return found


@inlined
def _on_circle(x, y, cx, cy, r):  # type: ignore[no-untyped-def]
    u, w = x - cx, y - cy
    d = max(np.sqrt(u * u + w * w), 1e-9)
    return cx + u * r / d, cy + w * r / d


@inlined
def _closed_conic(x, y, horizontal, bound, low, high, segments):  # type: ignore[no-untyped-def]
    """The whole closed chain as a circle or an ellipse; the number of segments written, 1 or 0."""
    n = high - low
    cx, cy, r = circle_through(x, y, low, high)
    turns = 0
    for i in range(low, high):
        turns += horizontal[i] != horizontal[i + 1]
    if turns == 4 and n >= 12:
        return 0  # an upright rectangle
    direction = 1.0 if _sweep(x, y, low, high + 1, cx, cy) > 0 else -1.0
    row = segments[0]
    if r > 0.4 and abs(_sweep(x, y, low, high + 1, cx, cy)) > ROUND_RAD and _circle_strain(x, y, horizontal, bound, low, high, cx, cy, r) <= 1:
        row[0], row[1] = _on_circle(0.5 * (x[low - 1] + x[low]), 0.5 * (y[low - 1] + y[low]), cx, cy, r)
        row[2], row[3], row[4], row[5] = cx, cy, r, r
        row[6], row[7], row[8], row[9] = 0.0, direction * 2 * np.pi, row[0], row[1]
        return 1
    e = np.empty(5)
    if n < 12 or not ellipse_through(x, y, low, high, e) or abs(_sweep(x, y, low, high + 1, e[0], e[1])) < ROUND_RAD:
        return 0
    for i in range(low, high):
        off, gx, gy = ellipse_offset(e, x[i], y[i])
        if crosswise(off * gx, off * gy, -gy, gx, horizontal[i]) > bound[i]:
            return 0
    c, s = np.cos(e[4]), np.sin(e[4])
    u, w = 0.5 * (x[low - 1] + x[low]) - e[0], 0.5 * (y[low - 1] + y[low]) - e[1]
    start = np.arctan2((w * c - u * s) / e[3], (u * c + w * s) / e[2])
    u, w = e[2] * np.cos(start), e[3] * np.sin(start)
    row[0], row[1], row[2], row[3] = e[0] + u * c - w * s, e[1] + u * s + w * c, e[0], e[1]
    row[4], row[5] = e[2], e[3]
    row[6], row[7], row[8], row[9] = e[4], direction * 2 * np.pi, row[0], row[1]
    return 1


@inlined
def _add(nodes, count, v, px, py, bx, by, fx, fy, kind, cost):  # type: ignore[no-untyped-def]
    row = nodes[count]
    row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8] = v, px, py, bx, by, fx, fy, kind, cost
    row[9] = 0.0
    return count + 1


@inlined
def _add_smooth(x, y, horizontal, bound, v, most, nodes, count, fitted):  # type: ignore[no-untyped-def]
    w = smooth_node(x, y, horizontal, bound[v], v, most, fitted)
    length = np.sqrt(fitted[2] ** 2 + fitted[3] ** 2)
    if w == 0 or length < 1e-6:
        return count
    tx, ty = fitted[2] / length, fitted[3] / length
    return _add(nodes, count, v, fitted[0], fitted[1], -tx, -ty, tx, ty, SMOOTH, 0.6 if w < 3 else 0.0)


@inlined
def _add_corner(x, y, horizontal, turn, v, before, after, nodes, count, fitted):  # type: ignore[no-untyped-def]
    place = np.empty(2)
    vx, vy = 0.5 * (x[v - 1] + x[v]), 0.5 * (y[v - 1] + y[v])
    place[0], place[1] = vx, vy
    corner_at(x, y, horizontal, v, before, after, place, fitted)
    cost = CORNER_COST * max(0.0, 1.6 - turn[v])
    return _add(nodes, count, v, fitted[0], fitted[1], fitted[2], fitted[3], fitted[4], fitted[5], CORNER, cost)


@inlined
def _add_arc_end(x, y, run, v, leaving, nodes, count):  # type: ignore[no-untyped-def]
    """A node where a circular stretch begins (leaving) or ends, on the circle and along it."""
    cx, cy, r = run[2], run[3], run[4]
    px, py = _on_circle(0.5 * (x[v - 1] + x[v]), 0.5 * (y[v - 1] + y[v]), cx, cy, r)
    a, b = int(run[0]), int(run[1])
    direction = 1.0 if _sweep(x, y, a, b, cx, cy) > 0 else -1.0
    tx, ty = -(py - cy) / r * direction, (px - cx) / r * direction
    count = _add(nodes, count, v, px, py, -tx, -ty, tx, ty, SMOOTH, 0.0)
    nodes[count - 1, 9] = ARC_BEGINS if leaving else FIXED
    return count


@inlined
def _place_nodes(x, y, horizontal, bound, low, high, closed, ends, turn, runs, found, step, nodes):  # type: ignore[no-untyped-def]
    """Candidate nodes in order to the rows of `nodes`: vertex, place, tangent back and forward, kind, cost, fixed."""
    fitted = np.empty(6)
    first_point, last_point = (0, len(x)) if closed else (low, high)
    count, run, last_corner = 0, 0, low - 100
    v = low
    while v <= high:
        end = v == low or v == high
        before, after = v - first_point, last_point - v
        inside = run < found and runs[run, 0] < v < runs[run, 1]
        if run < found and (v == runs[run, 0] or v == runs[run, 1]) and (closed or not end):
            count = _add_arc_end(x, y, runs[run], v, v == runs[run, 0], nodes, count)
        elif end and not closed:
            at = 0 if v == low else 2
            count = _add(nodes, count, v, ends[at], ends[at + 1], 0.0, 0.0, 0.0, 0.0, END, 0.0)
        elif inside:
            v = int(runs[run, 1]) - 1
        elif turn[v] > 0:
            count = _add_corner(x, y, horizontal, turn, v, min(before, v - last_corner), after, nodes, count, fitted)
            last_corner = v
            if turn[v] < 1.0 and not end:
                count = _add_smooth(x, y, horizontal, bound, v, min(before, after), nodes, count, fitted)
        elif end or ((v - low) % step == 0 and min(v - low, high - v) >= min(step, 2)):
            count = _add_smooth(x, y, horizontal, bound, v, min(before, after), nodes, count, fitted)
        if run < found and v == runs[run, 1]:
            run += 1
            if run < found and runs[run, 0] == v:
                nodes[count - 1, 7], nodes[count - 1, 9] = CORNER, ARC_BEGINS  # two circles meet
        v += 1
    return count


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
def _walk_lengths(x, y, along):  # type: ignore[no-untyped-def]
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
def _reach_out(x, y, horizontal, bound, along, nodes, count, a, strain_cost, state):  # type: ignore[no-untyped-def]
    """Offers every later node what the segments from node a cost; ends at a fixed node or where nothing fits any more."""
    cost, back, kind, handles = state
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
        if failures < FAILURES and stop - start <= MOST_POINTS and not straight and (skip == 0 or fixed):
            _ends_of(nodes, a, b, ends)
            length = 0.5 * (along[stop - 1] + along[min(stop, len(along) - 1)]) - begin
            length = max(length, np.sqrt(dx * dx + dy * dy))
            cubic_sums(m, length, dx, dy, q)
            n = stop - start
            if handles_from(q, n, length, ends, nodes[a, 7] != SMOOTH, nodes[b, 7] != SMOOTH, h) and sampled_strain(
                x, y, horizontal, bound, start, stop, along, begin, length, 1 if n < 12 else STRIDE, ends, h, squares
            ) <= 1:
                failures = 0
                _offer(cost, back, kind, handles, b, a, base + CUBIC_COST + strain_cost * squares[0], CUBIC, h)
            else:
                failures += 1
            skip = max(0, (b - a) // SPREAD - 1)
        elif skip > 0:
            skip -= 1
        if nodes[b, 9] > 0 or (not line_alive and failures >= FAILURES):
            break


@inlined
def _cheapest(x, y, horizontal, bound, along, nodes, count, strain_cost, back, kind, handles):  # type: ignore[no-untyped-def]
    """The cheapest path from the first node to the last: back[b] is the node before b on it."""
    cost = np.full(count, np.inf)
    cost[0] = 0.0
    for a in range(count - 1):
        if cost[a] == np.inf:
            continue
        if nodes[a, 9] == ARC_BEGINS:
            cost[a + 1], back[a + 1], kind[a + 1] = cost[a] + ARC_COST, a, ARC
            continue
        _reach_out(x, y, horizontal, bound, along, nodes, count, a, strain_cost, (cost, back, kind, handles))
        b = a + 1
        while nodes[b, 0] == nodes[a, 0]:
            b += 1
        if cost[b] == np.inf:
            cost[b], back[b], kind[b] = cost[a] + FORCED_COST, a, LINE
    return cost[count - 1]


@inlined
def _laid_line(x, y, horizontal, bound, a, b, line):  # type: ignore[no-untyped-def]
    """The least-squares line through points a to b, its ends left out, to line[0:4]: a place and a unit direction.

    False where there are too few points, or the line would pass one by more than its bound.
    """
    trim = 0 if b - a < 8 else (1 if b - a < 20 else 2)
    a, b = a + trim, b - trim
    n = b - a
    if n < 4:
        return False
    mean_x, mean_y, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(a, b):
        mean_x += x[i]
        mean_y += y[i]
    mean_x, mean_y = mean_x / n, mean_y / n
    for i in range(a, b):
        dx, dy = x[i] - mean_x, y[i] - mean_y
        xx, xy, yy = xx + dx * dx, xy + dx * dy, yy + dy * dy
    turn = 0.5 * np.arctan2(2 * xy, xx - yy)
    c, s = np.cos(turn), np.sin(turn)
    if c * (x[b - 1] - x[a]) + s * (y[b - 1] - y[a]) < 0:
        c, s = -c, -s
    for i in range(a, b):
        if crosswise(x[i] - mean_x, y[i] - mean_y, c, s, horizontal[i]) > bound[i]:
            return False
    line[0], line[1], line[2], line[3] = mean_x, mean_y, c, s
    return True


@inlined
def _foot(line, px, py):  # type: ignore[no-untyped-def]
    along = (px - line[0]) * line[2] + (py - line[1]) * line[3]
    return line[0] + along * line[2], line[1] + along * line[3]


@inlined
def _meeting(one, two, px, py):  # type: ignore[no-untyped-def]
    """Where two lines meet, if that is near (px, py); else the middle of its feet on them."""
    cross = one[2] * two[3] - one[3] * two[2]
    ax, ay = _foot(one, px, py)
    bx, by = _foot(two, px, py)
    mx, my = 0.5 * (ax + bx), 0.5 * (ay + by)
    if abs(cross) < 0.05:
        return mx, my
    s = ((two[0] - one[0]) * two[3] - (two[1] - one[1]) * two[2]) / cross
    qx, qy = one[0] + s * one[2], one[1] + s * one[3]
    near = (qx - px) ** 2 + (qy - py) ** 2
    return (qx, qy) if near < MEETING_REACH_PX * MEETING_REACH_PX else (mx, my)


@inlined
def _move_nodes(nodes, path, kinds, lines, laid, held, closed, moved):  # type: ignore[no-untyped-def]
    """Nodes of the path where the laid lines want them, to `moved`: place, tangents back and forward, kind."""
    m = len(path) - 1
    for k in range(m + 1):
        node = nodes[path[k]]
        for j in range(7):
            moved[k, j] = node[j + 1]
        if held[k] or node[9] > 0:
            continue
        left = k - 1 if k > 0 else (m - 1 if closed else -1)
        right = k if k < m else (0 if closed else -1)
        on_left, on_right = left >= 0 and laid[left], right >= 0 and laid[right]
        if on_left and on_right:
            moved[k, 0], moved[k, 1] = _meeting(lines[left], lines[right], node[1], node[2])
            moved[k, 6] = CORNER
        elif on_left or on_right:
            line = lines[left] if on_left else lines[right]
            moved[k, 0], moved[k, 1] = _foot(line, node[1], node[2])
            if node[7] == SMOOTH:
                moved[k, 2], moved[k, 3], moved[k, 4], moved[k, 5] = -line[2], -line[3], line[2], line[3]


@inlined
def _settle(x, y, horizontal, bound, nodes, path, kinds, handles, closed, u, moved):  # type: ignore[no-untyped-def]
    """Lays the lines, moves the nodes to them and fits the cubics between anew, where all of that holds the bound.

    Args:
        path: the chosen nodes, in order; kinds[k] and handles[k] belong to the segment from path[k] to path[k + 1].
        moved: the nodes as they end up.
    """
    m = len(path) - 1
    lines, laid, held = np.zeros((m, 4)), np.zeros(m, np.bool_), np.zeros(m + 1, np.bool_)
    ends, h = np.empty(8), np.empty(4)
    for k in range(m):
        if kinds[k] == LINE:
            laid[k] = _laid_line(x, y, horizontal, bound, int(nodes[path[k], 0]), int(nodes[path[k + 1], 0]), lines[k])
    for _ in range(3):
        _move_nodes(nodes, path, kinds, lines, laid, held, closed, moved)
        again = False
        for k in range(m):
            a, b = int(nodes[path[k], 0]), int(nodes[path[k + 1], 0])
            p, q = moved[k], moved[k + 1]
            if kinds[k] == CUBIC:
                ends[0], ends[1], ends[2], ends[3] = p[0], p[1], q[0], q[1]
                ends[4], ends[5], ends[6], ends[7] = p[4], p[5], q[2], q[3]
                strain, _ = fit_cubic(
                    x, y, horizontal, bound, a, b, ends, p[6] != SMOOTH, q[6] != SMOOTH, ROUNDS, u, h
                )
                fits = strain <= 1.0
                if fits:
                    handles[k] = h
            else:
                fits = kinds[k] == ARC or _line_strain(x, y, horizontal, bound, a, b, p, q) <= 1.05
            if not fits and not (held[k] and held[k + 1]):
                held[k], held[k + 1], again = True, True, True
                if closed and (k == 0 or k == m - 1):
                    held[0], held[m] = True, True
        if not again:
            break


@inlined
def _line_strain(x, y, horizontal, bound, a, b, p, q):  # type: ignore[no-untyped-def]
    worst = 0.0
    for i in range(a, b):
        apart = crosswise(x[i] - p[0], y[i] - p[1], q[0] - p[0], q[1] - p[1], horizontal[i])
        worst = max(worst, apart / bound[i])
    return worst


@inlined
def _write(nodes, path, kinds, handles, moved, runs, found, low, segments, kind_out, span):  # type: ignore[no-untyped-def]
    """The path as rows of segments; span holds the vertices between which each lies, from the chain's start."""
    m = len(path) - 1
    run = 0
    for k in range(m):
        p, q, row = moved[k], moved[k + 1], segments[k]
        kind_out[k] = kinds[k]
        span[k, 0], span[k, 1] = int(nodes[path[k], 0]) - low, int(nodes[path[k + 1], 0]) - low
        if kinds[k] == LINE:
            row[0], row[1], row[2], row[3] = p[0], p[1], q[0], q[1]
        elif kinds[k] == CUBIC:
            h = handles[k]
            row[0], row[1], row[2], row[3] = p[0], p[1], p[0] + h[0], p[1] + h[1]
            row[4], row[5], row[6], row[7] = q[0] + h[2], q[1] + h[3], q[0], q[1]
        else:
            while runs[run, 0] != nodes[path[k], 0]:
                run += 1
            cx, cy, r = runs[run, 2], runs[run, 3], runs[run, 4]
            row[0], row[1], row[2], row[3], row[4], row[5] = p[0], p[1], cx, cy, r, r
            turn = np.arctan2(q[1] - cy, q[0] - cx) - np.arctan2(p[1] - cy, p[0] - cx)
            if runs[run, 5] > 0 and turn < 0:
                turn += 2 * np.pi
            elif runs[run, 5] < 0 and turn > 0:
                turn -= 2 * np.pi
            row[6], row[7], row[8], row[9] = 0.0, turn, q[0], q[1]
    return m


@inlined
def _fit_chain(x, y, horizontal, bound, low, high, closed, ends, options, segments, kind_out, span, turn):  # type: ignore[no-untyped-def]
    """Segments of one chain; their number. `turn` holds its corners."""
    step, tolerance = int(options[0]), options[1]
    n = high - low
    limit = np.minimum(bound, CIRCLE_PX)
    runs = np.zeros((n // CIRCLE_LEAST_POINTS + 1, 6))
    found = _find_circles(x, y, horizontal, limit, low, high, turn, runs)
    for k in range(found):
        runs[k, 5] = _sweep(x, y, int(runs[k, 0]), int(runs[k, 1]), runs[k, 2], runs[k, 3])
    nodes = np.empty((2 * n + 4, 10))
    count = _place_nodes(
        x, y, horizontal, bound, low, high, closed, ends, turn, runs, found, step if n > 24 else 1, nodes
    )
    if closed:
        nodes[count - 1, 1:7] = nodes[0, 1:7]
        nodes[count - 1, 7] = max(nodes[count - 1, 7], nodes[0, 7])
        nodes[0, 7] = nodes[count - 1, 7]
    u, along = np.empty(n + 2), np.empty(len(x))
    back, kind, handles = np.empty(count, np.int32), np.empty(count, np.int32), np.zeros((count, 4))
    _walk_lengths(x, y, along)
    _cheapest(x, y, horizontal, bound, along, nodes, count, STRAIN_COST * (0.8 / tolerance) ** 2.5, back, kind, handles)
    m, at = 0, count - 1
    while at > 0:
        at = back[at]
        m += 1
    path, kinds, chosen = np.empty(m + 1, np.int32), np.empty(m, np.int32), np.empty((m, 4))
    at = count - 1
    path[m] = at
    for k in range(m - 1, -1, -1):
        kinds[k] = kind[at]
        chosen[k] = handles[at]
        at = back[at]
        path[k] = at
    moved = np.empty((m + 1, 7))
    _settle(x, y, horizontal, bound, nodes, path, kinds, chosen, closed, u, moved)
    return _write(nodes, path, kinds, chosen, moved, runs, found, low, segments, kind_out, span)


@inlined
def _spread(x2, y2, bounds, point, first, n, start, pad, x, y, horizontal, bound):  # type: ignore[no-untyped-def]
    """A chain's points from its point `start` on, `pad` of them repeated on each side."""
    for i in range(-pad, n + pad):
        at = point[first + (i + start) % n]
        x[i + pad], y[i + pad] = 0.5 * x2[at], 0.5 * y2[at]
        horizontal[i + pad] = x2[at] % 2 == 1
        bound[i + pad] = bounds[at]


@inlined
def _best_start(x, y, horizontal, bound, low, high, turn):  # type: ignore[no-untyped-def]
    """The vertex of a closed chain at which its curve is to be cut: the sharpest corner, or where it bends most."""
    best, most = low, 0.0
    for v in range(low, high):
        if turn[v] > most:
            best, most = v, turn[v]
    if most > 0:
        return best - low
    fitted = np.empty(6)
    for v in range(low, high, 2):
        smooth_node(x, y, horizontal, bound[v], v, min(PAD, (high - low) // 4 + 1), fitted)
        bend = abs(fitted[2] * fitted[5] - fitted[3] * fitted[4]) / max((fitted[2] ** 2 + fitted[3] ** 2) ** 1.5, 1e-9)
        if bend > most:
            best, most = v, bend
    return best - low


@kernel
def fit_chains(points, bounds, chains, ends, todo, options, stop, segments, kinds, spans, counts, starts):  # type: ignore[no-untyped-def]
    """Fit the chains of `todo`; chain c writes from row point_first[c] + 2 c on.

    Args:
        points: x2, y2 and point as in `Chains`.
        bounds: float64 [P], how far a curve may pass each point along its dual segment, px; rows as in x2.
        chains: point_first and closed as in `Chains`.
        ends: float64 [C, 4], x and y of each open chain's start and end, px.
        todo: int32 [N], numbers of chains.
        options: float64 [3]: distance of candidate nodes in cracks; the tolerance in px; 1 where only lines may be used.
        stop: uint8 [1]; once it is set no further chain is begun.
        segments, kinds, spans: float64 [., FIELDS], int32 [.], int32 [., 2], see `_write`.
        counts, starts: int32 [C], the number of segments, and for a closed chain the point at which they begin.
    """
    x2, y2, point = points
    point_first, closed = chains
    for c in todo:
        if stop[0] != 0:
            return
        first = point_first[c]
        n = point_first[c + 1] - first
        row = first + 2 * c
        pad = PAD if closed[c] else 0
        x, y = np.empty(n + 2 * pad), np.empty(n + 2 * pad)
        horizontal, bound = np.empty(n + 2 * pad, np.bool_), np.empty(n + 2 * pad)
        turn = np.zeros(n + 2 * pad + 1)
        low, high = pad, pad + n
        starts[c] = 0
        _spread(x2, y2, bounds, point, first, n, 0, pad, x, y, horizontal, bound)
        if closed[c]:
            if _closed_conic(x, y, horizontal, bound, low, high, segments[row:]) == 1:
                counts[c], kinds[row], spans[row, 0], spans[row, 1] = 1, ELLIPSE, 0, n
                continue
            find_corners(x, y, horizontal, bound, low, high, turn)
            starts[c] = _best_start(x, y, horizontal, bound, low, high, turn)
            _spread(x2, y2, bounds, point, first, n, starts[c], pad, x, y, horizontal, bound)
            turn[:] = 0.0
        find_corners(x, y, horizontal, bound, low, high + (1 if closed[c] else 0), turn)
        counts[c] = _fit_chain(
            x, y, horizontal, bound, low, high, closed[c], ends[c], options, segments[row:], kinds[row:], spans[row:], turn
        )
