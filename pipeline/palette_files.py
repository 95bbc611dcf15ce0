"""Palette files, for the command line: GIMP, Adobe, CSV, JSON and plain hex lists.

Sources: Adobe Photoshop File Formats Specification (.aco). For .ase there is no published specification; the layout is
what Adobe's programs write. Process colours are converted without a profile: CMYK as (1 − c)(1 − k), grey and HSB as
sRGB values. L*a*b* is relative to D50 as in ICC profiles, and is clipped to the sRGB gamut channel by channel.
"""

from __future__ import annotations

import colorsys
import csv
import json
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PureWindowsPath

from pipeline.colour import ENCODED
from pipeline.errors import PaletteError
from pipeline.palette import build_palette, kind_of, listed_inks, make_ink, parse_hex, printable, quoted
from pipeline.types import Ink, Palette

MAX_FILE_BYTES = 1 << 20

_Inks = Iterator[tuple[str, Ink]]
_GPL_COLOUR = re.compile(r"\s*([0-9]{1,3})\s+([0-9]{1,3})\s+([0-9]{1,3})(?:\s+(.*))?\Z")
_GPL_NOTE = re.compile(r"\s*(#.*|(Name|Columns):.*)?\Z")
_GPL_UNNAMED = "Untitled"  # what GIMP writes for a colour without a name
_DECIMAL = re.compile(r"[0-9]{1,3}\Z")
_CSV_COLUMNS = {
    "hex": "hex",
    "name": "name",
    "r": "r",
    "red": "r",
    "g": "g",
    "green": "g",
    "b": "b",
    "blue": "b",
}
_ASE_GROUP_START, _ASE_GROUP_END, _ASE_COLOUR = 0xC001, 0xC002, 0x0001
_ASE_MODELS = {b"RGB ": ("RGB", 3), b"CMYK": ("CMYK", 4), b"LAB ": ("Lab", 3), b"Gray": ("Gray", 1)}
# Writers round to float32 a little beyond the ends of the range.
_FLOAT_SLACK = 1e-4


def read_palette_file(data: bytes, filename: str) -> Palette:
    """Read a palette file.

    Args:
        data: the file's bytes, at most 1 MiB.
        filename: its name or path. The suffix names the format: `.gpl` (GIMP), `.ase` and `.aco` (Adobe; RGB, CMYK,
            grey, L*a*b*, in .aco also HSB), `.csv` (hex[,name] or r,g,b[,name], also with `;` or tabs, with or without
            a header), `.json` (a list as in the request, or an object with it under `colors` or `palette`), `.txt` and
            `.hex` (one hex colour a line). Of a path only the last part is ever shown.

    Returns:
        The colours in the file's order. Groups are flattened.

    Raises:
        PaletteError: the file is damaged, of another format, or not 2 to 64 distinct colours. In place of a request
            field, `field` is the place in the file, such as ``brand.gpl line 7`` or ``brand.ase colour 3``.
    """
    path = PureWindowsPath(filename)  # takes both kinds of slash
    base = printable(path.name)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise PaletteError(f"{quoted(path.suffix)} is not a palette format Livery reads ({known})", field=base)
    if len(data) > MAX_FILE_BYTES:
        raise PaletteError(f"is larger than {MAX_FILE_BYTES} bytes", field=base)
    return build_palette(reader(data, base), field=base)


