"""Curves through a chain: the cheapest path over its nodes, by dynamic programming.

Each chain gets candidate nodes (smooth places, corners, its ends); circular stretches are found first and stand. The
cheapest path over the nodes is settled: lines laid, nodes moved, cubics fitted again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipeline.compiled import inlined, kernel
from pipeline.trace.candidates import CORNER, END, HELD, KIND, ON_Y, VERTEX, X, Y, place_nodes
from pipeline.trace.chains import Chains
from pipeline.trace.cheapest import CUBIC, CURVES, ELLIPSE, LINE, LINE_COST, SPACING, STRIDE, cheapest, walk_lengths
from pipeline.trace.circular import CIRCLE_PX, LEAST_POINTS, closed_conic, find_circles, sweep_about
from pipeline.trace.nodes import CAP_TURN_RAD, cap_at, corner_turns, settle_corners, smooth_node
from pipeline.trace.settle import settle
from pipeline.types import F64, I32, U8, Mask

Rows: TypeAlias = tuple[F64, I32, I32]
"""Where segments are written: float64 [., FIELDS], int32 [.], int32 [., 2]; segments, kinds and spans of `Fitted`."""

FIELDS = 10
"""Numbers of a segment: for a line x0, y0, x1, y1; for a cubic x0, y0, its handles' ends, x3, y3; for an arc x0, y0,
centre, radius x, radius y, turn (rad), sweep (rad, clockwise on the screen positive), x1, y1."""

STRAIN_COST = 6.0
"""Of one squared pixel between a point and its curve at a tolerance of 0.8 px; falls with its cube."""

DEFAULT_TOLERANCE_PX = 0.8

COARSE_LINE_COST = 1.75
"""What a line costs more for each pixel of tolerance beyond the default: with fewer nodes, more belong to curves."""

NODE_SPACING = 4
"""Cracks between smooth candidate nodes; in chains of at most SHORT points, and where only lines are used, 1."""

SHORT = 24

CHECK_STRIDE = 3

FLAT_BOUND_PX = 0.6
"""Bound with which a closed chain is fitted again that has come out flat."""

PAD = 40
"""Points of a closed chain that are repeated on each side, so that windows see across its start."""


@inlined
def _write(nodes: F64, path: I32, kinds: I32, handles: F64, moved: F64, runs: F64, low: int, out: Rows) -> int:
    """The path as rows of `out`; spans are counted from the chain's start. Their number."""
    segments, kind_out, span = out
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
def _hold_exactly(x: F64, y: F64, nodes: F64, count: int) -> None:
    """Moves nodes to the middle of the points beside them, which no pixel's centre is nearer to than half a crack."""
    for k in range(count):
        v = int(nodes[k, VERTEX])
        if nodes[k, HELD] == 0 and nodes[k, KIND] != END:
            nodes[k, X], nodes[k, Y] = 0.5 * (x[v - 1] + x[v]), 0.5 * (y[v - 1] + y[v])


@inlined
def _path_to(last: int, back: I32, kind: I32, handles: F64) -> tuple[I32, I32, F64]:
    """The path to the last node in order: its nodes, and the kinds and handles of the segments between them."""
    m, at = 0, last
    while at > 0:
        at = back[at]
        m += 1
    path, kinds, chosen = np.empty(m + 1, np.int32), np.empty(m, np.int32), np.empty((m, 4))
    at = last
    path[m] = at
    for k in range(m - 1, -1, -1):
        kinds[k] = kind[at]
        chosen[k] = handles[at]
        at = back[at]
        path[k] = at
    return path, kinds, chosen


