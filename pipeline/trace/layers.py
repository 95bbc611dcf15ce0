"""From the arc table to painted layers: one outline for each ink, in painter's order.

*Stacked*: a layer is its own regions, and every later region that touches nothing painted earlier (so most holes
vanish). Its border is drawn exactly where it meets an earlier layer, and hidden where it meets a later one. So each
visible border is drawn by one layer alone, and every anti-aliased pixel on it blends the two inks that meet there.

*Abutting*: a layer is its own regions, and both layers draw the border between them, with the same numbers.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.compiled import inlined, kernel
from pipeline.trace.cheapest import ARC, CUBIC, ELLIPSE, LINE
from pipeline.trace.hidden import END_POINTS, MOST, REACH_PX, Below, clear_ends, set_gates, shorten, stab
from pipeline.trace.junctions import on_segment
from pipeline.trace.pieces import ArcFields
from pipeline.trace.planar import root
from pipeline.types import F64, I32, U8, Mask

I64 = npt.NDArray[np.int64]

Tracks: TypeAlias = tuple[I32, I32, I32, F64]
"""`arc_point`, `x2` and `y2` of `Chains`, and each point's bound."""

OUT, EXACT, HIDDEN = 0, 1, 2

STRAIGHT_PX = 0.04
"""A curve whose handles lie no further from its chord is written as a line."""

MOST_ARC_RAD = 2.2
"""An arc that turns further is written as several: near a half turn its centre hangs on its radius' last digit."""

SHORT = 1
"""1/100 px by which the x radius of half an ellipse is written short of what its chord asks for."""

M, L, C, A, Z = 77, 76, 67, 65, 90


@kernel
def layer_regions(rank: I32, own: bool, mine: int, left: I32, right: I32, inside: Mask) -> None:
    """Which regions a stacked layer paints: its own, and groups of later ones that touch it and nothing earlier.

    Args:
        rank: int32 [R], of each region.
        own: whether later regions are left out altogether (abutting layers).
        mine: the layer's rank.
        left, right: int32 [A], regions beside each arc, -1 outside the map.
        inside: bool [R], written.
    """
    regions = len(rank)
    parent = np.arange(regions)
    touched, earlier = np.zeros(regions, np.bool_), np.zeros(regions, np.bool_)
    for r in range(regions):
        inside[r] = rank[r] == mine
    if own:
        return
    for a in range(len(left)):
        p, q = left[a], right[a]
        if p >= 0 and q >= 0 and rank[p] > mine and rank[q] > mine:
            p, q = root(parent, p), root(parent, q)
            parent[max(p, q)] = min(p, q)
    _mark_groups(rank, mine, left, right, parent, touched, earlier)
    for r in range(regions):
        if rank[r] > mine:
            inside[r] = touched[root(parent, r)] and not earlier[root(parent, r)]


@inlined
def _mark_groups(rank: I32, mine: int, left: I32, right: I32, parent: I64, touched: Mask, earlier: Mask) -> None:
    """Marks, by their roots, groups of later regions that touch the layer's own, and those that touch earlier ones."""
    for a in range(len(left)):
        for side in range(2):
            p, q = (left[a], right[a]) if side == 0 else (right[a], left[a])
            if p >= 0 and q >= 0 and rank[p] > mine:
                if rank[q] < mine:
                    earlier[root(parent, p)] = True
                elif rank[q] == mine:
                    touched[root(parent, p)] = True


@inlined
def border_kind(rank: I32, inside: Mask, mine: int, hides: bool, p: int, q: int) -> int:
    """Whether an arc between regions p (left) and q is on the layer's border, and how it is drawn."""
    in_p, in_q = p >= 0 and inside[p], q >= 0 and inside[q]
    if in_p == in_q:
        return OUT
    other = q if in_p else p
    return HIDDEN if hides and other >= 0 and rank[other] > mine else EXACT


