"""Chains hold each arc once, go on through T junctions and nowhere else, and bound curves by what lies beside them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pipeline.trace.chains import BOUND_PER_PX, LEAST_BOUND_PX, Chains, join_arcs, tolerances
from pipeline.trace.planar import PlanarMap, planar_map
from pipeline.types import F64, I32, U8, UNPAINTED
from tests.random_maps import centres, disc, drawn_map, random_map


def chains_of(index: U8) -> tuple[PlanarMap, Chains]:
    plane = planar_map(index)
    return plane, join_arcs(plane)


def points_of(chains: Chains, chain: int) -> I32:
    """int32 [P, 2]: a chain's points in half pixels, in its own order."""
    rows = chains.point[chains.point_first[chain] : chains.point_first[chain + 1]]
    return np.stack([chains.x2[rows], chains.y2[rows]], axis=1)


def end_at(plane: PlanarMap, end: int) -> int:
    """The junction of an arc's end."""
    return int(plane.end[end // 2] if end % 2 else plane.start[end // 2])


@pytest.mark.parametrize("batch", range(5))
def test_random_maps(batch: int) -> None:
    for seed in [*range(batch, 60, 5)]:
        index = random_map(seed).index if seed % 3 else drawn_map(seed).index
        plane, chains = chains_of(index)
        assert sorted(chains.arc.tolist()) == list(range(plane.arcs))
        assert sorted(chains.point.tolist()) == list(range(len(chains.x2)))
        assert ((chains.x2 + chains.y2) % 2 == 1).all(), "a point lies on no crack's middle"
        for end, other in enumerate(chains.onward.tolist()):
            if other >= 0:
                assert chains.onward[other] == end
                assert end_at(plane, end) == end_at(plane, other) >= 0
        for chain in range(chains.count):
            check_chain(plane, chains, chain)


def check_chain(plane: PlanarMap, chains: Chains, chain: int) -> None:
    """A chain's arcs follow each other at the junctions that it passes, and so do its points."""
    low, high = int(chains.first[chain]), int(chains.first[chain + 1])
    points = points_of(chains, chain)
    steps = np.abs(np.diff(points, axis=0))
    assert (steps.max(axis=1) <= 2).all()
    assert (steps.sum(axis=1) == 2).all(), "two points that follow each other belong to cracks that don't"
    ends = [
        (2 * int(a) + int(r), 2 * int(a) + 1 - int(r))
        for a, r in zip(chains.arc[low:high], chains.reverse[low:high], strict=True)
    ]
    for (_, leaving), (coming, _) in pairwise(ends):
        assert chains.onward[leaving] == coming
    begins, stops = ends[0][0], ends[-1][1]
    if chains.closed[chain]:
        assert plane.start[chains.arc[low]] < 0 or chains.onward[stops] == begins
        assert np.abs(points[0] - points[-1]).sum() == 2 or len(points) == 1
    else:
        assert chains.onward[begins] == chains.onward[stops] == -1
    for place in range(low, high):
        arc = int(chains.arc[place])
        own = np.arange(chains.arc_point[arc], chains.arc_point[arc + 1])
        rows = chains.point[chains.cut[place] : chains.cut[place + 1]]
        assert rows.tolist() == (own[::-1] if chains.reverse[place] else own).tolist()


def labels_through(plane: PlanarMap, chains: Chains) -> list[list[frozenset[int]]]:
    """For each chain that joins arcs within the map, the pairs of labels that they part."""
    label = np.append(plane.region_label, -1)
    found = []
    for chain in range(chains.count):
        arcs = chains.arc[chains.first[chain] : chains.first[chain + 1]]
        pairs = [frozenset((int(label[plane.left[a]]), int(label[plane.right[a]]))) for a in arcs]
        if len(pairs) > 1 and -1 not in set().union(*pairs):
            found.append(sorted(pairs, key=sorted))
    return found


def test_a_line_that_ends_on_another_leaves_it_whole() -> None:
    index = np.zeros((40, 40), np.uint8)
    index[20:, :20], index[20:, 20:] = 1, 2
    assert labels_through(*chains_of(index)) == [[frozenset((0, 1)), frozenset((0, 2))]]


@pytest.mark.parametrize("turn_deg", range(0, 180, 15))
def test_a_slanting_line_too(turn_deg: int) -> None:
    x, y = (part - 40.3 for part in centres(80, 80))
    turn = np.radians(turn_deg)
    over = x * np.sin(turn) - y * np.cos(turn) > 0
    index = np.where(over, 0, np.where(x * np.cos(turn) + y * np.sin(turn) > 0, 1, 2)).astype(np.uint8)
    assert labels_through(*chains_of(index)) == [[frozenset((0, 1)), frozenset((0, 2))]]


def test_a_disc_on_two_grounds_is_one_contour() -> None:
    index = np.zeros((80, 80), np.uint8)
    index[45:] = 1
    index[disc(80, 80, 40, 40, 25)] = 2
    plane, chains = chains_of(index)
    (pairs,) = labels_through(plane, chains)
    assert pairs == [frozenset((0, 2)), frozenset((1, 2))]
    (around,) = [c for c in range(chains.count) if chains.closed[c] and len(points_of(chains, c)) == 200]
    assert chains.first[around + 1] - chains.first[around] == 2


def test_a_tyre_before_the_ground() -> None:
    """The ground's line stops at the tyre on either side: two T junctions of one contour."""
    index = np.zeros((60, 120), np.uint8)
    index[30:] = 1
    index[disc(120, 60, 60, 25, 18)] = 3
    _, chains = chains_of(index)
    assert labels_through(*chains_of(index)) == [[frozenset((0, 3)), frozenset((1, 3))]]
    assert (np.diff(chains.first)[chains.closed] >= 2).any()


@pytest.mark.parametrize("turn_deg", [0.0, 17.0, 41.0])
def test_three_that_meet_alike_stay_apart(turn_deg: float) -> None:
    x, y = (part - 40.2 for part in centres(80, 80))
    sector = np.floor((np.degrees(np.arctan2(y, x)) - turn_deg) % 360 / 120)
    assert labels_through(*chains_of(sector.astype(np.uint8))) == []


def test_four_that_meet_stay_apart() -> None:
    index = np.zeros((40, 40), np.uint8)
    index[20:, :20], index[:20, 20:], index[20:, 20:] = 1, 2, 3
    plane, chains = chains_of(index)
    assert labels_through(plane, chains) == []


def test_a_bend_is_not_passed() -> None:
    """Of three arcs two make a straight line: they are joined, and neither goes round the corner."""
    index = np.zeros((60, 60), np.uint8)
    index[30:, 30:] = 1
    index[:30, 30:] = 2
    assert labels_through(*chains_of(index)) == [[frozenset((0, 1)), frozenset((0, 2))]]


def test_an_arc_too_short_to_have_a_direction_is_not_joined() -> None:
    index = np.zeros((30, 30), np.uint8)
    index[15:] = 1
    index[15:17, 14:16] = 2
    assert labels_through(*chains_of(index)) == []


def test_the_map_s_border_goes_on_through_what_ends_there() -> None:
    index = np.zeros((20, 30), np.uint8)
    index[:, 10:20] = 1
    _, chains = chains_of(index)
    # The frame is one closed chain of its eight arcs: corners are where its curve turns, not where it is cut.
    frame = [int(c) for c in np.flatnonzero(chains.closed)]
    assert [int(np.diff(chains.first)[c]) for c in frame] == [8] or sum(np.diff(chains.first)) == len(chains.arc)
    border = [len(points_of(chains, c)) for c in range(chains.count)]
    assert sorted(border)[:2] == [20, 20]
    assert sum(border) == 2 * (20 + 30) + 2 * 20


def bounds_of(index: U8, tolerance_px: float) -> tuple[Chains, F64]:
    _, chains = chains_of(index)
    return chains, tolerances(index, chains, tolerance_px)


@pytest.mark.parametrize("across_px", range(1, 9))
@pytest.mark.parametrize("tolerance_px", [0.48, 0.8, 1.3, 2.5])
@pytest.mark.parametrize("upright", [True, False])
def test_beside_a_stripe_the_bound_follows_its_breadth(across_px: int, tolerance_px: float, upright: bool) -> None:
    index = np.zeros((60, 60), np.uint8)
    index[:, 30 : 30 + across_px] = 1
    index = index if upright else np.ascontiguousarray(index.T)
    chains, bounds = bounds_of(index, tolerance_px)
    along, beside = (chains.y2, chains.x2) if upright else (chains.x2, chains.y2)
    stripe = (beside >= 60) & (beside <= 60 + 2 * across_px) & (along % 2 == 1) & (beside % 2 == 0)
    assert stripe.sum() == 120
    assert bounds[stripe] == pytest.approx(min(tolerance_px, LEAST_BOUND_PX + BOUND_PER_PX * across_px))


def test_a_line_one_pixel_thin_is_bounded_below_its_breadth() -> None:
    """Or the curves of its two sides could change places."""
    assert 0.5 < LEAST_BOUND_PX + BOUND_PER_PX < 0.75
    assert BOUND_PER_PX < 0.5


def test_the_map_s_edge_is_not_a_side() -> None:
    """A region that runs off the map is as broad as it likes."""
    index = np.zeros((40, 40), np.uint8)
    index[:, 39:] = 1
    chains, bounds = bounds_of(index, 0.8)
    assert bounds[(chains.x2 == 78) & (chains.y2 % 2 == 1)] == pytest.approx(0.8)


def test_the_widest_place_nearby_counts() -> None:
    """A wedge of steps: away from a step its own breadth counts, beside one that of the step."""
    y, x = np.mgrid[0:64, 0:64]
    wedge = (np.abs(x - 30) <= y // 16).astype(np.uint8)
    chains, bounds = bounds_of(wedge, 2.5)
    right = (chains.x2 > 60) & (chains.x2 < 126) & (chains.y2 % 2 == 1) & (chains.x2 % 2 == 0)
    for row in (8, 24):
        here = right & (chains.y2 == 2 * row + 1)
        assert bounds[here] == pytest.approx([min(2.5, LEAST_BOUND_PX + BOUND_PER_PX * (2 * (row // 16) + 1))])
        assert bounds[right & (chains.y2 == 2 * (row + 5) + 1)][0] > bounds[here][0]


@pytest.mark.parametrize("tolerance_px", [0.48, 0.8, 2.5])
def test_bounds_lie_between_the_least_and_the_tolerance(tolerance_px: float) -> None:
    for seed in range(20):
        index = random_map(seed).index
        _, bounds = bounds_of(index, tolerance_px)
        assert (bounds <= tolerance_px).all()
        assert (bounds >= min(tolerance_px, LEAST_BOUND_PX + BOUND_PER_PX) - 1e-12).all()


def test_unpainted_ground_is_a_side_like_any_other() -> None:
    index = np.zeros((30, 30), np.uint8)
    index[:, 14:16] = 1
    _, one = bounds_of(index, 2.5)
    index[index == 0] = UNPAINTED
    _, two = bounds_of(index, 2.5)
    assert np.array_equal(one, two)
