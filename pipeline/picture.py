"""Phases 1 and 2, by either engine: from the photo to the illustration that phase 3 inks."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass, field

from models.studio import Studio
from pipeline.art import Art
from pipeline.enforce import Quantise
from pipeline.errors import InternalError
from pipeline.modes import paint_options
from pipeline.paint import paint_vehicle
from pipeline.places import Places
from pipeline.report import ModelsUsed
from pipeline.resample import resize_linear
from pipeline.sanitize import SanitizeOptions, sanitize, sanitize_studio
from pipeline.schema import JobInput
from pipeline.steer import SteerOptions, ink_ready, steer
from pipeline.steps import Steps
from pipeline.types import U8, Illustration, Palette, Photo, Removed, Warning
from pipeline.worker import Worker

LARGEST_PX = 4096
"""Long side that the enlarged illustration has at most, in pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What phases 1 and 2 made.

    Attributes:
        illustration: for phase 3.
        removed: what phase 1 filled in.
        iou: of the vehicle's silhouette before and after phase 2; None where it was not measured.
        models: which ran.
        quantise: what finds phase 3's first inks on a GPU; None where the CPU does.
    """

    illustration: Illustration
    removed: tuple[Removed, ...]
    iou: float | None = None
    models: ModelsUsed = field(default_factory=ModelsUsed)
    quantise: Quantise | None = None
    warnings: tuple[Warning, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What a job works on.

    Attributes:
        places: what the caller says of places in `photo`.
    """

    job: JobInput
    photo: Photo
    palette: Palette
    places: Places


def draft_picture(scene: Scene, steps: Steps) -> Picture:
    """Phases 1 and 2 without models."""
    job, places = scene.job, scene.places
    with steps("sanitize"):
        plate = sanitize(scene.photo, _sanitize_options(scene))
    with steps("steer"):
        illustration = steer(plate, scene.palette, SteerOptions(job.tone, job.line_work, places.subject))
    return Picture(illustration, plate.removed, warnings=plate.warnings + illustration.warnings)


def studio_picture(scene: Scene, worker: Worker, steps: Steps) -> Picture:
    """Phases 1 and 2 by the studio engine's models, and the enlarging that phase 3 begins with.

    What the models made of the same photo with the same options before is taken as it is: they know of no palette.
    """
    if worker.studio is None:
        raise InternalError  # `choose_engine` takes the studio engine only where there is one
    job = scene.job
    studio = worker.studio.job(steps.check)
    key = _key(scene, worker.studio.store.revisions())
    art = worker.kept.get(key) if job.cache == "use" else None
    reinked = art is not None
    if art is None:
        with ExitStack() as after:
            after.callback(studio.forget)  # a failed job leaves nothing of its photo in a model either
            art = _make_art(scene, studio, steps)
            if job.cache != "off":
                after.pop_all()
                if not studio.warnings:  # what memory made it give up, the next job may have room for
                    worker.kept.put(key, art, art.bytes)
    with steps("enforce"):
        illustration = ink_ready(art.painted, scene.palette, SteerOptions(job.tone, job.line_work))
    device = worker.studio.device
    on_gpu = device.kind == "cuda"
    return Picture(
        illustration,
        art.removed,
        iou=art.painted.iou,
        models=ModelsUsed(
            revisions=dict(sorted(art.revisions.items())),
            loads=dict(studio.loads),
            reinked=reinked,
            vram_peak_mb=studio.vram_peak_mb(),
            gpu=device.name if on_gpu else None,
        ),
        quantise=studio.quantise if on_gpu else None,
        warnings=art.warnings + illustration.warnings,
    )


def _make_art(scene: Scene, studio: Studio, steps: Steps) -> Art:
    job = scene.job
    with steps("sanitize"):
        plate = sanitize_studio(scene.photo, _sanitize_options(scene), scene.places.subject, studio, steps.check)
    if plate.vehicle is None:
        raise InternalError  # the studio engine's phase 1 finds one or raises
    with steps("steer"):
        options = paint_options(job.mode, job.style, job.seed)
        painted = paint_vehicle(plate, plate.vehicle, options, studio, steps.check)
    if job.output.upscale:
        with steps("enforce"):
            painted = painted.enlarged(_bounded(studio.enlarge(painted.rgb, steps.check)))
    warnings = (*plate.warnings, *painted.warnings, *studio.warnings)
    return Art(painted, plate.removed, dict(studio.models), warnings)


def _bounded(rgb: U8) -> U8:
    """The picture with a long side of at most `LARGEST_PX`."""
    height_px, width_px = rgb.shape[:2]
    share = LARGEST_PX / max(width_px, height_px)
    if share >= 1:
        return rgb
    return resize_linear(rgb, round(width_px * share), round(height_px * share))


def _sanitize_options(scene: Scene) -> SanitizeOptions:
    wanted = scene.job.sanitize
    return SanitizeOptions(
        enabled=wanted.enabled,
        regions=scene.places.regions,
        protect=scene.places.protect,
        targets=wanted.targets,
        box_threshold=wanted.box_threshold,
        text_threshold=wanted.text_threshold,
        max_subject_share=wanted.max_subject_share,
    )


def _key(scene: Scene, revisions: dict[str, str]) -> str:
    """Everything that the models' work depends on, and nothing else."""
    job, photo = scene.job, scene.photo
    options = job.model_dump(mode="json", include={"mode", "subject", "sanitize", "style", "seed"})
    facts = [photo.sha256, photo.width_px, photo.height_px, options, job.output.upscale, sorted(revisions.items())]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
