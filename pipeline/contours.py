"""Contours that the label map lost: edges of the photo with one ink on both sides.

A vehicle and its ground often share an ink (a tyre in its shadow, a white roof on a pale sky). Where the photo still
shows an edge there, a thin line in the next fitting ink brings it back. Edges are found as Canny (1986) does, on the
colour gradient of Di Zenzo (1986) in L*a*b*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.colour import delta_e_matrix, palette_lab
from pipeline.compiled import by_rows, inlined, kernel
from pipeline.polish import gaussian_weights, near_border
from pipeline.types import F32, F64, U8, Mask, Palette

I32 = npt.NDArray[np.int32]

NO_LINE = 255
_LEAST_INK_DISTANCE = 5.0  # ΔE00 below which a line would not show
_MOST_ADDED_CHROMA = 25.0
_SHIFT_PX = 1
_MOST_TURNS_ON_GROUND = 0.3  # share of a chain's pixels where it turns: walls and kerbs have 0.1, foliage 0.5
_TAN_22_5 = 0.41421356237309503


@dataclass(frozen=True, slots=True)
class ContourScale:
    """What counts as a lost contour at one scale.

    Attributes:
        sigma_px: of the Gaussian blur before the gradient.
        strong, weak: hysteresis thresholds on the gradient, ΔE76 per pixel, for a pixel of full importance.
        length_px: shortest contour.
        gap_px: how far it must lie from the map's borders; nearer, the border already shows it.
        worth: ΔE that a line may cost on each of its pixels, for each unit of gradient.
        ground: factor on the thresholds far from the vehicle, where texture has edges too.
    """

    sigma_px: float
    strong: float
    weak: float
    length_px: int
    gap_px: int
    worth: float
    ground: float


FINE = ContourScale(sigma_px=1.4, strong=2.4, weak=1.0, length_px=28, gap_px=2, worth=3.0, ground=2.0)
"""Crisp edges: panel gaps, spokes, glazing."""

COARSE = ContourScale(sigma_px=2.8, strong=0.4, weak=0.25, length_px=60, gap_px=7, worth=30.0, ground=3.0)
"""Faint but long edges, such as a black tyre in its own shadow."""


@kernel
def _blur_across(planes: F32, weights: F32, out: F32, first: int, last: int) -> None:
    channels, _, width = planes.shape
    radius = weights.size // 2
    row = np.empty(width + 2 * radius, np.float32)
    for c in range(channels):
        for y in range(first, last):
            row[:radius] = planes[c, y, 0]
            row[radius : radius + width] = planes[c, y]
            row[radius + width :] = planes[c, y, width - 1]
            out[c, y] = np.float32(0.0)
            for i in range(weights.size):
                for x in range(width):
                    out[c, y, x] += weights[i] * row[x + i]


@kernel
def _blur_down(planes: F32, weights: F32, out: F32, first: int, last: int) -> None:
    channels, height, width = planes.shape
    radius = weights.size // 2
    for c in range(channels):
        for y in range(first, last):
            out[c, y] = np.float32(0.0)
            for i in range(weights.size):
                v = min(max(y + i - radius, 0), height - 1)
                for x in range(width):
                    out[c, y, x] += weights[i] * planes[c, v, x]


def blur(planes: F32, sigma_px: float) -> F32:
    """Gaussian blur of float32 [C, H, W], the sums taken in a fixed order."""
    radius = int(2.5 * sigma_px + 0.5)
    window = gaussian_weights(sigma_px, radius)[radius]
    weights = (window / window.sum()).astype(np.float32)
    half, out = np.empty_like(planes), np.empty_like(planes)
    by_rows(lambda a, b: _blur_across(planes, weights, half, a, b), planes.shape[1])
    by_rows(lambda a, b: _blur_down(half, weights, out, a, b), planes.shape[1])
    return out


@kernel
def _gradient_rows(lab: F32, strength: F32, sector: U8, first: int, last: int) -> None:
    """Largest eigenvalue's root of the colour structure tensor, and its direction in four sectors of 45°."""
    _, height, width = lab.shape
    for y in range(first, last):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            xx = yy = xy = 0.0
            for c in range(3):
                dx = 0.5 * (lab[c, y, right] - lab[c, y, left])
                dy = 0.5 * (lab[c, below, x] - lab[c, above, x])
                xx += dx * dx
                yy += dy * dy
                xy += dx * dy
            root = math.sqrt((xx - yy) * (xx - yy) + 4.0 * xy * xy)
            strength[y, x] = math.sqrt(0.5 * (xx + yy + root))
            # Eigenvector (2xy, yy − xx + root), or (xx − yy + root, 2xy): the longer of the two is the safer.
            u, v = (xx - yy + root, 2.0 * xy) if xx >= yy else (2.0 * xy, yy - xx + root)
            if abs(v) <= _TAN_22_5 * abs(u):
                sector[y, x] = 0
            elif abs(u) <= _TAN_22_5 * abs(v):
                sector[y, x] = 2
            else:
                sector[y, x] = 1 if u * v > 0.0 else 3


