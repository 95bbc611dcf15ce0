"""The analytic scene tells the truth about itself, and the benchmarks' figures about drawings with known faults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchmarks import score
from benchmarks.goals import Goal
from benchmarks.renders import BAND_PX
from pipeline.types import U8, IndexMap, Ink, Palette
from tests.analytic import INKS, TRUTH_SCALE, AnalyticScene, Circle, analytic_scene

SIZE_PX = 512
PALETTE = Palette((Ink("#FFFFFF", "white"), Ink("#204080", "blue"), Ink("#C03020", "red")))


@pytest.fixture(scope="module")
def drawn() -> AnalyticScene:
    return analytic_scene(SIZE_PX)


# The scene


def near(labels: U8, circle: Circle, scale: int) -> U8:
    """The square around a circle, in samples."""
    x, y, reach = (scale * value for value in (circle.x_px, circle.y_px, circle.radius_px + 2.0))
    return labels[int(y - reach) : int(y + reach), int(x - reach) : int(x + reach)]


@pytest.mark.parametrize("number", [0, 1])
def test_a_free_wheel_has_the_area_and_the_centre_of_its_circles(drawn: AnalyticScene, number: int) -> None:
    circle = [circle for circle in drawn.circles if circle.whole][number]
    outside = [("paper",), ("paper", "tyre")][number]
    for labels, scale, share in ((drawn.index, 1, 0.02), (drawn.truth8x, TRUTH_SCALE, 0.002)):
        part = near(labels, circle, scale)
        inside = ~np.isin(part, [INKS[name] for name in outside])
        assert inside.sum() == pytest.approx(math.pi * (circle.radius_px * scale) ** 2, rel=share)
        top, left = (int(scale * (at - circle.radius_px - 2.0)) for at in (circle.y_px, circle.x_px))
        y, x = (at.mean() + 0.5 for at in np.nonzero(inside))
        assert (left + x, top + y) == pytest.approx((scale * circle.x_px, scale * circle.y_px), abs=0.1)


def test_a_hidden_wheel_shows_a_part_of_its_disc_and_nothing_beyond(drawn: AnalyticScene) -> None:
    circle = drawn.circles[0]
    assert not circle.whole
    y, x = np.nonzero(drawn.truth8x == INKS["tyre"])
    away = np.hypot((x + 0.5) / TRUTH_SCALE - circle.x_px, (y + 0.5) / TRUTH_SCALE - circle.y_px)
    around = away[away < circle.radius_px + 0.4]
    assert around.max() < circle.radius_px
    assert around.max() > circle.radius_px - 0.02
    hidden = 1.0 - np.count_nonzero(
        np.isin(near(drawn.truth8x, circle, TRUTH_SCALE), [INKS["tyre"], INKS["steel"]])
    ) / (math.pi * (circle.radius_px * TRUTH_SCALE) ** 2)
    assert 0.15 < hidden < 0.45


def test_the_truth_reduced_is_the_map(drawn: AnalyticScene) -> None:
    middle = TRUTH_SCALE // 2
    corners = [
        drawn.truth8x[middle + dy :: TRUTH_SCALE, middle + dx :: TRUTH_SCALE] for dy in (-1, 0) for dx in (-1, 0)
    ]
    sure = np.all([corner == corners[0] for corner in corners], axis=0)
    assert sure.mean() > 0.985
    np.testing.assert_array_equal(drawn.index[sure], corners[0][sure])


def test_drawn_twice_the_scene_is_the_same_and_every_ink_is_used(drawn: AnalyticScene) -> None:
    again = analytic_scene(SIZE_PX)
    np.testing.assert_array_equal(again.index, drawn.index)
    np.testing.assert_array_equal(again.truth8x, drawn.truth8x)
    assert set(np.unique(drawn.index).tolist()) == set(range(len(drawn.palette)))


@pytest.mark.parametrize("size_px", [256, 512])
def test_lines_keep_their_width_in_pixels_at_every_size(size_px: int) -> None:
    labels = analytic_scene(size_px).index
    unit_px = size_px / 1024.0
    column = int(510.0 * unit_px)
    rows = slice(int(325 * unit_px), int(435 * unit_px))
    lengths = np.count_nonzero(labels[rows, column] == INKS["line"])
    assert lengths == 3  # a line of two pixels, then one of one


# The figures


def svg(*shapes: str, width: int = 40, height: int = 30) -> str:
    root = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "".join((root, *shapes, "</svg>"))


def path(fill: str, data: str) -> str:
    return f'<path fill="{fill}" d="{data}"/>'


WHITE, BLUE, RED = PALETTE.hexes
PAGE = path(WHITE, "M0 0H40V30H0Z")


def two_halves() -> IndexMap:
    """40 × 30: white on the left, blue on the right."""
    index = np.zeros((30, 40), np.uint8)
    index[:, 20:] = 1
    return IndexMap(index, PALETTE)


def test_the_text_s_figures() -> None:
    text = svg(
        path(RED, "M0 0h4v4l-4 0zM10 10c1 1 2 2 3 0 1 1 2 2 3 0z"), path("#123456", "M1 1 2 2 3 3a5 5 0 0 1 4 4")
    )
    figures = score.text_figures(text, PALETTE)
    assert figures["nodes"] == 4 + 3 + 4
    assert (figures["paths"], figures["primitives"], figures["off_palette"]) == (2, 0, 1)
    assert figures["svg_bytes"] == len(text)


def test_circles_and_ellipses_count_as_the_paths_they_stand_for() -> None:
    ovals = f'<circle fill="{RED}" cx="9" cy="9" r="4"/>', f'<ellipse fill="{RED}" cx="9" cy="9" rx="4" ry="3"/>'
    figures = score.text_figures(svg(PAGE, *ovals), PALETTE)
    assert (figures["paths"], figures["primitives"], figures["nodes"]) == (3, 2, 4 + 3 + 3)


def test_snapping_takes_the_nearest_ink() -> None:
    assert score.snapped(svg(path("#1f4182", "M0 0")), PALETTE) == svg(path(BLUE, "M0 0"))


@pytest.fixture
def renderers() -> None:
    pytest.importorskip("resvg_py", reason="the bench extra is not installed")
    pytest.importorskip("skia", reason="the bench extra is not installed")


@pytest.mark.usefixtures("renderers")
def test_agreement_counts_the_pixels_that_are_wrong() -> None:
    one_column_late = svg(PAGE, path(BLUE, "M21 0H40V30H21Z"))
    figures = score.label_agreement(one_column_late, two_halves())
    assert figures == {"agreement_pct": 97.5, "agreement_exact_pct": 97.5}
    off = svg(PAGE, path("#204081", "M20 0H40V30H20Z"))
    assert score.label_agreement(off, two_halves()) == {"agreement_pct": 100.0, "agreement_exact_pct": 50.0}


@pytest.mark.usefixtures("renderers")
def test_an_empty_page_is_not_black() -> None:
    black = IndexMap(np.ones((30, 40), np.uint8), Palette((Ink("#FFFFFF", "white"), Ink("#000000", "black"))))
    assert score.label_agreement(svg(), black)["agreement_pct"] == 0.0


@pytest.mark.usefixtures("renderers")
def test_a_tall_picture_is_rendered_in_bands_that_fit_together() -> None:
    height = BAND_PX // score.SAMPLES + 40
    image = IndexMap(np.zeros((height, 40), np.uint8), PALETTE)
    stripes = "".join(f"M0 {y}H40V{y + 3}H0Z" for y in range(4, height, 8))
    striped = svg(path(WHITE, f"M0 0H40V{height}H0Z"), path(BLUE, stripes), height=height)
    looked = score.closer_look(striped, image)
    assert set(looked.values()) == {0}
    cut = score.closer_look(svg(path(WHITE, f"M0 0H40V{height - 10}H0Z"), height=height), image)
    left_out = (10 - score.BORDER_PX) * score.SAMPLES * (40 - 2 * score.BORDER_PX) * score.SAMPLES
    assert {cut[f"seam_px_4x_{renderer}"] for renderer in ("resvg", "skia", "librsvg")} == {left_out}


@pytest.mark.usefixtures("renderers")
def test_a_gap_is_a_seam_in_every_renderer_and_every_look() -> None:
    gap = svg(path(WHITE, "M0 0H20V30H0Z"), path(BLUE, "M20.5 0H40V30H20.5Z"))
    inner = 30 - 2 * score.BORDER_PX
    figures = score.seams_at_1x(gap, two_halves()) | score.closer_look(gap, two_halves())
    for renderer in ("resvg", "skia", "librsvg"):
        assert figures[f"seam_px_1x_{renderer}"] == inner
        assert figures[f"seam_px_4x_{renderer}"] == inner * 4 * 2


@pytest.mark.usefixtures("renderers")
def test_shapes_that_meet_between_pixels_leave_a_seam_and_stacked_ones_do_not() -> None:
    meeting = svg(path(WHITE, "M0 0H20.5V30H0Z"), path(BLUE, "M20.5 0H40V30H20.5Z"))
    stacked = svg(PAGE, path(BLUE, "M20.5 0H40V30H20.5Z"))
    for text, seam_px in ((meeting, 26), (stacked, 0)):
        assert set(score.seams_at_1x(text, two_halves()).values()) == {seam_px}


@pytest.mark.usefixtures("renderers")
def test_conf48_counts_a_fringe_of_a_third_colour() -> None:
    # Red lies hidden beneath two shapes that share a border in the middle of a pixel, where it shows through.
    fringe = svg(path(RED, "M0 0H40V30H0Z"), path(WHITE, "M0 0H20.5V30H0Z"), path(BLUE, "M20.5 0H40V30H20.5Z"))
    clean = svg(PAGE, path(BLUE, "M20.5 0H40V30H20.5Z"))
    assert score.closer_look(clean, two_halves())["conf48"] == 0
    assert score.closer_look(fringe, two_halves())["conf48"] == 30 - 2 * score.BORDER_PX


@pytest.mark.usefixtures("renderers")
def test_the_boundary_s_error_is_the_distance_to_the_true_one() -> None:
    pytest.importorskip("scipy", reason="the bench extra is not installed")
    truth = np.repeat(np.repeat(two_halves().index, TRUTH_SCALE, axis=0), TRUTH_SCALE, axis=1)
    shifted = svg(PAGE, path(BLUE, "M20.5 0H40V30H20.5Z"))
    figures = score.boundary_error(shifted, truth, PALETTE)
    assert set(figures.values()) == {0.5}
    exact = svg(PAGE, path(BLUE, "M20 0H40V30H20Z"))
    assert set(score.boundary_error(exact, truth, PALETTE).values()) == {0.0}


@pytest.mark.parametrize("flags", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("relative", [False, True])
def test_an_arc_gives_its_circle_and_a_point_on_it(flags: tuple[int, int], relative: bool) -> None:
    large, clockwise = flags
    turn = (250.0 if large else 110.0) * (1.0 if clockwise else -1.0)  # with y downward, clockwise is a rising angle
    a, middle, b = (
        (
            12.0 + 7.0 * math.cos(math.radians(30.0 + turn * share)),
            9.0 + 7.0 * math.sin(math.radians(30.0 + turn * share)),
        )
        for share in (0.0, 0.5, 1.0)
    )
    end = (b[0] - a[0], b[1] - a[1]) if relative else b
    data = f"M{a[0]} {a[1]}{'a' if relative else 'A'}7 7 0 {large} {clockwise} {end[0]} {end[1]}z"
    assert score.drawn_circles(svg(path(RED, data))) == pytest.approx(np.array([[12.0, 9.0, 7.0, *middle]]), abs=1e-9)


def test_circle_errors_take_the_nearest_and_leave_out_what_is_elsewhere() -> None:
    true = (Circle(10.0, 10.0, 5.0, True), Circle(30.0, 20.0, 4.0, False))
    text = svg('<circle cx="10.03" cy="10.04" r="5.02"/>', '<circle cx="20" cy="20" r="4"/>')
    figures = score.circle_errors(text, true)
    assert (figures["circles"], figures["circles_found"]) == (2, 1)
    assert figures["centre_max_px"] == pytest.approx(0.05)
    assert figures["radius_max_px"] == pytest.approx(0.02)
    assert figures["circles_exact"] == 1
    assert score.circle_errors(svg(PAGE), true) == {"circles": 2, "circles_found": 0}


def test_the_freedom_of_a_circle_grows_with_what_is_hidden() -> None:
    pytest.importorskip("scipy", reason="the bench extra is not installed")
    hidden = np.zeros((120, 120), np.bool_)
    hidden[:70] = True
    whole = score.centre_freedom((120, 120), Circle(60.3, 59.6, 40.2, True))
    part = score.centre_freedom((120, 120), Circle(60.3, 59.6, 40.2, False, hidden))
    assert 0 < whole < 0.05 < 4 * whole < part


def test_a_goal_reads_the_rows_it_names() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "picture": "p", "x": 3},
        {"name": "a", "picture": "q", "x": 5},
        {"name": "b", "picture": "p"},
    ]
    for goal, value, verdict in (
        (Goal("t", "a", "x", "max", 4), 5.0, "MISSED"),
        (Goal("t", "a", "x", "median", 4), 4.0, "met"),
        (Goal("t", "a", "x", "max", 4, picture="p"), 3.0, "met"),
        (Goal("t", "a", "x", "min", 4, at_least=True), 3.0, "MISSED"),
    ):
        found = goal.verdict(rows)
        assert found is not None
        assert (found["value"], found["verdict"]) == (value, verdict)
    assert Goal("t", "b", "x", "max", 4).verdict(rows) is None
