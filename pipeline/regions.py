"""Regions of a label map: components, their borders, and palette-constrained Mumford–Shah merging.

The energy is that of Mumford and Shah's piecewise-constant model, minimised by region merging as Koepfler, Lopez and
Morel (1994) do, with one change: a region's colour must be an ink. Region R holds `D[R, k] = Σ weight · ΔE00(pixel,
ink k)` and is painted with the ink of its least entry, so joining A and B raises the data term by `min_k(D[A] + D[B])
− min D[A] − min D[B]`; over the length of the border that disappears this is the scale at which the two become one.

Limits: at most 2³¹ − 1 pixels, 255 inks. Time is O(pixels + borders · log regions): neighbour lists are compacted
only when a region is looked at, and small regions are dissolved before any pair enters the queue.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.compiled import by_rows, inlined, kernel
from pipeline.types import F32, F64, U8, Mask

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_LEAST_LENGTH = 0.35
_EDGE_SQUARE = 50.0  # squared ΔE76 between neighbours at which a border has lost half its extra length, about


@inlined
def _root(parent: npt.NDArray[np.signedinteger], item: int) -> int:
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@kernel
def label_components(index: U8) -> tuple[I32, int]:
    """4-connected components of equal labels.

    Args:
        index: uint8 [H, W].

    Returns:
        int32 [H, W] component numbers in raster order of their first pixel, and their count.
    """
    height, width = index.shape
    parent = np.empty(height * width, np.int32)
    ids = np.empty((height, width), np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            left = ids[y, x - 1] if x > 0 and index[y, x - 1] == index[y, x] else -1
            above = ids[y - 1, x] if y > 0 and index[y - 1, x] == index[y, x] else -1
            if left < 0 and above < 0:
                ids[y, x] = count
                parent[count] = count
                count += 1
            elif above < 0:
                ids[y, x] = left
            elif left < 0 or left == above:
                ids[y, x] = above
            else:
                a, b = _root(parent, left), _root(parent, above)
                parent[max(a, b)] = min(a, b)
                ids[y, x] = min(a, b)
    number = np.full(count, -1, np.int32)
    found = 0
    for i in range(count):
        root = _root(parent, i)
        if number[root] < 0:
            number[root] = found
            found += 1
        number[i] = number[root]
    for y in range(height):
        for x in range(width):
            ids[y, x] = number[ids[y, x]]
    return ids, found


@kernel
def _areas(ids: I32, count: int) -> tuple[I64, Mask]:
    """Area in pixels of each region, and whether it holds a 3×3 square."""
    height, width = ids.shape
    area = np.zeros(count, np.int64)
    roomy = np.zeros(count, np.bool_)
    for y in range(height):
        for x in range(width):
            region = ids[y, x]
            area[region] += 1
            if not roomy[region] and 0 < y < height - 1 and 0 < x < width - 1:
                same = True
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        same = same and ids[y + dy, x + dx] == region
                roomy[region] = same
    return area, roomy


@kernel
def _data_rows(ids: I32, cells: I32, costs: F32, weight: F32, data: F64, first: int, last: int) -> None:
    for y in range(first, last):
        for x in range(ids.shape[1]):
            row, region, share = cells[y, x], ids[y, x], weight[y, x]
            for k in range(costs.shape[1]):
                data[region, k] += costs[row, k] * share


def _data_terms(ids: I32, count: int, cells: I32, costs: F32, weight: F32) -> F64:
    """float64 [count, K]: Σ weight · cost over each region's pixels.

    Two halves are summed apart and added, however many threads there are: the sums must not depend on their number.
    """
    halves = np.zeros((2, count, costs.shape[1]), np.float64)
    edges = (0, len(ids) // 2, len(ids))

    def half(first: int, last: int) -> None:
        for i in range(first, last):
            _data_rows(ids, cells, costs, weight, halves[i], edges[i], edges[i + 1])

    by_rows(half, 2)
    return np.asarray(halves[0] + halves[1], np.float64)


@kernel
def _borders(ids: I32, count: int, across: F32, down: F32) -> tuple[I64, F32]:
    """Every pixel pair on a border: its region pair as one key `low · count + high`, and its weight."""
    height, width = ids.shape
    size = 0
    for y in range(height):
        for x in range(width):
            size += x + 1 < width and ids[y, x] != ids[y, x + 1]
            size += y + 1 < height and ids[y, x] != ids[y + 1, x]
    keys = np.empty(size, np.int64)
    weights = np.empty(size, np.float32)
    i = 0
    for y in range(height):
        for x in range(width):
            here = np.int64(ids[y, x])
            if x + 1 < width and ids[y, x + 1] != here:
                other = np.int64(ids[y, x + 1])
                keys[i] = min(here, other) * count + max(here, other)
                weights[i] = across[y, x]
                i += 1
            if y + 1 < height and ids[y + 1, x] != here:
                other = np.int64(ids[y + 1, x])
                keys[i] = min(here, other) * count + max(here, other)
                weights[i] = down[y, x]
                i += 1
    return keys, weights


@kernel
def _sum_runs(keys: I64, order: I64, weights: F32) -> tuple[I64, F64]:
    """Distinct keys in ascending order and the sum of each one's weights, added in the order of the pixels."""
    distinct = np.empty(keys.size, np.int64)
    sums = np.zeros(keys.size, np.float64)
    n = -1
    for i in order:
        if n < 0 or distinct[n] != keys[i]:
            n += 1
            distinct[n] = keys[i]
        sums[n] += weights[i]
    return distinct[: n + 1], sums[: n + 1]


