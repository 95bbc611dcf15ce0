"""Phase 1: take off the photo what the illustration should not show, and fill in what was behind it.

The draft engine fills in the regions that the caller names. The studio engine also finds things by itself: mirrors,
logos, badges, plates, lettering, stickers. It looks for them in the whole picture, not only on the vehicle: a shop's
sign or another car's plate is someone else's mark or name as well, and small lettering comes out of phase 2 as
gibberish wherever it stands. Mirrors alone are taken off the caller's vehicle only, since on others they do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from pipeline.errors import SchemaError
from pipeline.quality import grown, silhouette_iou
from pipeline.subject import SubjectPrior
from pipeline.things import PHRASES, Thing, ThingsWanted, find_things, merged
from pipeline.types import U8, CleanPlate, Mask, Photo, Removed, Vehicle, Warning
from pipeline.vehicle import Finder, bounds, cut_out, find_vehicle

Rectangle = tuple[float, float, float, float]

_LARGEST_SHARE = 0.25  # of the picture; more could only be guessed
_MARGIN_PX = 2  # a region's own edge, softened by the camera, goes with it
_REACH_PX = 5  # neighbourhood that the fill reads, in the working frame

GROWTH = 6 / 1024
"""How far round a thing is filled in with it, as a share of the picture's long side: its edge, its shadow, its glue."""

LEAST_GROWTH_PX = 2

VEHICLE_ITSELF = 0.5
"""A find that covers more of the vehicle than this is the vehicle, whatever the detector calls it."""

MOSTLY = 0.5
"""A thing of which more than this is protected stays whole: half a name is worse than all of it."""

SAME_VEHICLE = 0.7
"""Least IoU of the vehicle before and after things were taken off its outline."""


@dataclass(frozen=True, slots=True)
class SanitizeOptions:
    """Options of phase 1.

    Attributes:
        enabled: False hands the photo on untouched.
        regions: (x0, y0, x1, y1) to fill in, in pixels of the upright photo.
        protect: the same, never touched; wins over everything else.
        targets: kinds of things that the studio engine takes away.
        box_threshold, text_threshold: the detector's, 0 to 1.
        max_subject_share: largest share of the vehicle, 0 to 1, that may go with what was found. What the caller names
            in `regions` does not count: the limit is there for the detector's mistakes.
    """

    enabled: bool = True
    regions: tuple[Rectangle, ...] = ()
    protect: tuple[Rectangle, ...] = ()
    targets: tuple[str, ...] = tuple(PHRASES)
    box_threshold: float = 0.35
    text_threshold: float = 0.25
    max_subject_share: float = 0.08


class Cleaner(Finder, Protocol):
    """What phase 1 takes of the studio; see `models.studio.Studio`."""

    def inpaint(self, rgb: U8, mask: Mask, check: Callable[[], None]) -> U8:
        """The picture with the masked pixels filled from around them."""


