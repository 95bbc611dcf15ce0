"""DXF files hold the same outlines as the drawing, in millimetres, each once, in words that every reader knows."""

from __future__ import annotations

import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ezdxf.colors import aci2rgb
from ezdxf.document import Drawing as Document
from ezdxf.filemanagement import readfile
from ezdxf.lldxf.encoding import decode_dxf_unicode
from ezdxf.path import make_path
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.export.dxf import write_dxf
from pipeline.trace.livery import TraceOptions, trace
from pipeline.types import I32, OUTSIDE, POINTS_OF, U8, UNPAINTED, Drawing, Edge, IndexMap, Ink, Palette, Shape, Tracing

ROOT = Path(__file__).resolve().parent.parent
PALETTE = Palette(
    (Ink("#C81414", "Rosso corsa"), Ink("#FFFFFF", "white"), Ink("#123456", "墨"), Ink("#00FF00", "Lime")),
)
CURVES = pytest.mark.parametrize("curves", [False, True], ids=["R12", "R2000"])
HOSTILE = (
    "", " ", "0", "DEFPOINTS", "defpoints", "Cut", "*", "a<b>/c\\d\"e:f;g?h*i|j=k`l,m^n", "x" * 400, "X" * 400,
    "  0\nEOF\n", "tab\tcarriage\rreturn", "\x00\x1b\x85\x81", "\ud800", "\U0001f697 rouge", "赤", "日本" * 200,
    "\\U+0041", "\u2028", "é", "É", "e\u0301", "Ink", "ink", "INK ", "Ink-2", "%%d",
)  # fmt: skip


def shape(ink: int, commands: str, *points: tuple[float, float]) -> Shape:
    return Shape(ink, commands, np.array(points, dtype=np.int32))


def edge(left: int, right: int, commands: str, *points: tuple[float, float]) -> Edge:
    return Edge(left, right, commands, np.array(points, dtype=np.int32))


def circle(ink: int, x: int, y: int, radius: int, clockwise: bool = True) -> Shape:
    """As the tracer writes it: two halves, with a radius slightly short of half the chord."""
    arc = ((radius - 1, radius - 1), (0, int(clockwise)))
    return shape(ink, "MAAZ", (x - radius, y), *arc, (x + radius, y), *arc, (x - radius, y))


def drawn(*shapes: Shape, edges: Sequence[Edge] = (), width_px: int = 200, height_px: int = 100) -> Drawing:
    return Drawing("", width_px, height_px, Tracing(shapes, tuple(edges)))


def sample() -> Drawing:
    """Every command and every mix of them, with holes."""
    return drawn(
        shape(0, "MLLLZMLLLZ", (0, 0), (20000, 0), (20000, 10000), (0, 10000),
              (100, 100), (100, 9900), (9900, 9900), (9900, 100)),
        circle(1, 5000, 5000, 4000),
        circle(1, 5000, 5000, 2000, clockwise=False),
        shape(2, "MAAZ", (12000, 3000), (500, 1500), (3000, 1), (13000, 3000), (500, 1500), (3000, 1), (12000, 3000)),
        shape(3, "MLCZ", (15000, 1000), (17000, 1000), (17500, 2000), (17000, 4000), (15000, 4000)),
        shape(3, "MLACLZ", (11000, 6000), (12000, 6000), (600, 600), (0, 0), (13000, 6000),
              (13500, 7000), (13000, 8000), (12500, 8500), (11000, 8000)),
        shape(2, "MACZ", (15000, 8000), (800, 300), (1500, 3), (16000, 8000),
              (16500, 9000), (15500, 9500), (15000, 9000)),
    )  # fmt: skip


def opened(data: bytes, folder: Path) -> Document:
    """The file as a reader sees it, which finds nothing to complain of."""
    path = folder / "drawing.dxf"
    path.write_bytes(data)
    document = readfile(path)
    audit = document.audit()
    assert not audit.errors, audit.errors
    assert not audit.fixes, audit.fixes
    return document


