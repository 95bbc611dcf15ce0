"""One job: the four phases in their order, with the deadlines, the progress, the audit and the report.

`run` makes an illustration, `dry_run` says what a job would do. Neither touches a file or the network.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import numpy as np

from pipeline.decode import decode_bytes, decode_text
from pipeline.enforce import EnforceOptions, enforce
from pipeline.errors import Cancelled, DeadlineExceeded, InternalError, ModelMissing, OutOfMemory, SchemaError
from pipeline.export.audit import SvgAuditError, audit_svg
from pipeline.export.formats import ExportedFile, export_files
from pipeline.export.png import Png, render_png
from pipeline.export.svg import rounded_down
from pipeline.palette import Extract, extract_palette
from pipeline.physical import printed_width_mm
from pipeline.quality import coverage_pct, mean_delta_e_per_ink
from pipeline.sanitize import SanitizeOptions, sanitize
from pipeline.schema import (
    CertificateReport,
    DryRunOutput,
    Engine,
    Estimate,
    InkReport,
    JobInput,
    Output,
    RemovedReport,
    Report,
    Size,
    SubjectBox,
    SubjectPoint,
    SubjectReport,
    Timings,
    WarningReport,
)
from pipeline.settings import Settings
from pipeline.steer import SteerOptions, steer
from pipeline.subject import SubjectPrior
from pipeline.trace.features import FeatureReport, hold_min_feature
from pipeline.types import (
    CleanPlate,
    Drawing,
    Illustration,
    IndexMap,
    InkUse,
    Palette,
    Phase,
    Photo,
    Warning,
)
from pipeline.vectorize import TITLE, VectorizeOptions, vectorize

FRAME_PX = 1024
"""Long side of the working frame in pixels."""

DEFAULT_SEED = JobInput.model_fields["seed"].default
SUBJECT_LEAST = 128
"""`Illustration.subject` from which a pixel counts as the vehicle's."""

PERCENT: dict[Phase, int] = {"decode": 0, "sanitize": 15, "steer": 20, "enforce": 45, "vectorize": 60, "export": 80}
"""Share of a typical job that is done when a phase starts."""

