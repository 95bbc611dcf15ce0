"""Painter's order with fewer changes of ink.

Shapes come in the order in which they are painted. Two shapes of different inks that share no spot may change places,
so shapes of one ink can often be brought together: one layer for a cutter or an editor instead of many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.export.curves import without_arcs
from pipeline.types import F64, U8, UNITS_PER_PX, Shape

GRID_CELLS = 128
"""Cells along the longer side of the grid on which shapes are compared; none is smaller than a pixel."""

FLATNESS_CELLS = 0.25
"""How far a flattened curve may lie from the curve itself."""

MARGIN_CELLS = 2
"""About a shape's window: one cell for the ring, one for the outside."""

FIXED_BITS = 4
OUTSIDE = 2

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layer:
    """Shapes of one ink that are painted one after the other."""

    ink: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class _Outline:
    """A shape's outline of M, L, C and Z, and its points: float64 [N, 2], 1/100 px."""

    commands: str
    points: F64


def ink_layers(shapes: Sequence[Shape]) -> list[Layer]:
    """`shapes` in as few layers as a greedy order finds, to the same effect when painted.

    Where each ink's shapes already follow one another, the order stays. Else each shape that overlaps an earlier one of
    another ink still comes after it. Overlap is judged on a grid, in which a shape takes every cell that it may touch,
    so a doubt keeps the order. The greedy order is list scheduling by critical path: of the inks with shapes whose
    predecessors are all painted, one that can be finished goes first, else the one on which the longest chain of other
    shapes waits. (To find the fewest layers is NP-hard.)
    """
    runs = [Layer(ink, tuple(run)) for ink, run in groupby(shapes, key=lambda shape: shape.ink)]
    if len(runs) == len({run.ink for run in runs}):
        return runs
    outlines = [_Outline(*without_arcs(shape.commands, shape.points)) for shape in shapes]
    after, waiting = _constraints(outlines, np.array([shape.ink for shape in shapes]))
    chain = _chains(after)
    left = Counter(shape.ink for shape in shapes)
    ready: dict[int, list[int]] = {}
    for at in np.flatnonzero(np.array(waiting) == 0).tolist():
        ready.setdefault(shapes[at].ink, []).append(at)
    layers = []
    while ready:
        ink = max(ready, key=lambda i: (len(ready[i]) == left[i], max(chain[at] for at in ready[i]), len(ready[i]), -i))
        taken = sorted(ready.pop(ink))
        left[ink] -= len(taken)
        layers.append(Layer(ink, tuple(shapes[at] for at in taken)))
        for later in (later for at in taken for later in after[at]):
            waiting[later] -= 1
            if waiting[later] == 0:
                ready.setdefault(shapes[later].ink, []).append(later)
    return layers


def _chains(after: list[list[int]]) -> list[int]:
    """The length of the longest chain of shapes, each behind the one before, that starts at each shape."""
    chain = [1] * len(after)
    for at in reversed(range(len(after))):
        chain[at] += max((chain[later] for later in after[at]), default=0)
    return chain


def _constraints(outlines: list[_Outline], inks: I64) -> tuple[list[list[int]], list[int]]:
    """For each shape the later ones that must stay later, and how many earlier ones it must stay behind."""
    after: list[list[int]] = []
    waiting = np.zeros(len(outlines), dtype=np.int64)
    covers = _covers(outlines)
    low = np.array([outline.points.min(axis=0) for outline in outlines])
    high = np.array([outline.points.max(axis=0) for outline in outlines])
    high += UNITS_PER_PX  # they may share a pixel's edge
    for at in range(len(outlines)):
        rest = slice(at + 1, None)
        near = (inks[rest] != inks[at]) & (low[rest] <= high[at]).all(axis=1) & (low[at] <= high[rest]).all(axis=1)
        later = at + 1 + np.flatnonzero(near)
        met = later[(covers[later] & covers[at]).any(axis=1)]
        waiting[met] += 1
        after.append(met.tolist())
    return after, waiting.tolist()


