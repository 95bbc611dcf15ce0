"""Shapes as Encapsulated PostScript, level 2, each ink a spot colour: for software that takes no newer format."""

from __future__ import annotations

import math
from itertools import groupby

from pipeline.export.curves import decimal, path_operators
from pipeline.export.spots import cut, spot_names
from pipeline.types import UNITS_PER_PX, Drawing, Palette

POINTS_PER_MM = 72 / 25.4

LONGEST_TITLE_BYTES = 200
"""A comment's line holds 255 (Document Structuring Conventions, 3.0)."""

_PROLOG = """%%BeginProlog
16 dict begin
/m {moveto} bind def /l {lineto} bind def /c {curveto} bind def /h {closepath} bind def /f {fill} bind def
/spot {[/Separation 4 -2 roll /DeviceRGB exch] setcolorspace 1 setcolor} bind def
%%EndProlog"""
"""The path operators of PDF, so that both formats write the same outlines; and `name tint spot`."""

_ESCAPES = str.maketrans({char: f"\\{ord(char):03o}" for char in ["(", ")", "\\", *map(chr, range(32)), "\x7f"]})


def write_eps(drawing: Drawing, palette: Palette, *, width_mm: float, title: str) -> bytes:
    """`drawing` as EPSF-3.0, each ink a Separation colour space named by `spot_names`, in UTF-8.

    Args:
        drawing: its tracing is what is written, in its order.
        palette: the inks that the tracing's shapes name.
        width_mm: of the art, above 0; the height follows the map's aspect.
        title: in the `%%Title` comment, as far as the line holds it.

    Raises:
        ValueError: the title or an ink's name is no Unicode text, or a name holds U+0000.
    """
    shapes, names = drawing.tracing.shapes, [_string(name) for name in spot_names(palette)]
    inks = dict.fromkeys(shape.ink for shape in shapes)
    scale = width_mm * POINTS_PER_MM / (drawing.width_px * UNITS_PER_PX)
    width_pt, height_pt = (side_px * UNITS_PER_PX * scale for side_px in (drawing.width_px, drawing.height_px))
    lines = [
        *_header(width_pt, height_pt, title),
        *(f"%%{'+' if at else 'DocumentCustomColors:'} {names[ink]}" for at, ink in enumerate(inks)),
        *(f"%%{'+' if at else 'RGBCustomColor:'} {_rgb(palette, ink)} {names[ink]}" for at, ink in enumerate(inks)),
        "%%EndComments",
        _PROLOG,
        *(f"/S{ink} {{{names[ink]}\n{_tint(palette, ink)} spot}} bind def" for ink in inks),
        f"0 {decimal(height_pt)} translate {decimal(scale)} {decimal(-scale)} scale",
    ]
    for ink, run in groupby(shapes, key=lambda shape: shape.ink):
        lines += [f"S{ink}", *(f"{path_operators(shape)}f" for shape in run)]
    return "\n".join([*lines, "end", "showpage", "%%EOF", ""]).encode()


def _header(width_pt: float, height_pt: float, title: str) -> list[str]:
    return [
        "%!PS-Adobe-3.0 EPSF-3.0",
        f"%%BoundingBox: 0 0 {math.ceil(width_pt)} {math.ceil(height_pt)}",
        f"%%HiResBoundingBox: 0 0 {decimal(width_pt)} {decimal(height_pt)}",
        f"%%Title: {_string(cut(title, LONGEST_TITLE_BYTES))}",
        "%%LanguageLevel: 2",
        "%%DocumentData: Clean8Bit",
    ]


def _rgb(palette: Palette, ink: int) -> str:
    return " ".join(f"{decimal(channel / 255)}" for channel in palette.inks[ink].rgb)


def _tint(palette: Palette, ink: int) -> str:
    """The procedure that turns a tint into red, green and blue, from white to the ink: 1 − tint × (1 − channel)."""
    red, green, blue = (f"{decimal(1 - channel / 255)} mul 1 exch sub" for channel in palette.inks[ink].rgb)
    return f"{{dup {red} exch dup {green} exch {blue}}}"


def _string(text: str) -> str:
    return f"({text.translate(_ESCAPES)})"
