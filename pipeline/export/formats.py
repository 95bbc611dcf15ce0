"""The files of a job beside its SVG and its PNGs: PDF, DXF, and a PDF for each ink's separation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import SchemaError
from pipeline.physical import piece_width_mm
from pipeline.schema import Output
from pipeline.trace import livery
from pipeline.types import Drawing, IndexMap

VectorFormat = Literal["pdf", "dxf", "separations"]


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file. `ink` is the palette index of a separation, None for the others."""

    format: VectorFormat
    ink: int | None
    data: bytes


def export_files(
    drawing: Drawing,
    image: IndexMap,
    output: Output,
    *,
    title: str,
    tolerance_px: float,
    deadline_s: float,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[ExportedFile]:
    """The files that `output.formats` asks for, in its order; separations in the palette's order.

    Args:
        drawing: of `image`.
        image: index uint8 [H, W], the map that separations are traced from.
        output: the request's; its physical size, or 96 pixels of the frame to the inch.
        title: of the documents that have one.
        tolerance_px: of the separations' outlines, in pixels of the map.
        deadline_s: seconds that tracing the separations may take.
        cancelled: asked at least every 50 ms while they are traced; True ends it.

    Raises:
        Cancelled, DeadlineExceeded: tracing the separations was stopped.
        SchemaError: a single cut is asked of a drawing without edges.
    """
    width_mm = piece_width_mm(output, drawing.width_px)
    for name in output.formats:
        if name == "pdf":
            from pipeline.export.pdf import write_pdf  # noqa: PLC0415 - its library is slow to load

            yield ExportedFile("pdf", None, write_pdf(drawing, image.palette, width_mm=width_mm, title=title))
        elif name == "dxf":
            from pipeline.export.dxf import write_dxf  # noqa: PLC0415 - as above

            if output.single_cut and not drawing.tracing.edges:
                raise SchemaError("the drawing has no edges to cut along", field="output.single_cut")
            ways = {"curves": output.dxf_curves, "single_cut": output.single_cut}
            yield ExportedFile("dxf", None, write_dxf(drawing, image.palette, width_mm=width_mm, **ways))
        elif name == "separations":
            options = livery.TraceOptions(tolerance_px=tolerance_px)
            yield from _separations(image, output, width_mm, title, options, deadline_s, cancelled)


def _separations(
    image: IndexMap,
    output: Output,
    width_mm: float,
    title: str,
    options: livery.TraceOptions,
    deadline_s: float,
    cancelled: Callable[[], bool] | None,
) -> Iterator[ExportedFile]:
    from pipeline.export.pdf import write_separations  # noqa: PLC0415 - its library is slow to load

    trap_px = 0.0 if output.trap_mm is None else output.trap_mm * image.width_px / width_mm
    plates = livery.separations(image, options, trap_px, deadline_s=deadline_s, cancelled=cancelled)
    written = write_separations(
        plates,
        image.palette,
        image.width_px,
        image.height_px,
        width_mm=width_mm,
        registration_marks=output.registration_marks,
        title=title,
    )
    for ink in sorted(written):
        yield ExportedFile("separations", ink, written[ink])
