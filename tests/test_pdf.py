"""PDFs show what the SVG shows, in spot colours and layers that other readers find by their names."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pikepdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pikepdf import Name, Pdf
from PIL import Image

from pipeline.export.pdf import MARGIN_MM, write_pdf, write_separations
from pipeline.export.png import render_png
from pipeline.export.spots import LONGEST_NAME_BYTES, spot_names
from pipeline.export.svg import path_data
from pipeline.palette import DEFAULT_PALETTE
from pipeline.types import U8, Drawing, IndexMap, Ink, Mask, Palette, Shape, Tracing
from pipeline.vectorize import VectorizeOptions, vectorize
from tests.scene import Scene

POINTS_PER_MM = 72 / 25.4
POPPLER = pytest.mark.skipif(
    shutil.which("pdftoppm") is None, reason="poppler's pdftoppm is not installed (it is no dependency of Livery)"
)
GHOSTSCRIPT = pytest.mark.skipif(
    shutil.which("gs") is None, reason="ghostscript is not installed (it is no dependency of Livery)"
)

PALETTE = Palette(
    (
        Ink("#1D3557", "Navy (a/b) #1"),
        Ink("#C8262B", "Façade rouge"),
        Ink("#FFD000", "黄色"),
        Ink("#00A050", "Navy (a/b) #1"),
        Ink("#FFFFFF", "All"),
        Ink("#000000", "never used"),
    )
)


def drawn(ink: int, outline: str) -> Shape:
    """A shape from letters and whole numbers in 1/100 px, as `Shape` has them."""
    numbers = np.array(re.findall(r"-?\d+", outline), dtype=np.int32)
    return Shape(ink, "".join(re.findall("[A-Z]", outline)), numbers.reshape(-1, 2))


def triangle(ink: int) -> Shape:
    return drawn(ink, "M 0 0 L 900 0 L 900 900 Z")


def flat() -> Tracing:
    """Large flat shapes on 200 × 120 px, with every command, a hole, and an ink that comes back."""
    return Tracing(
        (
            drawn(0, "M 0 0 L 20000 0 L 20000 9000 L 0 9000 Z"),
            drawn(1, "M 2000 5000 A 3000 3000 0 1 8000 5000 A 3000 3000 0 1 2000 5000 Z"),
            drawn(2, "M 12000 5000 A 4500 2500 3000 3 16000 6000 C 15000 9000 12500 9500 12000 5000 Z"),
            drawn(
                3,
                "M 1000 9500 L 19000 9500 L 19000 11500 L 1000 11500 Z"
                "M 5000 10000 L 5000 11000 L 15000 11000 L 15000 10000 Z",
            ),
            drawn(0, "M 4000 4000 L 6000 4000 L 5000 6000 Z"),
            drawn(4, "M 14000 500 C 19500 500 19500 3500 14000 3500 C 12500 3000 12500 1000 14000 500 Z"),
        )
    )


WIDTH_PX, HEIGHT_PX = 200, 120
FLAT = Drawing("", WIDTH_PX, HEIGHT_PX, flat())


@pytest.fixture(scope="module")
def traced(scene: Scene) -> Drawing:
    """The project's scene, smoothed, each pixel given to the nearest ink, traced."""
    rgb = cv2.medianBlur(scene.rgb, 9).astype(np.int32)
    away = np.stack([((rgb - ink.rgb) ** 2).sum(axis=2) for ink in DEFAULT_PALETTE.inks])
    return vectorize(IndexMap(away.argmin(axis=0).astype(np.uint8), DEFAULT_PALETTE), VectorizeOptions())


def svg_of(drawing: Drawing, palette: Palette) -> Drawing:
    """The same shapes as SVG, one path for each in painter's order, in the plainest way."""
    paths = [f'<path fill="{palette.inks[s.ink].hex}" d="{path_data(s)}"/>' for s in drawing.tracing.shapes]
    root = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width_px} {drawing.height_px}">'
    return Drawing(f"{root}{''.join(paths)}</svg>", drawing.width_px, drawing.height_px)


