"""The planar map: each boundary once, each region whole, whatever the labels."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.trace.planar import FALLING, RISING, PlanarMap, planar_map
from pipeline.types import I32, U8, UNPAINTED
from tests.random_maps import random_map

MAPS = 200
BATCHES = 10
Cracks = dict[tuple[int, int, bool], int]
"""How many arcs pass each crack: x and y of its upper or left end, and whether it is horizontal."""


def the_map(*rows: str) -> U8:
    """Labels from letters: `a` is 0; a dot is unpainted."""
    return np.array([[UNPAINTED if c == "." else ord(c) - ord("a") for c in row] for row in rows], np.uint8)


def walk_of(plane: PlanarMap, arc: int) -> I32:
    """int32 [V, 2]: x and y of an arc's vertices."""
    span = slice(plane.first[arc], plane.first[arc + 1])
    return np.stack([plane.x[span], plane.y[span]], axis=1)


def steps_of(walk: I32) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The walk in steps of one pixel."""
    steps = []
    for (ax, ay), (bx, by) in pairwise(walk.tolist()):
        length = abs(bx - ax) + abs(by - ay)
        assert length > 0
        assert ax == bx or ay == by, "a step leaves the grid"
        ux, uy = (bx - ax) // length, (by - ay) // length
        steps += [((ax + i * ux, ay + i * uy), (ax + (i + 1) * ux, ay + (i + 1) * uy)) for i in range(length)]
    return steps


def crack_of(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int, bool]:
    return min(one[0], two[0]), min(one[1], two[1]), one[1] == two[1]


def cracks_of(index: U8) -> set[tuple[int, int, bool]]:
    """All cracks of a map, straight from the labels."""
    framed = np.pad(index.astype(int), 1, constant_values=256)
    level = np.argwhere(framed[1:, 1:-1] != framed[:-1, 1:-1])
    upright = np.argwhere(framed[1:-1, 1:] != framed[1:-1, :-1])
    return {(int(x), int(y), True) for y, x in level} | {(int(x), int(y), False) for y, x in upright}


def saddles_of(index: U8, plane: PlanarMap) -> dict[tuple[int, int], int]:
    """FALLING or RISING at each crack vertex that arcs pass twice, from how they turn there."""
    turns: dict[tuple[int, int], list[set[tuple[int, int]]]] = {}
    for arc in range(plane.arcs):
        steps = steps_of(walk_of(plane, arc))
        around = list(pairwise(steps)) + ([(steps[-1], steps[0])] if plane.start[arc] < 0 else [])
        for (before, at), (_, after) in around:
            turns.setdefault(at, []).append({(p[0] - at[0], p[1] - at[1]) for p in (before, after)})
    found = {}
    for at, passes in turns.items():
        if len(passes) == 2:
            up_right = {(0, -1), (1, 0)}
            up_left = {(0, -1), (-1, 0)}
            assert up_right in passes or up_left in passes, "two walks cross"
            found[at] = FALLING if up_right in passes else RISING
    return found


def regions_by_flood(index: U8, saddles: dict[tuple[int, int], int]) -> npt.NDArray[np.int64]:
    """A number for each pixel's region: 4-connected parts of each label, joined over the saddles."""
    parts = np.zeros(index.shape, np.int64)
    count = 0
    for label in np.unique(index):
        found, part = cv2.connectedComponents((index == label).astype(np.uint8), connectivity=4)
        parts[part > 0] = part[part > 0] + count
        count += found - 1
    joined = np.arange(count + 1)
    for (x, y), kind in saddles.items():
        one, two = ((y - 1, x - 1), (y, x)) if kind == FALLING else ((y - 1, x), (y, x - 1))
        assert index[one] == index[two], "a saddle joins two labels"
        joined[joined == joined[parts[two]]] = joined[parts[one]]
    return joined[parts]


