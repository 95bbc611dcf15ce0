"""The fit's kernels reproduce what they are fitted to, and every curve keeps its bounds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pipeline.compiled import kernel
from pipeline.trace.chains import Chains, join_arcs, tolerances
from pipeline.trace.cheapest import ARC, CUBIC, ELLIPSE, LINE
from pipeline.trace.conics import circle_through, ellipse_offset, ellipse_through, solve
from pipeline.trace.cubics import crosswise, fit_cubic
from pipeline.trace.fit import Fit, FitOptions, Fitted
from pipeline.trace.junctions import nearest_parameter, on_segment
from pipeline.trace.moments import SIZE, cubic_sums, line_squares, walk_on
from pipeline.trace.planar import planar_map
from pipeline.types import F64, U8, Mask
from tests.random_maps import disc, drawn_map, random_map

# Kernels that only kernels may call, made callable.


@kernel
def fitted_cubic(
    x: F64, y: F64, horizontal: Mask, bound: F64, ends: F64, free0: bool, free1: bool, rounds: int, out: F64
) -> tuple[float, float]:
    scratch = np.empty(len(x))
    return fit_cubic(x, y, horizontal, bound, 0, len(x), ends, free0, free1, rounds, scratch, out)  # type: ignore[no-untyped-call,no-any-return]


@kernel
def circle_of(x: F64, y: F64) -> tuple[float, float, float]:
    return circle_through(x, y, 0, len(x))  # type: ignore[no-untyped-call,no-any-return]


@kernel
def ellipse_of(x: F64, y: F64, out: F64) -> bool:
    return ellipse_through(x, y, 0, len(x), 1.0, out)  # type: ignore[no-untyped-call,no-any-return]


@kernel
def offset_of(e: F64, x: float, y: float) -> tuple[float, float, float]:
    return ellipse_offset(e, x, y)  # type: ignore[no-untyped-call,no-any-return]


@kernel
def solved(m: F64, b: F64) -> bool:
    return solve(m, b, len(b))  # type: ignore[no-untyped-call,no-any-return]


@kernel
def apart(ex: float, ey: float, tx: float, ty: float, horizontal: bool) -> float:
    return crosswise(ex, ey, tx, ty, horizontal)  # type: ignore[no-untyped-call,no-any-return]


@kernel
def sums_of(ways: F64, x: F64, y: F64, length: float, q: F64) -> float:
    m = np.zeros(SIZE)
    for i in range(len(ways)):
        walk_on(m, ways[i], x[i], y[i])  # type: ignore[no-untyped-call]
    cubic_sums(m, length, x[-1], y[-1], q)  # type: ignore[no-untyped-call]
    return line_squares(m, x[-1], y[-1])  # type: ignore[no-untyped-call,no-any-return]


@kernel
def place_at(kind: int, row: F64, t: float) -> tuple[float, float]:
    return on_segment(kind, row, t)  # type: ignore[no-untyped-call,no-any-return]


@kernel
def nearest(kind: int, row: F64, x: float, y: float) -> float:
    return nearest_parameter(kind, row, x, y)  # type: ignore[no-untyped-call,no-any-return]


def bezier(control: F64, t: F64) -> F64:
    """float64 [T, 2], places on the cubic of `control` [4, 2]."""
    s, r = t[:, None], 1 - t[:, None]
    out: F64 = r**3 * control[0] + 3 * r * r * s * control[1] + 3 * r * s * s * control[2] + s**3 * control[3]
    return out


CUBICS = (
    ((0, 0), (10, 0), (20, 5), (30, 15)),
    ((5, 40), (9, 20), (30, 12), (44, 30)),
    ((0, 0), (0, 14), (8, 22), (22, 22)),
    ((10, 10), (25, 10), (25, 20), (40, 20)),
)


def handles_of(
    control: F64, free0: bool, free1: bool, count: int = 60, noise_px: float = 0.0
) -> tuple[F64, float, float]:
    """What is fitted to points on a cubic: its four control points, strain and squares."""
    t = (np.arange(count) + 0.5) / count
    points: F64 = bezier(control, t) + np.random.default_rng(1).normal(0, noise_px, (count, 2))
    one, two = control[1] - control[0], control[2] - control[3]
    ends: F64 = np.concatenate([control[0], control[3], one / np.hypot(*one), two / np.hypot(*two)])
    out = np.zeros(4)
    strain, squares = fitted_cubic(
        np.ascontiguousarray(points[:, 0]),
        np.ascontiguousarray(points[:, 1]),
        np.abs(np.gradient(points[:, 0])) > np.abs(np.gradient(points[:, 1])),
        np.full(count, 0.5),
        ends,
        free0,
        free1,
        8,
        out,
    )
    return np.array([control[0], control[0] + out[:2], control[3] + out[2:], control[3]]), strain, squares


def gap_px(one: F64, two: F64) -> float:
    """The largest distance from a place of one cubic to the other."""
    a, b = bezier(one, np.linspace(0, 1, 101)), bezier(two, np.linspace(0, 1, 1001))
    return float(np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)).min(axis=1).max())


@pytest.mark.parametrize("control", CUBICS)
@pytest.mark.parametrize(("free0", "free1"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_cubic_is_found_again(control: tuple[tuple[int, int], ...], free0: bool, free1: bool) -> None:
    truth = np.array(control, np.float64)
    found, strain, squares = handles_of(truth, free0, free1)
    # What keeps handles from running away draws them to a third of the way; free ones four times as hard.
    assert gap_px(found, truth) < (0.7 if free0 or free1 else 0.25)
    assert strain < (1.6 if free0 or free1 else 0.5)
    assert squares < (10 if free0 or free1 else 1.5)
    tangents = [(found[1] - found[0], truth[1] - truth[0], free0), (found[2] - found[3], truth[2] - truth[3], free1)]
    for one, two, free in tangents:
        if not free:
            assert abs(one[0] * two[1] - one[1] * two[0]) < 1e-9
            assert one @ two > 0


def test_noise_averages_out() -> None:
    truth = np.array(CUBICS[1], np.float64)
    found, _, squares = handles_of(truth, False, False, count=120, noise_px=0.15)
    assert gap_px(found, truth) < 0.12
    assert squares == pytest.approx(120 * 0.15**2, rel=0.35)


def test_points_off_the_curve_strain_it() -> None:
    """The strain is the largest crosswise distance as a share of the bound."""
    x = np.arange(0.5, 20, dtype=np.float64)
    y = np.zeros(20)
    y[9] = 2.0
    ends = np.array([0.0, 0.0, 20.0, 0.0, 1.0, 0.0, -1.0, 0.0])
    out = np.zeros(4)
    strain, _ = fitted_cubic(x, y, np.ones(20, np.bool_), np.full(20, 0.8), ends, False, False, 1, out)
    assert strain == pytest.approx(2.5)
    assert out[1] == out[3] == 0


def test_no_point_makes_a_straight_cubic() -> None:
    out, none = np.zeros(4), np.empty(0)
    ends = np.array([1.0, 2.0, 7.0, 5.0, 1.0, 0.0, -1.0, 0.0])
    assert fitted_cubic(none, none, np.empty(0, np.bool_), none, ends, False, False, 4, out) == (0.0, 0.0)
    assert out == pytest.approx([2, 1, -2, -1])


@pytest.mark.parametrize("seed", range(5))
def test_circles_are_found_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cx, cy, r = *rng.uniform(-50, 50, 2), rng.uniform(2, 300)
    start, sweep = rng.uniform(0, 6), rng.uniform(0.6, 6.2)
    angles = start + sweep * np.arange(50) / 50
    assert circle_of(cx + r * np.cos(angles), cy + r * np.sin(angles)) == pytest.approx((cx, cy, r), abs=1e-6 * r)
    whole = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    far = r + rng.uniform(-0.4, 0.4, 400)
    assert circle_of(cx + far * np.cos(whole), cy + far * np.sin(whole)) == pytest.approx((cx, cy, r), abs=0.1)


def test_a_circle_has_the_least_squares() -> None:
    """Among all circles: the squares of the distances have no slope left, for points on a part of a rough circle."""
    rng = np.random.default_rng(8)
    angles = np.linspace(0.3, 2.4, 90)
    far = 30 + rng.uniform(-0.5, 0.5, 90)
    x, y = 7 + far * np.cos(angles), -4 + far * np.sin(angles)
    cx, cy, r = circle_of(x, y)
    d = np.hypot(x - cx, y - cy)
    slopes = [float(((d - r) * part).sum()) for part in ((x - cx) / d, (y - cy) / d, np.ones(90))]
    assert slopes == pytest.approx([0, 0, 0], abs=1e-4)


def test_points_on_a_line_make_no_circle() -> None:
    line = np.arange(20.0)
    assert circle_of(line, 0 * line)[2] == 0
    assert circle_of(np.zeros(5), np.zeros(5))[2] == 0


@pytest.mark.parametrize("seed", range(6))
def test_ellipses_are_found_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (cx, cy), (rx, ry), turn = rng.uniform(0, 90, 2), rng.uniform(6, 60, 2), rng.uniform(0, np.pi)
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    c, s = np.cos(turn), np.sin(turn)
    u, w = rx * np.cos(angle), ry * np.sin(angle)
    e = np.empty(5)
    assert ellipse_of(cx + u * c - w * s, cy + u * s + w * c, e)
    assert e[:2] == pytest.approx([cx, cy], abs=1e-4)
    assert sorted(e[2:4]) == pytest.approx(sorted([rx, ry]), rel=1e-4)
    along = e[4] if (e[2] > e[3]) == (rx > ry) else e[4] + np.pi / 2
    assert abs(np.sin(along - turn)) < 1e-3
    assert not ellipse_of(np.arange(30.0), 2 * np.arange(30.0), e)


def test_the_distance_from_an_ellipse() -> None:
    """On the axes, to first order; outside is positive, and the direction is the gradient's."""
    e = np.array([10.0, 20.0, 6.0, 3.0, np.pi / 2])
    off, gx, gy = offset_of(e, 10.0, 26.2)
    assert (off, gx, gy) == pytest.approx((0.2, 0, 1), abs=0.02)
    off, gx, gy = offset_of(e, 12.9, 20.0)
    assert (off, gx, gy) == pytest.approx((-0.1, 1, 0), abs=0.02)


