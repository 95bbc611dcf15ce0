"""Phase 3: illustration → index map. Every pixel gets an ink, and the regions stay few, whole and smooth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.backdrop import cut_out
from pipeline.colour import lab_planes, palette_lab
from pipeline.contours import COARSE, FINE, NO_LINE, contour_hint, lost_contours
from pipeline.costs import colour_costs, ink_costs, nearest_inks, shade_lenience
from pipeline.polish import polish_borders
from pipeline.regions import border_lengths, count_regions, merge_regions
from pipeline.types import F32, U8, UNPAINTED, Illustration, IndexMap, Palette

I32 = npt.NDArray[np.int32]

Quantise = Callable[[U8, Callable[[U8], F32]], tuple[I32, F32, U8]]
"""What `models.quantise.quantise` does on its device: from a picture and what colours cost, as a function of them, to
each pixel's row of those costs, the costs, and each pixel's nearest ink."""

_SCALE_LIMIT = 14.0  # λ at 1024 px: ΔE · px² per px of border
_MIN_AREA_PX = 48  # at 1024 px
_GROUND_WEIGHT = 1.0 / 3.0
_POLISH_PULL = 10.0
_POLISH_SIGMAS_PX = (2.2, 1.6, 1.2)
_REGION_BUDGET = 700  # at detail 0.5
_PINNED = np.float32(200.0)  # ΔE that no merge pays: a pinned pixel keeps its ink


@dataclass(frozen=True, slots=True)
class EnforceOptions:
    """Options of phase 3.

    Attributes:
        detail: how many regions survive, 0 to 1; each tenth is worth a factor of 1.32 in the smallest area.
        background: keep it, leave it unpainted, or paint it in the ink of this palette index.
    """

    detail: float = 0.5
    background: Literal["keep", "remove"] | int = "keep"


@dataclass(frozen=True, slots=True)
class _Limits:
    """What the region merging stops at, for one picture size and one `detail`."""

    scale: float
    min_area_px: int
    budget: int

    @classmethod
    def of(cls, shape: tuple[int, ...], detail: float) -> _Limits:
        size = max(shape) / 1024
        fineness = 4.0 ** round(2.0 * detail - 1.0, 6)
        return cls(
            scale=_SCALE_LIMIT * size / fineness,
            min_area_px=max(9, int(_MIN_AREA_PX * size * size / fineness)),
            budget=int(_REGION_BUDGET * fineness),
        )


def enforce(
    illustration: Illustration, palette: Palette, options: EnforceOptions, quantise: Quantise | None = None
) -> IndexMap:
    """Palette-constrained segmentation of the illustration.

    Args:
        illustration: phase 2's picture.
        palette: K inks.
        options: what the caller chose.
        quantise: finds the first inks; None: this CPU does. It can't change the result.

    Returns:
        An index map in which every region holds a 3×3 square and at least the smallest area, unless the whole picture
        is one region.
    """
    limits = _Limits.of(illustration.rgb.shape[:2], options.detail)
    cells, costs, first_inks = _first_inks(illustration.rgb, palette, quantise)
    lab = lab_planes(illustration.rgb)
    across, down = border_lengths(lab)
    share = illustration.importance.astype(np.float32) * np.float32(1.0 / 255.0)
    weight = np.float32(_GROUND_WEIGHT) + np.float32(1.0 - _GROUND_WEIGHT) * share

    def merged(index: U8, scale: float) -> U8:
        return merge_regions(
            index, cells, costs, weight, across, down, scale_limit=scale, min_area_px=limits.min_area_px
        )

    index = merged(first_inks, limits.scale)
    scale = limits.scale
    while count_regions(index) > limits.budget:
        scale *= 1.5
        index = merged(index, scale)
    index = polish_borders(index, cells, costs, _pull(share), _sigmas(index.shape))
    index, cells, costs = _with_lines(index, cells, costs, lab, illustration, palette)
    ground = UNPAINTED
    if options.background != "keep":
        index, cells, costs = cut_out(index, cells, costs, illustration.subject)
        ground = UNPAINTED if options.background == "remove" else options.background
    index = merged(index, scale / 2.0)
    return IndexMap(np.where(index == len(palette), np.uint8(ground), index), palette)


def _first_inks(rgb: U8, palette: Palette, quantise: Quantise | None) -> tuple[I32, F32, U8]:
    lenience = shade_lenience(palette)
    if quantise is not None:
        return quantise(rgb, lambda colours: colour_costs(colours, palette, lenience))
    cells, costs = ink_costs(rgb, palette, lenience)
    return cells, costs, nearest_inks(cells, costs)


def _pull(share: F32) -> F32:
    """How hard borders are smoothed: 2.5 times as hard on the ground as on the subject."""
    pull: F32 = np.float32(_POLISH_PULL) * (np.float32(2.5) - np.float32(1.5) * share)
    return pull


def _sigmas(shape: tuple[int, ...]) -> tuple[float, ...]:
    size = max(max(shape) / 1024, 0.7)
    return tuple(sigma * size for sigma in _POLISH_SIGMAS_PX)


def _with_lines(
    index: U8, cells: I32, costs: F32, lab: F32, illustration: Illustration, palette: Palette
) -> tuple[U8, I32, F32]:
    """Draw the contours that the map lost, and the line work, and pin their pixels to their inks."""
    lines = np.full(index.shape, NO_LINE, np.uint8)
    for scale in (FINE, COARSE):
        hint = contour_hint(illustration.importance, illustration.subject, scale.ground)
        drawn = np.where(lines != NO_LINE, lines, index)
        found = lost_contours(lab, drawn, cells, costs, hint, palette, scale)
        lines = np.where(found != NO_LINE, found, lines)
    if illustration.lines is not None:
        lines[illustration.lines] = int(palette_lab(palette)[:, 0].argmin())
    drawn = lines != NO_LINE
    pins = np.full((len(palette), len(palette)), _PINNED, np.float32)
    np.fill_diagonal(pins, 0.0)
    rows = np.where(drawn, lines.astype(np.int32) + np.int32(len(costs)), cells)
    return np.where(drawn, lines, index), rows, np.concatenate([costs, pins])
