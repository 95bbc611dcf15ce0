"""The tracer as a whole: which pixels its outlines paint, what it recognises, how its outputs fit together."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import pyvips

from pipeline.errors import Cancelled, DeadlineExceeded
from pipeline.export.svg import SVG_NS, write_svg
from pipeline.trace.livery import TraceOptions, separations, trace
from pipeline.trace.raster import agreement_pct, paint
from pipeline.types import F64, OUTSIDE, POINTS_OF, U8, UNPAINTED, Edge, IndexMap, Ink, Palette, Shape
from tests.random_maps import PALETTE, centres, disc, drawn_map, inside, map_of, random_map, rectangle
from tests.test_raster import NEAR_PX, SCALE, arc_spots, distance_px

Stacking = Literal["stacked", "abutting"]
STACKINGS: tuple[Stacking, ...] = ("stacked", "abutting")
Step = tuple[str, tuple[tuple[int, int], ...]]
"""A command and the points of an outline's piece: its start, then those that the command takes."""

RANDOM_MAPS = 1000
BATCHES = 10
GUARD_S = 120.0
DEADLINE_S = 600.0

EXACT = (
    TraceOptions(tolerance_px=0.5),
    TraceOptions(tolerance_px=0.5, curves=False),
    TraceOptions(tolerance_px=0.5, stacking="abutting"),
    TraceOptions(tolerance_px=0.5, stacking="abutting", curves=False),
)


def shapes_of(image: IndexMap, options: TraceOptions) -> tuple[Shape, ...]:
    return trace(image, options, deadline_s=DEADLINE_S).shapes


def painted(image: IndexMap, shapes: Sequence[Shape]) -> U8:
    return paint(shapes, image.width_px, image.height_px)


def steps_of(outline: Shape | Edge) -> list[list[Step]]:
    """The pieces of each sub-outline, the line that closes it included."""
    points = [(int(x), int(y)) for x, y in outline.points]
    rings: list[list[Step]] = []
    at = 0
    for command in outline.commands:
        if command == "M":
            start = here = points[at]
            rings.append([])
        elif command == "Z":
            if here != start:
                rings[-1].append(("L", (here, start)))
            here = start
        else:
            taken = tuple(points[at : at + POINTS_OF[command]])
            rings[-1].append((command, (here, *taken)))
            here = taken[-1]
        at += POINTS_OF[command]
    return rings


# --- every pixel in its own ink ---


@pytest.mark.parametrize("batch", range(BATCHES))
def test_exact_outlines_paint_the_map(batch: int) -> None:
    started = time.monotonic()
    for number, seed in enumerate(range(batch, RANDOM_MAPS, BATCHES)):
        image = random_map(seed)
        chosen = EXACT[:2] if seed % 3 else (EXACT[number % 4],)
        for options in chosen:
            wrong = int((painted(image, shapes_of(image, options)) != image.index).sum())
            assert wrong == 0, f"seed {seed}, {options}: {wrong} pixels"
    assert time.monotonic() - started < GUARD_S


def rendered_by_librsvg(svg: str, palette: Palette) -> U8:
    """The label at each pixel's centre. Drawn `SCALE` times as large: without anti-aliasing it is true to a pixel."""
    crisp = svg.replace("<svg ", '<svg shape-rendering="crispEdges" ', 1)
    large = np.asarray(pyvips.Image.svgload_buffer(crisp.encode(), scale=SCALE).numpy())
    rgba = large[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]
    labels = np.full(rgba.shape[:2], UNPAINTED - 1, np.uint8)
    labels[rgba[..., 3] == 0] = UNPAINTED
    for number, ink in enumerate(palette.inks):
        labels[(rgba[..., :3] == ink.rgb).all(axis=2) & (rgba[..., 3] == 255)] = number
    return labels


@pytest.mark.parametrize("options", EXACT, ids=str)
def test_librsvg_paints_the_same(options: TraceOptions) -> None:
    """But where an outline passes so near a centre that rounding decides."""
    for seed in range(3, 60, 3):
        image = random_map(seed, most_side_px=30)
        shapes = shapes_of(image, options)
        svg = write_svg(shapes, PALETTE, image.width_px, image.height_px, title="map")
        fills = {group.get("fill") for group in ET.fromstring(svg).iter(f"{{{SVG_NS}}}g")}
        assert fills == {PALETTE.inks[label].hex for label in np.unique(image.index) if label != UNPAINTED}
        for row, column in np.argwhere(rendered_by_librsvg(svg, PALETTE) != image.index).tolist():
            far = distance_px([shape for shape in shapes if passes_near(shape, column, row)], column, row)
            assert far <= NEAR_PX, f"seed {seed}: ({column}, {row}), {far:.3f} px from an outline"