@inlined
def _follow(junction_ends: I32, junction: int, came: int, border: U8, reverse_in: Mask) -> int:
    """The border arc that goes on from a junction, with the layer's inside still to the left; -1 if there is none.

    `came` is the crack direction that leads back. Turning clockwise from it, the first border arc is the next one.
    """
    for turn in range(1, 5):
        end = junction_ends[junction, (came + turn) % 4]
        if end < 0:
            continue
        arc, reverse = end // 2, end % 2 == 1
        if border[arc] != OUT and reverse_in[arc] == reverse:
            return int(arc)
    return -1


@inlined
def _find_rings(
    border: U8,
    reverse_in: Mask,
    start: I32,
    stop: I32,
    leave: I32,
    arrive: I32,
    junction_ends: I32,
    ring: I32,
    first: I32,
) -> int:
    """Rings of border arcs: arcs to `ring`, where each ring begins to `first`; the number of rings."""
    done = np.zeros(len(border), np.bool_)
    rings, n = 0, 0
    for seed in range(len(border)):
        if border[seed] == OUT or done[seed]:
            continue
        first[rings] = n
        rings += 1
        arc = seed
        while arc >= 0 and not done[arc]:
            done[arc] = True
            ring[n] = arc
            n += 1
            if start[arc] < 0:
                break
            at, came = (start[arc], leave[arc]) if reverse_in[arc] else (stop[arc], arrive[arc])
            arc = _follow(junction_ends, at, came, border, reverse_in)
    first[rings] = n
    return rings


@inlined
def _put(commands: U8, points: I32, at: I64, letter: int, n: int, px: int, py: int) -> None:
    commands[at[0]] = letter
    points[at[1], 0], points[at[1], 1] = px, py
    at[0] += 1
    at[1] += n


@inlined
def _line_to(commands: U8, points: I32, at: I64, px: int, py: int) -> None:
    """A line, or a longer last line where both run one way along a row or column; nothing where it has no length."""
    n = at[1]
    ax, ay = points[n - 1, 0], points[n - 1, 1]
    if ax == px and ay == py:
        return
    if commands[at[0] - 1] == L:
        bx, by = points[n - 2, 0], points[n - 2, 1]
        upright = ax == px and bx == ax and (py - ay > 0) == (ay - by > 0)
        level = ay == py and by == ay and (px - ax > 0) == (ax - bx > 0)
        if upright or level:
            points[n - 1, 0], points[n - 1, 1] = px, py
            return
    _put(commands, points, at, L, 1, px, py)


@inlined
def _units(value: float, grid: int) -> int:
    return int(np.floor(value * 100 / grid + 0.5)) * grid


@inlined
def _cubic_to(commands: U8, points: I32, at: I64, row: F64, t0: float, t1: float, px: int, py: int, grid: int) -> None:
    """The part of a cubic between two parameters (de Casteljau's cuts, in either direction) to the point (px, py)."""
    n = at[1]
    sx, sy = points[n - 1, 0], points[n - 1, 1]
    if sx == px and sy == py and abs(t1 - t0) < 0.5:
        return
    h = (t1 - t0) / 3
    x0, y0 = on_segment(CUBIC, row, t0)
    x3, y3 = on_segment(CUBIC, row, t1)
    handles = np.empty(4)
    for end in range(2):
        t = t0 if end == 0 else t1
        r = 1 - t
        a, b, c = 3 * r * r, 6 * r * t, 3 * t * t
        dx = a * (row[2] - row[0]) + b * (row[4] - row[2]) + c * (row[6] - row[4])
        dy = a * (row[3] - row[1]) + b * (row[5] - row[3]) + c * (row[7] - row[5])
        handles[2 * end], handles[2 * end + 1] = dx * h, dy * h
    ex, ey = x3 - x0, y3 - y0
    chord = max(np.sqrt(ex * ex + ey * ey), 1e-9)
    flat = abs(handles[0] * ey - handles[1] * ex) <= STRAIGHT_PX * chord
    flat = flat and abs(handles[2] * ey - handles[3] * ex) <= STRAIGHT_PX * chord
    if flat and handles[0] * ex + handles[1] * ey >= 0 and handles[2] * ex + handles[3] * ey >= 0:
        _line_to(commands, points, at, px, py)
        return
    commands[at[0]] = C
    points[n, 0], points[n, 1] = sx + _units(handles[0], grid), sy + _units(handles[1], grid)
    points[n + 1, 0], points[n + 1, 1] = px - _units(handles[2], grid), py - _units(handles[3], grid)
    points[n + 2, 0], points[n + 2, 1] = px, py
    at[0] += 1
    at[1] += 3