def outlines(document: Document, chord_mm: float = 1e-4) -> list[tuple[str, list[tuple[float, float]]]]:
    """Layer and corners of each closed outline in the file's order; pieces that meet are joined."""
    found: list[tuple[str, list[tuple[float, float]]]] = []
    ahead: list[tuple[float, float]] = []
    for entity in document.modelspace():
        path = make_path(entity)  # type: ignore[arg-type]
        corners = [(spot.x, spot.y) for spot in path.flattening(chord_mm, segments=4)]
        if ahead and math.dist(ahead[-1], corners[0]) > 2e-3:
            if math.dist(ahead[-1], corners[-1]) < 2e-3:
                corners.reverse()  # an elliptical arc runs counter-clockwise in DXF
            else:
                ahead.reverse()
                if math.dist(ahead[-1], corners[0]) > 2e-3:
                    corners.reverse()
        assert not ahead or math.dist(ahead[-1], corners[0]) < 2e-3
        ahead += corners
        if math.dist(ahead[0], ahead[-1]) < 2e-3:
            found.append((entity.dxf.layer, ahead))
            ahead = []
    assert not ahead, "the last outline is open"
    return found


def signed_area(corners: Sequence[tuple[float, float]]) -> float:
    return sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairwise([*corners, corners[0]])) / 2


def exact_areas(of: Shape) -> list[float]:
    """Signed areas of a shape's sub-outlines in px², in closed form."""
    areas: list[float] = []
    points, px, py, at = of.points / 100, 0.0, 0.0, 0
    for command in of.commands:
        if command == "M":
            areas.append(0.0)
            begin = points[at]
        ax, ay = px, py
        px, py = begin if command == "Z" else points[at + (2 if command in "CA" else 0)]
        if command != "M":
            areas[-1] += (ax * py - px * ay) / 2
        if command == "C":
            (x1, y1), (x2, y2) = points[at] - (ax, ay), points[at + 1] - (ax, ay)
            x3, y3 = px - ax, py - ay
            areas[-1] += 3 / 20 * ((x1 * y2 - x2 * y1) + (x1 * y3 - x3 * y1) + 2 * (x2 * y3 - x3 * y2))
        if command == "A":
            areas[-1] += segment_area(points[at], of.points[at + 1], points[at + 2] - (ax, ay))
        at += POINTS_OF[command]
    return areas


def segment_area(radii: Any, turn_and_flags: Any, way: Any) -> float:
    """Between an elliptical arc and its chord, in closed form: a circle's segment, stretched."""
    turn, (large, clockwise) = math.radians(turn_and_flags[0] / 100), divmod(int(turn_and_flags[1]), 2)
    rx, ry = map(float, radii)
    c, s = math.cos(turn), math.sin(turn)
    chord = math.hypot((c * way[0] + s * way[1]) / rx, (c * way[1] - s * way[0]) / ry)
    grown = max(chord / 2, 1.0)
    angle = 2 * math.asin(min(chord / grown / 2, 1.0))
    angle = math.tau - angle if large else angle
    return (angle - math.sin(angle)) / 2 * rx * ry * grown**2 * (1 if clockwise else -1)


def check_areas(
    picture: Drawing, palette: Palette, width_mm: float, curves: bool, folder: Path, exact: bool = False
) -> None:
    """Every outline in its order with the area of the drawing's own, and each ink's whole area by its layer.

    R12's chords cost area along the outline, unless `exact` says that this drawing is so large that it can't matter.
    """
    document = opened(write_dxf(picture, palette, width_mm=width_mm, curves=curves), folder)
    mm2, chord_mm = (width_mm / picture.width_px) ** 2, max(0.01, 0.05 * width_mm / picture.width_px)
    expected = [(each.ink, area * mm2) for each in picture.tracing.shapes for area in exact_areas(each)]
    found = outlines(document)
    assert len(found) == len(expected)
    drawn_mm2: defaultdict[int, float] = defaultdict(float)
    held_mm2: defaultdict[int, float] = defaultdict(float)
    allowed_mm2: defaultdict[int, float] = defaultdict(float)
    layer_of: dict[int, str] = {}
    for (ink, area), (layer, corners) in zip(expected, found, strict=True):
        assert layer_of.setdefault(ink, layer) == layer
        length = sum(math.dist(a, b) for a, b in pairwise(corners))
        allowed = 1e-3 * abs(area) + (0 if curves else chord_mm) * length + 1e-4
        assert abs(signed_area(corners)) == pytest.approx(abs(area), abs=allowed)
        allowed_mm2[ink] += 0.0 if exact else allowed
        drawn_mm2[ink] += area
        held_mm2[ink] += math.copysign(signed_area(corners), area)
    assert len(set(layer_of.values())) == len(layer_of)
    for ink, area in drawn_mm2.items():
        assert held_mm2[ink] == pytest.approx(area, rel=1e-3, abs=allowed_mm2[ink])


