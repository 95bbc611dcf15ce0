"""Palettes: reading the request's `palette`, and taking one from a photo.

A palette is 2 to 64 distinct inks. Nothing here ever puts a default in place of a palette that can't be read: each
fault is a PaletteError that names the element. Palette files are read in palette_files.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from pipeline.colour import srgb_to_lab
from pipeline.compiled import inlined, kernel
from pipeline.errors import PaletteError
from pipeline.types import F32, F64, MAX_INKS, MIN_INKS, U8, Ink, Palette

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

MAX_NAME_CHARS = 80
MAX_TEXT_CHARS = 4096
_MAX_ECHO_CHARS = 40
_HEX_PATTERN = "^#?([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$"
_HEX = re.compile(_HEX_PATTERN.removesuffix("$") + r"\Z")
_HEX_WITH_ALPHA = re.compile(r"#?([0-9A-Fa-f]{4}|[0-9A-Fa-f]{8})\Z")
_SEPARATORS = re.compile(r"[\s,;-]+")
_COOLORS_HOSTS = ("coolors.co", "www.coolors.co")
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}

DEFAULT_PALETTE = Palette(
    (
        Ink("#0B0D10", "Ink black"),
        Ink("#23272E", "Graphite"),
        Ink("#474E57", "Slate"),
        Ink("#7A838C", "Steel"),
        Ink("#B3BAC0", "Silver"),
        Ink("#E1E5E8", "Mist"),
        Ink("#FFFFFF", "White"),
        Ink("#5E1216", "Oxblood"),
        Ink("#C8262B", "Signal red"),
        Ink("#F0716B", "Coral"),
        Ink("#1D3557", "Navy"),
        Ink("#457B9D", "Glass blue"),
        Ink("#A8CBDD", "Sky blue"),
        Ink("#C9A66B", "Sand"),
        Ink("#4F6B45", "Moss"),
    )
)


@dataclass(frozen=True, slots=True)
class Extract:
    """The request's wish for `n` colours of the photo itself, 2 to 64."""

    n: int


def parse_palette(value: object, *, field: str = "palette") -> Palette | Extract:
    """Read a palette as it stands in the request.

    Args:
        value: a list of hex colours or `{"hex", "name"}` objects, mixed as the caller likes; a text of hex colours
            between commas, semicolons, dashes or white space; a coolors link, which is parsed and never fetched; or
            `{"extract": n}`. A hex colour is `#RRGGBB` or its CSS shorthand `#RGB`, in either case, with or without
            the `#`.
        field: the request field that `value` came from, for the errors.

    Returns:
        The palette in the caller's order, or the wish to take it from the photo.

    Raises:
        PaletteError: the value can't be read; `field` is the element at fault, such as ``palette[2].hex``.
    """
    if isinstance(value, list):
        return build_palette(listed_inks(value, field), field=field)
    if isinstance(value, str):
        return build_palette(_written_inks(value, field), field=field)
    if isinstance(value, dict):
        return _parse_extract(value, field)
    raise PaletteError(f'must be a list of colours, a text or {{"extract": n}}, not {kind_of(value)}', field=field)


def build_palette(placed: Iterable[tuple[str, Ink]], *, field: str) -> Palette:
    """A palette of inks, each with the place that it was read from (an error's `field`).

    Raises:
        PaletteError: a colour comes twice, or there are fewer than 2 or more than 64. Nothing is read past the 65th.
    """
    places: dict[str, str] = {}
    inks: list[Ink] = []
    for place, ink in placed:
        if len(inks) == MAX_INKS:
            raise PaletteError(f"holds more than {MAX_INKS} colours", field=field)
        if ink.hex in places:
            raise PaletteError(f"{quoted(ink.hex)} repeats {places[ink.hex]}", field=place)
        places[ink.hex] = place
        inks.append(ink)
    if len(inks) < MIN_INKS:
        raise PaletteError(f"needs {MIN_INKS} to {MAX_INKS} colours, not {len(inks)}", field=field)
    return Palette(tuple(inks))