def passes_near(shape: Shape, column: int, row: int) -> bool:
    """Whether a shape's box holds a pixel."""
    low, high = outline_points(shape).min(axis=0) - 9, outline_points(shape).max(axis=0) + 9
    return bool((low <= (column, row)).all() and (high >= (column, row)).all())


def crack_distance_px(index: U8) -> F64:
    """From each pixel's centre to the nearest crack within the map, float64 [H, W]."""
    height, width = index.shape
    clear = np.ones((2 * height + 1, 2 * width + 1), np.uint8)
    for y, x in np.argwhere(index[:, 1:] != index[:, :-1]):
        clear[2 * y : 2 * y + 3, 2 * x + 2] = 0
    for y, x in np.argwhere(index[1:] != index[:-1]):
        clear[2 * y + 2, 2 * x : 2 * x + 3] = 0
    if clear.all():
        return np.full((height, width), np.inf)
    far: F64 = cv2.distanceTransform(clear, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1::2, 1::2].astype(np.float64) / 2
    return far


def test_the_distance_to_cracks() -> None:
    """The measure of the next test, on a map by hand."""
    index = np.zeros((3, 4), np.uint8)
    index[:, 3] = 1
    assert crack_distance_px(index)[1].tolist() == [2.5, 1.5, 0.5, 0.5]
    assert crack_distance_px(np.array([[0, 0], [0, 1]], np.uint8))[0, 0] == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("stacking", ["stacked", "abutting"])
@pytest.mark.parametrize("tolerance_px", [0.8, 1.3, 2.5])
def test_no_ink_strays(tolerance_px: float, stacking: Stacking) -> None:
    agreement = []
    for seed in range(18):
        image = drawn_map(seed)
        for curves in (True, False):
            shapes = shapes_of(image, TraceOptions(tolerance_px=tolerance_px, stacking=stacking, curves=curves))
            wrong = painted(image, shapes) != image.index
            far = crack_distance_px(image.index)[wrong]
            assert not far.size or far.max() <= tolerance_px + 1.5, f"seed {seed}: {far.max():.1f} px away"
            agreement.append(agreement_pct(image, shapes))
    assert np.mean(agreement) > 99.5 - tolerance_px


def test_a_finer_tolerance_is_nearer_and_takes_more_nodes() -> None:
    nodes, agreement = [], []
    for tolerance_px in (0.5, 0.8, 1.3, 2.5):
        drawn = [shapes_of(drawn_map(seed), TraceOptions(tolerance_px=tolerance_px)) for seed in range(10)]
        nodes.append(sum(shape.nodes for shapes in drawn for shape in shapes))
        agreement.append(np.mean([agreement_pct(drawn_map(seed), shapes) for seed, shapes in enumerate(drawn)]))
    assert nodes[0] > 1.1 * nodes[1]
    assert nodes[1] > nodes[2]
    assert agreement == sorted(agreement, reverse=True)
    assert agreement[0] == 100


@pytest.mark.parametrize("tolerance_px", [0.5, 0.8, 2.5])
@pytest.mark.parametrize("stacking", ["stacked", "abutting"])
def test_a_map_without_ink_and_one_of_one_ink(tolerance_px: float, stacking: Stacking) -> None:
    options = TraceOptions(tolerance_px=tolerance_px, stacking=stacking)
    assert shapes_of(map_of(np.full((9, 7), UNPAINTED, np.uint8)), options) == ()
    (shape,) = shapes_of(map_of(np.full((9, 7), 5, np.uint8)), options)
    assert (shape.ink, shape.commands) == (5, "MLLLZ")
    assert {tuple(point) for point in shape.points.tolist()} == {(0, 0), (700, 0), (700, 900), (0, 900)}


# --- what it recognises ---


def arc_circles(shape: Shape) -> list[tuple[float, float, float]]:
    """Centre x, y and radius, px, of each circular arc of an outline (SVG 1.1, F.6.5, for equal radii)."""
    found = []
    for command, points in (step for ring in steps_of(shape) for step in ring):
        if command != "A":
            continue
        (ax, ay), (radius, radius_y), (_, flags), (bx, by) = points
        if radius != radius_y:
            continue
        start, half = np.array([ax, ay]) / 100, np.array([bx - ax, by - ay]) / 200
        reach = max(radius / 100, float(np.hypot(*half)))
        lift = max(reach**2 / float(half @ half) - 1, 0.0) ** 0.5
        larger, clockwise = flags >= 2, flags % 2 == 1
        side = 1 if larger != clockwise else -1
        centre = start + half + side * lift * np.array([-half[1], half[0]])
        found.append((float(centre[0]), float(centre[1]), reach))
    return found