def _covers(outlines: list[_Outline]) -> npt.NDArray[np.uint64]:
    """The cells that each shape may touch, as bits: uint64 [N, words]."""
    polygons = _polygons(outlines)
    spots = np.concatenate([polygon for polygons_of_one in polygons for polygon in polygons_of_one])
    origin = np.floor(spots.min(axis=0)).astype(np.int64) - MARGIN_CELLS
    columns, rows = np.ceil(spots.max(axis=0)).astype(np.int64) + MARGIN_CELLS + 1 - origin
    grid = np.zeros((len(outlines), int(rows), int(columns)), dtype=np.uint8)
    for at, polygons_of_one in enumerate(polygons):
        (x, y), window = _window(polygons_of_one)
        height, width = window.shape
        grid[at, y - origin[1] : y - origin[1] + height, x - origin[0] : x - origin[0] + width] = window
    bits = np.packbits(grid.reshape(len(outlines), -1), axis=1)
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)


def _window(polygons: list[F64]) -> tuple[I64, U8]:
    """The cells of one shape (uint8 [h, w], 0 or 1), and the x and y of their window's corner on the grid.

    Taken are the cells that the outside can't reach without crossing the outline, and the ring about them: a superset
    of what the shape paints, whatever the fill rule.
    """
    spots = np.concatenate(polygons)
    corner = np.floor(spots.min(axis=0)).astype(np.int64) - MARGIN_CELLS
    width, height = np.ceil(spots.max(axis=0)).astype(np.int64) + MARGIN_CELLS + 1 - corner
    window = np.zeros((int(height), int(width)), dtype=np.uint8)
    fixed = [np.rint((polygon - corner) * 2**FIXED_BITS).astype(np.int32) for polygon in polygons]
    cv2.polylines(window, fixed, isClosed=True, color=1, shift=FIXED_BITS)
    cv2.floodFill(window, None, (0, 0), OUTSIDE)
    return corner, cv2.dilate((window != OUTSIDE).astype(np.uint8), np.ones((3, 3), dtype=np.uint8))


def _polygons(outlines: list[_Outline]) -> list[list[F64]]:
    """Each shape's sub-outlines, flattened: float64 [N, 2] each, x and y in cells, whole numbers at cell centres."""
    commands = np.frombuffer("".join(outline.commands for outline in outlines).encode(), dtype=np.uint8)
    points = np.concatenate([outline.points for outline in outlines])
    cell = max(float(np.ptp(points, axis=0).max()) / GRID_CELLS, UNITS_PER_PX)
    spots, owner = _flattened(commands, points / cell - 0.5)
    starts = np.flatnonzero(commands[owner] == ord("M"))
    pieces = iter(np.split(spots, starts[1:]))
    return [[next(pieces) for _ in range(outline.commands.count("M"))] for outline in outlines]


def _flattened(commands: U8, points: F64) -> tuple[F64, I64]:
    """Curves cut into chords that stay within `FLATNESS_CELLS` of them: the spots, and the command of each."""
    takes = np.select([commands == ord("C"), commands == ord("Z")], [3, 0], 1)
    first = np.cumsum(takes) - takes
    curves = np.flatnonzero(commands == ord("C"))
    start, one, two, end = (points[first[curves] + offset] for offset in (-1, 0, 1, 2))
    bend = np.maximum(np.abs(start - 2 * one + two), np.abs(one - 2 * two + end)).sum(axis=1)
    chords = (takes > 0).astype(np.int64)
    chords[curves] = np.ceil(np.sqrt(0.75 * bend / FLATNESS_CELLS)).astype(np.int64).clip(1)
    owner = np.repeat(np.arange(len(commands)), chords)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(chords) - chords, chords) + 1
    spots = points[(first + takes - 1)[owner]]
    bent = commands[owner] == ord("C")
    which = np.searchsorted(curves, owner[bent])
    t = (step[bent] / chords[owner[bent]])[:, None]
    u = 1 - t
    spots[bent] = u * u * u * start[which] + 3 * t * u * (u * one[which] + t * two[which]) + t * t * t * end[which]
    return spots, owner
