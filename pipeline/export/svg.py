"""Shapes as SVG text: the palette's own hex values, one group for each layer of ink, the fewest digits.

The text is a subset of SVG 1.1 (no style, no reference, no script) that `audit_svg` checks word for word. Groups carry
Inkscape's layer attributes, so an editor or a cutter lists one layer for each group.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.export.layers import Layer, ink_layers
from pipeline.types import POINTS_OF, UNITS_PER_PX, Palette, Shape

I32 = npt.NDArray[np.int32]

SVG_NS = "http://www.w3.org/2000/svg"
INKSCAPE_NS = "http://www.inkscape.org/namespaces/inkscape"
SLUG_CHARS = 40

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {
    ord(char): f"&#{ord(char)};" if char in "\t\n\r" else entity
    for char, entity in {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "", "\n": "", "\r": ""}.items()
}


def write_svg(shapes: Sequence[Shape], palette: Palette, width_px: int, height_px: int, *, title: str) -> str:
    """`shapes`, given in painter's order, as an SVG of `width_px` × `height_px` user units.

    Fills are `palette.inks[shape.ink].hex`. Shapes are regrouped where that changes nothing in the picture. The same
    shapes always give the same text.

    Raises:
        ValueError: the title or a used ink's name holds a character that XML has no way to write.
    """
    ids: set[str] = set()
    groups = [_group(layer, palette, ids) for layer in ink_layers(shapes)]
    root = (
        f'<svg xmlns="{SVG_NS}" xmlns:inkscape="{INKSCAPE_NS}" viewBox="0 0 {width_px} {height_px}"'
        f' width="{width_px}" height="{height_px}">'
    )
    return "\n".join([root, f"<title>{escape(title)}</title>", *groups, "</svg>\n"])


def escape(text: str) -> str:
    """`text` for an element or a quoted attribute; an XML parser gives back the same string.

    Raises:
        ValueError: `text` holds a control character, half a surrogate pair or a noncharacter that XML 1.0 excludes.
    """
    if found := _NOT_XML.search(text):
        raise ValueError(f"XML has no way to write U+{ord(found[0]):04X}")
    return text.translate(_ESCAPES)


def slug(name: str, otherwise: str) -> str:
    """`name` as lower-case ASCII words joined by hyphens, at most `SLUG_CHARS` long; `otherwise` where none is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub("[^a-z0-9]+", "-", plain).strip("-")[:SLUG_CHARS].strip("-")
    return words if words else otherwise


def _group(layer: Layer, palette: Palette, ids: set[str]) -> str:
    ink = palette.inks[layer.ink]
    name = escape(ink.name)
    paths = "\n".join(f'<path d="{path_data(shape)}"/>' for shape in layer.shapes)
    return (
        f'<g id="{_new_id(f"ink-{slug(ink.name, ink.hex[1:].lower())}", ids)}" data-ink="{name}"'
        f' inkscape:groupmode="layer" inkscape:label="{name}" fill="{ink.hex}">\n{paths}\n</g>'
    )


def _new_id(wanted: str, ids: set[str]) -> str:
    """`wanted`, or with the first number from 2 that makes it new; noted in `ids`."""
    found, number = wanted, 1
    while found in ids:
        number += 1
        found = f"{wanted}-{number}"
    ids.add(found)
    return found


def path_data(shape: Shape) -> str:
    """The `d` attribute: absolute starts, relative steps, one number for a horizontal or vertical line.

    A letter is left out where it repeats the one before, and so is the space before a minus sign.
    """
    numbers = list(map(_number, _steps(shape).ravel().tolist()))
    words: list[str] = []
    at = 0
    previous = ""
    for command in shape.commands:
        letter, first, last = command.lower(), at, at + 2 * POINTS_OF[command]
        if command == "M":
            letter = "M"
        elif command == "L" and numbers[first] == "0":
            letter, first = "v", first + 1
        elif command == "L" and numbers[first + 1] == "0":
            letter, last = "h", last - 1
        words.append(" " if letter == previous else letter)
        words.append(" ".join(numbers[first:last]))
        at += 2 * POINTS_OF[command]
        previous = letter
    return "".join(words).replace(" -", "-")


def _steps(shape: Shape) -> I32:
    """Each point from the end of the command before its own, starts as they are; int32 [N, 2] in 1/100 px."""
    takes = np.array([POINTS_OF[command] for command in shape.commands])
    ends = np.cumsum(takes)
    before = np.repeat(ends - takes - 1, takes)
    starts = np.repeat(np.array([command == "M" for command in shape.commands]), takes)
    return np.asarray(shape.points - np.where(starts[:, None], 0, shape.points[before]), np.int32)


@lru_cache(maxsize=2**15)
def _number(hundredths: int) -> str:
    """The shortest decimal: 5 → ".05", -150 → "-1.5", 1200 → "12"."""
    whole, part = divmod(abs(hundredths), UNITS_PER_PX)
    digits = f"{part:02d}".rstrip("0")
    sign = "-" if hundredths < 0 else ""
    return f"{sign}{whole if whole or not digits else ''}{'.' if digits else ''}{digits}"