def side_of(regions: npt.NDArray[np.int64], one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
    """The region's number to the left and to the right of a step, -1 outside."""
    x, y, level = crack_of(one, two)
    framed = np.pad(regions, 1, constant_values=-1)
    low, high = (framed[y, x + 1], framed[y + 1, x + 1]) if level else (framed[y + 1, x], framed[y + 1, x + 1])
    if level:  # the pixel above is to the left of a step to the right
        return (int(low), int(high)) if two[0] > one[0] else (int(high), int(low))
    return (int(high), int(low)) if two[1] > one[1] else (int(low), int(high))


def check(index: U8) -> PlanarMap:
    """Everything that a planar map promises, of one map."""
    height, width = index.shape
    plane = planar_map(index)
    cracks: Cracks = {}
    boundary = np.zeros(plane.regions)
    regions = regions_by_flood(index, saddles_of(index, plane))
    number: dict[int, int] = {-1: -1}
    for arc in range(plane.arcs):
        walk = walk_of(plane, arc)
        left, right = int(plane.left[arc]), int(plane.right[arc])
        assert left != right
        closed = plane.start[arc] < 0
        assert closed == (plane.end[arc] < 0)
        if closed:
            assert (walk[0] == walk[-1]).all()
        else:
            for junction, at in ((plane.start[arc], walk[0]), (plane.end[arc], walk[-1])):
                assert (plane.junction_x[junction], plane.junction_y[junction]) == tuple(at)
        for one, two in steps_of(walk):
            cracks[crack_of(one, two)] = cracks.get(crack_of(one, two), 0) + 1
            for mine, theirs in zip((left, right), side_of(regions, one, two), strict=True):
                assert number.setdefault(theirs, mine) == mine, "an arc's sides change"
        doubled = float((walk[:-1, 0] * walk[1:, 1] - walk[1:, 0] * walk[:-1, 1]).sum())
        if left >= 0:
            boundary[left] -= doubled / 2
        if right >= 0:
            boundary[right] += doubled / 2
    assert set(cracks) == cracks_of(index)
    assert set(cracks.values()) == {1}
    assert len(number) == plane.regions + 1 == len(np.unique(regions)) + 1
    assert len(set(number.values())) == len(number)
    for theirs, count in zip(*np.unique(regions, return_counts=True), strict=True):
        mine = number[int(theirs)]
        assert plane.region_area_px[mine] == boundary[mine] == count, "a face does not close"
        assert (index[regions == theirs] == plane.region_label[mine]).all()
    assert plane.region_area_px.sum() == height * width
    check_euler(plane)
    return plane


def check_euler(plane: PlanarMap) -> None:
    """V - E + F = 1 + C; a closed arc is an edge from one vertex of its own to itself."""
    alone = plane.start < 0
    vertices = len(plane.junction_x) + int(alone.sum())
    parent = list(range(len(plane.junction_x)))

    def root(at: int) -> int:
        while parent[at] != at:
            at = parent[at]
        return at

    for one, two in zip(plane.start[~alone].tolist(), plane.end[~alone].tolist(), strict=True):
        parent[root(one)] = root(two)
    parts = sum(parent[at] == at for at in range(len(parent))) + int(alone.sum())
    assert vertices - plane.arcs + plane.regions + 1 == 1 + parts
    met = np.bincount(np.concatenate([plane.start[~alone], plane.end[~alone]]), minlength=len(parent))
    assert set(met.tolist()) <= {2, 3, 4}


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_maps(batch: int) -> None:
    for seed in range(batch, MAPS, BATCHES):
        try:
            check(random_map(seed, most_side_px=40 if seed % 20 else 64).index)
        except AssertionError as failure:
            raise AssertionError(f"seed {seed}: {failure}") from failure


@pytest.mark.parametrize(
    ("rows", "regions", "arcs", "junctions"),
    [
        (["a"], 1, 4, 4),
        (["aaa"], 1, 4, 4),
        (["."], 1, 4, 4),
        (["ab"], 2, 7, 6),
        (["ab", "cd"], 4, 12, 9),
        (["aaa", "aba", "aaa"], 2, 5, 4),
        (["aaaaa", "abbba", "abcba", "abbba", "aaaaa"], 3, 6, 4),
        (["abc"], 3, 10, 8),
        (["aaaa", "abba", "acca", "aaaa"], 3, 7, 6),
    ],
)
def test_small_maps_by_hand(rows: list[str], regions: int, arcs: int, junctions: int) -> None:
    plane = check(the_map(*rows))
    assert (plane.regions, plane.arcs, len(plane.junction_x)) == (regions, arcs, junctions)


@pytest.mark.parametrize(("inks", "side_px"), [(1, 1), (1, 64), (2, 2), (2, 64), (3, 33), (64, 64)])
def test_the_map_s_border_is_there(inks: int, side_px: int) -> None:
    index = (np.add.outer(np.arange(side_px), np.arange(side_px)) % inks).astype(np.uint8)
    plane = check(index)
    beyond = (plane.left < 0) | (plane.right < 0)
    length = sum(len(steps_of(walk_of(plane, int(arc)))) for arc in np.flatnonzero(beyond))
    assert length == 4 * side_px
    assert {(0, 0), (side_px, 0), (0, side_px), (side_px, side_px)} <= set(
        zip(plane.junction_x.tolist(), plane.junction_y.tolist(), strict=True)
    )


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("side_px", [7, 12, 30])
def test_a_diagonal_of_a_rarer_label_stays_whole(side_px: int, rising: bool) -> None:
    index = np.zeros((side_px, side_px), np.uint8)
    along = np.arange(1, side_px - 1)
    index[along, side_px - 1 - along if rising else along] = 1
    plane = check(index)
    assert sorted(zip(plane.region_label.tolist(), plane.region_area_px.tolist(), strict=True)) == [
        (0, side_px**2 - side_px + 2), (1, side_px - 2),
    ]  # fmt: skip


def test_a_line_between_two_grounds_stays_whole() -> None:
    """Only the line's label meets itself across the vertices, so it is joined however frequent it is."""
    y, x = np.mgrid[0:9, 0:9]
    plane = check(np.where(x == y, 1, np.where(x > y, 0, 2)).astype(np.uint8))
    assert sorted(plane.region_area_px.tolist()) == [9, 36, 36]


@pytest.mark.parametrize("side_px", [11, 12])
def test_of_two_lines_that_cross_one_stays_whole(side_px: int) -> None:
    """They share a pixel, or meet at a vertex where neither is the rarer one."""
    index = np.zeros((side_px, side_px), np.uint8)
    along = np.arange(side_px)
    index[along, along] = 1
    index[along, side_px - 1 - along] = 2
    plane = check(index)
    whole, parted, grounds = (2, 1, 2) if side_px == 11 else (1, 2, 4)
    assert plane.region_area_px[plane.region_label == whole].tolist() == [side_px]
    assert plane.region_area_px[plane.region_label == parted].tolist() == [side_px // 2] * 2
    assert int((plane.region_label == 0).sum()) == grounds


def test_the_rarer_label_within_three_pixels_wins_a_saddle() -> None:
    """The vote is local: here label 1 is rarer on the whole map, but not about the saddle."""
    index = np.zeros((40, 40), np.uint8)
    index[10:20, 10:20], index[20:30, 20:30] = 1, 1
    assert (index == 1).sum() < (index == 0).sum()
    index[17:20, 20:23] = 2  # leaves label 0 the rarer one about (20, 20)
    index[19, 20] = 0
    plane = check(index)
    assert int((plane.region_label == 1).sum()) == 2
    index[17:20, 20:23] = 0
    assert int((check(index).region_label == 1).sum()) == 1


def test_a_checkerboard_is_joined_one_way_and_unpainted_counts_as_a_label() -> None:
    y, x = np.mgrid[0:16, 0:16]
    for other in (1, UNPAINTED):
        plane = check(np.where((x + y) % 2 == 0, 0, other).astype(np.uint8))
        assert plane.regions < 16 * 16
        assert set(plane.region_label.tolist()) == {0, other}


PROGRAM = """
from tests.test_planar import digest
print(digest())
"""


def digest() -> str:
    """SHA-256 of several planar maps."""
    made = hashlib.sha256()
    for seed in range(40):
        plane = planar_map(random_map(seed).index)
        for name in PlanarMap.__slots__:
            made.update(np.asarray(getattr(plane, name)).tobytes())
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
