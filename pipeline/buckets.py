"""The sizes that SDXL paints at, and how a photo of any aspect is laid on one.

SDXL was trained on a table of sizes: multiples of 64 from half to twice its native side, with 0.9 to 1 times that
side's square of pixels (Podell et al. 2023, appendix I). The photo is laid on the one where it gets the most pixels:
whole, in its own aspect, in the middle. What is left over, a few percent but for panoramas, is filled with the photo's
reflection, so that neither depth nor edges know of a frame; and it is cut off again from what was painted. Nothing of
the photo is cropped, and nothing is stretched.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from pipeline.resample import resize_linear
from pipeline.types import U8

MULTIPLE_PX = 64
LEAST_SHARE = Fraction(9, 10)


@dataclass(frozen=True, slots=True)
class Canvas:
    """One of the sizes, and where the photo lies on it.

    Attributes:
        width_px, height_px: of the canvas, multiples of 64.
        left_px, top_px, inner_width_px, inner_height_px: the photo's place.
    """

    width_px: int
    height_px: int
    left_px: int
    top_px: int
    inner_width_px: int
    inner_height_px: int

    def lay(self, rgb: U8) -> U8:
        """The photo on the canvas, reflected beyond its edges: uint8 [height_px, width_px, 3].

        Args:
            rgb: uint8 [H, W, 3], sRGB, of the aspect that the canvas was made for.
        """
        inner = resize_linear(np.ascontiguousarray(rgb), self.inner_width_px, self.inner_height_px)
        below_px = self.height_px - self.top_px - self.inner_height_px
        right_px = self.width_px - self.left_px - self.inner_width_px
        border = cv2.BORDER_REFLECT  # repeats the last pixel too, and so takes a photo of one row
        laid: U8 = cv2.copyMakeBorder(inner, self.top_px, below_px, self.left_px, right_px, border)
        return laid

    def cut(self, picture: U8) -> U8:
        """The photo's place out of a picture of the canvas: uint8 [inner_height_px, inner_width_px, …]."""
        rows = slice(self.top_px, self.top_px + self.inner_height_px)
        columns = slice(self.left_px, self.left_px + self.inner_width_px)
        return np.ascontiguousarray(picture[rows, columns])


def fit_canvas(width_px: int, height_px: int, native_px: int) -> Canvas:
    """The canvas on which a photo gets the most pixels; of several, the smallest.

    Args:
        width_px, height_px: of the photo; only their ratio counts.
        native_px: side of the square that the model was trained on, a multiple of 64.
    """
    canvases = [_laid(size, width_px, height_px) for size in bucket_sizes(native_px)]
    return max(canvases, key=lambda c: (c.inner_width_px * c.inner_height_px, -c.width_px * c.height_px))


def bucket_sizes(native_px: int) -> tuple[tuple[int, int], ...]:
    """All (width, height) of the table in pixels, by width."""
    sides = range(max(native_px // 2 // MULTIPLE_PX, 1) * MULTIPLE_PX, 2 * native_px + 1, MULTIPLE_PX)
    area = native_px * native_px
    return tuple((w, h) for w in sides for h in sides if LEAST_SHARE * area <= w * h <= area)


def _laid(size: tuple[int, int], width_px: int, height_px: int) -> Canvas:
    wide, high = size
    scale = min(Fraction(wide, width_px), Fraction(high, height_px))
    inner_width, inner_height = max(round(width_px * scale), 1), max(round(height_px * scale), 1)
    return Canvas(wide, high, (wide - inner_width) // 2, (high - inner_height) // 2, inner_width, inner_height)
