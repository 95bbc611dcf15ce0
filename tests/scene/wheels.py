"""Wheels: tyre with tread, alloy rim with five split spokes, brake disc and caliper, and what lies behind them.

Wheel coordinates are millimetres in the plane of the wheel's outer face: `a` to the right, `b` up, the hub at 0. What
lies `d` mm deeper in the wheel appears `d · INWARD` further left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.scene.body import AXLE_H
from tests.scene.geometry import CAMERA, Field, inked, mix, smoothstep
from tests.scene.light import Directions, environment, skylight, sunlit, unit

TYRE_RADIUS, RIM_RADIUS, TYRE_WIDTH = 330.0, 252.0, 232.0
INWARD = CAMERA.sin / CAMERA.cos
FACE_W = 846.0
"""The plane of the near wheels' outer faces, `w` in mm."""


@dataclass(frozen=True)
class Layer:
    """A part of the picture: linear RGB float32 [H, W, 3] and its coverage float32 [H, W], 0 to 1."""

    rgb: Field
    cover: Field


def _place(axle_u: float) -> tuple[float, float, float]:
    """Picture position (x, y) of a hub, and scene units per millimetre there."""
    x, y = CAMERA.project(axle_u, FACE_W, AXLE_H)
    return x, y, CAMERA.scale * CAMERA.shrink(axle_u, FACE_W)


def wheel_window(x: Field, y: Field, axle_u: float) -> tuple[slice, slice]:
    """The part [rows, columns] of the picture that a wheel can cover."""
    centre_x, centre_y, scale = _place(axle_u)
    right, down = 1.02 * TYRE_RADIUS * scale * CAMERA.cos, 1.02 * TYRE_RADIUS * scale
    left = right + TYRE_WIDTH * scale * CAMERA.sin
    columns = slice(*np.searchsorted(x, (centre_x - left, centre_x + right)))
    return slice(*np.searchsorted(y, (centre_y - down, centre_y + down))), columns


def see_wheel(x: Field, y: Field, axle_u: float, turn: float) -> Layer:
    """A wheel as seen at the columns `x` [W] and lines `y` [H], its spokes turned by `turn` radians."""
    centre_x, centre_y, scale = _place(axle_u)
    a = ((x - centre_x) / (scale * CAMERA.cos))[None, :] * np.ones_like(y)[:, None]
    b = ((centre_y - y) / scale)[:, None] * np.ones_like(x)[None, :]
    soft = 0.9 * float(x[1] - x[0]) / scale
    rgb, cover = _tyre(a, b, soft)
    rgb = mix(rgb, _well(a, b, soft), inked(np.hypot(a, b), soft, RIM_RADIUS))
    rgb = mix(rgb, *_spokes(a, b, soft, turn))
    rgb = mix(rgb, *_lip(a, b, soft))
    return Layer(rgb, cover)


def _tyre(a: Field, b: Field, soft: float) -> tuple[Field, Field]:
    # Sideways the tyre is the same circle, swept from the outer face to the inner one.
    sweep = TYRE_WIDTH * INWARD
    cover = inked(np.hypot(a - np.clip(a, -sweep, 0.0), b), soft, TYRE_RADIUS)
    face = inked(np.hypot(a, b), soft * 2, TYRE_RADIUS - 6.0)
    return mix(_tread(a, b, sweep), _sidewall(a, b, soft), face), cover


def _sidewall(a: Field, b: Field, soft: float) -> Field:
    """Rubber that bulges, with a groove near the shoulder, the band of the rim guard, and raised lettering."""
    radius, turn = np.hypot(a, b), np.arctan2(b, a)
    bulge = np.clip((radius - RIM_RADIUS) / (TYRE_RADIUS - RIM_RADIUS), 0.0, 1.0) * 2.0 - 0.9
    bulge = bulge + 0.5 * smoothstep(6.0, 0.0, np.abs(radius - 312.0))
    bulge = (bulge - 0.35 * smoothstep(4.0, 0.0, np.abs(radius - 276.0))) * 0.9 / np.maximum(radius, 1.0)
    normal = unit(bulge * a + CAMERA.sin, bulge * b, np.full_like(a, CAMERA.cos))
    rubber = 0.026 * skylight(normal) + 0.018 * environment(normal, 0.3)
    letters = smoothstep(0.55, 0.75, np.sin(turn * 46.0)) * smoothstep(0.2, 0.3, np.sin(turn * 2.0))
    return rubber * (1.0 + 0.7 * letters * inked(np.abs(radius - 294.0), soft, 9.0))[..., None]


def _tread(a: Field, b: Field, sweep: float) -> Field:
    """The tread turns away to the left; its grooves follow the wheel's round."""
    across = np.clip(-(a + np.sqrt(np.clip(TYRE_RADIUS**2 - b * b, 0.0, None))) / sweep, 0.0, 1.0)
    groove = smoothstep(0.82, 0.95, np.cos(across * np.pi * 8.0)) * 0.7
    block = smoothstep(0.75, 0.95, np.sin(b * 0.16 + across * 5.0)) * 0.45
    lit = (0.020 + 0.012 * (b / TYRE_RADIUS)) * (1.0 - np.maximum(groove, block)) * (1.0 - 0.55 * across)
    return np.stack([lit, lit, lit * 1.04], axis=-1)


