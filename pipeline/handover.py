"""From what a job made to its reply: files as links into the bucket, or as data: URLs where none is set."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from pipeline.export.spots import spot_names
from pipeline.finished import Finished, FinishedFile
from pipeline.run import JobResult
from pipeline.schema import JobOutput, OutputFile, PngFile
from pipeline.settings import Settings
from pipeline.steps import Progress, Steps
from pipeline.storage import MEDIA_TYPES, Outgoing, upload

REPLY_ROOM_BYTES = 64 * 1024
"""Kept free beside an SVG for the rest of a reply."""


def finished(result: JobResult) -> Finished:
    """What is handed over of a job's result, and kept."""
    names = spot_names(result.index.palette)
    files = [
        FinishedFile(f"livery-{png.width_px}.png", "png", png.data, width_px=png.width_px, height_px=png.height_px)
        for png in result.pngs
    ]
    for file in result.files:
        ink = None if file.ink is None else names[file.ink]
        suffix = "dxf" if file.format == "dxf" else "pdf"
        name = f"livery.{suffix}" if ink is None else f"livery-{ink}.{suffix}"
        files.append(FinishedFile(name, file.format, file.data, ink))
    return Finished(result.drawing.svg, tuple(files), result.report)


def job_output(
    result: Finished,
    settings: Settings,
    job_id: str = "",
    *,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> JobOutput:
    """The reply to `illustrate`.

    Args:
        result: what the job made.
        settings: with the bucket, where there is one; an SVG that is too large for the reply goes there as well.
        job_id: the platform's; files of the same job lie at the same keys.
        progress, cancelled: as for `pipeline.run.run`.

    Raises:
        UploadFailed, Cancelled, DeadlineExceeded: the files could not be handed over.
    """
    files, svg = list(result.files), result.svg
    wanted = "svg" in result.report.options.output.formats
    if settings.bucket is None:
        return _reply(result, files, [_data_url(file) for file in files], svg if wanted else None)
    if wanted and len(svg.encode()) > settings.max_reply_bytes - REPLY_ROOM_BYTES:
        files.append(FinishedFile("livery.svg", "svg", svg.encode()))
        wanted = False
    steps = Steps(settings, result.report.engine, progress, cancelled)
    with steps("upload"):
        outgoing = [Outgoing(file.name, MEDIA_TYPES[file.format], file.data) for file in files]
        stored = upload(outgoing, job_id, settings.bucket, steps.check)
    links = [{"url": s.url, "bytes": s.bytes, "sha256": s.sha256, "expires_at": s.expires_at} for s in stored]
    reply = _reply(result, files, links, svg if wanted else None)
    spent = result.report.timings_ms
    total_ms = round(spent.total + steps.total_s() * 1000, 1)
    timings = spent.model_copy(update={"upload": steps.timings().upload, "total": total_ms})
    return reply.model_copy(update={"report": result.report.model_copy(update={"timings_ms": timings})})


def _reply(result: Finished, files: list[FinishedFile], links: list[dict[str, Any]], svg: str | None) -> JobOutput:
    linked = list(zip(files, links, strict=True))
    return JobOutput(
        svg=svg,
        png=tuple(PngFile(width=f.width_px, height=f.height_px, **link) for f, link in linked if f.format == "png"),
        files=tuple(OutputFile(format=f.format, ink=f.ink, **link) for f, link in linked if f.format != "png"),
        report=result.report,
    )


def _data_url(file: FinishedFile) -> dict[str, Any]:
    """The fields that tell of a file which the reply itself carries."""
    return {
        "url": f"data:{MEDIA_TYPES[file.format]};base64," + base64.b64encode(file.data).decode("ascii"),
        "bytes": len(file.data),
        "sha256": hashlib.sha256(file.data).hexdigest(),
    }