def enlarged(of: Shape, times: int) -> I32:
    """The points of a shape, `times` as large; the turns and flags of its arcs stay."""
    points, at = of.points * times, 0
    for command in of.commands:
        if command == "A":
            points[at + 1] = of.points[at + 1]
        at += POINTS_OF[command]
    return points


@CURVES
@pytest.mark.parametrize("width_mm", [400.0, 1000.0, 5000.0])
def test_each_ink_keeps_its_area(curves: bool, width_mm: float, tmp_path: Path) -> None:
    large = tuple(Shape(each.ink, each.commands, enlarged(each, 10)) for each in sample().tracing.shapes)
    check_areas(drawn(*large, width_px=2000, height_px=1000), PALETTE, width_mm, curves, tmp_path, exact=True)


def picture_map() -> IndexMap:
    y, x = np.mgrid[:90, :140]
    index = np.where((x - 70) ** 2 + (y - 45) ** 2 < 900, 1, 0).astype(np.uint8)
    index[(x - 70) ** 2 + (y - 45) ** 2 < 200] = 2
    index[(x > 100) & (2 * y > x)] = 3
    index[(x < 20) & (y < 30)] = UNPAINTED
    return IndexMap(index, PALETTE)


@CURVES
@pytest.mark.parametrize("stacking", ["stacked", "abutting"])
def test_a_traced_picture_keeps_its_areas(curves: bool, stacking: Any, tmp_path: Path) -> None:
    tracing = trace(picture_map(), TraceOptions(stacking=stacking), deadline_s=120)
    check_areas(Drawing("", 140, 90, tracing), PALETTE, 300.0, curves, tmp_path)


@st.composite
def arc_shapes(draw: st.DrawFn) -> Shape:
    """An arc and its chord: any radii, turn and flags."""
    near = st.integers(0, 8000)
    x0, y0, x1, y1 = (draw(near) for _ in range(4))
    assume(math.hypot(x1 - x0, y1 - y0) > 500)
    rx = draw(st.integers(300, 9000))
    ry = draw(st.one_of(st.just(rx), st.integers(300, 9000)))
    turn, flags = draw(st.integers(-18000, 18000)), draw(st.integers(0, 3))
    return shape(0, "MAZ", (x0, y0), (rx, ry), (turn, flags), (x1, y1))