def _well(a: Field, b: Field, soft: float) -> Field:
    """What is seen between the spokes: the barrel's far wall, the brake disc, the caliper."""
    back = inked(np.hypot(a + 150.0 * INWARD, b), 26.0, 222.0)
    turn = np.arctan2(b, a)
    wall = 0.018 + 0.10 * np.clip(np.cos(turn + 0.7), 0.0, 1.0) ** 2
    dark = (wall * (1.0 - back) + 0.006 * back)[..., None] * np.array([1.0, 1.0, 1.05], np.float32)
    da = a + 62.0 * INWARD
    radius, angle = np.hypot(da, b), np.arctan2(b, da)
    brushed = 0.12 + 0.20 * np.abs(np.cos(angle - 0.9)) ** 6 + 0.03 * np.sin(radius * 1.3)
    holes = np.cos(angle * 18.0 + radius * 0.09) * np.cos(radius * 0.16)
    brushed = brushed * (1.0 - 0.85 * smoothstep(0.72, 0.85, holes))
    disc = brushed[..., None] * np.array([1.0, 0.98, 0.95], np.float32)
    dark = mix(dark, disc, inked(radius, soft, 172.0))
    dark = mix(dark, (0.05, 0.05, 0.055), inked(radius, soft, 84.0))
    return mix(dark, *_caliper(radius, angle, soft))


def _caliper(radius: Field, angle: Field, soft: float) -> tuple[Field, Field]:
    sweep = np.abs(np.angle(np.exp(1j * (angle - 0.35)))).astype(np.float32)
    shape = np.maximum(np.abs(radius - 142.0) - 44.0, (sweep - 0.5) * 142.0)
    round_off = 0.55 + 0.45 * smoothstep(186.0, 110.0, radius) + 0.35 * smoothstep(10.0, 0.0, np.abs(radius - 165.0))
    gold = np.array([0.62, 0.33, 0.055], np.float32) * round_off[..., None]
    bolt = smoothstep(12.0, 8.0, np.hypot(radius - 140.0, (sweep - 0.28) * 142.0))
    return mix(gold, (0.02, 0.02, 0.02), bolt * 0.8), inked(shape, soft * 2)


def _spoke_distance(a: Field, b: Field, turn: float) -> Field:
    """Signed distance to the split spokes and the hub, mm."""
    radius, angle = np.hypot(a, b), np.arctan2(b, a) - turn
    fold = np.abs(np.angle(np.exp(1j * 5.0 * angle)) / 5.0).astype(np.float32)
    along, across = radius * np.cos(fold), radius * np.sin(fold)
    t = np.clip((along - 46.0) / (RIM_RADIUS - 52.0), 0.0, 1.0)
    middle, half = 16.0 + 41.0 * t**1.25, 16.5 - 4.0 * t
    bar = np.maximum(np.abs(across - middle) - half, along - RIM_RADIUS)
    return np.asarray(np.minimum(bar, radius - 58.0))


def _spokes(a: Field, b: Field, soft: float, turn: float) -> tuple[Field, Field]:
    behind = _spoke_distance(a + 26.0 * INWARD, b, turn)
    distance = _spoke_distance(a, b, turn)
    tilt = _tilted(distance, a, b)
    gloss = environment(tilt, 0.12)
    metal = np.array([0.36, 0.37, 0.385], np.float32) * skylight(tilt) + 0.34 * gloss
    metal += 0.5 * sunlit(tilt, 24.0)[..., None]
    flank = np.array([0.11, 0.112, 0.12], np.float32) * (0.5 + 0.5 * skylight(tilt))
    rgb = mix(flank, metal, inked(distance, soft))
    radius = np.hypot(a, b)
    rgb = mix(rgb, (0.05, 0.05, 0.055), inked(np.abs(radius - 33.0), soft * 2, 1.6))
    rgb = mix(rgb, (0.012, 0.018, 0.05), inked(radius, soft, 24.0))
    rgb = mix(rgb, (0.75, 0.76, 0.78), inked(np.abs(a) + np.abs(b), soft, 13.0))
    for i in range(5):
        bolt = turn + (i + 0.5) * 2 * np.pi / 5
        away = np.hypot(a - 46.0 * np.cos(bolt), b - 46.0 * np.sin(bolt))
        rgb = mix(rgb, (0.02, 0.02, 0.022), inked(away, soft, 7.0))
    return rgb, np.maximum(inked(distance, soft), inked(behind, soft)) * inked(radius, soft, RIM_RADIUS - 5.0)


def _tilted(distance: Field, a: Field, b: Field) -> Directions:
    """Normals of the spokes: flat on top, falling away over 6 mm towards each edge."""
    down, right = np.gradient(distance)
    step = np.sqrt(down * down + right * right) + 1e-3
    edge = smoothstep(-7.0, -1.0, distance) * 0.9
    dish = np.clip(np.hypot(a, b) / RIM_RADIUS, 0.0, 1.0) * 0.25
    ring = np.maximum(np.hypot(a, b), 1.0)
    return unit(
        edge * right / step - dish * a / ring + CAMERA.sin,
        -edge * down / step - dish * b / ring,
        np.full_like(a, CAMERA.cos),
    )


def _lip(a: Field, b: Field, soft: float) -> tuple[Field, Field]:
    """The polished outer edge of the rim."""
    radius = np.maximum(np.hypot(a, b), 1.0)
    across = (radius - 245.0) / 9.0
    normal = unit(across * a / radius * 0.8 + CAMERA.sin, across * b / radius * 0.8, np.full_like(a, CAMERA.cos))
    metal = 0.42 * skylight(normal) + 0.5 * environment(normal, 0.1)
    return metal, inked(np.abs(radius - 245.0), soft, 8.0)