@kernel
def _crests(strength: F32, sector: U8, threshold: F32) -> F32:
    """Strength where it is the greatest across its edge and above the threshold, else 0."""
    height, width = strength.shape
    out = np.zeros((height, width), np.float32)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            s = strength[y, x]
            if s < threshold[y, x]:
                continue
            d = sector[y, x]
            dx = 0 if d == 2 else 1
            dy = 0 if d == 0 else (-1 if d == 3 else 1)
            if s > strength[y - dy, x - dx] and s >= strength[y + dy, x + dx]:
                out[y, x] = s
    return out


def photo_edges(lab: F32, threshold: F32, sigma_px: float) -> tuple[F32, U8]:
    """Thin edges of a photo.

    Args:
        lab: float32 [3, H, W], L*a*b*.
        threshold: float32 [H, W], the least gradient, ΔE76 per pixel.
        sigma_px: of the Gaussian blur before it.

    Returns:
        float32 [H, W]: gradient on the edge's crest, 0 elsewhere; and uint8 [H, W]: the edge's normal in steps of 45°
        (0 along x, 2 along y).
    """
    soft = blur(lab, sigma_px)
    strength, sector = np.empty(threshold.shape, np.float32), np.empty(threshold.shape, np.uint8)
    by_rows(lambda a, b: _gradient_rows(soft, strength, sector, a, b), len(strength))
    return _crests(strength, sector, threshold), sector


@inlined
def _push_neighbours(y: int, x: int, open_: Mask, queue: I32, size: int, width: int) -> int:
    for v in range(max(0, y - 1), min(open_.shape[0], y + 2)):
        for u in range(max(0, x - 1), min(width, x + 2)):
            if open_[v, u]:
                open_[v, u] = False
                queue[size] = v * width + u
                size += 1
    return size


