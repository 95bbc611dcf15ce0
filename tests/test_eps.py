"""EPS files show what the PDF shows, in spot colours that a RIP finds by their names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.export.eps import write_eps
from pipeline.export.spots import spot_names
from pipeline.types import U8, Drawing, Ink, Palette, Shape, Tracing
from tests.test_pdf import FLAT, HEIGHT_PX, PALETTE, POINTS_PER_MM, WIDTH_PX, areas_px, by_librsvg, labels, svg_of

GHOSTSCRIPT = pytest.mark.skipif(
    shutil.which("gs") is None, reason="ghostscript is not installed (it is no dependency of Livery)"
)
WIDTH_MM = WIDTH_PX / POINTS_PER_MM
"""One point for each pixel of the map."""


def triangle(ink: int) -> Shape:
    return Shape(ink, "MLLZ", np.array([(0, 0), (900, 0), (900, 900)], dtype=np.int32))


def by_ghostscript(eps: bytes, device: str, dpi: int, folder: Path) -> dict[str, U8]:
    """The pictures that `device` makes of the art's box, by what their file names say in parentheses."""
    (folder / "in.eps").write_bytes(eps)
    quiet = ["-q", "-dSAFER", "-dBATCH", "-dNOPAUSE", "-dEPSCrop", "-dTextAlphaBits=4", "-dGraphicsAlphaBits=4"]
    command = ["gs", *(quiet[:5] if device == "tiffsep" else quiet), f"-sDEVICE={device}", f"-r{dpi}"]
    made = subprocess.run([*command, "-sOutputFile=out.tif", "in.eps"], cwd=folder, capture_output=True, check=True)
    assert made.stdout + made.stderr == b""
    return {path.stem[4:-1]: np.asarray(Image.open(path), dtype=np.uint8) for path in folder.glob("out*.tif")}


@GHOSTSCRIPT
def test_flat_shapes_take_the_area_that_they_take_in_the_svg(tmp_path: Path) -> None:
    colours = [ink.rgb for ink in PALETTE.inks[:5]]
    eps = write_eps(FLAT, PALETTE, width_mm=WIDTH_MM, title="flat")
    shown = labels(by_ghostscript(eps, "tiff24nc", 720, tmp_path)[""], colours)
    assert shown.shape == (10 * HEIGHT_PX, 10 * WIDTH_PX)
    wanted = labels(by_librsvg(svg_of(FLAT, PALETTE), 10 * WIDTH_PX), colours)
    areas, wanted_areas = areas_px(shown, len(colours)), areas_px(wanted, len(colours))
    assert (np.abs(areas - wanted_areas) <= 0.001 * shown.size).all()
    assert (shown != wanted).mean() <= 0.002


@GHOSTSCRIPT
def test_inks_show_in_their_own_colours(tmp_path: Path) -> None:
    inks = Palette(tuple(Ink(f"#{level:02X}{255 - level:02X}{level ^ 0x55:02X}", f"n{level}") for level in range(64)))
    corners = np.array([(0, 0), (400, 0), (400, 400), (0, 400)], dtype=np.int32)
    bars = tuple(Shape(ink, "MLLLZ", corners + np.array([400 * ink, 0], dtype=np.int32)) for ink in range(64))
    eps = write_eps(Drawing("", 256, 4, Tracing(bars)), inks, width_mm=256 / POINTS_PER_MM, title="")
    shown = by_ghostscript(eps, "tiff24nc", 72, tmp_path)[""]
    assert shown[2, 2::4].tolist() == [list(ink.rgb) for ink in inks.inks]


