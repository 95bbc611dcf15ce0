"""What happens to the cheapest path: lines are laid by least squares, nodes move to where lines meet, cubics follow."""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.trace.between import line_between
from pipeline.trace.candidates import CORNER, SMOOTH
from pipeline.trace.cheapest import ARC, CUBIC, LINE
from pipeline.trace.cubics import crosswise, fit_cubic
from pipeline.types import F64, I32, Mask

ROUNDS = 4
MEETING_REACH_PX = 1.6
"""How far a node may move to the place where two lines meet."""


@inlined
def _laid_line(x: F64, y: F64, horizontal: Mask, bound: F64, a: int, b: int, line: F64) -> bool:
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
    line_between(x, y, horizontal, a, b, line)
    return True


@inlined
def _foot(line: F64, px: float, py: float) -> tuple[float, float]:
    along = (px - line[0]) * line[2] + (py - line[1]) * line[3]
    return line[0] + along * line[2], line[1] + along * line[3]


@inlined
def _meeting(one: F64, two: F64, px: float, py: float) -> tuple[float, float]:
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
def _move_nodes(nodes: F64, path: I32, lines: F64, laid: Mask, held: Mask, closed: bool, moved: F64) -> None:
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
def settle(
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
    nodes: F64,
    path: I32,
    kinds: I32,
    handles: F64,
    closed: bool,
    u: F64,
    moved: F64,
) -> None:
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
        _move_nodes(nodes, path, lines, laid, held, closed, moved)
        again = False
        for k in range(m):
            a, b = int(nodes[path[k], 0]), int(nodes[path[k + 1], 0])
            p, q = moved[k], moved[k + 1]
            if kinds[k] == CUBIC:
                ends[0], ends[1], ends[2], ends[3] = p[0], p[1], q[0], q[1]
                ends[4], ends[5], ends[6], ends[7] = p[4], p[5], q[2], q[3]
                strain, _ = fit_cubic(x, y, horizontal, bound, a, b, ends, p[6] != SMOOTH, q[6] != SMOOTH, ROUNDS, u, h)
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
def _line_strain(x: F64, y: F64, horizontal: Mask, bound: F64, a: int, b: int, p: F64, q: F64) -> float:
    worst = 0.0
    for i in range(a, b):
        apart = crosswise(x[i] - p[0], y[i] - p[1], q[0] - p[0], q[1] - p[1], horizontal[i])
        worst = max(worst, apart / bound[i])
    return worst
