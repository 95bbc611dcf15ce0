"""Livery's own tracer: planar map, chains, curves, layers.

Each boundary is fitted once, within a bound taken along the dual segments, and each visible border is drawn by one
layer; the layers beneath end in hidden polylines. So there is no seam, no second copy of a curve and no new colour.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np

from pipeline.compiled import kernel, watched
from pipeline.errors import Cancelled, DeadlineExceeded
from pipeline.trace.chains import Chains, join_arcs, tolerances
from pipeline.trace.cheapest import ARC, ELLIPSE, LINE
from pipeline.trace.fit import Fit, FitOptions, Fitted
from pipeline.trace.junctions import place_junctions
from pipeline.trace.layers import draw_edges, draw_layer, layer_regions
from pipeline.trace.order import NEVER, paint_order
from pipeline.trace.pieces import ArcTable, cut_arcs, with_cracks
from pipeline.trace.planar import PlanarMap, planar_map
from pipeline.trace.raster import paint
from pipeline.types import F64, I32, OUTSIDE, U8, UNPAINTED, Edge, IndexMap, Ink, Mask, Palette, Shape, Tracing

STRICT_TOLERANCE_PX = 0.5
"""From here down every pixel shows its own ink."""

STRICT_SHIFT_PX, MOST_SHIFT_PX = 0.45, 0.9
"""How far a junction may lie from its crack vertex."""

STRICT_SHARE = 0.96
"""What a strict trace makes use of its tolerance: the rest is for rounding, and for how a curve's distance is taken."""

COARSE_GRID, FINE_GRID = 5, 2
"""1/100 px: digits that a tolerance of FINE_BELOW_PX and more does without, and those of a finer one."""

FINE_BELOW_PX = 0.6

TRAP = (0.75, 0.6, 1e9, 0.25)
"""Of stacked layers, see `pipeline.trace.hidden`."""

PLATE_TRAP = (0.0, 0.5, 0.5)
"""Of separations, behind their depth."""

MOST_REACH_PX = 4
"""How far from a wrong pixel curves are given up before borders are drawn that were hidden."""