def test_the_circle_of_an_arc() -> None:
    quarter = Shape(0, "MAZ", np.array([[700, 500], [200, 200], [0, 1], [500, 700]], np.int32))
    assert arc_circles(quarter) == [pytest.approx((5, 5, 2))]
    rest = Shape(0, "MAZ", np.array([[700, 500], [200, 200], [0, 2], [500, 700]], np.int32))
    assert arc_circles(rest) == [pytest.approx((5, 5, 2))]


@pytest.mark.parametrize("stacking", ["stacked", "abutting"])
def test_discs_are_circles(stacking: Stacking) -> None:
    """The pixels fix a circle of 12 px to about 0.1 px; larger ones better."""
    rng = np.random.default_rng(5)
    off: list[float] = []
    missed = 0
    for _ in range(40):
        x, y, r = rng.uniform(64, 66), rng.uniform(64, 66), rng.uniform(12, 40)
        index = np.zeros((130, 131), np.uint8)
        index[disc(131, 130, x, y, r)] = 1
        tracing = trace(map_of(index), TraceOptions(stacking=stacking), deadline_s=DEADLINE_S)
        (shape,) = (shape for shape in tracing.shapes if shape.ink == 1)
        assert (tracing.primitives["circles"] == 1) == (shape.commands == "MAAZ")
        if shape.commands != "MAAZ":
            missed += 1
            continue
        off += [max(np.hypot(cx - x, cy - y), abs(cr - r)) for cx, cy, cr in arc_circles(shape)]
    assert missed <= 1
    assert max(off) <= 0.1
    assert np.mean(off) <= 0.02


@pytest.mark.parametrize("ink", [0, 1])
def test_a_disc_is_a_circle_of_either_layer(ink: int) -> None:
    """Painted beneath, its circle is the other ink's hole."""
    index = np.full((60, 60), 1 - ink, np.uint8)
    index[disc(60, 60, 30.2, 29.6, 25.0)] = ink
    shapes = shapes_of(map_of(index), TraceOptions())
    circles = [circle for shape in shapes for circle in arc_circles(shape)]
    assert circles
    for circle in circles:
        assert circle == pytest.approx((30.2, 29.6, 25.0), abs=0.1)


def half_hidden(rng: np.random.Generator) -> tuple[IndexMap, tuple[float, float, float]]:
    """A disc behind a rectangle that hides a third to two thirds of it."""
    x, y, r = rng.uniform(70, 80), rng.uniform(70, 80), rng.uniform(20, 60)
    index = np.zeros((150, 150), np.uint8)
    index[disc(150, 150, x, y, r)] = 1
    index[int(y + rng.uniform(-0.3, 0.3) * r) :, 5:145] = 2
    return map_of(index), (x, y, r)


@pytest.mark.parametrize("stacking", ["stacked", "abutting"])
def test_half_hidden_discs_are_arcs(stacking: Stacking) -> None:
    rng = np.random.default_rng(11)
    off = []
    for _ in range(20):
        image, (x, y, r) = half_hidden(rng)
        tracing = trace(image, TraceOptions(stacking=stacking), deadline_s=DEADLINE_S)
        assert tracing.primitives["arcs"] >= 1
        circles = [circle for shape in tracing.shapes for circle in arc_circles(shape)]
        assert circles
        off += [max(np.hypot(cx - x, cy - y), abs(cr - r)) for cx, cy, cr in circles]
    assert max(off) <= 0.25
    assert np.mean(off) <= 0.06


def ellipse(size_px: int, centre: tuple[float, float], radii: tuple[float, float], turn_rad: float) -> U8:
    """1 where a pixel's centre lies in an ellipse."""
    x, y = centres(size_px, size_px)
    c, s = np.cos(turn_rad), np.sin(turn_rad)
    u, w = (x - centre[0]) * c + (y - centre[1]) * s, (y - centre[1]) * c - (x - centre[0]) * s
    return np.asarray((u / radii[0]) ** 2 + (w / radii[1]) ** 2 < 1, np.uint8)


