"""Palettes: what the request and the palette files may say, and what is taken from a photo."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.colour import delta_e, srgb_to_lab
from pipeline.errors import PaletteError
from pipeline.palette import (
    DEFAULT_PALETTE,
    Extract,
    extract_palette,
    palette_json_schema,
    parse_palette,
)
from pipeline.palette_files import MAX_FILE_BYTES, read_palette_file
from pipeline.types import U8, Palette


def hexes(value: object) -> tuple[str, ...]:
    palette = parse_palette(value)
    assert isinstance(palette, Palette)
    return palette.hexes


def refused(value: object) -> str:
    """The error's text, which begins with its field."""
    with pytest.raises(PaletteError) as caught:
        parse_palette(value)
    assert caught.value.field is not None
    assert str(caught.value) == f"{caught.value.field}: {caught.value.message}"
    return str(caught.value)


def outcome_of(call: Callable[[], Palette | Extract]) -> Palette | Extract | PaletteError:
    """What `call` returns, or its PaletteError; any other exception is the test's failure."""
    try:
        return call()
    except PaletteError as error:
        return error


class TestRequest:
    def test_default_is_the_fifteen_named_inks(self) -> None:
        listed = [{"hex": ink.hex, "name": ink.name} for ink in DEFAULT_PALETTE.inks]
        assert parse_palette(listed) == DEFAULT_PALETTE
        assert len(DEFAULT_PALETTE) == 15
        assert len({ink.name for ink in DEFAULT_PALETTE.inks} - set(DEFAULT_PALETTE.hexes)) == 15

    def test_list_keeps_order_and_mixes_forms(self) -> None:
        palette = parse_palette(
            ["#c8262b", {"hex": "1D3557", "name": "  Navy "}, "#FFF", {"hex": "#000000", "name": ""}]
        )
        assert isinstance(palette, Palette)
        assert [(ink.hex, ink.name) for ink in palette.inks] == [
            ("#C8262B", "#C8262B"),
            ("#1D3557", "Navy"),
            ("#FFFFFF", "#FFFFFF"),
            ("#000000", "#000000"),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "#0b0d10,#C8262B,#fff",
            "0B0D10 c8262b FFFFFF",
            " #0b0d10;\n#c8262b ;\t#ffffff\n",
            "0b0d10-c8262b-ffffff",
            "https://coolors.co/0b0d10-c8262b-ffffff",
            "http://www.coolors.co/palette/0b0d10-c8262b-ffffff/",
            "HTTPS://Coolors.co/palette/0b0d10-c8262b-ffffff?ref=mail#top",
            "coolors.co/0b0d10-c8262b-ffffff",
        ],
    )
    def test_text(self, text: str) -> None:
        assert hexes(text) == ("#0B0D10", "#C8262B", "#FFFFFF")

    def test_extract(self) -> None:
        assert [parse_palette({"extract": n}) for n in (2, 64)] == [Extract(2), Extract(64)]

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (["#FFFFFF", "#000", "#GG0011"], 'palette[2]: "#GG0011" is not a hex colour'),
            (["#FFF", "#12345"], 'palette[1]: "#12345" is not a hex colour'),
            (["#FFF", ""], 'palette[1]: "" is not a hex colour'),
            (["#FFF", "#１２３"], 'palette[1]: "#１２３" is not a hex colour'),
            (["#FFF", "#FF0000\n#00F"], 'palette[1]: "#FF0000\\n#00F" is not a hex colour'),
            (["#FFFFFFFF", "#000"], 'palette[0]: "#FFFFFFFF" has an alpha channel; inks are opaque, write #RRGGBB'),
            (["#FFFFFF", "#000", "#123", "fff"], 'palette[3]: "#FFFFFF" repeats palette[0]'),
            ("fff-000-FFFFFF", 'palette[2]: "#FFFFFF" repeats palette[0]'),
            ("#fff, red", 'palette[1]: "red" is not a hex colour'),
            ([], "palette: needs 2 to 64 colours, not 0"),
            ("", "palette: needs 2 to 64 colours, not 0"),
            (["#fff"], "palette: needs 2 to 64 colours, not 1"),
            ([f"#{i:06x}" for i in range(65)], "palette: holds more than 64 colours"),
            ("f" * 4097, "palette: is longer than 4096 characters"),
            (None, 'palette: must be a list of colours, a text or {"extract": n}, not null'),
            (15, 'palette: must be a list of colours, a text or {"extract": n}, not a number'),
            (["#fff", None], 'palette[1]: must be "#RRGGBB" or an object with hex and name, not null'),
            ([True, "#fff"], 'palette[0]: must be "#RRGGBB" or an object with hex and name, not a boolean'),
            ([["#fff"]], 'palette[0]: must be "#RRGGBB" or an object with hex and name, not a list'),
            ([{"hexx": "#fff"}], 'palette[0].hexx: unknown field; did you mean "hex"?'),
            ([{"hex": "#fff", "Nmae": ""}], 'palette[0].Nmae: unknown field; did you mean "name"?'),
            ([{"hex": "#fff", "\x00" * 50: 1}], f"palette[0].{chr(92)}x00"),
            ([{"name": "Red"}], 'palette[0]: has no "hex"'),
            ([{"hex": 0}], "palette[0].hex: must be text, not a number"),
            ([{"hex": "#fff", "name": None}], "palette[0].name: must be text, not null"),
            ([{"hex": "#fff", "name": "é" * 81}], "palette[0].name: is longer than 80 characters"),
            ([{"hex": "#fff", "name": "a\x00b"}], "palette[0].name: holds U+0000, which a name can't hold"),
            ([{"hex": "#fff", "name": "a\ud800"}], "palette[0].name: holds U+D800, which a name can't hold"),
            ([{"hex": "#fff", "name": "a\uffff"}], "palette[0].name: holds U+FFFF, which a name can't hold"),
            ("https://palettes.example/0b0d10-c8262b", 'palette: "palettes.example" is not a palette site'),
            ("https://coolors.co@evil.example/0b0d10-c8262b", 'palette: "evil.example" is not a palette site'),
            ("ftp://coolors.co/0b0d10-c8262b", 'palette: "coolors.co" is not a palette site'),
            ("https://coolors.co/a/b/0b0d10-c8262b", "palette: "),
            ("https://coolors.co/generate", 'palette[0]: "generate" is not a hex colour'),
            ("https://[", 'palette: "https://[" is not a link'),
            ({}, 'palette: is an empty object; write {"extract": n}'),
            ({"extrct": 5}, 'palette.extrct: unknown field; did you mean "extract"?'),
            ({"hex": "#fff"}, 'palette.hex: unknown field; did you mean "extract"?'),
            ({"extract": True}, "palette.extract: must be a whole number, not a boolean"),
            ({"extract": 5.0}, "palette.extract: must be a whole number, not a number"),
            ({"extract": "5"}, "palette.extract: must be a whole number, not text"),
            ({"extract": 1}, "palette.extract: must be from 2 to 64"),
            ({"extract": 65}, "palette.extract: must be from 2 to 64"),
            ({"extract": 10**5000}, "palette.extract: must be from 2 to 64"),
        ],
    )
    def test_refused_by_element(self, value: object, message: str) -> None:
        assert refused(value).startswith(message)

    def test_field_is_the_callers(self) -> None:
        with pytest.raises(PaletteError) as caught:
            parse_palette(["#fff", "#ggg"], field="job.palette")
        assert caught.value.field == "job.palette[1]"

    def test_echo_is_cut_and_printable(self) -> None:
        message = refused(["#fff", "\x1b[31m" + "\ud800" + "x" * 100_000])
        assert message.isprintable()
        assert message.encode("utf-8").startswith(b'palette[1]: "\\x1b[31m\\ud800xxx')
        assert len(message) < 120

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.sampled_from(["#fff", "000", "c-d"]),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["hex", "name", "extract", "x"]), inner),
            max_leaves=12,
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_anything_is_a_palette_or_a_palette_error(self, value: object) -> None:
        outcome = outcome_of(lambda: parse_palette(value))
        if isinstance(outcome, PaletteError):
            json.dumps(outcome.as_reply(), allow_nan=False).encode("utf-8")
            assert str(outcome).isprintable()
        if isinstance(outcome, Palette):
            assert 2 <= len(set(outcome.hexes)) == len(outcome) <= 64
            assert all(re.fullmatch("#[0-9A-F]{6}", value) for value in outcome.hexes)
            for ink in outcome.inks:
                escape(ink.name).encode("utf-8")

    def test_schema_agrees_with_the_parser(self) -> None:
        array, text, extract = palette_json_schema()["oneOf"]
        colour, ink = array["items"]["oneOf"]
        for value in ("#C8262B", "c8262b", "#fff", "#ffff", "#GGG", "##fff", "#fff\n", "", "#FFFFFFFF"):
            read = re.search(colour["pattern"].replace("$", r"\Z"), value) is not None
            if value.strip() == value:
                assert read == ("is not a hex" not in refused([value]) and "alpha" not in refused([value]))
        assert (array["minItems"], array["maxItems"]) == (2, 64)
        assert ink["additionalProperties"] is False
        assert "longer" in refused("f" * (text["maxLength"] + 1))
        assert "longer" not in refused("f" * text["maxLength"])
        bounds = extract["properties"]["extract"]
        assert parse_palette({"extract": bounds["minimum"]}) == Extract(2)
        assert parse_palette({"extract": bounds["maximum"]}) == Extract(64)
        json.dumps(palette_json_schema(), allow_nan=False)


