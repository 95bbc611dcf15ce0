"""Candidate nodes of a chain: its ends, its corners, the ends of its circular stretches, and smooth places between."""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.trace.circular import on_circle, sweep_about
from pipeline.trace.nodes import CAP_TURN_RAD, cap_at, corner_at, smooth_node
from pipeline.types import F64, Mask

SMOOTH, CORNER, END = 0, 1, 2
FIXED, ARC_BEGINS = 1.0, 2.0

VERTEX, X, Y, BACK_X, BACK_Y, ON_X, ON_Y, KIND, COST, HELD = range(10)
"""Columns of a node: its crack vertex; its place in px; the unit tangents back and onward; what it is; what it costs to
use it; whether each path passes it, and whether a circular stretch begins there."""

LEVEL_CRACKS = 8
"""A straight run of so many cracks is level or upright where what lies beside it is at most a third as long."""

LONG_RUN = 48
"""So long a run is level wherever it comes from."""

CORNER_COST = 3.0
NARROW_COST = 0.6
"""Of a smooth node whose tangent rests on fewer than six points."""


@inlined
def _add(
    nodes: F64,
    count: int,
    v: int,
    px: float,
    py: float,
    bx: float,
    by: float,
    fx: float,
    fy: float,
    kind: int,
    cost: float,
) -> int:
    row = nodes[count]
    row[VERTEX], row[X], row[Y] = v, px, py
    row[BACK_X], row[BACK_Y], row[ON_X], row[ON_Y] = bx, by, fx, fy
    row[KIND], row[COST], row[HELD] = kind, cost, 0.0
    return count + 1


@inlined
def _add_smooth(
    x: F64, y: F64, horizontal: Mask, bound: F64, v: int, most: int, nodes: F64, count: int, fitted: F64
) -> int:
    w = smooth_node(x, y, horizontal, bound[v], v, most, fitted)
    length = np.sqrt(fitted[2] ** 2 + fitted[3] ** 2)
    if w == 0 or length < 1e-6:
        return count
    tx, ty = fitted[2] / length, fitted[3] / length
    return _add(nodes, count, v, fitted[0], fitted[1], -tx, -ty, tx, ty, SMOOTH, NARROW_COST if w < 3 else 0.0)


@inlined
def _add_corner(
    x: F64, y: F64, horizontal: Mask, turn: F64, v: int, before: int, after: int, nodes: F64, count: int, fitted: F64
) -> int:
    place = np.empty(2)
    vx, vy = 0.5 * (x[v - 1] + x[v]), 0.5 * (y[v - 1] + y[v])
    place[0], place[1] = vx, vy
    corner_at(x, y, horizontal, v, before, after, place, fitted)
    cost = CORNER_COST * max(0.0, 1.6 - turn[v])
    return _add(nodes, count, v, fitted[0], fitted[1], fitted[2], fitted[3], fitted[4], fitted[5], CORNER, cost)


@inlined
def _add_arc_end(x: F64, y: F64, run: F64, v: int, leaving: bool, nodes: F64, count: int) -> int:
    """A node where a circular stretch begins (leaving) or ends, on the circle and along it."""
    cx, cy, r = run[2], run[3], run[4]
    px, py = on_circle(0.5 * (x[v - 1] + x[v]), 0.5 * (y[v - 1] + y[v]), cx, cy, r)
    a, b = int(run[0]), int(run[1])
    direction = 1.0 if sweep_about(x, y, a, b, cx, cy) > 0 else -1.0
    tx, ty = -(py - cy) / r * direction, (px - cx) / r * direction
    count = _add(nodes, count, v, px, py, -tx, -ty, tx, ty, SMOOTH, 0.0)
    nodes[count - 1, HELD] = ARC_BEGINS if leaving else FIXED
    return count


@inlined
def _add_cap(
    x: F64, y: F64, horizontal: Mask, v: int, low: int, high: int, first: int, nodes: F64, count: int
) -> tuple[int, int]:
    """Adds both corners of a square end about v, in place of the nodes between them; the count, the last vertex.

    The last vertex is -1 where none is added: no such end is there, it begins before vertex `first`, or a node lies in
    it that each path passes. Nodes behind that one are dropped even then.
    """
    cap = np.empty(8)
    one, two = cap_at(x, y, horizontal, v, low, high, cap)
    if one == two or one < first or two <= v:
        return count, -1
    while count > 0 and nodes[count - 1, VERTEX] >= one:
        if nodes[count - 1, HELD] != 0 or nodes[count - 1, KIND] == END:
            return count, -1
        count -= 1
    ax, ay = cap[2] - cap[0], cap[3] - cap[1]
    length = max(np.sqrt(ax * ax + ay * ay), 1e-9)
    ax, ay = ax / length, ay / length
    count = _add(nodes, count, one, cap[0], cap[1], cap[4], cap[5], ax, ay, CORNER, 0.0)
    return _add(nodes, count, two, cap[2], cap[3], -ax, -ay, cap[6], cap[7], CORNER, 0.0), two


