"""From what a job made to its reply: files as links into the bucket, or as data: URLs where none is set."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.export.spots import spot_names
from pipeline.run import JobResult
from pipeline.schema import JobOutput, OutputFile, PngFile
from pipeline.settings import Settings
from pipeline.steps import Progress, Steps
from pipeline.storage import MEDIA_TYPES, Outgoing, upload

REPLY_ROOM_BYTES = 64 * 1024
"""Kept free beside an SVG for the rest of a reply."""


@dataclass(frozen=True, slots=True)
class _File:
    """One file on its way, and what the reply says of it besides its link."""

    outgoing: Outgoing
    format: Literal["svg", "png", "pdf", "dxf", "separations"]
    ink: str | None = None
    width: int = 0
    height: int = 0


def job_output(
    result: JobResult,
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
    files, svg = _files(result), result.drawing.svg
    wanted = "svg" in result.report.options.output.formats
    if settings.bucket is None:
        return _reply(result, files, [_data_url(file.outgoing) for file in files], svg if wanted else None)
    if wanted and len(svg.encode()) > settings.max_reply_bytes - REPLY_ROOM_BYTES:
        files.append(_File(Outgoing("livery.svg", MEDIA_TYPES["svg"], svg.encode()), "svg"))
        wanted = False
    steps = Steps(settings, result.report.engine, progress, cancelled)
    with steps("upload"):
        stored = upload([file.outgoing for file in files], job_id, settings.bucket, steps.check)
    links = [{"url": s.url, "bytes": s.bytes, "sha256": s.sha256, "expires_at": s.expires_at} for s in stored]
    reply = _reply(result, files, links, svg if wanted else None)
    spent = result.report.timings_ms
    total_ms = round(spent.total + steps.total_s() * 1000, 1)
    timings = spent.model_copy(update={"upload": steps.timings().upload, "total": total_ms})
    return reply.model_copy(update={"report": result.report.model_copy(update={"timings_ms": timings})})


def _files(result: JobResult) -> list[_File]:
    """Every file but the SVG."""
    names = spot_names(result.index.palette)
    files = [
        _File(
            Outgoing(f"livery-{png.width_px}.png", MEDIA_TYPES["png"], png.data),
            "png",
            width=png.width_px,
            height=png.height_px,
        )
        for png in result.pngs
    ]
    for file in result.files:
        ink = None if file.ink is None else names[file.ink]
        suffix = "dxf" if file.format == "dxf" else "pdf"
        name = f"livery.{suffix}" if ink is None else f"livery-{ink}.{suffix}"
        files.append(_File(Outgoing(name, MEDIA_TYPES[file.format], file.data), file.format, ink))
    return files


def _reply(result: JobResult, files: list[_File], links: list[dict[str, Any]], svg: str | None) -> JobOutput:
    linked = list(zip(files, links, strict=True))
    return JobOutput(
        svg=svg,
        png=tuple(PngFile(width=f.width, height=f.height, **link) for f, link in linked if f.format == "png"),
        files=tuple(OutputFile(format=f.format, ink=f.ink, **link) for f, link in linked if f.format != "png"),
        report=result.report,
    )


def _data_url(file: Outgoing) -> dict[str, Any]:
    """The fields that tell of a file which the reply itself carries."""
    return {
        "url": f"data:{file.media_type};base64," + base64.b64encode(file.data).decode("ascii"),
        "bytes": len(file.data),
        "sha256": hashlib.sha256(file.data).hexdigest(),
    }
