"""The asphalt in front: grain, cracks, a mended patch, a parking line, leaves, a puddle, and the car's shadow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.scene.backdrop import Canvas, scatter_leaves
from tests.scene.body import AXLE_H, FRONT_AXLE_U, REAR_AXLE_U
from tests.scene.geometry import CAMERA, FRAME_HEIGHT, FRAME_WIDTH, Field, distance_to_line, mix, smoothstep
from tests.scene.light import SUN
from tests.scene.noise import bilinear, cloudy

EDGE_Y = 764.0
"""Where the asphalt meets the kerb, scene units."""
_TEXEL_MM = 3.0


@dataclass(frozen=True)
class Plane:
    """The ground as the pixels see it, float32 [H, W]: mm sideways and in depth, and in the car's u and w."""

    across: Field
    depth: Field
    u: Field
    w: Field
    pixel_mm: Field


def see_ground(x: Field, y: Field) -> Plane:
    """The ground at the columns `x` [W] and lines `y` [H] below the horizon, scene units."""
    shrink = ((y - CAMERA.horizon_y) / (CAMERA.ground_y - CAMERA.horizon_y))[:, None]
    across = (x - CAMERA.middle_x)[None, :] / (CAMERA.scale * shrink)
    depth = np.broadcast_to(CAMERA.distance_mm / shrink, across.shape)
    m = across + CAMERA.middle_m
    inward = depth - CAMERA.distance_mm + CAMERA.middle_u * CAMERA.sin - CAMERA.near_w * CAMERA.cos
    u, w = m * CAMERA.cos + inward * CAMERA.sin, m * CAMERA.sin - inward * CAMERA.cos
    pixel = np.broadcast_to(1.0 / (CAMERA.scale * shrink), across.shape)
    return Plane(across.astype(np.float32), depth.astype(np.float32), u, w, pixel.astype(np.float32))


def draw_ground(rng: np.random.Generator, plane: Plane, per_unit: float, top_y: float) -> Field:
    """Lit asphalt with its marks and leaves, without puddle and shadow: linear RGB float32 [H, W, 3]."""
    tone = 0.155 * _grain(rng, plane)
    tone = tone * (1.0 - 0.42 * _patch(plane))
    rgb = tone[..., None] * np.array([1.0, 0.985, 0.96], np.float32)
    rgb = mix(rgb, *_painted_line(rng, plane))
    crack = _cracks(rng, plane)
    rgb = rgb * (1.0 - 0.8 * crack)[..., None]
    _drop_leaves(rng, Canvas(rgb, per_unit), top_y)
    return rgb


def _grain(rng: np.random.Generator, plane: Plane) -> Field:
    """Relative brightness of the asphalt: stones of a few mm, wear, and large stains."""
    size = 1024
    stones = rng.normal(0.0, 1.0, (size, size)).astype(np.float32)
    fine = bilinear(stones, plane.across / _TEXEL_MM / 1.4, plane.depth / _TEXEL_MM / 3.2)
    coarse = bilinear(stones, plane.across / 17.0, plane.depth / 41.0)
    stain = bilinear(cloudy(rng, (256, 256), 64.0, 5), plane.across / 22.0, plane.depth / 30.0)
    bright = smoothstep(1.75, 2.3, fine) * 1.3
    return np.asarray(np.clip(1.0 + 0.20 * fine + 0.12 * coarse + 0.42 * stain + bright, 0.25, 3.0), dtype=np.float32)


def _patch(plane: Plane) -> Field:
    """A mended rectangle in the front right, darker than the rest."""
    inside = np.maximum(np.abs(plane.across - 2150.0) - 820.0, np.abs(plane.depth - 9700.0) - 560.0)
    return smoothstep(12.0, -12.0, inside)


def _painted_line(rng: np.random.Generator, plane: Plane) -> tuple[Field, Field]:
    """A worn white line beside the car, parallel to it."""
    worn = bilinear(cloudy(rng, (512, 512), 40.0, 6), plane.across / 9.0, plane.depth / 14.0)
    cover = smoothstep(92.0, 84.0, np.abs(plane.w - 1720.0)) * smoothstep(-0.34, 0.05, worn)
    paint = 0.66 * (1.0 + 0.18 * worn)
    return paint[..., None] * np.array([1.0, 0.985, 0.95], np.float32), cover * 0.92