def test_equations_are_solved() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5):
        m, v = rng.normal(size=(n, n)), rng.normal(size=n)
        m[0, 0] = 0.0 if n > 1 else 1.0  # asks for a pivot
        found = v.copy()
        assert solved(m.copy(), found)
        assert m @ found == pytest.approx(v)
    assert not solved(np.ones((3, 3)), np.ones(3))


@pytest.mark.parametrize(
    ("apart_by", "along", "horizontal", "length"),
    [
        ((0, 0.4), (1, 0), True, 0.4),
        ((0, 0.4), (-7, 0), True, 0.4),
        ((3, 0.4), (1, 0), True, 0.4),
        ((0.3, 0), (1, 1), True, 0.3),
        ((0.3, 0), (1, 1), False, 0.3),
        ((0, 0.5), (2, 1), True, 0.5),
        ((0, 0.5), (1, 2), False, 0.25),
        ((0, 0.2), (1, 0), False, 0.2 / 0.35),
        ((0.3, 0.4), (0, 0), True, 0.5),
    ],
)
def test_distance_along_the_dual_segment(
    apart_by: tuple[float, float], along: tuple[float, float], horizontal: bool, length: float
) -> None:
    (ex, ey), (tx, ty) = apart_by, along
    assert apart(float(ex), float(ey), float(tx), float(ty), horizontal) == pytest.approx(length)


