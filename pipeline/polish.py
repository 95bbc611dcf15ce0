"""Smoothing of region borders by threshold dynamics.

Merriman, Bence and Osher (1992) move an interface by its curvature: blur each label's indicator, then give each pixel
to the label that is strongest there. With the data term added this is the scheme of Esedoḡlu and Otto (2015). Only
pixels within reach of a border can change, so only those are visited, and the cost does not grow with the palette.
"""

from __future__ import annotations

from collections.abc import Sequence

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


@kernel
def border_distance(index: U8, limit: int) -> U8:
    """uint8 [H, W]: chessboard distance in pixels to the nearest pixel of another label, at most `limit`."""
    height, width = index.shape
    far = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            here = index[y, x]
            same = index[y, max(x - 1, 0)] == here and index[y, min(x + 1, width - 1)] == here
            same = same and index[max(y - 1, 0), x] == here and index[min(y + 1, height - 1), x] == here
            far[y, x] = limit if same else 1
    for y in range(height):
        for x in range(width):
            best = min(far[y, x], far[y, max(x - 1, 0)] + 1)
            for u in range(max(x - 1, 0), min(x + 2, width)):
                best = min(best, far[max(y - 1, 0), u] + 1)
            far[y, x] = best
    for y in range(height - 1, -1, -1):
        for x in range(width - 1, -1, -1):
            best = min(far[y, x], far[y, min(x + 1, width - 1)] + 1)
            for u in range(max(x - 1, 0), min(x + 2, width)):
                best = min(best, far[min(y + 1, height - 1), u] + 1)
            far[y, x] = best
    return far


@kernel
def _polish_rows(
    framed: U8,
    stride: int,
    steps: I32,
    weights: I32,
    far: U8,
    reach: int,
    cells: I32,
    costs: F32,
    pull: F32,
    out: U8,
    first: int,
    last: int,
) -> None:
    """Polish some rows. `framed` is the flat map with a rim of `_OUTSIDE`; `steps` lead to the window's pixels."""
    width = out.shape[1]
    radius = (stride - width) // 2
    votes = np.zeros(_OUTSIDE + 1, np.int64)
    for y in range(first, last):
        for x in range(width):
            at = (y + radius) * stride + x + radius
            out[y, x] = framed[at]
            if far[y, x] > reach:
                continue
            votes[:] = 0
            for i in range(steps.size):
                votes[framed[at + steps[i]]] += weights[i]
            votes[_OUTSIDE] = 0
            total = votes.sum()
            best = np.inf
            for k in range(costs.shape[1]):
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
    weights = gaussian_weights(sigma_px, radius).ravel()
    framed = np.pad(index, radius, constant_values=_OUTSIDE)
    stride = framed.shape[1]
    side = np.arange(-radius, radius + 1, dtype=np.int32)
    steps = (side[:, None] * np.int32(stride) + side[None, :]).ravel()
    reach = int(sigma_px + 1.0)  # beyond it the other label has too few votes to win
    far = border_distance(index, reach + 1)
    flat, out = framed.ravel(), np.empty_like(index)

    def rows(first: int, last: int) -> None:
        _polish_rows(flat, stride, steps, weights, far, reach, cells, costs, pull, out, first, last)

    by_rows(rows, len(index))
    return out
