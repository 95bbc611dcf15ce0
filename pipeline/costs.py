"""What each pixel costs in each ink: CIEDE2000 by occupied colour cells.

A picture of 700,000 pixels has some ten thousand occupied cells of 4×4×4 sRGB values, so only those meet the palette. A
cell stands for the mean of its own pixels, which makes flat art exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.colour import delta_e_matrix, palette_lab, srgb_to_lab
from pipeline.compiled import by_rows, kernel
from pipeline.types import F32, F64, U8, Palette

I32 = npt.NDArray[np.int32]

_CELLS = 64**3

_VIVID_CHROMA, _SHADE_CHROMA = 45.0, 15.0
_SAME_HUE_COSINE = 0.906  # 25°
_SHADE_LIGHTNESS = 0.62  # of the vivid ink's L*
_LENIENT = (2.2, 1.8)


@kernel
def _cells(rgb: U8) -> tuple[I32, U8]:
    height, width = rgb.shape[:2]
    totals = np.zeros((_CELLS, 3), np.int64)
    counts = np.zeros(_CELLS, np.int64)
    ids = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            cell = (rgb[y, x, 0] >> 2) << 12 | (rgb[y, x, 1] >> 2) << 6 | rgb[y, x, 2] >> 2
            ids[y, x] = cell
            counts[cell] += 1
            for c in range(3):
                totals[cell, c] += rgb[y, x, c]
    number = np.zeros(_CELLS, np.int32)
    colours = np.empty((_CELLS, 3), np.uint8)
    found = 0
    for cell in range(_CELLS):
        if counts[cell] > 0:
            for c in range(3):
                colours[found, c] = (totals[cell, c] + counts[cell] // 2) // counts[cell]
            number[cell] = found
            found += 1
    for y in range(height):
        for x in range(width):
            ids[y, x] = number[ids[y, x]]
    return ids, colours[:found].copy()


def ink_costs(rgb: U8, palette: Palette, lenience: F64 | None = None) -> tuple[I32, F32]:
    """CIEDE2000 of every pixel against every ink, as a table of colours and each pixel's row in it.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        palette: K inks.
        lenience: of each ink towards darker colours, as `shade_lenience` makes it; None for the plain formula.

    Returns:
        int32 [H, W] rows, and float32 [N, K] differences.
    """
    cells, colours = _cells(np.ascontiguousarray(rgb))
    return cells, colour_costs(colours, palette, lenience)


def colour_costs(colours: U8, palette: Palette, lenience: F64 | None = None) -> F32:
    """float32 [N, K]: CIEDE2000 of each colour, uint8 [N, 3], sRGB, against each ink; `lenience` as in `ink_costs`."""
    return delta_e_matrix(srgb_to_lab(colours), palette_lab(palette), lenience)


@kernel
def _nearest_rows(cells: I32, nearest: U8, out: U8, first: int, last: int) -> None:
    for y in range(first, last):
        for x in range(cells.shape[1]):
            out[y, x] = nearest[cells[y, x]]


def nearest_inks(cells: I32, costs: F32) -> U8:
    """uint8 [H, W]: the ink of least cost at each pixel, the first of equals."""
    nearest = costs.argmin(axis=1).astype(np.uint8)
    out = np.empty(cells.shape, np.uint8)
    by_rows(lambda a, b: _nearest_rows(cells, nearest, out, a, b), len(cells))
    return out


def shade_lenience(palette: Palette) -> F64:
    """CIEDE2000's kL and kC of each ink for its darker shades: above 1 where the palette has no dark ink of its hue.

    A palette whose only red is bright would answer a shaded red door with brown. Such an ink stands for its own shades:
    towards them, lightness and chroma count for less, so that the hue decides.

    Returns:
        float64 [K, 2].
    """
    lab = palette_lab(palette)
    chroma = np.sqrt(lab[:, 1] ** 2 + lab[:, 2] ** 2)
    lenience = np.ones((len(lab), 2))
    for ink in np.flatnonzero(chroma > _VIVID_CHROMA):
        along = (lab[:, 1:] @ lab[ink, 1:]) / np.maximum(chroma * chroma[ink], 1e-9)
        shades = (along > _SAME_HUE_COSINE) & (chroma > _SHADE_CHROMA) & (lab[:, 0] < _SHADE_LIGHTNESS * lab[ink, 0])
        if not shades.any():
            lenience[ink] = _LENIENT
    return lenience
