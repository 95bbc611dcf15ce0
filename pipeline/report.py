"""The report: what was done, with what, at what cost; and before a job, what it would be."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import numpy as np

from models.reading import Reads
from models.registry import Mode
from models.studio import Timeline
from pipeline.export.svg import rounded_down
from pipeline.measured import Measured
from pipeline.modes import paint_options
from pipeline.quality import coverage_pct, mean_delta_e_per_ink
from pipeline.request import studio_only_fields
from pipeline.schema import (
    CertificateReport,
    ColdReport,
    Engine,
    EngineEstimate,
    Estimate,
    InkReport,
    JobInput,
    Options,
    Output,
    RemovedReport,
    Report,
    Size,
    SubjectReport,
    Timings,
    WarningReport,
)
from pipeline.types import U8, Drawing, IndexMap, InkUse, Palette, Photo, Removed, Warning

DEFAULT_SEED = JobInput.model_fields["seed"].default
SUBJECT_LEAST = 128
"""`Illustration.subject` from which a pixel counts as the vehicle's."""


@dataclass(frozen=True, slots=True)
class ModelsUsed:
    """What the studio engine took for a job; all empty for the draft engine.

    Attributes:
        revisions: name of each model that made the picture → revision.
        loads: unit → milliseconds of loading it in this job.
        reads: of the volume in this job; None for the draft engine.
        timeline: how the models came to be there; None for the draft engine.
        reinked: whether phases 1 and 2 were kept from an earlier job, so that at most the upscaler ran.
        vram_peak_mb: None on a CPU.
        gpu: its name; None on a CPU.
        warnings: of what memory made it give up.
    """

    revisions: dict[str, str] = field(default_factory=dict)
    loads: dict[str, float] = field(default_factory=dict)
    reads: Reads | None = None
    timeline: Timeline | None = None
    reinked: bool = False
    vram_peak_mb: float | None = None
    gpu: str | None = None
    warnings: tuple[Warning, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """What the phases of a job left behind.

    Attributes:
        subject: uint8 [H, W], probability × 255 that a pixel belongs to the vehicle.
        iou: of the vehicle's silhouette in the photo and the illustration; None where it was not measured.
    """

    engine: Engine
    photo: Photo
    removed: tuple[Removed, ...]
    subject: U8
    source: Literal["auto", "whole", "point", "box"]
    iou: float | None
    index: IndexMap
    drawing: Drawing
    models: ModelsUsed
    warnings: tuple[Warning, ...]


def full_report(job: JobInput, made: Made, timings: Timings, price_usd_per_s: float | None) -> Report:
    """The report on an illustration."""
    drawing, models = made.drawing, made.models
    svg = drawing.svg.encode()
    return Report(
        version=package_version("livery"),
        engine=made.engine,
        mode=job.mode if made.engine == "studio" else None,
        seed=job.seed,
        models=models.revisions,
        options=options_used(job, made.engine),
        palette=_drawn_inks(made.photo, made.index, drawing),
        subject=_subject(made),
        removed=tuple(RemovedReport(kind=r.kind, box=r.box, score=r.score, area_px=r.area_px) for r in made.removed),
        size=Size(width=drawing.width_px, height=drawing.height_px),
        paths=drawing.paths,
        nodes=drawing.nodes,
        bytes=len(svg),
        certificate=_certificate(job.output, drawing),
        timings_ms=timings,
        loads=models.loads,
        cold=_cold(models),
        reinked=models.reinked,
        vram_peak_mb=models.vram_peak_mb,
        gpu=models.gpu,
        cost_estimate_usd=cost_usd(timings.total / 1000, price_usd_per_s),
        input_sha256=made.photo.sha256,
        output_sha256=hashlib.sha256(svg).hexdigest(),
        warnings=_warnings(job, made.engine, made.warnings),
    )


def cached_report(
    job: JobInput, stored: Report, timings: Timings, price_usd_per_s: float | None, chosen: tuple[Warning, ...]
) -> Report:
    """The report on a result that was kept: of the picture what was said then, of the work what this job took.

    Args:
        stored: without the reasons for its engine.
        chosen: why this job takes that engine, where its caller left the choice.
    """
    return stored.model_copy(
        update={
            "options": options_used(job, stored.engine),
            "timings_ms": timings,
            "loads": {},
            "cold": None,
            "reinked": False,
            "vram_peak_mb": None,
            "gpu": None,
            "cost_estimate_usd": cost_usd(timings.total / 1000, price_usd_per_s),
            "cached": True,
            "warnings": warning_reports(chosen) + stored.warnings,
        }
    )


def warning_reports(warnings: Iterable[Warning]) -> tuple[WarningReport, ...]:
    """Warnings as a report holds them."""
    return tuple(WarningReport(code=warning.code, message=warning.message) for warning in warnings)


def dry_report(
    job: JobInput,
    engine: Engine,
    photo: Photo | None,
    palette: Palette | None,
    timings: Timings,
    warnings: tuple[Warning, ...],
) -> Report:
    """The report on a job that was only checked.

    Args:
        palette: None where it has to come from a photo that isn't there.
    """
    return Report(
        version=package_version("livery"),
        engine=engine,
        mode=job.mode if engine == "studio" else None,
        seed=job.seed,
        options=options_used(job, engine),
        palette=() if palette is None else tuple(_ink(i, palette) for i in range(len(palette))),
        size=None if photo is None else Size(width=photo.width_px, height=photo.height_px),
        timings_ms=timings,
        input_sha256=None if photo is None else photo.sha256,
        warnings=_warnings(job, engine, warnings),
    )


def options_used(job: JobInput, engine: Engine) -> Options:
    """The request's options with nothing left open: where `style` says nothing, the mode's own values."""
    options = job.options()
    if engine == "draft":
        return options
    return options.model_copy(update={"style": paint_options(job.mode, job.style, job.seed).style()})


def estimate(engine: Engine, each: tuple[EngineEstimate, ...]) -> Estimate:
    """What is said of a job that `engine` serves, among `each` that could."""
    chosen = next(one for one in each if one.engine == engine)
    return Estimate(
        seconds_at_most=chosen.seconds_at_most,
        cost_usd_at_most=chosen.cost_usd_at_most,
        basis="the sum of the deadlines that this worker sets its phases, at its configured price",
        engines=each,
    )


def engine_estimate(
    engine: Engine, mode: Mode | None, at_most_s: float, measured: Measured, price_usd_per_s: float | None
) -> EngineEstimate:
    """The bound of an engine's deadlines, in seconds, beside what such jobs took."""
    typical_s, jobs = measured.typical_s(engine, mode)
    kind = engine if mode is None else f"{engine} {mode}"
    return EngineEstimate(
        engine=engine,
        mode=mode,
        seconds_at_most=at_most_s,
        cost_usd_at_most=cost_usd(at_most_s, price_usd_per_s),
        seconds=None if typical_s is None else round(typical_s, 3),
        cost_usd=None if typical_s is None else cost_usd(typical_s, price_usd_per_s),
        jobs=jobs,
        basis=f"this worker process has served no {kind} job yet"
        if typical_s is None
        else f"the median of this worker process's latest {kind} jobs, without loading models and without uploads",
    )


def cost_usd(seconds: float, price_usd_per_s: float | None) -> float | None:
    """What `seconds` of this worker cost; None without a configured price."""
    return None if price_usd_per_s is None else round(seconds * price_usd_per_s, 6)


def package_version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cold(models: ModelsUsed) -> ColdReport | None:
    reads, timeline = models.reads, models.timeline
    if reads is None or timeline is None or not (reads.files or timeline.spent.import_s):
        return None
    spent = timeline.spent
    return ColdReport(
        import_ms=_ms(spent.import_s),
        imported_ms=_ms(timeline.imported_s),
        read_ms=_ms(spent.read_s),
        reading_ms=_ms(reads.spent_s),
        build_ms=_ms(spent.build_s),
        device_ms=_ms(spent.device_s),
        first_ms=None if timeline.first_s is None else _ms(timeline.first_s),
        files=reads.files,
        files_ahead=reads.ahead,
        mb=round(reads.bytes / 2**20, 1),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


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
    covered, unused = coverage_pct(index), InkUse(0, 0)
    delta_e = mean_delta_e_per_ink(photo.rgb, _in_frame_of(photo, index))
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


def _in_frame_of(photo: Photo, index: IndexMap) -> IndexMap:
    """The map as the photo's pixels see it: the studio engine's map has a frame of its own."""
    rows = (2 * np.arange(photo.height_px) + 1) * index.height_px // (2 * photo.height_px)
    columns = (2 * np.arange(photo.width_px) + 1) * index.width_px // (2 * photo.width_px)
    return IndexMap(index.index[rows][:, columns], index.palette)


def _ink(i: int, palette: Palette) -> InkReport:
    return InkReport(index=i, hex=palette.inks[i].hex, name=palette.inks[i].name)


def _subject(made: Made) -> SubjectReport:
    inside, photo = made.subject >= SUBJECT_LEAST, made.photo
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    iou = None if made.iou is None else round(made.iou, 4)
    if rows.size == 0:
        return SubjectReport(box=None, iou=iou, source=made.source)
    scale_x, scale_y = photo.source_width_px / inside.shape[1], photo.source_height_px / inside.shape[0]
    x0, x1 = float(columns[0] * scale_x), float((columns[-1] + 1) * scale_x)
    y0, y1 = float(rows[0] * scale_y), float((rows[-1] + 1) * scale_y)
    return SubjectReport(box=(round(x0, 1), round(y0, 1), round(x1, 1), round(y1, 1)), iou=iou, source=made.source)


def _warnings(job: JobInput, engine: Engine, noted: tuple[Warning, ...]) -> tuple[WarningReport, ...]:
    if engine == "draft":
        noted = (*noted, *_idle(job))
    return warning_reports(noted)


def _idle(job: JobInput) -> tuple[Warning, ...]:
    """What the draft engine makes of options that mean more, or only something, to the studio engine."""
    noted = []
    if idle := studio_only_fields(job):
        noted.append(Warning("studio_only", f"the draft engine has no use for {', '.join(idle)}"))
    if job.seed != DEFAULT_SEED:
        noted.append(Warning("seed_unused", "the draft engine has no randomness, so the seed changes nothing"))
    if job.background != "keep":
        message = "the draft engine cuts along its own estimate of the vehicle; look at the outline before you use it"
        noted.append(Warning("background_estimated", message))
    return tuple(noted)
