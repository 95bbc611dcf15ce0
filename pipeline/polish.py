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
def _polish_rows(
    framed: U8,
    stride: int,
    steps: I32,
    weights: I32,
    near: U8,
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
            if not near[y, x]:
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
    near = near_border(index, int(sigma_px))  # beyond it the other label has too few votes to win
    flat, out = framed.ravel(), np.empty_like(index)

    def rows(first: int, last: int) -> None:
        _polish_rows(flat, stride, steps, weights, near, cells, costs, pull, out, first, last)

    by_rows(rows, len(index))
    return out
