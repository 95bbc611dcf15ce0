"""Outlines become pixels as two independent renderers paint them, whatever the number of threads."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.export.svg import path_data
from pipeline.trace.raster import agreement_pct, paint
from pipeline.types import F64, U8, UNPAINTED, IndexMap, Ink, Palette, Shape

RESVG = importlib.util.find_spec("resvg_py")

FRAME_PX = 40
SCALE = 51
"""Renderers draw this much larger, and each block's middle is compared: they are true to a pixel of theirs."""

NEAR_PX = 0.02
INKS = tuple(Ink(hex_, hex_) for hex_ in ("#D00000", "#00B000", "#0000C0", "#B0B000", "#00A0A0", "#202020"))
PALETTE = Palette(INKS)

Ring = tuple[str, list[tuple[int, int]]]


def shape_of(ink: int, *rings: Ring) -> Shape:
    commands = "".join(commands for commands, _ in rings)
    return Shape(ink, commands, np.array([spot for _, spots in rings for spot in spots], np.int32))


def box(x0: int, y0: int, x1: int, y1: int) -> Ring:
    """A clockwise rectangle, in whole pixels."""
    return "MLLLZ", [(100 * x, 100 * y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]


def turned(ring: Ring) -> Ring:
    """A polygon's ring the other way round."""
    return ring[0], ring[1][::-1]


def svg_of(shapes: Sequence[Shape]) -> str:
    paths = "".join(f'<path fill="{INKS[shape.ink].hex}" d="{path_data(shape)}"/>' for shape in shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{FRAME_PX}" height="{FRAME_PX}" '
        f'viewBox="0 0 {FRAME_PX} {FRAME_PX}" shape-rendering="crispEdges">{paths}</svg>'
    )


def inks_at_centres(rgba: U8) -> U8:
    """The ink of each pixel's middle, of a rendering `SCALE` times as large."""
    middle = rgba[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]
    out = np.full(middle.shape[:2], UNPAINTED, np.uint8)
    for number, ink in enumerate(INKS):
        out[(middle[..., :3] == ink.rgb).all(axis=2) & (middle[..., 3] == 255)] = number
    assert ((out != UNPAINTED) | (middle[..., 3] == 0)).all()
    return out


def librsvg(shapes: Sequence[Shape]) -> U8:
    return inks_at_centres(np.asarray(pyvips.Image.svgload_buffer(svg_of(shapes).encode(), scale=SCALE).numpy()))


def resvg(shapes: Sequence[Shape]) -> U8:
    png = importlib.import_module("resvg_py").svg_to_bytes(
        svg_string=svg_of(shapes), zoom=SCALE, skip_system_fonts=True
    )
    return inks_at_centres(np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA")))


def arc_spots(start: F64, radii: F64, turn_flags: F64, end: F64) -> F64:
    """Spots along an arc, by the angles of SVG 1.1, F.6.5."""
    rx, ry = np.abs(radii)
    if rx == 0 or ry == 0 or (start == end).all():
        return np.stack([start, end])
    turn, larger, clockwise = math.radians(turn_flags[0] / 100), turn_flags[1] >= 2, turn_flags[1] % 2 == 1
    axes = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    x, y = axes.T @ (start - end) / 2
    grow = max(1.0, math.hypot(x / rx, y / ry))
    rx, ry = rx * grow, ry * grow
    squared = max(0.0, (rx * ry) ** 2 - (rx * y) ** 2 - (ry * x) ** 2) / ((rx * y) ** 2 + (ry * x) ** 2)
    centre = math.sqrt(squared) * (1 if larger != clockwise else -1) * np.array([rx * y / ry, -ry * x / rx])
    first = math.atan2((y - centre[1]) / ry, (x - centre[0]) / rx)
    sweep = (math.atan2((-y - centre[1]) / ry, (-x - centre[0]) / rx) - first) % math.tau
    angle = first + np.linspace(0, sweep if clockwise else sweep - math.tau, 2000)
    round_spots = np.stack([rx * np.cos(angle), ry * np.sin(angle)]) + centre[:, None]
    return np.asarray((axes @ round_spots).T + (start + end) / 2)


def outline_spots(shape: Shape) -> list[F64]:
    """Each step of an outline as a row of near spots, 1/100 px."""
    points = shape.points.astype(np.float64)
    rows, at, here, start = [], 0, points[0], points[0]
    for command in shape.commands:
        if command == "M":
            start = points[at]
            at += 1
        elif command == "C":
            t = np.linspace(0, 1, 2000)[:, None]
            one, two, end = points[at : at + 3]
            rows.append((1 - t) ** 3 * here + 3 * t * (1 - t) * ((1 - t) * one + t * two) + t**3 * end)
            at += 3
        elif command == "A":
            rows.append(arc_spots(here, *points[at : at + 3]))
            at += 3
        else:
            rows.append(np.stack([here, start if command == "Z" else points[at]]))
            at += command == "L"
        here = start if command == "Z" else points[at - 1]
    return rows


def distance_px(shapes: Sequence[Shape], column: int, row: int) -> float:
    """From a pixel's centre to the nearest outline."""
    centre, least = np.array([column + 0.5, row + 0.5]) * 100, math.inf
    for spots in (spots for shape in shapes for spots in outline_spots(shape)):
        along, back = np.diff(spots, axis=0), centre - spots[:-1]
        share = ((along * back).sum(axis=1) / np.maximum((along * along).sum(axis=1), 1e-12)).clip(0, 1)
        least = min(least, float(np.hypot(*(back - share[:, None] * along).T).min()) / 100)
    return least


def check_against(rendered: U8, shapes: Sequence[Shape]) -> None:
    """Equal, but where an outline passes so near a centre that rounding decides."""
    painted = paint(shapes, FRAME_PX, FRAME_PX)
    for row, column in np.argwhere(painted != rendered).tolist():
        far = distance_px(shapes, column, row)
        assert far <= NEAR_PX, f"({column}, {row}): {painted[row, column]}, not {rendered[row, column]}; {far:.3f} px"


spots = st.tuples(st.integers(-800, 4800), st.integers(-800, 4800))
radii = st.tuples(st.integers(0, 3000), st.integers(1, 3000))
turns = st.tuples(st.integers(-36000, 36000), st.integers(0, 3))


@st.composite
def rings(draw: st.DrawFn) -> Ring:
    """Any steps: lines, curves and arcs that may cross themselves and leave the frame."""
    letters = draw(st.text("LLCA", min_size=2, max_size=6))
    points = [draw(spots)]
    for letter in letters:
        if letter == "C":
            points += [draw(spots), draw(spots)]
        elif letter == "A":
            points += [draw(radii), draw(turns)]
        points.append(draw(spots))
    return f"M{letters}Z", points


@st.composite
def ellipses(draw: st.DrawFn) -> Ring:
    """A whole ellipse in two halves, as the tracer writes one."""
    (x, y), rx, ry = draw(spots), draw(st.integers(30, 2000)), draw(st.integers(30, 2000))
    ry = draw(st.sampled_from([rx, ry]))
    way = draw(st.integers(0, 1))
    return "MAAZ", [(x - rx, y), (rx, ry), (0, way), (x + rx, y), (rx, ry), (0, way), (x - rx, y)]


pictures = st.lists(
    st.builds(
        lambda ink, parts: shape_of(ink, *parts),
        st.integers(0, len(INKS) - 1),
        st.lists(rings() | ellipses(), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=5,
)


@given(pictures)
@settings(max_examples=40, deadline=None)
def test_librsvg_paints_the_same(shapes: list[Shape]) -> None:
    check_against(librsvg(shapes), shapes)


@pytest.mark.skipif(RESVG is None, reason="resvg_py is not installed")
@given(pictures)
@settings(max_examples=12, deadline=None)
def test_resvg_paints_the_same(shapes: list[Shape]) -> None:
    check_against(resvg(shapes), shapes)


@given(st.lists(st.tuples(spots, spots, spots), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_two_shapes_that_share_a_border_leave_no_gap(steps: list[tuple[tuple[int, int], ...]], flags: int) -> None:
    # One curve cuts the frame from top to bottom: each half takes it in its own direction.
    frame = 100 * FRAME_PX
    start, end = (frame // 2, -100), (frame // 2, frame + 100)
    down = [start, *(spot for step in steps for spot in step), (1500, 2500), (1234, flags), end]
    up = down[::-1]
    up[1:3] = [(1500, 2500), (1234, flags ^ 1)]
    curves = "C" * len(steps)
    left = shape_of(0, (f"M{curves}ALLZ", [*down, (-9999, frame + 100), (-9999, -100)]))
    right = shape_of(1, (f"MA{curves}LLZ", [*up, (9999, -100), (9999, frame + 100)]))
    alone = [paint([shape], FRAME_PX, FRAME_PX) != UNPAINTED for shape in (left, right)]
    # Their winding numbers add up to that of a box around the frame, 1 or −1 everywhere.
    assert (alone[0] | alone[1]).all()


def test_pixels_belong_to_whole_boxes_exactly() -> None:
    painted = paint([shape_of(1, box(3, 5, 9, 20)), shape_of(2, box(9, 5, 12, 20))], FRAME_PX, FRAME_PX)
    expected = np.full((FRAME_PX, FRAME_PX), UNPAINTED, np.uint8)
    expected[5:20, 3:9], expected[5:20, 9:12] = 1, 2
    assert np.array_equal(painted, expected)


def test_a_centre_on_an_outline_belongs_to_one_side_only() -> None:
    middle = shape_of(0, ("MLLLZ", [(50, 50), (1050, 50), (1050, 1050), (50, 1050)]))
    painted = paint([middle], 12, 12) == 0
    assert painted[0, :10].all()
    assert painted[:10, 0].all()
    assert painted.sum() == 100


@pytest.mark.parametrize(("inner", "filled"), [(box(4, 4, 8, 8), True), (turned(box(4, 4, 8, 8)), False)])
def test_the_winding_number_decides(inner: Ring, filled: bool) -> None:
    painted = paint([shape_of(0, box(0, 0, 12, 12), inner)], 12, 12)
    assert (painted[6, 6] == 0) == filled
    assert painted[2, 6] == 0


def test_a_later_shape_covers_an_earlier_one_and_shows_it_through_its_holes() -> None:
    shapes = [
        shape_of(3, box(0, 0, 20, 20)),
        shape_of(1, box(2, 2, 12, 12), turned(box(5, 5, 9, 9))),
        shape_of(3, box(6, 6, 8, 8)),
    ]
    painted = paint(shapes, 24, 20)
    assert painted[3, 3] == 1
    assert painted[5, 5] == 3
    assert painted[:, 20:].min() == UNPAINTED
    assert (painted[:, :20] != UNPAINTED).all()


def test_an_outline_that_nothing_closes_is_closed_for_filling() -> None:
    closed = shape_of(0, box(2, 2, 9, 9), box(12, 3, 17, 8))
    open_ = replace(closed, commands=closed.commands.replace("Z", ""))
    assert np.array_equal(paint([open_], 20, 20), paint([closed], 20, 20))
    assert (paint([open_], 20, 20) == 0).sum() == 74


def test_outlines_far_beyond_the_map_cost_nothing_and_change_nothing() -> None:
    far = 2_000_000_000
    wide = shape_of(0, ("MLLLZ", [(-far, -far), (far, -far), (far, far), (-far, far)]))
    aside = shape_of(1, ("MCZ", [(-far, 0), (-far, far), (-9000, -far), (-9000, 2000)]))
    assert (paint([wide, aside], 30, 20) == 0).all()


def test_a_circle_has_the_pixels_within_its_radius() -> None:
    circle = ("MAAZ", [(300, 2000), (1700, 1700), (0, 1), (3700, 2000), (1700, 1700), (0, 1), (300, 2000)])
    y, x = np.mgrid[:FRAME_PX, :FRAME_PX] + 0.5
    apart = np.hypot(x - 20, y - 20) - 17
    painted = paint([shape_of(0, circle)], FRAME_PX, FRAME_PX) == 0
    assert (painted == (apart < 0))[np.abs(apart) > 0.01].all()


def test_nothing_paints_nothing() -> None:
    assert (paint([], 7, 5) == UNPAINTED).all()
    assert paint([], 7, 5).shape == (5, 7)
    line = shape_of(0, ("MLZ", [(0, 0), (900, 900)]))
    assert (paint([line], 9, 9) == UNPAINTED).all()


def test_the_thread_count_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    shapes = [
        shape_of(int(rng.integers(6)), ("MCCCZ", [(int(x), int(y)) for x, y in rng.integers(-500, 9000, (10, 2))]))
        for _ in range(40)
    ]
    monkeypatch.setenv("LIVERY_THREADS", "1")
    alone = paint(shapes, 83, 71)
    for threads in ("2", "3", "7"):
        monkeypatch.setenv("LIVERY_THREADS", threads)
        assert np.array_equal(paint(shapes, 83, 71), alone)


def test_agreement_counts_pixels_and_holds_the_unpainted_to_it() -> None:
    index = np.full((10, 20), UNPAINTED, np.uint8)
    index[:, :5] = 1
    image = IndexMap(index, PALETTE)
    assert agreement_pct(image, [shape_of(1, box(0, 0, 5, 10))]) == 100.0
    assert agreement_pct(image, []) == 75.0
    assert agreement_pct(image, [shape_of(1, box(0, 0, 6, 10))]) == 95.0
    assert agreement_pct(image, [shape_of(2, box(0, 0, 5, 10))]) == 75.0
    wrong = [shape_of(1, box(0, 0, 5, 10)), shape_of(2, box(0, 0, 1, 1))]
    assert agreement_pct(image, wrong) == pytest.approx(99.5)


def test_many_crossings_in_one_row() -> None:
    comb = [(0, 0)]
    for left, right in pairwise(range(0, 4001, 100)):
        comb += [(left + 50 + 1, 1000), (right, 0)] if left % 200 == 0 else []
    painted = paint([shape_of(0, ("M" + "L" * (len(comb) - 1) + "Z", comb))], FRAME_PX, 10)
    assert 0 < (painted[0] == 0).sum() <= FRAME_PX
