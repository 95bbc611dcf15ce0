"""`python -m pipeline trace`: any label map as SVG, PDF, EPS or DXF."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Cancelled, FetchError, InternalError, LiveryError, OutOfMemory
from pipeline.export.audit import SvgAuditError, audit_svg
from pipeline.export.eps import write_eps
from pipeline.export.formats import export_files
from pipeline.export.svg import rounded_down
from pipeline.files import write_fault, write_whole
from pipeline.labels import MAX_BYTES, read_label_map
from pipeline.palette import Extract
from pipeline.physical import piece_width_mm
from pipeline.request import parse_request
from pipeline.schema import JobInput
from pipeline.settings import Settings, load_settings
from pipeline.terminal import (
    FINE,
    INTERRUPTED,
    SOME_FAILED,
    Interrupt,
    Unusable,
    complain,
    fault_line,
    make_folder,
    printable,
    printable_name,
    read_json,
    say,
    subparser,
)
from pipeline.types import Drawing, IndexMap, Palette
from pipeline.vectorize import TITLE, VectorizeOptions, vectorize

SUFFIXES = (".svg", ".pdf", ".eps", ".dxf")

_INTERRUPTED_LINE = "interrupted; nothing was written"


def trace_map(given: Sequence[str]) -> int:
    """Run the command. Returns the exit code.

    Raises:
        Unusable: the options or the palette can't be used.
        SettingsError: the settings can't.
    """
    options = _parser().parse_args(given)
    job, palette = _requested(options)
    settings = load_settings()
    out: Path = options.output
    if out.resolve() in {options.labels.resolve(), options.palette.resolve()}:
        raise Unusable(f"{printable(str(out))}: would be overwritten, and is read itself")
    make_folder(out.parent)
    name = printable_name(options.labels)
    with Interrupt(_INTERRUPTED_LINE) as interrupt:
        try:
            _trace(options, palette, job, settings, interrupt)
        except MemoryError:
            complain(fault_line(name, OutOfMemory("the machine ran out of memory")))
            return SOME_FAILED
        except LiveryError as fault:
            if interrupt.noted:
                complain(_INTERRUPTED_LINE)
                return INTERRUPTED
            complain(fault_line(name, fault))
            return SOME_FAILED
    return FINE


def _parser() -> argparse.ArgumentParser:
    parser = subparser("trace", "Trace a label map into an SVG, a PDF, an EPS or a DXF.")
    add = parser.add_argument
    add("labels", type=Path, metavar="LABELS.png", help="8-bit grey PNG: each pixel's palette index, 255 unpainted")
    add(
        "palette",
        type=Path,
        metavar="PALETTE.json",
        help="a palette as a request has it, such as a list of hex colours",
    )
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="the file to write: .svg, .pdf, .eps or .dxf")
    add("--tolerance", type=float, metavar="PX", help="how far an outline may leave the map's (default 0.8)")
    add("--stacking", help="stacked (default) or abutting")
    add("--tracer", help="livery (default) or vtracer")
    add("--lines", action="store_true", help="straight lines alone, no curves")
    add("--single-cut", action="store_true", default=None, help=".dxf: each shared edge once, for a knife or a pen")
    add("--width-mm", type=float, metavar="MM", help="width of the piece (default: 96 pixels to the inch)")
    return parser


def _requested(options: argparse.Namespace) -> tuple[JobInput, Palette]:
    """What the options stand for, checked as a request of theirs is."""
    suffix = options.output.suffix.lower()
    if suffix not in SUFFIXES:
        raise Unusable(f"{printable_name(options.output)}: must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    given = {
        "tolerance_px": options.tolerance,
        "stacking": options.stacking,
        "tracer": options.tracer,
        "width_mm": options.width_mm,
        "single_cut": options.single_cut,
    }
    output: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    formats = ["svg" if suffix == ".eps" else suffix[1:]]  # an EPS is no format of a request
    request = {"palette": read_json(options.palette), "output": {"formats": formats, **output}}
    try:
        job = parse_request(request)
    except LiveryError as fault:
        raise Unusable(str(fault.as_reply()["error"])) from None
    if options.lines and job.output.tracer != "livery":
        raise Unusable(f"--lines: asks for what {job.output.tracer} can't do; use livery")
    if isinstance(job.palette, Extract):
        raise Unusable(f"{printable_name(options.palette)}: a label map holds no colours to extract")
    return job, job.palette


def _trace(
    options: argparse.Namespace, palette: Palette, job: JobInput, settings: Settings, interrupt: Interrupt
) -> None:
    began_s = time.perf_counter()
    out: Path = options.output
    image = read_label_map(_read(options.labels), palette)
    output = job.output
    wanted = VectorizeOptions(
        tracer=output.tracer,
        stacking=output.stacking,
        tolerance_px=output.tolerance_px,
        curves=not options.lines,
        edges=output.single_cut,
        deadline_s=settings.deadline_vectorize_s,
    )
    drawing = vectorize(image, wanted, cancelled=lambda: interrupt.noted)
    content = _content(drawing, image, job, settings, out.suffix.lower())
    if interrupt.noted:
        raise Cancelled("the tracing was cancelled before its file was written")
    try:
        write_whole(out, content)
    except OSError as fault:
        raise write_fault(fault) from None
    _tell(out, drawing, len(content), time.perf_counter() - began_s)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as fault:
        raise FetchError(f"the file can't be read: {fault.strerror}") from None


def _content(drawing: Drawing, image: IndexMap, job: JobInput, settings: Settings, suffix: str) -> bytes:
    try:
        audit_svg(drawing.svg, image.palette)
    except SvgAuditError as offence:
        raise InternalError from offence
    if suffix == ".eps":
        width_mm = piece_width_mm(job.output, drawing.width_px)
        return write_eps(drawing, image.palette, width_mm=width_mm, title=TITLE)
    files = export_files(
        drawing,
        image,
        job.output,
        title=TITLE,
        tolerance_px=job.output.tolerance_px,
        deadline_s=settings.deadline_export_s,
    )
    return next((file.data for file in files), drawing.svg.encode())


def _tell(out: Path, drawing: Drawing, size_bytes: int, seconds: float) -> None:
    stated = drawing.certificate
    agreement = "" if stated is None else f", {rounded_down(stated.agreement_pct, 2)} % agreement"
    figures = f"{drawing.paths} paths, {drawing.nodes} nodes, {size_bytes / 1000:.1f} kB{agreement}"
    say(f"{printable(str(out))}: {figures}, {seconds:.2f} s")
    for warning in drawing.warnings:
        say(f"  {warning.code}: {warning.message}")
