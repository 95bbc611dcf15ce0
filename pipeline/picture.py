"""Phases 1 and 2, by either engine: from the photo to the illustration that phase 3 inks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from models.device import Device
from models.loader import Unit
from models.reading import Reads
from models.studio import Studio, StudioWorker, Timeline
from models.units import DEPTH, DETECTOR, INPAINTER, PAINTERS, PROMPT, SEGMENTER, UPSCALER, VAE
from pipeline.art import Art, Gallery
from pipeline.build import build
from pipeline.cache import EntryName
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
from pipeline.steps import STUDIO_PERCENT, Progress, Steps
from pipeline.types import U8, Illustration, Palette, Photo, Removed, Warning
from pipeline.worker import Worker

LARGEST_PX = 4096
"""Long side that the enlarged illustration has at most, in pixels."""


ENLARGING = 0.5
"""Share of phase 3 that enlarging takes, for the progress."""

WAITING = "waiting for the models, which another job has"
"""What is said of a job until it has its turn."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What phases 1 and 2 made.

    Attributes:
        illustration: for phase 3.
        removed: what phase 1 filled in.
        iou: of the vehicle's silhouette before and after phase 2; None where it was not measured.
        models: gives what ran by then, so it is asked after phase 3.
        quantise: what finds phase 3's first inks on a GPU; None where the CPU does.
    """

    illustration: Illustration
    removed: tuple[Removed, ...]
    iou: float | None = None
    models: Callable[[], ModelsUsed] = ModelsUsed
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
    All that is asked of them is asked in the job's turn, so that what the worker counts is the job's own. Waiting for
    the turn is no phase's time.
    """
    if worker.studio is None:
        raise InternalError  # `choose_engine` takes the studio engine only where there is one
    with worker.turn(steps.check, partial(_tell_of_wait, steps)) as steps.waited_s:
        asked = _ask_models(scene, worker.studio, worker.gallery, steps)
    job, shown, studio = scene.job, asked.shown, asked.studio
    with steps("enforce"):
        illustration = ink_ready(shown.art.painted, scene.palette, SteerOptions(job.tone, job.line_work))
    on_gpu = asked.device.kind == "cuda"
    # Where another job may have the GPU by then, the CPU finds the same inks: in tenths of a second, without a wait.
    quantise = studio.quantise if on_gpu and worker.settings.jobs_at_once == 1 else None

    def models() -> ModelsUsed:
        return ModelsUsed(
            revisions=dict(sorted(shown.art.revisions.items())),
            loads=dict(studio.loads),
            reads=asked.reads,
            timeline=asked.timeline,
            reinked=shown.reinked,
            vram_peak_mb=asked.vram_peak_mb if quantise is None else studio.vram_peak_mb(),
            gpu=asked.device.name if on_gpu else None,
            warnings=tuple(studio.warnings),
        )

    return Picture(
        illustration,
        shown.art.removed,
        iou=shown.art.painted.iou,
        models=models,
        quantise=quantise,
        warnings=shown.art.warnings + shown.warnings + illustration.warnings,
    )