@inlined
def _fit_chain(
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
    low: int,
    high: int,
    closed: bool,
    ends: F64,
    settings: F64,
    out: Rows,
    turn: F64,
    stop: U8,
) -> int:
    """Segments of one chain, to the rows of `out`; their number, 0 once stop[0] is set. `turn` holds its corners."""
    n = high - low
    curves = settings[CURVES] != 0
    limit = np.minimum(bound, CIRCLE_PX)
    runs = np.zeros((n // LEAST_POINTS + 1, 6))
    found = find_circles(x, y, horizontal, limit, low, high, turn, runs) if curves else 0
    for k in range(found):
        runs[k, 5] = sweep_about(x, y, int(runs[k, 0]), int(runs[k, 1]), runs[k, 2], runs[k, 3])
    nodes = np.empty((2 * n + 4, 10))
    step = int(settings[SPACING]) if n > SHORT else 1
    count = place_nodes(x, y, horizontal, bound, low, high, closed, ends, turn, runs, found, step, nodes)
    if not curves and settings[STRIDE] == 1:
        _hold_exactly(x, y, nodes, count)
    if closed:
        nodes[count - 1, X : ON_Y + 1] = nodes[0, X : ON_Y + 1]
        nodes[count - 1, KIND] = max(nodes[count - 1, KIND], nodes[0, KIND])
        nodes[0, KIND] = nodes[count - 1, KIND]
    if not curves:
        for k in range(count):
            nodes[k, KIND] = max(nodes[k, KIND], CORNER)
    along = np.empty(len(x))
    back, kind, handles = np.empty(count, np.int32), np.empty(count, np.int32), np.zeros((count, 4))
    walk_lengths(x, y, along)
    if not cheapest(x, y, horizontal, bound, along, nodes, count, settings, back, kind, handles, stop):
        return 0
    path, kinds, chosen = _path_to(count - 1, back, kind, handles)
    moved = np.empty((len(path), 7))
    if not curves and settings[STRIDE] == 1:
        for k in range(len(path)):
            moved[k] = nodes[path[k], X : KIND + 1]
    else:
        settle(x, y, horizontal, bound, nodes, path, kinds, chosen, closed, np.empty(n + 2), moved)
    return _write(nodes, path, kinds, chosen, moved, runs, low, out)


@inlined
def _spread(
    x2: I32,
    y2: I32,
    bounds: F64,
    point: I32,
    first: int,
    n: int,
    start: int,
    pad: int,
    x: F64,
    y: F64,
    horizontal: Mask,
    bound: F64,
) -> None:
    """A chain's points from its point `start` on, `pad` of them repeated on each side."""
    for i in range(-pad, n + pad):
        at = point[first + (i + start) % n]
        x[i + pad], y[i + pad] = 0.5 * x2[at], 0.5 * y2[at]
        horizontal[i + pad] = x2[at] % 2 == 1
        bound[i + pad] = bounds[at]


@inlined
def _rectangle(x: F64, y: F64, horizontal: Mask, low: int, high: int, out: Rows, start: I32) -> bool:
    """Writes the four sides of a closed chain that is an upright rectangle; whether it is one.

    The point at which they begin goes to start[0].
    """
    segments, kind_out, span = out
    n, turns = high - low, 0
    for v in range(low, high):
        turns += horizontal[v - 1] != horizontal[v]
    if turns != 4:
        return False
    k = 0
    for v in range(low, high):
        if horizontal[v - 1] == horizontal[v]:
            continue
        px, py = (x[v], y[v - 1]) if horizontal[v - 1] else (x[v - 1], y[v])
        if k == 0:
            start[0] = v - low
        before = (k + 3) % 4
        segments[k, 0], segments[k, 1] = px, py
        segments[before, 2], segments[before, 3] = px, py
        span[k, 0] = v - low - start[0]
        span[before, 1] = n if k == 0 else v - low - start[0]
        kind_out[k] = LINE
        k += 1
    return True


@inlined
def _fit_whole(
    x: F64, y: F64, horizontal: Mask, bound: F64, low: int, high: int, settings: F64, out: Rows, start: I32
) -> int:
    """Writes a closed chain that is an upright rectangle, a circle or an ellipse; the number of segments, else 0."""
    segments, kind_out, span = out
    if _rectangle(x, y, horizontal, low, high, out, start):
        return 4
    if settings[CURVES] == 0 or closed_conic(x, y, horizontal, bound, low, high, segments) == 0:
        return 0
    kind_out[0], span[0, 0], span[0, 1] = ELLIPSE, 0, high - low
    return 1


@inlined
def _best_start(x: F64, y: F64, horizontal: Mask, bound: F64, low: int, high: int, turn: F64) -> int:
    """The vertex of a closed chain at which its curve is to be cut: the sharpest corner, or where it bends most."""
    best, most = low, 0.0
    for v in range(low, high):
        if turn[v] > most:
            best, most = v, turn[v]
    if most > CAP_TURN_RAD:
        one, two = cap_at(x, y, horizontal, best, 0, len(x), np.empty(8))
        if one < two:
            return (one - low) % (high - low)
    if most > 0:
        return best - low
    fitted = np.empty(6)
    for v in range(low, high, 2):
        smooth_node(x, y, horizontal, bound[v], v, min(PAD, (high - low) // 4 + 1), fitted)
        bend = abs(fitted[2] * fitted[5] - fitted[3] * fitted[4]) / max((fitted[2] ** 2 + fitted[3] ** 2) ** 1.5, 1e-9)
        if bend > most:
            best, most = v, bend
    return best - low


@inlined
def _flat(kinds: I32, count: int) -> bool:
    """Whether a closed chain has come out as two lines or less, which enclose nothing."""
    return bool(count < 3 and (kinds[:count] == LINE).all())


@inlined
def _polygon(x: F64, y: F64, low: int, high: int, out: Rows) -> int:
    """The closed polygon through all points of a chain, as rows of `out`; their number."""
    segments, kind_out, span = out
    n = high - low
    for k in range(n):
        ax, ay = 0.5 * (x[low + k - 1] + x[low + k]), 0.5 * (y[low + k - 1] + y[low + k])
        bx, by = 0.5 * (x[low + k] + x[low + k + 1]), 0.5 * (y[low + k] + y[low + k + 1])
        segments[k, 0], segments[k, 1], segments[k, 2], segments[k, 3] = ax, ay, bx, by
        kind_out[k], span[k, 0], span[k, 1] = LINE, k, k + 1
    return n


@inlined
def _begin_closed(
    points: tuple[I32, I32, I32],
    bounds: F64,
    first: int,
    n: int,
    pad: int,
    walk: tuple[F64, F64, Mask, F64],
    turn: F64,
) -> int:
    """Finds a closed chain's corners and the point at which to begin, and lays the chain out from there.

    Args:
        points, bounds: as in `_fit_chains`.
        first, n, pad: the chain's first row, its points, and how many of them go before and after it again.
        walk: x, y, horizontal and bound, laid out from the chain's point 0; from the new beginning when this returns.
        turn: float64 [n + 2 pad + 1], receives the corners.
    """
    x2, y2, point = points
    x, y, horizontal, bound = walk
    low, high = pad, pad + n
    corner_turns(x, y, horizontal, bound, low, high, turn)
    for i in range(1, 9):
        turn[low - i], turn[high + i - 1] = turn[low + (n - i) % n], turn[low + (i - 1) % n]
    settle_corners(x, y, horizontal, low - 8, high + 8, turn)
    found = turn[low:high].copy()
    start = _best_start(x, y, horizontal, bound, low, high, turn)
    _spread(x2, y2, bounds, point, first, n, start, pad, x, y, horizontal, bound)
    for i in range(n + 1):
        turn[low + i] = found[(start + i) % n]
    return start


@kernel
def _fit_chains(
    points: tuple[I32, I32, I32],
    bounds: F64,
    chains: tuple[I32, Mask],
    ends: F64,
    todo: I32,
    settings: F64,
    stop: U8,
    segments: F64,
    kinds: I32,
    spans: I32,
    counts: I32,
    starts: I32,
) -> None:
    """Fits the chains of `todo`; chain c writes from row point_first[c] + 2 c on.

    Args:
        points: x2, y2 and point as in `Chains`.
        bounds: float64 [P], how far a curve may pass each point along its dual segment, px; rows as in x2.
        chains: point_first and closed as in `Chains`.
        ends: float64 [C, 4], x and y of each open chain's start and end, px.
        todo: int32 [N], numbers of chains.
        settings: float64 [5], see `pipeline.trace.cheapest`.
        stop: uint8 [1]; once it is set no chain is begun or gone on with.
        segments, kinds, spans: float64 [., FIELDS], int32 [.], int32 [., 2], see `Fitted`.
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
        out = (segments[row:], kinds[row:], spans[row:])
        _spread(x2, y2, bounds, point, first, n, 0, pad, x, y, horizontal, bound)
        if closed[c]:
            counts[c] = _fit_whole(x, y, horizontal, bound, low, high, settings, out, starts[c:])
            if counts[c] > 0:
                continue
            walk = (x, y, horizontal, bound)
            starts[c] = _begin_closed((x2, y2, point), bounds, first, n, pad, walk, turn)
        else:
            corner_turns(x, y, horizontal, bound, low, high, turn)
            settle_corners(x, y, horizontal, low, high, turn)
        counts[c] = _fit_chain(x, y, horizontal, bound, low, high, closed[c], ends[c], settings, out, turn, stop)
        if closed[c] and _flat(kinds[row:], counts[c]):
            np.minimum(bound, FLAT_BOUND_PX, bound)
            counts[c] = _fit_chain(x, y, horizontal, bound, low, high, True, ends[c], settings, out, turn, stop)
            if _flat(kinds[row:], counts[c]):
                counts[c] = _polygon(x, y, low, high, out)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The segments of all chains, one chain after the other.

    Attributes:
        kinds: int32 [S], LINE, CUBIC, ARC or ELLIPSE.
        segments: float64 [S, FIELDS], px.
        spans: int32 [S, 2], the vertices of the chain between which each lies, counted from the chain's own start.
        first: int32 [C + 1]; chain c has the segments `first[c]:first[c + 1]`.
        starts: int32 [C], for a closed chain the point at which its segments begin.
    """

    kinds: I32
    segments: F64
    spans: I32
    first: I32
    starts: I32


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How chains are fitted.

    Attributes:
        tolerance_px: scales what distance costs; the bounds are given for each point.
        curves: whether there are cubics, arcs and ellipses besides lines.
        strict: whether every point of a cubic is checked.
    """

    tolerance_px: float
    curves: bool = True
    strict: bool = False


class Fit:
    """A fit in the making: `run` may be called for each batch on any thread, then `result` holds all of them."""

    BATCHES = 16

    def __init__(self, chains: Chains, bounds: F64, ends: F64, options: FitOptions) -> None:
        """Takes float64 [P] bounds by the rows of `chains.x2`, and float64 [C, 4] places of open chains' ends, px."""
        count = chains.count
        rows = len(bounds) + 2 * count
        self._chains, self._bounds, self._ends = chains, bounds, ends
        strain = STRAIN_COST * (DEFAULT_TOLERANCE_PX / options.tolerance_px) ** 3
        spacing = NODE_SPACING if options.curves else 1
        stride = 1 if options.strict else CHECK_STRIDE
        line = LINE_COST + COARSE_LINE_COST * max(options.tolerance_px - DEFAULT_TOLERANCE_PX, 0)
        self._settings = np.array([spacing, strain, stride, options.curves, line], np.float64)
        self._segments, self._kinds = np.empty((rows, FIELDS)), np.empty(rows, np.int32)
        self._spans = np.empty((rows, 2), np.int32)
        self._counts, self._starts = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self._by_size = np.argsort(-np.diff(chains.point_first), kind="stable").astype(np.int32)

    def run(self, batch: int, stop: U8) -> None:
        """Fits every BATCHES-th chain, by length, from number `batch` on; ends early once stop[0] is set."""
        chains = self._chains
        _fit_chains(
            (chains.x2, chains.y2, chains.point),
            self._bounds,
            (chains.point_first, chains.closed),
            self._ends,
            np.ascontiguousarray(self._by_size[batch :: self.BATCHES]),
            self._settings,
            stop,
            self._segments,
            self._kinds,
            self._spans,
            self._counts,
            self._starts,
        )

    def result(self) -> Fitted:
        """The segments, once every batch has run."""
        counts = self._counts
        first = np.zeros(len(counts) + 1, np.int32)
        np.cumsum(counts, out=first[1:])
        begin = self._chains.point_first[:-1] + 2 * np.arange(len(counts)) - first[:-1]
        rows = np.repeat(begin, counts) + np.arange(first[-1])
        return Fitted(self._kinds[rows], self._segments[rows], self._spans[rows], first, self._starts)
