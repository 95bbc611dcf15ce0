"""Phase 2, studio engine: the photo painted anew, held to the vehicle's shape.

Depth and edges of the photo steer a diffusion model; the vehicle is then found again in what it painted, and its
silhouette compared with the photo's. Where it drifted, it is painted again from other noise and with the conditions a
little stronger. All of it is free of the palette, so that another palette costs no GPU time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

import numpy as np

from models.requests import Check, PaintRequest, Tell, untold
from pipeline.buckets import Canvas, fit_canvas
from pipeline.canny import canny_edges
from pipeline.errors import InternalError, ShapeDrift
from pipeline.modes import PaintOptions
from pipeline.quality import in_frame, silhouette_iou
from pipeline.schema import MAX_SEED
from pipeline.types import U8, CleanPlate, Mask, Vehicle, Warning
from pipeline.vehicle import Finder, matte

STRONGER = 0.1
"""What each further attempt adds to a condition's weight; one that the caller set to 0 stays off."""

MOST_WEIGHT = 2.0

_SHOWN = 60  # characters of the caller's own text in a message


class Painter(Finder, Protocol):
    """What painting takes of the studio; see `models.studio.Studio`."""

    def native_px(self) -> int:
        """Side of the square that the diffusion model was trained on."""

    def has_style(self) -> bool:
        """Whether the volume holds a style LoRA."""

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is too long for the model; empty where all of it is read."""

    def depth(self, rgb: U8) -> U8:
        """uint8 [H, W], relative depth over 0 to 255, near is light."""

    def paint(self, request: PaintRequest, check: Check, tell: Tell) -> U8:
        """The picture, uint8 [H, W, 3] of the size of `request.depth`."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One painting: what was asked for, and the silhouette's IoU; None where it is not measured."""

    seed: int
    depth_weight: float
    canny_weight: float
    iou: float | None


@dataclass(frozen=True, slots=True)
class Painted:
    """What was painted, without any palette.

    Attributes:
        rgb: uint8 [H, W, 3], sRGB, at the size it was painted at, of the photo's aspect.
        subject: bool [H, W], the photo's vehicle in that frame.
        iou: of the silhouettes, in this picture; None where the whole picture is the subject.
        attempts: all of them, in order.
    """

    rgb: U8
    subject: Mask
    iou: float | None
    attempts: tuple[Attempt, ...]
    warnings: tuple[Warning, ...] = ()

    def enlarged(self, rgb: U8) -> Painted:
        """The same with its picture at another size, such as the upscaler made of it."""
        return replace(self, rgb=rgb, subject=in_frame(self.subject, rgb.shape[1], rgb.shape[0]))


def paint_vehicle(
    plate: CleanPlate, vehicle: Vehicle, options: PaintOptions, studio: Painter, check: Check, tell: Tell = untold
) -> Painted:
    """The photo painted anew, in the best of the attempts that its shape took.

    Args:
        plate: the photo without what phase 1 removed.
        vehicle: in the plate's frame.
        options: what is asked of the painting.
        studio: the models.
        check: called between the steps; what it raises ends the work.
        tell: told of each step of each attempt.

    Raises:
        ShapeDrift: no attempt kept the silhouette, and the caller does not allow that.
    """
    height_px, width_px = plate.rgb.shape[:2]
    canvas = fit_canvas(width_px, height_px, studio.native_px())
    subject = in_frame(vehicle.mask, canvas.inner_width_px, canvas.inner_height_px)
    request, warnings = _first_request(canvas.lay(plate.rgb), options, studio)
    attempts: list[Attempt] = []
    best, best_rgb = 0, None
    for number in range(options.retries + 1):
        check()
        asked = _attempt(request, number)
        rgb = canvas.cut(studio.paint(asked, check, _of_attempt(number, tell)))
        iou = _measured(rgb, vehicle, subject, canvas, studio)
        attempts.append(Attempt(asked.seed, asked.depth_weight, asked.canny_weight, iou))
        if best_rgb is None or _better(iou, attempts[best].iou):
            best, best_rgb = number, rgb
        if iou is None or iou >= options.iou_threshold:
            break
    if best_rgb is None:  # at least one attempt is made
        raise InternalError
    warnings += _taken(attempts, best, options)
    return Painted(best_rgb, subject, attempts[best].iou, tuple(attempts), warnings)


def _better(iou: float | None, than: float | None) -> bool:
    return iou is not None and than is not None and iou > than


