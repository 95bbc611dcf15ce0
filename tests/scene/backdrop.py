"""What stands behind the car, out of focus: a brick house with windows, ivy, trees, a hedge, a lamp post, some sky.

Positions are in scene units; pictures are linear RGB float32 at `per_unit` pixels for each unit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from tests.scene.geometry import FRAME_HEIGHT, FRAME_WIDTH, Field, smoothstep
from tests.scene.noise import blurred, cloudy

Pair = tuple[float, float]
WALL_FOOT_Y, HOUSE_END_X = 739.0, 936.0
_BRICK_W, _BRICK_H, _MORTAR = 47.0, 15.5, 2.6
_WINDOWS = ((118.0, 196.0, 322.0, 560.0), (452.0, 196.0, 656.0, 560.0))
_CROWNS: tuple[tuple[int, Pair, Pair], ...] = (
    (2600, (1130.0, 420.0), (250.0, 150.0)),
    (3400, (1370.0, 250.0), (270.0, 230.0)),
    (900, (1010.0, 300.0), (110.0, 120.0)),
)
_FOCUS_BLUR = 2.7


@dataclass
class Canvas:
    """A picture under work; `box` gives the part of it that a rectangle in scene units covers."""

    rgb: Field
    per_unit: float

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Field:
        """A view of the pixels in the rectangle, clipped to the frame."""
        left, top, right, bottom = (round(max(v, 0.0) * self.per_unit) for v in (x0, y0, x1, y1))
        return self.rgb[top:bottom, left:right]


def draw_backdrop(rng: np.random.Generator, per_unit: float) -> Field:
    """The whole frame without ground and car, linear RGB float32 [H, W, 3]."""
    shape = (round(FRAME_HEIGHT * per_unit), round(FRAME_WIDTH * per_unit))
    canvas = Canvas(_sky(rng, shape), per_unit)
    _draw_garden(canvas, rng)
    _draw_house(canvas, rng)
    _draw_lamp_post(canvas)
    _draw_pavement(canvas, rng)
    return blurred(canvas.rgb, _FOCUS_BLUR * per_unit)


def _sky(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    down = np.linspace(0.0, 1.0, shape[0], dtype=np.float32)[:, None, None]
    blue, haze = np.array([0.42, 0.62, 0.98], np.float32), np.array([1.15, 1.18, 1.2], np.float32)
    sky = np.broadcast_to(blue + (haze - blue) * np.clip(down * 2.2, 0, 1), (*shape, 3)).copy()
    sky += 0.5 * smoothstep(0.0, 0.6, cloudy(rng, shape, shape[1] / 7, 4))[..., None]
    return np.asarray(sky, dtype=np.float32)


def scatter_leaves(
    rng: np.random.Generator, canvas: Canvas, spots: Field, colours: Field, *, size: float, squash: float = 1.0
) -> None:
    """Stamp one leaf at each of `spots` [N, 2] (scene units), later ones over earlier; `colours` [N, 3], linear."""
    turns, sizes = rng.uniform(0, np.pi, len(spots)), size * rng.uniform(0.55, 1.35, len(spots))
    height, width = canvas.rgb.shape[:2]
    for (x, y), turn, reach, colour in zip(
        spots * canvas.per_unit, turns, sizes * canvas.per_unit, colours, strict=True
    ):
        span = int(reach) + 2
        x0, y0, x1, y1 = max(int(x) - span, 0), max(int(y) - span, 0), int(x) + span + 1, int(y) + span + 1
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            continue
        dx = np.arange(x0, min(x1, width), dtype=np.float32)[None, :] - x
        dy = (np.arange(y0, min(y1, height), dtype=np.float32)[:, None] - y) / squash
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        taper = 0.42 * reach * (1.0 - (along / reach) ** 2)
        cover = np.clip(taper - np.abs(across) + 0.5, 0.0, 1.0)[..., None]
        lit = colour * (1.0 + 0.25 * np.sign(across))[..., None]
        part = canvas.rgb[y0:y1, x0:x1]
        part += (lit - part) * cover


def _crown(rng: np.random.Generator, count: int, centre: Pair, radii: Pair) -> tuple[Field, Field]:
    """Leaf positions in a rounded tree crown, and how much light each gets: more at the upper left."""
    (x, y), (rx, ry) = centre, radii
    turn, out = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    lumps = 1.0 + 0.16 * np.sin(turn * 5.0 + x) + 0.1 * np.sin(turn * 11.0 + y)
    spots = np.stack([x + rx * out * lumps * np.cos(turn), y + ry * out * lumps * np.sin(turn)], axis=1)
    light = 0.55 - 0.45 * (spots[:, 1] - y) / ry - 0.25 * (spots[:, 0] - x) / rx
    return spots.astype(np.float32), np.clip(light + rng.normal(0, 0.28, count), 0.08, 1.5).astype(np.float32)


def _greens(rng: np.random.Generator, light: Field) -> Field:
    tints = np.array(
        [[0.045, 0.080, 0.026], [0.070, 0.105, 0.030], [0.035, 0.060, 0.034], [0.10, 0.115, 0.04]], np.float32
    )
    return np.asarray(tints[rng.integers(0, 4, len(light))] * (0.18 + 1.7 * light)[:, None], dtype=np.float32)


def _draw_garden(canvas: Canvas, rng: np.random.Generator) -> None:
    far = canvas.box(HOUSE_END_X, 300.0, FRAME_WIDTH, WALL_FOOT_Y + 12)
    far[...] = np.array([0.05, 0.075, 0.045], np.float32)
    trunk = canvas.box(1322.0, 330.0, 1362.0, 700.0)
    trunk[...] = np.linspace(0.16, 0.03, trunk.shape[1], dtype=np.float32)[None, :, None] * np.array([1, 0.85, 0.7])
    for count, centre, radii in _CROWNS:
        spots, light = _crown(rng, count, centre, radii)
        order = np.argsort(light + rng.uniform(0, 0.5, count), kind="stable")
        scatter_leaves(rng, canvas, spots[order], _greens(rng, light[order]), size=11.0)
    shrubs = rng.uniform((1150.0, 380.0), (FRAME_WIDTH + 10, 600.0), (1500, 2)).astype(np.float32)
    shade = rng.uniform(0.05, 0.5, len(shrubs)).astype(np.float32)
    scatter_leaves(rng, canvas, shrubs, _greens(rng, shade), size=11.0)
    hedge = rng.uniform((HOUSE_END_X, 560.0), (FRAME_WIDTH + 10, WALL_FOOT_Y + 4), (2600, 2)).astype(np.float32)
    light = np.clip(1.1 - (hedge[:, 1] - 560.0) / 150.0 + rng.normal(0, 0.25, len(hedge)), 0.06, 1.4)
    scatter_leaves(rng, canvas, hedge, _greens(rng, light.astype(np.float32)), size=9.0)


def _draw_house(canvas: Canvas, rng: np.random.Generator) -> None:
    wall = canvas.box(0.0, 0.0, HOUSE_END_X, WALL_FOOT_Y)
    wall[...] = _bricks(rng, wall.shape[:2], canvas.per_unit)
    dapple = cloudy(rng, wall.shape[:2], 190.0 * canvas.per_unit, 4)
    wall *= (0.62 + 0.38 * smoothstep(-0.12, 0.16, dapple))[..., None]
    band = canvas.box(0.0, 96.0, HOUSE_END_X + 6, 132.0)
    band[...] = _plaster(rng, band.shape[:2]) * np.linspace(1.1, 0.75, band.shape[0], dtype=np.float32)[:, None, None]
    canvas.box(0.0, 132.0, HOUSE_END_X, 140.0)[...] *= 0.45
    plinth = canvas.box(0.0, 664.0, HOUSE_END_X + 6, WALL_FOOT_Y)
    plinth[...] = _plaster(rng, plinth.shape[:2]) * 0.62
    canvas.box(0.0, 660.0, HOUSE_END_X + 6, 665.0)[...] = 0.55
    for window in _WINDOWS:
        _draw_window(canvas, rng, window)
    _draw_door(canvas)
    pipe = canvas.box(900.0, 0.0, 916.0, 700.0)
    pipe[...] = (0.10 + 0.22 * np.sin(np.linspace(0.2, 3.0, pipe.shape[1])) ** 3)[None, :, None]
    canvas.box(916.0, 140.0, 924.0, 664.0)[...] *= 0.6
    ivy, light = _crown(rng, 1500, (10.0, 330.0), (95.0, 330.0))
    scatter_leaves(rng, canvas, ivy, _greens(rng, light), size=10.0)


def _bricks(rng: np.random.Generator, shape: tuple[int, int], per_unit: float) -> Field:
    x = np.arange(shape[1], dtype=np.float32)[None, :] / per_unit
    y = np.arange(shape[0], dtype=np.float32)[:, None] / per_unit
    row = np.floor(y / _BRICK_H).astype(np.int64)
    shifted = x + (row % 2) * (_BRICK_W / 2)
    column = np.floor(shifted / _BRICK_W).astype(np.int64)
    tints = np.array(
        [[0.300, 0.225, 0.145], [0.235, 0.170, 0.110], [0.360, 0.285, 0.195], [0.180, 0.145, 0.110]], np.float32
    )
    kind = rng.integers(0, 4, (row.max() + 1, column.max() + 2))[row, column]
    tone = rng.normal(1.0, 0.13, (row.max() + 1, column.max() + 2)).astype(np.float32)[row, column]
    bricks = tints[kind] * (tone * (1.0 + 0.14 * cloudy(rng, shape, 40 * per_unit, 5)))[..., None]
    joint = ((y - row * _BRICK_H) < _MORTAR) | ((shifted - column * _BRICK_W) < _MORTAR)
    return np.where(joint[..., None], np.float32(0.42) * np.array([1.0, 0.96, 0.90], np.float32), bricks)


def _plaster(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    stain = 0.62 + 0.08 * cloudy(rng, shape, 60.0, 5)
    return np.asarray(stain[..., None] * np.array([1.0, 0.95, 0.86], np.float32), dtype=np.float32)


def _draw_window(canvas: Canvas, rng: np.random.Generator, opening: tuple[float, float, float, float]) -> None:
    x0, y0, x1, y1 = opening
    canvas.box(x0 - 16, y0 - 34, x1 + 16, y0)[...] = _plaster(rng, canvas.box(x0 - 16, y0 - 34, x1 + 16, y0).shape[:2])
    canvas.box(x0 - 4, y0, x1 + 4, y1)[...] = 0.05
    canvas.box(x0 + 3, y0 + 8, x1, y1)[...] = np.array([0.66, 0.65, 0.62], np.float32)
    middle, bar = (x0 + x1) / 2, y0 + (y1 - y0) * 0.3
    columns, rows = ((x0 + 14, middle - 6), (middle + 6, x1 - 12)), ((y0 + 20, bar - 5), (bar + 5, y1 - 12))
    for (left, right), (top, bottom) in itertools.product(columns, rows):
        pane = canvas.box(left, top, right, bottom)
        down = np.linspace(0.0, 1.0, pane.shape[0], dtype=np.float32)[:, None]
        lumps = 0.12 * cloudy(rng, (1, pane.shape[1]), 60.0 * canvas.per_unit, 4)
        glare = smoothstep(0.05, -0.05, (top + (bottom - top) * down - y0) / (y1 - y0) - 0.52 - lumps)
        pane[...] = 0.022 + (glare * (0.55 + 0.45 * down))[..., None] * np.array([0.30, 0.38, 0.48], np.float32)
        curtain = pane[:, : pane.shape[1] // 3]
        folds = 0.75 + 0.25 * np.sin(np.arange(curtain.shape[1]) / canvas.per_unit * 0.8)
        curtain += 0.10 * folds[None, :, None].astype(np.float32)
    sill = canvas.box(x0 - 20, y1, x1 + 20, y1 + 16)
    sill[...] = np.linspace(0.85, 0.35, sill.shape[0], dtype=np.float32)[:, None, None]
    canvas.box(x0 - 16, y1 + 16, x1 + 18, y1 + 34)[...] *= 0.5


def _draw_door(canvas: Canvas) -> None:
    canvas.box(728.0, 150.0, 868.0, WALL_FOOT_Y)[...] = np.array([0.5, 0.48, 0.43], np.float32)
    canvas.box(742.0, 164.0, 856.0, WALL_FOOT_Y)[...] = np.array([0.018, 0.055, 0.075], np.float32)
    for top in (300.0, 480.0):
        for left in (754.0, 804.0):
            canvas.box(left, top, left + 40, top + 150)[...] = np.array([0.03, 0.085, 0.11], np.float32)
            canvas.box(left, top, left + 40, top + 6)[...] *= 0.4
    canvas.box(754.0, 178.0, 844.0, 276.0)[...] = np.array([0.30, 0.37, 0.44], np.float32)


def _draw_lamp_post(canvas: Canvas) -> None:
    post = canvas.box(1040.0, 60.0, 1056.0, WALL_FOOT_Y + 8)
    across = np.linspace(0.0, np.pi, post.shape[1], dtype=np.float32)
    post[...] = (0.02 + 0.10 * np.sin(across) ** 4)[None, :, None] * np.array([0.9, 1.0, 1.0], np.float32)
    canvas.box(1032.0, 600.0, 1064.0, WALL_FOOT_Y + 8)[...] = np.array([0.028, 0.03, 0.032], np.float32)
    canvas.box(1020.0, 26.0, 1076.0, 34.0)[...] = 0.02
    canvas.box(1026.0, 34.0, 1070.0, 84.0)[...] = np.array([1.5, 1.35, 0.95], np.float32)
    canvas.box(1044.0, 34.0, 1052.0, 84.0)[...] = 0.05


def _draw_pavement(canvas: Canvas, rng: np.random.Generator) -> None:
    walk = canvas.box(0.0, WALL_FOOT_Y, FRAME_WIDTH, 1024.0)
    y = np.arange(walk.shape[0], dtype=np.float32)[:, None] / canvas.per_unit
    x = np.arange(walk.shape[1], dtype=np.float32)[None, :] / canvas.per_unit
    tone = 0.36 * (1.0 + 0.14 * cloudy(rng, walk.shape[:2], 50.0, 5))
    joint = (np.abs((x - 768.0) * (1.0 - y / 150.0)) % 74.0) < 2.0
    tone = np.where(joint, tone * 0.55, tone) * smoothstep(-14.0, 10.0, y)
    kerb, face = (y > 15.0) & (y < 20.0), y >= 20.0
    tone = np.where(kerb, 0.52, np.where(face, 0.13, tone))
    walk[...] = tone[..., None] * np.array([1.0, 0.97, 0.92], np.float32)