@kernel
def _chains(edges: F32, near: U8) -> tuple[I32, I32]:
    """8-connected chains of edge pixels away from the map's borders: their pixels, and where each chain starts."""
    height, width = edges.shape
    open_ = np.zeros((height, width), np.bool_)
    total = 0
    for y in range(height):
        for x in range(width):
            if edges[y, x] > 0.0 and not near[y, x]:
                open_[y, x] = True
                total += 1
    pixels = np.empty(total, np.int32)
    starts = np.empty(total + 1, np.int32)
    size = chains = 0
    for y in range(height):
        for x in range(width):
            if not open_[y, x]:
                continue
            starts[chains] = size
            chains += 1
            open_[y, x] = False
            pixels[size] = y * width + x
            at = size
            size += 1
            while at < size:
                size = _push_neighbours(pixels[at] // width, pixels[at] % width, open_, pixels, size, width)
                at += 1
    starts[chains] = size
    return pixels, starts[: chains + 1].copy()


@inlined
def _turns(edges: F32, sector: U8, y: int, x: int) -> bool:
    """Whether an edge pixel has an edge neighbour of another direction."""
    for v in range(max(0, y - 1), min(edges.shape[0], y + 2)):
        for u in range(max(0, x - 1), min(edges.shape[1], x + 2)):
            if edges[v, u] > 0.0 and sector[v, u] != sector[y, x]:
                return True
    return False


@kernel
def _draw_chains(
    lab: F32,
    pixels: I32,
    starts: I32,
    edges: F32,
    sector: U8,
    hint: F32,
    index: U8,
    cells: I32,
    costs: F32,
    apart: F32,
    chroma: F64,
    strong: float,
    length_px: int,
    worth: float,
    out: U8,
) -> None:
    height, width = edges.shape
    for chain in range(starts.size - 1):
        first, last = starts[chain], starts[chain + 1]
        if last - first < length_px:
            continue
        sums = np.zeros(costs.shape[1], np.float64)
        gradient = caution = tint = 0.0
        firm = 0
        turns = 0
        for i in range(first, last):
            y, x = pixels[i] // width, pixels[i] % width
            turns += _turns(edges, sector, y, x)
            caution += hint[y, x]
            tint += math.sqrt(lab[1, y, x] * lab[1, y, x] + lab[2, y, x] * lab[2, y, x])
            gradient += edges[y, x] / (hint[y, x] * hint[y, x])
            firm += edges[y, x] >= strong * hint[y, x]
            for k in range(costs.shape[1]):
                sums[k] += costs[cells[y, x], k]
        restless = turns > _MOST_TURNS_ON_GROUND * (last - first)
        if firm * 3 < last - first or (restless and caution > 1.2 * (last - first)):
            continue
        here = index[pixels[first] // width, pixels[first] % width]
        ink = -1
        for k in range(costs.shape[1]):
            # A line in a colour that nothing around it has would be a mark of its own.
            strange = chroma[k] > tint / (last - first) + _MOST_ADDED_CHROMA
            if k != here and not strange and apart[here, k] >= _LEAST_INK_DISTANCE and (ink < 0 or sums[k] < sums[ink]):
                ink = k
        if ink < 0 or sums[ink] - sums[here] > worth * gradient:
            continue
        for i in range(first, last):
            y, x = pixels[i] // width, pixels[i] % width
            # The line lies on the side where it costs less, so that the two edges of a thin feature share one line.
            dx = 0 if sector[y, x] == 2 else _SHIFT_PX
            dy = 0 if sector[y, x] == 0 else (-_SHIFT_PX if sector[y, x] == 3 else _SHIFT_PX)
            before = cells[min(max(y - dy, 0), height - 1), min(max(x - dx, 0), width - 1)]
            after = cells[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
            side = 1 if costs[after, ink] - costs[after, here] < costs[before, ink] - costs[before, here] else -1
            y += side * dy
            x += side * dx
            for v in range(max(0, y - 1), min(height, y + 2)):
                for u in range(max(0, x - 1), min(width, x + 2)):
                    out[v, u] = ink


def lost_contours(lab: F32, index: U8, cells: I32, costs: F32, hint: F32, palette: Palette, scale: ContourScale) -> U8:
    """Lines that bring back edges with one ink on both sides.

    Args:
        lab: float32 [3, H, W], L*a*b* of the photo.
        index: uint8 [H, W], the label map.
        cells, costs: as `pipeline.costs.ink_costs` makes them.
        hint: float32 [H, W], factor on the thresholds: below 1 where a contour is expected, above where it is not.
        palette: of the label map.
        scale: what to look for.

    Returns:
        uint8 [H, W]: the ink of each line pixel (lines are three pixels wide), `NO_LINE` elsewhere.
    """
    edges, sector = photo_edges(lab, hint * np.float32(scale.weak), scale.sigma_px)
    pixels, starts = _chains(edges, near_border(index, scale.gap_px - 1))
    inks = palette_lab(palette)
    out = np.full(index.shape, NO_LINE, np.uint8)
    _draw_chains(
        lab,
        pixels,
        starts,
        edges,
        sector,
        hint,
        index,
        cells,
        costs,
        delta_e_matrix(inks, inks),
        np.sqrt(inks[:, 1] ** 2 + inks[:, 2] ** 2),
        scale.strong,
        scale.length_px,
        scale.worth,
        out,
    )
    return out


@kernel
def _hint_rows(importance: U8, subject: U8, caution: F32, outline: F32, out: F32, first: int, last: int) -> None:
    for y in range(first, last):
        for x in range(out.shape[1]):
            out[y, x] = caution[importance[y, x]] * outline[subject[y, x]]


def contour_hint(importance: U8, subject: U8, ground: float) -> F32:
    """Factor on the contour thresholds: `ground` far from the vehicle, 1 on it, one half along its probable outline.

    Args:
        importance, subject: uint8 [H, W].
        ground: at least 1.

    Returns:
        float32 [H, W].
    """
    level = np.arange(256, dtype=np.float32)
    away = np.float32(1.0) - level * np.float32(1.0 / 255.0)
    doubt = np.minimum(np.minimum(level, np.float32(255.0) - level) * np.float32(1.0 / 127.0), np.float32(1.0))
    caution = np.float32(1.0) + away * np.float32(ground - 1.0)
    outline = np.float32(1.0) - np.float32(0.5) * doubt
    hint = np.empty(importance.shape, np.float32)
    by_rows(lambda a, b: _hint_rows(importance, subject, caution, outline, hint, a, b), len(hint))
    return hint