def _tell_of_wait(steps: Steps) -> None:
    if steps.progress is not None:
        steps.progress(Progress("sanitize", STUDIO_PERCENT["sanitize"], WAITING))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a job had of the models in its turn.

    Attributes:
        studio: its view of them.
        reads: of the volume.
        timeline: how the models came to be there.
        vram_peak_mb: None on a CPU.
    """

    shown: _Shown
    studio: Studio
    device: Device
    reads: Reads
    timeline: Timeline
    vram_peak_mb: float | None


def _ask_models(scene: Scene, resident: StudioWorker, gallery: Gallery, steps: Steps) -> _Asked:
    """The art of a job, and what it took: figures of the whole worker, which are this job's while it has its turn."""
    before = resident.store.reads.now()
    known = _known(scene, resident.store.revisions(), gallery)
    with resident.reading_ahead(_needed(scene, known)), ExitStack() as after:
        studio = resident.job(steps.check, steps.tell)
        after.callback(studio.forget)  # a failed job leaves nothing of its photo in a model either
        shown = _shown(scene, known, studio, gallery, steps)
        if scene.job.cache != "off":
            after.pop_all()
    reads = resident.store.reads.since(before)
    return _Asked(shown, studio, resident.device, reads, studio.timeline(), studio.vram_peak_mb())


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a job's art before any model runs.

    Attributes:
        revisions: row of the registry → revision, of all that the volume holds.
        painted_name, enlarged_name: what the art is kept under.
        painted, enlarged: what is kept, and may be used.
    """

    revisions: Mapping[str, str]
    painted_name: EntryName
    enlarged_name: EntryName
    painted: Art | None = None
    enlarged: Art | None = None


def _known(scene: Scene, revisions: Mapping[str, str], gallery: Gallery) -> _Known:
    job = scene.job
    known = _Known(revisions, *_names(scene, revisions))
    if job.cache != "use":
        return known
    if job.output.upscale and (enlarged := gallery.enlarged(known.enlarged_name)) is not None:
        return replace(known, enlarged=enlarged)
    return replace(known, painted=gallery.painted(known.painted_name))


def _needed(scene: Scene, known: _Known) -> tuple[Unit[Any], ...]:
    """The models that a job will ask for, in about the order that it does."""
    job = scene.job
    if known.enlarged is not None:
        return ()
    enlarger = (UPSCALER,) if job.output.upscale else ()
    if known.painted is not None:
        return enlarger
    finders = (DETECTOR, SEGMENTER) if job.sanitize.enabled or scene.places.subject.kind != "whole" else ()
    filler = (INPAINTER,) if job.sanitize.enabled else ()
    return (*finders, *filler, VAE, DEPTH, PROMPT, PAINTERS[job.mode], *enlarger)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What phase 3 inks, whether phases 1 and 2 were kept from before, and what could not be kept for later."""

    art: Art
    reinked: bool
    warnings: tuple[Warning, ...] = ()


def _shown(scene: Scene, known: _Known, studio: Studio, gallery: Gallery, steps: Steps) -> _Shown:
    """The art of a job, painted and enlarged where it isn't there yet."""
    job = scene.job
    if known.enlarged is not None:
        return _Shown(known.enlarged, reinked=True)

    def may_keep(art: Art) -> bool:
        # What memory made it give up, the next job may have room for; and a builder may have changed the volume since.
        whole = not studio.warnings and art.revisions.items() <= known.revisions.items()
        return job.cache != "off" and whole

    painted, failed = known.painted, None
    if painted is None:
        painted = _paint(scene, studio, steps)
        if may_keep(painted):
            failed = gallery.keep_painted(known.painted_name, painted)
    shown = _Shown(painted, known.painted is not None, () if failed is None else (failed,))
    if not job.output.upscale:
        return shown
    enlarged = _enlarge(painted, studio, steps)
    if may_keep(enlarged):
        gallery.keep_enlarged(known.enlarged_name, enlarged)
    return replace(shown, art=enlarged)


def _paint(scene: Scene, studio: Studio, steps: Steps) -> Art:
    job = scene.job
    with steps("sanitize"):
        plate = sanitize_studio(scene.photo, _sanitize_options(scene), scene.places.subject, studio, steps.check)
    if plate.vehicle is None:
        raise InternalError  # the studio engine's phase 1 finds one or raises
    with steps("steer"):
        options = paint_options(job.mode, job.style, job.seed)
        painted = paint_vehicle(plate, plate.vehicle, options, studio, steps.check, steps.tell)
    return Art(painted, plate.removed, dict(studio.models), plate.warnings + painted.warnings)


def _enlarge(art: Art, studio: Studio, steps: Steps) -> Art:
    def tell(message: str, share: float) -> None:
        steps.tell(message, ENLARGING * share)

    with steps("enforce"):
        rgb = _bounded(studio.enlarge(art.painted.rgb, steps.check, tell))
    return art.enlarged(rgb, studio.models)


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


def _names(scene: Scene, revisions: Mapping[str, str]) -> tuple[EntryName, EntryName]:
    """Everything that the painting depends on, and nothing else; and the same of its enlarging."""
    job, photo = scene.job, scene.photo
    options = job.model_dump(mode="json", include={"mode", "subject", "sanitize", "style", "seed"})
    painters = sorted(item for item in revisions.items() if item[0] not in UPSCALER.rows)
    painted = _digest(build(), photo.width_px, photo.height_px, options, painters)
    enlarged = _digest(painted, [revisions.get(row) for row in UPSCALER.rows])
    return EntryName(photo.sha256, painted, "art"), EntryName(photo.sha256, enlarged, "art")


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
