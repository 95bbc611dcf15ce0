"""Region merging, border smoothing and distances on random and adversarial label maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.polish import border_distance, polish_borders
from pipeline.regions import border_lengths, count_regions, label_components, merge_regions, undersized
from pipeline.types import U8

K = 4
MIN_AREA_PX = 48


def own_costs(truth: U8) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Costs that favour each pixel's own label by 20 ΔE."""
    return truth.astype(np.int32), np.where(np.eye(K, dtype=bool), 0.0, 20.0).astype(np.float32)


def merged(index: U8, *, scale_limit: float = 14.0, min_area_px: int = MIN_AREA_PX) -> U8:
    cells, costs = own_costs(index)
    ones = np.ones(index.shape, np.float32)
    return merge_regions(index, cells, costs, ones, ones, ones, scale_limit=scale_limit, min_area_px=min_area_px)


def flood_count(index: U8) -> int:
    """4-connected components by plain flood fill."""
    seen = np.zeros(index.shape, bool)
    count = 0
    for start in np.ndindex(index.shape):
        if seen[start]:
            continue
        count += 1
        stack, seen[start] = [start], True
        while stack:
            y, x = stack.pop()
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= v < index.shape[0] and 0 <= u < index.shape[1]
                if inside and not seen[v, u] and index[v, u] == index[y, x]:
                    seen[v, u] = True
                    stack.append((v, u))
    return count


def noise(height: int, width: int, seed: int) -> U8:
    return np.random.default_rng(seed).integers(0, K, (height, width)).astype(np.uint8)


def rings(side: int) -> U8:
    y, x = np.mgrid[0:side, 0:side] - side // 2
    squares: U8 = (np.maximum(abs(y), abs(x)) % K).astype(np.uint8)
    return squares


Y, X = np.mgrid[0:90, 0:120]
HOSTILE = {
    "noise": noise(90, 120, 1),
    "chequerboard": ((X + Y) % 2).astype(np.uint8),
    "stripes of one pixel": (Y % K).astype(np.uint8),
    "diagonals of one pixel": (((X - Y) % 9 == 0) * 2).astype(np.uint8),
    "rings of one pixel": rings(99),
    "a long strip": noise(16, 2000, 2),
    "a comb": np.where((X % 4 == 0) & (Y > 5), 1, 0).astype(np.uint8),
    "three by three": noise(3, 3, 3),
}


@pytest.mark.parametrize("seed", range(12))
def test_components_are_those_of_a_flood_fill(seed: int) -> None:
    index = noise(17 + seed, 23, seed) // 2
    ids, count = label_components(index)
    assert count == flood_count(index)
    assert sorted(np.unique(ids)) == list(range(count))
    firsts = [int(np.flatnonzero(ids.ravel() == i)[0]) for i in range(count)]
    assert firsts == sorted(firsts)
    for i in range(count):
        assert len(np.unique(index[ids == i])) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_no_region_is_left_undersized(name: str) -> None:
    result = merged(HOSTILE[name])
    assert count_regions(result) == 1 or undersized(result, MIN_AREA_PX) == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_region_is_left_undersized_on_random_blocks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, K, (12, 15)).astype(np.uint8).repeat(rng.integers(1, 9), 0).repeat(rng.integers(1, 9), 1)
    result = merged(blocks)
    assert count_regions(result) == 1 or undersized(result, MIN_AREA_PX) == 0


def test_two_halves_stay_two_and_lie_where_they_were() -> None:
    halves = np.zeros((60, 80), np.uint8)
    halves[:, 40:] = 3
    assert np.array_equal(merged(halves), halves)


def test_a_speck_goes_and_a_patch_stays() -> None:
    index = np.zeros((60, 80), np.uint8)
    index[10:14, 10:14] = 1
    index[30:42, 30:42] = 2
    result = merged(index)
    assert not np.any(result == 1)
    assert np.array_equal(result == 2, index == 2)


def test_merging_stops_at_the_scale() -> None:
    index = np.zeros((60, 80), np.uint8)
    index[20:40, 20:40] = 1
    # The patch's scale: 400 px · 20 ΔE over 80 px of border.
    assert np.any(merged(index, scale_limit=99.0) == 1)
    assert not np.any(merged(index, scale_limit=101.0) == 1)


def test_merging_again_changes_nothing() -> None:
    once = merged(noise(40, 50, 7).repeat(3, 0).repeat(3, 1))
    assert np.array_equal(merged(once), once)


def test_a_border_is_shorter_where_the_photo_has_an_edge() -> None:
    lab = np.zeros((3, 20, 20), np.float32)
    lab[0, :, 10:] = 60.0
    across, down = border_lengths(lab)
    assert across[5, 9] < 0.4
    assert across[5, 3] == 1.0
    assert down[5, 9] == 1.0


def test_border_distance_is_the_chessboard_one() -> None:
    index = noise(6, 7, 4).repeat(5, 0).repeat(5, 1) // 2
    far = border_distance(index, 6)
    for y, x in np.ndindex(index.shape):
        others = np.argwhere(index != index[y, x])
        nearest = min((int(max(abs(v - y), abs(u - x))) for v, u in others), default=99)
        beside = any(
            0 <= v < index.shape[0] and 0 <= u < index.shape[1] and index[v, u] != index[y, x]
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        )
        # A pixel that meets another label only at a corner counts as one step further in.
        assert far[y, x] == min(6, nearest) or (not beside and far[y, x] == min(6, nearest + 1))


def test_polishing_keeps_a_straight_border_and_heals_a_notch() -> None:
    index = np.zeros((60, 80), np.uint8)
    index[:, 40:] = 1
    notched = index.copy()
    notched[30, 38:40] = 1
    cells, costs = np.zeros(index.shape, np.int32), np.zeros((1, K), np.float32)
    pull = np.full(index.shape, np.float32(10.0))
    assert np.array_equal(polish_borders(index, cells, costs, pull, (2.2, 1.6, 1.2)), index)
    assert np.array_equal(polish_borders(notched, cells, costs, pull, (2.2, 1.6, 1.2)), index)
