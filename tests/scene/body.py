"""The coachwork as a surface: a coupé, lofted from one plan-view outline for each height.

At height `h` the car's outline runs from `front_u(h)` on the centre line, round the nose and along the side, to
`rear_u(h)`. The camera looks level, so a height is a line of the picture, and what it sees of that line is one walk
along the outline: no ray needs to be traced.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.scene.geometry import CAMERA, Field, monotone, smoothstep
from tests.scene.light import Directions, unit

FRONT_AXLE_U, REAR_AXLE_U, AXLE_H = 880.0, 3450.0, 332.0
ARCH_RADIUS = 372.0
LOWEST_H = 108.0
"""Under edge of the sill and the floor."""

_FRONT = (
    (108, 300), (140, 175), (175, 90), (215, 50), (300, 22), (420, 4), (520, 0), (590, 12), (640, 42), (672, 92),
    (702, 190), (740, 345), (800, 620), (860, 905), (905, 1120), (935, 1262), (950, 1320), (1000, 1405), (1060, 1512),
    (1120, 1625), (1180, 1752), (1230, 1880), (1268, 2010), (1292, 2130), (1308, 2250), (1316, 2380),
)  # fmt: skip
_REAR = (
    (108, 4040), (140, 4130), (190, 4230), (300, 4310), (450, 4362), (600, 4385), (760, 4392), (860, 4372), (915, 4338),
    (948, 4322), (962, 4270), (985, 4120), (1030, 3930), (1080, 3735), (1130, 3540), (1180, 3325), (1230, 3070),
    (1268, 2840), (1292, 2660), (1308, 2510), (1316, 2390),
)  # fmt: skip
_SECTION = (
    (108, 720), (140, 742), (175, 795), (215, 822), (250, 826), (290, 842), (315, 846), (350, 836), (430, 838),
    (520, 850), (640, 868), (730, 880), (778, 886), (800, 884), (822, 872), (870, 848), (915, 815), (950, 776),
    (985, 742), (1060, 690), (1140, 628), (1210, 560), (1262, 492), (1292, 420), (1308, 340), (1316, 220),
)  # fmt: skip
_PLAN = ((0, 26), (880, 12), (1500, -12), (2100, -26), (2700, -14), (3450, 30), (3900, 12), (4400, -30))
_CREASE_RISE = ((0, -62), (600, -34), (1400, -6), (2600, 22), (3450, 52), (4400, 40))
_NOSE_LENGTH = ((140, 470), (400, 470), (640, 470), (720, 560), (900, 640), (950, 430), (1100, 420), (1316, 700))
_TAIL_LENGTH = ((140, 330), (900, 330), (960, 700), (1100, 1300), (1316, 800))


def front_u(h: Field) -> Field:
    """Where the outline at height `h` begins on the centre line, mm."""
    return monotone(_FRONT, h)


def rear_u(h: Field) -> Field:
    """Where the outline at height `h` ends on the centre line, mm."""
    return monotone(_REAR, h)


def nose_length(h: Field) -> Field:
    """How far back of `front_u` the straight side begins at height `h`, mm."""
    return monotone(_NOSE_LENGTH, h)


def side_w(u: Field, h: Field) -> Field:
    """Half width of the body at (u, h), mm, without the rounding of nose and tail."""
    lift = monotone(_CREASE_RISE, u) * smoothstep(300, 700, h) * smoothstep(1120, 930, h)
    width = monotone(_SECTION, h - lift) + monotone(_PLAN, u) * smoothstep(1250, 900, h)
    return np.asarray(width + _arch_flare(u, h) - _door_scoop(u, h), dtype=np.float32)


def _arch_flare(u: Field, h: Field) -> Field:
    flare = np.zeros(np.broadcast(u, h).shape, dtype=np.float32)
    for axle in (FRONT_AXLE_U, REAR_AXLE_U):
        ring = np.sqrt((u - axle) ** 2 + (h - AXLE_H) ** 2)
        flare += 24.0 * smoothstep(ARCH_RADIUS + 120.0, ARCH_RADIUS + 8.0, ring) * smoothstep(150, 380, h)
    return flare


def _door_scoop(u: Field, h: Field) -> Field:
    """A hollow over the sill, under a line that climbs from the front wheel to the rear one."""
    line = 395.0 + (u - 1400.0) * 0.085
    along = smoothstep(1250, 1600, u) * smoothstep(3150, 2750, u)
    return 17.0 * along * smoothstep(line + 26.0, line - 6.0, h) * smoothstep(270.0, line - 30.0, h)


def _rounded(share: Field) -> Field:
    """Plan-view corner: 0 at the tip, 1 where the straight side begins."""
    left = 1.0 - np.clip(share, 0.0, 1.0)
    return np.asarray(np.clip(1.0 - left**2.1, 0.0, 1.0) ** (1.0 / 2.3), dtype=np.float32)


@dataclass(frozen=True)
class Surface:
    """What of the coachwork the camera sees, float32 [H, W] each.

    Attributes:
        u, w, h: car space, mm.
        normal: in the camera's frame.
        cover: 0 to 1.
    """

    u: Field
    w: Field
    h: Field
    normal: Directions
    cover: Field

    def cut(self, window: tuple[slice, slice]) -> Surface:
        """The same, of a part [rows, columns] of the picture."""
        normal = self.normal.cut(window)
        return Surface(self.u[window], self.w[window], self.h[window], normal, self.cover[window])


def _outline(h: Field) -> tuple[Field, Field]:
    """Walks along the outlines at heights `h` [R]: u and w, mm, float32 [R, T], far nose corner first."""
    front, rear = front_u(h)[:, None], rear_u(h)[:, None]
    nose, tail = nose_length(h)[:, None], monotone(_TAIL_LENGTH, h)[:, None]
    far = np.linspace(1.0, 0.0, 420, endpoint=False, dtype=np.float32) ** 2
    near = ((1.0 - np.cos(np.linspace(0.0, np.pi, 1300))) / 2).astype(np.float32)
    share = np.concatenate([far * 0.5, near])[None, :]
    u = front + np.maximum(rear - front, 1.0) * share
    w = side_w(u, h[:, None]) * _rounded((u - front) / nose) * _rounded((rear - u) / tail)
    w[:, : len(far)] *= -1.0
    return u, w


def _normals(u: Field, w: Field, h: Field) -> Directions:
    """Outward normals of the lofted grid, from the cross product of its two tangents."""
    du_t, dw_t = np.gradient(u, axis=1), np.gradient(w, axis=1)
    rows = h[:, 0]
    du_h, dw_h = np.gradient(u, rows, axis=0), np.gradient(w, rows, axis=0)
    nu, nw, nh = dw_t * -1.0, du_t, dw_t * du_h - du_t * dw_h
    right, near = nu * CAMERA.cos + nw * CAMERA.sin, nw * CAMERA.cos - nu * CAMERA.sin
    return unit(right, nh, near)


def see_body(x: Field, y: Field) -> Surface:
    """The coachwork as seen at the columns `x` [W] and lines `y` [H], scene units."""
    rows = np.arange(LOWEST_H, 1322.0, 2.0, dtype=np.float32)
    u, w = _outline(rows)
    h = np.broadcast_to(rows[:, None], u.shape).astype(np.float32)
    normal = _normals(u, w, h)
    sideways = u * CAMERA.cos + w * CAMERA.sin
    columns = CAMERA.sideways_mm(x)
    fields = np.stack([u, w, normal.right, normal.up, normal.near], axis=-1)
    table = np.zeros((len(rows), len(columns), 6), dtype=np.float32)
    step = float(np.gradient(columns).mean())
    for i, line in enumerate(sideways):
        first, last = int(line.argmin()), int(line.argmax())
        walk = line[first : last + 1]
        at = np.interp(columns, np.maximum.accumulate(walk), np.arange(first, last + 1))
        low = np.minimum(at.astype(np.int64), u.shape[1] - 2)
        part = (at - low).astype(np.float32)[:, None]
        table[i, :, :5] = fields[i, low] * (1 - part) + fields[i, low + 1] * part
        edge = np.minimum(columns - walk[0], walk[-1] - columns) / step
        table[i, :, 5] = np.clip(edge + 0.5, 0.0, 1.0)
    table[-1, :, 5] = 0.0
    table[0, :, 5] = 0.0
    return _sampled(table, rows, x, y)


def _sampled(table: Field, rows: Field, x: Field, y: Field) -> Surface:
    """The table [R, W, 6] of (u, w, normal, cover) at the lines `y` of the picture."""
    height = CAMERA.height_mm(x[None, :], y[:, None])
    at = np.clip((height - rows[0]) / (rows[1] - rows[0]), 0.0, len(rows) - 1.001)
    low = at.astype(np.int64)
    part = (at - low).astype(np.float32)[..., None]
    column = np.arange(len(x))[None, :]
    seen = table[low, column] * (1 - part) + table[low + 1, column] * part
    inside = (height > rows[0]) & (height < rows[-1])
    normal = unit(seen[..., 2], seen[..., 3], seen[..., 4])
    return Surface(seen[..., 0], seen[..., 1], height, normal, seen[..., 5] * inside)
