"""A resident set that computes everything and sees what was fixed beforehand.

What random networks find and paint would make each job another one: hundreds of things, no vehicle, noise for phase 3
to cut up. So every network runs on what the job gives it, and the job goes on with the fixed boxes, masks and art.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2

from benchmarks.studio.subject import THINGS, VEHICLE, Subject, box_mask, placed
from models.requests import BoxF, Detection, PaintRequest
from models.studio import Studio, StudioWorker
from pipeline.types import U8, Mask
from pipeline.vehicle import PHRASES

_SCORE = 0.9


class SteadyWorker(StudioWorker):
    """`StudioWorker` for whole jobs of a benchmark.

    Attributes:
        subject: what is fixed.
        enlarged: what jobs take for the enlarged picture, uint8 [H, W, 3].
    """

    subject: Subject
    enlarged: U8

    def job(self, *given: Any, **named: Any) -> Any:
        """One job's view, as `StudioWorker.job` gives it, but for what it sees."""
        return SteadyStudio(super().job(*given, **named), self)


class SteadyStudio:
    """One job's view: what is not fixed here is the studio's own."""

    def __init__(self, studio: Studio, worker: SteadyWorker) -> None:
        self._studio = studio
        self._worker = worker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._studio, name)

    def detect(self, rgb: U8, phrases: Sequence[str], *rest: Any) -> tuple[Detection, ...]:
        """The vehicle where vehicles are asked for, else the six things."""
        self._studio.detect(rgb, phrases, *rest)
        boxes = (VEHICLE,) if tuple(phrases) == PHRASES else THINGS
        return tuple(
            Detection(phrases[number % len(phrases)], placed(box, rgb), _SCORE) for number, box in enumerate(boxes)
        )

    def segment(self, rgb: U8, boxes: Sequence[BoxF], *rest: Any) -> tuple[Mask, ...]:
        """Each box's own pixels."""
        self._studio.segment(rgb, boxes, *rest)
        return tuple(box_mask(box, rgb) for box in boxes)

    def paint(self, request: PaintRequest, *rest: Any) -> U8:
        """The flat art."""
        height_px, width_px = self._studio.paint(request, *rest).shape[:2]
        art = self._worker.subject.art
        return art if art.shape[:2] == (height_px, width_px) else _resized(art, width_px, height_px)

    def enlarge(self, rgb: U8, *rest: Any) -> U8:
        """The flat art, enlarged."""
        self._studio.enlarge(rgb, *rest)
        return self._worker.enlarged


def _resized(art: U8, width_px: int, height_px: int) -> U8:
    resized: U8 = cv2.resize(art, (width_px, height_px), interpolation=cv2.INTER_NEAREST)
    return resized
