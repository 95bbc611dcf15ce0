"""The files of one photo: the SVG, a PNG for each width, PDF, DXF, separations, the before/after page, the report."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import LiveryError, UploadFailed, VolumeFull
from pipeline.export.page import render_page
from pipeline.export.spots import spot_names
from pipeline.export.svg import slug
from pipeline.palette import Extract
from pipeline.run import JobResult
from pipeline.schema import Options, Report
from pipeline.types import Palette


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Where a job's files lie; None and () where the job's formats leave them out.

    Attributes:
        svg, pdf, dxf: one file each.
        png: one for each width.
        plates: one for each ink of the palette, used or not; a separation is written only for an ink that is.
        page, report: always.
    """

    svg: Path | None
    pdf: Path | None
    dxf: Path | None
    png: tuple[Path, ...]
    plates: tuple[Path, ...]
    page: Path
    report: Path

    def pictures(self) -> tuple[Path, ...]:
        """All but the separations, the page and the report."""
        return (*(path for path in (self.svg, self.pdf, self.dxf) if path is not None), *self.png)

    def possible(self) -> tuple[Path, ...]:
        """Every file that the job may write."""
        return (*self.pictures(), *self.plates, self.page, self.report)

    def written(self, inks: tuple[int, ...]) -> tuple[Path, ...]:
        """What a job writes whose drawing uses these inks: palette indices. The page and the report come last."""
        return (*self.pictures(), *self.plates_of(inks), self.page, self.report)

    def plates_of(self, inks: tuple[int, ...]) -> tuple[Path, ...]:
        """The separations of these inks."""
        return tuple(self.plates[ink] for ink in inks) if self.plates else ()


def output_files(folder: Path, stem: str, options: Options) -> OutputFiles:
    """The files that a job with these options makes in `folder`, named from `stem`."""
    output = options.output
    widths_px = output.png_widths if "png" in output.formats else ()
    single = {name: folder / f"{stem}.{name}" if name in output.formats else None for name in ("svg", "pdf", "dxf")}
    inks = _ink_words(options.palette) if "separations" in output.formats else ()
    return OutputFiles(
        svg=single["svg"],
        pdf=single["pdf"],
        dxf=single["dxf"],
        png=tuple(folder / f"{stem}-{width_px}.png" for width_px in widths_px),
        plates=tuple(folder / f"{stem}-{word}.pdf" for word in inks),
        page=folder / f"{stem}.html",
        report=folder / f"{stem}.json",
    )


def _ink_words(palette: Palette | Extract) -> tuple[str, ...]:
    """A different word for each ink: of its name, or its number where the photo decides what the ink is."""
    if isinstance(palette, Extract):
        return tuple(f"ink-{number}" for number in range(1, palette.n + 1))
    words: list[str] = []
    for ink, name in zip(palette.inks, spot_names(palette), strict=True):
        word = wanted = slug(name, ink.hex[1:].lower())
        number = 1
        while word in words:
            number += 1
            word = f"{wanted}-{number}"
        words.append(word)
    return tuple(words)


def write_files(result: JobResult, files: OutputFiles, title: str) -> None:
    """Write a result's files into their existing folder, each whole or not at all.

    Separations of inks that the drawing does not use are removed: they are an earlier drawing's.

    Args:
        result: of one job.
        files: as `output_files` names them for the same job.
        title: of the page.

    Raises:
        OSError: a file can't be written; those before it stay, without a report.
    """
    files.report.unlink(missing_ok=True)  # it says nothing of the files that are about to change
    contents = dict(_contents(result, files, title))
    for plate in files.plates:
        if plate not in contents:
            plate.unlink(missing_ok=True)
    for path, content in contents.items():
        write_whole(path, content)


def _contents(result: JobResult, files: OutputFiles, title: str) -> Iterator[tuple[Path, bytes]]:
    """In the order of writing: the report last, so that where it exists the others do."""
    svg = result.drawing.svg
    if files.svg is not None:
        yield files.svg, svg.encode()
    for path, png in zip(files.png, result.pngs, strict=True):
        yield path, png.data
    for file in result.files:
        place = {"pdf": files.pdf, "dxf": files.dxf}[file.format] if file.ink is None else files.plates[file.ink]
        if place is not None:
            yield place, file.data
    yield files.page, render_page(title, result.photo.rgb, svg, result.report).encode()
    yield files.report, _report_text(result.report).encode()


def _report_text(report: Report) -> str:
    return json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def write_whole(path: Path, content: bytes) -> None:
    """Write beside `path`, then move into place, so that no reader and no interruption leaves half a file.

    Raises:
        OSError: the file can't be written.
    """
    partial = path.with_name(f".{path.stem[:80]}.{os.getpid()}{path.suffix}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_fault(fault: OSError) -> LiveryError:
    """What kept a file from being written, as an error of ours: the disk is full, or the place takes no file."""
    message = f"the files can't be written: {fault.strerror}"
    return VolumeFull(message) if fault.errno in {errno.ENOSPC, errno.EDQUOT} else UploadFailed(message)