def by_poppler(pdf: bytes, width_px: int, height_px: int) -> U8:
    """The first page, anti-aliased on white paper: uint8 [H, W, 3]."""
    size = ["-scale-to-x", str(width_px), "-scale-to-y", str(height_px)]
    shown = subprocess.run(["pdftoppm", *size, "-singlefile", "-"], input=pdf, capture_output=True, check=True)
    assert shown.stderr == b""
    return np.asarray(Image.open(io.BytesIO(shown.stdout)), dtype=np.uint8)


def by_librsvg(drawing: Drawing, width_px: int) -> U8:
    """The same of an SVG."""
    picture = Image.open(io.BytesIO(render_png(drawing, width_px).data)).convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(paper, picture).convert("RGB"))


def labels(rgb: U8, colours: Iterable[tuple[int, int, int]]) -> U8:
    """The nearest of `colours` for each pixel: uint8 [H, W]."""
    shown, where = np.unique(rgb.reshape(-1, 3).astype(np.int32) @ (1 << 16, 1 << 8, 1), return_inverse=True)
    channels = np.stack([shown >> 16, shown >> 8 & 255, shown & 255], axis=1)
    away = [((channels - colour) ** 2).sum(axis=1) for colour in colours]
    nearest: U8 = np.argmin(away, axis=0).astype(np.uint8)[where.ravel()].reshape(rgb.shape[:2])
    return nearest


def areas_px(label: U8, inks: int) -> npt.NDArray[np.int64]:
    return np.bincount(label.ravel(), minlength=inks)


def opened(pdf: bytes) -> Pdf:
    return Pdf.open(io.BytesIO(pdf))


def spots_of(pdf: bytes) -> list[str]:
    """The names of all Separation colour spaces of the first page."""
    with opened(pdf) as document:
        spaces = document.pages[0].Resources.ColorSpace
        assert all(space[0] == Name.Separation for space in spaces.values())
        return [str(space[1])[1:] for space in spaces.values()]


def layers_of(pdf: bytes) -> list[str]:
    """The names of the layers as an editor lists them, the topmost first."""
    with opened(pdf) as document:
        return [str(layer.Name) for layer in document.Root.OCProperties.D.Order]


def steps_of(pdf: bytes) -> list[tuple[str, list[pikepdf.Object]]]:
    """The first page's operators with their operands."""
    with opened(pdf) as document:
        steps = pikepdf.parse_content_stream(document.pages[0])
        return [(str(step.operator), list(step.operands)) for step in steps]


def boxes_of(pdf: bytes) -> tuple[list[float], list[float], int]:
    """The first page's MediaBox and TrimBox, in points, and the points in its unit."""
    with opened(pdf) as document:
        page = document.pages[0]
        unit = int(page.get("/UserUnit", 1))
        media, trim = ([float(side) * unit for side in box] for box in (page.MediaBox, page.TrimBox))
        return media, trim, unit


def palette_named(*names: str) -> Palette:
    return Palette(tuple(Ink(f"#{number:06X}", name) for number, name in enumerate(names)))


@POPPLER
@pytest.mark.parametrize("width_mm", [3.0, 100.0, 50_000.0])
def test_flat_shapes_take_the_area_that_they_take_in_the_svg(width_mm: float) -> None:
    colours = [ink.rgb for ink in PALETTE.inks[:5]]  # white is the paper too
    pdf = write_pdf(FLAT, PALETTE, width_mm=width_mm, title="flat")
    width_px, height_px = 5 * WIDTH_PX, 5 * HEIGHT_PX
    shown = labels(by_poppler(pdf, width_px, height_px), colours)
    wanted = labels(by_librsvg(svg_of(FLAT, PALETTE), width_px), colours)
    areas, wanted_areas = areas_px(shown, len(colours)), areas_px(wanted, len(colours))
    assert (wanted_areas > 0.01 * shown.size).all()
    assert (np.abs(areas - wanted_areas) <= 0.001 * shown.size).all()
    assert (shown != wanted).mean() <= 0.002


