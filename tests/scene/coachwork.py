"""The finished body: paint, glass and what is behind it, lights, trim, gaps, plate and emblem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.scene.body import (
    ARCH_RADIUS,
    AXLE_H,
    FRONT_AXLE_U,
    REAR_AXLE_U,
    Surface,
    front_u,
    nose_length,
)
from tests.scene.geometry import (
    CAMERA,
    Field,
    Points,
    distance_to_line,
    inked,
    mix,
    signed_distance,
    smoothstep,
    spline,
)
from tests.scene.glyphs import distance_to_text
from tests.scene.light import Directions, environment, facing, fresnel, mirrored, skylight, sunlit, unit

Window = tuple[slice, slice]
Reach = tuple[float, float, float, float]
"""A stretch of the body: u from, u to, h from, h to, mm."""
PLATE_TEXT = "LV-26RY"
_SIDE_GLASS = spline((
    (1640, 968, 0), (1760, 1052), (1900, 1130), (2060, 1196), (2230, 1236), (2420, 1250), (2640, 1243), (2860, 1212),
    (3060, 1162), (3270, 1090, 0), (3215, 1030, 0), (3000, 1008), (2600, 994), (2100, 980),
))  # fmt: skip
_HEADLIGHT = spline((
    (430, 566, 0), (560, 548), (700, 552), (800, 578), (862, 628), (884, 690, 0), (800, 668), (640, 632), (500, 600),
))  # fmt: skip
_INTAKE = spline(((-540, 262, 0), (540, 262, 0), (505, 330), (440, 388, 0), (-440, 388, 0), (-505, 330)))
_VENT = spline(((655, 262, 0), (800, 282), (822, 350), (800, 430, 0), (690, 392), (648, 330)))
_TAIL_LIGHT = spline(((4060, 802, 0), (4200, 782), (4400, 786, 0), (4400, 872, 0), (4230, 868), (4120, 842)))
_DOOR = spline((
    (1668, 968), (1570, 905), (1490, 800), (1448, 640), (1446, 440), (1478, 345), (1580, 318), (2640, 318),
    (2752, 352), (2830, 470), (2862, 640), (2850, 800), (2800, 930), (2745, 998),
), closed=False)  # fmt: skip
_REAR_BUMPER = spline(((3838, 560), (3960, 640), (4100, 690), (4390, 700)), closed=False)
_FRONT_BUMPER = spline(((545, 640), (590, 560), (600, 470), (570, 400)), closed=False)
EMBLEM_U, EMBLEM_H, EMBLEM_RADIUS = 2150.0, 655.0, 138.0


@dataclass(frozen=True)
class Coachwork:
    """The painted body: linear RGB float32 [H, W, 3], and coverages float32 [H, W] of body, plate and emblem."""

    rgb: Field
    cover: Field
    plate: Field
    emblem: Field


@dataclass(frozen=True)
class Seen:
    """A surface with the direction to the eye, its mirror rays, and the width of a pixel, mm."""

    at: Surface
    view: Directions
    ray: Directions
    pixel_mm: float

    def cut(self, window: Window) -> Seen:
        """The same, of a part of the picture."""
        return Seen(self.at.cut(window), self.view.cut(window), self.ray.cut(window), self.pixel_mm)


def finish(at: Surface, x: Field, y: Field, flakes: Field) -> Coachwork:
    """Paint and fit out the surface seen at the columns `x` and lines `y`; `flakes` [H, W] is noise of −1 to 1."""
    sideways = np.broadcast_to(((CAMERA.middle_x - x) / (CAMERA.scale * CAMERA.distance_mm))[None, :], at.u.shape)
    upward = np.broadcast_to(((y - CAMERA.horizon_y) / (CAMERA.scale * CAMERA.distance_mm))[:, None], at.u.shape)
    view = unit(sideways, upward, np.ones_like(at.u))
    seen = Seen(at, view, mirrored(at.normal, view), float(x[1] - x[0]) / CAMERA.scale)
    rgb = _paint(seen, flakes)
    for part, reach in _PARTS:
        window = _window(at, reach)
        rgb[window] = part(seen.cut(window), rgb[window])
    emblem, plate = np.zeros_like(at.u), np.zeros_like(at.u)
    for mark, cover, reach in ((_emblem, emblem, _EMBLEM_REACH), (_plate, plate, _PLATE_REACH)):
        window = _window(at, reach)
        rgb[window], cover[window] = mark(seen.cut(window), rgb[window])
    return Coachwork(_shaded(at, rgb), _outside_arches(at, seen.pixel_mm), plate * at.cover, emblem * at.cover)


def _window(at: Surface, reach: Reach) -> Window:
    """The smallest part [rows, columns] of the picture with all of the body between the u and h of `reach`."""
    u0, u1, h0, h1 = reach
    inside = (at.u > u0) & (at.u < u1) & (at.h > h0) & (at.h < h1) & (at.cover > 0)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _paint(seen: Seen, flakes: Field) -> Field:
    base = np.array([0.44, 0.0095, 0.0055], np.float32) * (1.0 + 0.06 * flakes)[..., None]
    cosine = facing(seen.at.normal, seen.view)
    clear = np.minimum(fresnel(cosine, 0.045), 0.5)[..., None]
    lit = base * skylight(seen.at.normal) * (0.55 + 0.45 * cosine)[..., None]
    sun = 2.2 * sunlit(seen.ray, 260.0) + 0.35 * sunlit(seen.ray, 26.0)
    return np.asarray(lit * (1 - clear) + clear * environment(seen.ray, 0.035) + sun[..., None], dtype=np.float32)


def _near_side(at: Surface) -> Field:
    return smoothstep(300.0, 420.0, at.w)


def _gap(rgb: Field, distance: Field, pixel_mm: float, width: float = 3.2) -> Field:
    """A shut line: dark, with a thin bright edge where the panel's rim catches the light."""
    rim = inked(np.abs(distance - width * 1.5), pixel_mm * 1.6, 1.0) * 0.25
    rgb = mix(rgb, rgb * 1.5 + 0.03, rim)
    return mix(rgb, (0.012, 0.004, 0.005), inked(distance, pixel_mm * 1.4, width) * 0.92)


