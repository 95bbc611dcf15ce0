"""What is measured on: a photo that was drawn by code, fixed boxes and holes in it, and flat art of what it shows."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks.studio.patience import patient_settings
from models.requests import BoxF
from pipeline.palette import DEFAULT_PALETTE
from pipeline.picture import LARGEST_PX
from pipeline.request import parse_request
from pipeline.resample import resize_linear
from pipeline.run import run
from pipeline.types import U8, Mask
from pipeline.worker import Worker
from tests.scene import render_scene

VEHICLE: BoxF = (0.03, 0.3, 0.97, 0.9)
"""Where the vehicle is taken to be, as shares of the picture."""

THINGS: tuple[BoxF, ...] = (
    (0.1, 0.4, 0.16, 0.46),
    (0.3, 0.5, 0.36, 0.54),
    (0.5, 0.6, 0.6, 0.64),
    (0.7, 0.4, 0.74, 0.46),
    (0.2, 0.7, 0.3, 0.74),
    (0.6, 0.34, 0.66, 0.38),
)
"""Six things on it to cut out and fill in, as shares of the picture."""

DETECTED_PX = (1200, 800)
"""Width and height that the detector sees a 3:2 photo at."""

_HOLE: BoxF = (0.4, 0.4, 0.6, 0.6)  # filled from a crop of half the picture's side
_SOFT_PX = 1.0  # of an enlarged edge: an upscaler's are no sharper


@dataclass(frozen=True, slots=True)
class Subject:
    """A square picture, and what belongs to it.

    Attributes:
        photo: as JPEG, for whole jobs.
        rgb: uint8 [S, S, 3], sRGB, the same picture.
        wide: uint8 [800, 1200, 3], sRGB, the scene in the detector's own size.
        art: uint8 [S, S, 3], sRGB, in flat inks.
        art_twice, art_whole: the same, enlarged with sharp edges: 2 S a side, and as large as phase 3 gets it.
    """

    photo: U8
    rgb: U8
    wide: U8
    art: U8
    art_twice: U8
    art_whole: U8

    @property
    def side_px(self) -> int:
        """S."""
        return len(self.rgb)

    @property
    def boxes(self) -> tuple[BoxF, ...]:
        """The six things in `rgb`, in pixels."""
        return tuple(placed(box, self.rgb) for box in THINGS)

    @property
    def hole(self) -> Mask:
        """Bool [S, S]: one hole, filled from one crop."""
        return box_mask(placed(_HOLE, self.rgb), self.rgb)

    def save(self, file: Path) -> None:
        """Write it, for the processes that measure."""
        np.savez(file, **{name: getattr(self, name) for name in self.__slots__})


def load_subject(file: Path) -> Subject:
    """What `save` wrote."""
    with np.load(file) as arrays:
        return Subject(**arrays)


def draw_subject(side_px: int) -> Subject:
    """The subject with S = `side_px`; its art is what the draft engine makes of the photo.

    That job runs every kernel that is measured later, so none is compiled while a clock runs.
    """
    high_px = min(side_px, 1024)
    scene = render_scene(high_px * 3 // 2, high_px).rgb
    left_px = (scene.shape[1] - high_px) // 2
    rgb = resize_linear(np.ascontiguousarray(scene[:, left_px : left_px + high_px]), side_px, side_px)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=92)
    draft = parse_request({"engine": "draft", "palette": list(DEFAULT_PALETTE.hexes), "output": {"png_widths": [256]}})
    index = run(draft, Worker(patient_settings()), data=file.getvalue(), frame_px=side_px).index.index
    return Subject(
        photo=np.frombuffer(file.getvalue(), np.uint8),
        rgb=rgb,
        wide=resize_linear(scene, *DETECTED_PX),
        art=DEFAULT_PALETTE.rgb()[index],
        art_twice=_enlarged(index, 2 * side_px),
        art_whole=_enlarged(index, min(4 * side_px, LARGEST_PX)),
    )


def placed(box: BoxF, rgb: U8) -> BoxF:
    """Shares of a picture in pixels of it."""
    high, wide = rgb.shape[:2]
    return box[0] * wide, box[1] * high, box[2] * wide, box[3] * high


def box_mask(box: BoxF, rgb: U8) -> Mask:
    """Bool [H, W]: the pixels of a box in a picture."""
    x0, y0, x1, y1 = (round(value) for value in box)
    mask = np.zeros(rgb.shape[:2], bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _enlarged(index: U8, side_px: int) -> U8:
    """Inks with smooth borders at another size: each pixel takes the ink that covers most of it."""
    inks = DEFAULT_PALETTE.rgb()
    most = np.full((side_px, side_px), -1.0, np.float32)
    picture = np.zeros((side_px, side_px, 3), np.uint8)
    for ink in np.unique(index):
        cover = cv2.GaussianBlur((index == ink).astype(np.float32), (0, 0), _SOFT_PX)
        cover = cv2.resize(cover, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        wins = cover > most
        picture[wins] = inks[ink]
        most[wins] = cover[wins]
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), _SOFT_PX))