LEAST_LINE_POINTS = 8
"""Cracks that a line must cover to be counted among the primitives."""


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How a map is traced.

    Attributes:
        tolerance_px: how far a curve may pass the middle of a crack, measured along the dual segment. At 0.5 and less
            every pixel's centre shows its own ink.
        stacking: `stacked` layers overlap, `abutting` ones meet.
        curves: whether there are curves besides straight lines.
        edges: whether `Tracing.edges` are wanted.
    """

    tolerance_px: float = 0.8
    stacking: Literal["stacked", "abutting"] = "stacked"
    curves: bool = True
    edges: bool = False

    @property
    def strict(self) -> bool:
        """Whether each pixel counts: every point of a curve is checked, and junctions stay by their vertices."""
        return self.tolerance_px <= STRICT_TOLERANCE_PX


def trace(
    image: IndexMap, options: TraceOptions, *, deadline_s: float, cancelled: Callable[[], bool] | None = None
) -> Tracing:
    """Outlines of `image`: one shape for each ink, and one for each circle or ellipse that stands by itself.

    Args:
        image: index uint8 [H, W]; `UNPAINTED` stays bare.
        options: how close the curves lie and how the layers meet.
        deadline_s: seconds that the whole trace may take.
        cancelled: asked every 20 ms while curves are fitted, and between the steps.

    Raises:
        Cancelled, DeadlineExceeded: the trace was stopped.
    """
    _load_kernels(options.strict)
    return _trace(image, options, _Watch(deadline_s, cancelled))


def _trace(image: IndexMap, options: TraceOptions, watch: _Watch) -> Tracing:
    fitted = _fitted(image, options, watch)
    stacked = options.stacking == "stacked"
    style = _Style(own=not stacked, hides=stacked, trap=TRAP)
    table = fitted.table
    if options.strict:
        table, shapes = _exact(image, fitted, style, watch)
    else:
        shapes = _draw(fitted, table, style, watch)
    edges = _edges(fitted, table) if options.edges else ()
    return Tracing(shapes, edges, _primitives(fitted.curves))


def separations(
    image: IndexMap,
    options: TraceOptions,
    trap_px: float,
    *,
    deadline_s: float,
    cancelled: Callable[[], bool] | None = None,
) -> dict[int, tuple[Shape, ...]]:
    """A plate for each ink that `image` uses: its own regions, spread beneath darker neighbours.

    Args:
        image, options, deadline_s, cancelled: as `trace` takes them; `stacking` and `edges` don't matter.
        trap_px: how far the lighter of two neighbours is spread beneath the darker one (to the painter of the darker
            ink, a choke); 0: plates meet edge to edge.

    Raises:
        Cancelled, DeadlineExceeded: the trace was stopped.
    """
    _load_kernels(options.strict)
    watch = _Watch(deadline_s, cancelled)
    fitted = _fitted(image, options, watch)
    order = [ink for ink in _from_light_to_dark(image.palette) if ink in fitted.order]
    style = _Style(own=True, hides=trap_px > 0, trap=(trap_px, *PLATE_TRAP))
    plates: dict[int, tuple[Shape, ...]] = {}
    for shape in _draw(fitted, fitted.table, style, watch, order):
        plates[shape.ink] = (*plates.get(shape.ink, ()), shape)
    return {ink: plates[ink] for ink in sorted(plates)}


@cache
def _load_kernels(strict: bool) -> None:
    """Traces a spot before the clock runs: kernels that are not on disk yet take longer to compile than any trace."""
    index = np.zeros((9, 9), np.uint8)
    index[2:7, 2:7], index[4:6, 4:9] = 1, UNPAINTED
    spot = IndexMap(index, Palette((Ink("#FFFFFF", "ground"), Ink("#000000", "spot"))))
    watch = _Watch(float("inf"), None)
    _trace(spot, TraceOptions(STRICT_TOLERANCE_PX if strict else 1.0, edges=True), watch)
    if strict:
        fitted = _fitted(spot, TraceOptions(STRICT_TOLERANCE_PX), watch)
        rows, pinned = np.ones(len(fitted.chains.x2), np.bool_), np.ones(len(fitted.plane.junction_x), np.bool_)
        _mark_beside(index == 1, fitted.chains.x2, fitted.chains.y2, 1, rows)
        with_cracks(fitted.table, fitted.plane, fitted.chains, fitted.curves, rows, pinned)


@dataclass(frozen=True, slots=True)
class _Style:
    """How layers meet.

    Attributes:
        own: whether each holds its own regions only, not later ones too.
        hides: whether borders end beneath later layers.
        trap: how they end there, see `pipeline.trace.hidden`.
    """

    own: bool
    hides: bool
    trap: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Ends:
    """Arc ends at junctions.

    Attributes:
        by_junction: int32 [J, 4], ends (2 × arc, plus 1 for its last vertex, or -1) by the direction in which
            they leave.
        leave, arrive: int32 [A], the directions in which each arc leaves its first vertex and leads back from its last.
    """

    by_junction: I32
    leave: I32
    arrive: I32


@dataclass(frozen=True, slots=True)
class _Map:
    """A map with everything that its layers are drawn from."""

    index: U8
    plane: PlanarMap
    chains: Chains
    bounds: F64
    ends: _Ends
    curves: Fitted
    table: ArcTable
    order: list[int]
    grid: int


class _Watch:
    """Raises once the job is cancelled or its time is up."""

    def __init__(self, deadline_s: float, cancelled: Callable[[], bool] | None) -> None:
        self._ends_at = time.monotonic() + deadline_s
        self._cancelled = cancelled

    def __call__(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the job was cancelled while its outlines were traced")
        if time.monotonic() > self._ends_at:
            raise DeadlineExceeded("tracing the outlines took too long", phase="vectorize")


def _fitted(image: IndexMap, options: TraceOptions, watch: _Watch) -> _Map:
    watch()
    index = np.require(image.index, requirements=["C", "W"])  # kernels are compiled for arrays that can be written
    tolerance_px = options.tolerance_px * (STRICT_SHARE if options.strict else 1)
    plane = planar_map(index)
    watch()
    chains = join_arcs(plane)
    bounds = tolerances(index, chains, tolerance_px)
    ends = _list_ends(plane)
    order: list[int] = []
    fit = FitOptions(tolerance_px, options.curves, options.strict)
    grid = FINE_GRID if tolerance_px < FINE_BELOW_PX else COARSE_GRID
    places = _places(plane, chains, ends, options.strict)
    curves = _fit(plane, chains, bounds, places, fit, watch, lambda: order.extend(paint_order(plane)))
    table = cut_arcs(plane, chains, curves, places, grid)
    return _Map(index, plane, chains, bounds, ends, curves, table, order, grid)


def _fit(
    plane: PlanarMap,
    chains: Chains,
    bounds: F64,
    places: F64,
    options: FitOptions,
    watch: _Watch,
    beside: Callable[[], None],
) -> Fitted:
    """Curves through all chains, on all threads; `beside` is run with them."""
    fit = Fit(chains, bounds, _ends_of_chains(plane, chains, places), options)
    stop = np.zeros(1, np.uint8)
    jobs: list[Callable[[], None]] = [beside, *(partial(fit.run, batch, stop) for batch in range(fit.BATCHES))]
    watched(jobs, watch, stop)
    return fit.result()


def _list_ends(plane: PlanarMap) -> _Ends:
    arcs = plane.arcs
    by_junction = np.full((len(plane.junction_x), 4), -1, np.int32)
    leave, arrive = np.empty(arcs, np.int32), np.empty(arcs, np.int32)
    _list_directions(plane.first, plane.x, plane.y, plane.start, plane.end, by_junction, leave, arrive)
    return _Ends(by_junction, leave, arrive)


@kernel
def _list_directions(
    first: I32, xs: I32, ys: I32, start: I32, end: I32, by_junction: I32, leave: I32, arrive: I32
) -> None:
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


def _places(plane: PlanarMap, chains: Chains, ends: _Ends, strict: bool) -> F64:
    """float64 [J, 2], px: where the junctions lie before the fit; near their crack vertices in a `strict` trace."""
    places = np.zeros((len(plane.junction_x), 2))
    tracks = (chains.x2, chains.y2, chains.arc_point)
    place_junctions(
        plane.junction_x,
        plane.junction_y,
        plane.width_px,
        plane.height_px,
        ends.by_junction,
        tracks,
        chains.onward >= 0,
        STRICT_SHIFT_PX if strict else MOST_SHIFT_PX,
        places,
    )
    return places


def _ends_of_chains(plane: PlanarMap, chains: Chains, places: F64) -> F64:
    """float64 [C, 4], px: x and y of each open chain's first and last junction."""
    ends = np.zeros((chains.count, 4))
    open_ = np.flatnonzero(~chains.closed)
    low, high = chains.first[open_], chains.first[open_ + 1] - 1
    one = np.where(chains.reverse[low], plane.end[chains.arc[low]], plane.start[chains.arc[low]])
    two = np.where(chains.reverse[high], plane.start[chains.arc[high]], plane.end[chains.arc[high]])
    ends[open_, :2], ends[open_, 2:] = places[one], places[two]
    return ends