def _gaps(seen: Seen, rgb: Field) -> Field:
    at, near = seen.at, _near_side(seen.at)
    for line in (_DOOR, _REAR_BUMPER, _FRONT_BUMPER, _bonnet_edge()):
        away = distance_to_line(line, at.u, at.h, 60.0) + 60.0 * (1.0 - near)
        rgb = _gap(rgb, away, seen.pixel_mm)
    flap = np.abs(np.hypot(at.u - 3330.0, at.h - 862.0) - 66.0) + 60.0 * (1.0 - near)
    rgb = _gap(rgb, flap, seen.pixel_mm, 2.4)
    repeater = signed_distance(spline(((1330, 652), (1400, 660), (1404, 682), (1336, 676))), at.u, at.h, 60.0)
    return mix(rgb, (0.85, 0.32, 0.03), inked(repeater, seen.pixel_mm * 1.5) * near)


def _bonnet_edge() -> Points:
    heights = np.linspace(690.0, 938.0, 24).astype(np.float32)
    return np.stack([front_u(heights) + 0.24 * nose_length(heights), heights], axis=1).astype(np.float64)


def _cabin(at: Surface) -> Field:
    """Linear RGB that comes out of the cabin: dark, with seats, steering wheel and the far windows behind them."""
    tan = CAMERA.sin / CAMERA.cos
    rgb = np.full((*at.u.shape, 3), 0.013, dtype=np.float32)
    far_u = at.u + (at.w + 600.0) * tan
    day = inked(signed_distance(_SIDE_GLASS, far_u, at.h, 80.0), 14.0)
    scenery = np.array([0.22, 0.26, 0.24], np.float32) * (0.6 + smoothstep(1000, 1240, at.h))[..., None]
    rgb = mix(rgb, scenery, day)
    for seat_w, tone in ((-370.0, 0.016), (370.0, 0.034)):
        u = at.u + (at.w - seat_w) * tan
        rest = spline(((2440, 1050), (2520, 1045), (2560, 1120), (2540, 1180), (2480, 1182), (2442, 1120)))
        back = spline(((2330, 900), (2560, 900), (2570, 1000), (2530, 1062), (2440, 1052), (2380, 1000)))
        shape = np.minimum(signed_distance(rest, u, at.h, 60.0), signed_distance(back, u, at.h, 60.0))
        leather = tone * (1.0 + 0.9 * smoothstep(960, 1180, at.h))
        rgb = mix(rgb, np.stack([leather, leather * 0.9, leather * 0.85], axis=-1), inked(shape, 8.0))
    wheel_w = at.w - (1990.0 - at.u) / tan
    ring = np.abs(np.hypot(wheel_w - 370.0, (at.h - 960.0) * 1.05) - 175.0)
    return mix(rgb, (0.006, 0.006, 0.007), inked(ring, 8.0, 15.0))


