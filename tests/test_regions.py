"""Region merging, border smoothing and distances on random and adversarial label maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.polish import gaussian_weights, near_border, polish_borders
from pipeline.regions import border_lengths, count_regions, label_components, merge_regions, undersized
from pipeline.types import F32, U8

I64 = npt.NDArray[np.int64]

I32 = npt.NDArray[np.int32]

K = 4
MIN_AREA_PX = 48


def own_costs(truth: U8) -> tuple[I32, F32]:
    """Costs that favour each pixel's own label by 20 ΔE."""
    return truth.astype(np.int32), np.where(np.eye(K, dtype=bool), 0.0, 20.0).astype(np.float32)


def merged(index: U8, *, scale_limit: float = 14.0, min_area_px: int = MIN_AREA_PX, weight: float = 1.0) -> U8:
    cells, costs = own_costs(index)
    ones = np.ones(index.shape, np.float32)
    weights = np.full(index.shape, np.float32(weight))
    return merge_regions(index, cells, costs, weights, ones, ones, scale_limit=scale_limit, min_area_px=min_area_px)


def energy(index: U8, cells: I32, costs: F32, across: F32, down: F32, scale_limit: float) -> float:
    """Mumford and Shah's: the data term, and λ times the length of all borders."""
    data = float(costs[cells, index].sum(dtype=np.float64))
    border = across[:, :-1][index[:, 1:] != index[:, :-1]].sum(dtype=np.float64)
    border += down[:-1][index[1:] != index[:-1]].sum(dtype=np.float64)
    return data + scale_limit * float(border)


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
def test_components_of_hostile_maps_are_those_of_a_flood_fill(name: str) -> None:
    assert label_components(HOSTILE[name])[1] == flood_count(HOSTILE[name])


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


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 3), (3, 40), (5, 5), (7, 16), (16, 16), (31, 4)])
def test_no_region_is_left_undersized_in_a_tiny_picture(shape: tuple[int, int]) -> None:
    for seed in range(5):
        result = merged(noise(*shape, seed), min_area_px=9)
        assert count_regions(result) == 1 or undersized(result, 9) == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale_limit", [0.5, 14.0, 60.0])
def test_merging_never_raises_the_energy(seed: int, scale_limit: float) -> None:
    rng = np.random.default_rng(seed)
    index = noise(40, 50, seed)
    cells, costs = rng.integers(0, 30, index.shape).astype(np.int32), rng.uniform(0, 60, (30, K)).astype(np.float32)
    across, down = border_lengths(rng.uniform(0, 20, (3, *index.shape)).astype(np.float32))
    ones = np.ones(index.shape, np.float32)
    result = merge_regions(index, cells, costs, ones, across, down, scale_limit=scale_limit, min_area_px=1)
    terms = (cells, costs, across, down, scale_limit)
    assert energy(result, *terms) < energy(index, *terms)
    assert count_regions(result) < count_regions(index)


def test_a_region_takes_the_ink_that_suits_all_of_it() -> None:
    # Two halves that want inks 0 and 1; ink 2 is nearly as good for either, and best for both together.
    index = np.repeat(np.array([[0, 1]], np.uint8), 20, axis=0).repeat(20, axis=1)
    costs = np.array([[0, 20, 1, 90], [20, 0, 1, 90]], np.float32)
    ones = np.ones(index.shape, np.float32)
    result = merge_regions(index, index.astype(np.int32), costs, ones, ones, ones, scale_limit=50.0, min_area_px=9)
    assert np.all(result == 2)


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


def test_what_weighs_less_merges_sooner() -> None:
    index = np.zeros((60, 80), np.uint8)
    index[20:40, 20:40] = 1
    assert np.any(merged(index, scale_limit=50.0) == 1)
    assert not np.any(merged(index, scale_limit=50.0, weight=1 / 3) == 1)


def test_borders_settle_on_the_photo_s_edge() -> None:
    # A strip that either side could have: it goes where the border is then shorter.
    index = np.repeat(np.array([[0, 1, 2]], np.uint8), 40, axis=0).repeat([20, 4, 20], axis=1)
    costs = np.where(np.eye(K, dtype=bool), 0.0, 20.0).astype(np.float32)
    costs[1] = (3.0, 0.0, 3.0, 20.0)
    ones = np.ones(index.shape, np.float32)
    for edge, ink in ((19, 2), (23, 0)):
        across = ones.copy()
        across[:, edge] = 0.35
        args = (index, index.astype(np.int32), costs, ones, across, ones)
        assert np.all(merge_regions(*args, scale_limit=14.0, min_area_px=9)[:, 20:24] == ink)


@pytest.mark.parametrize("seed", range(6))
def test_merging_again_changes_nothing(seed: int) -> None:
    once = merged(noise(40, 50, seed).repeat(3, 0).repeat(3, 1))
    assert np.array_equal(merged(once), once)