class _Graph(NamedTuple):
    """Regions and who borders whom: union–find parents, and neighbour lists linked through arrays.

    Attributes:
        data: float64 [R, K], data term; least: float64 [R], its minimum over the inks; area: int64 [R], pixels.
        parent: int64 [R]; a region lives while it is its own parent.
        head, tail: int64 [R], first and last list item of a region, −1 where it has none.
        follow, to, border: int64, int64, float64 [2 · pairs], an item's successor, its neighbour, the border's length.
        seat: int64 [R], scratch: the item that holds a neighbour while a list is compacted; −1 between calls.
    """

    data: F64
    least: F64
    area: I64
    parent: I64
    head: I64
    tail: I64
    follow: I64
    to: I64
    border: F64
    seat: I64


@kernel
def _link(graph: _Graph, keys: I64, lengths: F64) -> None:
    """Fill the neighbour lists from region pairs."""
    count = graph.parent.size
    for region in range(count):
        graph.least[region] = graph.data[region].min()
    for i in range(keys.size):
        low, high = keys[i] // count, keys[i] % count
        for item, here, there in ((2 * i, low, high), (2 * i + 1, high, low)):
            graph.to[item] = there
            graph.border[item] = lengths[i]
            if graph.head[here] < 0:
                graph.head[here] = item
            else:
                graph.follow[graph.tail[here]] = item
            graph.tail[here] = item


@inlined
def _compact(graph: _Graph, region: int) -> None:
    """Rewrite a region's neighbour list: living neighbours only, each once, borders summed, itself left out."""
    item = graph.head[region]
    kept = -1
    graph.head[region] = -1
    while item >= 0:
        other = _root(graph.parent, graph.to[item])
        if other != region:
            if graph.seat[other] >= 0:
                graph.border[graph.seat[other]] += graph.border[item]
            else:
                graph.seat[other] = item
                graph.to[item] = other
                if kept < 0:
                    graph.head[region] = item
                else:
                    graph.follow[kept] = item
                kept = item
        item = graph.follow[item]
    graph.tail[region] = kept
    if kept >= 0:
        graph.follow[kept] = -1
    item = graph.head[region]
    while item >= 0:
        graph.seat[graph.to[item]] = -1
        item = graph.follow[item]