def test_ellipses_are_ellipses() -> None:
    rng = np.random.default_rng(1)
    missed, off = 0, []
    for _ in range(40):
        (x, y), (one, two) = rng.uniform(54, 56, 2).tolist(), rng.uniform(10, 50, 2).tolist()
        index = ellipse(110, (x, y), (one, two), float(rng.uniform(0, np.pi)))
        tracing = trace(map_of(index), TraceOptions(stacking="abutting"), deadline_s=DEADLINE_S)
        (shape,) = (shape for shape in tracing.shapes if shape.ink == 1)
        if shape.commands != "MAAZ":
            missed += 1
            continue
        assert tracing.primitives["ellipses"] + tracing.primitives["circles"] == 1
        centre = (shape.points[0] + shape.points[3]) / 200
        off += [float(np.hypot(*(centre - (x, y))))]
        off += np.abs(np.sort(shape.points[1] / 100) - sorted((one, two))).tolist()
    assert missed <= 5
    assert max(off) <= 0.35
    assert np.mean(off) <= 0.08


@pytest.mark.parametrize("options", [TraceOptions(), TraceOptions(tolerance_px=2.5), *EXACT], ids=str)
def test_an_upright_rectangle_is_four_lines(options: TraceOptions) -> None:
    for x0, y0, x1, y1 in ((3, 4, 25, 17), (10, 2, 22, 30), (5, 14, 35, 39), (5, 5, 19, 19)):
        index = np.zeros((40, 40), np.uint8)
        index[y0:y1, x0:x1] = 1
        (shape,) = (shape for shape in shapes_of(map_of(index), options) if shape.ink == 1)
        assert shape.commands == "MLLLZ"
        corners = {(100 * x, 100 * y) for x in (x0, x1) for y in (y0, y1)}
        assert {tuple(point) for point in shape.points.tolist()} == corners


@pytest.mark.parametrize("stacking", ["stacked", "abutting"])
@pytest.mark.parametrize("tolerance_px", [0.5, 0.8, 1.3, 2.5])
def test_small_boxes_don_t_vanish(tolerance_px: float, stacking: Stacking) -> None:
    lost = []
    for across in range(1, 9):
        for down in range(1, across + 1):
            index = np.zeros((30, 30), np.uint8)
            index[10 : 10 + down, 12 : 12 + across] = 1
            image = map_of(index)
            shapes = shapes_of(image, TraceOptions(tolerance_px=tolerance_px, stacking=stacking))
            shown = int((painted(image, shapes) == 1).sum())
            if not 0.6 <= shown / (across * down) <= 1.7:
                lost.append((across, down, shown))
    assert not lost


def outline_points(shape: Shape) -> F64:
    """The nodes of an outline, px."""
    nodes = {points[0] for ring in steps_of(shape) for _, points in ring}
    return np.array(sorted(nodes)) / 100


@pytest.mark.parametrize("turn_deg", [0, 12, 22, 30, 38, 45, 57, 71, 90])
def test_a_straight_border_is_straight(turn_deg: int) -> None:
    x, y = (part - 40.2 for part in centres(80, 80))
    turn = np.radians(turn_deg)
    index = (x * np.sin(turn) > y * np.cos(turn)).astype(np.uint8)
    edges = trace(map_of(index), TraceOptions(edges=True), deadline_s=DEADLINE_S).edges
    (edge,) = (edge for edge in edges if OUTSIDE not in (edge.left, edge.right))
    off = (edge.points / 100 - 40.2) @ [np.sin(turn), -np.cos(turn)]
    assert edge.commands in {"ML", "MLL"}
    assert np.abs(off).max() <= 0.5


TURNS_DEG = (14.0, 21.0, 33.0, 37.7, 55.1, 60.0, 63.0, 70.0)


@pytest.mark.parametrize("turn_deg", TURNS_DEG)
def test_a_rotated_rectangle_keeps_its_corners(turn_deg: float) -> None:
    rng = np.random.default_rng(int(turn_deg))
    off = []
    for _ in range(4):
        (x, y), (across, down) = rng.uniform(49, 51, 2).tolist(), rng.uniform(20, 60, 2).tolist()
        corners = rectangle(x, y, across, down, np.radians(turn_deg))
        index = np.zeros((100, 100), np.uint8)
        index[inside(100, 100, corners)] = 1
        (shape,) = (shape for shape in shapes_of(map_of(index), TraceOptions(stacking="abutting")) if shape.ink == 1)
        assert shape.nodes <= 8
        nodes = outline_points(shape)
        off += [float(np.hypot(*(nodes - corner).T).min()) for corner in corners]
    assert np.mean(off) <= 0.3
    assert max(off) <= 0.8