def _glazed(seen: Seen, behind: Field, tint: float) -> Field:
    share = fresnel(facing(seen.at.normal, seen.view), 0.065)[..., None]
    sun = 1.6 * sunlit(seen.ray, 400.0)[..., None]
    return np.asarray(behind * tint * (1 - share) + share * environment(seen.ray, 0.02) + sun, dtype=np.float32)


def _side_glass(seen: Seen, rgb: Field) -> Field:
    at, near = seen.at, _near_side(seen.at)
    edge = signed_distance(_SIDE_GLASS, at.u, at.h, 90.0)
    chrome = 0.55 * environment(seen.ray, 0.08) + 0.12
    rgb = mix(rgb, chrome, inked(edge, seen.pixel_mm * 1.5, 20.0) * near)
    rgb = mix(rgb, (0.006, 0.006, 0.007), inked(edge, seen.pixel_mm * 1.5, 7.0) * near)
    pane = inked(edge, seen.pixel_mm * 1.5, -9.0) * near
    rgb = mix(rgb, _glazed(seen, _cabin(at), 0.9), pane)
    lean = at.u - (2742.0 - (at.h - 990.0) * 0.42)
    post = inked(np.abs(lean), seen.pixel_mm * 1.5, 34.0) * inked(edge, seen.pixel_mm * 1.5, 6.0) * near
    post_rgb = 0.008 + 0.06 * environment(seen.ray, 0.05)
    return mix(rgb, post_rgb, post)


def _windscreen(seen: Seen, rgb: Field) -> Field:
    at = seen.at
    share = (at.u - front_u(at.h)) / nose_length(at.h)
    sides = np.where(at.w > 0, share - 0.235, share - 0.27) * nose_length(at.h) * 0.55
    edge = np.maximum(np.maximum(sides, (950.0 - at.h) * 1.0), (at.h - 1256.0) * 1.6)
    soft = seen.pixel_mm * 1.6
    rgb = mix(rgb, (0.007, 0.007, 0.008), inked(edge, soft, 9.0))
    rgb = mix(rgb, _glazed(seen, _cabin(at), 0.92), inked(edge, soft * 1.5, -9.0))
    mirror = np.hypot((at.w + 60.0 + (at.u - 1990.0) * 0.4) / 2.2, at.h - 1175.0)
    rgb = mix(rgb, (0.01, 0.01, 0.011), inked(mirror, 6.0, 26.0) * inked(edge, soft, -9.0) * 0.9)
    for pivot, tip in ((-120.0, 520.0), (-560.0, 120.0)):
        wiper = distance_to_line(np.array([[pivot, 952.0], [tip, 985.0]]), at.w, at.h, 40.0)
        rgb = mix(rgb, (0.008, 0.008, 0.009), inked(wiper, 4.0, 5.0) * inked(edge, soft, 30.0))
    return rgb


def _dark_trim(seen: Seen, rgb: Field) -> Field:
    """Black sill and splitter."""
    at = seen.at
    gloss = 0.009 + 0.045 * environment(seen.ray, 0.12)
    line = 236.0 - 16.0 * smoothstep(700.0, 300.0, at.u)
    return mix(rgb, gloss, inked(at.h - line, seen.pixel_mm * 1.5))


def _grille(seen: Seen, rgb: Field) -> Field:
    at, soft = seen.at, seen.pixel_mm * 1.5
    front = smoothstep(700.0, 520.0, at.u)
    for shape, across in ((_INTAKE, at.w), (_VENT, np.abs(at.w))):
        edge = signed_distance(shape, across, at.h, 80.0) + 90.0 * (1.0 - front)
        rgb = mix(rgb, rgb * 0.35, inked(edge, 10.0, 9.0))
        mesh = np.maximum(np.cos((at.w + at.h) * 0.21), np.cos((at.w - at.h) * 0.21))
        bars = 0.008 + 0.05 * smoothstep(0.9, 0.99, mesh) * smoothstep(200, 420, at.h)
        rgb = mix(rgb, np.stack([bars, bars, bars * 1.05], axis=-1), inked(edge, soft))
        lip = inked(np.abs(edge - 4.0), soft, 2.2) * 0.7
        rgb = mix(rgb, 0.5 * environment(seen.ray, 0.1), lip)
    bar = inked(np.abs(at.h - 322.0), soft, 10.0) * inked(signed_distance(_INTAKE, at.w, at.h, 80.0), soft) * front
    rgb = mix(rgb, 0.012 + 0.05 * environment(seen.ray, 0.1), bar)
    badge = np.hypot(at.w, (at.h - 612.0) * 1.15) + 200.0 * (1.0 - front)
    rgb = mix(rgb, 0.25 + 0.5 * environment(seen.ray, 0.1), inked(badge, soft, 46.0))
    return mix(rgb, (0.012, 0.03, 0.10), inked(badge, soft, 33.0))