@POPPLER
def test_a_whole_scene_takes_the_area_that_it_takes_in_the_svg(traced: Drawing) -> None:
    pdf = write_pdf(traced, DEFAULT_PALETTE, width_mm=200, title="scene")
    colours = [ink.rgb for ink in DEFAULT_PALETTE.inks]
    width_px, height_px = 2 * traced.width_px, 2 * traced.height_px
    shown = labels(by_poppler(pdf, width_px, height_px), colours)
    for svg in (traced, svg_of(traced, DEFAULT_PALETTE)):
        wanted = labels(by_librsvg(svg, width_px), colours)
        areas, wanted_areas = areas_px(shown, len(colours)), areas_px(wanted, len(colours))
        assert (np.abs(areas - wanted_areas) <= 0.001 * shown.size).all()
    assert (shown != wanted).mean() <= 0.01
    assert len(layers_of(pdf)) == len(traced.uses)
    assert len(pdf) < len(traced.svg.encode())


@POPPLER
def test_inks_show_in_their_own_colours() -> None:
    inks = Palette(tuple(Ink(f"#{level:02X}{255 - level:02X}{level ^ 0x55:02X}", f"n{level}") for level in range(64)))
    bars = tuple(
        drawn(ink, f"M {left} 0 L {left + 400} 0 L {left + 400} 400 L {left} 400 Z")
        for ink, left in enumerate(range(0, 25_600, 400))
    )
    shown = by_poppler(write_pdf(Drawing("", 256, 4, Tracing(bars)), inks, width_mm=64, title=""), 512, 8)
    assert shown[4, 4::8].tolist() == [list(ink.rgb) for ink in inks.inks]


@POPPLER
def test_a_layer_that_is_switched_off_is_not_shown() -> None:
    pdf = write_pdf(FLAT, PALETTE, width_mm=100, title="")
    colours = [ink.rgb for ink in PALETTE.inks[:4]]
    before = labels(by_poppler(pdf, WIDTH_PX, HEIGHT_PX), [*colours, (255, 255, 255)])
    for ink in range(4):
        with opened(pdf) as document:
            view = document.Root.OCProperties.D
            view.OFF = pikepdf.Array([layer for layer in view.Order if layer.Name == spot_names(PALETTE)[ink]])
            assert len(view.OFF) == 1
            file = io.BytesIO()
            document.save(file)
        after = labels(by_poppler(file.getvalue(), WIDTH_PX, HEIGHT_PX), [*colours, (255, 255, 255)])
        assert (before == ink).sum() > 500
        assert (after == ink).sum() < 0.02 * (before == ink).sum()
        others = (before != ink) & (before != 4)
        assert (after == before)[others].mean() > 0.98


def test_layers_are_listed_from_the_top_down_and_inks_that_are_not_used_are_left_out() -> None:
    pdf = write_pdf(FLAT, PALETTE, width_mm=100, title="")
    names = spot_names(PALETTE)
    assert layers_of(pdf) == [names[ink] for ink in (4, 3, 2, 1, 0)]
    assert sorted(spots_of(pdf)) == sorted(names[:5])
    with opened(pdf) as document:
        properties = document.pages[0].Resources.Properties
        assert sorted(str(layer.Name) for layer in properties.values()) == sorted(names[:5])


def test_shapes_of_one_ink_in_a_row_share_a_section() -> None:
    tracing = Tracing(tuple(triangle(ink) for ink in (0, 0, 1, 1, 1, 0)))
    steps = steps_of(write_pdf(Drawing("", 9, 9, tracing), PALETTE, width_mm=9, title=""))
    assert [operands[1] for name, operands in steps if name == "BDC"] == ["/L0", "/L1", "/L0"]
    assert [operands[0] for name, operands in steps if name == "cs"] == ["/S0", "/S1", "/S0"]
    assert "".join(name[0] for name, _ in steps if name in {"BDC", "f", "EMC"}) == "BffEBfffEBfE"


