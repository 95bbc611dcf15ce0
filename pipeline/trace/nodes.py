"""Where a curve may be cut: smooth places and corners of a chain, from evidence at several scales.

A node lies at a crack vertex v, between the points v - 1 and v of its chain. A smooth node takes its place and tangent
from the widest window in which one parabola explains every point; a corner takes them from one line on each side.
A corner needs a turn at a fine scale and the same turn at a coarse one, unless the fine one is as sharp as a right
angle between straight sides: a ragged outline turns everywhere, but not twice in the same place.
"""

from __future__ import annotations

import numpy as np

from pipeline.compiled import inlined
from pipeline.trace.cubics import LEAST_CROSSING, crosswise
from pipeline.types import F64, I32, Mask

WINDOWS = (20, 14, 10, 7, 5, 3, 2, 1)
FLAT_PX = 0.58
"""A parabola explains points where it passes them by no more than this, or by the slack of the bound."""

SLACK = 0.75

FINE, COARSE = 6, 14
FINE_TURN_RAD, COARSE_TURN_RAD = 0.6, 0.5
NEARLY = 0.999
"""Share of the tangent of FINE_TURN_RAD below which a turn is not worth its angle."""

SHARP_TURN_RAD = 1.05
CORNER_REACH_PX = 1.4
SHORT_RUN, SQUARE_RUN, LONG_RUN = 2, 3, 5
"""Cracks in a straight run; see `_square`."""

SQUARE_RAD = 2.0
"""The turn that such a corner counts for: none beside it is sharper."""

NEAR = 3
"""Vertices."""

STRAIGHT_SIDE = 5

WORTH_PX2 = 1.0
"""Squared distance that a corner's move must save."""

RUN_PX2 = 0.3
"""Squared distance that a corner may cost which leaves a long straight run whole."""

STRAIGHT = 8
"""Points of a side that is long enough to make a corner by itself."""

SIDE_WINDOWS = (48, 32, 22, 16, 12, 8, 6, 4, 3, 2)

CAP_TURN_RAD = 2.2
CAP_LEAST_PX, CAP_WIDTH_PX = 0.8, 5.0
CAP_SLACK = 2
CAP_VIEW = 36

CAP_SIDE = 6
"""Points that both sides of a cap must have."""

CAP_COSINE = 0.93
"""The sides of a cap run against each other at least so nearly."""


@inlined
def smooth_at(x: F64, y: F64, horizontal: Mask, v: int, w: int, limit: float, out: F64) -> bool:
    """A parabola through the w points before and after v, to out: place, first and half second derivative by index.

    Returns whether it passes all of them by `limit` or less, crosswise, or by half of it in all. With half indices
    ..., -½, ½, ... the normal equations separate.
    """
    s0, s2, s4 = 0.0, 0.0, 0.0
    x0, x1, x2, y0, y1, y2 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(v - w, v + w):
        u = i - v + 0.5
        uu = u * u
        s0 += 1
        s2 += uu
        s4 += uu * uu
        x0, x1, x2 = x0 + x[i], x1 + u * x[i], x2 + uu * x[i]
        y0, y1, y2 = y0 + y[i], y1 + u * y[i], y2 + uu * y[i]
    den = s0 * s4 - s2 * s2
    out[2], out[3] = x1 / s2, y1 / s2
    if den < 1e-9:
        out[0], out[1], out[4], out[5] = x0 / s0, y0 / s0, 0.0, 0.0
    else:
        out[0], out[1] = (x0 * s4 - x2 * s2) / den, (y0 * s4 - y2 * s2) / den
        out[4], out[5] = (x2 * s0 - x0 * s2) / den, (y2 * s0 - y0 * s2) / den
    most = limit * limit
    for k in range(2 * w):
        i = v + w - 1 - k // 2 if k % 2 == 0 else v - w + k // 2  # where it fails, it fails far from v
        u = i - v + 0.5
        ex = out[0] + u * (out[2] + u * out[4]) - x[i]
        ey = out[1] + u * (out[3] + u * out[5]) - y[i]
        tx, ty = out[2] + 2 * u * out[4], out[3] + 2 * u * out[5]
        cross, across = ex * ty - ey * tx, tx if horizontal[i] else ty
        least = max(across * across, LEAST_CROSSING * LEAST_CROSSING * (tx * tx + ty * ty))
        if cross * cross > most * least and 4 * (ex * ex + ey * ey) > most:
            return False
    return True


