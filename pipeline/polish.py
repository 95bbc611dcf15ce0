"""Smoothing of region borders by threshold dynamics.

Merriman, Bence and Osher (1992) move an interface by its curvature: blur each label's indicator, then give each pixel
to the label that is strongest there. With the data term added this is the scheme of Esedoḡlu and Otto (2015). Only
pixels within reach of a border can change, so only those are visited, and the cost does not grow with the palette.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.colour import exp_negative
from pipeline.compiled import by_rows, kernel
from pipeline.types import F32, U8

I32 = npt.NDArray[np.int32]

_OUTSIDE = 64  # no ink has this label
_WEIGHT_ONE = 4096


def gaussian_weights(sigma_px: float, radius_px: int) -> I32:
    """int32 [2r + 1, 2r + 1]: a Gaussian window, 4096 at its centre."""
    side = range(-radius_px, radius_px + 1)
    scale = 1.0 / (2.0 * sigma_px * sigma_px)
    return np.array(
        [[round(_WEIGHT_ONE * exp_negative((x * x + y * y) * scale)) for x in side] for y in side], dtype=np.int32
    )


def near_border(index: U8, reach_px: int) -> U8:
    """1 where a pixel that has another label beside it lies within `reach_px` (chessboard), else 0; uint8 [H, W].

    A reach of 0 gives those pixels themselves.
    """
    edge = np.zeros(index.shape, np.uint8)
    across, down = index[:, 1:] != index[:, :-1], index[1:] != index[:-1]
    edge[:, :-1] |= across
    edge[:, 1:] |= across
    edge[:-1] |= down
    edge[1:] |= down
    side = 2 * reach_px + 1
    return np.asarray(cv2.dilate(edge, np.ones((side, side), np.uint8)), np.uint8)


@kernel
def _run_rows(framed: U8, out: U8, first: int, last: int) -> None:
    """How many pixels, 255 at most, have a pixel's label from it to the right."""
    width = framed.shape[1]
    for y in range(first, last):
        out[y, width - 1] = 1
        for x in range(width - 2, -1, -1):
            same = framed[y, x] == framed[y, x + 1]
            out[y, x] = min(out[y, x + 1] + 1, 255) if same else 1


@kernel
def _polish_rows(
    framed: U8, runs: U8, sums: I32, near: U8, cells: I32, costs: F32, pull: F32, out: U8, first: int, last: int
) -> None:
    """Polish some rows. `framed` is the map with a rim of `_OUTSIDE`; `sums` are of the window's rows up to a column.

    The window is walked run by run rather than pixel by pixel, and the votes are the same integers.
    """
    side = sums.shape[0]
    radius = side // 2
    inks = costs.shape[1]
    votes = np.zeros(_OUTSIDE + 1, np.int64)
    window = np.int64(0)
    for v in range(side):
        window += sums[v, side]
    for y in range(first, last):
        for x in range(out.shape[1]):
            out[y, x] = framed[y + radius, x + radius]
            if not near[y, x]:
                continue
            votes[:inks] = 0
            votes[_OUTSIDE] = 0
            for v in range(side):
                u = 0
                while u < side:
                    end = min(u + runs[y + v, x + u], side)
                    votes[framed[y + v, x + u]] += sums[v, end] - sums[v, u]
                    u = end
            total = window - votes[_OUTSIDE]
            best = np.inf
            for k in range(inks):
                if votes[k] > 0:
                    energy = costs[cells[y, x], k] - pull[y, x] * (votes[k] / total)
                    if energy < best:
                        best = energy
                        out[y, x] = k


def polish_borders(index: U8, cells: I32, costs: F32, pull: F32, sigmas_px: Sequence[float]) -> U8:
    """One step of threshold dynamics for each σ.

    Args:
        index: uint8 [H, W], labels below 64.
        cells, costs: as `pipeline.costs.ink_costs` makes them.
        pull: float32 [H, W], how many ΔE the neighbourhood's full agreement is worth.
        sigmas_px: widths of the Gaussian windows, in order.

    Returns:
        uint8 [H, W].
    """
    for sigma in sigmas_px:
        index = _polish_step(index, cells, costs, pull, sigma)
    return index


def _polish_step(index: U8, cells: I32, costs: F32, pull: F32, sigma_px: float) -> U8:
    radius = int(2.2 * sigma_px + 0.5)
    weights = gaussian_weights(sigma_px, radius)
    sums = np.pad(weights.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    framed = np.pad(index, radius, constant_values=_OUTSIDE)
    near = near_border(index, int(sigma_px))  # beyond it the other label has too few votes to win
    runs, out = np.empty_like(framed), np.empty_like(index)
    by_rows(lambda a, b: _run_rows(framed, runs, a, b), len(framed))
    by_rows(lambda a, b: _polish_rows(framed, runs, sums, near, cells, costs, pull, out, a, b), len(index))
    return out
