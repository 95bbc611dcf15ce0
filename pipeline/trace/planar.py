"""The planar map of an index map: regions, junctions and the arcs between them, each boundary once.

Pixels are unit squares with corners at whole numbers, x to the right and y downward. A *crack* is the unit side between
two pixels of different label (outside the map is a label of its own); where three or more cracks meet, or two at the
map's corners, is a *junction*; an *arc* is a maximal walk along cracks that passes no junction. Where four cracks meet
between two pairs of equal labels (a saddle), the walk passes twice without meeting itself, so that one diagonal stays
connected: the label that is rarer within three pixels, which keeps thin lines whole. Where only one diagonal's labels
are equal, it is that one.

Everything is made from the runs of equal label in each row, so after one scan of the pixels the work is proportional to
the length of the boundaries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import by_rows, inlined, kernel
from pipeline.types import I32, U8, Mask

NO_LABEL = 256
"""Label of what lies outside the map; 255 (unpainted) is a label like any other."""

PASS, JUNCTION, FALLING, RISING = 1, 2, 3, 4
"""What a walk does at a vertex: goes on, ends, or turns at a saddle whose connected diagonal falls or rises."""

RIGHT, DOWN, LEFT, UP = 0, 1, 2, 3

VOTE_REACH_PX = 3


@dataclass(frozen=True, slots=True)
class PlanarMap:
    """Regions and arcs of an index map of `width_px` × `height_px`.

    Attributes:
        region_label: int32 [R], the label of each region (255: unpainted). Regions are 4-connected, or by a saddle.
        region_area_px: int32 [R].
        first: int32 [A + 1]; arc a owns the vertices `first[a]:first[a + 1]`.
        x, y: int32 [V], crack vertices of all arcs, in walking order, both ends included; only turns and row crossings
            are listed, so neighbours may lie further apart than one pixel, but always on one row or column.
        left, right: int32 [A], the region on each side, seen along the walk with y downward; -1 outside the map.
        start, end: int32 [A], number of the junction at each end; -1 for an arc that closes on itself (its last vertex
            is its first).
        junction_x, junction_y: int32 [J].
    """

    width_px: int
    height_px: int
    region_label: I32
    region_area_px: I32
    first: I32
    x: I32
    y: I32
    left: I32
    right: I32
    start: I32
    end: I32
    junction_x: I32
    junction_y: I32

    @property
    def arcs(self) -> int:
        return len(self.left)

    @property
    def regions(self) -> int:
        return len(self.region_label)


def planar_map(index: U8) -> PlanarMap:
    """The planar map of `index`, uint8 [H, W]."""
    height, width = index.shape
    runs_before = np.zeros(height + 1, np.int32)
    by_rows(lambda a, b: _count_runs(index, runs_before, a, b), height)
    np.cumsum(runs_before, out=runs_before)
    run_x = np.empty(runs_before[-1], np.int32)
    by_rows(lambda a, b: _list_runs(index, runs_before, run_x, a, b), height)

    before = np.zeros(height + 2, np.int32)
    by_rows(lambda a, b: _count_vertices(run_x, runs_before, width, before, a, b), height + 1)
    np.cumsum(before, out=before)
    count = int(before[-1])
    x = np.empty(count, np.int32)
    kind, cracks = np.empty(count, np.uint8), np.empty(count, np.uint8)
    by_rows(lambda a, b: _list_vertices(index, run_x, runs_before, before, x, kind, cracks, a, b), height + 1)
    down, up = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
    by_rows(lambda a, b: _link_vertices(before, x, cracks, down, up, a, b), height)

    run_region = _run_regions(index, run_x, runs_before, before, x, kind)
    region_label, region_area = _region_facts(index, run_x, runs_before, run_region)
    junction_of = np.cumsum(kind == JUNCTION, dtype=np.int32) - 1
    first, path, closed = _walk(kind, cracks, down, up)
    row = np.repeat(np.arange(height + 1, dtype=np.int32), np.diff(before))
    left, right = _sides(first, path, x, row, index, run_x, runs_before, run_region)
    ends_at = path[first[1:] - 1]
    start = np.where(closed, -1, junction_of[path[first[:-1]]]).astype(np.int32)
    end = np.where(closed, -1, junction_of[ends_at]).astype(np.int32)
    junctions = np.flatnonzero(kind == JUNCTION)
    return PlanarMap(
        width, height, region_label, region_area, first, x[path], row[path], left, right, start, end,
        x[junctions], row[junctions],
    )  # fmt: skip


@kernel
def _count_runs(index: U8, before: I32, first: int, last: int) -> None:
    width = index.shape[1]
    for y in range(first, last):
        row = index[y]
        changes = 0
        for x in range(1, width):
            changes += row[x] != row[x - 1]
        before[y + 1] = changes + 1


@kernel
def _list_runs(index: U8, before: I32, run_x: I32, first: int, last: int) -> None:
    width = index.shape[1]
    for y in range(first, last):
        row = index[y]
        at = before[y]
        run_x[at] = 0
        at += 1
        for x in range(1, width):
            if row[x] != row[x - 1]:
                run_x[at] = x
                at += 1


@inlined
def _merged(run_x: I32, before: I32, width: int, y: int, height: int, out: I32) -> int:
    """The sorted distinct x at which a run starts (or the map ends) in pixel row y - 1 or y; returns their number.

    Written to `out` where that is not empty.
    """
    a = before[y - 1] if y > 0 else 0
    a_end = before[y] if y > 0 else 0
    b = before[y] if y < height else 0
    b_end = before[y + 1] if y < height else 0
    n = 0
    keep = len(out) > 0
    while a < a_end or b < b_end:
        xa = run_x[a] if a < a_end else width
        xb = run_x[b] if b < b_end else width
        x = min(xa, xb)
        if xa == x and a < a_end:
            a += 1
        if xb == x and b < b_end:
            b += 1
        if keep:
            out[n] = x
        n += 1
    if keep:
        out[n] = width
    return n + 1


@kernel
def _count_vertices(run_x: I32, runs_before: I32, width: int, before: I32, first: int, last: int) -> None:
    height = len(runs_before) - 1
    nothing = np.empty(0, np.int32)
    for y in range(first, last):
        before[y + 1] = _merged(run_x, runs_before, width, y, height, nothing)


@inlined
def _label(index: U8, x: int, y: int) -> int:
    if x < 0 or y < 0 or y >= index.shape[0] or x >= index.shape[1]:
        return NO_LABEL
    return int(index[y, x])


@inlined
def _rarer(index: U8, x: int, y: int, a: int, b: int) -> bool:
    """Whether label a is no more frequent than b in the six by six pixels about vertex (x, y)."""
    balance = 0
    for v in range(max(y - VOTE_REACH_PX, 0), min(y + VOTE_REACH_PX, index.shape[0])):
        for u in range(max(x - VOTE_REACH_PX, 0), min(x + VOTE_REACH_PX, index.shape[1])):
            balance += (index[v, u] == a) - (index[v, u] == b)
    return balance <= 0


@kernel
def _list_vertices(
    index: U8, run_x: I32, runs_before: I32, before: I32, xs: I32, kind: U8, cracks: U8, first: int, last: int
) -> None:
    height, width = index.shape
    for y in range(first, last):
        row = xs[before[y] : before[y + 1]]
        _merged(run_x, runs_before, width, y, height, row)
        for at in range(len(row)):
            x = row[at]
            nw, ne = _label(index, x - 1, y - 1), _label(index, x, y - 1)
            sw, se = _label(index, x - 1, y), _label(index, x, y)
            right, down, left, up = ne != se, sw != se, nw != sw, nw != ne
            degree = right + down + left + up
            what = PASS
            if degree == 3 or (degree == 2 and not 0 < x < width and not 0 < y < height):
                what = JUNCTION
            elif degree == 4:
                falling, rising = nw == se, ne == sw
                if falling and rising:
                    what = FALLING if _rarer(index, x, y, nw, ne) else RISING
                elif falling:
                    what = FALLING
                elif rising:
                    what = RISING
                else:
                    what = JUNCTION
            kind[before[y] + at] = what
            cracks[before[y] + at] = right << RIGHT | down << DOWN | left << LEFT | up << UP


@kernel
def _link_vertices(before: I32, xs: I32, cracks: U8, down: I32, up: I32, first: int, last: int) -> None:
    """The vertex one row below or above, where a vertical crack leads there."""
    for y in range(first, last):
        low = before[y + 1]
        for at in range(before[y], before[y + 1]):
            if cracks[at] >> DOWN & 1:
                while xs[low] < xs[at]:
                    low += 1
                down[at] = low
                up[low] = at


@inlined
def root(parent: npt.NDArray[np.signedinteger], a: int) -> int:
    """The least of all that are joined with a, in the forest `parent`; the way there is halved."""
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return int(a)


@inlined
def _unite(parent: I32, a: int, b: int) -> None:
    a, b = root(parent, a), root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@inlined
def _run_at(run_x: I32, runs_before: I32, x: int, y: int) -> int:
    """The run that holds pixel (x, y), by bisection."""
    low, high = runs_before[y], runs_before[y + 1]
    while high - low > 1:
        middle = (low + high) // 2
        if run_x[middle] <= x:
            low = middle
        else:
            high = middle
    return int(low)


@kernel
def _run_regions(index: U8, run_x: I32, runs_before: I32, before: I32, xs: I32, kind: U8) -> I32:
    """The region of each run, numbered in the order of their first pixels."""
    height, width = index.shape
    count = runs_before[-1]
    parent = np.arange(count).astype(np.int32)
    for y in range(1, height):
        a, a_end, b, b_end = runs_before[y - 1], runs_before[y], runs_before[y], runs_before[y + 1]
        while a < a_end and b < b_end:
            if index[y - 1, run_x[a]] == index[y, run_x[b]]:
                _unite(parent, a, b)
            a_stop = run_x[a + 1] if a + 1 < a_end else width
            b_stop = run_x[b + 1] if b + 1 < b_end else width
            if a_stop <= b_stop:
                a += 1
            if b_stop <= a_stop:
                b += 1
        for at in range(before[y], before[y + 1]):
            if kind[at] == FALLING:
                _unite(parent, _run_at(run_x, runs_before, xs[at] - 1, y - 1), _run_at(run_x, runs_before, xs[at], y))
            elif kind[at] == RISING:
                _unite(parent, _run_at(run_x, runs_before, xs[at], y - 1), _run_at(run_x, runs_before, xs[at] - 1, y))
    region = np.empty(count, np.int32)
    found = 0
    for run in range(count):
        least = root(parent, run)
        if least == run:
            region[run] = found
            found += 1
        else:
            region[run] = region[least]
    return region


@kernel
def _region_facts(index: U8, run_x: I32, runs_before: I32, run_region: I32) -> tuple[I32, I32]:
    height, width = index.shape
    regions = 0
    for run in range(len(run_region)):
        regions = max(regions, run_region[run] + 1)
    label, area = np.empty(regions, np.int32), np.zeros(regions, np.int32)
    for y in range(height):
        for run in range(runs_before[y], runs_before[y + 1]):
            stop = run_x[run + 1] if run + 1 < runs_before[y + 1] else width
            label[run_region[run]] = index[y, run_x[run]]
            area[run_region[run]] += stop - run_x[run]
    return label, area


@inlined
def _onward(kind: U8, cracks: U8, at: int, came_by: int) -> int:
    """The direction in which a walk that came to vertex `at` in direction `came_by` goes on; -1 at a junction."""
    back = came_by ^ 2
    if kind[at] == JUNCTION:
        return -1
    if kind[at] == FALLING:  # the pixels north-west and south-east are one region: up goes with right, left with down
        return 3 - back
    if kind[at] == RISING:  # up goes with left, right with down
        return back ^ 1
    rest = cracks[at] & ~(1 << back)
    for direction in range(4):
        if rest >> direction & 1:
            return direction
    return -1


@inlined
def _next(at: int, direction: int, down: I32, up: I32) -> int:
    if direction == RIGHT:
        return at + 1
    if direction == LEFT:
        return at - 1
    return int(down[at] if direction == DOWN else up[at])


@kernel
def _walk(kind: U8, cracks: U8, down: I32, up: I32) -> tuple[I32, I32, Mask]:
    """All arcs as lists of vertices: first int32 [A + 1], path int32 [V], closed bool [A]; closed ones last."""
    steps = 0
    for at in range(len(cracks)):
        for direction in range(4):
            steps += cracks[at] >> direction & 1
    path = np.empty(steps + 1, np.int32)
    first = np.empty(steps // 2 + 1, np.int32)
    closed = np.zeros(steps // 2, np.bool_)
    left = cracks.copy()
    arcs, n = 0, 0
    for closing in range(2):
        for start in range(len(cracks)):
            if (kind[start] == JUNCTION) != (closing == 0):
                continue
            for leaving in range(4):
                if not left[start] >> leaving & 1:
                    continue
                first[arcs] = n
                closed[arcs] = closing == 1
                arcs += 1
                at, direction = start, leaving
                path[n] = at
                n += 1
                while True:
                    left[at] &= ~np.uint8(1 << direction)
                    at = _next(at, direction, down, up)
                    left[at] &= ~np.uint8(1 << (direction ^ 2))
                    path[n] = at
                    n += 1
                    direction = _onward(kind, cracks, at, direction)
                    if direction < 0 or (closing == 1 and at == start and direction == leaving):
                        break
    first[arcs] = n
    return first[: arcs + 1].copy(), path[:n].copy(), closed[:arcs].copy()


@kernel
def _sides(
    first: I32, path: I32, xs: I32, ys: I32, index: U8, run_x: I32, runs_before: I32, run_region: I32
) -> tuple[I32, I32]:
    """The regions to the left and to the right of each arc's first crack."""
    height, width = index.shape
    arcs = len(first) - 1
    left, right = np.empty(arcs, np.int32), np.empty(arcs, np.int32)
    for arc in range(arcs):
        a, b = path[first[arc]], path[first[arc] + 1]
        x0, y0, x1, y1 = xs[a], ys[a], xs[b], ys[b]
        if y0 == y1:
            x = min(x0, x1)
            over, under = (x, y0 - 1), (x, y0)
            sides = (over, under) if x1 > x0 else (under, over)
        else:
            y = min(y0, y1)
            west, east = (x0 - 1, y), (x0, y)
            sides = (east, west) if y1 > y0 else (west, east)
        for which in range(2):
            x, y = sides[which]
            region = -1
            if 0 <= x < width and 0 <= y < height:
                region = run_region[_run_at(run_x, runs_before, x, y)]
            if which == 0:
                left[arc] = region
            else:
                right[arc] = region
    return left, right
