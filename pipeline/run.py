"""One job: the four phases in their order, with the deadlines, the progress, the audit and the report.

`run` makes an illustration, `dry_run` says what a job would do. Neither touches a file but the models', nor the network
but for `image_url`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.decode import bytes_of_text, decode_bytes
from pipeline.enforce import EnforceOptions, enforce
from pipeline.errors import InternalError, SchemaError
from pipeline.export.audit import SvgAuditError, audit_svg
from pipeline.export.formats import ExportedFile, export_files
from pipeline.export.png import Png, render_png
from pipeline.fetch import fetch_image
from pipeline.palette import Extract, extract_palette
from pipeline.physical import printed_width_mm
from pipeline.picture import Scene, draft_picture, studio_picture
from pipeline.places import check_places
from pipeline.report import Made, dry_report, engine_estimate, estimate, full_report
from pipeline.schema import DryRunOutput, Engine, EngineEstimate, JobInput, Output, Report
from pipeline.steps import PERCENT, Progress, Steps
from pipeline.trace.features import FeatureReport, hold_min_feature
from pipeline.types import Drawing, IndexMap, Palette, Photo, Warning
from pipeline.vectorize import TITLE, VectorizeOptions, vectorize
from pipeline.worker import Worker, choose_engine, engines_for

FRAME_PX = 1024
"""Long side of the working frame in pixels."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job made.

    Attributes:
        drawing: with the SVG, which is made in any case.
        index: what it was traced from.
        photo: what it shows.
        pngs: in the order of `output.png_widths`, empty where no PNG was asked for.
        files: the other formats, in the order of `output.formats`.
        report: on all of it.
        whole: False where memory made the studio engine give something up, which another run may not have to.
    """

    drawing: Drawing
    index: IndexMap
    photo: Photo
    pngs: tuple[Png, ...]
    files: tuple[ExportedFile, ...]
    report: Report
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Order:
    """A job that has its engine and its photo.

    Attributes:
        chosen: why this engine, where the caller left the choice.
        encoded: the photo's file.
        frame_px: long side of the working frame.
        steps: the job's clock, which has been running since before the photo was read.
    """

    job: JobInput
    engine: Engine
    chosen: tuple[Warning, ...]
    encoded: bytes
    frame_px: int
    steps: Steps


def run(
    job: JobInput,
    worker: Worker,
    *,
    data: bytes | None = None,
    frame_px: int = FRAME_PX,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> JobResult:
    """Turn a photo into a palette-exact illustration.

    Args:
        job: a checked request; its `action` is not looked at.
        worker: whose settings and models serve it.
        data: the encoded photo, for callers that hold bytes; then `job.image` is None.
        frame_px: long side of the working frame.
        progress: told of each phase as it starts, on this thread; of models' loads and steps, on the thread of those.
        cancelled: asked between the phases, and while a model, the tracer or a PNG's renderer works.

    Raises:
        LiveryError: any of the tree; the same input raises the same error again.
    """
    return make(begin(job, worker, data=data, frame_px=frame_px, progress=progress, cancelled=cancelled), worker)


def begin(
    job: JobInput,
    worker: Worker,
    *,
    data: bytes | None = None,
    frame_px: int = FRAME_PX,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Order:
    """Choose a job's engine and fetch its photo. Arguments and errors as for `run`."""
    engine, chosen = choose_engine(job, worker)
    steps = Steps(worker.settings, engine, progress, cancelled)
    with steps("decode"):
        encoded = read_file(job, worker, steps, data)
    return Order(job, engine, chosen, encoded, frame_px, steps)


def make(order: Order, worker: Worker) -> JobResult:
    """The four phases of a job, and what follows them. Errors as for `run`."""
    job, engine, steps = order.job, order.engine, order.steps
    with steps("decode"):
        photo = _decode(job, order.encoded, order.frame_px)
        places = check_places(job, photo)
        palette = _palette(job, photo)
    scene = Scene(job, photo, palette, places)
    picture = draft_picture(scene, steps) if engine == "draft" else studio_picture(scene, worker, steps)
    with steps("enforce"):
        inked = EnforceOptions(job.detail, _background(job, palette))
        index = enforce(picture.illustration, palette, inked, picture.quantise)
    models = picture.models()
    with steps("vectorize"):
        # The studio engine's map is larger than the photo's frame, which tolerances are stated in.
        tolerance_px = job.output.tolerance_px * max(index.width_px / photo.width_px, 1.0)
        held = _hold_features(job.output, index, tolerance_px)
        drawing = vectorize(held.index, _tracing(job.output, held, tolerance_px, steps), cancelled=steps.cancelled)
    with steps("export"):
        _audit(drawing, palette)
        pngs = _pngs(job.output, drawing, steps)
        files = _files(job.output, drawing, held.index, tolerance_px, steps)
    noted = (photo, places, picture, models, held, drawing)
    made = Made(
        engine=engine,
        photo=photo,
        removed=picture.removed,
        subject=picture.illustration.subject,
        source=places.subject.kind,
        iou=picture.iou,
        index=held.index,
        drawing=drawing,
        models=models,
        warnings=order.chosen + tuple(warning for part in noted for warning in part.warnings),
    )
    report = full_report(job, made, steps.timings(), worker.settings.price_usd_per_s)
    if order.frame_px == FRAME_PX:
        worker.measured.note(report)
    return JobResult(drawing, held.index, photo, pngs, files, report, whole=not models.warnings)


