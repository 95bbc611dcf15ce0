"""Phase 1, draft engine: fill in the regions that the caller names, and leave alone what the caller protects."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.errors import SchemaError
from pipeline.types import U8, CleanPlate, Photo, Removed, Warning

Rectangle = tuple[float, float, float, float]

_LARGEST_SHARE = 0.25  # of the picture; more could only be guessed
_MARGIN_PX = 2  # a region's own edge, softened by the camera, goes with it
_REACH_PX = 5  # neighbourhood that the fill reads, in the working frame


@dataclass(frozen=True, slots=True)
class SanitizeOptions:
    """Options of phase 1.

    Attributes:
        enabled: False hands the photo on untouched.
        regions: (x0, y0, x1, y1) to fill in, in pixels of the upright photo.
        protect: the same, never touched; wins over regions.
    """

    enabled: bool = True
    regions: tuple[Rectangle, ...] = ()
    protect: tuple[Rectangle, ...] = ()


def sanitize(photo: Photo, options: SanitizeOptions) -> CleanPlate:
    """The photo with the named regions filled from their surroundings (Telea 2004).

    Args:
        photo: phase 0's picture.

    Raises:
        SchemaError: the regions cover too much of the picture to be filled.
    """
    if not options.enabled:
        return CleanPlate(photo.rgb)
    warnings = (
        Warning("nothing_detected", "the draft engine detects nothing; only the regions you name are filled in"),
    )
    mask, removed = _mask_of(photo, options)
    if not removed:
        return CleanPlate(photo.rgb, warnings=warnings)
    share = float(np.count_nonzero(mask)) / mask.size
    if share > _LARGEST_SHARE:
        raise SchemaError(
            f"the regions cover {share:.0%} of the picture; at most {_LARGEST_SHARE:.0%} can be filled in",
            field="sanitize.regions",
        )
    filled = cv2.inpaint(np.ascontiguousarray(photo.rgb), mask, _REACH_PX, cv2.INPAINT_TELEA)
    return CleanPlate(filled, removed=removed, warnings=warnings)


def _mask_of(photo: Photo, options: SanitizeOptions) -> tuple[U8, tuple[Removed, ...]]:
    """Pixels to fill, in the working frame, and what the report says of each region."""
    protected = np.zeros((photo.height_px, photo.width_px), bool)
    for rectangle in options.protect:
        box = photo.to_frame(rectangle)
        protected[box.y0 : box.y1, box.x0 : box.x1] = True
    mask = np.zeros(protected.shape, np.uint8)
    removed = []
    scale = photo.source_width_px * photo.source_height_px / (photo.width_px * photo.height_px)
    for rectangle in options.regions:
        box = photo.to_frame(rectangle)
        rows = slice(max(box.y0 - _MARGIN_PX, 0), box.y1 + _MARGIN_PX)
        columns = slice(max(box.x0 - _MARGIN_PX, 0), box.x1 + _MARGIN_PX)
        open_ = ~protected[rows, columns]
        mask[rows, columns] |= open_
        if open_.any():
            area = round(float(np.count_nonzero(~protected[box.y0 : box.y1, box.x0 : box.x1])) * scale)
            removed.append(Removed(kind="region", box=rectangle, score=None, area_px=area))
    return mask * np.uint8(255), tuple(removed)