@GHOSTSCRIPT
def test_a_rip_makes_one_plate_for_each_ink(tmp_path: Path) -> None:
    plates = by_ghostscript(write_eps(FLAT, PALETTE, width_mm=WIDTH_MM, title=""), "tiffsep", 72, tmp_path)
    processes = {"Cyan", "Magenta", "Yellow", "Black"}
    assert all((plates.pop(process) == 255).all() for process in processes)
    del plates[""]  # the composite, `out.tif`
    wanted = {re.sub("[^ -~]", "", name) for name in spot_names(PALETTE)[:5]}
    assert {re.sub("%..", lambda code: "/" if code[0] == "%2F" else "", name) for name in plates} == wanted
    assert all((plate < 128).any() for plate in plates.values())


@GHOSTSCRIPT
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40), min_size=2, max_size=3)
)
@settings(max_examples=5, deadline=None)
def test_odd_names_and_titles_are_read(names: list[str]) -> None:
    palette = Palette(tuple(Ink(f"#{number:06X}", name) for number, name in enumerate(names)))
    tracing = Tracing(tuple(triangle(ink) for ink in range(len(names))))
    eps = write_eps(Drawing("", 9, 9, tracing), palette, width_mm=9, title=names[0])
    # `spot` finds the name on the operand stack: here it prints it too, as it was read.
    told = eps.replace(b"/spot {", b"/spot {1 index print (\\377) print ", 1)
    command = ["gs", "-q", "-dSAFER", "-dBATCH", "-dNOPAUSE", "-sDEVICE=nullpage", "-"]
    read = subprocess.run(command, input=told, capture_output=True, check=True).stdout
    assert read.split(b"\xff")[:-1] == [name.encode() for name in spot_names(palette)]


def test_the_header_says_what_the_file_is() -> None:
    lines = write_eps(FLAT, PALETTE, width_mm=100, title="Zwölf (Boxer) \\ \n%%EOF").decode().splitlines()
    assert lines[0] == "%!PS-Adobe-3.0 EPSF-3.0"
    header = lines[: lines.index("%%EndComments")]
    assert "%%BoundingBox: 0 0 284 171" in header
    assert "%%HiResBoundingBox: 0 0 283.464567 170.07874" in header
    assert "%%Title: (Zwölf \\050Boxer\\051 \\134 \\012%%EOF)" in header
    assert "%%LanguageLevel: 2" in header
    assert "%%DocumentCustomColors: (Navy \\050a/b\\051 #1)" in header
    assert "%%RGBCustomColor: 0.11372549 0.207843137 0.341176471 (Navy \\050a/b\\051 #1)" in header
    assert [line for line in header if "Façade" in line] == [
        "%%+ (Façade rouge)",
        "%%+ 0.784313725 0.149019608 0.168627451 (Façade rouge)",
    ]
    assert not any("never used" in line for line in lines)
    assert lines[-1] == "%%EOF"
    assert lines.count("%%EOF") == 1


def test_long_texts_leave_lines_that_the_conventions_allow() -> None:
    palette = Palette(tuple(Ink(ink.hex, "日" * 120) for ink in PALETTE.inks))
    eps = write_eps(FLAT, palette, width_mm=100, title="日" * 500)
    assert max(len(line) for line in eps.split(b"\n")) <= 255


@pytest.mark.parametrize("name", ["nul \0", "half \ud800"])
def test_names_that_are_no_names_are_refused(name: str) -> None:
    palette = Palette(tuple(Ink(ink.hex, name) for ink in PALETTE.inks))
    with pytest.raises(ValueError, match=r"U\+0000|surrogates"):
        write_eps(FLAT, palette, width_mm=9, title="")


def test_the_same_shapes_give_the_same_bytes_here_and_in_another_process() -> None:
    eps = write_eps(FLAT, PALETTE, width_mm=123.4, title="Zwölf")
    assert write_eps(FLAT, PALETTE, width_mm=123.4, title="Zwölf") == eps
    code = (
        "import sys; from tests.test_eps import *;"
        "sys.stdout.buffer.write(write_eps(FLAT, PALETTE, width_mm=123.4, title='Zwölf'))"
    )
    root = Path(__file__).resolve().parent.parent
    again = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert again.stdout == eps