@inlined
def _arc_to(commands: U8, points: I32, at: I64, row: F64, t0: float, t1: float, px: int, py: int) -> None:
    """The part of a circle or ellipse between two parameters, in steps of at most MOST_ARC_RAD."""
    sweep = row[7] * (t1 - t0)
    steps = max(1, int(np.ceil(abs(sweep) / MOST_ARC_RAD)))
    rx, ry = int(np.floor(row[4] * 100 + 0.5)), int(np.floor(row[5] * 100 + 0.5))
    turn = 0 if rx == ry else int(np.floor(np.degrees(row[6]) * 100 + 0.5))
    for k in range(1, steps + 1):
        qx, qy = px, py
        if k < steps:
            x, y = on_segment(ARC, row, t0 + (t1 - t0) * k / steps)
            qx, qy = _units(x, 1), _units(y, 1)
        _put_arc(commands, points, at, rx, ry, turn, sweep, qx, qy)


@inlined
def _put_arc(commands: U8, points: I32, at: I64, rx: int, ry: int, turn: int, sweep: float, px: int, py: int) -> None:
    n = at[1]
    commands[at[0]] = A
    points[n, 0], points[n, 1] = rx, ry
    points[n + 1, 0], points[n + 1, 1] = turn, (1 if sweep > 0 else 0)
    points[n + 2, 0], points[n + 2, 1] = px, py
    at[0] += 1
    at[1] += 3


@inlined
def _ellipse(commands: U8, points: I32, at: I64, row: F64, t0: float, t1: float, px: int, py: int) -> None:
    """A whole circle or ellipse as two halves that meet across its centre.

    The radii are written a little short of half the chord, in their proportion: SVG enlarges them to fit, so both
    halves have the chord's middle for their centre.
    """
    qx, qy = _units(2 * row[2], 1) - px, _units(2 * row[3], 1) - py
    dx, dy = 0.5 * (qx - px), 0.5 * (qy - py)
    # the turn that is written decides what the radii must reach
    turn = 0 if row[4] == row[5] else int(np.floor(np.degrees(row[6]) * 100 + 0.5))
    c, s = np.cos(np.radians(0.01 * turn)), np.sin(np.radians(0.01 * turn))
    u, w = (dx * c + dy * s) / row[4], (dy * c - dx * s) / row[5]
    fit = np.sqrt(u * u + w * w)
    rx = max(int(fit * row[4]) - SHORT, 1)
    ry = rx if row[4] == row[5] else max(int(rx * row[5] / row[4]), 1)
    sweep = row[7] * (t1 - t0)
    _put_arc(commands, points, at, rx, ry, turn, sweep, qx, qy)
    _put_arc(commands, points, at, rx, ry, turn, sweep, px, py)


@inlined
def _draw(
    commands: U8, points: I32, at: I64, table: ArcFields, k: int, t0: float, t1: float, px: int, py: int, grid: int
) -> None:
    kind, segment = table[0], table[1]
    if kind[k] == LINE:
        _line_to(commands, points, at, px, py)
    elif kind[k] == CUBIC:
        _cubic_to(commands, points, at, segment[k], t0, t1, px, py, grid)
    elif kind[k] == ELLIPSE and abs(t1 - t0) == 1 and points[at[1] - 1, 0] == px and points[at[1] - 1, 1] == py:
        _ellipse(commands, points, at, segment[k], t0, t1, px, py)
    else:
        _arc_to(commands, points, at, segment[k], t0, t1, px, py)


