"""Shapes as SVG text: the palette's own hex values, one group for each layer of ink, the fewest digits.

The text is a subset of SVG 1.1 (no style, no reference, no script) that `audit_svg` checks word for word. Groups carry
Inkscape's layer attributes, so an editor or a cutter lists one layer for each group. A circle that stands alone is
written as a circle and an ellipse as an ellipse, which an editor keeps as such.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal

import numpy as np

from pipeline.compiled import inlined, kernel
from pipeline.export.layers import Layer, ink_layers
from pipeline.types import I32, U8, Certificate, Palette, Shape

SVG_NS = "http://www.w3.org/2000/svg"
INKSCAPE_NS = "http://www.inkscape.org/namespaces/inkscape"
CERTIFICATE_NS = "urn:livery:certificate:1"
PRIMITIVES = ("circles", "ellipses", "arcs", "lines")
SLUG_CHARS = 40

LONGEST_NUMBER = 13
"""Characters: a space, a sign, eight digits, a point and two more."""

RIGHT_ANGLE = 9000
"""In 1/100 degree."""

M, L, C, A, Z = (ord(letter) for letter in "MLCAZ")

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {
    ord(char): f"&#{ord(char)};" if char in "\t\n\r" else entity
    for char, entity in {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "", "\n": "", "\r": ""}.items()
}


def write_svg(
    shapes: Sequence[Shape],
    palette: Palette,
    width_px: int,
    height_px: int,
    *,
    title: str,
    certificate: Certificate | None = None,
) -> str:
    """`shapes`, given in painter's order, as an SVG of `width_px` × `height_px` user units.

    Fills are `palette.inks[shape.ink].hex`. Shapes are regrouped where that changes nothing in the picture. The same
    shapes always give the same text.

    Args:
        shapes: outlines in 1/100 px; a shape that is nothing but the halves of one circle or ellipse becomes
            `<circle>` or `<ellipse>`, all others are `<path>`.
        palette: the inks that `shapes` name.
        width_px, height_px: of the index map.
        title: the text of `<title>`.
        certificate: stated in `<metadata>` behind the title, where there is one.

    Raises:
        ValueError: the title or a used ink's name holds a character that XML has no way to write.
    """
    ids: set[str] = set()
    groups = [_group(layer, palette, ids) for layer in ink_layers(shapes)]
    root = (
        f'<svg xmlns="{SVG_NS}" xmlns:inkscape="{INKSCAPE_NS}" viewBox="0 0 {width_px} {height_px}"'
        f' width="{width_px}" height="{height_px}">'
    )
    stated = [] if certificate is None else [_metadata(certificate)]
    return "\n".join([root, f"<title>{escape(title)}</title>", *stated, *groups, "</svg>\n"])


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


def rounded_down(share_pct: float, decimals: int) -> str:
    """An agreement in per cent as text, never more than it is: 100.00 means every pixel."""
    return f"{Decimal(str(share_pct)).quantize(Decimal(1).scaleb(-decimals), ROUND_DOWN):f}"


def _metadata(certificate: Certificate) -> str:
    """The certificate in its own namespace."""
    stated = {
        "xmlns:livery": CERTIFICATE_NS,
        "tolerance_px": _decimal(round(1000 * certificate.tolerance_px)),
        "agreement_pct": rounded_down(certificate.agreement_pct, 2),
        "nodes": f"{certificate.nodes}",
        "paths": f"{certificate.paths}",
        **{kind: f"{certificate.primitives[kind]}" for kind in PRIMITIVES if kind in certificate.primitives},
    }
    if certificate.min_feature_px is not None:
        stated["min_feature_px"] = _decimal(round(1000 * certificate.min_feature_px))
    attributes = " ".join(f'{name}="{value}"' for name, value in stated.items())
    return f"<metadata><livery:certificate {attributes}/></metadata>"


def _decimal(thousandths: int) -> str:
    """The shortest decimal: 50 → ".05", -1500 → "-1.5", 12000 → "12"."""
    whole, part = divmod(abs(thousandths), 1000)
    sign = "-" if thousandths < 0 else ""
    if part == 0:
        return f"{sign}{whole}"
    digits = f"{part:03}".rstrip("0")
    return f"{sign}{whole}.{digits}" if whole > 0 else f"{sign}.{digits}"


def _group(layer: Layer, palette: Palette, ids: set[str]) -> str:
    ink = palette.inks[layer.ink]
    name = escape(ink.name)
    drawn = "\n".join(_element(shape) for shape in layer.shapes)
    return (
        f'<g id="{_new_id(f"ink-{slug(ink.name, ink.hex[1:].lower())}", ids)}" data-ink="{name}"'
        f' inkscape:groupmode="layer" inkscape:label="{name}" fill="{ink.hex}">\n{drawn}\n</g>'
    )


def _new_id(wanted: str, ids: set[str]) -> str:
    """`wanted`, or with the first number from 2 that makes it new; noted in `ids`."""
    found, number = wanted, 1
    while found in ids:
        number += 1
        found = f"{wanted}-{number}"
    ids.add(found)
    return found


def _element(shape: Shape) -> str:
    oval = _oval(shape.points) if shape.commands == "MAAZ" else None
    return f'<path d="{path_data(shape)}"/>' if oval is None else oval


def _oval(points: I32) -> str | None:
    """Two arcs as `<circle>` or `<ellipse>`; None where they are not the halves of one.

    They are if they differ in nothing, come back to their start, and their radii reach no further than half their
    chord: then SVG enlarges the radii to fit (SVG 1.1, F.6.6), and the centre is the chord's middle, which 1/200 px
    hold exactly. Radii are given in 1/1000 px: an error of 1/200 px would show in an enlargement's anti-aliasing.

    Args:
        points: int32 [7, 2], of `MAAZ`, as in `Shape`.
    """
    (x0, y0), (rx, ry), (turn, flags), (x1, y1), *second = points.tolist()
    if second != [[rx, ry], [turn, flags], [x0, y0]] or min(rx, ry) <= 0:
        return None
    dx, dy = x1 - x0, y1 - y0
    centre = _decimal(5 * (x0 + x1)), _decimal(5 * (y0 + y1))
    if rx != ry:
        return _ellipse(centre, dx, dy, rx, ry, turn)
    squared = dx * dx + dy * dy
    if squared < 4 * rx * rx:
        return None
    radius = _decimal((math.isqrt(100 * squared) + 1) // 2)
    return f'<circle cx="{centre[0]}" cy="{centre[1]}" r="{radius}"/>'


def _ellipse(centre: tuple[str, str], dx: int, dy: int, rx: int, ry: int, turn: int) -> str | None:
    """`<ellipse>` across the chord (dx, dy), turned by 45° at most; None where its radii reach beyond half of it."""
    quarters = round(turn / RIGHT_ANGLE)
    turn -= quarters * RIGHT_ANGLE
    if quarters % 2 == 1:
        rx, ry = ry, rx
    angle = math.radians(turn / 100)
    cos, sin = math.cos(angle), math.sin(angle)
    reach = math.hypot((dx * cos + dy * sin) / rx, (dy * cos - dx * sin) / ry) / 2
    if reach < 1:
        return None
    cx, cy = centre
    radii = f'rx="{_decimal(round(10 * rx * reach))}" ry="{_decimal(round(10 * ry * reach))}"'
    turned = f' transform="rotate({_decimal(10 * turn)} {cx} {cy})"' if turn != 0 else ""
    return f'<ellipse cx="{cx}" cy="{cy}" {radii}{turned}/>'


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
def _digits(text: U8, at: int, value: int) -> int:
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
def _number(text: U8, at: int, hundredths: int) -> int:
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
def _write_path(commands: U8, points: I32, text: U8) -> int:
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
        takes = 3 if command in (C, A) else 1
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
