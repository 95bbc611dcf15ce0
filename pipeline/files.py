"""The files of one photo: the SVG, a PNG for each width, the before/after page, the report."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.export.page import render_page
from pipeline.run import JobResult
from pipeline.schema import Output, Report


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Where a job's files lie. `svg` is None where the job's formats leave it out; `png` has one for each width."""

    svg: Path | None
    png: tuple[Path, ...]
    page: Path
    report: Path

    def all(self) -> tuple[Path, ...]:
        """In the order of writing: the report last, so that where it exists the others do."""
        return (*self.pictures(), self.page, self.report)

    def pictures(self) -> tuple[Path, ...]:
        """The SVG and the PNGs."""
        return self.png if self.svg is None else (self.svg, *self.png)


def output_files(folder: Path, stem: str, output: Output) -> OutputFiles:
    """The files that a job with these `output` fields makes in `folder`, named from `stem`."""
    widths_px = output.png_widths if "png" in output.formats else ()
    return OutputFiles(
        svg=folder / f"{stem}.svg" if "svg" in output.formats else None,
        png=tuple(folder / f"{stem}-{width_px}.png" for width_px in widths_px),
        page=folder / f"{stem}.html",
        report=folder / f"{stem}.json",
    )


def write_files(result: JobResult, files: OutputFiles, title: str) -> None:
    """Write a result's files into their existing folder, each whole or not at all.

    Args:
        result: of one job.
        files: as `output_files` names them for the same job.
        title: of the page.

    Raises:
        OSError: a file can't be written; those before it stay, without a report.
    """
    files.report.unlink(missing_ok=True)  # it says nothing of the files that are about to change
    svg = result.drawing.svg
    page = render_page(title, result.photo.rgb, svg, result.report)
    contents = (
        *(() if files.svg is None else (svg.encode(),)),
        *(png.data for png in result.pngs),
        page.encode(),
        _report_text(result.report).encode(),
    )
    for path, content in zip(files.all(), contents, strict=True):
        _write_whole(path, content)


def _report_text(report: Report) -> str:
    return json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside `path`, then move into place, so that no reader and no interruption leaves half a file."""
    partial = path.with_name(f".{path.stem[:80]}.{os.getpid()}{path.suffix}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