FourFloats = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Progress:
    """A phase has started; `percent` of the job is done."""

    phase: Phase
    percent: int


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
    """

    drawing: Drawing
    index: IndexMap
    photo: Photo
    pngs: tuple[Png, ...]
    files: tuple[ExportedFile, ...]
    report: Report


def run(
    job: JobInput,
    settings: Settings,
    *,
    data: bytes | None = None,
    frame_px: int = FRAME_PX,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> JobResult:
    """Turn a photo into a palette-exact illustration.

    Args:
        job: a checked request; its `action` is not looked at.
        settings: of this worker.
        data: the encoded photo, for callers that hold bytes; then `job.image` is None.
        frame_px: long side of the working frame.
        progress: told of each phase as it starts, on this thread.
        cancelled: asked between the phases, before each PNG, and while the tracer runs.

    Raises:
        LiveryError: any of the tree; the same input raises the same error again.
    """
    engine, chosen = choose_engine(job, settings)
    steps = _Steps(settings, progress, cancelled)
    with steps("decode"):
        photo = _read_photo(job, data, frame_px)
        sites = _sites(job, photo)
    with steps("sanitize"):
        plate = sanitize(photo, sites.sanitize)
    with steps("steer"):
        palette = _palette(job, photo)
        illustration = steer(plate, palette, SteerOptions(job.tone, job.line_work, sites.subject))
    with steps("enforce"):
        index = enforce(illustration, palette, EnforceOptions(job.detail, _background(job, palette)))
    with steps("vectorize"):
        held = _hold_features(job.output, index)
        drawing = vectorize(held.index, _tracing(job.output, held, settings), cancelled=cancelled)
    with steps("export"):
        _audit(drawing, palette)
        pngs = _pngs(job.output, drawing, steps)
        files = _files(job.output, drawing, held.index, steps)
    made = _Made(engine, chosen, photo, sites, plate, illustration, held, drawing)
    return JobResult(drawing, held.index, photo, pngs, files, _report(job, settings, steps, made))


def dry_run(job: JobInput, settings: Settings, *, data: bytes | None = None, frame_px: int = FRAME_PX) -> DryRunOutput:
    """Check a job as `run` would, photo included where there is one, and bound what it would take.

    Raises:
        LiveryError: what `run` would raise before phase 1.
    """
    engine, chosen = choose_engine(job, settings)
    steps = _Steps(settings)
    photo, noted = None, chosen
    palette = None if isinstance(job.palette, Extract) else job.palette
    if job.image is not None or data is not None:
        with steps("decode"):
            photo = _read_photo(job, data, frame_px)
            noted = (*chosen, *photo.warnings, *_sites(job, photo).warnings)
            palette = _palette(job, photo)
    report = Report(
        version=package_version("livery"),
        engine=engine,
        seed=job.seed,
        options=job.options(),
        palette=() if palette is None else tuple(_ink(i, palette) for i in range(len(palette))),
        size=None if photo is None else Size(width=photo.width_px, height=photo.height_px),
        timings_ms=steps.timings(),
        input_sha256=None if photo is None else photo.sha256,
        warnings=_warnings(job, noted),
    )
    return DryRunOutput(report=report, estimate=_estimate(settings))


@dataclass(frozen=True, slots=True)
class _Made:
    """What the phases left behind, for the report."""

    engine: Engine
    chosen: tuple[Warning, ...]
    photo: Photo
    sites: _Sites
    plate: CleanPlate
    illustration: Illustration
    held: _Held
    drawing: Drawing

    def warnings(self) -> tuple[Warning, ...]:
        noted = (self.photo, self.sites, self.plate, self.illustration, self.held, self.drawing)
        return self.chosen + tuple(warning for part in noted for warning in part.warnings)


def _report(job: JobInput, settings: Settings, steps: _Steps, made: _Made) -> Report:
    drawing = made.drawing
    svg = drawing.svg.encode()
    removed = made.plate.removed
    return Report(
        version=package_version("livery"),
        engine=made.engine,
        seed=job.seed,
        options=job.options(),
        palette=_drawn_inks(made.photo, made.held.index, drawing),
        subject=_subject(made.illustration, made.photo, made.sites.subject),
        removed=tuple(RemovedReport(kind=r.kind, box=r.box, score=r.score, area_px=r.area_px) for r in removed),
        size=Size(width=drawing.width_px, height=drawing.height_px),
        paths=drawing.paths,
        nodes=drawing.nodes,
        bytes=len(svg),
        certificate=_certificate(job.output, drawing),
        timings_ms=steps.timings(),
        cost_estimate_usd=_cost_usd(steps.total_s(), settings),
        input_sha256=made.photo.sha256,
        output_sha256=hashlib.sha256(svg).hexdigest(),
        warnings=_warnings(job, made.warnings()),
    )


def package_version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def choose_engine(job: JobInput, settings: Settings) -> tuple[Engine, tuple[Warning, ...]]:
    """The engine that serves `job` on this worker, and why where the caller left the choice.

    Raises:
        ModelMissing: the studio engine is asked for, by the job or by the worker's settings, and is not there.
    """
    if job.engine == "draft":
        return "draft", ()
    if job.engine == "studio":
        raise ModelMissing("the studio engine's models are not on this worker", field="engine")
    if settings.auto_engine == "studio":
        message = "this worker serves only the studio engine, whose models are not on it"
        raise ModelMissing(message, field="engine")
    if settings.auto_engine == "draft":
        return "draft", (Warning("engine_auto", "auto took the draft engine, as this worker is set to"),)
    return "draft", (Warning("engine_auto", "auto took the draft engine: this worker has no usable model volume"),)


@dataclass(slots=True)
class _Steps:
    """Times the phases, holds them to their deadlines, tells of them, and stops between them where asked to."""

    settings: Settings
    progress: Callable[[Progress], None] | None = None
    cancelled: Callable[[], bool] | None = None
    spent_s: dict[Phase, float] = field(default_factory=dict)
    began_s: float = field(default_factory=time.perf_counter)

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        self.ask()
        if self.progress is not None:
            self.progress(Progress(phase, PERCENT[phase]))
        began_s = time.perf_counter()
        try:
            yield
        except MemoryError:
            raise OutOfMemory(f"the worker ran out of memory in {phase}") from None
        self.spent_s[phase] = time.perf_counter() - began_s
        if self.spent_s[phase] > self.settings.deadline_s(phase):
            raise DeadlineExceeded(f"{phase} ran past its time", phase=phase)

    def ask(self) -> None:
        """Raise Cancelled where the caller has cancelled the job."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("the job was cancelled")

    def total_s(self) -> float:
        return time.perf_counter() - self.began_s

    def timings(self) -> Timings:
        spent_ms = {phase: round(spent_s * 1000, 1) for phase, spent_s in self.spent_s.items()}
        return Timings(**spent_ms, total=round(self.total_s() * 1000, 1))


