"""Which vehicle it is, and its exact silhouette: the detector gives boxes, the segmenter cuts out what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from models.requests import BoxF, Detection
from pipeline.errors import NoSubject
from pipeline.subject import SubjectPrior
from pipeline.types import U8, Mask, Vehicle

PHRASES = ("car", "truck", "van", "bus", "motorcycle", "vehicle")
"""What the detector is asked for: the general word alone finds fewer of each kind."""

BOX_THRESHOLD, TEXT_THRESHOLD = 0.3, 0.25
"""The detector's own defaults. They are not the request's, which say how sure a thing must be to be taken away."""

MOST_CANDIDATES = 8
"""Vehicles that are cut out to see which is the largest; the detector is surest of them."""

SPILL = 0.05
"""How far a silhouette may leave the box it was asked in, as a share of the box's sides."""

SAME = 0.5
"""Least IoU of a known box and a detected one that are of the same vehicle."""


class Finder(Protocol):
    """What finding a vehicle takes of the studio; see `models.studio.Studio`."""

    def detect(
        self, rgb: U8, phrases: Sequence[str], box_threshold: float, text_threshold: float
    ) -> tuple[Detection, ...]:
        """What of `phrases` is in the picture, best first."""

    def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
        """The thing in each box, bool [H, W]."""

    def segment_at(self, rgb: U8, point: tuple[float, float]) -> Mask:
        """The thing at a point, bool [H, W]."""


def find_vehicle(rgb: U8, prior: SubjectPrior, studio: Finder) -> Vehicle:
    """The vehicle that the caller means.

    A box is cut out as it is. At a point, the detector is asked first, since a point on a door may mean the door; where
    it knows no vehicle there, what lies at the point is taken. Else it is the one that covers the most pixels.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        prior: in pixels of `rgb`.
        studio: the models.

    Raises:
        NoSubject: there is none.
    """
    if prior.kind == "whole":
        return Vehicle(
            np.ones(rgb.shape[:2], bool), (0.0, 0.0, float(rgb.shape[1]), float(rgb.shape[0])), None, "whole"
        )
    if prior.kind == "box":
        x0, y0, x1, y1 = prior.value
        mask, score = cut_out(rgb, [(x0, y0, x1, y1)], studio)[0], None
    elif prior.kind == "point":
        mask, score = _at(rgb, (prior.value[0], prior.value[1]), studio)
    else:
        mask, score = _largest(rgb, _detected(rgb, studio), studio)
    box = bounds(mask)
    if box is None:
        raise NoSubject(_NONE[prior.kind], field="subject")
    return Vehicle(mask, box, score, prior.kind)


_NONE = {
    "auto": 'no vehicle was found; point at it, or send "whole" to take the whole picture',
    "point": "nothing could be made out at that point",
    "box": "nothing could be made out in that box",
}


def matte(rgb: U8, box: BoxF, studio: Finder) -> Mask:
    """The silhouette of a vehicle that is known to be about `box`, by the same means as the photo's was found.

    The detector's box is taken where it sees that vehicle, so that one which has grown or moved is measured as it is;
    else the known box. Nothing there is an empty mask.

    Args:
        rgb: uint8 [H, W, 3], sRGB, such as a generated picture.
        box: (x0, y0, x1, y1) in pixels of `rgb`.
        studio: the models.

    Returns:
        bool [H, W].
    """
    near = max(_detected(rgb, studio), key=lambda found: box_iou(found.box, box), default=None)
    seen = near.box if near is not None and box_iou(near.box, box) >= SAME else box
    return cut_out(rgb, [seen], studio)[0]


def cut_out(rgb: U8, boxes: Sequence[BoxF], studio: Finder, spill: float = SPILL) -> tuple[Mask, ...]:
    """The thing in each box, bool [H, W], kept to the box: a segmenter that is unsure runs on over the ground.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        boxes: in pixels of `rgb`.
        studio: the models.
        spill: how far it may leave the box, as a share of the box's sides.
    """
    return tuple(_confined(mask, box, spill) for mask, box in zip(studio.segment(rgb, boxes), boxes, strict=True))


def bounds(mask: Mask) -> BoxF | None:
    """(x0, y0, x1, y1) of a mask's pixels, half open; None where it has none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def box_iou(first: BoxF, second: BoxF) -> float:
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (first, second)]
    return shared / max(sum(areas) - shared, 1e-9)


def _detected(rgb: U8, studio: Finder) -> tuple[Detection, ...]:
    return studio.detect(rgb, PHRASES, BOX_THRESHOLD, TEXT_THRESHOLD)[:MOST_CANDIDATES]


def _largest(rgb: U8, found: Sequence[Detection], studio: Finder) -> tuple[Mask, float | None]:
    """The mask of the vehicle that covers the most pixels, and its score; empty where none was found."""
    masks = cut_out(rgb, [vehicle.box for vehicle in found], studio)
    scored = [(mask, vehicle.score) for mask, vehicle in zip(masks, found, strict=True)]
    none = np.zeros(rgb.shape[:2], bool), None
    return max(scored, key=lambda pair: np.count_nonzero(pair[0]), default=none)


def _at(rgb: U8, point: tuple[float, float], studio: Finder) -> tuple[Mask, float | None]:
    """The mask of the vehicle at a point and its score; of several, the surest."""
    x, y = point
    around = [
        vehicle
        for vehicle in _detected(rgb, studio)
        if vehicle.box[0] <= x < vehicle.box[2] and vehicle.box[1] <= y < vehicle.box[3]
    ]
    for mask, vehicle in zip(cut_out(rgb, [vehicle.box for vehicle in around], studio), around, strict=True):
        if mask[int(y), int(x)]:
            return mask, vehicle.score
    return studio.segment_at(rgb, point), None


def _confined(mask: Mask, box: BoxF, spill: float) -> Mask:
    x0, y0, x1, y1 = box
    wide, high = spill * (x1 - x0), spill * (y1 - y0)
    rows = slice(max(int(np.floor(y0 - high)), 0), max(int(np.ceil(y1 + high)), 0))
    columns = slice(max(int(np.floor(x0 - wide)), 0), max(int(np.ceil(x1 + wide)), 0))
    kept = np.zeros_like(mask)
    kept[rows, columns] = mask[rows, columns]
    return kept