def dry_run(job: JobInput, worker: Worker, *, data: bytes | None = None, frame_px: int = FRAME_PX) -> DryRunOutput:
    """Check a job as `run` would, photo included where there is one, and say what it would take.

    Raises:
        LiveryError: what `run` would raise before phase 1.
    """
    engine, chosen = choose_engine(job, worker)
    steps = Steps(worker.settings, engine)
    photo, noted = None, chosen
    palette = None if isinstance(job.palette, Extract) else job.palette
    if job.image is not None or job.image_url is not None or data is not None:
        with steps("decode"):
            photo = _decode(job, read_file(job, worker, steps, data), frame_px)
            noted = (*chosen, *photo.warnings, *check_places(job, photo).warnings)
            palette = _palette(job, photo)
    report = dry_report(job, engine, photo, palette, steps.timings(), noted)
    each = tuple(_engine_estimate(job, able, worker) for able in engines_for(job, worker))
    return DryRunOutput(report=report, estimate=estimate(engine, each))


def _engine_estimate(job: JobInput, engine: Engine, worker: Worker) -> EngineEstimate:
    settings, mode = worker.settings, job.mode if engine == "studio" else None
    at_most_s = sum(settings.deadline_s(phase, engine) for phase in PERCENT)
    return engine_estimate(engine, mode, at_most_s, worker.measured, settings.price_usd_per_s)


def read_file(job: JobInput, worker: Worker, steps: Steps, data: bytes | None = None) -> bytes:
    """The photo's file: as the job holds it, from its address, or as the caller hands it over.

    Raises:
        SchemaError: there is none, or more than one.
        FetchError, ImageError: it can't be had.
    """
    if data is not None:
        if job.image is not None or job.image_url is not None:
            field = "image" if job.image is not None else "image_url"
            raise SchemaError("can't stand beside the photo's bytes", field=field)
        return data
    if job.image_url is not None:
        return fetch_image(job.image_url, bucket=worker.settings.bucket, check=steps.check)
    if job.image is None:
        raise SchemaError("is missing: send the photo as base64, or its address as image_url", field="image")
    return bytes_of_text(job.image)


def _decode(job: JobInput, encoded: bytes, frame_px: int) -> Photo:
    return decode_bytes(encoded, frame_px=frame_px, field="image" if job.image_url is None else "image_url")


def _palette(job: JobInput, photo: Photo) -> Palette:
    return extract_palette(photo.rgb, job.palette.n) if isinstance(job.palette, Extract) else job.palette


def _background(job: JobInput, palette: Palette) -> Literal["keep", "remove"] | int:
    if job.background == "keep":
        return "keep"
    if job.background == "remove":
        return "remove"
    return palette.hexes.index(job.background)


@dataclass(frozen=True, slots=True)
class _Held:
    """The map that is drawn: with room for features of `min_feature_px`, where that was asked for."""

    index: IndexMap
    min_feature_px: float | None = None
    warnings: tuple[Warning, ...] = ()


def _hold_features(output: Output, index: IndexMap, tolerance_px: float) -> _Held:
    width_mm = printed_width_mm(output, index.width_px)
    if output.min_feature_mm is None or width_mm is None:
        return _Held(index)
    min_feature_px = output.min_feature_mm * index.width_px / width_mm
    held_px = min_feature_px + 2 * tolerance_px  # an outline may come that much nearer to the one opposite
    if 2 * held_px > min(index.width_px, index.height_px):
        raise SchemaError(f"leaves no room in a piece {width_mm:g} mm wide", field="output.min_feature_mm")
    held, found = hold_min_feature(index, held_px)
    return _Held(held, min_feature_px, _feature_warnings(output, found))


def _feature_warnings(output: Output, found: FeatureReport) -> tuple[Warning, ...]:
    if not found.merged_px and not found.widened_px:
        return ()
    message = (
        f"to hold {output.min_feature_mm:g} mm everywhere, {found.merged_regions} regions were merged into others "
        f"({found.merged_px} px), and lines were widened by {found.widened_px} px"
    )
    return (Warning("min_feature_held", message),)


def _tracing(output: Output, held: _Held, tolerance_px: float, steps: Steps) -> VectorizeOptions:
    return VectorizeOptions(
        tracer=output.tracer,
        stacking=output.stacking,
        tolerance_px=tolerance_px,
        edges=output.single_cut,
        min_feature_px=held.min_feature_px,
        deadline_s=steps.settings.deadline_vectorize_s,
    )


def _audit(drawing: Drawing, palette: Palette) -> None:
    try:
        audit_svg(drawing.svg, palette)
    except SvgAuditError as offence:
        raise InternalError from offence


def _pngs(output: Output, drawing: Drawing, steps: Steps) -> tuple[Png, ...]:
    if "png" not in output.formats:
        return ()
    width_mm = printed_width_mm(output, drawing.width_px)
    pngs = []
    for width_px in output.png_widths:
        steps.ask()
        pngs.append(render_png(drawing, width_px, width_mm, steps.check))
    return tuple(pngs)


def _files(
    output: Output, drawing: Drawing, index: IndexMap, tolerance_px: float, steps: Steps
) -> tuple[ExportedFile, ...]:
    files = []
    for file in export_files(
        drawing,
        index,
        output,
        title=TITLE,
        tolerance_px=tolerance_px,
        deadline_s=steps.settings.deadline_export_s,
        cancelled=steps.cancelled,
    ):
        steps.ask()
        files.append(file)
    return tuple(files)