@settings(max_examples=60, deadline=None)
@given(each=arc_shapes(), curves=st.booleans())
def test_any_arc_keeps_its_area(each: Shape, curves: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    (area,) = exact_areas(each)
    assume(abs(area) > 20)
    check_areas(drawn(each), PALETTE, 2000.0, curves, tmp_path_factory.mktemp("dxf"))


def entities(document: Document, kind: str) -> list[Any]:
    return [entity for entity in document.modelspace() if entity.dxftype() == kind]


def test_y_runs_upward_from_the_lower_left_corner(tmp_path: Path) -> None:
    picture = drawn(shape(0, "MLLZ", (0, 0), (20000, 0), (0, 2500)))
    (polyline,) = entities(opened(write_dxf(picture, PALETTE, width_mm=400.0), tmp_path), "POLYLINE")
    assert [tuple(vertex.dxf.location)[:2] for vertex in polyline.vertices] == [(0, 200), (400, 200), (0, 150)]
    assert polyline.is_closed
    (polyline,) = entities(opened(write_dxf(picture, PALETTE, width_mm=400.0, curves=True), tmp_path), "LWPOLYLINE")
    assert list(polyline.get_points("xy")) == [(0, 200), (400, 200), (0, 150)]
    assert polyline.closed


@pytest.mark.parametrize("clockwise", [False, True])
def test_two_half_arcs_are_one_circle(clockwise: bool, tmp_path: Path) -> None:
    picture = drawn(circle(0, 5000, 2000, 1500, clockwise))
    document = opened(write_dxf(picture, PALETTE, width_mm=100.0, curves=True), tmp_path)
    (found,) = document.modelspace()
    assert found.dxftype() == "CIRCLE"
    assert (tuple(found.dxf.center)[:2], found.dxf.radius) == ((25.0, 40.0), 7.5)


def test_a_lens_of_two_arcs_is_no_circle(tmp_path: Path) -> None:
    arc = ((2000, 2000), (0, 1))
    picture = drawn(shape(0, "MAAZ", (1000, 3000), *arc, (3000, 3000), *arc, (1000, 3000)))
    document = opened(write_dxf(picture, PALETTE, width_mm=200.0, curves=True), tmp_path)
    assert [entity.dxftype() for entity in document.modelspace()] == ["LWPOLYLINE"]


@pytest.mark.parametrize(("rx", "ry"), [(1500, 500), (500, 1500)])
def test_an_ellipse_keeps_its_axes(rx: int, ry: int, tmp_path: Path) -> None:
    """Turned 30° clockwise on the screen: its x axis points down to the right, in DXF below the x axis."""
    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    left, right = (round(5000 - rx * c), round(3000 - rx * s)), (round(5000 + rx * c), round(3000 + rx * s))
    arc = ((rx, ry), (3000, 1))
    picture = drawn(shape(0, "MAAZ", left, *arc, right, *arc, left))
    (found,) = opened(write_dxf(picture, PALETTE, width_mm=200.0, curves=True), tmp_path).modelspace()
    assert found.dxftype() == "ELLIPSE"
    assert tuple(found.dxf.center)[:2] == pytest.approx((50, 70), abs=0.01)
    assert found.dxf.ratio == pytest.approx(1 / 3, abs=1e-3)
    turn = math.degrees(math.atan2(found.dxf.major_axis.y, found.dxf.major_axis.x)) % 180
    assert turn == pytest.approx(150 if rx > ry else 60, abs=0.1)
    assert found.dxf.major_axis.magnitude == pytest.approx(15, abs=0.01)


def test_lines_and_curves_are_one_spline_through_the_same_points(tmp_path: Path) -> None:
    picture = drawn(shape(0, "MLCZ", (0, 0), (3000, 0), (4000, 1000), (4000, 2000), (3000, 3000)))
    (spline,) = entities(opened(write_dxf(picture, PALETTE, width_mm=200.0, curves=True), tmp_path), "SPLINE")
    controls = [tuple(spot)[:2] for spot in spline.control_points]
    assert controls[:7] == [(0, 100), (10, 100), (20, 100), (30, 100), (40, 90), (40, 80), (30, 70)]
    assert controls[0] == controls[-1]
    assert list(spline.knots) == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]


@pytest.mark.parametrize(("width_mm", "chord_mm"), [(20.0, 0.01), (1000.0, 0.25)])
def test_chords_stay_near_the_curve_and_are_few(width_mm: float, chord_mm: float, tmp_path: Path) -> None:
    radius_mm = 4000 / 20000 * width_mm
    data = write_dxf(drawn(circle(0, 5000, 5000, 4000)), PALETTE, width_mm=width_mm)
    (polyline,) = entities(opened(data, tmp_path), "POLYLINE")
    spots = [vertex.dxf.location for vertex in polyline.vertices]
    centre = (0.25 * width_mm, 0.25 * width_mm)
    assert all(math.dist(spot[:2], centre) == pytest.approx(radius_mm, abs=1e-3) for spot in map(tuple, spots))
    sagittas = [radius_mm - math.dist(tuple(a.lerp(b))[:2], centre) for a, b in pairwise([*spots, spots[0]])]
    assert chord_mm / 4 < max(sagittas) <= chord_mm + 1e-3


def test_steps_without_length_leave_no_trace(tmp_path: Path) -> None:
    picture = drawn(
        shape(0, "MLZ", (0, 0), (0, 0)),
        shape(1, "MLLLLZ", (0, 0), (100, 0), (100, 0), (100, 100), (0, 0)),
    )
    (polyline,) = entities(opened(write_dxf(picture, PALETTE, width_mm=200.0), tmp_path), "POLYLINE")
    assert len(polyline.vertices) == 3
    (polyline,) = entities(opened(write_dxf(picture, PALETTE, width_mm=200.0, curves=True), tmp_path), "LWPOLYLINE")
    assert len(polyline) == 3


@CURVES
def test_a_drawing_without_shapes_is_a_valid_file(curves: bool, tmp_path: Path) -> None:
    document = opened(write_dxf(drawn(), PALETTE, width_mm=200.0, curves=curves), tmp_path)
    assert len(document.modelspace()) == 0


# Cutting


