"""What the tracers are measured on: the analytic scene, the maps of `LIVERY_MAPS`, the draft's maps of our pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from benchmarks.pictures import Picture, pictures
from pipeline.decode import decode_bytes
from pipeline.enforce import EnforceOptions, enforce
from pipeline.palette import DEFAULT_PALETTE
from pipeline.sanitize import SanitizeOptions, sanitize
from pipeline.steer import SteerOptions, steer
from pipeline.types import U8, IndexMap, Ink, Palette
from tests.analytic import Circle, analytic_scene

ANALYTIC_PX = 1024
DRAFT_LONG_SIDES_PX = (1024, 2048)
LABELS, PALETTE, TRUTH = ".labels.png", ".palette.json", ".truth8x.png"


@dataclass(frozen=True, slots=True)
class LabelMap:
    """One map to trace.

    Attributes:
        name: of the row.
        kind: where it comes from.
        image: the map; every pixel is painted.
        truth8x: uint8 [8 H, 8 W], the labels of the same scene sampled eight times as finely, where they are known.
        circles: true circles that should be found.
    """

    name: str
    kind: Literal["analytic", "given", "draft"]
    image: IndexMap
    truth8x: U8 | None = None
    circles: tuple[Circle, ...] = ()


def label_maps(wanted: str = "") -> Iterator[LabelMap]:
    """Every map whose name contains `wanted`, made or read one at a time."""
    name = f"analytic_{ANALYTIC_PX}"
    if wanted in name:
        scene = analytic_scene(ANALYTIC_PX)
        yield LabelMap(name, "analytic", IndexMap(scene.index, scene.palette), scene.truth8x, scene.circles)
    folder = os.environ.get("LIVERY_MAPS")
    if folder is not None:
        for labels in sorted(Path(folder).glob(f"*{LABELS}")):
            if wanted in labels.name.removesuffix(LABELS):
                yield _given(labels)
    for picture in pictures():
        for long_side_px in DRAFT_LONG_SIDES_PX:
            if wanted in (name := f"draft_{picture.name}_{long_side_px}"):
                yield LabelMap(name, "draft", _drafted(picture, long_side_px))


def _given(labels: Path) -> LabelMap:
    name = labels.name.removesuffix(LABELS)
    hexes = json.loads(labels.with_name(name + PALETTE).read_text())
    palette = Palette(tuple(Ink(value.upper(), value.upper()) for value in hexes))
    truth = labels.with_name(name + TRUTH)
    truth8x = _grey(truth) if truth.is_file() else None
    return LabelMap(name, "given", IndexMap(_grey(labels), palette), truth8x)


def _grey(path: Path) -> U8:
    with Image.open(path) as picture:
        return np.array(picture, dtype=np.uint8)


def _drafted(picture: Picture, long_side_px: int) -> IndexMap:
    """What the draft engine makes of a picture in the default palette."""
    plate = sanitize(decode_bytes(picture.data, frame_px=long_side_px), SanitizeOptions())
    return enforce(steer(plate, DEFAULT_PALETTE, SteerOptions()), DEFAULT_PALETTE, EnforceOptions())
