"""The arc table: each arc of the planar map as pieces of fitted segments.

A chain's segments are cut where other contours end on it. A cut is a parameter, not a new curve: two pieces of one
segment that are drawn one after the other are drawn as the segment itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipeline.compiled import inlined, kernel
from pipeline.trace.chains import Chains
from pipeline.trace.cheapest import ARC, LINE
from pipeline.trace.circular import on_circle
from pipeline.trace.fit import Fitted
from pipeline.trace.junctions import draw_end, nearest_parameter, on_segment
from pipeline.trace.planar import PlanarMap
from pipeline.types import F64, I32, Mask

ArcFields: TypeAlias = tuple[I32, F64, I32, I32, F64, F64, I32, I32, I32, I32]
"""The fields of an `ArcTable`, in their order."""

Layout: TypeAlias = tuple[I32, I32, Mask, Mask, I32, I32]
"""`first`, `arc`, `reverse`, `closed`, `cut` and `point_first` of `Chains`."""

Walks: TypeAlias = tuple[I32, I32, I32, I32, I32, I32, I32, I32]
"""`start`, `end`, `junction_x` and `junction_y` of a `PlanarMap`; `arc_point`, `x2` and `y2` of `Chains`; and
int32 [A], the crack at which each arc's pieces begin."""

MEETINGS = 6
"""Steps, to and fro, in which the place is found where a circle ends on another contour."""


@dataclass(frozen=True, slots=True)
class ArcTable:
    """What every output is drawn from.

    Attributes:
        kind, segment: int32 [S], float64 [S, 10]: all segments, see `pipeline.trace.fit`.
        first: int32 [A + 1]; arc a has the pieces `first[a]:first[a + 1]`, in its own walk.
        piece: int32 [N], the segment of each piece.
        begin, end: float64 [N], its parameters; a piece against the segment's direction has begin > end.
        x, y: int32 [N], where each piece ends, in units of 1/100 px.
        start_x, start_y: int32 [A], where each arc starts.
    """

    kind: I32
    segment: F64
    first: I32
    piece: I32
    begin: F64
    end: F64
    x: I32
    y: I32
    start_x: I32
    start_y: I32

    @property
    def fields(self) -> ArcFields:
        """In the order that kernels take them."""
        return (
            self.kind,
            self.segment,
            self.first,
            self.piece,
            self.begin,
            self.end,
            self.x,
            self.y,
            self.start_x,
            self.start_y,
        )


def cut_arcs(plane: PlanarMap, chains: Chains, fitted: Fitted, places: F64, grid: int) -> ArcTable:
    """The arcs of `plane` as pieces of the fitted segments.

    Args:
        plane: the planar map.
        chains: its arcs in chains.
        fitted: its segments; the ends of open chains are drawn to their junctions.
        places: float64 [J, 2], junctions before the fit, px; they are moved onto the contours that pass them.
        grid: units of 1/100 px to which nodes are rounded.
    """
    kinds, segments, first_segment = fitted.kinds, fitted.segments, fitted.first
    layout = (chains.first, chains.arc, chains.reverse, chains.closed, chains.cut, chains.point_first)
    at_segment, at_parameter = _find_cuts(
        layout, plane.start, plane.end, kinds, segments, fitted.spans, first_segment, fitted.starts, places
    )
    first, piece, begin, end = _list_pieces(layout, first_segment, at_segment, at_parameter)
    x, y, start_x, start_y = _round_ends(
        first, piece, end, kinds, segments, plane.start, plane.end, places, grid, plane.width_px, plane.height_px
    )
    return ArcTable(kinds, segments, first, piece, begin, end, x, y, start_x, start_y)


@inlined
def _junction_before(start: I32, end: I32, arc: int, reverse: bool) -> int:
    """The junction at which an arc begins, walked as its chain has it; -1 where there is none."""
    return int(end[arc] if reverse else start[arc])


@inlined
def _circles_at(layout: Layout, start: I32, end: I32, kinds: I32, segments: F64, first_segment: I32, out: F64) -> None:
    """Centre and radius of the circular arc that ends at each junction, to `out` [J, 3]; where there is one."""
    chain_first, arc, reverse, closed, _, _ = layout
    for c in range(len(closed)):
        if closed[c]:
            continue
        for side in range(2):
            place = chain_first[c] if side == 0 else chain_first[c + 1] - 1
            k = first_segment[c] if side == 0 else first_segment[c + 1] - 1
            junction = _junction_before(start, end, arc[place], reverse[place] != (side == 1))
            if kinds[k] == ARC and junction >= 0:
                out[junction, 0], out[junction, 1], out[junction, 2] = segments[k, 2], segments[k, 3], segments[k, 4]