def test_nothing_to_draw_is_an_empty_page() -> None:
    pdf = write_pdf(Drawing("", 30, 20), PALETTE, width_mm=60, title="")
    assert layers_of(pdf) == []
    assert boxes_of(pdf)[0] == pytest.approx([0, 0, 60 * POINTS_PER_MM, 40 * POINTS_PER_MM])


@given(st.floats(0.5, 100_000), st.integers(1, 8192), st.integers(1, 8192))
@settings(max_examples=40, deadline=None)
def test_the_page_is_as_wide_as_asked_and_no_larger_than_pdf_allows(
    width_mm: float, width_px: int, height_px: int
) -> None:
    media, trim, unit = boxes_of(write_pdf(Drawing("", width_px, height_px), PALETTE, width_mm=width_mm, title=""))
    height_mm = width_mm * height_px / width_px
    assert media == pytest.approx([0, 0, width_mm * POINTS_PER_MM, height_mm * POINTS_PER_MM], rel=1e-7)
    assert trim == media
    assert max(media) / unit <= 14_400 * (1 + 1e-7)
    assert unit == 1 or max(media) / (unit - 1) > 14_400 * (1 - 1e-7)


@pytest.mark.parametrize("title", ["", "Zwölf (Boxer) \\ 日本", "x" * 500])
def test_the_title_is_in_the_document_s_information(title: str) -> None:
    with opened(write_pdf(FLAT, PALETTE, width_mm=100, title=title)) as document:
        assert str(document.docinfo.Title) == title
        assert set(document.docinfo.keys()) == {"/Title"}
        assert document.pdf_version >= "1.6"


NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=120),
    st.sampled_from(["All", "None", "Red", "Red 2", "#", "日" * 80]),
)


@given(st.lists(NAMES, min_size=2, max_size=12))
@settings(max_examples=60, deadline=None)
def test_names_are_kept_and_told_apart(names: list[str]) -> None:
    palette = palette_named(*names)
    tracing = Tracing(tuple(triangle(ink) for ink in range(len(names))))
    pdf = write_pdf(Drawing("", 9, 9, tracing), palette, width_mm=9, title="")
    spots = spot_names(palette)
    assert sorted(spots_of(pdf)) == sorted(spots)
    assert layers_of(pdf) == list(spots[::-1])
    assert len({*spots, "All", "None"}) == len(names) + 2
    for at, (name, spot) in enumerate(zip(names, spots, strict=True)):
        assert len(spot.encode()) <= LONGEST_NAME_BYTES
        number = re.search(r" \d+$", spot)
        if spot != name and len(name.encode()) <= LONGEST_NAME_BYTES:
            assert name in {"All", "None", *spots[:at]}
            assert number is not None
        assert name.startswith(spot) or (number is not None and name.startswith(spot[: number.start()]))


@pytest.mark.parametrize(
    "name", ["a (b)) c", "a/b//c", "Grün è ñ", "日本の赤", "#1 #41", "%<>[]{}", "n" * 120, "a\\b", "-", "日" * 80]
)
def test_odd_names_are_read_back(name: str) -> None:
    palette = palette_named(name, "x")
    pdf = write_pdf(Drawing("", 9, 9, Tracing((triangle(0),))), palette, width_mm=9, title="")
    (wanted,) = spots_of(pdf)
    assert wanted == name if len(name.encode()) <= LONGEST_NAME_BYTES else name.startswith(wanted)
    assert layers_of(pdf) == [wanted]


@pytest.mark.parametrize("name", ["nul \0", "half \ud800"])
def test_names_that_are_no_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"U\+0000|surrogates"):
        write_pdf(FLAT, palette_named(*[name] * 6), width_mm=9, title="")


