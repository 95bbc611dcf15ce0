"""Index maps that tracers trip over, from a seed, and maps of drawn shapes whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.types import F64, I32, U8, UNPAINTED, IndexMap, Ink, Mask, Palette

MOST_SIDE_PX, MOST_INKS = 64, 64

PALETTE = Palette(
    tuple(Ink(f"#{40 + 3 * n:02X}{37 * n % 256:02X}{255 - 4 * n:02X}", f"ink {n}") for n in range(MOST_INKS))
)
"""Distinct colours: the red part is the ink's number."""

Generator = np.random.Generator


def map_of(index: U8) -> IndexMap:
    return IndexMap(np.ascontiguousarray(index), PALETTE)


def _noise(rng: Generator, height: int, width: int, inks: int) -> I32:
    return rng.integers(0, inks, (height, width), dtype=np.int32)


def _patches(rng: Generator, height: int, width: int, inks: int) -> I32:
    """Noise in blocks, so that there are straight sides, corners and crossings."""
    block = int(rng.integers(2, 12))
    small = _noise(rng, height // block + 1, width // block + 1, inks)
    out: I32 = np.repeat(np.repeat(small, block, 0), block, 1)[:height, :width]
    return out


def _checkers(rng: Generator, height: int, width: int, inks: int) -> I32:
    y, x = np.mgrid[0:height, 0:width] // int(rng.integers(1, 4))
    out: I32 = ((x + y) % inks).astype(np.int32)
    return out


def _diagonals(rng: Generator, height: int, width: int, inks: int) -> I32:
    """Lines one pixel thin, joined at their corners only, both ways and over each other."""
    out = np.zeros((height, width), np.int32)
    along = np.arange(MOST_SIDE_PX)
    for _ in range(int(rng.integers(1, 6))):
        x, y = along + int(rng.integers(-20, 40)), along + int(rng.integers(-20, 40))
        if rng.random() < 0.5:
            x = width - 1 - x
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        out[y[seen], x[seen]] = rng.integers(0, inks)
    return out


def _rings(rng: Generator, height: int, width: int, inks: int) -> I32:
    """Nested rings, by one of three ways to measure the distance from a centre."""
    y, x = np.abs(np.mgrid[0:height, 0:width] - rng.uniform(0, [[[height]], [[width]]]))
    far = (np.maximum(x, y), x + y, np.hypot(x, y))[int(rng.integers(3))]
    out: I32 = (far / rng.uniform(0.9, 5)).astype(np.int32) % inks
    return out


def _blobs(rng: Generator, height: int, width: int, inks: int) -> I32:
    """Smooth shapes: where each of a few blurred fields is the highest."""
    fields = rng.standard_normal((min(inks, 8), height, width))
    blurred = np.stack([cv2.GaussianBlur(field, (0, 0), float(rng.uniform(1, 4))) for field in fields])
    out: I32 = blurred.argmax(axis=0).astype(np.int32)
    return out


def _specks(rng: Generator, height: int, width: int, inks: int) -> I32:
    out = np.zeros((height, width), np.int32)
    seen = rng.random((height, width)) < rng.uniform(0.01, 0.3)
    out[seen] = rng.integers(0, inks, int(seen.sum()))
    return out


def _stripes(rng: Generator, height: int, width: int, inks: int) -> I32:
    y, x = np.mgrid[0:height, 0:width]
    out: I32 = (
        ((x * int(rng.integers(-3, 4)) + y * int(rng.integers(0, 4))) // int(rng.integers(1, 5))) % inks
    ).astype(np.int32)
    return out


def _figures(rng: Generator, height: int, width: int, inks: int) -> I32:
    """Discs, boxes and lines over each other, without anti-aliasing."""
    out = np.zeros((height, width), np.int32)
    for _ in range(int(rng.integers(1, 12))):
        ink = int(rng.integers(0, inks))
        one, two = rng.integers(-8, MOST_SIDE_PX, 2).tolist(), rng.integers(-8, MOST_SIDE_PX, 2).tolist()
        what = int(rng.integers(3))
        if what == 0:
            cv2.circle(out, one, int(rng.integers(1, 20)), ink, -1)
        elif what == 1:
            cv2.rectangle(out, one, two, ink, -1)
        else:
            cv2.line(out, one, two, ink, int(rng.integers(1, 4)))
    return out


def _plain(rng: Generator, height: int, width: int, inks: int) -> I32:
    return np.full((height, width), rng.integers(0, inks), np.int32)


KINDS: tuple[Callable[[Generator, int, int, int], I32], ...] = (
    _noise, _patches, _checkers, _diagonals, _rings, _blobs, _specks, _stripes, _figures, _plain,
)  # fmt: skip


def random_map(seed: int, most_side_px: int = MOST_SIDE_PX) -> IndexMap:
    """A map of 1 × 1 to `most_side_px` squared, of 1 to 64 inks; in a third of them some of it is unpainted.

    Small maps and few inks are the more frequent ones; each kind of `KINDS` comes round every ten seeds.
    """
    rng = np.random.default_rng(seed)
    height, width = (1 + (most_side_px - 1) * rng.random(2) ** 2).round().astype(int).tolist()
    inks = int(1 + (MOST_INKS - 1) * rng.random() ** 3)
    drawn = KINDS[seed % len(KINDS)](rng, height, width, max(inks, 2))
    labels = rng.permutation(MOST_INKS)[drawn % MOST_INKS].astype(np.uint8)
    bare = int(rng.integers(6))
    if bare == 0:
        labels[rng.random((height, width)) < rng.uniform(0, 0.6)] = UNPAINTED
    elif bare == 1:
        labels[labels == labels[0, 0]] = UNPAINTED
    return map_of(labels)


def drawn_map(seed: int) -> IndexMap:
    """Shapes as a vehicle's picture has them, 40 to 300 px: blobs, polygons, discs and lines at least 2 px thick."""
    rng = np.random.default_rng([7, seed])
    height, width = rng.integers(40, 301 if seed % 4 == 0 else 140, 2).tolist()
    inks = int(rng.integers(3, 9))
    out = (
        _blobs(rng, height, width, inks).astype(np.uint8) if rng.random() < 0.4 else np.zeros((height, width), np.uint8)
    )
    for _ in range(int(rng.integers(2, 12))):
        ink, sixteenths = int(rng.integers(0, inks)), int(16 * max(height, width))
        x, y = rng.integers(0, sixteenths, 2).tolist()
        what = int(rng.integers(5))
        if what == 0:
            out[disc(width, height, x / 16, y / 16, float(rng.uniform(3, 60)))] = ink
        elif what == 1:
            turns = np.sort(rng.random(int(rng.integers(3, 9)))) * 2 * np.pi
            corners = np.array([x, y]) + 16 * rng.uniform(5, 60) * np.stack([np.cos(turns), np.sin(turns)], 1)
            cv2.fillPoly(out, [corners.astype(np.int32)], ink, shift=4)
        elif what == 2:
            size = rng.uniform(3, 60, 2)
            angle = float(rng.choice([0.0, rng.uniform(0, np.pi)]))
            out[inside(width, height, rectangle(x / 16, y / 16, size[0], size[1], angle))] = ink
        elif what == 3:
            ends = rng.integers(0, max(height, width), (2, 2)).tolist()
            cv2.line(out, ends[0], ends[1], ink, int(rng.integers(2, 8)))
        else:
            size, turn = rng.uniform(3, 50, 2), float(rng.uniform(0, 180))
            cv2.ellipse(out, ((x / 16, y / 16), (2 * size[0], 2 * size[1]), turn), ink, -1)
    if rng.random() < 0.3:
        out[out == 0] = UNPAINTED
    return map_of(out)


def centres(width_px: int, height_px: int) -> tuple[F64, F64]:
    """Columns and rows of all pixel centres, float64 [H, W]."""
    y, x = np.mgrid[0:height_px, 0:width_px] + 0.5
    return x, y


def disc(width_px: int, height_px: int, x_px: float, y_px: float, radius_px: float) -> Mask:
    """The pixels whose centres lie in a circle."""
    x, y = centres(width_px, height_px)
    inner: Mask = np.hypot(x - x_px, y - y_px) < radius_px
    return inner


def rectangle(x_px: float, y_px: float, across_px: float, down_px: float, turn_rad: float = 0.0) -> F64:
    """The four corners of a rectangle about (x, y), float64 [4, 2]; its first side runs along `turn_rad`."""
    u, v = np.array([np.cos(turn_rad), np.sin(turn_rad)]), np.array([-np.sin(turn_rad), np.cos(turn_rad)])
    corners = [a * across_px / 2 * u + b * down_px / 2 * v for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    placed: F64 = np.array(corners) + np.array([x_px, y_px])
    return placed


def inside(width_px: int, height_px: int, corners: F64) -> Mask:
    """The pixels whose centres lie in a convex polygon of clockwise corners, float64 [N, 2]."""
    x, y = centres(width_px, height_px)
    out = np.ones((height_px, width_px), np.bool_)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        out &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
    return out