def ase(*colours: tuple[str, bytes, tuple[float, ...]], grouped: bool = False) -> bytes:
    def text(name: str) -> bytes:
        units = (name + "\0").encode("utf-16-be", "surrogatepass")
        return struct.pack(">H", len(units) // 2) + units

    blocks = []
    if grouped:
        blocks.append((0xC001, text("Group")))
    for name, model, values in colours:
        blocks.append((0x0001, text(name) + model + struct.pack(f">{len(values)}f", *values) + struct.pack(">H", 2)))
    if grouped:
        blocks.append((0xC002, b""))
    packed = b"".join(struct.pack(">HI", kind, len(body)) + body for kind, body in blocks)
    return b"ASEF" + struct.pack(">HHI", 1, 0, len(blocks)) + packed


def aco(version: int, *colours: tuple[int, tuple[int, ...], str]) -> bytes:
    out = struct.pack(">HH", version, len(colours))
    for space, values, name in colours:
        out += struct.pack(">H", space) + struct.pack(">4H", *(value & 0xFFFF for value in values))
        if version == 2:
            units = (name + "\0").encode("utf-16-be")
            out += struct.pack(">I", len(units) // 2) + units
    return out


ASE_FILE = ase(
    ("Signal red", b"RGB ", (200 / 255, 38 / 255, 43 / 255)),
    ("Cyan 🚗", b"CMYK", (1.0, 0.0, 0.0, 0.0)),
    ("", b"Gray", (0.5,)),
    ("Paper", b"LAB ", (1.0, 0.0, 0.0)),
    grouped=True,
)
ACO_COLOURS = (
    (0, (0xC8C8, 0x2626, 0x2B00, 0), "Signal red"),
    (1, (65535 // 3, 65535, 65535, 0), "Green"),
    (2, (0, 65535, 65535, 65535), "Cyan"),
    (7, (10000, 0, 0, 0), "Paper"),
    (8, (5000, 0, 0, 0), "Grey"),
)
ACO_FILE = aco(1, *ACO_COLOURS) + aco(2, *ACO_COLOURS)
FILES = {
    "p.gpl": b"GIMP Palette\nName: x\nColumns: 4\n#\n200  38  43\tSignal red\n  0 0 0\tUntitled\n255 255 255\n",
    "p.ase": ASE_FILE,
    "p.aco": ACO_FILE,
    "p.csv": b"hex,name\r\n#C8262B,Signal red\r\n000,\r\n",
    "p.json": b'{"name": "x", "colors": ["#C8262B", {"hex": "#000", "name": "Black"}]}',
    "p.txt": b"\xef\xbb\xbf#C8262B\n\n000000\n",
    "p.hex": b"c8262b\r000000\r",
}


def named(data: bytes, filename: str) -> list[tuple[str, str]]:
    return [(ink.hex, ink.name) for ink in read_palette_file(data, filename).inks]


def file_refused(data: bytes, filename: str) -> str:
    with pytest.raises(PaletteError) as caught:
        read_palette_file(data, filename)
    return str(caught.value)


class TestFiles:
    def test_gimp(self) -> None:
        assert named(FILES["p.gpl"], "p.gpl") == [
            ("#C8262B", "Signal red"),
            ("#000000", "#000000"),
            ("#FFFFFF", "#FFFFFF"),
        ]

    def test_adobe_exchange(self) -> None:
        assert named(ASE_FILE, "Brand.ASE") == [
            ("#C8262B", "Signal red"),
            ("#00FFFF", "Cyan 🚗"),
            ("#808080", "#808080"),
            ("#FFFFFF", "Paper"),
        ]

    def test_adobe_colour_version_2_replaces_version_1(self) -> None:
        colours = ["#C8262B", "#00FF00", "#00FFFF", "#FFFFFF", "#808080"]
        names = ["Signal red", "Green", "Cyan", "Paper", "Grey"]
        assert named(ACO_FILE, "p.aco") == list(zip(colours, names, strict=True))
        assert named(aco(2, *ACO_COLOURS), "p.aco") == list(zip(colours, names, strict=True))
        assert named(aco(1, *ACO_COLOURS), "p.aco") == list(zip(colours, colours, strict=True))

    @pytest.mark.parametrize(
        ("lab", "rgb"),
        # Published D50 values of the sRGB primaries, Bradford-adapted.
        [
            ((54.29, 80.81, 69.89), (255, 0, 0)),
            ((87.82, -79.29, 80.99), (0, 255, 0)),
            ((29.57, 68.30, -112.03), (0, 0, 255)),
            ((53.39, 0.0, 0.0), (127, 127, 127)),
        ],
    )
    def test_lab_is_relative_to_d50(self, lab: tuple[float, float, float], rgb: tuple[int, int, int]) -> None:
        data = ase(("x", b"LAB ", (lab[0] / 100, lab[1], lab[2])), ("y", b"CMYK", (0.25, 0.5, 0.75, 0.2)))
        first, second = read_palette_file(data, "p.ase").inks
        assert np.abs(np.subtract(first.rgb, rgb)).max() <= 1
        assert second.rgb == (153, 102, 51)

    @pytest.mark.parametrize(
        "text",
        [
            "#C8262B,Signal red\n#000000,Red\n",
            "200,38,43,Signal red\n0,0,0,Red\n",
            "hex;name;share\n#C8262B;Signal red;12\n#000;Red;88\n",
            "Name\tHex\nSignal red\tC8262B\nRed\t000000\n",
            'R, G, B, Name\n200, 38, 43, "Signal red"\n\n0, 0, 0, Red,,\n',
        ],
    )
    def test_csv(self, text: str) -> None:
        assert named(text.encode(), "p.csv") == [("#C8262B", "Signal red"), ("#000000", "Red")]

    def test_csv_colour_named_like_a_column(self) -> None:
        assert named(b"#C8262B,Red\n#00F,B\n", "p.csv") == [("#C8262B", "Red"), ("#0000FF", "B")]

    @pytest.mark.parametrize(
        "text", ['["#C8262B", "#000"]', '{"palette": ["#C8262B", {"hex": "#000"}], "author": "x"}']
    )
    def test_json(self, text: str) -> None:
        assert named(text.encode(), "p.json") == [("#C8262B", "#C8262B"), ("#000000", "#000000")]

    def test_hex_lists(self) -> None:
        for filename in ("p.txt", "p.hex"):
            assert named(FILES[filename], filename) == [("#C8262B", "#C8262B"), ("#000000", "#000000")]

    @pytest.mark.parametrize(
        ("data", "filename", "message"),
        [
            (b"", "/home/jo/secret/brand.xyz", 'brand.xyz: ".xyz" is not a palette format Livery reads'),
            (b"", "C:\\Users\\jo\\brand", 'brand: "" is not a palette format'),
            (b"#fff\n#000\nfff\n", "dir/brand.txt", 'brand.txt line 3: "#FFFFFF" repeats brand.txt line 1'),
            (b"#fff\n\n#ggg\n", "brand.hex", 'brand.hex line 3: "#ggg" is not a hex colour'),
            (b"", "a.txt", "a.txt: needs 2 to 64 colours, not 0"),
            (b"", "a.csv", "a.csv: needs 2 to 64 colours, not 0"),
            (b"\xff\xfe#", "a.txt", "a.txt: is not UTF-8 text"),
            (b"#" * (MAX_FILE_BYTES + 1), "a.txt", "a.txt: is larger than 1048576 bytes"),
            (b"\n".join(b"%06x" % i for i in range(65)), "a.hex", "a.hex: holds more than 64 colours"),
            (b"JASC-PAL\n", "a.gpl", 'a.gpl line 1: does not begin with "GIMP Palette"'),
            (b"GIMP Palette\n0 0 256\n", "a.gpl", 'a.gpl line 2: "256" is not a whole number from 0 to 255'),
            (b"GIMP Palette\n0 0\n", "a.gpl", 'a.gpl line 2: "0 0" is not a colour'),
            (b"GIMP Palette\nChannels: RGBA\n", "a.gpl", 'a.gpl line 2: "Channels: RGBA" is not a colour'),
            (b"#fff,White,,x\n", "a.csv", "a.csv line 1: has 4 cells"),
            (b"r,g,b\n1,2\n", "a.csv", 'a.csv line 2: "" is not a whole number'),
            (b"1,2,300\n", "a.csv", 'a.csv line 1: "300" is not a whole number'),
            (b'#fff,"White\n', "a.csv", "a.csv line "),
            (b"[" * 100_000, "a.json", "a.json: is not JSON"),
            (b"{}", "a.json", 'a.json: must have its colours under one of "colors" and "palette"'),
            (b'{"palette": {"extract": 4}}', "a.json", "a.json palette: must be a list of colours, not an object"),
            (b'["#fff", 3]', "a.json", "a.json[1]: must be"),
            (b"ASEX", "a.ase", "a.ase: is not an Adobe Swatch Exchange file"),
            (ASE_FILE[:-1], "a.ase", "a.ase: is cut short"),
            (ase(("x", b"RGB ", (float("nan"), 0, 0))), "a.ase", "a.ase colour 1: has a RGB value outside 0 to 1"),
            (ase(("x", b"LAB ", (0.5, 1e30, 0))), "a.ase", "a.ase colour 1: has a Lab value outside -128 to 128"),
            (ase(("x", b"XYZ ", (0, 0, 0))), "a.ase", 'a.ase colour 1: has the unknown colour model "XYZ "'),
            (ase(("\ud800", b"Gray", (0.0,))), "a.ase", "a.ase colour 1: holds U+D800"),
            (b"\0\3\0\0", "a.aco", "a.aco: is not an Adobe Color file of version 1 or 2"),
            (aco(1, (3, (0, 0, 0, 0), "")), "a.aco", "a.aco colour 1: has colour space 3"),
            (aco(1, (8, (10001, 0, 0, 0), "")), "a.aco", "a.aco: needs 2"),
            (aco(1, (8, (20000, 0, 0, 0), "")), "a.aco", "a.aco colour 1: has a Gray value outside 0 to 1"),
            (aco(2, (0, (0, 0, 0, 0), "x"))[:-1], "a.aco", "a.aco colour 1: is cut short"),
        ],
    )
    def test_refused_by_place(self, data: bytes, filename: str, message: str) -> None:
        assert file_refused(data, filename).startswith(message)

    @pytest.mark.parametrize("filename", sorted(FILES))
    def test_damaged_files_never_raise_anything_else(self, filename: str) -> None:
        rng = np.random.default_rng(7)
        original = FILES[filename]
        for _ in range(400):
            data = bytearray(original)
            for _ in range(rng.integers(1, 5)):
                data[rng.integers(len(data))] = rng.integers(256)
            survives_or_is_refused(bytes(data[: rng.integers(len(data) + 1)]), filename)

    @given(st.binary(max_size=300), st.sampled_from(sorted(FILES)), st.integers(0, 40))
    @settings(max_examples=200, deadline=None)
    def test_any_bytes_are_a_palette_or_refused(self, tail: bytes, filename: str, kept: int) -> None:
        survives_or_is_refused(FILES[filename][:kept] + tail, filename)


def survives_or_is_refused(data: bytes, filename: str) -> None:
    outcome = outcome_of(lambda: read_palette_file(data, filename))
    if isinstance(outcome, PaletteError):
        assert str(outcome).isprintable()
        assert outcome.field is not None
        assert outcome.field.startswith(filename)
    else:
        assert isinstance(outcome, Palette)
        assert 2 <= len(set(outcome.hexes)) == len(outcome) <= 64


def street(height_px: int = 240, width_px: int = 360) -> U8:
    """A dark blue car on grey ground under a pale sky, with noise; a red light of 0.09 %, a yellow one of 0.04 %."""
    rng = np.random.default_rng(3)
    y = np.arange(height_px)[:, None, None]
    rgb = np.where(y < 90, np.array([176, 190, 204]) + y // 4, np.array([104, 102, 100]) - y // 8)
    rgb = np.broadcast_to(rgb, (height_px, width_px, 3)).copy()
    rgb[90:170, 60:300] = (26, 52, 98)
    rgb[100:125, 90:260] = (150, 172, 184)
    rgb[165:190, 90:125] = rgb[165:190, 230:265] = (12, 12, 14)
    rgb = rgb + rng.integers(-5, 6, rgb.shape)
    rgb[140:148, 62:72] = (204, 22, 30)
    rgb[140:146, 290:296] = (240, 176, 20)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def nearest_delta_e(palette: Palette, colour: tuple[int, int, int]) -> float:
    return float(delta_e(srgb_to_lab(palette.rgb()), srgb_to_lab(np.array(colour, np.uint8))).min())


PINNED_STREET_8 = ("#0C0911", "#1A3362", "#514B4E", "#53524E", "#CC161E", "#95ACB8", "#F0B014", "#BFD0DD")


class TestExtraction:
    def test_inks_are_distinct_colours_of_the_photo_from_dark_to_light(self) -> None:
        rgb = street()
        present = {f"#{r:02X}{g:02X}{b:02X}" for r, g, b in np.unique(rgb.reshape(-1, 3), axis=0)}
        for n in (2, 3, 8, 15, 64):
            palette = extract_palette(rgb, n)
            assert len(set(palette.hexes)) == len(palette) == n
            assert set(palette.hexes) <= present
            assert [ink.name for ink in palette.inks] == list(palette.hexes)
            assert (np.diff(srgb_to_lab(palette.rgb())[:, 0]) >= 0).all()

    def test_flat_art_gives_back_its_own_colours(self) -> None:
        art = DEFAULT_PALETTE.rgb()[np.random.default_rng(1).integers(0, 15, (40, 60))]
        assert set(extract_palette(art, 15).hexes) == set(DEFAULT_PALETTE.hexes)

    def test_near_equal_colours_still_count(self) -> None:
        rgb = np.array([[[250, 250, 250], [251, 250, 250], [250, 251, 250]]], np.uint8)
        assert extract_palette(rgb, 3).hexes == ("#FAFAFA", "#FBFAFA", "#FAFBFA")

    def test_single_pixels_fill_up_what_flat_areas_leave_open(self) -> None:
        rgb = np.zeros((400, 400, 3), np.uint8)
        rgb[200:] = 255
        rgb[100, 10:390:5] = [(i, 255 - i, i // 2) for i in range(0, 228, 3)]
        assert {"#000000", "#FFFFFF"} < set(extract_palette(rgb, 64).hexes)

    @pytest.mark.parametrize("n", [6, 8, 15])
    def test_small_lights_get_an_ink(self, n: int) -> None:
        palette = extract_palette(street(), n)
        assert nearest_delta_e(palette, (204, 22, 30)) < 5
        assert n == 6 or nearest_delta_e(palette, (240, 176, 20)) < 5

    def test_dark_and_light_ends_are_kept(self) -> None:
        for n in (4, 8, 15):
            lightness = srgb_to_lab(extract_palette(street(), n).rgb())[:, 0]
            assert lightness[0] < 5
            assert lightness[-1] > 80

    def test_too_few_colours_says_how_many_there_are(self) -> None:
        rgb = np.zeros((4, 4, 3), np.uint8)
        rgb[0, 0], rgb[1, 1] = (255, 0, 0), (0, 255, 0)
        with pytest.raises(PaletteError, match="asks for 4 colours of a photo that has 3") as caught:
            extract_palette(rgb, 4)
        assert caught.value.field == "palette.extract"
        assert len(extract_palette(rgb, 3)) == 3

    def test_weight_leaves_pixels_out(self) -> None:
        rgb = street()
        weight = np.zeros(rgb.shape[:2], np.float32)
        weight[100:125, 90:260] = 0.001
        palette = extract_palette(rgb, 4, weight)
        assert max(nearest_delta_e(palette, (150, 172, 184)), *(50 - srgb_to_lab(palette.rgb())[:, 0])) < 5
        pair = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
        assert len(extract_palette(pair, 2, np.array([[1.0, 1e-9]], np.float32))) == 2
        everywhere = np.full(rgb.shape[:2], 0.25, np.float32)
        assert extract_palette(rgb, 8, everywhere) == extract_palette(rgb, 8)

    @pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 0.0])
    def test_senseless_weight_is_refused(self, bad: float) -> None:
        with pytest.raises(ValueError, match="weight"):
            extract_palette(street(), 4, np.full((240, 360), bad, np.float32))

    @pytest.mark.parametrize("n", [1, 65])
    def test_senseless_count_is_refused(self, n: int) -> None:
        with pytest.raises(ValueError, match="2 to 64"):
            extract_palette(street(), n)

    def test_same_inks_on_any_machine_and_thread_count(self) -> None:
        assert extract_palette(street(), 8).hexes == PINNED_STREET_8
        script = "from tests.test_palette import *; print(*extract_palette(street(), 8).hexes)"
        env = os.environ | {"LIVERY_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=root, env=env, capture_output=True, text=True, check=True
        )
        assert tuple(done.stdout.split()) == PINNED_STREET_8

    @given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(2, 64))
    @settings(max_examples=40, deadline=None)
    def test_any_picture_gives_n_inks_or_the_count(self, seed: int, height_px: int, width_px: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        rgb = (rng.integers(0, 256, (height_px, width_px, 3)) // rng.integers(1, 100)).astype(np.uint8)
        distinct = len(np.unique(rgb.reshape(-1, 3), axis=0))
        if distinct >= n:
            assert len(set(extract_palette(rgb, n).hexes)) == n
        else:
            with pytest.raises(PaletteError, match=f"has {distinct}$"):
                extract_palette(rgb, n)


@pytest.mark.skipif("LIVERY_PHOTOS" not in os.environ, reason="LIVERY_PHOTOS names no folder of test photos")
class TestPhotos:
    @pytest.mark.parametrize(
        ("photo", "n", "colours"),
        [
            ("06_sedan_red_34.jpg", 8, [(168, 40, 52), (190, 205, 220)]),
            ("08_truck_container.jpg", 15, [(175, 36, 50), (115, 140, 180), (212, 180, 92), (255, 255, 255)]),
            ("02_classics_dusk_clutter.jpg", 4, [(0, 0, 0), (148, 8, 86), (172, 204, 226)]),
        ],
    )
    def test_the_vehicles_colours_survive(self, photo: str, n: int, colours: list[tuple[int, int, int]]) -> None:
        picture = Image.open(Path(os.environ["LIVERY_PHOTOS"]) / photo).convert("RGB")
        picture.thumbnail((1024, 1024))
        palette = extract_palette(np.asarray(picture), n)
        assert max(nearest_delta_e(palette, colour) for colour in colours) < 8