@inlined
def smooth_node(x: F64, y: F64, horizontal: Mask, slack: float, v: int, most: int, out: F64) -> int:
    """The widest parabola about v that holds, of at most `most` points on each side, to out; returns its half width."""
    for w in WINDOWS:
        if w > most:
            continue
        if smooth_at(x, y, horizontal, v, w, max(FLAT_PX, SLACK * slack), out) or w == 1:
            return w
    return 0


@inlined
def _side(x: F64, y: F64, horizontal: Mask, v: int, step: int, most: int, out: F64) -> int:
    """Place and unit tangent (away from v) at v of the longest line that holds on one side, to out[0:4]; its points."""
    for w in SIDE_WINDOWS:
        if w > most:
            continue
        s1, s2, n = 0.0, 0.0, float(w)
        x0, x1, y0, y1 = 0.0, 0.0, 0.0, 0.0
        for j in range(w):
            i = v + j if step > 0 else v - 1 - j
            u = j + 0.5
            s1, s2 = s1 + u, s2 + u * u
            x0, x1, y0, y1 = x0 + x[i], x1 + u * x[i], y0 + y[i], y1 + u * y[i]
        den = n * s2 - s1 * s1
        tx, ty = (n * x1 - s1 * x0) / den, (n * y1 - s1 * y0) / den
        px, py = (x0 - s1 * tx) / n, (y0 - s1 * ty) / n
        worst = 0.0
        for j in range(w):
            i = v + j if step > 0 else v - 1 - j
            u = j + 0.5
            worst = max(worst, crosswise(px + u * tx - x[i], py + u * ty - y[i], tx, ty, horizontal[i]))
        if worst <= FLAT_PX or w <= 2:
            length = max(np.sqrt(tx * tx + ty * ty), 1e-9)
            out[0], out[1], out[2], out[3] = px, py, tx / length, ty / length
            return w
    return 0


@inlined
def corner_at(x: F64, y: F64, horizontal: Mask, v: int, before: int, after: int, place: F64, out: F64) -> None:
    """A corner at v between straight sides: place and both unit tangents, away from it, to out[0:6].

    Args:
        before, after: points that each side may take, at least 2.
        place: x and y of the crack vertex.
    """
    back, front = np.empty(4), np.empty(4)
    _side(x, y, horizontal, v, -1, before, back)
    _side(x, y, horizontal, v, 1, after, front)
    out[0], out[1] = 0.5 * (back[0] + front[0]), 0.5 * (back[1] + front[1])
    cross = back[2] * front[3] - back[3] * front[2]
    if abs(cross) > 0.3:
        s = ((front[0] - back[0]) * front[3] - (front[1] - back[1]) * front[2]) / cross
        px, py = back[0] + s * back[2], back[1] + s * back[3]
        if (px - place[0]) ** 2 + (py - place[1]) ** 2 < CORNER_REACH_PX * CORNER_REACH_PX:
            out[0], out[1] = px, py
    out[2], out[3], out[4], out[5] = back[2], back[3], front[2], front[3]


@inlined
def _extreme(x: F64, y: F64, v: int, dx: float, dy: float, low: int, high: int) -> tuple[float, int]:
    """How far points about v reach along (dx, dy), and the vertex in the middle of those that do."""
    first, last = max(v - 8, low), min(v + 8, high)
    far = -1e300
    for i in range(first, last):
        far = max(far, x[i] * dx + y[i] * dy)
    many, total = 0, 0.0
    for i in range(first, last):
        if x[i] * dx + y[i] * dy > far - 0.75:
            many += 1
            total += i
    return far, int(np.floor(total / many + 1.0))