def _draw(
    fitted: _Map, table: ArcTable, style: _Style, watch: _Watch, order: list[int] | None = None
) -> tuple[Shape, ...]:
    """The layers, painted in `order` (the map's own where it is None), one after the other."""
    order = fitted.order if order is None else order
    rank_of = np.full(256, NEVER, np.int32)
    rank_of[order] = np.arange(len(order))
    jobs = [partial(_layer, fitted, table, style, rank_of, ink) for ink in order]
    return tuple(shape for layer in watched(jobs, watch, np.zeros(1, np.uint8)) for shape in layer)


def _layer(fitted: _Map, table: ArcTable, style: _Style, rank_of: I32, ink: int) -> list[Shape]:
    plane, chains = fitted.plane, fitted.chains
    rank, mine = rank_of[plane.region_label], int(rank_of[ink])
    inside = np.empty(plane.regions, np.bool_)
    layer_regions(rank, style.own, mine, plane.left, plane.right, inside)
    commands, points = _buffers(plane, chains, table)
    ends, alone = np.empty((plane.arcs, 2), np.int32), np.empty(plane.arcs, np.bool_)
    rings = draw_layer(
        (fitted.index, rank_of, mine, np.array(style.trap)),
        rank,
        inside,
        style.hides,
        not style.own,
        (plane.left, plane.right, plane.start, plane.end, fitted.ends.leave, fitted.ends.arrive),
        fitted.ends.by_junction,
        table.fields,
        (chains.arc_point, chains.x2, chains.y2, fitted.bounds),
        fitted.grid,
        commands,
        points,
        ends,
        alone,
    )
    return _shapes(ink, commands, points, ends[:rings], alone[:rings])


def _buffers(plane: PlanarMap, chains: Chains, table: ArcTable) -> tuple[U8, I32]:
    """Room for the commands and points of any layer."""
    most = 4 * len(table.piece) + len(chains.x2) + 4 * plane.arcs + 16
    return np.empty(most, np.uint8), np.empty((3 * most, 2), np.int32)