def listed_inks(values: Sequence[object], field: str) -> Iterator[tuple[str, Ink]]:
    """The inks of a JSON list with their places, ``field[0]`` onward. Raises PaletteError."""
    for i, value in enumerate(values):
        place = f"{field}[{i}]"
        if isinstance(value, dict):
            yield place, _parse_ink_object(value, place)
        elif isinstance(value, str):
            yield place, make_ink(parse_hex(value, place), "", place)
        else:
            raise PaletteError(f'must be "#RRGGBB" or an object with hex and name, not {kind_of(value)}', field=place)


def _parse_ink_object(value: dict[object, object], place: str) -> Ink:
    _refuse_unknown(value, ("hex", "name"), place)
    if "hex" not in value:
        raise PaletteError('has no "hex"', field=place)
    hex_place, name_place = f"{place}.hex", f"{place}.name"
    colour = parse_hex(_text(value["hex"], hex_place), hex_place)
    return make_ink(colour, _text(value.get("name", ""), name_place), name_place)


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise PaletteError(f"must be text, not {kind_of(value)}", field=place)
    return value


def _refuse_unknown(value: dict[object, object], known: tuple[str, ...], place: str) -> None:
    for key in value:
        if key not in known:
            written = printable(str(key))
            near = get_close_matches(written.lower(), known, n=1, cutoff=0.5)
            meant = " or ".join(quoted(name) for name in (near if near else known))
            raise PaletteError(f"unknown field; did you mean {meant}?", field=f"{place}.{written}")


def parse_hex(text: str, place: str) -> str:
    """`#RRGGBB`, upper case, of `#RRGGBB` or `#RGB` in either case, with or without `#`. Raises PaletteError."""
    written = text.strip()
    found = _HEX.match(written)
    if found is None:
        if _HEX_WITH_ALPHA.match(written):
            raise PaletteError(f"{quoted(text)} has an alpha channel; inks are opaque, write #RRGGBB", field=place)
        raise PaletteError(f"{quoted(text)} is not a hex colour", field=place)
    digits = found[1].upper()
    return "#" + (digits if len(digits) == 6 else "".join(digit * 2 for digit in digits))


def make_ink(hex_colour: str, name: str, place: str) -> Ink:
    """An ink; a blank name gives way to the hex value.

    Raises:
        PaletteError: the name is longer than 80 characters, or holds what XML or a one-line label can't: control
            characters, line separators, lone surrogates, noncharacters.
    """
    label = name.strip()
    if len(label) > MAX_NAME_CHARS:
        raise PaletteError(f"is longer than {MAX_NAME_CHARS} characters", field=place)
    for character in label:
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or ord(character) & 0xFFFE == 0xFFFE:
            raise PaletteError(f"holds U+{ord(character):04X}, which a name can't hold", field=place)
    return Ink(hex_colour, hex_colour if label == "" else label)


def _written_inks(text: str, field: str) -> Iterator[tuple[str, Ink]]:
    if len(text) > MAX_TEXT_CHARS:
        raise PaletteError(f"is longer than {MAX_TEXT_CHARS} characters", field=field)
    written = text.strip()
    if "://" in written or written.lower().startswith(tuple(f"{host}/" for host in _COOLORS_HOSTS)):
        written = _coolors_colours(written, field)
    for i, token in enumerate(token for token in _SEPARATORS.split(written) if token != ""):
        place = f"{field}[{i}]"
        yield place, make_ink(parse_hex(token, place), "", place)


def _coolors_colours(link: str, field: str) -> str:
    """The last step of `https://coolors.co/0b0d10-ffffff` or `https://coolors.co/palette/0b0d10-ffffff`."""
    try:
        parts = urlsplit(link if "://" in link else f"https://{link}")
        host = "" if parts.hostname is None else parts.hostname
    except ValueError:
        raise PaletteError(f"{quoted(link)} is not a link", field=field) from None
    if parts.scheme not in {"http", "https"} or host not in _COOLORS_HOSTS:
        raise PaletteError(f"{quoted(host)} is not a palette site Livery reads; it reads coolors.co links", field=field)
    steps = [step for step in parts.path.split("/") if step != ""]
    if len(steps) == 2 and steps[0] == "palette":
        steps = steps[1:]
    if len(steps) != 1:
        raise PaletteError(f"{quoted(link)} is not a coolors palette link", field=field)
    return steps[0]