def _headlights(seen: Seen, rgb: Field) -> Field:
    at, soft = seen.at, seen.pixel_mm * 1.5
    w = np.abs(at.w)
    edge = signed_distance(_HEADLIGHT, w, at.h, 80.0) + 90.0 * smoothstep(640.0, 700.0, at.u)
    rgb = _gap(rgb, np.abs(edge), seen.pixel_mm, 3.0)
    tan = CAMERA.sin / CAMERA.cos
    # The lamp's insides lie 60 mm behind the lens.
    inner_w, inner_h = w + 60.0 * np.where(at.w > 0, tan, -tan) * 0.4, at.h
    bowl = 0.05 + 0.10 * smoothstep(560.0, 690.0, inner_h) + 0.05 * smoothstep(0.3, 0.9, np.sin(inner_w * 0.16))
    lamp = np.stack([bowl, bowl * 1.02, bowl * 1.08], axis=-1)
    for centre, size in ((640.0, 38.0), (752.0, 36.0)):
        away = np.hypot((inner_w - centre) * 1.0, inner_h - (590.0 + (centre - 640.0) * 0.17))
        lamp = mix(lamp, (0.62, 0.63, 0.66), inked(away, soft, size + 5.0))
        lens = 0.03 + 0.9 * smoothstep(size, 0.0, np.hypot(inner_w - centre + 9.0, inner_h - 606.0)) ** 3
        lamp = mix(lamp, np.stack([lens * 0.9, lens, lens * 1.15], axis=-1), inked(away, soft, size - 3.0))
    strip = distance_to_line(
        spline(((470, 578), (560, 562), (700, 566), (810, 596), (858, 660)), closed=False), w, at.h, 40.0
    )
    lamp = mix(lamp, (1.5, 1.55, 1.65), inked(strip, soft, 5.5))
    amber = inked(np.hypot((w - 842.0), (at.h - 655.0) * 0.6), 6.0, 13.0)
    lamp = mix(lamp, (0.55, 0.22, 0.03), amber)
    return mix(rgb, _glazed(seen, lamp, 0.95), inked(edge, soft, -2.0))


def _tail_light(seen: Seen, rgb: Field) -> Field:
    at, soft = seen.at, seen.pixel_mm * 1.5
    edge = signed_distance(_TAIL_LIGHT, at.u, at.h, 80.0) + 90.0 * (1.0 - _near_side(at))
    rgb = _gap(rgb, np.abs(edge), seen.pixel_mm, 3.0)
    ribs = 0.10 + 0.12 * smoothstep(-0.2, 0.6, np.sin(at.u * 0.22))
    lamp = np.stack([ribs * 1.6, ribs * 0.06, ribs * 0.07], axis=-1)
    strip = np.abs(at.h - 832.0)
    lamp = mix(lamp, (1.6, 0.16, 0.12), inked(strip, soft, 8.0) * smoothstep(4110.0, 4150.0, at.u))
    return mix(rgb, _glazed(seen, lamp, 1.0), inked(edge, soft, -2.0))


def _handle(seen: Seen, rgb: Field) -> Field:
    at, soft, near = seen.at, seen.pixel_mm * 1.5, _near_side(seen.at)
    bar = np.array([[2560.0, 846.0], [2715.0, 856.0]])
    cup = distance_to_line(np.array([[2595.0, 843.0], [2680.0, 848.0]]), at.u, at.h, 90.0)
    rgb = mix(rgb, rgb * 0.28, inked(cup, 10.0, 36.0) * near)
    shadow = distance_to_line(bar - [0.0, 12.0], at.u, at.h, 60.0)
    rgb = mix(rgb, (0.01, 0.004, 0.004), inked(shadow, 9.0, 14.0) * near * 0.85)
    away = distance_to_line(bar, at.u, at.h, 60.0)
    above = np.clip((at.h - 850.0 - (at.u - 2640.0) * 0.065) / 16.0, -1.0, 1.0)
    tube = unit(np.full_like(above, CAMERA.sin), above * 1.2, np.full_like(above, CAMERA.cos))
    metal = 0.15 + 0.55 * environment(mirrored(tube, seen.view), 0.08)
    return mix(rgb, metal, inked(away, soft, 15.0) * near)


