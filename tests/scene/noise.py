"""Value noise: smooth random fields made from a seeded generator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.scene.geometry import Field


def _stretched(grid: Field, length: int, cell: float, axis: int) -> Field:
    at = np.arange(length, dtype=np.float64) / cell
    low = at.astype(np.int64)
    t = (at - low).astype(np.float32)
    t = t * t * (3 - 2 * t)
    t = t[:, None] if axis == 0 else t[None, :]
    a, b = np.take(grid, low, axis=axis), np.take(grid, low + 1, axis=axis)
    return np.asarray(a + (b - a) * t, dtype=np.float32)


def value_noise(rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]) -> Field:
    """float32 [H, W] in -1 to 1 whose features are about `cell` (rows, columns) pixels large."""
    rows, columns = int(shape[0] / cell[0]) + 2, int(shape[1] / cell[1]) + 2
    grid = rng.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32)
    return _stretched(_stretched(grid, shape[0], cell[0], 0), shape[1], cell[1], 1)


def cloudy(rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int) -> Field:
    """Sum of `octaves` fields, each half as large and half as strong as the one before; about -1 to 1."""
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        total += value_noise(rng, shape, (size, size)) * np.float32(0.5**octave)
    return total / np.float32(2 - 0.5 ** (octaves - 1))


def _folded(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    turned = index % (2 * length)
    return np.minimum(turned, 2 * length - 1 - turned)


def bilinear(texture: Field, x: Field, y: Field) -> Field:
    """`texture` [H, W] or [H, W, C] at the pixel positions (x, y), mirrored at its edges."""
    rows, columns = texture.shape[:2]
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = np.asarray(x - x0, dtype=np.float32), np.asarray(y - y0, dtype=np.float32)
    i, j = _folded(y0.astype(np.int64), rows), _folded(x0.astype(np.int64), columns)
    i1, j1 = _folded(y0.astype(np.int64) + 1, rows), _folded(x0.astype(np.int64) + 1, columns)
    if texture.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    top = texture[i, j] + (texture[i, j1] - texture[i, j]) * fx
    low = texture[i1, j] + (texture[i1, j1] - texture[i1, j]) * fx
    return np.asarray(top + (low - top) * fy, dtype=np.float32)


def blurred(image: Field, sigma: float) -> Field:
    """`image` [H, W] or [H, W, C] under a Gaussian of `sigma` pixels; edges repeat."""
    if sigma <= 0:
        return image
    reach = max(int(sigma * 3 + 0.5), 1)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weight = (weight / weight.sum()).astype(np.float32)
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = np.pad(image, pad, mode="edge")
        length, image = image.shape[axis], np.zeros_like(image)
        for i, share in enumerate(weight):
            image += share * (padded[i : i + length] if axis == 0 else padded[:, i : i + length])
    return image