@inlined
def _nearest_vertex(x: F64, y: F64, first: int, last: int, px: float, py: float) -> int:
    """The vertex from first to before last whose neighbours' middle is nearest to (px, py)."""
    best, least = first, 1e300
    for v in range(first, last):
        dx, dy = 0.5 * (x[v - 1] + x[v]) - px, 0.5 * (y[v - 1] + y[v]) - py
        if dx * dx + dy * dy < least:
            best, least = v, dx * dx + dy * dy
    return best


@inlined
def cap_at(x: F64, y: F64, horizontal: Mask, v: int, low: int, high: int, out: F64) -> tuple[int, int]:
    """The square end of a bar about v: both corners, both sides' unit tangents away from it, to out[0:8].

    Args:
        low, high: points that may be looked at.

    Returns:
        The vertices of its corners; equal where there is no cap.
    """
    back, front = np.empty(4), np.empty(4)
    low, high = max(low, v - CAP_VIEW), min(high, v + CAP_VIEW)
    k = 2
    for _ in range(2):
        if v - k - low < CAP_SIDE or high - v - k < CAP_SIDE:
            return v, v
        one = _side(x, y, horizontal, v - k, -1, v - k - low, back)
        two = _side(x, y, horizontal, v + k, 1, high - v - k, front)
        if min(one, two) < CAP_SIDE or back[2] * front[2] + back[3] * front[3] < CAP_COSINE:
            return v, v
        dx, dy = -(back[2] + front[2]), -(back[3] + front[3])
        length = np.sqrt(dx * dx + dy * dy)
        dx, dy = dx / length, dy / length
        width = abs((front[0] - back[0]) * dy - (front[1] - back[1]) * dx)
        if not CAP_LEAST_PX < width < CAP_WIDTH_PX:
            return v, v
        far, v = _extreme(x, y, v, dx, dy, low, high)
        k = max(1, int(0.5 * width * (abs(dx) + abs(dy)) + 0.5))
    if v - k - low < CAP_SIDE or high - v - k < CAP_SIDE:
        return v, v
    for side in range(2):
        line = back if side == 0 else front
        at = (far - line[0] * dx - line[1] * dy) / -(line[2] * dx + line[3] * dy)
        out[2 * side], out[2 * side + 1] = line[0] - at * line[2], line[1] - at * line[3]
        out[4 + 2 * side], out[5 + 2 * side] = line[2], line[3]
    one = _nearest_vertex(x, y, v - k - CAP_SLACK, v, out[0], out[1])
    return one, _nearest_vertex(x, y, max(one, v) + 1, v + k + CAP_SLACK + 1, out[2], out[3])


@inlined
def _chord_turn(x: F64, y: F64, v: int, w: int, least: float) -> float:
    """The turn at v between the chords over w points on each side, in radians; 0 where its tangent is below `least`."""
    ax, ay = x[v - 1] - x[v - w], y[v - 1] - y[v - w]
    bx, by = x[v + w - 1] - x[v], y[v + w - 1] - y[v]
    if abs(ax * by - ay * bx) < least * (ax * bx + ay * by):
        return 0.0
    return float(abs(np.arctan2(ax * by - ay * bx, ax * bx + ay * by)))


@inlined
def _straight_corner(x: F64, y: F64, horizontal: Mask, v: int, most: int) -> float:
    """The turn between two straight sides of at least STRAIGHT points that meet at v; 0 where they are not there."""
    back, front = np.empty(4), np.empty(4)
    if min(_side(x, y, horizontal, v, -1, most, back), _side(x, y, horizontal, v, 1, most, front)) < STRAIGHT:
        return 0.0
    cross = back[2] * front[3] - back[3] * front[2]
    if abs(cross) < 0.5:
        return 0.0
    s = ((front[0] - back[0]) * front[3] - (front[1] - back[1]) * front[2]) / cross
    px, py = back[0] + s * back[2] - 0.5 * (x[v - 1] + x[v]), back[1] + s * back[3] - 0.5 * (y[v - 1] + y[v])
    if px * px + py * py > CORNER_REACH_PX * CORNER_REACH_PX:
        return 0.0
    return float(abs(np.arctan2(cross, -(back[2] * front[2] + back[3] * front[3]))))