def test_a_border_is_shorter_where_the_photo_has_an_edge() -> None:
    lab = np.zeros((3, 20, 20), np.float32)
    lab[0, :, 10:] = 60.0
    across, down = border_lengths(lab)
    assert across[5, 9] < 0.4
    assert across[5, 3] == 1.0
    assert down[5, 9] == 1.0


@pytest.mark.parametrize("reach_px", [0, 1, 3])
def test_near_a_border_is_within_reach_of_a_pixel_beside_another_label(reach_px: int) -> None:
    index = noise(6, 7, 4).repeat(5, 0).repeat(5, 1) // 2
    height, width = index.shape
    beside = [
        (y, x)
        for y, x in np.ndindex(index.shape)
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        if 0 <= v < height and 0 <= u < width and index[v, u] != index[y, x]
    ]
    near = near_border(index, reach_px)
    for y, x in np.ndindex(index.shape):
        assert near[y, x] == any(max(abs(v - y), abs(u - x)) <= reach_px for v, u in beside)


FREE_CELLS, FREE_COSTS = np.zeros((60, 80), np.int32), np.zeros((1, K), np.float32)
PULL = np.full((60, 80), np.float32(10.0))


def test_polishing_keeps_a_straight_border_and_heals_a_notch() -> None:
    index = np.zeros((60, 80), np.uint8)
    index[:, 40:] = 1
    notched = index.copy()
    notched[30, 38:40] = 1
    assert np.array_equal(polish_borders(index, FREE_CELLS, FREE_COSTS, PULL, (2.2, 1.6, 1.2)), index)
    assert np.array_equal(polish_borders(notched, FREE_CELLS, FREE_COSTS, PULL, (2.2, 1.6, 1.2)), index)


def test_polishing_rounds_a_corner_off_by_its_curvature() -> None:
    index = np.zeros((60, 80), np.uint8)
    index[20:40, 20:60] = 1
    rounded = polish_borders(index, FREE_CELLS, FREE_COSTS, PULL, (2.2, 1.6, 1.2))
    assert np.all(rounded[[20, 20, 39, 39], [20, 59, 20, 59]] == 0)
    assert np.all(rounded[22:38, 22:58] == 1)
    assert np.all(rounded[index == 0] == 0)


def test_polishing_leaves_what_the_costs_hold_fast() -> None:
    index = np.zeros((60, 80), np.uint8)
    index[:, 40:] = 1
    index[30, 38:40] = 1
    cells, costs = own_costs(index)
    assert np.array_equal(polish_borders(index, cells, costs, PULL, (2.2, 1.6, 1.2)), index)


def votes_of(index: U8, sigma_px: float) -> I64:
    """int64 [K, H, W]: each label's votes at every pixel, counted one by one."""
    radius = int(2.2 * sigma_px + 0.5)
    weights = gaussian_weights(sigma_px, radius)
    # A rim of a label that no ink has, so that votes from outside the picture count for nothing.
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(index, radius, constant_values=K), weights.shape)
    return np.stack([((windows == k) * weights).sum(axis=(2, 3), dtype=np.int64) for k in range(K)])


@pytest.mark.parametrize("sigma_px", [1.2, 1.6, 2.2])
def test_polishing_near_the_borders_is_polishing_everywhere(sigma_px: float) -> None:
    index = noise(10, 16, 6).repeat(6, 0).repeat(5, 1)
    polished = polish_borders(index, FREE_CELLS, FREE_COSTS, PULL, (sigma_px,))
    assert np.array_equal(polished, votes_of(index, sigma_px).argmax(axis=0))


@pytest.mark.parametrize("sigma_px", [1.2, 8.8])
def test_polishing_weighs_costs_against_the_share_of_votes(sigma_px: float) -> None:
    index = noise(10, 16, 6).repeat(6, 0).repeat(5, 1)
    rng = np.random.default_rng(7)
    cells = rng.integers(0, 50, index.shape, dtype=np.int32)
    costs = rng.random((50, K), dtype=np.float32) * 9
    votes = votes_of(index, sigma_px)
    energy = np.where(votes > 0, costs[cells].transpose(2, 0, 1) - PULL * (votes / votes.sum(axis=0)), np.inf)
    near = near_border(index, int(sigma_px)) == 1
    polished = polish_borders(index, cells, costs, PULL, (sigma_px,))
    assert np.array_equal(polished, np.where(near, energy.argmin(axis=0), index))


@pytest.mark.parametrize("width", [255, 256, 257, 600])
def test_polishing_knows_rows_longer_than_a_byte_counts(width: int) -> None:
    index = np.zeros((12, width), np.uint8)
    index[6:], index[5, 3:-3], index[6, -9:-7] = 1, 2, 2
    cells, pull = np.zeros(index.shape, np.int32), np.full(index.shape, np.float32(10.0))
    polished = polish_borders(index, cells, FREE_COSTS, pull, (1.6,))
    assert np.array_equal(polished, votes_of(index, 1.6).argmax(axis=0))
