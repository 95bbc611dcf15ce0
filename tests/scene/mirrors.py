"""The two door mirrors: painted shells on short black stems."""

from __future__ import annotations

import numpy as np

from tests.scene.geometry import CAMERA, Field, inked, mix
from tests.scene.light import environment, facing, fresnel, mirrored, skylight, sunlit, unit
from tests.scene.wheels import Layer

_HALF_WIDTH, _HALF_HEIGHT, _U, _W, _H = 104.0, 66.0, 1700.0, 965.0, 1030.0


def see_mirror(x: Field, y: Field, side: float) -> tuple[Layer, tuple[slice, slice]]:
    """The mirror at the near (side 1) or far (side −1) door, and the part [rows, columns] of the picture it lies in."""
    centre_x, centre_y = CAMERA.project(_U, _W * side, _H)
    scale = CAMERA.scale * CAMERA.shrink(_U, _W * side)
    reach = 190.0 * scale
    columns = slice(*np.searchsorted(x, (centre_x - reach, centre_x + reach)))
    rows = slice(*np.searchsorted(y, (centre_y - reach, centre_y + reach)))
    a = np.broadcast_to(
        ((x[columns] - centre_x) / scale)[None, :], (rows.stop - rows.start, columns.stop - columns.start)
    )
    b = np.broadcast_to(((centre_y - y[rows]) / scale)[:, None], a.shape)
    return _shell(a, b, side, float(x[1] - x[0]) / scale), (rows, columns)


def _shell(a: Field, b: Field, side: float, pixel_mm: float) -> Layer:
    p, q = a / _HALF_WIDTH, b / _HALF_HEIGHT
    # Fuller at the top than at the foot, and cut off square at the back.
    q = q * (1.0 + 0.12 * p)
    out = (np.abs(p) ** 2.6 + np.abs(q) ** 2.6) ** (1 / 2.6)
    rise = np.clip(1.0 - out**2.4, 0.02, 1.0) ** 0.5
    normal = unit(p * np.abs(p) * 0.9 - 0.25, q * np.abs(q) * 1.1 + 0.06, rise)
    view = unit(np.zeros_like(a), np.zeros_like(a), np.ones_like(a))
    ray, share = mirrored(normal, view), fresnel(facing(normal, view), 0.055)[..., None]
    red = np.array([0.44, 0.0095, 0.0055], np.float32) * skylight(normal)
    paint = red * (1 - share) + share * environment(ray, 0.05) + 1.2 * sunlit(ray, 90.0)[..., None]
    black = 0.010 + 0.06 * environment(ray, 0.1)
    rgb = mix(paint, black, inked(b + 0.10 * a + 26.0, pixel_mm * 1.5))
    shell = inked((out - 1.0) * _HALF_HEIGHT, pixel_mm)
    stem = np.maximum(np.abs(a - side * 34.0 + b * 0.5 * side + 50.0 * side) - 24.0, np.abs(b + 80.0) - 34.0)
    foot = inked(stem, pixel_mm)
    return Layer(mix(np.full_like(rgb, 0.012), rgb, shell), np.maximum(shell, foot))