@inlined
def _absorb(graph: _Graph, keep: int, gone: int) -> None:
    graph.parent[gone] = keep
    graph.area[keep] += graph.area[gone]
    lowest = np.inf
    for k in range(graph.data.shape[1]):
        graph.data[keep, k] += graph.data[gone, k]
        lowest = min(lowest, graph.data[keep, k])
    graph.least[keep] = lowest
    if graph.head[gone] >= 0:
        if graph.head[keep] < 0:
            graph.head[keep] = graph.head[gone]
        else:
            graph.follow[graph.tail[keep]] = graph.head[gone]
        graph.tail[keep] = graph.tail[gone]


@inlined
def _scale(graph: _Graph, region: int, item: int) -> float:
    """Rise of the data term if a region and the neighbour in `item` become one, over the border that this removes."""
    other = graph.to[item]
    joint = np.inf
    for k in range(graph.data.shape[1]):
        joint = min(joint, graph.data[region, k] + graph.data[other, k])
    return (joint - graph.least[region] - graph.least[other]) / (graph.border[item] + 1e-9)  # type: ignore[no-any-return]


@inlined
def _cheapest_neighbour(graph: _Graph, region: int) -> int:
    """The neighbour that costs least to join, or −1."""
    best, least_scale = -1, np.inf
    item = graph.head[region]
    while item >= 0:
        scale = _scale(graph, region, item)
        if scale < least_scale:
            best, least_scale = graph.to[item], scale
        item = graph.follow[item]
    return best


@kernel
def _dissolve(graph: _Graph, min_area: int) -> None:
    """Regions below `min_area` go into their cheapest neighbour, the smallest first."""
    small = [(int(graph.area[r]), r) for r in range(graph.parent.size) if graph.area[r] < min_area]
    heapq.heapify(small)
    while len(small) > 0:
        size, region = heapq.heappop(small)
        if graph.parent[region] != region or graph.area[region] != size:
            continue
        _compact(graph, region)
        best = _cheapest_neighbour(graph, region)
        if best >= 0:
            _absorb(graph, best, region)
            if graph.area[best] < min_area:
                heapq.heappush(small, (int(graph.area[best]), best))


@kernel
def _coarsen(graph: _Graph, scale_limit: float) -> None:
    """Join the pair of least scale until none is below the limit. A pair's entry dies when either region changes."""
    version = np.zeros(graph.parent.size, np.int64)
    queue = [(0.0, 0, 0, 0, 0) for _ in range(0)]
    for region in range(graph.parent.size):
        if graph.parent[region] != region:
            version[region] = -1
            continue
        _compact(graph, region)
        item = graph.head[region]
        while item >= 0:
            if graph.to[item] > region:
                scale = _scale(graph, region, item)
                if scale < scale_limit:
                    queue.append((scale, region, int(graph.to[item]), 0, 0))
            item = graph.follow[item]
    heapq.heapify(queue)
    while len(queue) > 0:
        scale, keep, gone, keep_version, gone_version = heapq.heappop(queue)
        if version[keep] != keep_version or version[gone] != gone_version:
            continue
        _absorb(graph, keep, gone)
        version[gone] = -1
        version[keep] += 1
        _compact(graph, keep)
        item = graph.head[keep]
        while item >= 0:
            scale = _scale(graph, keep, item)
            if scale < scale_limit:
                other = int(graph.to[item])
                heapq.heappush(queue, (scale, keep, other, int(version[keep]), int(version[other])))
            item = graph.follow[item]


@kernel
def _inks_of(graph: _Graph) -> U8:
    """uint8 [R]: the ink of the region that each original region ended in; the first of equals."""
    inks = np.empty(graph.parent.size, np.uint8)
    for region in range(graph.parent.size):
        inks[region] = graph.data[_root(graph.parent, region)].argmin()
    return inks