def _emblem(seen: Seen, rgb: Field) -> tuple[Field, Field]:
    """A round emblem on the door: white ring, blue field, a wing of three bars."""
    at, soft, near = seen.at, seen.pixel_mm * 1.5, _near_side(seen.at)
    a, b = at.u - EMBLEM_U, at.h - EMBLEM_H
    away = np.hypot(a, b)
    light = skylight(at.normal) + 0.06 * environment(seen.ray, 0.05)
    cover = inked(away, soft, EMBLEM_RADIUS) * near
    rgb = mix(rgb, light * 0.80, cover)
    rgb = mix(rgb, light * np.array([0.012, 0.045, 0.15], np.float32), inked(away, soft, 116.0) * near)
    wing = np.full(a.shape, 60.0, dtype=np.float32)
    for level, reach in ((52.0, 74.0), (18.0, 88.0), (-16.0, 62.0)):
        bar = np.array([[-60.0, level - 30.0], [-60.0 + reach * 1.5, level]])
        wing = np.minimum(wing, distance_to_line(bar, a, b, 60.0))
    return mix(rgb, light * 0.80, inked(wing, soft, 10.0) * inked(away, soft, 108.0) * near), cover


def _plate(seen: Seen, rgb: Field) -> tuple[Field, Field]:
    at, soft = seen.at, seen.pixel_mm * 1.2
    a, b = at.w, at.h - 472.0
    box = np.maximum(np.abs(a) - 268.0, np.abs(b) - 58.0) + 200.0 * smoothstep(500.0, 560.0, at.u)
    light = skylight(at.normal)
    rgb = mix(rgb, rgb * 0.3, inked(box, 14.0, 9.0))
    rgb = mix(rgb, (0.012, 0.012, 0.013), inked(box, soft, 7.0))
    cover = inked(box, soft)
    rgb = mix(rgb, light * 0.86, cover)
    rgb = mix(rgb, light * np.array([0.01, 0.05, 0.28], np.float32), inked(a + 224.0, soft) * cover)
    ink = distance_to_text(PLATE_TEXT, a - 26.0, b, 62.0)
    return mix(rgb, (0.012, 0.012, 0.014), inked(ink, soft, 6.8) * cover), inked(box, soft, 7.0)


def _shaded(at: Surface, rgb: Field) -> Field:
    """Less light low on the body and beside the wheel openings."""
    low = 0.42 + 0.58 * smoothstep(150.0, 430.0, at.h)
    for axle in (FRONT_AXLE_U, REAR_AXLE_U):
        ring = np.hypot(at.u - axle, at.h - AXLE_H) + 400.0 * (1.0 - _near_side(at))
        low = low * (1.0 - 0.5 * smoothstep(ARCH_RADIUS + 9.0, ARCH_RADIUS, ring))
    return rgb * low[..., None]


def _outside_arches(at: Surface, pixel_mm: float) -> Field:
    cover = at.cover
    for axle in (FRONT_AXLE_U, REAR_AXLE_U):
        ring = np.hypot(at.u - axle, at.h - AXLE_H) + 400.0 * (1.0 - _near_side(at))
        cover = cover * (1.0 - inked(ring, pixel_mm, ARCH_RADIUS))
    return cover


_EMBLEM_REACH: Reach = (EMBLEM_U - 150, EMBLEM_U + 150, EMBLEM_H - 150, EMBLEM_H + 150)
_PLATE_REACH: Reach = (-50, 600, 395, 550)
_PARTS: tuple[tuple[Callable[[Seen, Field], Field], Reach], ...] = (
    (_gaps, (250, 4400, 300, 1010)),
    (_side_glass, (1560, 3340, 930, 1290)),
    (_windscreen, (1250, 2700, 920, 1290)),
    (_dark_trim, (-50, 4400, 100, 262)),
    (_grille, (-50, 720, 200, 680)),
    (_headlights, (-50, 720, 520, 720)),
    (_tail_light, (4000, 4400, 740, 900)),
    (_handle, (2490, 2790, 780, 900)),
)
"""Each part of the body's finish, in the order they are laid on, with the u and h (mm) it stays between."""