def _of_attempt(number: int, tell: Tell) -> Tell:
    """Tells of one attempt's steps as of a part of all: each takes half of what was left, as it may be the last."""

    def told(message: str, share: float) -> None:
        named = message if number == 0 else f"attempt {number + 1}, {message}"
        tell(named, 1 - 0.5**number * (1 - share / 2))

    return told


def _taken(attempts: Sequence[Attempt], best: int, options: PaintOptions) -> tuple[Warning, ...]:
    """What is to be said of the attempt that was taken.

    Raises:
        ShapeDrift: it drifted, and the caller does not allow that.
    """
    taken, warnings = attempts[best], []
    if best > 0 and taken.iou is not None:
        of = f"attempt {best + 1} of {len(attempts)} was taken"
        message = f"{of}: seed {taken.seed}, IoU of the silhouettes {taken.iou:.4f}"
        warnings.append(Warning("retried", message))
    if taken.iou is not None and taken.iou < options.iou_threshold:
        warnings.append(_drifted(taken.iou, len(attempts), options))
    return tuple(warnings)


def attempt_seed(seed: int, number: int) -> int:
    """The seed of attempt `number` from 0: the caller's own, then ones that are derived from it."""
    if number == 0:
        return seed
    return int.from_bytes(blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()) & MAX_SEED


def _attempt(request: PaintRequest, number: int) -> PaintRequest:
    def stronger(weight: float) -> float:
        return 0.0 if weight == 0.0 else min(round(weight + number * STRONGER, 6), max(weight, MOST_WEIGHT))

    return replace(
        request,
        depth_weight=stronger(request.depth_weight),
        canny_weight=stronger(request.canny_weight),
        seed=attempt_seed(request.seed, number),
    )


def _first_request(laid: U8, options: PaintOptions, studio: Painter) -> tuple[PaintRequest, tuple[Warning, ...]]:
    depth = studio.depth(laid)
    flat = _is_flat(depth)
    warnings = _unused(options, studio)
    if flat:
        message = "the photo shows no depth, so its edges alone hold the shape"
        warnings += (Warning("depth_flat", message),)
    request = options.request(depth, canny_edges(laid))
    if flat:
        request = replace(request, depth_weight=0.0)
    return request, warnings


def _is_flat(depth: U8) -> bool:
    """Whether there is no depth at all; else it must fill its 8 bits, or the ControlNet would see a black picture.

    Raises:
        InternalError: it does not.
    """
    low, high = int(depth.min()), int(depth.max())
    if depth.dtype != np.uint8 or (high != low and (low, high) != (0, 255)):
        raise InternalError
    return low == high


def _unused(options: PaintOptions, studio: Painter) -> tuple[Warning, ...]:
    """What of the request changes nothing."""
    warnings = []
    unread = studio.unread(options.prompt)
    if unread:
        message = f'style.prompt is longer than the model reads; what follows is left out: "{unread[:_SHOWN]}"'
        warnings.append(Warning("prompt_cut", message))
    if "negative_prompt" in options.asked and (options.guidance_scale <= 1.0 or options.guidance_until == 0.0):
        at = f"style.guidance_scale {options.guidance_scale:g}, guidance_until {options.guidance_until:g}"
        message = f"without guidance ({options.mode} at {at})"
        warnings.append(Warning("negative_prompt_unused", f"style.negative_prompt changes nothing {message}"))
    if "lora_scale" in options.asked and not studio.has_style():
        message = "style.lora_scale changes nothing: this worker has no style LoRA"
        warnings.append(Warning("lora_scale_unused", message))
    return tuple(warnings)


def _measured(rgb: U8, vehicle: Vehicle, subject: Mask, canvas: Canvas, studio: Painter) -> float | None:
    if vehicle.source == "whole":
        return None
    wide, high = canvas.inner_width_px / vehicle.mask.shape[1], canvas.inner_height_px / vehicle.mask.shape[0]
    x0, y0, x1, y1 = vehicle.box
    return silhouette_iou(subject, matte(rgb, (x0 * wide, y0 * high, x1 * wide, y1 * high), studio))


def _drifted(iou: float, attempts: int, options: PaintOptions) -> Warning:
    """The warning that the silhouette drifted.

    Raises:
        ShapeDrift: the caller does not allow it.
    """
    tried = "the attempt" if attempts == 1 else f"the best of {attempts} attempts"
    message = f"{tried} kept {iou:.0%} of the vehicle's silhouette, below {options.iou_threshold:.0%}"
    if not options.allow_drift:
        raise ShapeDrift(message, iou=iou, field="style.iou_threshold")
    return Warning("shape_drift", message)
