"""Which ink is painted first: the order in which the hidden borders take the fewest numbers.

Every visible border is drawn once, whatever the order. What changes is how many of the layers beneath must end in a
hidden border, and how many regions they may run beneath as a whole. Exchanging two neighbours touches only the layers
of those two, so each ink is *sifted* through the order by exchanges (Rudell, "Dynamic variable ordering for ordered
binary decision diagrams", ICCAD 1993), beginning with the largest ink beneath and the smallest on top.
"""

from __future__ import annotations

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


def paint_order(plane: PlanarMap) -> list[int]:
    """The inks of a map, the first painted first: by area, then exchanged while that saves hidden borders."""
    areas = np.bincount(plane.region_label, plane.region_area_px, 256)
    inks = [ink for ink in range(UNPAINTED) if areas[ink]]
    order = np.array(sorted(inks, key=lambda ink: -areas[ink]), np.int32)
    cracks = np.zeros(plane.arcs)
    _lengths(plane.first, plane.x, plane.y, cracks)
    within = np.flatnonzero((plane.left >= 0) & (plane.right >= 0))
    weight = 1 + cracks[within] / POINTS_PER_LINE
    _sift(order, plane.region_label, plane.left[within], plane.right[within], weight, MOST_WORK)
    return [int(ink) for ink in order]


@kernel
def _lengths(first: I32, xs: I32, ys: I32, out: F64) -> None:
    for a in range(len(out)):
        for i in range(first[a], first[a + 1] - 1):
            out[a] += abs(xs[i + 1] - xs[i]) + abs(ys[i + 1] - ys[i])


@inlined
def _hidden_cost(rank: I32, mine: int, left: I32, right: I32, weight: F64, parent: I32, earlier: Mask) -> float:
    """What the hidden borders of layer `mine` cost: those against groups of later regions that touch an earlier one."""
    for r in range(len(rank)):
        parent[r] = r
        earlier[r] = False
    for a in range(len(left)):
        p, q = left[a], right[a]
        if rank[p] > mine and rank[q] > mine:
            p, q = root(parent, p), root(parent, q)
            if p != q:
                parent[max(p, q)] = min(p, q)
    for a in range(len(left)):
        p, q = left[a], right[a]
        if rank[p] < mine and rank[q] > mine:
            earlier[root(parent, q)] = True
        elif rank[q] < mine and rank[p] > mine:
            earlier[root(parent, p)] = True
    total = 0.0
    for a in range(len(left)):
        p, q = left[a], right[a]
        if rank[p] != mine:
            p, q = q, p
        if rank[p] == mine and rank[q] > mine and earlier[root(parent, q)]:
            total += weight[a]
    return total


@inlined
def _exchange(
    order: I32, rank: I32, cost: F64, k: int, left: I32, right: I32, weight: F64, parent: I32, earlier: Mask
) -> float:
    """Paints the k-th ink after the next one; returns what that changes in the cost."""
    for r in range(len(rank)):
        rank[r] = k + 1 if rank[r] == k else (k if rank[r] == k + 1 else rank[r])
    order[k], order[k + 1] = order[k + 1], order[k]
    before = cost[k] + cost[k + 1]
    cost[k] = _hidden_cost(rank, k, left, right, weight, parent, earlier)
    cost[k + 1] = _hidden_cost(rank, k + 1, left, right, weight, parent, earlier)
    return float(cost[k] + cost[k + 1] - before)


@kernel
def _sift(order: I32, label: I32, left: I32, right: I32, weight: F64, most_work: int) -> None:
    """Moves each ink in turn to the place in `order` (int32 [K], written) where the hidden borders cost least.

    An ink goes to the end, then to the front, by exchanges of neighbours, and back to the best place it saw.
    """
    inks = len(order)
    rank_of = np.full(256, NEVER, np.int32)
    for k in range(inks):
        rank_of[order[k]] = k
    rank = rank_of[label]
    parent, earlier = np.empty(len(label), np.int32), np.empty(len(label), np.bool_)
    cost = np.empty(inks)
    for k in range(inks):
        cost[k] = _hidden_cost(rank, k, left, right, weight, parent, earlier)
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
                    change += _exchange(order, rank, cost, k, left, right, weight, parent, earlier)
                    work += 2 * len(left)
                    if change < lowest and at != start:
                        best, lowest = at, change
            while at != best:
                k = min(at, at + 1 if best > at else at - 1)
                at += 1 if best > at else -1
                _exchange(order, rank, cost, k, left, right, weight, parent, earlier)
                work += 2 * len(left)
            gained = gained or best != start
            if work >= most_work:
                break