@pytest.mark.parametrize("turn_deg", [0.0, 22.6, 36.9, 53.1, 90.0])
@pytest.mark.parametrize("stacking", ["stacked", "abutting"])
def test_a_thin_line_keeps_its_length_and_its_breadth(turn_deg: float, stacking: Stacking) -> None:
    """Two pixels wide with square ends; sampling at pixel centres moves a slanting one's ends by up to half a pixel."""
    for length_px in (20.0, 44.0):
        turn = np.radians(turn_deg)
        index = np.zeros((60, 60), np.uint8)
        corners = rectangle(30.0, 30.0, length_px, 2.0, turn)
        index[inside(60, 60, corners)] = 1
        shapes = shapes_of(map_of(index), TraceOptions(stacking=stacking))
        nodes = np.concatenate([outline_points(shape) for shape in shapes if shape.ink == 1])
        along = nodes @ [np.cos(turn), np.sin(turn)]
        assert np.ptp(along) == pytest.approx(length_px, abs=1.5 if turn_deg % 90 else 0.01)
        across = np.concatenate([shape_area_px(shape) for shape in shapes if shape.ink == 1]).sum() / length_px
        assert across == pytest.approx(2.0, abs=0.35)


@pytest.mark.parametrize("across_px", [2, 3, 4])
@pytest.mark.parametrize("tolerance_px", [0.8, 1.3, 2.5])
def test_a_winding_band_stays_whole(across_px: int, tolerance_px: float) -> None:
    """Its two sides never meet, however coarse the curves."""
    y, x = np.mgrid[0:60, 0:120]
    middle = np.round(30 + 11 * np.sin(x / 17) + 2 * np.sin(x / 5.3)).astype(int)
    image = map_of(((y >= middle) & (y < middle + across_px)).astype(np.uint8))
    for stacking in STACKINGS:
        shown = painted(image, shapes_of(image, TraceOptions(tolerance_px=tolerance_px, stacking=stacking))) == 1
        assert shown.any(axis=0).all()
        assert cv2.connectedComponents(shown.astype(np.uint8), connectivity=8)[0] == 2
        assert shown.sum() == pytest.approx((image.index == 1).sum(), rel=0.3)


def shape_area_px(shape: Shape) -> F64:
    """The area within each sub-outline."""
    rings = [np.concatenate([flattened(*step) for step in ring]) / 100 for ring in steps_of(shape)]
    return np.array(
        [abs(np.dot(r[:, 0], np.roll(r[:, 1], -1)) - np.dot(r[:, 1], np.roll(r[:, 0], -1))) / 2 for r in rings]
    )


def test_primitives_are_counted() -> None:
    index = np.zeros((120, 120), np.uint8)
    for n, (x, y) in enumerate(((25, 25), (80, 30), (30, 85))):
        index[disc(120, 120, x, y, 14 + n)] = 1 + n
    index[70:100, 70:110] = 4
    counted = trace(map_of(index), TraceOptions(), deadline_s=DEADLINE_S).primitives
    assert counted["circles"] == 3
    assert counted["ellipses"] == 0
    assert counted["lines"] == 8  # the square and the map's border


# --- edges ---


def labels_by_edges(edges: Sequence[Edge], width_px: int, height_px: int, upright: bool) -> npt.NDArray[np.int64]:
    """A number for what each pixel shows: from the border inward, what all edges crossed so far have changed.

    Each label stands for an arbitrary number, so that an edge that is missing, doubled or mislabelled does not cancel.
    """
    number = np.random.default_rng(3).integers(1, 1 << 40, 257)
    size = (width_px, height_px) if upright else (height_px, width_px)
    out = np.zeros((size[1], size[0] + 1), np.int64)
    for edge in edges:
        change = int(number[edge.left] - number[edge.right])
        for command, points in (step for ring in steps_of(edge) for step in ring):
            spots = flattened(command, points)
            for (ax, ay), (bx, by) in pairwise(spots if upright else spots[:, ::-1]):
                rows = np.arange(np.ceil((min(ay, by) - 50) / 100), np.ceil((max(ay, by) - 50) / 100), dtype=int)
                x = ax + (100 * rows + 50 - ay) * (bx - ax) / (by - ay if by != ay else 1)
                columns = np.clip(np.ceil((x - 50) / 100), 0, size[0]).astype(int)
                np.add.at(out, (rows, columns), change if (by > ay) == upright else -change)
    shown = out.cumsum(axis=1)[:, :-1] + number[OUTSIDE]
    return np.asarray(shown if upright else shown.T)


