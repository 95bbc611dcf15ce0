"""Shapes as PDF: each ink a spot colour and a layer of one drawing, or a plate of its own.

The content stream holds the outlines' own integers, 1/100 px, under one matrix. Files are ISO 32000-1 with nothing in
them that changes from run to run: no date, and an /ID that is the digest of the content.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from pikepdf import Array, Dictionary, Name, Object, ObjectStreamMode, Page, Pdf, String

from pipeline.export.curves import decimal, path_operators
from pipeline.export.spots import spot_names
from pipeline.types import UNITS_PER_PX, Drawing, Ink, Palette, Shape

VERSION = "1.7"
POINTS_PER_MM = 72 / 25.4
LONGEST_SIDE = 14_400
"""Of a page, in its own units (ISO 32000-1, annex C). A larger page takes a unit of several points."""

MARGIN_MM = 10.0
MARK_OFFSET_MM, MARK_ARM_MM, MARK_RADIUS_MM = 4.5, 2.5, 1.5
"""A registration mark: its centre's distance from the trim, its cross's arm, its circle."""

CROP_GAP_MM, CROP_LENGTH_MM = 2.0, 5.0
MARK_LINE_MM = 0.1
LABEL_MM, LABEL_INSET_MM = 2.1, 1.0
"""The label's letters (6 points) and its distance from the page's edges."""

COURIER_ADVANCE = 0.6
"""Width of each letter for a size of 1: every one the same, so the label's length is known without the font."""


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A page with the art on it. Lengths in mm, y upward from the page's lower left corner."""

    width_px: int
    height_px: int
    width_mm: float
    margin_mm: float = 0.0

    @property
    def height_mm(self) -> float:
        return self.width_mm * self.height_px / self.width_px

    @property
    def page_mm(self) -> tuple[float, float]:
        return self.width_mm + 2 * self.margin_mm, self.height_mm + 2 * self.margin_mm

    @property
    def points_per_unit(self) -> int:
        """How many points a unit of the page is."""
        return max(1, -int(-max(self.page_mm) * POINTS_PER_MM // LONGEST_SIDE))

    @property
    def units_per_mm(self) -> float:
        return POINTS_PER_MM / self.points_per_unit

    def to_page(self) -> str:
        """The operator that turns 1/100 mm into the page's units."""
        scale = decimal(self.units_per_mm / 100)
        return f"{scale} 0 0 {scale} 0 0 cm"

    def to_art(self) -> str:
        """The operator that turns the map's 1/100 px, y downward, into 1/100 mm."""
        scale = decimal(100 * self.width_mm / (self.width_px * UNITS_PER_PX))
        left, top = decimal(100 * self.margin_mm), decimal(100 * (self.margin_mm + self.height_mm))
        return f"{scale} 0 0 -{scale} {left} {top} cm"

    def box(self, inset_mm: float) -> Array:
        """The page less `inset_mm` on each side, in the page's units."""
        right_mm, top_mm = (side_mm - inset_mm for side_mm in self.page_mm)
        return Array([_real(self.units_per_mm * mm) for mm in (inset_mm, inset_mm, right_mm, top_mm)])


def write_pdf(drawing: Drawing, palette: Palette, *, width_mm: float, title: str) -> bytes:
    """`drawing` on one page of its own size, each ink a Separation colour space and a layer, named by `spot_names`.

    Shapes keep their order. An ink that is painted again later paints into its one layer. The layers are listed from
    the top down, each where its ink is first painted.

    Args:
        drawing: its tracing is what is written.
        palette: the inks that the tracing's shapes name.
        width_mm: width of the art, above 0; the height follows the map's aspect.
        title: in the document's information.

    Raises:
        ValueError: the title or an ink's name is no Unicode text, or a name holds U+0000.
    """
    sheet = _Sheet(drawing.width_px, drawing.height_px, width_mm)
    shapes, names = drawing.tracing.shapes, spot_names(palette)
    content = [sheet.to_page(), sheet.to_art()]
    for ink, run in groupby(shapes, key=lambda shape: shape.ink):
        content += [f"/OC /L{ink} BDC", *_painted(ink, run), "EMC"]
    pdf = Pdf.new()
    inks = dict.fromkeys(shape.ink for shape in shapes)
    layers = {ink: pdf.make_indirect(Dictionary(Type=Name.OCG, Name=_text(names[ink]))) for ink in inks}
    listed = list(layers.values())
    pdf.Root.OCProperties = Dictionary(OCGs=Array(listed), D=Dictionary(Order=Array(listed[::-1])))
    resources = Dictionary(
        ColorSpace=Dictionary({f"/S{ink}": _separation(names[ink], palette.inks[ink].rgb) for ink in inks}),
        Properties=Dictionary({f"/L{ink}": layer for ink, layer in layers.items()}),
    )
    return _saved(pdf, sheet, resources, content, title)


def write_separations(
    shapes_of_ink: Mapping[int, Sequence[Shape]],
    palette: Palette,
    width_px: int,
    height_px: int,
    *,
    width_mm: float,
    registration_marks: bool,
    title: str,
) -> dict[int, bytes]:
    """One PDF for each ink of `shapes_of_ink`, with that ink as its only spot colour, named by `spot_names`.

    With registration marks the page is `MARGIN_MM` larger on each side, its TrimBox is the art, and around that, in the
    colour space that prints on every plate, are crop marks, a registration mark at each side's middle and the ink's
    name (its hex value alone, where Courier lacks the letters).

    Args:
        shapes_of_ink: what each palette index prints; all shapes of one mapping entry are printed in that ink.
        palette: the inks.
        width_px, height_px: of the map.
        width_mm: width of the art, above 0; the height follows the map's aspect.
        registration_marks: whether to draw the marks.
        title: in each document's information.

    Raises:
        ValueError: as for `write_pdf`.
    """
    sheet = _Sheet(width_px, height_px, width_mm, MARGIN_MM if registration_marks else 0.0)
    names = spot_names(palette)
    plates = {}
    for number, shapes in shapes_of_ink.items():
        ink = palette.inks[number]
        resources = Dictionary(ColorSpace=Dictionary({f"/S{number}": _separation(names[number], ink.rgb)}))
        content = [sheet.to_page()]
        if registration_marks:
            resources.ColorSpace.All = _separation("All", (0, 0, 0))
            resources.Font = Dictionary(F=_courier())
            content += ["/All CS 1 SCN /All cs 1 scn", *_marks(sheet), _label(ink, sheet)]
        content += [sheet.to_art(), *_painted(number, shapes)]
        plates[number] = _saved(Pdf.new(), sheet, resources, content, title)
    return plates


def _painted(ink: int, shapes: Iterable[Shape]) -> list[str]:
    return [f"/S{ink} cs 1 scn", *(f"{path_operators(shape)}f" for shape in shapes)]


def _separation(name: str, rgb: tuple[int, int, int]) -> Array:
    """A colour space whose tint goes from white to `rgb` (sRGB, 0 to 255 each)."""
    full = Array([_real(channel / 255) for channel in rgb])
    tint = Dictionary(FunctionType=2, Domain=[0, 1], C0=[1, 1, 1], C1=full, N=1)
    return Array([Name.Separation, Name(f"/{name}"), Name.DeviceRGB, tint])


def _marks(sheet: _Sheet) -> list[str]:
    """Crop marks and registration marks, stroked, in 1/100 mm."""
    low, (right, top) = sheet.margin_mm, (side_mm - sheet.margin_mm for side_mm in sheet.page_mm)
    marks = [f"{_hundredths(MARK_LINE_MM)} w"]
    for x, outward_x in ((low, -1), (right, 1)):
        for y, outward_y in ((low, -1), (top, 1)):
            near, far = CROP_GAP_MM, CROP_GAP_MM + CROP_LENGTH_MM
            marks.append(_line((x + near * outward_x, y), (x + far * outward_x, y)))
            marks.append(_line((x, y + near * outward_y), (x, y + far * outward_y)))
    middle_x, middle_y = (low + right) / 2, (low + top) / 2
    for x, y in ((middle_x, low - MARK_OFFSET_MM), (middle_x, top + MARK_OFFSET_MM)):
        marks += _registration_mark(x, y)
    for x, y in ((low - MARK_OFFSET_MM, middle_y), (right + MARK_OFFSET_MM, middle_y)):
        marks += _registration_mark(x, y)
    return marks


def _registration_mark(x_mm: float, y_mm: float) -> list[str]:
    x, y, radius = _hundredths(x_mm), _hundredths(y_mm), _hundredths(MARK_RADIUS_MM)
    half = [(radius, radius), (0, 0)]
    circle = np.array([(x - radius, y), *half, (x + radius, y), *half, (x - radius, y)], dtype=np.int32)
    return [
        _line((x_mm - MARK_ARM_MM, y_mm), (x_mm + MARK_ARM_MM, y_mm)),
        _line((x_mm, y_mm - MARK_ARM_MM), (x_mm, y_mm + MARK_ARM_MM)),
        f"{path_operators(Shape(0, 'MAAZ', circle))}S",
    ]


def _line(start_mm: tuple[float, float], end_mm: tuple[float, float]) -> str:
    x0, y0, x1, y1 = (_hundredths(mm) for mm in (*start_mm, *end_mm))
    return f"{x0} {y0} m {x1} {y1} l S"


def _label(ink: Ink, sheet: _Sheet) -> str:
    """The ink's name and hex value along the page's lower edge, small enough to fit."""
    text = f"{ink.name} {ink.hex}" if ink.name != ink.hex else ink.hex
    try:
        codes = text.encode("cp1252")
    except UnicodeEncodeError:
        codes = ink.hex.encode()
    room_mm = sheet.page_mm[0] - 2 * LABEL_INSET_MM
    size = decimal(100 * min(LABEL_MM, room_mm / (COURIER_ADVANCE * len(codes))))
    inset = _hundredths(LABEL_INSET_MM)
    return f"BT /F {size} Tf {inset} {inset} Td <{codes.hex()}> Tj ET"


def _courier() -> Dictionary:
    return Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Courier, Encoding=Name.WinAnsiEncoding)


def _saved(pdf: Pdf, sheet: _Sheet, resources: Dictionary, content: list[str], title: str) -> bytes:
    """The file of one page."""
    page = Dictionary(
        Type=Name.Page,
        MediaBox=sheet.box(0.0),
        TrimBox=sheet.box(sheet.margin_mm),
        Resources=resources,
        Contents=pdf.make_stream("\n".join(content).encode("ascii")),
    )
    if sheet.points_per_unit > 1:
        page.UserUnit = sheet.points_per_unit
    pdf.pages.append(Page(pdf.make_indirect(page)))
    pdf.docinfo.Title = _text(title)
    file = io.BytesIO()
    pdf.save(file, force_version=VERSION, object_stream_mode=ObjectStreamMode.generate, deterministic_id=True)
    return file.getvalue()


def _text(text: str) -> String:
    text.encode()  # half a surrogate pair is refused here, as a ValueError
    return String(text)


def _hundredths(mm: float) -> int:
    return round(100 * mm)


def _real(value: float) -> Object:
    return Object.parse(decimal(value).encode())