def _shapes(ink: int, commands: U8, points: I32, ends: I32, alone: Mask) -> list[Shape]:
    """The rings of a layer as one shape, and those that stand `alone` as one each."""
    begins = np.vstack([np.zeros((1, 2), np.int32), ends[:-1]])
    drawn = ends[:, 0] > begins[:, 0]
    together = np.flatnonzero(drawn & ~alone)
    letters = commands.tobytes().decode("latin-1") if len(together) else ""
    shapes = []
    if len(together):
        text = "".join(letters[begins[r, 0] : ends[r, 0]] for r in together)
        shapes.append(Shape(ink, text, np.concatenate([points[begins[r, 1] : ends[r, 1]] for r in together])))
    for r in np.flatnonzero(drawn & alone):
        text = commands[begins[r, 0] : ends[r, 0]].tobytes().decode()
        shapes.append(Shape(ink, text, points[begins[r, 1] : ends[r, 1]].copy()))
    return shapes


def _exact(image: IndexMap, fitted: _Map, style: _Style, watch: _Watch) -> tuple[ArcTable, tuple[Shape, ...]]:
    """Layers that show every pixel in its own ink: curves beside one that differs give way to the middles of cracks.

    If that does not end it, no border is hidden, and at last no curve is left: nothing can differ then.
    """
    plane, chains, table = fitted.plane, fitted.chains, fitted.table
    rows, pinned, reach_px = np.zeros(len(chains.x2), np.bool_), np.zeros(len(plane.junction_x), np.bool_), 1
    while True:
        shapes = _draw(fitted, table, style, watch)
        wrong = paint(shapes, image.width_px, image.height_px) != image.index
        if not wrong.any() or rows.all():
            return table, shapes
        before = int(rows.sum()) + int(pinned.sum())
        _mark_beside(wrong, 2 * plane.junction_x, 2 * plane.junction_y, reach_px, pinned)
        _mark_beside(wrong, chains.x2, chains.y2, reach_px, rows)
        if int(rows.sum()) + int(pinned.sum()) == before:
            reach_px += 1
        if reach_px > MOST_REACH_PX:
            if not style.hides:
                rows[:], pinned[:] = True, True
            style = dataclasses.replace(style, hides=False)
            reach_px = 1
        table = with_cracks(fitted.table, plane, chains, fitted.curves, rows, pinned)


@kernel
def _mark_beside(wrong: Mask, x2: I32, y2: I32, reach: int, out: Mask) -> None:
    """Marks the places (in half pixels) that lie within `reach` pixels of a wrong one."""
    height, width = wrong.shape
    for i in range(len(out)):
        x, y = x2[i] // 2, y2[i] // 2
        for v in range(max(y - reach, 0), min(y + reach, height)):
            for u in range(max(x - reach, 0), min(x + reach, width)):
                out[i] = out[i] or wrong[v, u]


def _edges(fitted: _Map, table: ArcTable) -> tuple[Edge, ...]:
    plane = fitted.plane
    commands, points = _buffers(plane, fitted.chains, table)
    ends = np.empty((plane.arcs, 2), np.int32)
    draw_edges(table.fields, plane.start, fitted.grid, commands, points, ends)
    label = np.append(plane.region_label, OUTSIDE)
    letters = commands[: ends[-1, 0]].tobytes().decode()
    edges, low, begin = [], 0, 0
    for arc in range(plane.arcs):
        high, end = int(ends[arc, 0]), int(ends[arc, 1])
        if high > low:
            left, right = int(label[plane.left[arc]]), int(label[plane.right[arc]])
            edges.append(Edge(left, right, letters[low:high], points[begin:end].copy()))
        low, begin = high, end
    return tuple(edges)


def _primitives(curves: Fitted) -> dict[str, int]:
    whole = curves.kinds == ELLIPSE
    round_ = curves.segments[:, 4] == curves.segments[:, 5]
    long_ = curves.spans[:, 1] - curves.spans[:, 0] >= LEAST_LINE_POINTS
    return {
        "circles": int((whole & round_).sum()),
        "ellipses": int((whole & ~round_).sum()),
        "arcs": int((curves.kinds == ARC).sum()),
        "lines": int(((curves.kinds == LINE) & long_).sum()),
    }


def _from_light_to_dark(palette: Palette) -> list[int]:
    """Inks by Rec. 709 luma of their sRGB values, in whole numbers; equals in the palette's order."""
    luma = palette.rgb().astype(np.int64) @ np.array([2126, 7152, 722])
    return [int(ink) for ink in np.argsort(-luma, kind="stable") if ink != UNPAINTED]
