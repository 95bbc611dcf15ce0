"""What is measured: the project's own scene, and the photos of `LIVERY_PHOTOS` with their masks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.types import Mask, Photo
from tests.make_sample import draw_sample
from tests.scene import encode_jpeg

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
EXACT_REACH_PX = 4.0
HAND_DRAWN_REACH_PX = 10.0
"""Masks drawn by hand as polygons leave the true outline by about as much."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One encoded photo.

    Attributes:
        name: of the row.
        data: JPEG, PNG or WebP bytes.
        mask: bool [H, W] of any size, the vehicle's silhouette; None where there is none.
        reach_px: how far from the mask's border an outline counts as found.
    """

    name: str
    data: bytes
    mask: Mask | None
    reach_px: float

    def mask_for(self, photo: Photo) -> Mask | None:
        """The mask in the photo's working frame."""
        if self.mask is None:
            return None
        size = (photo.width_px, photo.height_px)
        resized = Image.fromarray(self.mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        mask: Mask = np.asarray(resized) > 127
        return mask


def pictures() -> list[Picture]:
    """The scene, then each photo of `LIVERY_PHOTOS`; `masks/NN.png` belongs to the photo whose name starts with NN."""
    scene = draw_sample()
    found = [Picture("scene", encode_jpeg(scene, 88), scene.silhouette, EXACT_REACH_PX)]
    named = os.environ.get("LIVERY_PHOTOS")
    if named is not None:
        photos = [path for path in sorted(Path(named).iterdir()) if path.suffix.lower() in PHOTO_SUFFIXES]
        found += [Picture(path.stem, path.read_bytes(), _mask(path), HAND_DRAWN_REACH_PX) for path in photos]
    return found


def _mask(photo: Path) -> Mask | None:
    path = photo.parent / "masks" / f"{photo.name.split('_')[0]}.png"
    if not path.is_file():
        return None
    mask: Mask = np.asarray(Image.open(path).convert("L")) > 127
    return mask