def flattened(command: str, points: tuple[tuple[int, int], ...]) -> F64:
    """Spots along a piece, 1/100 px."""
    spots = np.array(points, np.float64)
    t = np.linspace(0, 1, 200)[:, None]
    if command == "L":
        return spots
    if command == "C":
        curve: F64 = (
            (1 - t) ** 3 * spots[0] + 3 * t * (1 - t) ** 2 * spots[1] + 3 * t**2 * (1 - t) * spots[2] + t**3 * spots[3]
        )
        return curve
    arc = arc_spots(*spots)
    arc[0], arc[-1] = spots[0], spots[3]
    return arc


def shown_numbers(index: U8) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = np.random.default_rng(3).integers(1, 1 << 40, 257)[index]
    return numbers


@pytest.mark.parametrize("curves", [True, False])
def test_edges_are_each_boundary_once(curves: bool) -> None:
    wrong = dict.fromkeys((True, False), 0)
    for seed in range(0, 60, 3):
        image = random_map(seed, most_side_px=30)
        options = TraceOptions(tolerance_px=0.5, curves=curves, edges=True)
        edges = trace(image, options, deadline_s=DEADLINE_S).edges
        for upright in (True, False):
            shown = labels_by_edges(edges, image.width_px, image.height_px, upright)
            wrong[upright] += int((shown != shown_numbers(image.index)).sum())
        met = Counter(piece for edge in edges for ring in steps_of(edge) for piece in both_ways(ring))
        assert set(met.values()) <= {1}, f"seed {seed}: an edge comes twice"
        for edge in edges:
            assert edge.commands.count("M") == 1
            assert edge.commands.endswith("Z") or "Z" not in edge.commands
    # A centre that lies on an edge belongs to what is right of it, or beneath it where the map is read the other way.
    assert wrong[True] <= (2 if curves else 0)
    assert wrong[False] <= 8


def both_ways(ring: Sequence[Step]) -> set[Step]:
    """Each piece in the one of its two directions that sorts first."""
    return {min((command, points), turned((command, points))) for command, points in ring}


def turned(step: Step) -> Step:
    """A piece from its end to its start."""
    command, points = step
    if command != "A":
        return command, points[::-1]
    start, radii, (turn, flags), end = points
    return "A", (end, radii, (turn, flags ^ 1), start)


def test_edges_are_asked_for() -> None:
    image = drawn_map(0)
    assert trace(image, TraceOptions(), deadline_s=DEADLINE_S).edges == ()


@pytest.mark.parametrize("tolerance_px", [0.5, 0.8, 2.5])
def test_edges_know_the_outside_and_the_unpainted(tolerance_px: float) -> None:
    index = np.full((30, 40), 3, np.uint8)
    index[8:20, 10:25] = UNPAINTED
    index[disc(40, 30, 33, 15, 4)] = 7
    options = TraceOptions(tolerance_px=tolerance_px, edges=True)
    edges = trace(map_of(index), options, deadline_s=DEADLINE_S).edges
    sides = Counter(frozenset((edge.left, edge.right)) for edge in edges)
    assert sides == {frozenset((3, OUTSIDE)): 4, frozenset((3, UNPAINTED)): 1, frozenset((3, 7)): 1}


@pytest.mark.parametrize("tolerance_px", [0.5, 0.8, 1.3])
def test_abutting_neighbours_share_their_numbers(tolerance_px: float) -> None:
    for seed in range(8):
        image = drawn_map(seed) if seed % 2 else random_map(9 * seed + 1, most_side_px=40)
        image = map_of(np.where(image.index == UNPAINTED, 0, image.index).astype(np.uint8))
        shapes = shapes_of(image, TraceOptions(tolerance_px=tolerance_px, stacking="abutting"))
        check_shared(shapes, image)