def _read_photo(job: JobInput, data: bytes | None, frame_px: int) -> Photo:
    if data is not None:
        if job.image is not None:
            raise SchemaError("can't stand beside the photo's bytes", field="image")
        return decode_bytes(data, frame_px=frame_px)
    if job.image is None:
        raise SchemaError("is missing: send the photo as base64", field="image")
    return decode_text(job.image, frame_px=frame_px)


@dataclass(frozen=True, slots=True)
class _Sites:
    """What the request says of places in the photo, checked against it."""

    sanitize: SanitizeOptions
    subject: SubjectPrior
    warnings: tuple[Warning, ...]


def _sites(job: JobInput, photo: Photo) -> _Sites:
    clipped: list[Warning] = []
    wanted = job.sanitize
    options = SanitizeOptions(
        enabled=wanted.enabled,
        regions=tuple(_inside(b, f"sanitize.regions[{i}]", photo, clipped) for i, b in enumerate(wanted.regions)),
        protect=tuple(_inside(b, f"sanitize.protect[{i}]", photo, clipped) for i, b in enumerate(wanted.protect)),
    )
    return _Sites(options, _prior(job, photo, clipped), tuple(clipped))


def _prior(job: JobInput, photo: Photo, clipped: list[Warning]) -> SubjectPrior:
    if isinstance(job.subject, SubjectPoint):
        x, y = job.subject.point
        if not (0 <= x < photo.source_width_px and 0 <= y < photo.source_height_px):
            raise SchemaError(f"lies outside the photo, {_size(photo)}", field="subject.point")
        scale_x, scale_y = photo.width_px / photo.source_width_px, photo.height_px / photo.source_height_px
        return SubjectPrior("point", (x * scale_x, y * scale_y))
    if isinstance(job.subject, SubjectBox):
        box = photo.to_frame(_inside(job.subject.box, "subject.box", photo, clipped))
        return SubjectPrior("box", (box.x0, box.y0, box.x1, box.y1))
    return SubjectPrior(job.subject, ())


def _inside(box: tuple[float, ...], path: str, photo: Photo, clipped: list[Warning]) -> FourFloats:
    """`box` cut to the photo; a box wholly outside it is an error, one partly outside a warning."""
    x0, y0, x1, y1 = box
    width_px, height_px = photo.source_width_px, photo.source_height_px
    if x1 <= 0 or y1 <= 0 or x0 >= width_px or y0 >= height_px:
        raise SchemaError(f"lies outside the photo, {_size(photo)}", field=path)
    inside = max(x0, 0.0), max(y0, 0.0), min(x1, float(width_px)), min(y1, float(height_px))
    if inside != (x0, y0, x1, y1):
        clipped.append(Warning("box_clipped", f"{path} was cut to the photo, {_size(photo)}"))
    return inside


def _size(photo: Photo) -> str:
    return f"which is {photo.source_width_px} × {photo.source_height_px} px"


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


def _hold_features(output: Output, index: IndexMap) -> _Held:
    width_mm = printed_width_mm(output, index.width_px)
    if output.min_feature_mm is None or width_mm is None:
        return _Held(index)
    min_feature_px = output.min_feature_mm * index.width_px / width_mm
    held_px = min_feature_px + 2 * output.tolerance_px  # an outline may come that much nearer to the one opposite
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


def _tracing(output: Output, held: _Held, settings: Settings) -> VectorizeOptions:
    return VectorizeOptions(
        tracer=output.tracer,
        stacking=output.stacking,
        tolerance_px=output.tolerance_px,
        edges=output.single_cut,
        min_feature_px=held.min_feature_px,
        deadline_s=settings.deadline_vectorize_s,
    )