def separations(drawing: Drawing, palette: Palette, *, marks: bool, width_mm: float = 100) -> dict[int, bytes]:
    plates: Mapping[int, list[Shape]] = {ink: [s for s in drawing.tracing.shapes if s.ink == ink] for ink in range(5)}
    return write_separations(
        plates, palette, drawing.width_px, drawing.height_px, width_mm=width_mm, registration_marks=marks, title="t"
    )


@pytest.mark.parametrize("marks", [False, True])
def test_each_plate_has_one_spot_colour(marks: bool) -> None:
    plates = separations(FLAT, PALETTE, marks=marks)
    assert list(plates) == [0, 1, 2, 3, 4]
    for ink, pdf in plates.items():
        assert sorted(spots_of(pdf)) == sorted([spot_names(PALETTE)[ink], *(["All"] if marks else [])])
        with opened(pdf) as document:
            assert len(document.pages) == 1
            assert "/OCProperties" not in document.Root


@pytest.mark.parametrize("width_mm", [8.0, 100.0, 6_000.0])
def test_marks_stand_outside_the_art(width_mm: float) -> None:
    height_mm = width_mm * HEIGHT_PX / WIDTH_PX
    art = [side_mm * POINTS_PER_MM for side_mm in (0, 0, width_mm, height_mm)]
    plain, plain_trim, _ = boxes_of(separations(FLAT, PALETTE, marks=False, width_mm=width_mm)[0])
    page, trim, _ = boxes_of(separations(FLAT, PALETTE, marks=True, width_mm=width_mm)[0])
    margin = MARGIN_MM * POINTS_PER_MM
    assert plain == plain_trim == pytest.approx(art, rel=1e-6)
    assert page == pytest.approx([0, 0, art[2] + 2 * margin, art[3] + 2 * margin], rel=1e-6)
    assert trim == pytest.approx([margin, margin, art[2] + margin, art[3] + margin], rel=1e-6)


def spans(strip: Mask) -> bool:
    """Whether a line of 5 mm, 10 pixels each, runs through the middle of `strip` (bool [H, W])."""
    inked = np.flatnonzero(strip.any(axis=0))
    return set(range(6, strip.shape[1] - 6)) <= set(inked.tolist())


@POPPLER
def test_a_plate_shows_its_ink_where_it_is_and_the_marks_around_it() -> None:
    per_mm, margin = 10, round(10 * MARGIN_MM)
    size_px = 100 * per_mm + 2 * margin, 60 * per_mm + 2 * margin
    plain = separations(FLAT, PALETTE, marks=False)
    for ink, pdf in separations(FLAT, PALETTE, marks=True).items():
        shown = by_poppler(pdf, *size_px)
        art = shown[margin:-margin, margin:-margin]
        apart = np.abs(art.astype(int) - by_poppler(plain[ink], 100 * per_mm, 60 * per_mm)).max(axis=2)
        assert (apart > 48).mean() < 0.0002
        ring: Mask = shown.max(axis=2) < 128
        ring[margin - 10 : 10 - margin, margin - 10 : 10 - margin] = False
        middle_x, middle_y = size_px[0] // 2, size_px[1] // 2
        off = round(4.5 * per_mm)  # a registration mark's centre lies 4.5 mm off the trim
        for x, y in (
            (middle_x, margin - off), (middle_x, size_px[1] - margin + off),
            (margin - off, middle_y), (size_px[0] - margin + off, middle_y),
        ):  # fmt: skip
            around = ring[y - 30 : y + 31, x - 30 : x + 31]
            assert spans(around[28:33])
            assert spans(around[:, 28:33].T)
            assert 150 < around.sum() < 700
        for x in (margin, size_px[0] - margin):
            assert ring[35:75, x - 2 : x + 2].any(axis=1).all()
            assert ring[-75:-35, x - 2 : x + 2].any(axis=1).all()


def label_of(pdf: bytes) -> str:
    return next(bytes(operands[0]).decode("cp1252") for name, operands in steps_of(pdf) if name == "Tj")