@inlined
def _exact(
    commands: U8,
    points: I32,
    at: I64,
    table: ArcFields,
    ring: I32,
    low: int,
    high: int,
    reverse_in: Mask,
    merge: bool,
    grid: int,
) -> None:
    """Draws the arcs ring[low:high] from their pieces; pieces of one segment that follow each other become one."""
    _, _, first, piece, begin, end, x, y, start_x, start_y = table
    held, t0, t1, px, py = -1, 0.0, 0.0, 0, 0
    for i in range(low, high):
        arc = ring[i]
        many = first[arc + 1] - first[arc]
        for j in range(many):
            k = first[arc] + (many - 1 - j if reverse_in[arc] else j)
            if reverse_in[arc]:
                a, b = end[k], begin[k]
                qx, qy = (start_x[arc], start_y[arc]) if j + 1 == many else (x[k - 1], y[k - 1])
            else:
                a, b = begin[k], end[k]
                qx, qy = x[k], y[k]
            if held == piece[k] and merge and t1 == a and (b > a) == (t1 > t0):
                t1, px, py = b, qx, qy
                continue
            if held >= 0:
                _draw(commands, points, at, table, held, t0, t1, px, py, grid)
            held, t0, t1, px, py = piece[k], a, b, qx, qy
    if held >= 0:
        _draw(commands, points, at, table, held, t0, t1, px, py, grid)


@inlined
def _gather_points(
    ring: I32, low: int, high: int, reverse_in: Mask, tracks: Tracks, x: F64, y: F64, bound: F64
) -> None:
    """Midpoints and bounds along the arcs ring[low:high]."""
    arc_point, x2, y2, bounds = tracks
    n = 0
    for i in range(low, high):
        arc = ring[i]
        a, b = arc_point[arc], arc_point[arc + 1]
        for j in range(b - a):
            k = b - 1 - j if reverse_in[arc] else a + j
            x[n], y[n], bound[n] = 0.5 * x2[k], 0.5 * y2[k], bounds[k]
            n += 1


@inlined
def _length_of(ring: I32, low: int, high: int, arc_point: I32) -> int:
    """How many cracks the arcs ring[low:high] have."""
    n = 0
    for i in range(low, high):
        n += arc_point[ring[i] + 1] - arc_point[ring[i]]
    return n