def sanitize(photo: Photo, options: SanitizeOptions) -> CleanPlate:
    """The draft engine's phase 1: the photo with the named regions filled from their surroundings (Telea 2004).

    Args:
        photo: phase 0's picture.
        options: of which only the regions and what is protected are looked at.

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
    _check_regions(mask)
    filled = cv2.inpaint(np.ascontiguousarray(photo.rgb), mask.astype(np.uint8), _REACH_PX, cv2.INPAINT_TELEA)
    return CleanPlate(filled, removed=removed, warnings=warnings)


def sanitize_studio(
    photo: Photo, options: SanitizeOptions, prior: SubjectPrior, studio: Cleaner, check: Callable[[], None]
) -> CleanPlate:
    """The studio engine's phase 1: the vehicle found, and everything that is wanted away filled in.

    Args:
        photo: phase 0's picture.
        options: of phase 1; with `enabled` False the vehicle is still looked for, since phase 2 needs it.
        prior: what the caller said of the subject, in pixels of the working frame.
        studio: the models.
        check: called between the models; raises where the job should stop.

    Raises:
        NoSubject: there is no vehicle.
        SchemaError: the regions cover too much of the picture, or what was found too much of the vehicle.
    """
    vehicle = find_vehicle(photo.rgb, prior, studio)
    if not options.enabled:
        return CleanPlate(photo.rgb, vehicle=vehicle)
    check()
    named, removed = _mask_of(photo, options)
    _check_regions(named)
    protected = _protected(photo, options)
    things, warnings = _things(photo, options, vehicle, protected, studio)
    found = _grown_together(things, photo.rgb.shape[:2]) & ~protected
    _check_share(found, vehicle, options.max_subject_share)
    holes = found | named
    removed = (*_removed(things, protected, photo), *removed)
    if not holes.any():
        return CleanPlate(photo.rgb, warnings=warnings, vehicle=vehicle)
    check()
    rgb = studio.inpaint(photo.rgb, holes, check)
    check()
    return CleanPlate(rgb, removed, warnings, _as_it_is_now(rgb, vehicle, holes, studio))


def _things(
    photo: Photo, options: SanitizeOptions, vehicle: Vehicle, protected: Mask, studio: Finder
) -> tuple[tuple[Thing, ...], tuple[Warning, ...]]:
    """What is to be taken away, each once; something of each is not protected."""
    wanted = ThingsWanted(options.targets, options.box_threshold, options.text_threshold)
    found, warnings = find_things(photo.rgb, wanted, studio)
    near = grown(vehicle.mask, _growth_px(photo.rgb.shape[:2]))
    things = [
        thing
        for thing in found
        if _share(protected, thing.mask) <= MOSTLY and (thing.kind != "mirror" or (thing.mask & near).any())
    ]
    too_large = {thing.kind for thing in things if _is_vehicle(thing, vehicle)}
    if too_large:
        message = f"what was taken for {' and '.join(sorted(too_large))} is the vehicle itself, and stays"
        warnings = (*warnings, Warning("vehicle_kept", message))
    return merged([thing for thing in things if not _is_vehicle(thing, vehicle)]), warnings


def _is_vehicle(thing: Thing, vehicle: Vehicle) -> bool:
    return _share(thing.mask, vehicle.mask) > VEHICLE_ITSELF


def _check_regions(mask: Mask) -> None:
    share = _share(mask, np.ones_like(mask))
    if share > _LARGEST_SHARE:
        raise SchemaError(
            f"the regions cover {share:.0%} of the picture; at most {_LARGEST_SHARE:.0%} can be filled in",
            field="sanitize.regions",
        )


def _check_share(found: Mask, vehicle: Vehicle, largest: float) -> None:
    share = _share(found, vehicle.mask)
    if share > largest:
        # The caller mends it in the request, as where the named regions are too large: no other photo is needed.
        raise SchemaError(
            f"what was found would take {share:.1%} of the vehicle, and {largest:.1%} may go: protect what is to stay, "
            "name fewer targets, or raise the limit",
            field="sanitize.max_subject_share",
        )


def _as_it_is_now(rgb: U8, vehicle: Vehicle, holes: Mask, studio: Finder) -> Vehicle:
    """The vehicle's silhouette without what was taken off its outline (a mirror); elsewhere it is what it was."""
    touched = vehicle.source != "whole" and (holes & vehicle.mask).any() and (holes & ~vehicle.mask).any()
    if not touched:
        return vehicle
    mask = cut_out(rgb, [vehicle.box], studio)[0]
    box = bounds(mask)
    if box is None or silhouette_iou(vehicle.mask, mask) < SAME_VEHICLE:
        return vehicle
    return replace(vehicle, mask=mask, box=box)


def _removed(things: Sequence[Thing], protected: Mask, photo: Photo) -> Iterator[Removed]:
    """What the report says of each thing: its own box and area, without the rim that is filled in with it."""
    wide, high = photo.source_width_px / photo.width_px, photo.source_height_px / photo.height_px
    for thing in things:
        open_ = thing.mask & ~protected
        box = bounds(open_)
        if box is not None:
            x0, y0, x1, y1 = box
            area_px = round(int(np.count_nonzero(open_)) * wide * high)
            yield Removed(thing.kind, (x0 * wide, y0 * high, x1 * wide, y1 * high), thing.score, area_px)


def _share(part: Mask, whole: Mask) -> float:
    """How much of `whole` lies in `part`, 0 to 1."""
    return int(np.count_nonzero(part & whole)) / max(int(np.count_nonzero(whole)), 1)


def _growth_px(shape: Sequence[int]) -> int:
    return max(LEAST_GROWTH_PX, round(GROWTH * max(shape)))


def _grown_together(things: Sequence[Thing], shape: tuple[int, ...]) -> Mask:
    together = np.zeros(shape, bool)
    for thing in things:
        together |= thing.mask
    return grown(together, _growth_px(shape))


def _protected(photo: Photo, options: SanitizeOptions) -> Mask:
    protected = np.zeros((photo.height_px, photo.width_px), bool)
    for rectangle in options.protect:
        box = photo.to_frame(rectangle)
        protected[box.y0 : box.y1, box.x0 : box.x1] = True
    return protected


def _mask_of(photo: Photo, options: SanitizeOptions) -> tuple[Mask, tuple[Removed, ...]]:
    """Pixels of the named regions, in the working frame, and what the report says of each."""
    protected = _protected(photo, options)
    mask = np.zeros(protected.shape, bool)
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
    return mask, tuple(removed)