def test_moments_hold_the_normal_equations() -> None:
    rng = np.random.default_rng(4)
    ways = np.sort(rng.uniform(0, 30, 40))
    x, y = ways + rng.normal(size=40), np.sin(ways / 5) + rng.normal(size=40)
    length, q = 31.0, np.empty(7)
    squares = sums_of(ways, x, y, length, q)
    chord = np.array([x[-1], y[-1]])
    assert squares == pytest.approx(float(((x * chord[1] - y * chord[0]) ** 2).sum() / (chord @ chord)))
    t = ways / length
    one, two, end = 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), 3 * t**2 - 2 * t**3
    rx, ry = x - end * x[-1], y - end * y[-1]
    want = [one @ one, one @ two, two @ two, one @ rx, one @ ry, two @ rx, two @ ry]
    assert q == pytest.approx(want)


ROWS: dict[int, list[float]] = {
    LINE: [1, 2, 9, 6, 0, 0, 0, 0, 0, 0],
    CUBIC: [1, 2, 3, 8, 9, 9, 12, 4, 0, 0],
    ARC: [15, 10, 10, 10, 5, 5, 0, np.pi / 2, 10, 15],
    ELLIPSE: [16, 10, 10, 10, 6, 3, 0, 2 * np.pi, 16, 10],
}


