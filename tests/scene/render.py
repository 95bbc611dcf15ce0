"""The whole picture: backdrop, ground, car, and the camera's own faults."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.scene.backdrop import draw_backdrop
from tests.scene.body import FRONT_AXLE_U, REAR_AXLE_U, see_body
from tests.scene.coachwork import finish
from tests.scene.geometry import CAMERA, FRAME_WIDTH, Field, mix, smoothstep
from tests.scene.ground import EDGE_Y, draw_ground, puddle, see_ground, shadow
from tests.scene.mirrors import see_mirror
from tests.scene.noise import blurred, cloudy
from tests.scene.wheels import Layer, see_wheel, wheel_window

BoxPx = tuple[int, int, int, int]
_CAR_BOX = (120.0, 404.0, 1428.0, 872.0)
_OVERSAMPLING = 2
_EVERYWHERE = (slice(None), slice(None))
_WHEEL_TURN = {FRONT_AXLE_U: 0.31, REAR_AXLE_U: 0.93}


@dataclass(frozen=True)
class Scene:
    """A drawn photograph with its ground truth.

    Attributes:
        rgb: uint8 [H, W, 3], sRGB.
        silhouette: bool [H, W], the vehicle: body, glass, wheels, mirrors.
        plate, logo: bool [H, W], the licence plate and the door emblem.
        vehicle_box, plate_box, logo_box: tight half-open pixel boxes (x0, y0, x1, y1) of those masks.
    """

    rgb: npt.NDArray[np.uint8]
    silhouette: npt.NDArray[np.bool_]
    plate: npt.NDArray[np.bool_]
    logo: npt.NDArray[np.bool_]
    vehicle_box: BoxPx
    plate_box: BoxPx
    logo_box: BoxPx


@dataclass(frozen=True)
class _Car:
    """The car alone over its box of the picture: premultiplied linear RGB, and coverages 0 to 1."""

    rgb: Field
    cover: Field
    plate: Field
    emblem: Field


def render_scene(width_px: int = 1536, height_px: int = 1024, seed: int = 7) -> Scene:
    """Draw the scene. The seed changes clutter and noise; the car stays as it is.

    Raises:
        ValueError: the size is not 3:2, or under 96 pixels wide.
    """
    if height_px != round(width_px / 1.5) or width_px < 96:
        raise ValueError("the scene is 3:2 and at least 96 pixels wide")
    per_unit = width_px / FRAME_WIDTH
    flakes, clutter, sensor = np.random.Generator(np.random.PCG64(seed)).spawn(3)
    picture = draw_backdrop(clutter, per_unit)
    car, box = _draw_car(flakes, per_unit)
    window = np.s_[box[1] : box[3], box[0] : box[2]]
    _lay_ground(clutter, picture, per_unit)
    picture[window] = picture[window] * (1.0 - car.cover[..., None]) + car.rgb
    _flood(clutter, picture, per_unit)
    rgb = _photographed(picture, sensor, per_unit)
    masks = [_placed(part, box, rgb.shape[:2]) for part in (car.cover, car.plate, car.emblem)]
    boxes = [_tight_box(mask) for mask in masks]
    return Scene(rgb, masks[0], masks[1], masks[2], boxes[0], boxes[1], boxes[2])


def encode_jpeg(scene: Scene, quality: int = 92) -> bytes:
    """The scene's picture as a baseline JPEG, 4:2:0."""
    out = io.BytesIO()
    Image.fromarray(scene.rgb).save(out, "JPEG", quality=quality, subsampling=2)
    return out.getvalue()


def _pixel_centres(first: float, count: int, step: float) -> Field:
    return np.asarray(first + (np.arange(count) + 0.5) * step, dtype=np.float32)


def _draw_car(rng: np.random.Generator, per_unit: float) -> tuple[_Car, BoxPx]:
    x0, y0, x1, y1 = (round(v * per_unit) for v in _CAR_BOX)
    step = 1.0 / (per_unit * _OVERSAMPLING)
    x = _pixel_centres(x0 / per_unit, (x1 - x0) * _OVERSAMPLING, step)
    y = _pixel_centres(y0 / per_unit, (y1 - y0) * _OVERSAMPLING, step)
    body = see_body(x, y)
    coachwork = finish(body, x, y, rng.uniform(-1.0, 1.0, body.u.shape).astype(np.float32))
    rgb, cover = np.zeros((*body.u.shape, 3), dtype=np.float32), np.zeros_like(body.u)
    _lay(rgb, cover, *see_mirror(x, y, -1.0))
    wells = body.cover * (coachwork.cover < body.cover)
    _lay(rgb, cover, Layer(np.full_like(rgb, 0.0035), wells), _EVERYWHERE)
    _lay_wheels(rgb, cover, x, y)
    _lay(rgb, cover, Layer(coachwork.rgb, coachwork.cover), _EVERYWHERE)
    _lay(rgb, cover, *see_mirror(x, y, 1.0))
    parts = (rgb, cover, coachwork.plate, coachwork.emblem)
    return _Car(*(_reduced(part) for part in parts)), (x0, y0, x1, y1)


