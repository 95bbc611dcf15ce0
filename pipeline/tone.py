"""Tone mapping into the palette's range of lightness, and vibrance that spares neutrals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.colour import ENCODED, LINEAR, lab_of_linear, linear_of_lab, palette_lab, srgb_of_linear, srgb_to_lab
from pipeline.compiled import by_rows, kernel
from pipeline.types import F64, U8, Palette

I64 = npt.NDArray[np.int64]

_BINS = 512
_CURVE_STEPS = 1024
_SAMPLING_PX = 2  # one pixel in four is plenty for quantiles
_LEAST_SPAN = 30.0  # a flat photo is not blown up into full contrast
_MIDTONE = (0.36, 0.62)  # where the median may lie, as a share of the span


@dataclass(frozen=True, slots=True)
class Exposure:
    """A photo's lightness in L*: the ends of its important part, and the median of all of it."""

    low: float
    high: float
    median: float


@kernel
def _histogram(lab: F64, importance: U8) -> tuple[I64, I64]:
    weighted = np.zeros(_BINS, np.int64)
    plain = np.zeros(_BINS, np.int64)
    for y in range(lab.shape[0]):
        for x in range(lab.shape[1]):
            i = min(max(int(lab[y, x, 0] * (_BINS / 100.0)), 0), _BINS - 1)
            weighted[i] += importance[y, x]
            plain[i] += 1
    return weighted, plain


def _quantile(histogram: I64, share: float) -> float:
    """L* below which `share` of the histogram lies, linear inside its bin."""
    sums = np.cumsum(histogram)
    target = share * float(sums[-1])
    i = int(np.searchsorted(sums, target))
    before = float(sums[i - 1]) if i else 0.0
    inside = (target - before) / max(float(histogram[i]), 1.0)
    return (i + inside) * (100.0 / _BINS)


def measure_exposure(rgb: U8, importance: U8, frame: tuple[int, int, int, int]) -> Exposure:
    """Exposure of the part inside `frame` (top, bottom, left, right); letterbox bars stay out of it.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        importance: uint8 [H, W].
    """
    top, bottom, left, right = frame
    sample = (slice(top, bottom, _SAMPLING_PX), slice(left, right, _SAMPLING_PX))
    weighted, plain = _histogram(srgb_to_lab(np.ascontiguousarray(rgb[sample])), importance[sample])
    if weighted.sum() == 0:
        weighted = plain
    # The median is the whole picture's, so that a black car on a grey street is not lifted to grey.
    return Exposure(_quantile(weighted, 0.005), _quantile(weighted, 0.995), _quantile(plain, 0.5))


def lightness_curve(exposure: Exposure, darkest: float, lightest: float, strength: float) -> F64:
    """float64 [1025]: L* out for L* in = i · 100 / 1024.

    The photo's range is stretched to the palette's and its median drawn towards mid-tone by Schlick's bias curve
    (1994), which is rational; the result is blended with the identity by `strength`.
    """
    span = max(exposure.high - exposure.low, _LEAST_SPAN)
    median = min(max((exposure.median - exposure.low) / span, 0.03), 0.97)
    target = min(max(median, _MIDTONE[0]), _MIDTONE[1])
    target = min(max(target, median * math.sqrt(median)), math.sqrt(median))
    bend = (median / target - 1.0) / (1.0 - median)
    darkness = min(max((0.28 - median) / 0.15, 0.0), 1.0)
    strength = min(1.0, strength * (1.0 + 0.8 * darkness))
    x = np.arange(_CURVE_STEPS + 1) * (100.0 / _CURVE_STEPS)
    unit = np.clip((x - exposure.low) / span, 0.0, 1.0)
    stretched = darkest + (lightest - darkest) * (unit / (bend * (1.0 - unit) + 1.0))
    curve: F64 = (1.0 - strength) * np.clip(x, darkest, lightest) + strength * stretched
    return curve


@kernel
def _tone_rows(rgb: U8, linear: F64, encoded: U8, curve: F64, vibrance: float, out: U8, first: int, last: int) -> None:
    for y in range(first, last):
        for x in range(rgb.shape[1]):
            lightness, a, b = lab_of_linear(linear[rgb[y, x, 0]], linear[rgb[y, x, 1]], linear[rgb[y, x, 2]])
            at = min(max(lightness, 0.0), 100.0) * (_CURVE_STEPS / 100.0)
            i = min(int(at), _CURVE_STEPS - 1)
            lightness = curve[i] + (curve[i + 1] - curve[i]) * (at - i)
            chroma = math.sqrt(a * a + b * b)
            rise = min(max((chroma - 6.0) / 14.0, 0.0), 1.0)
            gain = 1.0 + vibrance * rise * rise * (3.0 - 2.0 * rise) * min(max(1.0 - chroma / 90.0, 0.0), 1.0)
            red, green, blue = linear_of_lab(lightness, a * gain, b * gain)
            out[y, x, 0] = srgb_of_linear(red, encoded)
            out[y, x, 1] = srgb_of_linear(green, encoded)
            out[y, x, 2] = srgb_of_linear(blue, encoded)


def map_tones(rgb: U8, palette: Palette, exposure: Exposure, tone: float) -> U8:
    """The photo in the palette's range of lightness.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        palette: its darkest and lightest ink are the ends of the range.
        exposure: of this photo.
        tone: strength, 0 (returned as it is) to 1.

    Returns:
        uint8 [H, W, 3].
    """
    if tone == 0.0:
        return rgb
    inks = palette_lab(palette)[:, 0]
    curve = lightness_curve(exposure, float(inks.min()), float(inks.max()), tone)
    source = np.ascontiguousarray(rgb)
    out = np.empty_like(source)
    by_rows(lambda a, b: _tone_rows(source, LINEAR, ENCODED, curve, 0.7 * tone, out, a, b), len(source))
    return out