def _graph(data: F64, area: I64, keys: I64, lengths: F64) -> _Graph:
    count, items = len(data), 2 * len(keys)
    graph = _Graph(
        data=data,
        least=np.empty(count, np.float64),
        area=area,
        parent=np.arange(count, dtype=np.int64),
        head=np.full(count, -1, np.int64),
        tail=np.full(count, -1, np.int64),
        follow=np.full(items, -1, np.int64),
        to=np.empty(items, np.int64),
        border=np.empty(items, np.float64),
        seat=np.full(count, -1, np.int64),
    )
    _link(graph, keys, lengths)
    return graph


def merge_regions(
    index: U8, cells: I32, costs: F32, weight: F32, across: F32, down: F32, *, scale_limit: float, min_area_px: int
) -> U8:
    """Merge the regions of a label map until none is too small and no pair's scale is below the limit.

    Args:
        index: uint8 [H, W], the labels to start from.
        cells: int32 [H, W], the row of `costs` that each pixel has.
        costs: float32 [N, K], CIEDE2000 of each row's colour against each ink.
        weight: float32 [H, W], weight of each pixel's data term.
        across, down: float32 [H, W], length of the border between a pixel and its right and lower neighbour, in pixels;
            shorter where the photo has an edge, so that borders settle there.
        scale_limit: λ, in ΔE · pixels per pixel of border.
        min_area_px: no region is smaller, and every region holds a 3×3 square, unless the picture is one region.

    Returns:
        uint8 [H, W].
    """
    while True:
        ids, count = label_components(index)
        if count == 1:
            return index
        area, roomy = _areas(ids, count)
        # A region without a 3×3 square counts as one pixel, however long it is.
        area = np.where(roomy, area, 1)
        keys, weights = _borders(ids, count, across, down)
        pairs, lengths = _sum_runs(keys, np.argsort(keys, kind="stable"), weights)
        graph = _graph(_data_terms(ids, count, cells, costs, weight), area, pairs, lengths)
        _dissolve(graph, min_area_px)
        _coarsen(graph, scale_limit)
        merged = _inks_of(graph)[ids]
        if np.array_equal(merged, index):
            return index
        index = merged
        if undersized(index, min_area_px) == 0:
            return index


def undersized(index: U8, min_area_px: int) -> int:
    """How many regions of a label map are smaller than `min_area_px` or hold no 3×3 square."""
    area, roomy = _areas(*label_components(index))
    return int(np.count_nonzero((area < min_area_px) | ~roomy))


def count_regions(index: U8) -> int:
    """How many 4-connected regions a label map has."""
    return int(label_components(index)[1])


@inlined
def _length(lab: F32, y: int, x: int, v: int, u: int) -> float:
    square = 0.0
    for c in range(3):
        square += (lab[c, y, x] - lab[c, v, u]) * (lab[c, y, x] - lab[c, v, u])
    flat: float = 1.0 + square / _EDGE_SQUARE
    return _LEAST_LENGTH + (1.0 - _LEAST_LENGTH) / (flat * flat)


@kernel
def _length_rows(lab: F32, across: F32, down: F32, first: int, last: int) -> None:
    _, height, width = lab.shape
    for y in range(first, last):
        for x in range(width):
            across[y, x] = _length(lab, y, x, y, min(x + 1, width - 1))
            down[y, x] = _length(lab, y, x, min(y + 1, height - 1), x)


def border_lengths(lab: F32) -> tuple[F32, F32]:
    """What a border costs between neighbouring pixels: 1 where the photo is flat, down to 0.35 across an edge.

    Args:
        lab: float32 [3, H, W], L*a*b*.

    Returns:
        float32 [H, W] towards the right neighbour, and towards the lower one, in pixels.
    """
    across, down = np.empty(lab.shape[1:], np.float32), np.empty(lab.shape[1:], np.float32)
    by_rows(lambda a, b: _length_rows(lab, across, down, a, b), lab.shape[1])
    return across, down