@inlined
def _keep_sharpest(turn: F64, low: int, high: int, reach: int) -> None:
    """Takes back corners, but no square ones, that lie within `reach` of a square or a sharper one."""
    for v in range(low, high):
        if turn[v] <= 0 or turn[v] == SQUARE_RAD:
            continue
        for other in range(max(v - reach, low), min(v + reach + 1, high)):
            sharper = abs(turn[other]) > turn[v] or (abs(turn[other]) == turn[v] and other < v)
            if turn[other] == SQUARE_RAD or sharper:
                turn[v] = -turn[v]
                break
    for v in range(low, high):
        turn[v] = max(turn[v], 0.0)


@inlined
def _off_line(x: F64, y: F64, a: int, b: int) -> float:
    """The sum of the squared distances of points a to b from the line nearest to them."""
    n = b - a
    mean_x, mean_y, xx, xy, yy = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(a, b):
        mean_x += x[i]
        mean_y += y[i]
    mean_x, mean_y = mean_x / n, mean_y / n
    for i in range(a, b):
        dx, dy = x[i] - mean_x, y[i] - mean_y
        xx, xy, yy = xx + dx * dx, xy + dx * dy, yy + dy * dy
    return float(0.5 * (xx + yy) - np.sqrt(0.25 * (xx - yy) ** 2 + xy * xy))


@inlined
def _run(x: F64, y: F64, horizontal: Mask, i: int, step: int) -> int:
    """How many cracks run straight on from point i, itself included, up to LONG_RUN."""
    n = 1
    while n < LONG_RUN:
        j = i + step
        if not 0 <= j < len(x) or horizontal[j] != horizontal[i] or (y[j] != y[i] if horizontal[i] else x[j] != x[i]):
            break
        i, n = j, n + 1
    return n


@inlined
def _within_run(x: F64, y: F64, horizontal: Mask, v: int) -> bool:
    """Whether v lies within a straight run of LONG_RUN cracks or more."""
    if v < 1 or v >= len(x) or horizontal[v - 1] != horizontal[v]:
        return False
    return bool(_run(x, y, horizontal, v - 1, -1) + _run(x, y, horizontal, v, 1) >= LONG_RUN)


@inlined
def _straightest(x: F64, y: F64, horizontal: Mask, v: int, low: int, high: int, before: int, after: int) -> int:
    """The vertex within NEAR of v, from low to before high, where two straight sides fit best; -1 where none may be.

    Sides end at the corners `before` and `after`, or STRAIGHT_SIDE beyond NEAR. No corner lies within a straight run.
    """
    one, two = max(v - NEAR - STRAIGHT_SIDE, before, 0), min(v + NEAR + STRAIGHT_SIDE, after, len(x))
    best, least = -1, 1e300
    for k in range(2 * NEAR + 1):
        at = v + (k + 1) // 2 * (1 if k % 2 == 0 else -1)
        if at - one < 2 or two - at < 2 or not low <= at < high:
            continue
        if _within_run(x, y, horizontal, at):
            continue
        back, onward = _run(x, y, horizontal, at - 1, -1), _run(x, y, horizontal, at, 1)
        off = _off_line(x, y, one, at) + _off_line(x, y, at, two)
        if max(back, onward) >= LONG_RUN:
            off -= RUN_PX2
        if off < least - 1e-6:
            best, least = at, off - (WORTH_PX2 if k == 0 else 0.0)
    return best


@inlined
def _near_square(turn: F64, v: int, low: int, high: int) -> bool:
    """Whether a square corner lies within NEAR of v."""
    return bool((turn[max(v - NEAR, low) : min(v + NEAR + 1, high)] == SQUARE_RAD).any())


