"""The things on a photo that phase 1 takes away: what the detector finds, cut out, each named once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.requests import Detection
from pipeline.quality import silhouette_iou
from pipeline.types import U8, Mask, Warning
from pipeline.vehicle import Finder, cut_out

PHRASES: Mapping[str, tuple[str, ...]] = {
    "mirror": ("side mirror",),
    "logo": ("logo",),
    "badge": ("badge", "emblem"),
    "plate": ("license plate",),
    "text": ("text", "lettering"),
    "sticker": ("sticker", "decal"),
}
"""What the detector is asked for, by the request's word for it."""

MOST_THINGS = 64
"""Things that are cut out of one photo; the detector is surest of them."""

SPILL = 0.1
"""How far a thing may leave its box, as a share of the box's sides."""

SAME, WITHIN = 0.5, 0.8
"""Two finds are one thing where their IoU is at least `SAME`; one belongs to a larger one where at least `WITHIN` of it
lies there (the text on a plate)."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing to take away.

    Attributes:
        kind: the request's word for it.
        mask: bool [H, W], at least one pixel.
        score: the detector's, 0 to 1.
    """

    kind: str
    mask: Mask
    score: float


@dataclass(frozen=True, slots=True)
class ThingsWanted:
    """What to look for.

    Attributes:
        targets: of `PHRASES`.
        box_threshold, text_threshold: the detector's, 0 to 1.
    """

    targets: tuple[str, ...]
    box_threshold: float
    text_threshold: float


def find_things(rgb: U8, wanted: ThingsWanted, studio: Finder) -> tuple[tuple[Thing, ...], tuple[Warning, ...]]:
    """Everything in the picture that is wanted away, best first, as the detector names it: one thing may come twice.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        wanted: what to look for.
        studio: the models.
    """
    kinds = {phrase: target for target in wanted.targets for phrase in PHRASES[target]}
    found = studio.detect(rgb, tuple(kinds), wanted.box_threshold, wanted.text_threshold)
    taken, warnings = found[:MOST_THINGS], []
    if len(found) > MOST_THINGS:
        message = f"{len(found)} things were found to take away; the {MOST_THINGS} surest were"
        warnings.append(Warning("things_left", message))
    masks = cut_out(rgb, [thing.box for thing in taken], studio, SPILL)
    unclear = sum(not mask.any() for mask in masks)
    if unclear:
        message = f"{unclear} of {len(taken)} things could not be cut out exactly; their boxes were taken"
        warnings.append(Warning("box_taken", message))
    things = [
        Thing(kinds[thing.label], mask if mask.any() else _box_mask(mask, thing), thing.score)
        for thing, mask in zip(taken, masks, strict=True)
    ]
    return tuple(thing for thing in things if thing.mask.any()), tuple(warnings)


def merged(things: Sequence[Thing]) -> tuple[Thing, ...]:
    """The same things, each once.

    What the detector took for two kinds keeps the name it is surer of; what lies within something larger goes by the
    larger one's name and score.

    Args:
        things: best first.
    """
    whole: list[Thing] = []
    for thing in sorted(things, key=lambda thing: np.count_nonzero(thing.mask), reverse=True):
        at = next((i for i, larger in enumerate(whole) if _belongs(thing.mask, larger.mask)), None)
        if at is None:
            whole.append(thing)
            continue
        larger = whole[at]
        surer = thing if silhouette_iou(thing.mask, larger.mask) >= SAME and thing.score > larger.score else larger
        whole[at] = replace(surer, mask=larger.mask | thing.mask)
    return tuple(sorted(whole, key=lambda thing: -thing.score))


def _belongs(mask: Mask, larger: Mask) -> bool:
    within = int(np.count_nonzero(mask & larger)) / int(np.count_nonzero(mask))
    return within >= WITHIN or silhouette_iou(mask, larger) >= SAME


def _box_mask(mask: Mask, thing: Detection) -> Mask:
    x0, y0, x1, y1 = thing.box
    filled = np.zeros_like(mask)
    filled[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return filled