@kernel
def _find_cuts(
    layout: Layout,
    start: I32,
    end: I32,
    kinds: I32,
    segments: F64,
    spans: I32,
    first_segment: I32,
    starts: I32,
    places: F64,
) -> tuple[I32, F64]:
    """Segment and parameter at which each place of the chains begins; draws open chains' ends to their junctions."""
    chain_first, arc, reverse, closed, cut, point_first = layout
    at_segment, at_parameter = np.zeros(len(arc), np.int32), np.zeros(len(arc))
    circle = np.zeros((len(places), 3))
    _circles_at(layout, start, end, kinds, segments, first_segment, circle)
    for c in range(len(closed)):
        n = point_first[c + 1] - point_first[c]
        for place in range(chain_first[c], chain_first[c + 1]):
            junction = _junction_before(start, end, arc[place], reverse[place])
            at_segment[place] = first_segment[c]
            if junction < 0 or (not closed[c] and place == chain_first[c]):
                continue
            v = (cut[place] - point_first[c] - starts[c]) % n
            k = first_segment[c]
            while spans[k, 1] <= v:
                k += 1
            at_segment[place] = k
            x, y = places[junction, 0], places[junction, 1]
            cx, cy, r = circle[junction]
            for _ in range(MEETINGS if r > 0 else 1):
                if r > 0:
                    x, y = on_circle(x, y, cx, cy, r)
                if spans[k, 0] < v:
                    at_parameter[place] = nearest_parameter(kinds[k], segments[k], x, y)
                x, y = on_segment(kinds[k], segments[k], at_parameter[place])
            places[junction, 0], places[junction, 1] = x, y
    for c in range(len(closed)):
        if not closed[c]:
            low, high = chain_first[c], chain_first[c + 1] - 1
            one = _junction_before(start, end, arc[low], reverse[low])
            two = _junction_before(start, end, arc[high], not reverse[high])
            k, last = first_segment[c], first_segment[c + 1] - 1
            draw_end(kinds[k], segments[k], True, places[one, 0], places[one, 1])
            draw_end(kinds[last], segments[last], False, places[two, 0], places[two, 1])
    return at_segment, at_parameter


@inlined
def _pieces_of(low: int, high: int, t_low: float, t_high: float, first: int, last: int, wraps: bool, out: F64) -> int:
    """Pieces from parameter t_low of segment low to t_high of segment high: rows segment, begin, end; their number."""
    n, k, t = 0, low, t_low
    while True:
        done = k == high and not wraps
        stop = t_high if done else 1.0
        if stop > t or (done and n == 0):
            out[n, 0], out[n, 1], out[n, 2] = k, t, stop
            n += 1
        if done:
            return n
        k, t = k + 1, 0.0
        if k == last:
            k, wraps = first, False


@kernel
def _list_pieces(layout: Layout, first_segment: I32, at_segment: I32, at_parameter: F64) -> tuple[I32, I32, F64, F64]:
    chain_first, arc, reverse, closed, _, _ = layout
    arcs = len(arc)
    found = np.empty((len(arc) * 2 + first_segment[-1], 3))
    where, many = np.empty(arcs, np.int32), np.zeros(arcs + 1, np.int32)
    total = 0
    for c in range(len(closed)):
        first, last = first_segment[c], first_segment[c + 1]
        low_place, high_place = chain_first[c], chain_first[c + 1]
        for place in range(low_place, high_place):
            low, t_low = at_segment[place], at_parameter[place]
            if place + 1 < high_place:
                high, t_high = at_segment[place + 1], at_parameter[place + 1]
            elif closed[c]:
                high, t_high = at_segment[low_place], at_parameter[low_place]
            else:
                high, t_high = last - 1, 1.0
            wraps = closed[c] and (high < low or (high == low and t_high <= t_low))
            if t_high == 0.0 and high == first and wraps:
                high, t_high, wraps = last - 1, 1.0, False
            n = _pieces_of(low, high, t_low, t_high, first, last, wraps, found[total:])
            where[arc[place]] = total
            many[arc[place] + 1] = n
            total += n
    listed = np.cumsum(many).astype(np.int32)
    piece, begin, end = np.empty(total, np.int32), np.empty(total), np.empty(total)
    backward = np.empty(arcs, np.bool_)
    for place in range(arcs):
        backward[arc[place]] = reverse[place]
    for a in range(arcs):
        n = many[a + 1]
        for i in range(n):
            row = found[where[a] + (n - 1 - i if backward[a] else i)]
            at = listed[a] + i
            piece[at] = int(row[0])
            begin[at], end[at] = (row[2], row[1]) if backward[a] else (row[1], row[2])
    return listed, piece, begin, end


