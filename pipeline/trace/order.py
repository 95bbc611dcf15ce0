"""Which ink is painted first: the order in which the hidden borders take the fewest numbers.

Every visible border is drawn once, whatever the order. What changes is how many of the layers beneath must end in a
hidden border, and how many regions they may run beneath as a whole. Exchanging two neighbours touches only the layers
of those two, so each ink is *sifted* through the order by exchanges (Rudell, "Dynamic variable ordering for ordered
binary decision diagrams", ICCAD 1993), beginning with the largest ink beneath and the smallest on top.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from pipeline.compiled import inlined, kernel
from pipeline.trace.planar import PlanarMap, root
from pipeline.types import F64, I32, UNPAINTED, Mask

NEVER = -1
"""Rank of what is not painted."""

POINTS_PER_LINE = 100.0
"""Cracks that one line of a hidden border covers, about."""

MOST_WORK = 3_200_000
"""Arcs looked at before the climb ends."""

Borders: TypeAlias = tuple[I32, I32, I32, I32, I32, F64]
"""All arcs between regions, by pair of inks: both inks of each pair, where its arcs begin, and of each arc the region
of the first ink, that of the second, and what a hidden border costs there."""


def paint_order(plane: PlanarMap) -> list[int]:
    """The inks of a map, the first painted first: by area, then exchanged while that saves hidden borders."""
    areas = np.bincount(plane.region_label, plane.region_area_px, 256)
    inks = [ink for ink in range(UNPAINTED) if areas[ink]]
    order = np.array(sorted(inks, key=lambda ink: -areas[ink]), np.int32)
    cracks = np.zeros(plane.arcs)
    _lengths(plane.first, plane.x, plane.y, cracks)
    within = np.flatnonzero((plane.left >= 0) & (plane.right >= 0))
    left, right = plane.left[within], plane.right[within]
    swap = plane.region_label[left] > plane.region_label[right]
    low, high = np.where(swap, right, left), np.where(swap, left, right)
    pair = 256 * plane.region_label[low] + plane.region_label[high]
    by_pair = np.argsort(pair, kind="stable")
    pairs, first = np.unique(pair[by_pair], return_index=True)
    borders = (
        (pairs // 256).astype(np.int32),
        (pairs % 256).astype(np.int32),
        np.append(first, len(pair)).astype(np.int32),
        low[by_pair],
        high[by_pair],
        1 + cracks[within][by_pair] / POINTS_PER_LINE,
    )
    _sift(order, plane.regions, borders, MOST_WORK)
    return [int(ink) for ink in order]


@kernel
def _lengths(first: I32, xs: I32, ys: I32, out: F64) -> None:
    for a in range(len(out)):
        for i in range(first[a], first[a + 1] - 1):
            out[a] += abs(xs[i + 1] - xs[i]) + abs(ys[i + 1] - ys[i])


@inlined
def _hidden_cost(rank: I32, mine: int, borders: Borders, parent: I32, earlier: Mask) -> float:
    """What the hidden borders of layer `mine` cost: those against groups of later regions that touch an earlier one."""
    one, two, first, left, right, weight = borders
    for r in range(len(parent)):
        parent[r] = r
        earlier[r] = False
    for g in range(len(one)):
        if rank[one[g]] > mine and rank[two[g]] > mine:
            for a in range(first[g], first[g + 1]):
                p, q = root(parent, left[a]), root(parent, right[a])
                if p != q:
                    parent[max(p, q)] = min(p, q)
    for g in range(len(one)):
        p_rank, q_rank = rank[one[g]], rank[two[g]]
        if min(p_rank, q_rank) < mine < max(p_rank, q_rank):
            later = right if q_rank > mine else left
            for a in range(first[g], first[g + 1]):
                earlier[root(parent, later[a])] = True
    total = 0.0
    for g in range(len(one)):
        p_rank, q_rank = rank[one[g]], rank[two[g]]
        if min(p_rank, q_rank) == mine:
            later = right if q_rank > mine else left
            for a in range(first[g], first[g + 1]):
                if earlier[root(parent, later[a])]:
                    total += weight[a]
    return total


@inlined
def _exchange(order: I32, rank: I32, cost: F64, k: int, borders: Borders, parent: I32, earlier: Mask) -> float:
    """Paints the k-th ink after the next one; returns what that changes in the cost."""
    order[k], order[k + 1] = order[k + 1], order[k]
    rank[order[k]], rank[order[k + 1]] = k, k + 1
    before = cost[k] + cost[k + 1]
    cost[k] = _hidden_cost(rank, k, borders, parent, earlier)
    cost[k + 1] = _hidden_cost(rank, k + 1, borders, parent, earlier)
    return float(cost[k] + cost[k + 1] - before)


@kernel
def _sift(order: I32, regions: int, borders: Borders, most_work: int) -> None:
    """Moves each ink in turn to the place in `order` (int32 [K], written) where the hidden borders cost least.

    An ink goes to the end, then to the front, by exchanges of neighbours, and back to the best place it saw.
    """
    inks, arcs = len(order), len(borders[3])
    rank = np.full(256, NEVER, np.int32)
    for k in range(inks):
        rank[order[k]] = k
    parent, earlier = np.empty(regions, np.int32), np.empty(regions, np.bool_)
    cost = np.empty(inks)
    for k in range(inks):
        cost[k] = _hidden_cost(rank, k, borders, parent, earlier)
    work, gained = 0, True
    while gained and work < most_work:
        gained = False
        for ink in order.copy():
            at = 0
            while order[at] != ink:
                at += 1
            start, best, lowest, change = at, at, -1e-9, 0.0
            for target in (inks - 1, 0):
                while at != target:
                    k = min(at, at + 1 if target > at else at - 1)
                    at += 1 if target > at else -1
                    change += _exchange(order, rank, cost, k, borders, parent, earlier)
                    work += 2 * arcs
                    if change < lowest and at != start:
                        best, lowest = at, change
            while at != best:
                k = min(at, at + 1 if best > at else at - 1)
                at += 1 if best > at else -1
                _exchange(order, rank, cost, k, borders, parent, earlier)
                work += 2 * arcs
            gained = gained or best != start
            if work >= most_work:
                break
