"""The arc table: each arc of the planar map as pieces of fitted segments.

A chain's segments are cut where other contours end on it. A cut is a parameter, not a new curve: two pieces of one segment
that are drawn one after the other are drawn as the segment itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import inlined, kernel
from pipeline.trace.chains import Chains
from pipeline.trace.cheapest import ELLIPSE, LINE
from pipeline.trace.fit import Fitted
from pipeline.trace.junctions import draw_end, nearest_parameter, on_segment
from pipeline.trace.planar import PlanarMap
from pipeline.types import F64, I32


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
    def fields(self) -> tuple[I32, F64, I32, I32, F64, F64, I32, I32, I32, I32]:
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
    at_segment, at_parameter = _find_cuts(layout, plane.start, plane.end, kinds, segments, fitted.spans, first_segment, fitted.starts, places)
    first, piece, begin, end = _list_pieces(layout, plane.start, first_segment, at_segment, at_parameter)
    x, y, start_x, start_y = _round_ends(
        first, piece, begin, end, kinds, segments, plane.start, plane.end, places, grid, plane.width_px, plane.height_px
    )
    return ArcTable(kinds, segments, first, piece, begin, end, x, y, start_x, start_y)


@inlined
def _junction_before(start, end, arc, reverse):  # type: ignore[no-untyped-def]
    return end[arc] if reverse else start[arc]


@kernel
def _find_cuts(layout, start, end, kinds, segments, spans, first_segment, starts, places):  # type: ignore[no-untyped-def]
    """Segment and parameter at which each place of the chains begins; open chains' ends are drawn to their junctions."""
    chain_first, arc, reverse, closed, cut, point_first = layout
    at_segment, at_parameter = np.zeros(len(arc), np.int32), np.zeros(len(arc))
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
            if spans[k, 0] < v:
                at_parameter[place] = nearest_parameter(kinds[k], segments[k], places[junction, 0], places[junction, 1])
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
def _pieces_of(low, high, t_low, t_high, first, last, wraps, out):  # type: ignore[no-untyped-def]
    """Pieces from parameter t_low of segment low to t_high of segment high as rows segment, begin, end; their number."""
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
def _list_pieces(layout, start, first_segment, at_segment, at_parameter):  # type: ignore[no-untyped-def]
    chain_first, arc, reverse, closed, cut, point_first = layout
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
def _rounded(value, grid, most):  # type: ignore[no-untyped-def]
    """`value` px on the grid, in 1/100 px, inside the map; its far border counts as on the grid."""
    if value >= most - 0.005 * grid:
        return 100 * most
    return max(int(np.floor(value * 100 / grid + 0.5)) * grid, 0)


@kernel
def _round_ends(first, piece, begin, end, kinds, segments, start, stop, places, grid, width, height):  # type: ignore[no-untyped-def]
    arcs = len(start)
    x, y = np.empty(len(piece), np.int32), np.empty(len(piece), np.int32)
    start_x, start_y = np.empty(arcs, np.int32), np.empty(arcs, np.int32)
    for a in range(arcs):
        fine = 1 if start[a] < 0 and kinds[piece[first[a]]] == ELLIPSE else grid
        for i in range(first[a], first[a + 1]):
            if i + 1 == first[a + 1] and stop[a] >= 0:
                px, py = places[stop[a], 0], places[stop[a], 1]
            else:
                px, py = on_segment(kinds[piece[i]], segments[piece[i]], end[i])
            x[i], y[i] = _rounded(px, fine, width), _rounded(py, fine, height)
        if start[a] >= 0:
            px, py = places[start[a], 0], places[start[a], 1]
        else:
            px, py = on_segment(kinds[piece[first[a]]], segments[piece[first[a]]], begin[first[a]])
        start_x[a], start_y[a] = _rounded(px, fine, width), _rounded(py, fine, height)
    return x, y, start_x, start_y


def with_cracks(table: ArcTable, plane: PlanarMap, cracked: npt.NDArray[np.bool_]) -> ArcTable:
    """`table`, but the arcs of `cracked` (bool [A]) follow their cracks; other arcs that meet them end on the crack vertex."""
    walks = (plane.first, plane.x, plane.y, plane.start, plane.end, plane.junction_x, plane.junction_y)
    return ArcTable(*_follow_cracks(table.fields, walks, cracked))


@kernel
def _follow_cracks(table, walks, cracked):  # type: ignore[no-untyped-def]
    kind, segment, first, piece, begin, end, x, y, start_x, start_y = table
    walk, wx, wy, start, stop, jx, jy = walks
    arcs = len(start)
    pinned = np.zeros(len(jx), np.bool_)
    first2 = np.zeros(arcs + 1, np.int32)
    for a in range(arcs):
        first2[a + 1] = first2[a] + (walk[a + 1] - walk[a] - 1 if cracked[a] else first[a + 1] - first[a])
        if cracked[a] and start[a] >= 0:
            pinned[start[a]], pinned[stop[a]] = True, True
    total, new = first2[arcs], 0
    for a in range(arcs):
        new += walk[a + 1] - walk[a] - 1 if cracked[a] else 0
    kind2, segment2 = np.empty(len(kind) + new, np.int32), np.zeros((len(kind) + new, segment.shape[1]))
    kind2[: len(kind)], segment2[: len(kind)] = kind, segment
    piece2, begin2, end2 = np.empty(total, np.int32), np.zeros(total), np.ones(total)
    x2, y2 = np.empty(total, np.int32), np.empty(total, np.int32)
    start_x2, start_y2 = start_x.copy(), start_y.copy()
    row = len(kind)
    for a in range(arcs):
        n = first2[a]
        if cracked[a]:
            start_x2[a], start_y2[a] = 100 * wx[walk[a]], 100 * wy[walk[a]]
            for i in range(walk[a], walk[a + 1] - 1):
                kind2[row] = LINE
                segment2[row, 0], segment2[row, 1], segment2[row, 2], segment2[row, 3] = wx[i], wy[i], wx[i + 1], wy[i + 1]
                piece2[n], x2[n], y2[n] = row, 100 * wx[i + 1], 100 * wy[i + 1]
                n, row = n + 1, row + 1
            continue
        for i in range(first[a], first[a + 1]):
            piece2[n], begin2[n], end2[n], x2[n], y2[n] = piece[i], begin[i], end[i], x[i], y[i]
            n += 1
        if start[a] >= 0 and pinned[start[a]]:
            start_x2[a], start_y2[a] = 100 * jx[start[a]], 100 * jy[start[a]]
        if stop[a] >= 0 and pinned[stop[a]]:
            x2[n - 1], y2[n - 1] = 100 * jx[stop[a]], 100 * jy[stop[a]]
    return kind2, segment2, first2, piece2, begin2, end2, x2, y2, start_x2, start_y2