@inlined
def settle_corners(x: F64, y: F64, horizontal: Mask, low: int, high: int, turn: F64) -> None:
    """Keeps the sharpest corner of each rise in `turn`, and moves it to where its sides are straight."""
    _keep_sharpest(turn, low, high, 1)
    v, before, cap = low, low - STRAIGHT_SIDE, np.empty(8)
    while v < high:
        if turn[v] <= 0:
            v += 1
            continue
        after = v + 1
        while after < min(high, v + NEAR + STRAIGHT_SIDE) and turn[after] <= 0:
            after += 1
        at = v
        if turn[v] != SQUARE_RAD:
            one, two = v, v
            if turn[v] > CAP_TURN_RAD and not _near_square(turn, v, low, high):
                one, two = cap_at(x, y, horizontal, v, 0, len(x), cap)
            if one == two:
                at = _straightest(x, y, horizontal, v, low, high, before, after)
                was, turn[v] = turn[v], 0.0
                if at >= 0:
                    turn[at] = was if turn[at] != SQUARE_RAD else SQUARE_RAD
                at = max(at, before)
        before, v = at, max(v, at) + 1
    _keep_sharpest(turn, low, high, NEAR)


@inlined
def _square(x: F64, y: F64, horizontal: Mask, v: int) -> bool:
    """Whether a level and an upright run meet at v that are both too long for a smooth outline: there one is short."""
    if v < 1 or v >= len(x) or horizontal[v - 1] == horizontal[v]:
        return False
    before, after = _run(x, y, horizontal, v - 1, -1), _run(x, y, horizontal, v, 1)
    return min(before, after) >= SQUARE_RUN or (min(before, after) >= SHORT_RUN and max(before, after) >= LONG_RUN)


@inlined
def corner_turns(x: F64, y: F64, horizontal: Mask, slack: F64, low: int, high: int, turn: F64) -> None:
    """The turn in radians of each vertex low to high that may be a corner, to `turn`; 0 elsewhere.

    `turn` covers the same indices as the points; points outside [low, high) of a closed chain repeat it.
    """
    n, least = len(x), NEARLY * np.tan(FINE_TURN_RAD)
    fitted, cap = np.empty(6), np.empty(8)
    for v in range(low, high):
        turn[v] = 0.0
        if _square(x, y, horizontal, v):
            turn[v] = SQUARE_RAD
            continue
        fine = min(FINE, v, n - v)
        if fine < 3 or _within_run(x, y, horizontal, v):
            continue
        angle = _chord_turn(x, y, v, fine, least)
        if angle < FINE_TURN_RAD:
            continue
        coarse = min(COARSE, v, n - v)
        sharp = angle > SHARP_TURN_RAD
        wide = _chord_turn(x, y, v, coarse, 0.0)
        if sharp and wide > CAP_TURN_RAD:
            one, two = cap_at(x, y, horizontal, v, 0, n, cap)
            if one < v < two:
                turn[v] = wide
                continue
        if not sharp and coarse > fine and wide < COARSE_TURN_RAD:
            continue
        if not smooth_at(x, y, horizontal, v, fine, max(0.5 if sharp else FLAT_PX, 0.7 * slack[v]), fitted):
            turn[v] = angle
        elif coarse >= STRAIGHT and not smooth_at(x, y, horizontal, v, coarse, max(FLAT_PX, SLACK * slack[v]), fitted):
            turn[v] = _straight_corner(x, y, horizontal, v, coarse)


@inlined
def end_line(x2: I32, y2: I32, first: int, last: int, backward: bool, out: F64) -> bool:
    """The line on which an arc of points first to last comes to its start (or, backward, to its end): place, direction.

    Points are in half pixels. False where fewer than three points make the direction a guess.
    """
    n = min(last - first, SIDE_WINDOWS[0])
    if n < 3:
        return False
    x, y, flat = np.empty(n), np.empty(n), np.empty(n, np.bool_)
    for j in range(n):
        at = last - 1 - j if backward else first + j
        x[j], y[j], flat[j] = 0.5 * x2[at], 0.5 * y2[at], x2[at] % 2 == 1
    _side(x, y, flat, 0, 1, n, out)
    return True
