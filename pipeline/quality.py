"""What a picture is measured by: fidelity, simplicity, edges, outlines, coverage.

These figures judge a label map against the photo it was made from; they never feed back into it, so float kernels of
OpenCV are good enough here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.colour import delta_e, delta_e_matrix, palette_lab, srgb_to_lab
from pipeline.costs import ink_costs
from pipeline.regions import count_regions, undersized
from pipeline.types import F64, U8, UNPAINTED, IndexMap, Mask, Palette

EDGE_TOLERANCE_PX = 3
_EDGE_BLUR_PX = 2.0
_STRONG_EDGES, _WEAK_EDGES = (30, 75), (12, 30)


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one label map.

    Attributes:
        delta_e: mean CIEDE2000 between photo and map.
        delta_e_ratio: the same over the least that this palette can reach pixel by pixel.
        regions: 4-connected regions.
        undersized: regions below the smallest area or without a 3×3 square.
        edge_f1: harmonic mean of edge recall and precision.
        outline_recall: share of the true silhouette's border with a region border within reach; None without a mask.
    """

    delta_e: float
    delta_e_ratio: float
    regions: int
    undersized: int
    edge_f1: float
    outline_recall: float | None


def coverage_pct(image: IndexMap) -> F64:
    """float64 [K]: share of the picture that each ink covers, in percent."""
    counts = np.bincount(image.index.ravel(), minlength=256)[: len(image.palette)]
    return np.asarray(counts * (100.0 / image.index.size), np.float64)


def mean_delta_e_per_ink(rgb: U8, image: IndexMap) -> F64:
    """Mean CIEDE2000 between the photo and each ink where that ink was painted, by colour cells of 4×4×4 codes.

    Args:
        rgb: uint8 [H, W, 3], sRGB, the frame of the map.

    Returns:
        float64 [K]; NaN for inks that were not used.
    """
    cells, costs = ink_costs(rgb, image.palette)
    painted = image.index != UNPAINTED
    labels = image.index[painted]
    sums = np.bincount(labels, weights=costs[cells[painted], labels], minlength=len(image.palette))
    counts = np.bincount(labels, minlength=len(image.palette))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def least_delta_e(rgb: U8, palette: Palette) -> float:
    """Mean CIEDE2000 of the photo against the nearest ink of each pixel: the floor for this palette.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
    """
    return float(delta_e_matrix(srgb_to_lab(rgb.reshape(-1, 3)), palette_lab(palette)).min(axis=1).mean())


def _share(part: Mask, whole: Mask) -> float:
    """Pixels of `part` over pixels of `whole`; 0 where that is empty."""
    return int(np.count_nonzero(part)) / max(int(np.count_nonzero(whole)), 1)


def region_borders(index: U8) -> Mask:
    """Mask of the pixels whose right or lower neighbour has another label; bool [H, W]."""
    borders = np.zeros(index.shape, bool)
    borders[:, :-1] |= index[:, 1:] != index[:, :-1]
    borders[:-1] |= index[1:] != index[:-1]
    return borders


def grown(mask: Mask, reach_px: int) -> Mask:
    """The mask, bool [H, W], with everything within `reach_px` of it."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach_px + 1, 2 * reach_px + 1))
    grown: Mask = cv2.dilate(mask.astype(np.uint8), disc) > 0
    return grown


def edge_f1(rgb: U8, index: U8) -> float:
    """F1 of region borders against the photo's Canny edges, within three pixels.

    Recall is over strong edges, precision over weak ones: a border on a faint edge is not a fault.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        index: uint8 [H, W].
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), _EDGE_BLUR_PX)
    strong, weak = (cv2.Canny(grey, *limits) > 0 for limits in (_STRONG_EDGES, _WEAK_EDGES))
    borders = region_borders(index)
    recall = _share(strong & grown(borders, EDGE_TOLERANCE_PX), strong)
    precision = _share(borders & grown(weak, EDGE_TOLERANCE_PX), borders)
    return 2.0 * recall * precision / max(recall + precision, 1e-9)


def silhouette_border(mask: Mask) -> Mask:
    """Mask of the pixels beside the outside, the frame's own edge left out; bool [H, W]."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    border: Mask = mask & (inner == 0)
    border[[0, -1]] = False
    border[:, [0, -1]] = False
    return border


def outline_recall(mask: Mask, index: U8, reach_px: float) -> float:
    """Share of a silhouette's border that has a region border within `reach_px`.

    Args:
        mask: bool [H, W], the vehicle's true silhouette.
        index: uint8 [H, W].
        reach_px: exact masks deserve 4 pixels at 1024; hand-drawn ones as much as they are wrong by.
    """
    outline = silhouette_border(mask)
    distance = cv2.distanceTransform((~region_borders(index)).astype(np.uint8), cv2.DIST_L2, 5)
    return _share(outline & (distance <= reach_px), outline)


def silhouette_iou(subject: Mask, other: Mask) -> float:
    """Intersection over union of two silhouettes, in the first one's frame; 1 where both are empty.

    Args:
        subject: bool [H, W], the mask that the other is measured by.
        other: bool, the same picture's frame at any size.
    """
    held = in_frame(other, subject.shape[1], subject.shape[0])
    union = subject | held
    return _share(subject & held, union) if union.any() else 1.0


def in_frame(mask: Mask, width_px: int, height_px: int) -> Mask:
    """A mask at another size, bool [height_px, width_px]: a pixel is in it where at least half of its area is.

    Args:
        mask: bool [H, W].
    """
    if mask.shape == (height_px, width_px):
        return mask
    smaller = width_px <= mask.shape[1] and height_px <= mask.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    held: Mask = cv2.resize(mask.astype(np.float32), (width_px, height_px), interpolation=how) >= 0.5
    return held


def measure(rgb: U8, image: IndexMap, *, min_area_px: int, mask: Mask | None = None, reach_px: float = 4.0) -> Quality:
    """All figures of one map.

    Args:
        rgb: uint8 [H, W, 3], sRGB, the photo in the map's frame.
        image: the map; it must be painted everywhere.
        min_area_px: the smallest area that a region may have.
        mask: bool [H, W], the true silhouette, where there is one.
        reach_px: see `outline_recall`.
    """
    difference = float(delta_e(srgb_to_lab(rgb), palette_lab(image.palette)[image.index]).mean())
    return Quality(
        delta_e=difference,
        delta_e_ratio=difference / max(least_delta_e(rgb, image.palette), 1e-9),
        regions=count_regions(image.index),
        undersized=undersized(image.index, min_area_px),
        edge_f1=edge_f1(rgb, image.index),
        outline_recall=None if mask is None else outline_recall(mask, image.index, reach_px),
    )
