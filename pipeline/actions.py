"""The actions that a photo comes with: `illustrate`, answered from the result cache where it can be, and `purge`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.build import build
from pipeline.cache import NOT_KEPT, Cache, Dropped, EntryName
from pipeline.export.audit import SvgAuditError, audit_svg
from pipeline.finished import Finished
from pipeline.handover import finished, job_output
from pipeline.report import cached_report, cost_usd, warning_reports
from pipeline.run import FRAME_PX, Order, begin, make, read_file
from pipeline.schema import JobInput, JobOutput, Options, PurgeOutput, WarningReport
from pipeline.steps import Progress, Steps
from pipeline.types import Ink, Palette
from pipeline.worker import Worker


def illustrate(
    job: JobInput,
    worker: Worker,
    job_id: str = "",
    *,
    frame_px: int = FRAME_PX,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> JobOutput:
    """The reply to `illustrate`. What was made before is handed over anew, so that its links are fresh.

    Args:
        job: a checked request.
        job_id: the platform's.
        frame_px, progress, cancelled: as for `pipeline.run.run`.

    Raises:
        LiveryError: any of the tree.
    """
    order = begin(job, worker, frame_px=frame_px, progress=progress, cancelled=cancelled)
    if worker.cache is None or job.cache == "off":
        result = finished(make(order, worker))
    else:
        result = _made_once(order, worker, worker.cache)
    return job_output(result, worker.settings, job_id, progress=progress, cancelled=cancelled)


def purge(job: JobInput, worker: Worker, *, cancelled: Callable[[], bool] | None = None) -> PurgeOutput:
    """Drop all that is kept of a job's photo, whatever the options were. What a job that still runs makes comes after.

    Raises:
        LiveryError: the photo can't be had.
        OSError: the cache's folder can't be changed.
    """
    steps = Steps(worker.settings, "draft", cancelled=cancelled)
    with steps("decode"):
        photo = hashlib.sha256(read_file(job, worker, steps)).hexdigest()
    dropped = Dropped() if worker.cache is None else worker.cache.purge(photo)
    pictures = worker.gallery.purge(photo)
    if worker.studio is not None:
        with worker.turn(steps.check, lambda: None):  # so that a cancel is heard while another job is at the models
            worker.studio.forget()
    return PurgeOutput(
        input_sha256=photo, results=dropped.results, pictures=dropped.art + pictures, bytes=dropped.bytes
    )


def _made_once(order: Order, worker: Worker, cache: Cache) -> Finished:
    """What an earlier job made of the same, else what this one makes, which is kept."""
    studio = worker.studio if order.engine == "studio" else None
    revisions = {} if studio is None else studio.store.revisions()
    name = result_name(order, revisions, worker)
    if (found := _found(order, worker, cache, name)) is not None:
        return found
    made = make(order, worker)
    result = finished(made)
    # A builder may have changed the volume meanwhile, and then the key is another result's.
    if not made.whole or not made.report.models.items() <= revisions.items():
        return result
    failed = cache.put(name, _with(result, warnings=_said(order, result)).to_bytes())
    timings = order.steps.timings()
    return _with(
        result,
        timings_ms=timings,
        cost_estimate_usd=cost_usd(timings.total / 1000, worker.settings.price_usd_per_s),
        warnings=result.report.warnings + warning_reports(() if failed is None else (failed,)),
    )


def _found(order: Order, worker: Worker, cache: Cache, name: EntryName) -> Finished | None:
    job, steps = order.job, order.steps
    if job.cache != "use":
        return None
    with steps("decode"):
        found = cache.get(name, Finished.from_bytes)
    if found is None or not _is_sound(found):
        return None
    report = cached_report(job, found.report, steps.timings(), worker.settings.price_usd_per_s, order.chosen)
    return replace(found, report=report)


def _is_sound(found: Finished) -> bool:
    """Whether the SVG passes the audit that it passed once: others may write to the volume."""
    palette = Palette(tuple(Ink(ink.hex, ink.name) for ink in found.report.palette))
    try:
        audit_svg(found.svg, palette)
    except SvgAuditError:
        return False
    return True


def _said(order: Order, result: Finished) -> tuple[WarningReport, ...]:
    """The report's warnings that hold for the next job too: not why this engine serves, nor what wasn't kept."""
    chosen = warning_reports(order.chosen)
    return tuple(said for said in result.report.warnings if said not in chosen and said.code not in NOT_KEPT)


def _with(result: Finished, **said: Any) -> Finished:
    """The same with other fields of its report."""
    return replace(result, report=result.report.model_copy(update=said))


def result_name(order: Order, revisions: Mapping[str, str], worker: Worker) -> EntryName:
    """What a result is kept under.

    Not the engine that was asked for, but the one that serves.
    """
    options = order.job.model_dump(mode="json", include=set(Options.model_fields) - {"engine", "cache"})
    studio = [sorted(revisions.items()), worker.settings.allow_noncommercial]
    text = json.dumps([build(), order.engine, studio, order.frame_px, options], sort_keys=True)
    return EntryName(hashlib.sha256(order.encoded).hexdigest(), hashlib.sha256(text.encode()).hexdigest(), "result")
