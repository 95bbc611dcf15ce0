"""Phase 3's first step on a GPU: each pixel's colour cell and its nearest ink.

Only what is counted and looked up for every pixel runs here, in integers; what a colour costs in an ink comes as a
table that the CPU made. So the labels are the CPU's on every pixel, whatever the device.
"""

# ruff: noqa: PLC0415 - torch is heavy, and only studio workers have it

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from models.device import CPU, Device
from pipeline.types import F32, I32, U8

if TYPE_CHECKING:
    import torch

_CELLS = 64**3


class Quantiser:
    """`quantise` on a worker's device; it has no weights.

    Attributes:
        networks: none.
    """

    networks: tuple[torch.nn.Module, ...] = ()

    def __init__(self, device: Device) -> None:
        self._device = device

    def quantise(self, rgb: U8, costs_of: Callable[[U8], F32], *, on_cpu: bool = False) -> tuple[I32, F32, U8]:
        """See the function of that name; `on_cpu` leaves the device alone, for where its memory is short."""
        return quantise(rgb, costs_of, CPU if on_cpu else self._device)


def quantise(rgb: U8, costs_of: Callable[[U8], F32], device: Device) -> tuple[I32, F32, U8]:
    """The cell and the nearest ink of every pixel, as `pipeline.costs.ink_costs` and `nearest_inks` find them.

    A cell is 4×4×4 sRGB values and stands for the rounded mean of its pixels; occupied cells are numbered in order.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        costs_of: float32 [N, K], what each of N colours, uint8 [N, 3], costs in each of K inks; called once.
        device: where it is counted.

    Returns:
        int32 [H, W], each pixel's row of the costs; the costs; uint8 [H, W], each pixel's ink of least cost, of equals
        the first.
    """
    import torch

    with torch.inference_mode():
        channels = torch.from_numpy(np.ascontiguousarray(rgb)).to(device.place()).reshape(-1, 3).unbind(dim=1)
        red, green, blue = ((channel >> 2).long() for channel in channels)
        cell = red << 12 | green << 6 | blue
        del red, green, blue
        counts = torch.bincount(cell, minlength=_CELLS)
        used = counts > 0
        totals = [torch.zeros_like(counts).scatter_add_(0, cell, channel.long())[used] for channel in channels]
        share = counts[used]
        means = [torch.div(total + share // 2, share, rounding_mode="floor") for total in totals]
        rows = (used.cumsum(0) - 1)[cell]
        costs = costs_of(torch.stack(means, dim=1).to(torch.uint8).cpu().numpy())
        nearest = torch.from_numpy(costs.argmin(axis=1).astype(np.uint8)).to(device.place())
        shape = rgb.shape[:2]
        return rows.int().cpu().numpy().reshape(shape), costs, nearest[rows].cpu().numpy().reshape(shape)
