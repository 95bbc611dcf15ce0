"""Shapes as SVG text: the palette's own hex values, one group for each layer of ink, the fewest digits.

The text is a subset of SVG 1.1 (no style, no reference, no script) that `audit_svg` checks word for word. Groups carry
Inkscape's layer attributes, so an editor or a cutter lists one layer for each group.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from pipeline.compiled import inlined, kernel
from pipeline.export.layers import Layer, ink_layers
from pipeline.types import Palette, Shape

SVG_NS = "http://www.w3.org/2000/svg"
INKSCAPE_NS = "http://www.inkscape.org/namespaces/inkscape"
SLUG_CHARS = 40

LONGEST_NUMBER = 13
"""Characters: a space, a sign, eight digits, a point and two more."""

M, L, C, A, Z = (ord(letter) for letter in "MLCAZ")

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
    """The `d` attribute: relative steps, the fewest digits, one number for a horizontal or vertical line.

    A letter is left out where it repeats the one before (L where it follows M), and so is the space before a minus sign
    or before a point that can't belong to the number it follows.
    """
    commands = np.frombuffer(shape.commands.encode(), dtype=np.uint8)
    text = np.empty(len(commands) + LONGEST_NUMBER * 2 * len(shape.points), dtype=np.uint8)
    written = _write_path(commands, shape.points, text)
    return text[:written].tobytes().decode()


@inlined
def _digits(text, at, value):  # type: ignore[no-untyped-def]
    """Writes the digits of a whole number that is not negative; the place behind them."""
    low = at
    while True:
        text[at] = ord("0") + value % 10
        at += 1
        value //= 10
        if value == 0:
            break
    for i in range((at - low) // 2):
        text[low + i], text[at - 1 - i] = text[at - 1 - i], text[low + i]
    return at


@inlined
def _number(text, at, hundredths):  # type: ignore[no-untyped-def]
    """Writes the shortest decimal (5 → ".05", -150 → "-1.5", 1200 → "12") behind what it needs to stand apart.

    A number needs a space after a number, unless it brings a minus sign, or a point and the one before has its own.
    """
    whole, part = abs(hundredths) // 100, abs(hundredths) % 100
    bare = whole == 0 and part != 0
    before = text[at - 1]
    if hundredths < 0:
        text[at] = ord("-")
        at += 1
    elif ord("0") <= before <= ord("9"):
        pointed, i = False, at - 1
        while ord("0") <= text[i] <= ord("9"):
            i -= 1
        pointed = text[i] == ord(".")
        if not (bare and pointed):
            text[at] = ord(" ")
            at += 1
    if not bare:
        at = _digits(text, at, whole)
    if part:
        text[at], text[at + 1] = ord("."), ord("0") + part // 10
        at += 2
        if part % 10:
            text[at] = ord("0") + part % 10
            at += 1
    return at


@kernel
def _write_path(commands, points, text):  # type: ignore[no-untyped-def]
    """The path data of one shape to `text` (uint8); its length."""
    at, n = 0, 0
    px, py, start_x, start_y = 0, 0, 0, 0
    previous = 0
    for command in commands:
        if command == Z:
            text[at], previous = ord("z"), ord("z")
            at += 1
            px, py = start_x, start_y
            continue
        takes = 3 if command == C or command == A else 1
        qx, qy = points[n + takes - 1, 0], points[n + takes - 1, 1]
        letter = command + 32
        if command == L and qx == px:
            letter = ord("v")
        elif command == L and qy == py:
            letter = ord("h")
        if letter != previous:
            text[at] = letter
            at += 1
        previous = ord("l") if command == M else letter
        if command == C:
            for i in range(2):
                at = _number(text, at, points[n + i, 0] - px)
                at = _number(text, at, points[n + i, 1] - py)
        elif command == A:
            flags = points[n + 1, 1]
            at = _number(text, _number(text, at, points[n, 0]), points[n, 1])
            at = _number(text, at, points[n + 1, 0])
            at = _number(text, _number(text, at, 100 * (flags // 2)), 100 * (flags % 2))
        if letter != ord("v"):
            at = _number(text, at, qx - px)
        if letter != ord("h"):
            at = _number(text, at, qy - py)
        px, py = qx, qy
        if command == M:
            start_x, start_y = px, py
        n += takes
    return at
