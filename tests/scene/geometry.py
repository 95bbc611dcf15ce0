"""The shapes that the scene is made of: smooth curves, signed distances, and the camera that looks at them.

Car space is in millimetres: `u` runs backward from the nose, `w` from the centre line towards the driver's side (the
side that the camera sees), `h` up from the ground. Picture space is in *scene units*: the frame is 1536 × 1024 of them,
whatever the size of the picture; x runs right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
"""One number, or one linear RGB, for each pixel: float32 wherever it is the size of the picture."""
Points = npt.NDArray[np.float64]

FRAME_WIDTH, FRAME_HEIGHT = 1536.0, 1024.0
"""The frame in scene units."""


def smoothstep(low: float | Field, high: float | Field, value: Field) -> Field:
    """0 at `low`, 1 at `high`, with a smooth ramp between; `low` may be the greater of the two."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def mix(under: Field, over: Field | tuple[float, float, float], coverage: Field) -> Field:
    """`over` on `under`, both [..., 3], by `coverage` [...] from 0 to 1."""
    return np.asarray(under + (np.asarray(over, dtype=np.float32) - under) * coverage[..., None], dtype=np.float32)


def monotone(knots: tuple[tuple[float, float], ...], at: Field) -> Field:
    """A smooth curve through `knots` (x rising) that has no overshoot: cubic Hermite with harmonic-mean slopes.

    Fritsch and Butland, "A method for constructing local monotone piecewise cubic interpolants" (1984). Constant
    outside the knots.
    """
    x, y = np.array(knots, dtype=np.float64).T
    step, secant = np.diff(x), np.diff(y) / np.diff(x)
    slope = np.zeros_like(y)
    before, after = secant[:-1], secant[1:]
    same = before * after > 0
    slope[1:-1][same] = 2.0 * before[same] * after[same] / (before[same] + after[same])
    slope[0], slope[-1] = secant[0], secant[-1]
    where = np.clip(np.asarray(at, dtype=np.float64), x[0], x[-1])
    i = np.clip(np.searchsorted(x, where, side="right") - 1, 0, len(step) - 1)
    t = (where - x[i]) / step[i]
    rise, fall = (1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)
    bend = step[i] * (t * (1 - t) ** 2 * slope[i] - t * t * (1 - t) * slope[i + 1])
    return np.asarray(rise * y[i] + fall * y[i + 1] + bend, dtype=np.float32)


def spline(corners: tuple[tuple[float, ...], ...], *, closed: bool = True, pieces: int = 8) -> Points:
    """Points [N, 2] on a uniform Catmull-Rom curve through `corners`.

    A corner is (x, y), passed smoothly, or (x, y, 0), where the curve has a sharp bend.
    """
    knots = np.array([corner[:2] for corner in corners], dtype=np.float64)
    sharp = [len(corner) == 3 for corner in corners]
    count = len(knots)
    tangent = np.zeros_like(knots)
    for i in range(count):
        inner = closed or 0 < i < count - 1
        tangent[i] = (knots[(i + 1) % count] - knots[i - 1]) / 2 if inner and not sharp[i] else 0.0
    t = np.linspace(0.0, 1.0, pieces, endpoint=False)[:, None]
    found = []
    for i in range(count if closed else count - 1):
        j = (i + 1) % count
        span = knots[j] - knots[i]
        a = tangent[i] if not sharp[i] else span
        b = tangent[j] if not sharp[j] else span
        found.append(
            knots[i] * (1 + 2 * t) * (1 - t) ** 2
            + knots[j] * t * t * (3 - 2 * t)
            + a * t * (1 - t) ** 2
            - b * t * t * (1 - t)
        )
    if not closed:
        found.append(knots[-1:])
    return np.concatenate(found)


def distance_to_line(points: Points, x: Field, y: Field, reach: float) -> Field:
    """Distance of each (x, y) to the open polyline `points`; not computed beyond `reach` of its box, `reach` there."""
    return _near(points, x, y, reach, closed=False)


def signed_distance(points: Points, x: Field, y: Field, reach: float) -> Field:
    """Distance of each (x, y) to the closed polygon `points`, negative inside; `reach` where it is farther."""
    return _near(points, x, y, reach, closed=True)


