"""A photo's edges as a ControlNet reads them (Canny 1986), in integers: the same on every machine."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.types import U8

EDGE_SHARE = 0.1
"""Share of the pixels whose gradient is strong enough to begin an edge."""

LEAST_HIGH, MOST_HIGH = 60, 240
"""Bounds of the upper threshold, in L1 of Sobel's 3×3 derivatives: noise begins no edge, and an outline always may. The
published ControlNets were trained with 200."""

LOW_OF_HIGH = 0.4

_BLUR_PX = 5


def canny_edges(rgb: U8) -> U8:
    """Edges, thin and closed where they can be: uint8 [H, W], 255 on 0.

    Each pixel's gradient is that of the channel in which it is strongest: a red car on a grey road of the same
    lightness has an outline too. The upper threshold is what a tenth of the picture's gradients exceed, so that a dull
    photo and a crisp one show about as many edges.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
    """
    smooth = cv2.GaussianBlur(rgb, (_BLUR_PX, _BLUR_PX), 0)
    across, down = (cv2.Sobel(smooth, cv2.CV_16S, *order, ksize=3) for order in ((1, 0), (0, 1)))
    strengths = np.abs(across) + np.abs(down)  # at most 2040 each
    channel = strengths.argmax(axis=2)[..., None]
    across, down, strength = (np.take_along_axis(each, channel, axis=2)[..., 0] for each in (across, down, strengths))
    rank = min(int(strength.size * (1.0 - EDGE_SHARE)), strength.size - 1)
    high = min(max(int(np.partition(strength, rank, axis=None)[rank]), LEAST_HIGH), MOST_HIGH)
    edges: U8 = cv2.Canny(np.ascontiguousarray(across), np.ascontiguousarray(down), round(high * LOW_OF_HIGH), high)
    return edges