def _audit(drawing: Drawing, palette: Palette) -> None:
    try:
        audit_svg(drawing.svg, palette)
    except SvgAuditError as offence:
        raise InternalError from offence


def _pngs(output: Output, drawing: Drawing, steps: _Steps) -> tuple[Png, ...]:
    if "png" not in output.formats:
        return ()
    width_mm = printed_width_mm(output, drawing.width_px)
    pngs = []
    for width_px in output.png_widths:
        steps.ask()
        pngs.append(render_png(drawing, width_px, width_mm))
    return tuple(pngs)


def _files(output: Output, drawing: Drawing, index: IndexMap, steps: _Steps) -> tuple[ExportedFile, ...]:
    files = []
    deadline_s, cancelled = steps.settings.deadline_export_s, steps.cancelled
    for file in export_files(drawing, index, output, title=TITLE, deadline_s=deadline_s, cancelled=cancelled):
        steps.ask()
        files.append(file)
    return tuple(files)


def _certificate(output: Output, drawing: Drawing) -> CertificateReport | None:
    stated = drawing.certificate
    if stated is None:
        return None
    return CertificateReport(
        tolerance_px=stated.tolerance_px,
        agreement_pct=float(rounded_down(stated.agreement_pct, 4)),
        nodes=stated.nodes,
        paths=stated.paths,
        primitives=dict(stated.primitives),
        min_feature_px=None if stated.min_feature_px is None else round(stated.min_feature_px, 3),
        min_feature_mm=output.min_feature_mm,
    )


def _drawn_inks(photo: Photo, index: IndexMap, drawing: Drawing) -> tuple[InkReport, ...]:
    covered, delta_e = coverage_pct(index), mean_delta_e_per_ink(photo.rgb, index)
    unused = InkUse(0, 0)
    return tuple(
        _ink(i, index.palette).model_copy(
            update={
                "coverage_pct": round(float(covered[i]), 3),
                "paths": drawing.uses.get(i, unused).paths,
                "nodes": drawing.uses.get(i, unused).nodes,
                "mean_delta_e": None if math.isnan(delta_e[i]) else round(float(delta_e[i]), 3),
            }
        )
        for i in range(len(index.palette))
    )


def _ink(i: int, palette: Palette) -> InkReport:
    return InkReport(index=i, hex=palette.inks[i].hex, name=palette.inks[i].name)


def _subject(illustration: Illustration, photo: Photo, prior: SubjectPrior) -> SubjectReport:
    inside = illustration.subject >= SUBJECT_LEAST
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if rows.size == 0:
        return SubjectReport(box=None, source=prior.kind)
    scale_x, scale_y = photo.source_width_px / photo.width_px, photo.source_height_px / photo.height_px
    x0, x1 = float(columns[0] * scale_x), float((columns[-1] + 1) * scale_x)
    y0, y1 = float(rows[0] * scale_y), float((rows[-1] + 1) * scale_y)
    return SubjectReport(box=(round(x0, 1), round(y0, 1), round(x1, 1), round(y1, 1)), source=prior.kind)


def _warnings(job: JobInput, noted: tuple[Warning, ...]) -> tuple[WarningReport, ...]:
    if job.seed != DEFAULT_SEED:
        noted = (*noted, Warning("seed_unused", "the draft engine has no randomness, so the seed changes nothing"))
    if job.background != "keep":
        message = "the draft engine cuts along its own estimate of the vehicle; look at the outline before you use it"
        noted = (*noted, Warning("background_estimated", message))
    return tuple(WarningReport(code=warning.code, message=warning.message) for warning in noted)


def _cost_usd(seconds: float, settings: Settings) -> float | None:
    return None if settings.price_usd_per_s is None else round(seconds * settings.price_usd_per_s, 6)


def _estimate(settings: Settings) -> Estimate:
    seconds = sum(settings.deadline_s(phase) for phase in PERCENT)
    return Estimate(
        seconds_at_most=seconds,
        cost_usd_at_most=_cost_usd(seconds, settings),
        basis="the sum of the deadlines that this worker sets its phases, at its configured price",
    )