def _near(points: Points, x: Field, y: Field, reach: float, *, closed: bool) -> Field:
    low, high = points.min(axis=0) - reach, points.max(axis=0) + reach
    near = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1])
    px, py = x[near], y[near]
    best = np.full(px.shape, reach * reach, dtype=np.float32)
    inside = np.zeros(px.shape, dtype=bool)
    ends = np.roll(points, -1, axis=0) if closed else points[1:]
    for (ax, ay), (bx, by) in zip(points.astype(np.float32), ends.astype(np.float32), strict=False):
        dx, dy = bx - ax, by - ay
        t = np.clip(((px - ax) * dx + (py - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0.0, 1.0)
        np.minimum(best, (px - ax - t * dx) ** 2 + (py - ay - t * dy) ** 2, out=best)
        if closed and ay != by:
            inside ^= ((py < ay) != (py < by)) & (px < ax + (py - ay) * (dx / dy))
    distance = np.full(x.shape, reach, dtype=np.float32)
    distance[near] = np.where(inside, -1.0, 1.0) * np.sqrt(best)
    return distance


def inked(distance: Field, soft: float, width: float = 0.0) -> Field:
    """Coverage 0 to 1 of the shape whose signed distance is given, grown by `width`; the edge is `soft` wide."""
    return np.asarray(np.clip(0.5 - (distance - width) / soft, 0.0, 1.0))


@dataclass(frozen=True)
class Camera:
    """A long lens at bonnet height, turned `yaw` from the car's side towards its nose.

    Attributes:
        scale: scene units per millimetre in the plane of the near wheels, at the middle of the picture.
        horizon_y, ground_y: scene units; the horizon and the line where the near wheels stand, at the middle.
        middle_u: the `u` that comes out at the middle of the picture.
        distance_mm: from the camera to the near side at the middle.
    """

    cos: float = 0.8480481
    sin: float = 0.5299192
    scale: float = 0.290
    horizon_y: float = 596.0
    ground_y: float = 812.0
    middle_x: float = 768.0
    middle_u: float = 1455.0
    near_w: float = 800.0
    distance_mm: float = 12500.0

    @property
    def middle_m(self) -> float:
        """The sideways coordinate, mm, at the middle of the picture."""
        return self.middle_u * self.cos + self.near_w * self.sin

    @property
    def bend(self) -> float:
        """Change of depth with sideways travel along the car's side, per scene unit, in camera distances."""
        return self.sin / (self.cos * self.scale * self.distance_mm)

    def shrink(self, u: float, w: float) -> float:
        """Perspective scale at (u, w): 1 in the middle of the near side, less beyond it."""
        depth = (u - self.middle_u) * self.sin - (w - self.near_w) * self.cos
        return 1.0 / (1.0 + depth / self.distance_mm)

    def project(self, u: float, w: float, h: float) -> tuple[float, float]:
        """Picture position (x, y), scene units, of a point in car space."""
        shrink = self.shrink(u, w)
        sideways = (u * self.cos + w * self.sin - self.middle_m) * self.scale
        rise = self.ground_y - h * self.scale - self.horizon_y
        return self.middle_x + sideways * shrink, self.horizon_y + rise * shrink

    def sideways_mm(self, x: Field) -> Field:
        """Sideways coordinate u·cos + w·sin, mm, that the columns `x` of the picture see in the near side's plane."""
        seen = x - self.middle_x
        return np.asarray(seen / (1.0 - self.bend * seen) / self.scale + self.middle_m, dtype=np.float32)

    def column_shrink(self, x: Field) -> Field:
        """Perspective scale of the near side's plane at the columns `x`."""
        return np.asarray(1.0 - self.bend * (x - self.middle_x), dtype=np.float32)

    def height_mm(self, x: Field, y: Field) -> Field:
        """Height above the ground, mm, that the pixels (x, y) see in the near side's plane."""
        rise = (y - self.horizon_y) / self.column_shrink(x)
        return np.asarray((self.ground_y - self.horizon_y - rise) / self.scale, dtype=np.float32)


CAMERA = Camera()