@inlined
def _rounded(value: float, grid: int, most: int) -> int:
    """`value` px on the grid, in 1/100 px, inside the map; its far border counts as on the grid."""
    if value >= most - 0.005 * grid:
        return 100 * most
    return max(int(np.floor(value * 100 / grid + 0.5)) * grid, 0)


@kernel
def _round_ends(
    first: I32,
    piece: I32,
    end: F64,
    kinds: I32,
    segments: F64,
    start: I32,
    stop: I32,
    places: F64,
    grid: int,
    width: int,
    height: int,
) -> tuple[I32, I32, I32, I32]:
    """Ends of all pieces on the grid; those of arcs and ellipses on 1/100 px, since their centres hang on them."""
    arcs = len(start)
    x, y = np.empty(len(piece), np.int32), np.empty(len(piece), np.int32)
    start_x, start_y = np.empty(arcs, np.int32), np.empty(arcs, np.int32)
    fine = np.full(len(places), grid)
    for a in range(arcs):
        if start[a] >= 0:
            fine[start[a]] = 1 if kinds[piece[first[a]]] >= ARC else fine[start[a]]
            fine[stop[a]] = 1 if kinds[piece[first[a + 1] - 1]] >= ARC else fine[stop[a]]
    for a in range(arcs):
        low, high = first[a], first[a + 1]
        for i in range(low, high):
            if i + 1 == high and stop[a] >= 0:
                px, py, step = places[stop[a], 0], places[stop[a], 1], fine[stop[a]]
            else:
                px, py = on_segment(kinds[piece[i]], segments[piece[i]], end[i])
                onward = piece[i + 1 if i + 1 < high else low]
                step = 1 if kinds[piece[i]] >= ARC or kinds[onward] >= ARC else grid
            x[i], y[i] = _rounded(px, step, width), _rounded(py, step, height)
        if start[a] >= 0:
            start_x[a] = _rounded(places[start[a], 0], fine[start[a]], width)
            start_y[a] = _rounded(places[start[a], 1], fine[start[a]], height)
        else:
            start_x[a], start_y[a] = x[high - 1], y[high - 1]
    return x, y, start_x, start_y


@kernel
def segment_of_rows(
    layout: tuple[I32, Mask], point: I32, spans: I32, first_segment: I32, starts: I32, out: I32
) -> None:
    """The segment that passes each point, by the rows of `Chains.x2`, to `out` (int32 [P])."""
    point_first, closed = layout
    for c in range(len(closed)):
        n, k = point_first[c + 1] - point_first[c], first_segment[c]
        for v in range(n):
            while spans[k, 1] <= v:
                k += 1
            out[point[point_first[c] + (v + starts[c]) % n]] = k


def with_cracks(
    table: ArcTable, plane: PlanarMap, chains: Chains, curves: Fitted, rows: Mask, pinned: Mask
) -> ArcTable:
    """`table`, but curves that pass certain points run through the middles of their cracks.

    Args:
        table, plane, chains, curves: a map's.
        rows: bool [P], by the rows of `chains.x2`: the pieces that pass these points are replaced.
        pinned: bool [J]: arcs that end at these junctions end on the crack vertex, and their last piece is replaced.
    """
    segment = np.empty(len(chains.x2), np.int32)
    layout = (chains.point_first, chains.closed)
    segment_of_rows(layout, chains.point, curves.spans, curves.first, curves.starts, segment)
    offset = np.zeros(plane.arcs, np.int32)
    loops = chains.closed & (np.diff(chains.first) == 1)
    offset[chains.arc[chains.first[:-1][loops]]] = curves.starts[loops]
    walks = (plane.start, plane.end, plane.junction_x, plane.junction_y, chains.arc_point, chains.x2, chains.y2, offset)
    return ArcTable(*_follow_cracks(table.fields, walks, segment, rows, pinned))