def _parse_extract(value: dict[object, object], field: str) -> Extract:
    _refuse_unknown(value, ("extract",), field)
    if "extract" not in value:
        raise PaletteError('is an empty object; write {"extract": n}', field=field)
    n = value["extract"]
    if not isinstance(n, int) or isinstance(n, bool):
        raise PaletteError(f"must be a whole number, not {kind_of(n)}", field=f"{field}.extract")
    if not MIN_INKS <= n <= MAX_INKS:
        raise PaletteError(f"must be from {MIN_INKS} to {MAX_INKS}", field=f"{field}.extract")
    return Extract(n)


def kind_of(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def printable(text: str) -> str:
    """`text` for a message: cut at 40 characters, and what doesn't print (control characters, surrogates) escaped."""
    cut = text if len(text) <= _MAX_ECHO_CHARS else text[:_MAX_ECHO_CHARS] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def quoted(text: str) -> str:
    """`printable(text)` in double quotes."""
    return f'"{printable(text)}"'


def palette_json_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of what `parse_palette` takes. It can't say that colours are distinct once normalised."""
    colour = {"type": "string", "pattern": _HEX_PATTERN, "examples": ["#C8262B"]}
    name = {"type": "string", "maxLength": MAX_NAME_CHARS, "description": "layer name in the SVG; else the hex value"}
    ink = {
        "type": "object",
        "properties": {"hex": colour, "name": name},
        "required": ["hex"],
        "additionalProperties": False,
    }
    count = {"type": "integer", "minimum": MIN_INKS, "maximum": MAX_INKS}
    return {
        "description": f"{MIN_INKS} to {MAX_INKS} distinct colours",
        "oneOf": [
            {"type": "array", "items": {"oneOf": [colour, ink]}, "minItems": MIN_INKS, "maxItems": MAX_INKS},
            {"type": "string", "maxLength": MAX_TEXT_CHARS, "description": "hex colours, or a coolors link"},
            {
                "type": "object",
                "properties": {"extract": count},
                "required": ["extract"],
                "additionalProperties": False,
                "description": "take this many colours from the photo",
            },
        ],
    }


# A palette from the photo. A shade is the commonest colour of one cell of the RGB cube; the cube is cut as coarsely as
# still gives _SHADES cells, so that a foggy picture is cut finer than a colourful one.
_SHADES = 1024
_COARSEST_BITS = 4
# Cells with less than this part of the picture's weight are sensor and JPEG noise.
_NOISE_SHARE = 20_000
# How far an 8-bit step to a neighbour halves a pixel's weight: edge pixels are blends, not colours of the subject.
_EDGE_STEP = 8
# The darkest and the lightest ink stand at this quantile of their groups, not in the middle.
_END_QUANTILE = 0.2
# Weight of a shade: at chroma 100 it counts _CHROMA_BONUS more for a group, and 1 + _VIVID_BONUS × 100 for its ink.
_CHROMA_BONUS = 1.0
_VIVID_BONUS = 0.3

_SPREAD: U32 = np.array([sum(((byte >> bit) & 1) << (3 * bit) for bit in range(8)) for byte in range(256)], np.uint32)
"""uint32 [256]: the bits of a byte, two zeros between each; three of them make a Morton code."""


def extract_palette(rgb: U8, n: int, weight: F32 | None = None) -> Palette:
    """Choose `n` colours of a photo, each of which occurs in it.

    Shades are merged pairwise, cheapest first (pairwise nearest neighbour, Equitz 1989), in CIE L*a*b*. A shade counts
    with the square root of its share, and more the more chromatic it is, so that a tail light stands up to a sky. The
    inks are shades near the groups' chromatic middles; the darkest and the lightest keep near the ends of theirs.
    Integers and exactly rounded operations in a fixed order only: the same bytes on any machine.

    Args:
        rgb: uint8 [H, W, 3], sRGB.
        n: number of inks, 2 to 64.
        weight: float32 [H, W], relative importance of each pixel, finite and ≥ 0; 0 leaves a pixel out. None counts
            all alike.

    Returns:
        `n` inks from dark to light (by L*, then by hex), named by their hex values.

    Raises:
        PaletteError: the photo has fewer than `n` distinct colours.
        ValueError: `n` or `weight` is out of range.
    """
    if not MIN_INKS <= n <= MAX_INKS:
        raise ValueError(f"n must be from {MIN_INKS} to {MAX_INKS}")
    codes, mass = _weighted_colours(rgb, _pixel_weight(rgb, weight))
    if len(codes) < n:
        raise PaletteError(f"asks for {n} colours of a photo that has {len(codes)}", field="palette.extract")
    codes, mass = _without_noise(*_shades(codes, mass), n)
    shades = _rgb_of_code(codes)
    lab = srgb_to_lab(shades)
    chroma = np.sqrt(lab[:, 1] * lab[:, 1] + lab[:, 2] * lab[:, 2])
    first = _merge_shades(lab, np.sqrt(mass) * (1.0 + _CHROMA_BONUS / 100.0 * chroma), n)
    group = np.unique(first, return_inverse=True)[1]
    centre = _group_centres(lab, mass * (1.0 + _VIVID_BONUS / 100.0 * chroma * chroma), group)
    chosen = _representatives(lab, mass, group, centre)
    hexes = sorted((float(lab[i, 0]), "#{:02X}{:02X}{:02X}".format(*shades[i].tolist())) for i in chosen)
    return Palette(tuple(Ink(value, value) for _, value in hexes))


def _pixel_weight(rgb: U8, weight: F32 | None) -> U32:
    """uint32 [H, W], 0 to 255: the caller's weight, less where the pixel differs from one of its four neighbours."""
    levels = rgb.astype(np.int16)
    step = np.zeros(rgb.shape[:2], np.int16)
    across = np.abs(levels[:, 1:] - levels[:, :-1]).max(axis=2, initial=0)
    down = np.abs(levels[1:] - levels[:-1]).max(axis=2, initial=0)
    for view, difference in ((step[:, 1:], across), (step[:, :-1], across), (step[1:], down), (step[:-1], down)):
        np.maximum(view, difference, out=view)
    flat = (255 * _EDGE_STEP // (_EDGE_STEP + step.astype(np.int32))).astype(np.uint32)
    if weight is None:
        return flat
    if weight.shape != flat.shape or not np.isfinite(weight).all() or weight.min() < 0 or weight.max() == 0:
        raise ValueError("weight must be finite, ≥ 0 and somewhere above 0, and of the picture's size")
    scaled = np.rint(weight / weight.max() * flat.astype(np.float32)).astype(np.uint32)
    return np.where(weight > 0, np.maximum(scaled, 1), 0).astype(np.uint32)


def _weighted_colours(rgb: U8, weight: U32) -> tuple[I64, I64]:
    """The distinct colours that weigh anything: Morton codes int64 [C], rising, and the sums of weight int64 [C]."""
    code = (_SPREAD[rgb[..., 0]] << 2) | (_SPREAD[rgb[..., 1]] << 1) | _SPREAD[rgb[..., 2]]
    packed = np.sort(((code << 8) | weight)[weight > 0])
    codes, weights = (packed >> 8).astype(np.int64), (packed & 255).astype(np.int64)
    first = np.flatnonzero(np.diff(codes, prepend=-1))
    return codes[first], np.add.reduceat(weights, first)


def _shades(codes: I64, mass: I64) -> tuple[I64, I64]:
    """The commonest colour of each cell of the RGB cube (the lowest code of equals) and the cell's mass."""
    for bits in range(_COARSEST_BITS, 9):
        first = np.flatnonzero(np.diff(codes >> (3 * (8 - bits)), prepend=-1))
        if len(first) >= _SHADES:
            break
    # Mass above, the code's complement below: one maximum finds the commonest, and the lowest code of equals.
    best = np.maximum.reduceat((mass << 24) | (0xFFFFFF - codes), first)
    return 0xFFFFFF - (best & 0xFFFFFF), np.add.reduceat(mass, first)


def _without_noise(codes: I64, mass: I64, n: int) -> tuple[I64, I64]:
    count = max(n, int(np.count_nonzero(mass >= mass.sum() // _NOISE_SHARE)))
    kept = np.sort(np.argsort(-mass, kind="stable")[:count])
    return codes[kept], mass[kept]


def _rgb_of_code(codes: I64) -> U8:
    """uint8 [S, 3] of Morton codes."""
    rgb = np.zeros((len(codes), 3), np.uint8)
    for channel in range(3):
        for bit in range(8):
            rgb[:, channel] |= (((codes >> (3 * bit + 2 - channel)) & 1) << bit).astype(np.uint8)
    return rgb


@inlined
def _merge_cost(lab: F64, weight: F64, i: int, j: int) -> float:
    """Growth of the weighted squared error when groups i and j become one."""
    dl, da, db = lab[i, 0] - lab[j, 0], lab[i, 1] - lab[j, 1], lab[i, 2] - lab[j, 2]
    return weight[i] * weight[j] / (weight[i] + weight[j]) * (dl * dl + da * da + db * db)  # type: ignore[no-any-return]


@inlined
def _cheapest_partner(lab: F64, weight: F64, alive: I64, i: int) -> tuple[int, float]:
    partner, least = -1, np.inf
    for j in range(len(alive)):
        if alive[j] == 1 and j != i:
            cost = _merge_cost(lab, weight, i, j)
            if cost < least:
                partner, least = j, cost
    return partner, least


@kernel
def _merge_shades(shade_lab: F64, shade_weight: F64, n: int) -> I64:
    """int64 [S]: the first shade of each shade's group, after merging the cheapest pair until `n` groups are left.

    A merged group is never cheaper for a third than both its parts were (the cost is Ward's), so a group whose partner
    was neither part keeps it.
    """
    lab, weight = shade_lab.copy(), shade_weight.copy()
    count = len(weight)
    group = np.arange(count)
    alive = np.ones(count, np.int64)
    partner = np.empty(count, np.int64)
    cost = np.empty(count, np.float64)
    for i in range(count):
        partner[i], cost[i] = _cheapest_partner(lab, weight, alive, i)
    for _ in range(count - n):
        p = int(np.argmin(cost))
        a, b = min(p, partner[p]), max(p, partner[p])
        total = weight[a] + weight[b]
        for k in range(3):
            lab[a, k] = (weight[a] * lab[a, k] + weight[b] * lab[b, k]) / total
        weight[a] = total
        alive[b] = 0
        cost[b] = np.inf
        for i in range(count):
            if group[i] == b:
                group[i] = a
            if alive[i] == 1 and (i == a or partner[i] == a or partner[i] == b):
                partner[i], cost[i] = _cheapest_partner(lab, weight, alive, i)
    return group


def _group_centres(lab: F64, weight: F64, group: I64) -> F64:
    """float64 [n, 3]: weighted means. bincount adds in the order of its input, unlike numpy's sums."""
    total = np.bincount(group, weight)
    return np.stack([np.bincount(group, weight * lab[:, k]) / total for k in range(3)], axis=1)


def _representatives(lab: F64, mass: I64, group: I64, centre: F64) -> list[int]:
    """For each group the shade nearest to its centre; near the end for the darkest and the lightest group."""
    darkest, lightest = int(np.argmin(centre[:, 0])), int(np.argmax(centre[:, 0]))
    chosen = []
    for i in range(len(centre)):
        members = np.flatnonzero(group == i)
        if i in (darkest, lightest):
            inward = lab[members, 0] if i == darkest else -lab[members, 0]
            members = members[np.argsort(inward, kind="stable")]
            reached = np.cumsum(mass[members])
            nearest = np.searchsorted(reached, _END_QUANTILE * float(reached[-1]))
        else:
            square = (lab[members] - centre[i]) * (lab[members] - centre[i])
            nearest = np.argmin(square[:, 0] + square[:, 1] + square[:, 2])
        chosen.append(int(members[nearest]))
    return chosen