@inlined
def _hidden(
    commands: U8,
    points: I32,
    at: I64,
    below: Below,
    ring: I32,
    low: int,
    high: int,
    reverse_in: Mask,
    tracks: Tracks,
    sx: int,
    sy: int,
    ex: int,
    ey: int,
    closed: bool,
    grid: int,
) -> None:
    """Draws a hidden border along the arcs ring[low:high]; a closed one begins with its own first point."""
    index, rank_of, mine, trap = below
    n = _length_of(ring, low, high, tracks[0])
    x, y, bound = np.empty(n), np.empty(n), np.empty(n)
    _gather_points(ring, low, high, reverse_in, tracks, x, y, bound)
    gates, vertices = np.empty((n, 4)), np.empty((n + 2, 2))
    set_gates(index, rank_of, mine, trap, x, y, bound, n, closed, gates)
    px, py, qx, qy = 0.01 * sx, 0.01 * sy, 0.01 * ex, 0.01 * ey
    if closed:
        px, py = 0.5 * (gates[0, 0] + gates[0, 2]), 0.5 * (gates[0, 1] + gates[0, 3])
        qx, qy = px, py
        _put(commands, points, at, M, 1, _units(px, grid), _units(py, grid))
    skip = 0 if closed else min(END_POINTS, (n - 1) // 2)
    count = stab(gates, 1 if closed else skip, n - skip, px, py, qx, qy, vertices)
    if skip > 0 and not clear_ends(index, rank_of, mine, x, y, skip, n, (px, py, qx, qy), vertices, count):
        count = stab(gates, 0, n, px, py, qx, qy, vertices)
    if closed:
        vertices[count, 0], vertices[count, 1] = px, py
        count += 1
    if trap[MOST] > REACH_PX:
        count = shorten(index, rank_of, mine, px, py, qx, qy, closed, vertices, count)
    if closed:
        count -= 1
        points[at[1] - 1, 0], points[at[1] - 1, 1] = _units(vertices[count, 0], grid), _units(vertices[count, 1], grid)
    for i in range(count):
        _line_to(commands, points, at, _units(vertices[i, 0], grid), _units(vertices[i, 1], grid))
    if not closed:
        _line_to(commands, points, at, ex, ey)


@inlined
def _arc_start(table: ArcFields, arc: int, reverse: bool) -> tuple[int, int]:
    if not reverse:
        return table[8][arc], table[9][arc]
    last = table[2][arc + 1] - 1
    return table[6][last], table[7][last]


@inlined
def _find_crossings(
    ring: I32, count: int, reverse_in: Mask, start: I32, stop: I32, junction_ends: I32, out: Mask
) -> None:
    """Whether each border arc, walked with the inside to the left, begins at a junction of four arcs, to `out` by arc.

    There a region may touch the border in that one place, so no hidden border may take a short cut past it.
    """
    for i in range(count):
        arc = ring[i]
        at = stop[arc] if reverse_in[arc] else start[arc]
        out[arc] = at >= 0 and junction_ends[at].min() >= 0


@inlined
def _turned(ring: I32, low: int, high: int, border: U8, crossing: Mask) -> None:
    """Turns a ring so that it begins where an exact border follows a hidden one, or else at a crossing."""
    n, first = high - low, -1
    for i in range(n):
        if border[ring[low + i]] == EXACT and border[ring[low + (i - 1) % n]] == HIDDEN:
            first = i
            break
        if first < 0 and crossing[ring[low + i]]:
            first = i
    if first <= 0:
        return
    turned = np.empty(n, np.int32)
    for j in range(n):
        turned[j] = ring[low + (first + j) % n]
    ring[low:high] = turned


@inlined
def _close(commands: U8, points: I32, at: I64, began: I64) -> None:
    """Ends a ring; a last line back to its start goes without saying, and a ring of no area is taken back."""
    n = at[1]
    if commands[at[0] - 1] == L and (points[n - 1] == points[began[1]]).all():
        at[0] -= 1
        at[1] -= 1
    curved = False
    for i in range(began[0] + 1, at[0]):
        curved = curved or commands[i] != L
    if at[0] - began[0] < (2 if curved else 3):
        at[:] = began
        return
    commands[at[0]] = Z
    at[0] += 1


@inlined
def _rings_of_parts(
    border: U8, inside: Mask, left: I32, right: I32, ring: I32, first: I32, rings: int, out: I32
) -> None:
    """How many rings the part of the layer has that each ring bounds, to out[0:rings]."""
    parent, many = np.arange(len(inside)), np.zeros(len(inside), np.int32)
    for a in range(len(border)):
        p, q = left[a], right[a]
        if border[a] == OUT and p >= 0 and q >= 0 and inside[p] and inside[q]:
            p, q = root(parent, p), root(parent, q)
            parent[max(p, q)] = min(p, q)
    for step in range(2):
        for r in range(rings):
            a = ring[first[r]]
            part = root(parent, left[a] if left[a] >= 0 and inside[left[a]] else right[a])
            if step == 0:
                many[part] += 1
            else:
                out[r] = many[part]


@inlined
def _draw_ring(
    commands: U8,
    points: I32,
    at: I64,
    below: Below,
    table: ArcFields,
    ring: I32,
    low: int,
    high: int,
    border: U8,
    crossing: Mask,
    reverse_in: Mask,
    tracks: Tracks,
    merge: bool,
    grid: int,
) -> None:
    began = at.copy()
    if border[ring[low]] == HIDDEN and not crossing[ring[low]]:
        _hidden(commands, points, at, below, ring, low, high, reverse_in, tracks, 0, 0, 0, 0, True, grid)
        _close(commands, points, at, began)
        return
    sx, sy = _arc_start(table, ring[low], reverse_in[ring[low]])
    _put(commands, points, at, M, 1, sx, sy)
    i = low
    while i < high:
        hidden, j = border[ring[i]] == HIDDEN, i + 1
        while j < high and border[ring[j]] == border[ring[i]] and not (hidden and crossing[ring[j]]):
            j += 1
        if hidden:
            px, py = points[at[1] - 1, 0], points[at[1] - 1, 1]
            ex, ey = (sx, sy) if j == high else _arc_start(table, ring[j], reverse_in[ring[j]])
            _hidden(commands, points, at, below, ring, i, j, reverse_in, tracks, px, py, ex, ey, False, grid)
        else:
            _exact(commands, points, at, table, ring, i, j, reverse_in, merge, grid)
        i = j
    _close(commands, points, at, began)


@kernel
def draw_layer(
    below: Below,
    rank: I32,
    inside: Mask,
    hides: bool,
    merge: bool,
    plane: tuple[I32, I32, I32, I32, I32, I32],
    junction_ends: I32,
    table: ArcFields,
    tracks: Tracks,
    grid: int,
    commands: U8,
    points: I32,
    ends: I32,
    alone: Mask,
) -> int:
    """The outline of one layer; the number of its rings.

    Args:
        below: uint8 [H, W] index; int32 [256], rank of each label; this layer's rank; float64 [4], its trap, see
            `pipeline.trace.hidden`.
        rank, inside: as `layer_regions` takes and gives them.
        hides: whether borders against later layers are hidden beneath them.
        merge: whether pieces of one segment that follow each other are drawn as one.
        plane: left, right, start, end of the arcs, and the crack directions in which each leaves its first vertex and
            leads back from its last.
        junction_ends: int32 [J, 4], see `place_junctions`.
        table: the fields of `ArcTable`.
        tracks: arc_point, x2, y2 of `Chains`, and each point's bound.
        grid: units to which points are rounded.
        commands, points: uint8 [.], int32 [., 2], written as `Shape` has them.
        ends: int32 [., 2], the numbers of commands and points behind each ring, written.
        alone: bool [.], whether each ring is a circle or ellipse with nothing else to its part of the layer, written.
    """
    mine = below[2]
    left, right, start, stop, leave, arrive = plane
    arcs = len(left)
    border, reverse_in = np.empty(arcs, np.uint8), np.zeros(arcs, np.bool_)
    for a in range(arcs):
        border[a] = border_kind(rank, inside, mine, hides, left[a], right[a])
        reverse_in[a] = not (left[a] >= 0 and inside[left[a]])
    ring, first = np.empty(arcs, np.int32), np.empty(arcs + 1, np.int32)
    rings = _find_rings(border, reverse_in, start, stop, leave, arrive, junction_ends, ring, first)
    crossing = np.zeros(arcs, np.bool_)
    _find_crossings(ring, first[rings], reverse_in, start, stop, junction_ends, crossing)
    many = np.empty(rings, np.int32)
    _rings_of_parts(border, inside, left, right, ring, first, rings, many)
    at = np.zeros(2, np.int64)
    for r in range(rings):
        low, high = first[r], first[r + 1]
        arc = ring[low]
        whole = high - low == 1 and border[arc] == EXACT and table[0][table[3][table[2][arc]]] == ELLIPSE
        alone[r] = whole and many[r] == 1
        _turned(ring, low, high, border, crossing)
        _draw_ring(
            commands, points, at, below, table, ring, low, high, border, crossing, reverse_in, tracks, merge, grid
        )
        ends[r, 0], ends[r, 1] = at[0], at[1]
    return rings


@kernel
def draw_edges(table: ArcFields, start: I32, grid: int, commands: U8, points: I32, ends: I32) -> None:
    """Each arc by itself, in its own walk, closed where it returns to its start; as `draw_layer` writes."""
    at = np.zeros(2, np.int64)
    ring, forward = np.empty(1, np.int32), np.zeros(len(start), np.bool_)
    for a in range(len(start)):
        began = at.copy()
        ring[0] = a
        _put(commands, points, at, M, 1, table[8][a], table[9][a])
        _exact(commands, points, at, table, ring, 0, 1, forward, True, grid)
        if start[a] < 0:
            _close(commands, points, at, began)
        elif at[0] - began[0] < 2:
            at[:] = began
        ends[a, 0], ends[a, 1] = at[0], at[1]