@pytest.mark.parametrize("kind", ROWS)
def test_places_on_segments(kind: int) -> None:
    row = np.array(ROWS[kind], np.float64)
    last = {LINE: (9, 6), CUBIC: (12, 4), ARC: (10, 15), ELLIPSE: (16, 10)}[kind]
    middle = {LINE: (5, 4), CUBIC: (6.125, 7.125), ARC: (10 + 12.5**0.5, 10 + 12.5**0.5), ELLIPSE: (4, 10)}[kind]
    assert place_at(kind, row, 0.0) == pytest.approx(row[:2])
    assert place_at(kind, row, 0.5) == pytest.approx(middle)
    assert place_at(kind, row, 1.0) == pytest.approx(last)
    for t in (0.13, 0.5, 0.77):
        assert nearest(kind, row, *place_at(kind, row, t)) == pytest.approx(t, abs=1e-3)


# --- the fit as a whole ---


def fit_of(index: U8, tolerance_px: float, *, curves: bool = True, exact: bool = False) -> tuple[Chains, F64, Fitted]:
    """A fit whose junctions stay on their crack vertices."""
    plane = planar_map(index)
    chains = join_arcs(plane)
    bounds = tolerances(index, chains, tolerance_px)
    ends = np.zeros((chains.count, 4))
    for chain in np.flatnonzero(~chains.closed):
        low, high = chains.first[chain], chains.first[chain + 1] - 1
        one = (plane.end if chains.reverse[low] else plane.start)[chains.arc[low]]
        two = (plane.start if chains.reverse[high] else plane.end)[chains.arc[high]]
        ends[chain] = [plane.junction_x[one], plane.junction_y[one], plane.junction_x[two], plane.junction_y[two]]
    fit = Fit(chains, bounds, ends, FitOptions(tolerance_px, curves, exact))
    stop = np.zeros(1, np.uint8)
    for batch in range(Fit.BATCHES):
        fit.run(batch, stop)
    return chains, bounds, fit.result()


def spots_of(fitted: Fitted, segment: int) -> F64:
    return np.array([place_at(fitted.kinds[segment], fitted.segments[segment], t) for t in np.linspace(0, 1, 41)])


def strains_of(chains: Chains, bounds: F64, fitted: Fitted, chain: int) -> list[float]:
    """How far the curve passes each point of a chain, along its dual segment, as a share of the bound."""
    curve = np.concatenate([spots_of(fitted, k) for k in range(fitted.first[chain], fitted.first[chain + 1])])
    strains = []
    for at in chains.point[chains.point_first[chain] : chains.point_first[chain + 1]]:
        x, y = chains.x2[at] / 2, chains.y2[at] / 2
        level = chains.x2[at] % 2 == 1  # its dual segment is upright
        across, along = (curve[:, 0] - x, curve[:, 1] - y) if level else (curve[:, 1] - y, curve[:, 0] - x)
        a, b = across[:-1], across[1:]
        meets = (np.minimum(a, b) <= 0) & (np.maximum(a, b) >= 0) & (a != b)
        share = a[meets] / (a[meets] - b[meets])
        hits = np.abs(along[:-1][meets] + share * (along[1:][meets] - along[:-1][meets]))
        strains.append(float(hits.min(initial=9.0)) / float(bounds[at]))
    return strains