def _lay(rgb: Field, cover: Field, layer: Layer, window: tuple[slice, slice]) -> None:
    """Put `layer` over the premultiplied picture (`rgb`, `cover`), in place."""
    clear = 1.0 - layer.cover
    rgb[window] = rgb[window] * clear[..., None] + layer.rgb * layer.cover[..., None]
    cover[window] = cover[window] * clear + layer.cover


def _lay_wheels(rgb: Field, cover: Field, x: Field, y: Field) -> None:
    """Lay the near wheels; the far ones stand unseen in the car's own shade."""
    for axle, turn in _WHEEL_TURN.items():
        rows, columns = wheel_window(x, y, axle)
        wheel = see_wheel(x[columns], y[rows], axle, turn)
        # A wheel stands in the shade of its arch.
        light = 1.0 - 0.88 * smoothstep(300.0, 690.0, CAMERA.height_mm(x[None, columns], y[rows, None]))
        _lay(rgb, cover, Layer(wheel.rgb * light[..., None], wheel.cover), (rows, columns))


def _reduced(part: Field) -> Field:
    height, width = part.shape[0] // _OVERSAMPLING, part.shape[1] // _OVERSAMPLING
    blocks = part.reshape(height, _OVERSAMPLING, width, _OVERSAMPLING, -1).mean(axis=(1, 3), dtype=np.float32)
    return np.asarray(blocks.reshape(height, width, *part.shape[2:]), dtype=np.float32)


def _lay_ground(rng: np.random.Generator, picture: Field, per_unit: float) -> None:
    """Replace everything below the kerb by asphalt; shade the pavement too where the car's shadow falls on it."""
    height, width = picture.shape[:2]
    top = round(EDGE_Y * per_unit)
    x, y = _pixel_centres(0.0, width, 1 / per_unit), _pixel_centres(top / per_unit, height - top, 1 / per_unit)
    plane = see_ground(x, y)
    asphalt = draw_ground(rng, plane, per_unit, top / per_unit)
    picture[top:] = asphalt * (1.5 * shadow(plane))[..., None]


def _flood(rng: np.random.Generator, picture: Field, per_unit: float) -> None:
    """Put the puddle into the finished picture: it mirrors what stands above the line where the car stands."""
    height, width = picture.shape[:2]
    axis = round((CAMERA.ground_y + 5.0) * per_unit)
    rows = np.arange(axis, height)
    x, y = _pixel_centres(0.0, width, 1 / per_unit), _pixel_centres(axis / per_unit, len(rows), 1 / per_unit)
    plane = see_ground(x, y)
    cover = puddle(rng, plane)
    ripple = cloudy(rng, cover.shape, 24.0 * per_unit, 3) * 2.2 * per_unit
    source = np.clip(2 * axis - rows[:, None] + ripple, 0, height - 1).astype(np.int64)
    image = blurred(picture[source, np.arange(width)[None, :]], 0.8 * per_unit)
    wet = picture[axis:] * 0.34 + 0.48 * image
    picture[axis:] = mix(picture[axis:] * (1.0 - 0.35 * blurred(cover, 6 * per_unit))[..., None], wet, cover)


def _photographed(light: Field, rng: np.random.Generator, per_unit: float) -> npt.NDArray[np.uint8]:
    """From linear light to the camera's 8-bit sRGB: falloff, vignette, flare, softness, tone curve, noise."""
    height, width = light.shape[:2]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    falloff = (1.06 - 0.10 * x) * (1.0 - 0.26 * (x * x * 0.62 + y * y * 0.38) ** 1.5)
    exposed = light * falloff[..., None]
    flare = blurred(np.clip(exposed - 1.0, 0.0, 3.0), 5.0 * per_unit)
    exposed = blurred(exposed, 0.55 * per_unit) + 0.22 * flare + 0.003
    grain = rng.normal(0.0, 1.0, (height, width, 1)).astype(np.float32)
    chroma = blurred(rng.normal(0.0, 1.0, (height, width, 3)).astype(np.float32), 0.9)
    spread = np.sqrt(0.00075 * np.clip(exposed, 0.0, 1.5) + 0.000012)
    exposed = exposed + spread * (0.75 * grain + 1.5 * chroma)
    return np.asarray(np.rint(_developed(exposed) * 255.0), dtype=np.uint8)


def _developed(light: Field) -> Field:
    """Tone curve: a filmic shoulder (Hable 2010, refitted by Narkowicz 2015) and the sRGB transfer function."""
    c = np.clip(light, 0.0, None) * 0.86
    curve = np.clip(c * (2.51 * c + 0.03) / (c * (2.43 * c + 0.59) + 0.14), 0.0, 1.0)
    encoded = np.where(curve <= 0.0031308, 12.92 * curve, 1.055 * np.maximum(curve, 1e-6) ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(encoded, 0.0, 1.0), dtype=np.float32)


def _placed(cover: Field, box: BoxPx, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = cover >= 0.5
    return mask


def _tight_box(mask: npt.NDArray[np.bool_]) -> BoxPx:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