def _decoded(data: bytes, base: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PaletteError("is not UTF-8 text", field=base) from None


def _lines(data: bytes, base: str) -> list[tuple[str, str]]:
    """The file's lines with their places. Unlike str.splitlines, only CR and LF end a line."""
    text = _decoded(data, base).replace("\r\n", "\n").replace("\r", "\n")
    return [(f"{base} line {number}", line) for number, line in enumerate(text.split("\n"), start=1)]


def _hex_list(data: bytes, base: str) -> _Inks:
    for place, line in _lines(data, base):
        if line.strip() != "":
            yield place, make_ink(parse_hex(line, place), "", place)


def _gimp(data: bytes, base: str) -> _Inks:
    (place, magic), *rest = _lines(data, base)
    if magic.strip() != "GIMP Palette":
        raise PaletteError('does not begin with "GIMP Palette"', field=place)
    for place, line in rest:
        colour = _GPL_COLOUR.match(line)
        if colour is not None:
            name = "" if colour[4] in {None, _GPL_UNNAMED} else colour[4]
            yield place, make_ink(_hex_of_decimals(colour.group(1, 2, 3), place), name, place)
        elif _GPL_NOTE.match(line) is None:
            raise PaletteError(f"{quoted(line)} is not a colour", field=place)


def _hex_of_decimals(cells: tuple[str, ...], place: str) -> str:
    for cell in cells:
        if _DECIMAL.match(cell) is None or int(cell) > 255:
            raise PaletteError(f"{quoted(cell)} is not a whole number from 0 to 255", field=place)
    return _hex(*(int(cell) for cell in cells))


def _hex(r: int, g: int, b: int) -> str:
    return f"#{r:02X}{g:02X}{b:02X}"


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a CSV row holds the parts of a colour (`hex`, `r`, `g`, `b`, `name`), and how many cells it may have."""

    columns: dict[str, int]
    width: int


def _csv(data: bytes, base: str) -> _Inks:
    rows = list(_csv_rows([line for _, line in _lines(data, base)], base))
    header = _csv_header(rows[0][1]) if rows else None
    for place, cells in rows if header is None else rows[1:]:
        yield place, _csv_ink(cells, _csv_layout(cells) if header is None else header, place)


def _csv_rows(lines: list[str], base: str) -> Iterator[tuple[str, list[str]]]:
    """The rows that hold anything, with their places; cells trimmed, the empty ones at the end dropped."""
    first = next((line for line in lines if line.strip() != ""), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            while cells and cells[-1] == "":
                cells.pop()
            if cells:
                yield f"{base} line {reader.line_num}", cells
    except csv.Error:
        raise PaletteError("is not well-formed CSV", field=f"{base} line {reader.line_num}") from None


def _csv_header(cells: list[str]) -> _Layout | None:
    """The layout that a header row names, or None where the row is a colour already. Columns beside it are not read."""
    columns = {_CSV_COLUMNS[cell.lower()]: i for i, cell in enumerate(cells) if cell.lower() in _CSV_COLUMNS}
    # "red" alone may be the name of a colour.
    if "hex" in columns or columns.keys() >= {"r", "g", "b"}:
        return _Layout(columns, len(cells))
    return None


def _csv_layout(cells: list[str]) -> _Layout:
    """The layout of a row without a header: r, g, b where three decimals stand in front, else hex."""
    if len(cells) >= 3 and all(_DECIMAL.match(cell) for cell in cells[:3]):
        return _Layout({"r": 0, "g": 1, "b": 2, "name": 3}, 4)
    return _Layout({"hex": 0, "name": 1}, 2)


def _csv_ink(cells: list[str], layout: _Layout, place: str) -> Ink:
    if len(cells) > layout.width:
        raise PaletteError(f"has {len(cells)} cells; a name that holds the separator needs quotes", field=place)
    parts = {part: cells[i] if i < len(cells) else "" for part, i in layout.columns.items()}
    if "hex" in parts:
        colour = parse_hex(parts["hex"], place)
    else:
        colour = _hex_of_decimals((parts["r"], parts["g"], parts["b"]), place)
    return make_ink(colour, parts.get("name", ""), place)


def _json(data: bytes, base: str) -> _Inks:
    text = _decoded(data, base)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise PaletteError("is not JSON", field=base) from None
    if isinstance(value, dict):
        keys = [key for key in ("colors", "palette") if key in value]
        if len(keys) != 1:
            raise PaletteError('must have its colours under one of "colors" and "palette"', field=base)
        base, value = f"{base} {keys[0]}", value[keys[0]]
    if not isinstance(value, list):
        raise PaletteError(f"must be a list of colours, not {kind_of(value)}", field=base)
    yield from listed_inks(value, base)


class _Cursor:
    """Reads big-endian values off `data` in turn; running out of it is a PaletteError."""

    def __init__(self, data: bytes, place: str) -> None:
        self._data = data
        self._at = 0
        self.place = place

    @property
    def exhausted(self) -> bool:
        return self._at == len(self._data)

    def take(self, size_bytes: int) -> bytes:
        if size_bytes > len(self._data) - self._at:
            raise PaletteError("is cut short", field=self.place)
        self._at += size_bytes
        return self._data[self._at - size_bytes : self._at]

    def unpack(self, layout: str) -> tuple[float, ...]:
        return struct.unpack(f">{layout}", self.take(struct.calcsize(f">{layout}")))

    def count(self, layout: str) -> int:
        return int(self.unpack(layout)[0])

    def name(self, units: int) -> str:
        """UTF-16 text of `units` code units, without the zero at its end. Lone surrogates are left to `make_ink`."""
        return self.take(2 * units).decode("utf-16-be", "surrogatepass").rstrip("\0")


def _adobe_exchange(data: bytes, base: str) -> _Inks:
    cursor = _Cursor(data, base)
    if cursor.take(4) != b"ASEF":
        raise PaletteError("is not an Adobe Swatch Exchange file", field=base)
    if cursor.unpack("HH") != (1, 0):
        raise PaletteError("has a version other than 1.0", field=base)
    number = 0
    for _ in range(cursor.count("I")):
        kind, size_bytes = cursor.count("H"), cursor.count("I")
        body = cursor.take(size_bytes)
        if kind == _ASE_COLOUR:
            number += 1
            place = f"{base} colour {number}"
            yield place, _exchange_ink(_Cursor(body, place))
        elif kind not in {_ASE_GROUP_START, _ASE_GROUP_END}:
            raise PaletteError(f"has a block of the unknown kind {kind:#06x}", field=base)


def _exchange_ink(block: _Cursor) -> Ink:
    name = block.name(block.count("H"))
    written = block.take(4)
    if written not in _ASE_MODELS:
        raise PaletteError(f"has the unknown colour model {quoted(written.decode('latin-1'))}", field=block.place)
    model, channels = _ASE_MODELS[written]
    return make_ink(_hex_of_model(model, block.unpack(f"{channels}f"), block.place), name, block.place)


def _adobe_colour(data: bytes, base: str) -> _Inks:
    """Version 1 has no names; version 2, where it follows, repeats all colours with names and replaces it."""
    cursor = _Cursor(data, base)
    version = cursor.count("H")
    colours = list(_colour_section(cursor, version, base))
    if version == 1 and not cursor.exhausted:
        version = cursor.count("H")
        if version != 2:
            raise PaletteError("has something other than version 2 after version 1", field=base)
        colours = list(_colour_section(cursor, version, base))
    yield from colours


def _colour_section(cursor: _Cursor, version: int, base: str) -> _Inks:
    if version not in {1, 2}:
        raise PaletteError("is not an Adobe Color file of version 1 or 2", field=base)
    for number in range(1, cursor.count("H") + 1):
        cursor.place = place = f"{base} colour {number}"
        space = cursor.count("H")
        hex_colour = _hex_of_space(space, cursor.take(8), place)
        name = cursor.name(cursor.count("I")) if version == 2 else ""
        yield place, make_ink(hex_colour, name, place)
    cursor.place = base


def _hex_of_space(space: int, raw: bytes, place: str) -> str:
    """Colour spaces of the .aco format: 0 RGB, 1 HSB, 2 CMYK (65535 is no ink), 7 L*a*b*, 8 grey (10000 is white)."""
    w, x, y, z = struct.unpack(">4H", raw)
    if space == 0:
        # The high byte: right for the writers that repeat the byte and for those that put zero below it.
        return _hex(w >> 8, x >> 8, y >> 8)
    if space == 1:
        return _hex_of_model("HSB", (w / 65535, x / 65535, y / 65535), place)
    if space == 2:
        return _hex_of_model("CMYK", (1 - w / 65535, 1 - x / 65535, 1 - y / 65535, 1 - z / 65535), place)
    if space == 7:
        a, b = struct.unpack(">2h", raw[2:6])
        return _hex_of_model("Lab", (w / 10000, a / 100, b / 100), place)
    if space == 8:
        return _hex_of_model("Gray", (w / 10000,), place)
    raise PaletteError(f"has colour space {space}; RGB, HSB, CMYK, Lab and grey are read", field=place)


def _hex_of_model(model: str, values: tuple[float, ...], place: str) -> str:
    """`#RRGGBB` of one colour. Channels are 0 to 1, but a* and b*, which are −128 to 128. Raises PaletteError."""
    signed = (False, True, True) if model == "Lab" else (False,) * len(values)
    for value, is_signed in zip(values, signed, strict=True):
        low, high = (-128.0, 128.0) if is_signed else (0.0, 1.0)
        if not low - _FLOAT_SLACK <= value <= high + _FLOAT_SLACK:  # NaN fails too
            raise PaletteError(f"has a {model} value outside {low:g} to {high:g}", field=place)
    if model == "Lab":
        return _hex_of_lab(100.0 * values[0], values[1], values[2])
    unit = tuple(min(max(value, 0.0), 1.0) for value in values)
    if model == "HSB":
        unit = colorsys.hsv_to_rgb(*unit)
    elif model == "CMYK":
        unit = tuple((1.0 - ink) * (1.0 - unit[3]) for ink in unit[:3])
    elif model == "Gray":
        unit = unit * 3
    return _hex(*(math.floor(255.0 * value + 0.5) for value in unit))


def _hex_of_lab(lightness: float, a: float, b: float) -> str:
    """Hex sRGB of L*a*b* relative to D50, adapted to D65 by Bradford's transform (ICC.1:2022, IEC 61966-2-1)."""
    fy = (lightness + 16.0) / 116.0
    x, y, z = (
        white * (f * f * f if f > 6.0 / 29.0 else (f - 16.0 / 116.0) * (108.0 / 841.0))
        for white, f in ((0.96422, fy + a / 500.0), (1.0, fy), (0.82521, fy - b / 200.0))
    )
    linear = (
        3.1338561 * x - 1.6168667 * y - 0.4906146 * z,
        -0.9787684 * x + 1.9161415 * y + 0.0334540 * z,
        0.0719453 * x - 0.2289914 * y + 1.4052427 * z,
    )
    return _hex(*(int(ENCODED[math.floor(65535.0 * min(max(value, 0.0), 1.0) + 0.5)]) for value in linear))


_READERS: dict[str, Callable[[bytes, str], _Inks]] = {
    ".gpl": _gimp,
    ".ase": _adobe_exchange,
    ".aco": _adobe_colour,
    ".csv": _csv,
    ".json": _json,
    ".txt": _hex_list,
    ".hex": _hex_list,
}
