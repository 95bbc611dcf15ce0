"""Phase 2: where the vehicle is, tones in the palette's range, line work found.

The draft engine estimates the vehicle and smooths flat areas of the photo. The studio engine has painted the photo anew
(`pipeline/paint.py`), knows the vehicle exactly, and leaves flat areas as they were painted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.lines import flow_lines
from pipeline.paint import Painted
from pipeline.smooth import bilateral
from pipeline.subject import Subject, SubjectPrior, content_frame, find_subject
from pipeline.tone import map_tones, measure_exposure
from pipeline.types import U8, CleanPlate, Illustration, Palette, Warning

_LEAST_CONFIDENCE, _FULL_CONFIDENCE = 0.35, 0.75


@dataclass(frozen=True, slots=True)
class SteerOptions:
    """Options of phase 2 that depend on no model.

    Attributes:
        tone: strength of the tone mapping, 0 (off) to 1.
        line_work: strength of the line work, 0 (off) to 1.
        subject: what the caller said of the subject, in working-frame pixels.
    """

    tone: float = 0.5
    line_work: float = 0.0
    subject: SubjectPrior = field(default_factory=SubjectPrior)


def steer(plate: CleanPlate, palette: Palette, options: SteerOptions) -> Illustration:
    """The photo as an illustration: tone-mapped, smoothed, with the weight of each place.

    Args:
        plate: the photo without what phase 1 removed.
        palette: its darkest and lightest ink bound the tones.
    """
    subject = find_subject(plate.rgb, options.subject)
    importance = importance_map(subject)
    exposure = measure_exposure(plate.rgb, importance, content_frame(plate.rgb))
    toned = map_tones(plate.rgb, palette, exposure, options.tone)
    lines = None
    if options.line_work > 0.0:
        lines = flow_lines(plate.rgb, importance, options.line_work)
    return Illustration(
        rgb=bilateral(toned),
        importance=importance,
        subject=_bytes_of(subject),
        subject_confidence=subject.confidence,
        lines=lines,
        warnings=_doubts(subject, options.subject),
    )


def ink_ready(painted: Painted, palette: Palette, options: SteerOptions) -> Illustration:
    """What the studio engine painted, ready for one palette. Costs no GPU time; `painted.warnings` are not repeated.

    Args:
        painted: at any size, such as after the upscaler.
        palette: its darkest and lightest ink bound the tones.
        options: the caller's `subject` is not looked at: the vehicle is known.
    """
    subject = Subject(painted.subject.astype(np.float32), 1.0, None)
    importance = importance_map(subject)
    exposure = measure_exposure(painted.rgb, importance, content_frame(painted.rgb))
    lines = None
    if options.line_work > 0.0:
        lines = flow_lines(painted.rgb, importance, options.line_work)
    return Illustration(
        rgb=map_tones(painted.rgb, palette, exposure, options.tone),
        importance=importance,
        subject=_bytes_of(subject),
        subject_confidence=subject.confidence,
        lines=lines,
    )


def importance_map(subject: Subject) -> U8:
    """uint8 [H, W]: 255 on the subject, falling off around it, and everywhere as far as the subject is in doubt."""
    probability = _bytes_of(subject)
    reach = 2 * (max(probability.shape) * 24 // 1024) + 1
    # Integer box filters: the same on every processor.
    halo = cv2.blur(cv2.blur(probability, (reach, reach)), (reach, reach))
    trust = (subject.confidence - _LEAST_CONFIDENCE) / (_FULL_CONFIDENCE - _LEAST_CONFIDENCE)
    share = round(256 * min(max(trust, 0.0), 1.0))
    away = 255 - np.maximum(probability, halo).astype(np.int32)
    importance: U8 = (255 - ((away * share) >> 8)).astype(np.uint8)
    return importance


def _bytes_of(subject: Subject) -> U8:
    scaled: U8 = (subject.probability * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)
    return scaled


def _doubts(subject: Subject, prior: SubjectPrior) -> tuple[Warning, ...]:
    if subject.box is None:
        return (Warning("subject_not_found", "no vehicle stands out; the whole picture was treated alike"),)
    if prior.kind == "auto" and subject.confidence < _FULL_CONFIDENCE:
        return (
            Warning(
                "subject_uncertain", "the draft engine is unsure where the vehicle is; a subject point or box helps"
            ),
        )
    return ()