@pytest.mark.parametrize(
    ("tolerance_px", "curves", "exact"), [(0.8, True, False), (0.48, True, True), (1.3, False, False)]
)
def test_curves_keep_their_bounds(tolerance_px: float, curves: bool, exact: bool) -> None:
    """All but a few: beside corners, where nothing fits and a line goes by force, and between the points checked."""
    strains: list[float] = []
    for seed in (1, 2, 5, 6, 7, 9, 10, 11):
        index = drawn_map(seed).index[:90, :90]
        chains, bounds, fitted = fit_of(np.ascontiguousarray(index), tolerance_px, curves=curves, exact=exact)
        for chain in range(chains.count):
            if chains.point_first[chain + 1] - chains.point_first[chain] >= 8:
                strains += strains_of(chains, bounds, fitted, chain)
    found = np.array(strains)
    assert len(found) > 3000
    assert (found > 1.05).mean() < 0.03
    assert (found > 2.0).mean() < 0.02
    assert np.median(found) < 0.5


@pytest.mark.parametrize("curves", [True, False])
def test_segments_join_and_cover_their_chain(curves: bool) -> None:
    for seed in range(20):
        index = random_map(seed, most_side_px=40).index
        chains, _, fitted = fit_of(index, 0.8, curves=curves)
        assert len(fitted.first) == chains.count + 1
        assert np.isfinite(fitted.spans).all()
        for chain in range(chains.count):
            rows = range(fitted.first[chain], fitted.first[chain + 1])
            n = chains.point_first[chain + 1] - chains.point_first[chain]
            assert len(rows) > 0
            assert fitted.spans[rows[0], 0] == 0
            assert fitted.spans[rows[-1], 1] == n
            for before, after in pairwise(rows):
                assert fitted.spans[before, 1] == fitted.spans[after, 0]
                one = place_at(fitted.kinds[before], fitted.segments[before], 1.0)
                two = place_at(fitted.kinds[after], fitted.segments[after], 0.0)
                assert one == pytest.approx(two, abs=1e-9)
            if not curves:
                assert (fitted.kinds[rows[0] : rows[-1] + 1] == LINE).all()


def test_a_closed_curve_closes() -> None:
    for seed in range(20):
        chains, _, fitted = fit_of(random_map(seed, most_side_px=40).index, 0.8)
        for chain in np.flatnonzero(chains.closed):
            first, last = fitted.first[chain], fitted.first[chain + 1] - 1
            one = place_at(fitted.kinds[first], fitted.segments[first], 0.0)
            assert place_at(fitted.kinds[last], fitted.segments[last], 1.0) == pytest.approx(one, abs=1e-6)


def test_a_disc_is_one_ellipse_segment() -> None:
    index = disc(60, 60, 30.3, 29.8, 17.5).astype(np.uint8)
    _, _, fitted = fit_of(index, 0.8)
    (row,) = fitted.segments[fitted.kinds == ELLIPSE]
    assert row[2:6] == pytest.approx([30.3, 29.8, 17.5, 17.5], abs=0.08)
    assert abs(row[7]) == pytest.approx(2 * np.pi)


def test_a_stop_ends_the_fit_early() -> None:
    index = random_map(0).index
    plane = planar_map(index)
    chains = join_arcs(plane)
    fit = Fit(chains, tolerances(index, chains, 0.8), np.zeros((chains.count, 4)), FitOptions(0.8))
    fit.run(0, np.ones(1, np.uint8))
    assert len(fit.result().kinds) == 0
