"""Edge-preserving smoothing: the bilateral filter of Tomasi and Manduchi (1998), in integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.colour import exp_negative
from pipeline.compiled import by_rows, kernel
from pipeline.types import U8

I32 = npt.NDArray[np.int32]

_ONE = 1024


@kernel
def _bilateral_rows(
    framed: U8, stride: int, steps: I32, closeness: I32, likeness: I32, out: U8, first: int, last: int
) -> None:
    """Filter some rows. `framed` is the picture with a rim, [pixels, 3]; `steps` lead to the window's pixels there."""
    width = out.shape[1]
    radius = (stride - width) // 2
    for y in range(first, last):
        for x in range(width):
            at = (y + radius) * stride + x + radius
            r0, g0, b0 = np.int32(framed[at, 0]), np.int32(framed[at, 1]), np.int32(framed[at, 2])
            r = g = b = total = np.int32(0)
            for i in range(steps.size):
                r1 = np.int32(framed[at + steps[i], 0])
                g1 = np.int32(framed[at + steps[i], 1])
                b1 = np.int32(framed[at + steps[i], 2])
                weight = (closeness[i] * likeness[abs(r1 - r0) + abs(g1 - g0) + abs(b1 - b0)]) >> 10
                r += weight * r1
                g += weight * g1
                b += weight * b1
                total += weight
            half = total >> 1
            out[y, x, 0] = (r + half) // total
            out[y, x, 1] = (g + half) // total
            out[y, x, 2] = (b + half) // total


def bilateral(rgb: U8, *, radius_px: int = 3, sigma_px: float = 4.0, sigma_colour: float = 24.0) -> U8:
    """Smooth flat areas and keep edges.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        radius_px: of the round window.
        sigma_px: of the spatial Gaussian.
        sigma_colour: of the Gaussian over |ΔR| + |ΔG| + |ΔB|.

    Returns:
        uint8 [H, W, 3].
    """
    side = range(-radius_px, radius_px + 1)
    offsets = np.array([(y, x) for y in side for x in side if y * y + x * x <= radius_px * radius_px], np.int32)
    falloff = 1.0 / (2.0 * sigma_px * sigma_px)
    closeness = np.array([round(_ONE * exp_negative((y * y + x * x) * falloff)) for y, x in offsets.tolist()], np.int32)
    decay = 1.0 / (2.0 * sigma_colour * sigma_colour)
    likeness = np.array([round(_ONE * exp_negative(d * d * decay)) for d in range(766)], np.int32)
    framed = np.pad(rgb, ((radius_px, radius_px), (radius_px, radius_px), (0, 0)), mode="edge")
    stride = framed.shape[1]
    steps = (offsets[:, 0] * np.int32(stride) + offsets[:, 1]).astype(np.int32)
    flat = framed.reshape(-1, 3)
    out = np.empty(rgb.shape, np.uint8)
    by_rows(lambda a, b: _bilateral_rows(flat, stride, steps, closeness, likeness, out, a, b), len(out))
    return out