def test_the_label_names_the_ink() -> None:
    labels_of = [label_of(pdf) for pdf in separations(FLAT, PALETTE, marks=True).values()]
    assert labels_of[:3] == ["Navy (a/b) #1 #1D3557", "Façade rouge #C8262B", "#FFD000"]
    unnamed = Palette(tuple(Ink(ink.hex, ink.hex) for ink in PALETTE.inks))
    assert label_of(separations(FLAT, unnamed, marks=True)[0]) == "#1D3557"


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler's pdftotext is not installed")
@pytest.mark.parametrize("width_mm", [5.0, 100.0])
def test_the_label_is_readable_text_on_the_page(width_mm: float) -> None:
    names = Palette(tuple(Ink(ink.hex, f"{'Façade-' * 16}{number}") for number, ink in enumerate(PALETTE.inks)))
    pdf = separations(FLAT, names, marks=True, width_mm=width_mm)[1]
    found = subprocess.run(["pdftotext", "-bbox", "-", "-"], input=pdf, capture_output=True, check=True).stdout.decode()
    words = re.findall(r'xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">([^<]*)', found)
    assert [word for *_, word in words] == [f"{'Façade-' * 16}1", "#C8262B"]
    for left, _, right, _, _ in words:
        assert 0 < float(left) < float(right) < (width_mm + 2 * MARGIN_MM) * POINTS_PER_MM


@GHOSTSCRIPT
def test_a_rip_makes_one_plate_for_each_ink_and_knocks_the_lower_ones_out(tmp_path: Path) -> None:
    named = Palette(tuple(Ink(ink.hex, f"spot{number}") for number, ink in enumerate(PALETTE.inks)))
    (tmp_path / "in.pdf").write_bytes(write_pdf(FLAT, named, width_mm=WIDTH_PX / POINTS_PER_MM, title=""))
    quiet = ["-q", "-dSAFER", "-dBATCH", "-dNOPAUSE"]
    command = ["gs", *quiet, "-sDEVICE=tiffsep", "-r1152", "-sOutputFile=out.tif", "in.pdf"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    plates = {path.name[4:-5]: np.asarray(Image.open(path)) for path in tmp_path.glob("out(*).tif")}
    spots = [f"spot{ink}" for ink in range(5)]
    processes = ["Cyan", "Magenta", "Yellow", "Black"]
    assert sorted(plates) == sorted([*spots, *processes])
    assert all((plates[process] == 255).all() for process in processes)
    recoloured = Palette(tuple(Ink(hex, "") for hex in ("#FF0000", "#00FF00", "#0000FF", "#FFFF00", "#FF00FF")))
    colours = [*(ink.rgb for ink in recoloured.inks), (255, 255, 255)]
    label = labels(by_librsvg(svg_of(FLAT, recoloured), 5 * WIDTH_PX), colours)
    for ink, spot in enumerate(spots):
        assert (plates[spot] < 128).mean() == pytest.approx((label == ink).mean(), abs=0.001)


def everything() -> list[bytes]:
    return [
        write_pdf(FLAT, PALETTE, width_mm=123.4, title="Zwölf"),
        *separations(FLAT, PALETTE, marks=True).values(),
        *separations(FLAT, PALETTE, marks=False).values(),
    ]


def test_the_same_shapes_give_the_same_bytes_here_and_in_another_process() -> None:
    digest = hashlib.sha256(b"".join(everything())).hexdigest()
    assert hashlib.sha256(b"".join(everything())).hexdigest() == digest
    code = (
        f"import hashlib; from {__name__} import everything; print(hashlib.sha256(b''.join(everything())).hexdigest())"
    )
    root = Path(__file__).resolve().parent.parent
    again = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == digest


def test_no_file_says_when_or_by_what_it_was_made() -> None:
    for pdf in everything():
        with opened(pdf) as document:
            text = "\n".join(repr(item) for item in document.objects)
        assert "/Title" in text
        assert not re.search(r"Date|D:\d{4}|Producer|Creator", text)