def check_shared(shapes: Sequence[Shape], image: IndexMap) -> None:
    """Each piece that isn't on the map's border is there once more, the other way round."""
    pieces = [step for shape in shapes for ring in steps_of(shape) for step in ring]
    on_row: dict[tuple[int, int], set[int]] = {}
    for _, points in pieces:
        for x, y in (points[0], points[-1]):
            on_row.setdefault((0, x), set()).add(y)
            on_row.setdefault((1, y), set()).add(x)
    met: Counter[Step] = Counter()
    for command, points in pieces:
        (ax, ay), (bx, by) = points[0], points[-1]
        if command != "L" or (ax != bx and ay != by):
            met[command, points] += 1
            continue
        # A line along a row or column runs on through the junctions of its other side.
        if (ax == bx and ax in (0, 100 * image.width_px)) or (ay == by and ay in (0, 100 * image.height_px)):
            continue
        low, high = (min(ay, by), max(ay, by)) if ax == bx else (min(ax, bx), max(ax, bx))
        stops = sorted(at for at in on_row[(0, ax) if ax == bx else (1, ay)] if low <= at <= high)
        places = [(ax, at) if ax == bx else (at, ay) for at in (stops if (ax, ay) <= (bx, by) else stops[::-1])]
        met.update(("L", pair) for pair in pairwise(places))
    lonely = [step for step, count in met.items() if count != met[turned(step)]]
    assert not lonely, f"{len(lonely)} of {len(met)} pieces, such as {lonely[0]}"


# --- separations ---

LIGHT, DARK, MIDDLE = 0, 1, 2
PRESS = Palette((Ink("#F0E060", "light"), Ink("#101020", "dark"), Ink("#707070", "middle")))


def plates_of(index: U8, trap_px: float, tolerance_px: float = 0.8) -> dict[int, tuple[Shape, ...]]:
    return separations(IndexMap(index, PRESS), TraceOptions(tolerance_px=tolerance_px), trap_px, deadline_s=DEADLINE_S)


def same_shapes(one: Sequence[Shape], two: Sequence[Shape]) -> bool:
    return [(s.ink, s.commands, s.points.tolist()) for s in one] == [
        (s.ink, s.commands, s.points.tolist()) for s in two
    ]


@pytest.mark.parametrize("tolerance_px", [0.8, 2.0])
def test_plates_without_a_trap_paint_the_map(tolerance_px: float) -> None:
    for seed in range(10):
        image = drawn_map(seed)
        options = TraceOptions(tolerance_px=tolerance_px)
        plates = separations(image, options, 0.0, deadline_s=DEADLINE_S)
        assert list(plates) == sorted({int(label) for label in np.unique(image.index)} - {UNPAINTED})
        assert all(shape.ink == ink for ink, plate in plates.items() for shape in plate)
        overlaid = painted(image, [shape for plate in plates.values() for shape in plate])
        together = painted(image, shapes_of(image, TraceOptions(tolerance_px=tolerance_px, stacking="abutting")))
        covered = sum((painted(image, plate) != UNPAINTED).astype(int) for plate in plates.values())
        assert np.array_equal(overlaid != UNPAINTED, together != UNPAINTED)
        assert (overlaid != together).sum() <= (covered > 1).sum() <= 0.0005 * image.index.size
        wrong = overlaid != image.index
        far = crack_distance_px(image.index)[wrong]
        assert not far.size or far.max() <= tolerance_px + 1.5


