"""The light that falls on the car: a bright evening sky, a row of trees across the street, and the asphalt.

Directions are in the camera's frame: `right`, `up`, `near` (towards the camera). Radiance is linear RGB, 1.0 being a
white wall in this light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.scene.geometry import Field, smoothstep

SUN = (-0.52, 0.66, 0.54)
"""Direction of the key light, unit length."""


@dataclass(frozen=True)
class Directions:
    """Unit vectors, one float32 array for each axis."""

    right: Field
    up: Field
    near: Field

    def cut(self, window: tuple[slice, slice]) -> Directions:
        """The vectors in a part [rows, columns] of the picture."""
        return Directions(self.right[window], self.up[window], self.near[window])

    def dot(self, other: tuple[float, float, float]) -> Field:
        """Cosine of the angle to `other`."""
        return np.asarray(self.right * other[0] + self.up * other[1] + self.near * other[2])


def unit(right: Field, up: Field, near: Field) -> Directions:
    """The directions, each brought to length 1."""
    length = np.sqrt(right * right + up * up + near * near) + np.float32(1e-6)
    return Directions(right / length, up / length, near / length)


def mirrored(normal: Directions, view: Directions) -> Directions:
    """`view` (from the surface to the eye) reflected at surfaces that face along `normal`."""
    twice = 2.0 * (normal.right * view.right + normal.up * view.up + normal.near * view.near)
    return Directions(twice * normal.right - view.right, twice * normal.up - view.up, twice * normal.near - view.near)


def facing(normal: Directions, view: Directions) -> Field:
    """Cosine between surface and eye, 0 to 1."""
    return np.clip(normal.right * view.right + normal.up * view.up + normal.near * view.near, 0.0, 1.0)


def fresnel(cosine: Field, straight: float) -> Field:
    """Share of light that a clear surface mirrors (Schlick 1994); `straight` at right angles."""
    return straight + (1.0 - straight) * (1.0 - cosine) ** 5


def _treeline(azimuth: Field) -> Field:
    """Height of the skyline across the street, as sine of elevation."""
    lumps = 0.045 * np.sin(azimuth * 5.0 + 0.7) + 0.025 * np.sin(azimuth * 13.0 + 2.0) + 0.012 * np.sin(azimuth * 31.0)
    house = 0.08 * (smoothstep(0.55, 0.57, azimuth) - smoothstep(0.95, 0.97, azimuth))
    return np.asarray(0.13 + lumps + house, dtype=np.float32)


def _house_side(ray: Directions, sky: Field) -> Field:
    """What stands behind the car, for mirror rays that leave the camera: the brick house on the left, trees right."""
    across = ray.right / np.maximum(-ray.near, 0.05)
    rise = ray.up / np.maximum(-ray.near, 0.05)
    brick = np.array([0.20, 0.155, 0.105], np.float32) * (0.85 + 0.15 * np.sin(rise * 90.0))[..., None]
    pane = smoothstep(0.12, 0.07, np.abs(np.mod(across, 0.34) - 0.17)) * smoothstep(0.18, 0.12, np.abs(rise - 0.30))
    house = brick + (np.float32(0.45) - brick) * pane[..., None]
    cornice = smoothstep(0.035, 0.028, np.abs(rise - 0.53))
    house = house + (np.float32(0.95) - house) * cornice[..., None]
    leaves = 0.75 + 0.35 * np.sin(across * 37.0) * np.sin(rise * 41.0 + across * 9.0)
    trees = np.array([0.085, 0.11, 0.04], np.float32) * leaves[..., None]
    crown = 0.30 + 0.10 * np.sin(across * 4.0 + 1.0) + 0.04 * np.sin(across * 17.0)
    garden = sky + (trees - sky) * smoothstep(0.04, -0.04, rise - crown)[..., None]
    gable = sky + (house - sky) * smoothstep(0.02, -0.02, rise - 0.72)[..., None]
    return np.asarray(garden + (gable - garden) * smoothstep(0.16, 0.13, across)[..., None], dtype=np.float32)


def environment(ray: Directions, rough: float) -> Field:
    """Linear RGB [..., 3] that comes from where `ray` points; `rough` softens the edges between its parts."""
    azimuth = np.arctan2(ray.right, ray.near).astype(np.float32)
    height = np.clip(ray.up, 0.0, 1.0)[..., None]
    haze, zenith = np.array([1.45, 1.42, 1.36], np.float32), np.array([0.34, 0.55, 0.95], np.float32)
    sky = haze + (zenith - haze) * height**0.55
    bank = np.sin(azimuth * 2.3 + ray.up * 9.0) * np.sin(ray.up * 14.0 - azimuth * 1.7 + 1.0)
    sky += 0.55 * smoothstep(0.05, 0.75, bank)[..., None]
    trees = np.array([0.045, 0.058, 0.048], np.float32) * (1.0 + 0.4 * np.sin(azimuth * 23.0))[..., None]
    over = smoothstep(-rough, rough, ray.up - _treeline(azimuth))[..., None]
    far = trees + (sky - trees) * over
    far += (_house_side(ray, far) - far) * smoothstep(0.02, -0.10, ray.near)[..., None]
    depth = np.clip(-ray.up, 0.0, 1.0)
    ground = np.array([0.36, 0.345, 0.33], np.float32) * (1.0 - 0.93 * smoothstep(0.08, 0.62, depth))[..., None]
    kerb = smoothstep(0.012, 0.0, np.abs(ray.up + 0.055) - 0.012)
    ground = ground + 0.34 * kerb[..., None]
    low = smoothstep(rough * 0.7, -rough * 0.7, ray.up)[..., None]
    return np.asarray(far + (ground - far) * low, dtype=np.float32)


def skylight(normal: Directions) -> Field:
    """Diffuse light [..., 3] on surfaces that face along `normal`: sky from above, bounce from below, and the sun."""
    up = normal.up[..., None] * 0.5 + 0.5
    sky, bounce = np.array([0.50, 0.56, 0.66], np.float32), np.array([0.10, 0.09, 0.08], np.float32)
    sun = np.array([0.92, 0.83, 0.68], np.float32) * np.clip(normal.dot(SUN), 0.0, 1.0)[..., None]
    return np.asarray(bounce + (sky - bounce) * up * up + sun, dtype=np.float32)


def sunlit(ray: Directions, sharpness: float) -> Field:
    """The sun's highlight, 0 to 1, in mirrored rays; the greater `sharpness`, the smaller it is."""
    return np.asarray(np.clip(ray.dot(SUN), 0.0, 1.0) ** sharpness, dtype=np.float32)
