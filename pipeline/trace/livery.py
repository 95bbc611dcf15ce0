"""Livery's own tracer: planar map, chains, curves, layers.

Each boundary is fitted once, within a bound taken along the dual segments, and each visible border is drawn by one layer;
the layers beneath end in hidden polylines. So there is no seam, no second copy of a curve, and no colour of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.compiled import by_rows, kernel
from pipeline.trace.chains import join_arcs, tolerances
from pipeline.trace.fit import FIELDS, fit_chains
from pipeline.trace.junctions import place_junctions
from pipeline.trace.layers import draw_layer, layer_regions
from pipeline.trace.order import NEVER, paint_order
from pipeline.trace.pieces import cut_arcs
from pipeline.trace.planar import planar_map
from pipeline.types import I32, IndexMap, Shape, Tracing


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How a map is traced.

    Attributes:
        tolerance_px: how far a curve may pass the middle of a crack, measured along the dual segment. At 0.5 every pixel
            keeps its ink.
        stacking: `stacked` layers overlap, `abutting` ones meet.
    """

    tolerance_px: float = 0.8
    stacking: Literal["stacked", "abutting"] = "stacked"


def trace(
    image: IndexMap, options: TraceOptions, *, deadline_s: float, cancelled: Callable[[], bool] | None = None
) -> Tracing:
    """Outlines of `image` in painter's order."""
    index = np.ascontiguousarray(image.index)
    t = [time.perf_counter()]
    plane = planar_map(index)
    t.append(time.perf_counter())
    chains = join_arcs(plane)
    bounds = tolerances(index, chains, options.tolerance_px)
    t.append(time.perf_counter())
    ends = _junction_ends(plane.first, plane.x, plane.y, plane.start, plane.end, len(plane.junction_x))
    places = np.zeros((len(plane.junction_x), 2))
    place_junctions(
        plane.junction_x, plane.junction_y, plane.width_px, plane.height_px, ends.by_junction,
        (chains.x2, chains.y2, chains.arc_point), chains.onward >= 0, places,
    )  # fmt: skip
    fitted = _fit(plane, chains, bounds, places, options)
    t.append(time.perf_counter())
    grid = 5 if options.tolerance_px >= 0.6 else 2
    table = cut_arcs(plane, chains, fitted, places, grid)
    t.append(time.perf_counter())
    order = paint_order(plane)
    t.append(time.perf_counter())
    shapes = _draw(index, plane, chains, bounds, ends, table, order, options, grid)
    t.append(time.perf_counter())
    global TIMES
    TIMES = np.diff(t)
    return Tracing(shapes)


@dataclass(frozen=True, slots=True)
class _Ends:
    by_junction: I32
    leave: I32
    arrive: I32


def _junction_ends(first, x, y, start, end, junctions):
    by_junction = np.full((junctions, 4), -1, np.int32)
    leave, arrive = np.empty(len(start), np.int32), np.empty(len(start), np.int32)
    _list_ends(first, x, y, start, end, by_junction, leave, arrive)
    return _Ends(by_junction, leave, arrive)


@kernel
def _list_ends(first, xs, ys, start, end, by_junction, leave, arrive):  # type: ignore[no-untyped-def]
    for a in range(len(start)):
        for side in range(2):
            at, next_ = (first[a], first[a] + 1) if side == 0 else (first[a + 1] - 1, first[a + 1] - 2)
            dx, dy = xs[next_] - xs[at], ys[next_] - ys[at]
            direction = (0 if dx > 0 else 2) if dy == 0 else (1 if dy > 0 else 3)
            junction = start[a] if side == 0 else end[a]
            if side == 0:
                leave[a] = direction
            else:
                arrive[a] = direction
            if junction >= 0:
                by_junction[junction, direction] = 2 * a + side


def _fit(plane, chains, bounds, places, options):
    count = chains.count
    rows = len(bounds) + 2 * count
    segments, kinds = np.empty((rows, FIELDS)), np.empty(rows, np.int32)
    spans, counts, starts = np.empty((rows, 2), np.int32), np.zeros(count, np.int32), np.zeros(count, np.int32)
    ends = np.zeros((count, 4))
    open_ = np.flatnonzero(~chains.closed)
    low, high = chains.first[open_], chains.first[open_ + 1] - 1
    one = np.where(chains.reverse[low], plane.end[chains.arc[low]], plane.start[chains.arc[low]])
    two = np.where(chains.reverse[high], plane.start[chains.arc[high]], plane.end[chains.arc[high]])
    ends[open_, :2], ends[open_, 2:] = places[one], places[two]
    tau = options.tolerance_px
    settings = np.array([4.0, tau, 0.0])
    stop = np.zeros(1, np.uint8)
    by_size = np.argsort(-np.diff(chains.point_first), kind="stable").astype(np.int32)
    batches = 16

    def run(a, b):
        for i in range(a, b):
            fit_chains(
                (chains.x2, chains.y2, chains.point), bounds, (chains.point_first, chains.closed), ends,
                np.ascontiguousarray(by_size[i::batches]), settings, stop, segments, kinds, spans, counts, starts,
            )

    by_rows(run, batches)
    first = np.zeros(count + 1, np.int32)
    np.cumsum(counts, out=first[1:])
    rows_used = np.repeat(chains.point_first[:-1] + 2 * np.arange(count) - first[:-1], counts) + np.arange(first[-1])
    return kinds[rows_used], segments[rows_used], spans[rows_used], first, starts


def _draw(index, plane, chains, bounds, ends, table, order, options, grid):
    own = options.stacking == "abutting"
    rank_of = np.full(256, NEVER, np.int32)
    rank_of[order] = np.arange(len(order))
    rank = rank_of[plane.region_label]
    inside = np.empty(plane.regions, np.bool_)
    parts = (plane.left, plane.right, plane.start, plane.end, ends.leave, ends.arrive)
    fields = (
        table.kind, table.segment, table.first, table.piece, table.begin, table.end, table.x, table.y, table.start_x,
        table.start_y,
    )  # fmt: skip
    tracks = (chains.arc_point, chains.x2, chains.y2, bounds)
    most = 4 * len(table.piece) + len(bounds) + 4 * plane.arcs + 16
    commands, points = np.empty(most, np.uint8), np.empty((3 * most, 2), np.int32)
    shapes = []
    for mine, ink in enumerate(order):
        layer_regions(rank, own, mine, plane.left, plane.right, inside)
        n, m = draw_layer(
            index, rank_of, rank, inside, mine, own, parts, ends.by_junction, fields, tracks, grid, commands, points
        )
        if n:
            shapes.append(Shape(int(ink), commands[:n].tobytes().decode(), points[:m].copy()))
    return tuple(shapes)