def _cracks(rng: np.random.Generator, plane: Plane) -> Field:
    dark = np.zeros(plane.across.shape, dtype=np.float32)
    for start, heading, steps in (
        ((-2700.0, 9300.0), 0.25, 46),
        ((300.0, 8000.0), 1.1, 30),
        ((1500.0, 11000.0), -0.5, 34),
    ):
        turns = heading + np.cumsum(rng.normal(0.0, 0.33, steps)) * 0.7
        walk = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], axis=1) * 95.0, axis=0) + start
        away = distance_to_line(walk, plane.across, plane.depth, 60.0)
        dark = np.maximum(dark, smoothstep(5.0, 1.0, away / np.maximum(plane.pixel_mm, 2.0) * 2.2))
    return dark


def _drop_leaves(rng: np.random.Generator, canvas: Canvas, top_y: float) -> None:
    count = 150
    low = np.sqrt(rng.uniform(0.0, 1.0, count)) * (FRAME_HEIGHT - top_y)
    drifts = rng.uniform(0.0, FRAME_WIDTH, 9)
    spots = np.stack([drifts[rng.integers(0, 9, count)] + rng.normal(0.0, 120.0, count), low], axis=1).astype(
        np.float32
    )
    tints = np.array([[0.26, 0.15, 0.05], [0.17, 0.08, 0.035], [0.34, 0.24, 0.09], [0.10, 0.11, 0.04]], np.float32)
    colours = tints[rng.integers(0, 4, count)] * rng.uniform(0.6, 1.4, (count, 1)).astype(np.float32)
    dark = np.full_like(colours, 0.03)
    near = spots[:, 1] > 0.45 * (FRAME_HEIGHT - top_y)
    for chosen, size in ((~near, 4.5), (near, 8.5)):
        scatter_leaves(rng, canvas, spots[chosen] + np.float32(1.5), dark[chosen], size=size, squash=0.5)
        scatter_leaves(rng, canvas, spots[chosen], colours[chosen], size=size, squash=0.5)


def shadow(plane: Plane) -> Field:
    """Share of light that reaches the ground, float32 [H, W]: almost none under the car, less behind it."""
    # The low camera sees past the far sill; the shade there is taken to be as deep as under the car.
    contact = np.minimum(_slab_distance(plane, 0.0, 0.0), _slab_distance(plane, 0.0, -900.0))
    under = 1.0 - 0.78 * smoothstep(190.0, -190.0, contact)
    halo = 1.0 - 0.42 * smoothstep(900.0, -100.0, contact)
    lengthways = -(SUN[0] * CAMERA.cos - SUN[2] * CAMERA.sin) / SUN[1]
    sideways = -(SUN[0] * CAMERA.sin + SUN[2] * CAMERA.cos) / SUN[1]
    cast = np.full(plane.u.shape, 1e6, dtype=np.float32)
    for height in (250.0, 500.0, 750.0, 1000.0):
        cast = np.minimum(cast, _slab_distance(plane, lengthways * height, sideways * height))
    sun = 1.0 - 0.62 * smoothstep(120.0, -160.0, cast)
    for axle in (FRONT_AXLE_U, REAR_AXLE_U):
        patch = np.hypot((plane.u - axle) / 1.25, (plane.w - 720.0) / 0.9)
        under = under * (1.0 - 0.55 * smoothstep(AXLE_H, 110.0, patch))
    return np.asarray(under * halo * sun, dtype=np.float32)


def _slab_distance(plane: Plane, du: float, dw: float) -> Field:
    """Signed distance, mm, to the car's footprint moved by (du, dw)."""
    a, b = np.abs(plane.u - du - 2230.0) - 1960.0, np.abs(plane.w - dw) - 720.0
    outside = np.hypot(np.maximum(a, 0.0), np.maximum(b, 0.0))
    return np.asarray(outside + np.minimum(np.maximum(a, b), 0.0), dtype=np.float32)


def puddle(rng: np.random.Generator, plane: Plane) -> Field:
    """Coverage 0 to 1 of the standing water in the front left."""
    wobble = bilinear(cloudy(rng, (256, 256), 64.0, 5), plane.across / 6.0, plane.depth / 11.0)
    reach = np.hypot((plane.across + 880.0) / 1450.0, (plane.depth - 8150.0) / 1250.0) + 0.75 * wobble
    return smoothstep(1.0, 0.88, reach)