def crack_edges(index: U8) -> list[Edge]:
    """One edge for each crack between two pixels of different labels, the map's border included."""
    framed = np.pad(index.astype(np.int64), 1, constant_values=OUTSIDE)
    edges = []
    for y, x in np.argwhere(framed[:, 1:] != framed[:, :-1]).tolist():
        edges.append(edge(framed[y, x + 1], framed[y, x], "ML", (100 * x, 100 * y - 100), (100 * x, 100 * y)))
    for y, x in np.argwhere(framed[1:] != framed[:-1]).tolist():
        edges.append(edge(framed[y, x], framed[y + 1, x], "ML", (100 * x - 100, 100 * y), (100 * x, 100 * y)))
    return edges


def segments(document: Document) -> Iterator[frozenset[tuple[float, float]]]:
    for entity in document.modelspace():
        assert entity.dxf.layer == "CUT"
        for a, b in pairwise(make_path(entity).flattening(0.01)):  # type: ignore[arg-type]
            yield frozenset({(round(a.x, 3), round(a.y, 3)), (round(b.x, 3), round(b.y, 3))})


@settings(max_examples=40, deadline=None)
@given(data=st.data(), curves=st.booleans())
def test_a_knife_goes_nowhere_twice(
    data: st.DataObject, curves: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    size, labels_of_map = height * width, st.sampled_from([0, 1, 2, UNPAINTED])
    labels = data.draw(st.lists(labels_of_map, min_size=size, max_size=size))
    edges = crack_edges(np.array(labels, dtype=np.uint8).reshape(height, width))
    picture = drawn(edges=edges, width_px=width, height_px=height)
    file = write_dxf(picture, PALETTE, width_mm=10.0 * width, curves=curves, single_cut=True)
    found = Counter(segments(opened(file, tmp_path_factory.mktemp("dxf"))))
    assert not found or max(found.values()) == 1
    cut = [each for each in edges if {each.left, each.right} - {OUTSIDE, UNPAINTED}]
    assert set(found) == {frozenset((x / 10, 10 * height - y / 10) for x, y in each.points.tolist()) for each in cut}


@CURVES
def test_open_and_closed_edges(curves: bool, tmp_path: Path) -> None:
    ring = circle(0, 5000, 5000, 1000)
    edges = [
        edge(0, 1, "MCA", (0, 0), (1000, 0), (2000, 1000), (2000, 2000), (500, 500), (0, 1), (3000, 2000)),
        Edge(1, 0, ring.commands, ring.points),
        edge(UNPAINTED, OUTSIDE, "ML", (0, 10000), (20000, 10000)),
    ]
    picture = drawn(edges=edges)
    document = opened(write_dxf(picture, PALETTE, width_mm=200.0, curves=curves, single_cut=True), tmp_path)
    kinds = [entity.dxftype() for entity in document.modelspace()]
    assert kinds == (["SPLINE", "LWPOLYLINE", "CIRCLE"] if curves else ["POLYLINE", "POLYLINE"])
    first, *rest = (make_path(entity) for entity in document.modelspace())  # type: ignore[arg-type]
    assert (tuple(first.start)[:2], tuple((rest[0] if curves else first).end)[:2]) == ((0, 100), (30, 80))
    assert not curves or first.end == rest[0].start
    assert [path.is_closed for path in (first, *rest)] == [False] * (len(kinds) - 1) + [True]


def test_a_cut_needs_edges() -> None:
    with pytest.raises(ValueError, match="edges"):
        write_dxf(sample(), PALETTE, width_mm=100.0, single_cut=True)


@pytest.mark.parametrize("width_mm", [0.0, -1.0, math.inf, math.nan])
def test_a_width_is_a_positive_number(width_mm: float) -> None:
    with pytest.raises(ValueError, match="width_mm"):
        write_dxf(sample(), PALETTE, width_mm=width_mm)


# Words and numbers


@CURVES
def test_the_header_says_millimetres(curves: bool, tmp_path: Path) -> None:
    document = opened(write_dxf(sample(), PALETTE, width_mm=300.0, curves=curves), tmp_path)
    assert document.dxfversion == ("AC1015" if curves else "AC1009")
    assert (document.header["$INSUNITS"], document.header["$MEASUREMENT"]) == (4, 1)
    assert tuple(document.header["$EXTMAX"])[:2] == (300, 150)
    kinds = {entity.dxftype() for entity in document.modelspace()}
    assert kinds == ({"LWPOLYLINE", "SPLINE", "CIRCLE", "ELLIPSE"} if curves else {"POLYLINE"})


@CURVES
def test_layers_are_named_and_coloured_by_ink(curves: bool, tmp_path: Path) -> None:
    document = opened(write_dxf(sample(), PALETTE, width_mm=300.0, curves=curves), tmp_path)
    names = list(dict.fromkeys(decode_dxf_unicode(entity.dxf.layer) for entity in document.modelspace()))
    assert names == (["Rosso corsa", "white", "墨", "Lime"] if curves else ["ROSSO-CORSA", "WHITE", "123456", "LIME"])
    colours = list(dict.fromkeys(document.layers.get(entity.dxf.layer).color for entity in document.modelspace()))
    assert (colours[1], colours[3]) == (255, 3)
    assert aci2rgb(colours[0])[0] > 160
    assert max(aci2rgb(colours[0])[1:]) < 60


def test_inks_take_the_nearest_of_autocads_colours(tmp_path: Path) -> None:
    """Brighter colours, which readers agree on, come back as themselves."""
    numbers = [*range(1, 7), *range(10, 250, 13), 255]
    rgb = {number: aci2rgb(number) for number in numbers if max(aci2rgb(number)) > 120}
    palette = Palette(tuple(Ink(value.to_hex().upper(), f"ink {number}") for number, value in rgb.items()))
    picture = drawn(*(shape(ink, "MLLZ", (0, 0), (100, 0), (0, 100)) for ink in range(len(palette))))
    document = opened(write_dxf(picture, palette, width_mm=100.0), tmp_path)
    found = [document.layers.get(entity.dxf.layer).color for entity in document.modelspace()]
    assert [aci2rgb(number) for number in found] == list(rgb.values())


@CURVES
def test_hostile_names_become_valid_and_distinct(curves: bool, tmp_path: Path) -> None:
    palette = Palette(tuple(Ink(f"#{number:02X}0000", name) for number, name in enumerate(HOSTILE)))
    picture = drawn(*(shape(ink, "MLLZ", (0, 0), (100 + ink, 0), (0, 100)) for ink in range(len(HOSTILE))))
    document = opened(write_dxf(picture, palette, width_mm=300.0, curves=curves), tmp_path)
    names = [entity.dxf.layer for entity in document.modelspace()]
    assert len(names) == len(HOSTILE) == len({name.casefold() for name in names})
    assert not {name.casefold() for name in names} & {"0", "defpoints"}
    allowed = r"""(?:[^<>/\\":;?*|=`,^\x00-\x1f]|\\U\+[0-9a-f]{4})+""" if curves else "[A-Z0-9$_-]+"
    assert all(re.fullmatch(allowed, name) for name in names)
    assert max(len(decode_dxf_unicode(name)) for name in names) <= (255 if curves else 31)
    assert all(document.layers.has_entry(name) for name in names)


def tags_of(data: bytes) -> Iterator[tuple[int, str]]:
    lines = data.decode("cp1252").split("\n")
    return ((int(code), value) for code, value in zip(lines[::2], lines[1::2], strict=False))


@CURVES
@pytest.mark.parametrize("width_mm", [3.0, 333.333, 12000.0])
def test_numbers_are_finite_and_short(curves: bool, width_mm: float) -> None:
    data = write_dxf(sample(), PALETTE, width_mm=width_mm, curves=curves)
    begin = data.index(b"ENTITIES\n") + 9
    tags = list(tags_of(data[begin : data.index(b"ENDSEC", begin)]))
    numbers = [value for code, value in tags if 10 <= code <= 59]
    assert len(numbers) > 100
    assert [value for value in numbers if not re.fullmatch(r"-?\d+\.\d+", value)] == []
    assert max(len(value.partition(".")[2]) for value in numbers if value != str(math.tau)) <= 9
    assert "-0.0" not in numbers


def digest() -> str:
    files = [write_dxf(sample(), PALETTE, width_mm=333.333, curves=curves) for curves in (False, True)]
    return hashlib.sha256(b"".join(files)).hexdigest()


def test_the_same_drawing_gives_the_same_bytes_in_any_process() -> None:
    command = "from tests.test_dxf import digest; print(digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}
    other = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert digest() == digest() == other.stdout.strip()