@inlined
def _through(
    row: int, x2: I32, y2: I32, piece: I32, begin: F64, end: F64, x: I32, y: I32, at: int, low: int, line: int
) -> int:
    """A line to the middle of a crack, or a longer last line where it lies on the same one; the pieces so far."""
    px, py = 50 * x2[row], 50 * y2[row]
    if at - low >= 2 and piece[at - 1] == line and piece[at - 2] == line:
        ux, uy, vx, vy = x[at - 1] - x[at - 2], y[at - 1] - y[at - 2], px - x[at - 1], py - y[at - 1]
        if ux * vy == uy * vx and ux * vx + uy * vy > 0:
            x[at - 1], y[at - 1] = px, py
            return at
    piece[at], begin[at], end[at], x[at], y[at] = line, 0.0, 1.0, px, py
    return at + 1


@inlined
def _bad_runs(segment: I32, rows: Mask, low: int, n: int, turn: int, first_bad: bool, last_bad: bool, bad: Mask) -> int:
    """Which runs of one segment along an arc hold a bad point, to bad[0:runs]; the number of runs."""
    runs = 0
    for i in range(n):
        row = low + (i + turn) % n
        if i == 0 or segment[row] != segment[low + (i - 1 + turn) % n]:
            bad[runs] = False
            runs += 1
        bad[runs - 1] = bad[runs - 1] or rows[row]
    bad[0] = bad[0] or first_bad
    bad[runs - 1] = bad[runs - 1] or last_bad
    return runs


@kernel
def _follow_cracks(table: ArcFields, walks: Walks, segment: I32, rows: Mask, pinned: Mask) -> ArcFields:
    kind, curve, first, piece, begin, end, x, y, start_x, start_y = table
    start, stop, jx, jy, arc_point, x2, y2, offset = walks
    arcs, line = len(start), len(kind)
    kind2, curve2 = np.empty(line + 1, np.int32), np.zeros((line + 1, curve.shape[1]))
    kind2[:line], curve2[:line], kind2[line] = kind, curve, LINE
    most = len(piece) + len(rows) + 2 * arcs
    first2, piece2 = np.zeros(arcs + 1, np.int32), np.empty(most, np.int32)
    begin2, end2 = np.empty(most), np.empty(most)
    xs, ys = np.empty(most, np.int32), np.empty(most, np.int32)
    start_x2, start_y2 = start_x.copy(), start_y.copy()
    bad = np.empty(len(rows) + 1, np.bool_)
    at = 0
    for a in range(arcs):
        low, n, turn, lowest = arc_point[a], arc_point[a + 1] - arc_point[a], offset[a], at
        pin_start, pin_stop = start[a] >= 0 and pinned[start[a]], stop[a] >= 0 and pinned[stop[a]]
        runs = _bad_runs(segment, rows, low, n, turn, pin_start, pin_stop, bad)
        matched = runs == first[a + 1] - first[a]
        whole = not matched and bad[:runs].any()
        if pin_start:
            start_x2[a], start_y2[a] = 100 * jx[start[a]], 100 * jy[start[a]]
        elif start[a] < 0 and (whole or (matched and bad[0])):
            start_x2[a], start_y2[a] = 50 * x2[low + turn % n], 50 * y2[low + turn % n]
        run = 0
        for i in range(n if matched or whole else 0):
            row = low + (i + turn) % n
            last = i + 1 == n
            if whole or bad[run]:
                at = _through(row, x2, y2, piece2, begin2, end2, xs, ys, at, lowest, line)
            ends = last or segment[low + (i + 1 + turn) % n] != segment[row]
            if not whole and ends and not (bad[run] and not last and bad[run + 1]):
                k = first[a] + run
                piece2[at] = line if bad[run] else piece[k]
                begin2[at], end2[at] = (0.0, 1.0) if bad[run] else (begin[k], end[k])
                xs[at], ys[at] = x[k], y[k]
                at += 1
            run += ends
        if not matched and not whole:
            for k in range(first[a], first[a + 1]):
                piece2[at], begin2[at], end2[at], xs[at], ys[at] = piece[k], begin[k], end[k], x[k], y[k]
                at += 1
        if whole:
            k = first[a + 1] - 1
            piece2[at], begin2[at], end2[at], xs[at], ys[at] = line, 0.0, 1.0, x[k], y[k]
            at += 1
        if pin_stop:
            xs[at - 1], ys[at - 1] = 100 * jx[stop[a]], 100 * jy[stop[a]]
        elif start[a] < 0 and (whole or (matched and bad[runs - 1])):
            xs[at - 1], ys[at - 1] = start_x2[a], start_y2[a]
        first2[a + 1] = at
    return (
        kind2, curve2, first2, piece2[:at].copy(), begin2[:at].copy(), end2[:at].copy(), xs[:at].copy(), ys[:at].copy(),
        start_x2, start_y2,
    )  # fmt: skip