@pytest.mark.parametrize("trap_px", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("turned_round", [False, True])
def test_the_lighter_ink_reaches_beneath_the_darker(trap_px: float, turned_round: bool) -> None:
    index = np.full((60, 80), LIGHT, np.uint8)
    index[:, 40:] = DARK
    if turned_round:
        index = np.ascontiguousarray(index[:, ::-1])
    bare, spread = plates_of(index, 0.0), plates_of(index, trap_px)
    assert same_shapes(spread[DARK], bare[DARK])
    (light,) = spread[LIGHT]
    x = light.points[:, 0] / 100
    reached = 80 - x.min() if turned_round else x.max()
    assert reached == pytest.approx(40 + trap_px, abs=0.7)
    middle = paint(spread[LIGHT], 80, 60)[20:40] == LIGHT
    edge = middle[:, ::-1].sum(axis=1) if turned_round else middle.sum(axis=1)
    assert np.abs(edge - 40 - trap_px).max() <= 1.0
    grown = (paint(spread[LIGHT], 80, 60) == LIGHT) & ~(paint(bare[LIGHT], 80, 60) == LIGHT)
    assert (index[grown] == DARK).all()
    assert (paint(spread[LIGHT], 80, 60) == LIGHT)[index == LIGHT].all()


def test_a_trap_leaves_the_unpainted_bare() -> None:
    index = np.full((60, 90), UNPAINTED, np.uint8)
    index[10:50, 10:45] = LIGHT
    index[10:50, 45:80] = MIDDLE
    index[20:40, 60:70] = DARK
    plates = plates_of(index, 3.0)
    for ink in (LIGHT, MIDDLE, DARK):
        assert not (paint(plates[ink], 90, 60) == ink)[index == UNPAINTED].any()
    assert same_shapes(plates[DARK], plates_of(index, 0.0)[DARK])
    assert (paint(plates[LIGHT], 90, 60) == LIGHT)[:, 45:48][15:45].all()
    assert not (paint(plates[MIDDLE], 90, 60) == MIDDLE)[:, :45].any()
    assert (paint(plates[MIDDLE], 90, 60) == MIDDLE)[20:40, 60:62].all()


# --- stops ---


@pytest.fixture(scope="module")
def noisy() -> IndexMap:
    """2048 × 2048 with far more regions than a photograph's map."""
    rng = np.random.default_rng(2)
    small = rng.standard_normal((5, 2048, 2048)).astype(np.float32)
    fields = np.stack([cv2.GaussianBlur(field, (0, 0), 2.5) for field in small])
    return map_of(fields.argmax(axis=0).astype(np.uint8))


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.5])
def test_a_cancelled_trace_ends_at_once(noisy: IndexMap, after_s: float) -> None:
    trace(drawn_map(1), TraceOptions(), deadline_s=DEADLINE_S)  # nothing is compiled while the clock runs
    turns_at = time.monotonic() + after_s
    with pytest.raises(Cancelled):
        trace(noisy, TraceOptions(), deadline_s=DEADLINE_S, cancelled=lambda: time.monotonic() >= turns_at)
    assert time.monotonic() - turns_at < 2
    check_it_still_works()


def test_a_trace_keeps_its_deadline(noisy: IndexMap) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        trace(noisy, TraceOptions(), deadline_s=0.01)
    assert time.monotonic() - started < 2
    assert caught.value.phase == "vectorize"
    check_it_still_works()


@pytest.mark.parametrize("trap_px", [0.0, 2.0])
def test_separations_stop_too(noisy: IndexMap, trap_px: float) -> None:
    turns_at = time.monotonic() + 0.15
    with pytest.raises(Cancelled):
        separations(
            noisy, TraceOptions(), trap_px, deadline_s=DEADLINE_S, cancelled=lambda: time.monotonic() >= turns_at
        )
    assert time.monotonic() - turns_at < 2
    with pytest.raises(DeadlineExceeded):
        separations(noisy, TraceOptions(), trap_px, deadline_s=0.01)
    check_it_still_works()


def check_it_still_works() -> None:
    image = drawn_map(2)
    assert agreement_pct(image, shapes_of(image, TraceOptions(tolerance_px=0.5))) == 100


def test_a_trace_that_is_not_cancelled_asks_all_along(noisy: IndexMap) -> None:
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return False

    trace(map_of(noisy.index[:1024, :1024]), TraceOptions(), deadline_s=DEADLINE_S, cancelled=cancelled)
    assert max(later - earlier for earlier, later in pairwise(asked)) < 2


# --- the same on every machine ---

PROGRAM = """
from tests.test_livery import digest
print(digest())
"""


def digest() -> str:
    """SHA-256 of what several maps become."""
    made = hashlib.sha256()

    def add(shapes: Sequence[Shape | Edge]) -> None:
        for shape in shapes:
            made.update(shape.commands.encode())
            made.update(shape.points.tobytes())

    for seed in range(6):
        image = drawn_map(seed) if seed % 2 else random_map(seed)
        for options in (EXACT[0], TraceOptions(edges=True), TraceOptions(tolerance_px=1.3, stacking="abutting")):
            tracing = trace(image, options, deadline_s=DEADLINE_S)
            add(tracing.shapes)
            add(tracing.edges)
            made.update(repr(sorted(tracing.primitives.items())).encode())
        for plate in separations(image, TraceOptions(), 2.0, deadline_s=DEADLINE_S).values():
            add(plate)
    return made.hexdigest()


@pytest.mark.parametrize("threads", ["1", "2", "4"])
def test_the_threads_don_t_change_it(threads: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "LIVERY_THREADS": threads},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.strip() == digest()


def test_tracing_leaves_the_map_alone() -> None:
    image = drawn_map(4)
    before = image.index.copy()
    view = IndexMap(np.asfortranarray(image.index), image.palette)
    first, second = (shapes_of(each, TraceOptions()) for each in (image, view))
    assert same_shapes(first, second)
    assert np.array_equal(image.index, before)
