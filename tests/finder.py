"""A drawn street, and a stand-in for the studio's models that sees in it exactly what was drawn.

It looks at the picture it is given, as the models do: a thing that has been painted over is not found any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from models.requests import BoxF, Detection
from pipeline.types import U8, Mask, Photo

WIDTH_PX, HEIGHT_PX = 320, 200
GROUND, BODY, SMALL = (150, 160, 170), (190, 40, 35), (40, 90, 60)
MIRROR, LOGO, PLATE, TEXT, SIGN, FAR_MIRROR = (
    (250, 220, 40),
    (250, 250, 250),
    (40, 200, 220),
    (10, 10, 10),
    (200, 40, 200),
    (250, 140, 40),
)

Colour = tuple[int, int, int]
Names = dict[str, float]


@dataclass(frozen=True)
class Drawn:
    """One thing of the scene: where it is drawn, in which colour, what it may be taken for and how surely.

    Attributes:
        also: colours of what is part of it (the plate's text).
    """

    box: tuple[int, int, int, int]
    colour: Colour
    names: Names
    also: tuple[Colour, ...] = ()

    def mask(self, rgb: U8) -> Mask:
        """The pixels of this thing that are still to be seen."""
        x0, y0, x1, y1 = self.box
        seen = np.zeros(rgb.shape[:2], bool)
        part = rgb[y0:y1, x0:x1]
        for colour in (self.colour, *self.also):
            seen[y0:y1, x0:x1] |= (part == np.array(colour, np.uint8)).all(axis=2)
        return seen


CAR = Drawn((60, 60, 260, 160), BODY, {"car": 0.9, "vehicle": 0.5}, (MIRROR, LOGO, PLATE, TEXT))
VAN = Drawn((4, 20, 54, 60), SMALL, {"van": 0.95}, (FAR_MIRROR,))
THINGS = (
    Drawn((96, 50, 112, 70), MIRROR, {"side mirror": 0.8}),
    Drawn((150, 90, 166, 100), LOGO, {"logo": 0.6, "badge": 0.7}),
    Drawn((180, 130, 210, 142), PLATE, {"license plate": 0.9}, (TEXT,)),
    Drawn((185, 133, 205, 139), TEXT, {"text": 0.95}),
    Drawn((270, 20, 310, 40), SIGN, {"text": 0.5, "lettering": 0.45}),
    Drawn((50, 30, 58, 38), FAR_MIRROR, {"side mirror": 0.6}),
)
STREET = (CAR, VAN, *THINGS)


def street(drawn: Sequence[Drawn] = STREET) -> U8:
    """uint8 [HEIGHT_PX, WIDTH_PX, 3]."""
    rgb = np.full((HEIGHT_PX, WIDTH_PX, 3), GROUND, np.uint8)
    for thing in drawn:
        x0, y0, x1, y1 = thing.box
        rgb[y0:y1, x0:x1] = thing.colour
    return rgb


def photo_of(rgb: U8, scale: int = 1) -> Photo:
    """A photo whose upright original is `scale` times as large as the working frame."""
    return Photo(rgb, rgb.shape[1] * scale, rgb.shape[0] * scale, "0" * 64)


@dataclass
class StreetModels:
    """Finds what was drawn and is still there, cuts it out to the pixel, and fills holes with the nearest colour.

    Attributes:
        drawn: what there is to find.
        asked: the calls, in order: the method and, for `detect`, its phrases and thresholds.
    """

    drawn: Sequence[Drawn] = STREET
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def detect(
        self, rgb: U8, phrases: Sequence[str], box_threshold: float, text_threshold: float
    ) -> tuple[Detection, ...]:
        self.asked.append(("detect", tuple(phrases), box_threshold, text_threshold))
        found = [
            Detection(name, (float(x0), float(y0), float(x1), float(y1)), score)
            for thing in self.drawn
            for name, score in thing.names.items()
            for x0, y0, x1, y1 in [thing.box]
            if name in phrases and score > max(box_threshold, text_threshold) and thing.mask(rgb).sum() > 20
        ]
        return tuple(sorted(found, key=lambda detection: -detection.score))

    def segment(self, rgb: U8, boxes: Sequence[BoxF]) -> tuple[Mask, ...]:
        self.asked.append(("segment", len(boxes)))
        return tuple(self._in_box(rgb, box) for box in boxes)

    def _in_box(self, rgb: U8, box: BoxF) -> Mask:
        def fit(thing: Drawn) -> float:
            return sum(abs(a - b) for a, b in zip(thing.box, box, strict=True))

        return min(self.drawn, key=fit).mask(rgb)

    def segment_at(self, rgb: U8, point: tuple[float, float]) -> Mask:
        self.asked.append(("segment_at", point))
        colour = rgb[int(point[1]), int(point[0])]
        same: Mask = (rgb == colour).all(axis=2)
        return same

    def inpaint(self, rgb: U8, mask: Mask, check: Callable[[], None]) -> U8:
        self.asked.append(("inpaint", int(mask.sum())))
        check()
        _, labels = cv2.distanceTransformWithLabels(
            mask.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        nearest = np.zeros((labels.max() + 1, 3), np.uint8)
        nearest[labels[~mask]] = rgb[~mask]
        filled = rgb.copy()
        filled[mask] = nearest[labels[mask]]
        return filled


def nothing_to_check() -> None:
    """A job that nobody stops."""