@inlined
def _level_cracks(horizontal: Mask, v: int, step: int, most: int) -> int:
    """Cracks of one straight run beside vertex v, before it (step -1) or behind it (1); `most` are looked at."""
    first = v - 1 if step < 0 else v
    n = 0
    while n < most and horizontal[first + n * step] == horizontal[first]:
        n += 1
    return n


@inlined
def _add_level(
    x: F64, y: F64, horizontal: Mask, turn: F64, v: int, before: int, after: int, nodes: F64, count: int
) -> int:
    """A smooth node at the end of an upright or level run that comes from a corner, on the run; the count.

    A run between two bends may be the top of a curve, which is not level. No node is added at a chain's end.
    """
    if min(before, after) < 2:
        return count
    back = _level_cracks(horizontal, v, -1, min(before, LONG_RUN))
    onward = _level_cracks(horizontal, v, 1, min(after, LONG_RUN))
    if max(back, onward) < LEVEL_CRACKS or 3 * min(back, onward) > max(back, onward):
        return count
    far = v - back if back > onward else v + onward
    if turn[far] == 0 and max(back, onward) < LONG_RUN:
        return count
    i, j = (v - 1, v - 2) if back > onward else (v + 1, v)
    tx, ty = (x[v - 1] - x[v - 2], y[v - 1] - y[v - 2]) if back > onward else (x[v + 1] - x[v], y[v + 1] - y[v])
    px, py = (0.5 * (x[v - 1] + x[v]), y[j]) if horizontal[i] else (x[j], 0.5 * (y[v - 1] + y[v]))
    return _add(nodes, count, v, px, py, -tx, -ty, tx, ty, SMOOTH, 0.0)


@inlined
def _to_next_corner(turn: F64, v: int, high: int) -> int:
    """Points from vertex v to the next corner before `high`; many where there is none."""
    for other in range(v + 1, high):
        if turn[other] > 0:
            return other - v
    return high


@inlined
def place_nodes(  # noqa: PLR0912 - a branch for each kind of vertex
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
    low: int,
    high: int,
    closed: bool,
    ends: F64,
    turn: F64,
    runs: F64,
    found: int,
    step: int,
    nodes: F64,
) -> int:
    """Writes the candidate nodes between vertices low and high, in order, to the rows of `nodes`; their number."""
    fitted = np.empty(6)
    first_point, last_point = (0, len(x)) if closed else (low, high)
    count, run, last_corner = 0, 0, low - 100
    v = low
    while v <= high:
        end = not low < v < high
        before, after = v - first_point, last_point - v
        inside = run < found and runs[run, 0] < v < runs[run, 1]
        if run < found and (v == runs[run, 0] or v == runs[run, 1]) and (closed or not end):
            count = _add_arc_end(x, y, runs[run], v, v == runs[run, 0], nodes, count)
        elif end and not closed:
            at = 0 if v == low else 2
            count = _add(nodes, count, v, ends[at], ends[at + 1], 0.0, 0.0, 0.0, 0.0, END, 0.0)
            if run < found and v == runs[run, 0]:
                nodes[count - 1, HELD] = ARC_BEGINS
        elif inside:
            v = int(runs[run, 1]) - 1
        elif turn[v] > CAP_TURN_RAD and not end:
            count, last = _add_cap(x, y, horizontal, v, first_point, last_point, low, nodes, count)
            if last < 0:
                count = _add_corner(
                    x, y, horizontal, turn, v, min(before, v - last_corner), after, nodes, count, fitted
                )
                last = v
            v = last_corner = last
        elif turn[v] > 0:
            back, onward = min(before, v - last_corner), min(after, _to_next_corner(turn, v, high))
            count = _add_corner(x, y, horizontal, turn, v, back, onward, nodes, count, fitted)
            last_corner = v
            if turn[v] < 1.0 and not end:
                count = _add_smooth(x, y, horizontal, bound, v, min(before, after), nodes, count, fitted)
        else:
            if end or ((v - low) % step == 0 and min(v - low, high - v) >= min(step, 2)):
                count = _add_smooth(x, y, horizontal, bound, v, min(before, after), nodes, count, fitted)
            count = _add_level(x, y, horizontal, turn, v, 0 if end else before, after, nodes, count)
        if run < found and v == runs[run, 1]:
            run += 1
            if run < found and runs[run, 0] == v:
                nodes[count - 1, KIND], nodes[count - 1, HELD] = CORNER, ARC_BEGINS  # two circles meet
        v += 1
    return count
