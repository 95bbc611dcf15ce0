"""Line work: coherent lines by a difference of Gaussians steered along the edge flow (Kang, Lee and Chui 2007)."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.colour import exp_negative, srgb_to_lab
from pipeline.compiled import by_rows, kernel
from pipeline.types import F32, U8, Mask

_NARROW_PX, _WIDE_PX = 1.0, 1.6
_ALONG_PX = 3.0
_LEAST_LENGTH_PX, _LEAST_AREA_PX = 36, 60


def _bell(sigma_px: float, radius_px: int) -> F32:
    """float32 [r + 1]: one side of a Gaussian, 1 at the centre."""
    scale = 1.0 / (2.0 * sigma_px * sigma_px)
    return np.array([exp_negative(i * i * scale) for i in range(radius_px + 1)], np.float32)


@kernel
def _smooth_rows(plane: F32, bell: F32, out: F32, first: int, last: int) -> None:
    """Blur each row's neighbours along x into the transposed output: called twice it blurs both ways."""
    width = plane.shape[1]
    for y in range(first, last):
        for x in range(width):
            total = plane[y, x] * bell[0]
            weight = bell[0]
            for i in range(1, bell.size):
                total += bell[i] * (plane[y, max(x - i, 0)] + plane[y, min(x + i, width - 1)])
                weight += bell[i] + bell[i]
            out[x, y] = total / weight


def _smooth(plane: F32, sigma_px: float) -> F32:
    bell = _bell(sigma_px, int(2.5 * sigma_px + 0.5))
    turned = np.empty(plane.shape[::-1], np.float32)
    by_rows(lambda a, b: _smooth_rows(plane, bell, turned, a, b), len(plane))
    out = np.empty_like(plane)
    by_rows(lambda a, b: _smooth_rows(turned, bell, out, a, b), len(turned))
    return out


@kernel
def _tangents(xx: F32, yy: F32, xy: F32, tangent_x: F32, tangent_y: F32) -> None:
    """Unit vectors along the edges: the lesser eigenvector of the smoothed structure tensor."""
    for y in range(xx.shape[0]):
        for x in range(xx.shape[1]):
            a, b, c = xx[y, x], yy[y, x], xy[y, x]
            root = math.sqrt((a - b) * (a - b) + 4.0 * c * c)
            u, v = (2.0 * c, b - a - root) if a >= b else (a - b - root, 2.0 * c)
            length = math.sqrt(u * u + v * v)
            tangent_x[y, x] = u / length if length > 1e-9 else 1.0
            tangent_y[y, x] = v / length if length > 1e-9 else 0.0


@kernel
def _across_rows(
    plane: F32, tangent_x: F32, tangent_y: F32, narrow: F32, wide: F32, out: F32, first: int, last: int
) -> None:
    """Difference of Gaussians along each pixel's normal, bilinear samples; negative on a dark line."""
    height, width = plane.shape
    reach = wide.size - 1
    for y in range(first, last):
        for x in range(width):
            inner = outer = inner_weight = outer_weight = 0.0
            for i in range(-reach, reach + 1):
                u = min(max(x - tangent_y[y, x] * i, 0.0), width - 1.001)
                v = min(max(y + tangent_x[y, x] * i, 0.0), height - 1.001)
                left, top = int(u), int(v)
                right, low = u - left, v - top
                value = (plane[top, left] * (1.0 - right) + plane[top, left + 1] * right) * (1.0 - low) + (
                    plane[top + 1, left] * (1.0 - right) + plane[top + 1, left + 1] * right
                ) * low
                inner += narrow[abs(i)] * value
                outer += wide[abs(i)] * value
                inner_weight += narrow[abs(i)]
                outer_weight += wide[abs(i)]
            out[y, x] = inner / inner_weight - outer / outer_weight


@kernel
def _along_rows(response: F32, tangent_x: F32, tangent_y: F32, bell: F32, out: F32, first: int, last: int) -> None:
    """Average of the response along the flow line through each pixel, both ways."""
    height, width = response.shape
    for y in range(first, last):
        for x in range(width):
            total = bell[0] * response[y, x]
            weight = bell[0]
            for way in (-1.0, 1.0):
                u, v = float(x), float(y)
                step_x, step_y = way * tangent_x[y, x], way * tangent_y[y, x]
                for i in range(1, bell.size):
                    u += step_x
                    v += step_y
                    column, row = math.floor(u + 0.5), math.floor(v + 0.5)
                    if not (0 <= column < width and 0 <= row < height):
                        break
                    total += bell[i] * response[row, column]
                    weight += bell[i]
                    turn = 1.0 if tangent_x[row, column] * step_x + tangent_y[row, column] * step_y >= 0.0 else -1.0
                    step_x, step_y = turn * tangent_x[row, column], turn * tangent_y[row, column]
            out[y, x] = total / weight


def flow_response(lightness: F32) -> F32:
    """How far each pixel is darker than its surroundings across the flow, smoothed along it.

    Args:
        lightness: float32 [H, W], L*.

    Returns:
        float32 [H, W], in L*; positive on dark lines.
    """
    gradient_x, gradient_y = np.gradient(lightness, axis=1), np.gradient(lightness, axis=0)
    products = (gradient_x * gradient_x, gradient_y * gradient_y, gradient_x * gradient_y)
    xx, yy, xy = (_smooth(np.ascontiguousarray(p, np.float32), 2.0) for p in products)
    tangent_x, tangent_y = np.empty_like(lightness), np.empty_like(lightness)
    _tangents(xx, yy, xy, tangent_x, tangent_y)
    reach = int(3 * _WIDE_PX)
    narrow, wide, along = _bell(_NARROW_PX, reach), _bell(_WIDE_PX, reach), _bell(_ALONG_PX, int(2 * _ALONG_PX))
    across, out = np.empty_like(lightness), np.empty_like(lightness)
    by_rows(lambda a, b: _across_rows(lightness, tangent_x, tangent_y, narrow, wide, across, a, b), len(across))
    by_rows(lambda a, b: _along_rows(across, tangent_x, tangent_y, along, out, a, b), len(out))
    return -out


def flow_lines(rgb: U8, importance: U8, strength: float) -> Mask:
    """Dark lines of a photo, at least three pixels wide.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        importance: uint8 [H, W]; lines need more contrast where it is low.
        strength: above 0 (only the boldest lines) to 1.

    Returns:
        bool [H, W].
    """
    response = flow_response(np.ascontiguousarray(srgb_to_lab(rgb)[..., 0], np.float32))
    threshold = np.float32(2.6 - 2.0 * strength) * (np.float32(2.0) - importance * np.float32(1.0 / 255.0))
    weak = (response > threshold).astype(np.uint8)
    strong = response > threshold * np.float32(2.0)
    count, ids, stats, _ = cv2.connectedComponentsWithStats(weak, connectivity=8)
    keep = np.zeros(count, bool)
    keep[np.unique(ids[strong])] = True
    scale = max(rgb.shape[:2]) / 1024
    keep &= np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) >= _LEAST_LENGTH_PX * scale
    keep &= stats[:, cv2.CC_STAT_AREA] >= _LEAST_AREA_PX * scale * scale
    keep[0] = False
    thick: npt.NDArray[np.uint8] = cv2.dilate(keep[ids].astype(np.uint8), np.ones((3, 3), np.uint8))
    return thick > 0
